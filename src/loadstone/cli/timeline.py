"""`loadstone timeline RECORD`: who ran on which CPU when, drawn from a record of events."""

from __future__ import annotations

import argparse

from loadstone.cli import values
from loadstone.cli.parser import Parser
from loadstone.errors import HostError
from loadstone.observe.processes import History
from loadstone.observe.replay import read_record

_NEVER = 1 << 62
_ABOUT = """\
Draw the processes of a recorded run: who ran on which CPU when, who was ready,
blocked or stopped, who forked, executed, woke and waited for whom. The picture
is one SVG file that any browser shows.
"""
_EXAMPLES = """\
Examples:
  loadstone run --deterministic --record run.jsonl make -j4
  loadstone timeline run.jsonl -o run.svg
  loadstone timeline run.jsonl --from 430ms --to 450ms -o closer.svg
  loadstone timeline run.jsonl --table

`loadstone run --timeline run.svg PROGRAM` draws the same without a record.

Exit status: 0; 125 when RECORD is none, or the picture cannot be written.
"""


def parser() -> Parser:
    """The options of `timeline`."""
    made = Parser("timeline", "[OPTION]... RECORD", _ABOUT, _EXAMPLES)
    add = made.group("Options")
    about = "write the picture to FILE.svg instead of standard output"
    add("-o", dest="output", metavar="FILE.svg", type=values.path, help=about)
    add("--from", dest="begin", metavar="TIME", type=values.moment, help="begin there: 430ms, 1.2s (default: 0)")
    add("--to", dest="end", metavar="TIME", type=values.moment, help="end there (default: the end)")
    add("--table", action="store_true", help="print the process tree, and what each process took, instead")
    made.add_argument("record", metavar="RECORD", help=argparse.SUPPRESS)
    return made


def main(argv: list[str]) -> int:
    """Run the command; the exit status."""
    made = parser()
    options = made.parse_args(argv)
    if options.table and options.output:
        made.error("-o is where the picture is written to; --table prints a table instead")
    window = (options.begin or 0, options.end if options.end is not None else _NEVER)
    if options.table and window != (0, _NEVER):
        made.error("--from and --to are of the picture; the table is of the whole run")
    if window[0] >= window[1]:
        made.error("--from is not before --to")
    try:
        with open(options.record, encoding="utf-8", errors="surrogateescape") as file:
            header, events = read_record(file, options.record, History.KINDS)
            history = History(details=not options.table)
            for event in events:
                history(event)
    except OSError as error:
        raise HostError(f"{options.record} cannot be read: {error.strerror}") from error
    history.pause()
    if not history.processes:
        raise HostError(f"{options.record} tells of no process; was it recorded by an older version?")
    if options.table:
        _print_table(history)
    else:
        _write_picture(history, header, options.output, window)
    return 0


def _print_table(history: History) -> None:
    from loadstone.cli.main import output
    from loadstone.report.paper import Paper
    from loadstone.report.processes import print_processes

    print_processes(history, Paper(output()))


def _write_picture(history: History, header: dict[str, object], path: str | None, window: tuple[int, int]) -> None:
    from loadstone.cli.main import output
    from loadstone.report.timeline import draw
    from loadstone.report.units import duration

    command = header.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else [""]
    lasted = history.until - history.began
    if window[0] >= lasted:
        raise HostError("--from is after the end of the run", f"it lasted {duration(lasted)}")
    picture = draw(history, words, str(header.get("engine", "?")), window)
    if path is None:
        output().write(picture)
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(picture)
    except OSError as error:
        raise HostError(f"-o: {path} cannot be written: {error.strerror}") from error
