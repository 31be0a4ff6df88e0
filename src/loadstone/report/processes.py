"""`--processes`: the process tree of a run as a table, with what each took and what it waited for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from loadstone.observe.processes import RUNNING, History, Process
from loadstone.observe.text import printable
from loadstone.report.paper import DIM, Column, Paper, count
from loadstone.report.units import duration

ALIKE = 5  # so many childless siblings that ran and ended alike share a row
_NARROWEST_COMMAND, _NARROWEST_WAIT, _INDENT = 16, 15, 2
_WIDE = 90  # columns from which there is room for all of them
_HEADINGS = ("pid", "command", "status", "CPU", "faults", "calls", "runs", "longest wait")
_NUMBERS = ("pid", "CPU", "faults", "calls", "runs")


class Row(NamedTuple):
    """One line of the table: `processes` are one, or several that are alike; `tree` is drawn before the command."""

    tree: str
    processes: list[Process]


def print_processes(history: History, paper: Paper) -> None:
    """The tree of all processes, and how often the CPUs went from one to another."""
    rows = list(_rows(history.roots))
    everybody = [process for row in rows for process in row.processes]
    paper.title("Processes")
    cells = [_cells(row) for row in rows]
    cells.append(_total(everybody))
    shown = [heading for heading in _HEADINGS if heading != "runs" or paper.width >= _WIDE]
    cells = [tuple(cell for cell, heading in zip(line, _HEADINGS, strict=True) if heading in shown) for line in cells]
    widest = [max(map(len, column)) for column in zip(shown, *cells, strict=True)]
    spare = paper.width - _INDENT - 2 * (len(widest) - 1) - (sum(widest) - widest[1] - widest[-1])
    wait = min(widest[-1], max(_NARROWEST_WAIT, spare - widest[1]))
    label = max(spare - wait, _NARROWEST_COMMAND)
    columns = [
        Column(heading, right=heading in _NUMBERS, fixed=True, style=DIM if heading == shown[-1] else "")
        for heading in shown
    ]
    paper.table(columns, [(line[0], _cut(line[1], label), *line[2:-1], _cut(line[-1], wait)) for line in cells])
    runs = "; runs: times it came onto a CPU" if "runs" in shown else ""
    paper.paragraph(
        f"the CPUs went to another process {count(history.process_switches, 'time')}, to another thread of the same "
        f"one {count(history.thread_switches, 'time')}; (brackets): forked, executed nothing{runs}",
        style=DIM,
    )


def _rows(roots: list[Process]) -> Iterator[Row]:
    """Parents before their children, depth first; no recursion, since a chain of forks may be long."""
    pending = [(row, "", "") for row in reversed(_alike(roots))]
    while pending:
        processes, lead, elbow = pending.pop()
        yield Row(lead + elbow, processes)
        below = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[elbow]
        children = _alike(processes[0].children)
        for place, group in enumerate(reversed(children)):
            pending.append((group, below, "├─ " if place else "└─ "))


def _alike(siblings: list[Process]) -> list[list[Process]]:
    """Neighbours that cannot be told apart in one group, if they are many; everybody else alone."""
    groups: list[list[Process]] = []
    for _, members in groupby(siblings, _kind):
        found = list(members)
        groups += [found] if len(found) >= ALIKE and not found[0].children else [[one] for one in found]
    return groups


def _kind(process: Process) -> tuple[object, ...]:
    return command(process), status(process), bool(process.children)


def command(process: Process) -> str:
    """Its last command line, the program by its last name; in brackets if it was only forked.

    The file that was executed is added where its name is another: a script's interpreter, what a link leads to.
    """
    words = process.arguments
    if not words:
        return "?"
    first = os.path.basename(words[0]) or words[0]
    if process.forked_only:
        return f"({printable(first)})"
    program = os.path.basename(process.program)
    text = _before(process) + command_line([first, *words[1:]])
    return text if first.lstrip("-") in program else f"{text} [{printable(program)}]"


def _before(process: Process) -> str:
    """What it was before it became what it is, if it had children as that: a shell whose last command needs no fork."""
    last = process.programs[-1].time
    if not any(child.born < last for child in process.children):
        return ""
    words = process.arguments_at(last - 1)
    return f"({printable(os.path.basename(words[0]))}) " if words else ""


def command_line(words: Sequence[str]) -> str:
    """The words as a shell would take them, near enough for a person, control characters written out."""
    return printable(" ".join(_quoted(word) for word in words))


def _quoted(word: str) -> str:
    return word if word and not any(character in word for character in " \t\n'\"\\$&|;<>()*?") else f"'{word}'"


def status(process: Process) -> str:
    """How it ended: `0`, `1`, `SIGTERM`; `-` while it lives."""
    if process.end is None:
        return "-"
    return process.end.signal or str(process.end.status)


def _cells(row: Row) -> tuple[str, ...]:
    first = row.processes[0]
    several = len(row.processes)
    label = (f"{several:,} x " if several > 1 else "") + command(first)
    waits = [process.longest_wait for process in row.processes if process.longest_wait is not None]
    longest = max(waits, default=None)
    wait = f"{duration(longest.duration)}, {longest.what}" if longest is not None else ""
    return str(first.pid), row.tree + label, status(first), *_sums(row.processes), printable(wait)


def _total(everybody: list[Process]) -> tuple[str, ...]:
    return "total", count(len(everybody), "process", "processes"), "", *_sums(everybody), ""


def _sums(processes: list[Process]) -> tuple[str, str, str, str]:
    ends = [process.end for process in processes if process.end is not None]
    faults = sum(end.minor_faults + end.major_faults for end in ends)
    stays = sum(thread.stays for process in processes for thread in process.threads.values())
    calls = sum(process.calls for process in processes)
    living = sum(process.total(RUNNING) for process in processes if process.end is None)
    return duration(sum(end.cpu_ns for end in ends) + living), f"{faults:,}", f"{calls:,}", f"{stays:,}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
