"""The option that registers formats with binfmt_misc."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING

from loadstone.errors import HostError, LinuxError

if TYPE_CHECKING:
    from loadstone.api import Machine
    from loadstone.cli.parser import Parser


def add_binfmt_option(parser: Parser) -> None:
    """`--binfmt`."""
    add = parser.group("How exec works")
    add(
        "--binfmt",
        metavar="FORMAT",
        action="append",
        default=[],
        help="register FORMAT, as in ':py:E::py::/usr/bin/python3:', with binfmt_misc; may be repeated",
    )


def register_formats(machine: Machine, options: Namespace) -> None:
    """Register the formats asked for. Raises HostError."""
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
    for text in options.binfmt:
        try:
            found.append(os.fsdecode(parse(os.fsencode(text), 256).interpreter))
        except LinuxError:
            continue  # register_formats says why
    return found
