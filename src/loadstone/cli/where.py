"""`loadstone where PROGRAM ADDRESS|SYMBOL|FILE+OFFSET [--at exec|main|exit]`."""

from __future__ import annotations

import argparse
from argparse import Namespace
from typing import TYPE_CHECKING, TextIO

from loadstone.cli import machine_options, stopped
from loadstone.cli.parser import Parser
from loadstone.cli.programs import cannot_execute
from loadstone.errors import HostError, LinuxError

if TYPE_CHECKING:
    from loadstone.api import Machine, Process

_ABOUT = """\
Follow one place through all three spaces: file offset, section, segment, VMA,
page, every level of the page tables, frame, and who else maps that frame.

PLACE is an address (0x555555558040), a symbol (main, main+0x10), or a file's
name and an offset in it (libc.so.6+0x1000). Arguments for the program follow
PLACE; those that begin with - follow a --.
"""
_EXAMPLES = """\
Examples:
  loadstone where /bin/ls main --at main
  loadstone where ./prog table --at exit
  loadstone where /bin/ls /bin/ls+0x4000
  loadstone where --at exit ./prog 0x7ffff7dd0000 -- --an-option of-the-program
"""


def parser() -> Parser:
    """The options of `where`."""
    usage = "[--at WHEN] [OPTION]... PROGRAM PLACE [[--] ARG...]"
    made = Parser("where", usage, _ABOUT, _EXAMPLES)
    stopped.add_moment(made)
    machine_options.add_all(made)
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    return made


def main(argv: list[str]) -> int:
    """Run the command; the exit status."""
    made = parser()
    end = argv.index("--") if "--" in argv else len(argv)
    options = made.parse_intermixed_args(argv[:end])
    words = options.words + argv[end + 1 :]
    if len(words) < 2:
        made.error("a program and a place in it are needed: loadstone where /bin/ls main --at main")
    program, place, *arguments = words
    try:
        with stopped.stopped(options, [program, *arguments]) as (machine, process, stream):
            _answer(options, place, machine, process, stream)
    except LinuxError as error:
        return cannot_execute(program, error)
    return 0


def _answer(options: Namespace, place: str, machine: Machine, process: Process, stream: TextIO) -> None:
    from loadstone.observe.space import mappings_of, symbolizer
    from loadstone.observe.where import NotFound, Situation, follow, locate, parse
    from loadstone.report.where import write_answers

    symbols = symbolizer(process.inner.space)
    spaces = [(p.pid, mappings_of(p.space), p.space.page_table) for p in machine.kernel.processes.values()]
    situation = Situation(process.pid, symbols, process.page_table, machine.physical, spaces)
    try:
        query = parse(place, [mapping.path for mapping in symbols.maps])
        known = {"main": process.registers["rip"]} if options.at == "main" else {}
        spots = locate(query, symbols, process.executable, known)
    except NotFound as error:
        raise HostError(str(error), "see loadstone where --help for what a place is") from error
    answers = [follow(query.text, spot, situation) for spot in spots]
    write_answers(answers, stopped.MOMENTS[options.at], stream)
    stream.flush()
