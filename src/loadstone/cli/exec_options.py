"""The options about what exec and a crash do: formats of binfmt_misc, core files."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING

from loadstone.cli import values
from loadstone.errors import HostError, LinuxError

if TYPE_CHECKING:
    from loadstone.api import Machine
    from loadstone.cli.parser import Parser


def add_exec_options(parser: Parser) -> None:
    """`--binfmt`."""
    add = parser.group("How exec works")
    add(
        "--binfmt",
        metavar="FORMAT",
        action="append",
        default=[],
        help="register FORMAT, as in ':py:E::py::/usr/bin/python3:', with binfmt_misc; may be repeated",
    )


def add_core_option(parser: Parser) -> None:
    """`--core`."""
    add = parser.group("When it crashes")
    add(
        "--core",
        metavar="WHERE",
        type=values.path,
        help="write an ELF core file for gdb: WHERE is a directory (for core.PID) or the file",
    )


def apply_exec_options(machine: Machine, options: Namespace) -> None:
    """Register the formats, say where core files go. Raises HostError."""
    if getattr(options, "core", None):
        machine.dump_cores(options.core)
    for text in options.binfmt:
        try:
            machine.register_format(text)
        except LinuxError as error:
            raise HostError(
                f"--binfmt {text}: {error}",
                "a format is ':name:M:offset:magic:mask:interpreter:flags' or ':name:E::...'",
            ) from None


def interpreters(options: Namespace) -> list[str]:
    """The interpreters of the formats asked for, as far as their registrations make sense."""
    from loadstone.binfmt.misc import parse

    found = []
    for text in getattr(options, "binfmt", ()):  # not all commands that build a machine have it
        try:
            found.append(os.fsdecode(parse(os.fsencode(text), 256).interpreter))
        except LinuxError:
            continue  # apply_exec_options says why
    return found
