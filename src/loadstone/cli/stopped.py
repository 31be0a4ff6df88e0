"""A process stopped where `--at` says, for the commands that look at one."""

from __future__ import annotations

import gc
import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from loadstone.cli import machine_options
from loadstone.cli.parser import Parser
from loadstone.errors import HostError

if TYPE_CHECKING:
    from loadstone.api import Machine, Process

MOMENTS = {
    "exec": "before the first instruction",
    "main": "when main is called",
    "exit": "when it exits",
}


def add_moment(parser: Parser) -> None:
    """`--at`."""
    add = parser.group("When to look")
    about = "exec (default): before the first instruction; main: when it is called; exit"
    add("--at", metavar="WHEN", choices=tuple(MOMENTS), default="exec", help=about)


@contextmanager
def stopped(options: Namespace, words: list[str]) -> Iterator[tuple[Machine, Process, TextIO]]:
    """(machine, process, stream for the report) with the process at the moment asked for. Raises LinuxError, HostError.

    While it runs, the program's standard output is our standard error: standard output is the report's.
    """
    guest = machine_options.environment(options)
    path = machine_options.find(options, words[0], guest)
    arguments = machine_options.machine_arguments(options, path)
    from loadstone.api import Machine

    with Machine(**arguments) as machine, _report_stream(options.at) as stream:
        process = machine.spawn(path, words, guest, **machine_options.surroundings(options))
        gc.enable()
        if options.at == "main":
            _run_to_main(process, words[0])
        elif options.at == "exit":
            process.run_until("exit")
        yield machine, process, stream


def _run_to_main(process: Process, program: str) -> None:
    from loadstone.errors import LinuxError

    try:
        reached = process.run_until("main")
    except (KeyError, LookupError, LinuxError) as error:
        raise HostError(
            f"{program} has no symbol main", "a stripped program has none; try --at exec or --at exit"
        ) from error
    if not reached:
        raise HostError(f"{program} ended before it came to main")


@contextmanager
def _report_stream(moment: str) -> Iterator[TextIO]:
    from loadstone.cli.main import output

    if moment == "exec":
        yield output()
        return
    output().flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with open(os.dup(kept), "w", encoding="utf-8", errors="surrogateescape") as stream:
            yield stream
    finally:
        os.dup2(kept, 1)
        os.close(kept)
