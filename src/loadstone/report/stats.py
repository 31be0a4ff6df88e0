"""`--stats`: how a program was loaded and what its pages cost, on stderr after the run.

`summarize` collects what a `Summary` holds, which is plain data; `print_summary` draws it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from loadstone.linux.exec.auxv import differing
from loadstone.observe.at_exit import AtExit
from loadstone.observe.fault_profile import FaultProfile, ObjectFaults
from loadstone.observe.maps import Mapping
from loadstone.report.differing import differing_line
from loadstone.report.discarded import amount, short_amount
from loadstone.report.paper import DIM, WARNING, Column, Paper, count

if TYPE_CHECKING:
    from loadstone.machine.core import Core

PAGE = 4096
MOST_CALLS = 15


@dataclass
class Summary:
    """What the report shows. Sizes are in bytes; `resident` is in pages, by start of mapping."""

    program: str
    maps: list[Mapping]
    resident: dict[int, int]
    profile: FaultProfile
    frames: dict[str, int]  # at the end, by owner
    peak_frames: int
    table_frames: int  # of the process, its page directory included
    engine: str
    why: str  # the engine was chosen
    status: str
    seconds: float
    processes: int = 1  # that there ever were
    most_processes: int = 1  # at a time
    process_switches: int = 0  # of the CPUs: to another page directory
    thread_switches: int = 0  # to another thread with the same one
    fault_around: int = 65536
    page_cache: str = "warm"
    exits: dict[str, int] = field(default_factory=dict)  # how often the core left the program, by cause
    fill_ahead: int = 0  # pages that a fault could fill; 0: its own only
    filled: tuple[int, int] = (0, 0)  # faults that filled ahead, pages that they filled beside their own
    unimplemented: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    differing: list[tuple[int, int, int]] = field(default_factory=list)  # auxv entries: type, value, the host's value


def summarize(process: Any, end: AtExit, status: Any, profile: FaultProfile, seconds: float) -> Summary:
    """What there is to say of a process (`loadstone.api.Process`) that has ended."""
    machine = process.machine
    ahead = machine.fill_ahead
    return Summary(
        program=process.executable,
        maps=end.maps,
        resident=end.resident,
        profile=profile,
        frames=end.frames,
        peak_frames=machine.physical.peak,
        table_frames=end.table_frames,
        engine=machine.engine,
        why=machine.engine_why,
        status=f"killed by signal {status.signal}" if status.signal else f"exit status {status.code}",
        seconds=seconds,
        processes=machine.kernel.started,
        most_processes=machine.kernel.most_processes,
        process_switches=machine.kernel.scheduler.cpus.process_switches,
        thread_switches=machine.kernel.scheduler.cpus.thread_switches,
        fault_around=machine.fault_around,
        page_cache=machine.page_cache_mode,
        exits=_exits(machine.kernel.cores),
        fill_ahead=ahead.limit if ahead is not None and ahead.always else 0,
        filled=(ahead.faults, ahead.pages) if ahead is not None else (0, 0),
        unimplemented=dict(machine.unimplemented),
        refused=dict(machine.refused),
        differing=differing(machine.kernel.profile, machine.profile),
    )


def _exits(cores: Sequence[Core]) -> dict[str, int]:
    """How often the cores left the program, by cause."""
    causes = ("page_faults", "system_calls", "exceptions", "interrupts", "translations")
    return {cause.replace("_", " "): sum(getattr(core.exits, cause) for core in cores) for cause in causes}


def print_summary(summary: Summary, stream: IO[str] | None = None) -> None:
    """Draw the summary (default: on stderr)."""
    stream = sys.stderr if stream is None else stream
    paper = Paper(stream)
    paper.blank()
    paper.title(f"How {summary.program} was loaded and run")
    _mappings(paper, summary)
    _faults(paper, summary)
    _frames(paper, summary)
    _calls(paper, summary)
    paper.heading("Run")
    paper.paragraph(f"{summary.status}; {_seconds(summary.seconds)}")
    if summary.processes > 1 or summary.thread_switches:
        there_were = count(summary.processes, "process", "processes")
        paper.paragraph(
            f"{there_were}, at most {summary.most_processes} at a time; faults and system calls are of all of them; "
            f"the CPUs went to another process {summary.process_switches:,} times, to another thread of the same one "
            f"{summary.thread_switches:,} times"
        )
    paper.paragraph(f"engine {summary.engine}: {summary.why}" if summary.why else f"engine {summary.engine}")
    paper.paragraph(_exits_line(summary.exits))
    paper.paragraph(differing_line(summary.differing), style=DIM)
    stream.flush()


def _exits_line(exits: dict[str, int]) -> str:
    """How often the CPU core left the program, by cause, the most frequent first."""
    found = sorted(((number, name) for name, number in exits.items() if number), key=lambda item: -item[0])
    causes = ", ".join(f"{number:,} {name}" for number, name in found)
    return f"the core left the program {count(sum(exits.values()), 'time')}: {causes}" if found else ""


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _mappings(paper: Paper, summary: Summary) -> None:
    paper.heading("Mappings at exit")
    groups: dict[str, list[Mapping]] = {}
    for mapping in summary.maps:
        groups.setdefault(mapping.path or "[anonymous]", []).append(mapping)
    rows = []
    for name, parts in groups.items():
        resident = sum(summary.resident.get(part.start, 0) for part in parts)
        rows.append((name, len(parts), short_amount(sum(part.size for part in parts)), short_amount(resident * PAGE)))
    whole = sum(mapping.size for mapping in summary.maps)
    held = sum(summary.resident.values()) * PAGE
    rows.append(("total", len(summary.maps), short_amount(whole), short_amount(held)))
    paper.table(
        [
            Column("object"),
            Column("VMAs", right=True),
            Column("size", right=True),
            Column("resident", right=True),
        ],
        rows,
    )


_SHORT = {"copy-on-write": "COW", "zero-page": "zero", "anonymous": "anon", "protection": "prot"}
_FAULT_COLUMNS = ("all", "major", "kernel", "pages", "around")


def _faults(paper: Paper, summary: Summary) -> None:
    profile = summary.profile
    paper.heading("Page faults")
    if not profile.objects:
        paper.paragraph("none")
        return
    causes = profile.causes()
    found = sorted(profile.objects.values(), key=lambda entry: (-entry.total, entry.name))
    names = [*(_SHORT.get(cause, cause) for cause in causes), *_FAULT_COLUMNS]
    rows: list[tuple[object, ...]] = []
    for entry in found:
        numbers = zip(names, _fault_numbers([entry], causes), strict=True)
        cells = [number or ("" if name != "major" else 0) for name, number in numbers]
        rows.append((os.path.basename(entry.name) or entry.name, *cells))
    rows.append(("total", *_fault_numbers(found, causes)))
    paper.table([Column("object"), *(Column(name, right=True) for name in names)], rows)
    _fault_notes(paper, summary)


def _fault_numbers(group: Sequence[ObjectFaults], causes: Sequence[str]) -> list[int]:
    """The numbers of some objects together: by cause, then as _FAULT_COLUMNS."""
    return [
        *(sum(entry.by_cause[cause] for entry in group) for cause in causes),
        sum(entry.total for entry in group),
        sum(entry.major for entry in group),
        sum(entry.kernel for entry in group),
        sum(len(entry.pages) for entry in group),
        sum(entry.around for entry in group),
    ]


def _fault_notes(paper: Paper, summary: Summary) -> None:
    """What the table's columns mean, and what else there is to say of faults."""
    around = "pure demand paging" if summary.fault_around <= PAGE else f"fault-around {summary.fault_around >> 10} KiB"
    paper.paragraph(
        f"{around}, {summary.page_cache} page cache. major: the file was not in memory; kernel: taken in a system call "
        "or exec; pages: distinct pages that faulted; around: pages mapped beside them",
        style=DIM,
    )
    if summary.fill_ahead:
        faults, pages = summary.filled
        paper.paragraph(
            f"filling ahead, up to {summary.fill_ahead} pages: {count(faults, 'fault')} on new memory filled "
            f"{count(pages, 'page')} beside their own"
        )
    else:
        paper.paragraph("filling ahead is off, since faults are counted as the kernel takes them", style=DIM)
    signals = sum(entry.signals for entry in summary.profile.objects.values())
    if signals:
        paper.paragraph(f"{count(signals, 'fault')} more ended in a signal", style=WARNING)


def _frames(paper: Paper, summary: Summary) -> None:
    paper.heading("Frames")
    owners = ", ".join(f"{number:,} {name}" for name, number in summary.frames.items() if number)
    paper.paragraph(f"peak {count(summary.peak_frames, 'frame')} ({amount(summary.peak_frames * PAGE)})")
    paper.paragraph(f"at exit: {owners or 'none'}")
    paper.paragraph(f"the process's page tables: {count(summary.table_frames, 'frame')}, the page directory included")


def _calls(paper: Paper, summary: Summary) -> None:
    paper.heading("System calls")
    if summary.profile.calls:
        _call_table(paper, summary.profile)
    else:
        paper.paragraph("none")
    if summary.engine == "kvm":
        paper.paragraph("no read is answered in the guest, since system calls are counted as they come", style=DIM)
    for what, found in (
        ("NOT IMPLEMENTED, answered with ENOSYS", summary.unimplemented),
        ("REFUSED", summary.refused),
    ):
        if found:
            calls = ", ".join(f"{name} ({times})" for name, times in sorted(found.items()))
            paper.paragraph(f"{what}: {calls}", style=WARNING)


def _call_table(paper: Paper, profile: FaultProfile) -> None:
    """The most frequent calls, the rest together, and all."""
    most = sorted(profile.calls.items(), key=lambda item: (-item[1], item[0]))
    rows: list[tuple[object, ...]] = []
    for name, number in most[:MOST_CALLS]:
        errors = profile.call_errors(name)
        detail = ", ".join(f"{errno} {times}" for errno, times in sorted(errors.items()))
        rows.append((name, number, sum(errors.values()) or "", detail))
    rest = [number for _, number in most[MOST_CALLS:]]
    if rest:
        rows.append((f"{len(rest)} more", sum(rest), "", ""))
    rows.append(("total", sum(profile.calls.values()), sum(profile.errors.values()) or "", ""))
    columns = [Column("call"), Column("calls", right=True), Column("errors", right=True), Column("which", style=DIM)]
    paper.table(columns, rows)
