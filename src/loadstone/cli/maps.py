"""`loadstone maps [--at exec|main|exit] PROGRAM [ARG…]`."""

from __future__ import annotations

from loadstone.cli import machine_options, stopped
from loadstone.cli.parser import Parser, add_program, program_words
from loadstone.cli.programs import cannot_execute
from loadstone.errors import LinuxError

_ABOUT = """\
Print a program's memory map, in the format of /proc/PID/maps. With --at main or
exit the program is run so far, its standard output going to standard error.
"""
_EXAMPLES = """\
Examples:
  loadstone maps /bin/ls
  loadstone maps --at exit python3 -c 'import json'

Exit status: 0; 126 and 127 as a shell has them; 125 Loadstone's own failure.
"""


def parser() -> Parser:
    """The options of `maps`."""
    made = Parser("maps", "[--at WHEN] [OPTION]... [--] PROGRAM [ARG]...", _ABOUT, _EXAMPLES)
    stopped.add_moment(made)
    machine_options.add_all(made)
    add_program(made)
    return made


def main(argv: list[str]) -> int:
    """Run the command; the exit status."""
    made = parser()
    options = made.parse_args(argv)
    words = program_words(made, options.words)
    try:
        with stopped.stopped(options, words) as (_, process, stream):
            stream.write(process.maps)
            stream.flush()
    except LinuxError as error:
        return cannot_execute(words[0], error)
    return 0
