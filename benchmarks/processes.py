"""What a process costs: a shell that starts /bin/true over and over, and whether that stays the same as it goes on.

The cost is CPU time, user and system, of the shell and all its children, beyond that of the same shell with nothing
to start, by number of processes; the least of some runs of each, all in turns (compute.py says why the least). A KVM
guest's time counts as its host process's. Children of qemu-user are processes of the host, and after exec they are
emulated no more: its figure is a fork in an emulator and a native /bin/true.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.measure import compare_lines
from benchmarks.workbench import Bench

_LOOP = "for ((i = 0; i < {}; i++)); do /bin/true; done"
_RUNS = 9
_SLOW = 10.0  # seconds; an engine that takes longer runs once
COUNTS = (10, 200, 2_000)


def processes(bench: Bench) -> None:
    """A row a number of processes: seconds of CPU a process by engine; None where the status was wrong."""
    counts = COUNTS[:2] if bench.quick else COUNTS
    lines = [["/bin/bash", "-c", _LOOP.format(count)] for count in (0, *counts)]
    runs = 1 if bench.quick else _RUNS
    idle, *full = compare_lines(lines, bench.engines, runs, limit=_SLOW)
    for count, samples in zip(counts, full, strict=True):
        row: dict[str, Any] = {"processes": count}
        for engine, sample in samples.items():
            beyond = (sample.cpu_least - idle[engine].cpu_least) / count
            row[engine] = beyond if sample.status == 0 else None
        bench.starting.append(row)
        found = ", ".join(f"{engine} {cell(row, engine)}" for engine in samples)
        print(f"  {count} processes: {found}", file=sys.stderr)


def cell(row: dict[str, Any], engine: str) -> str:
    """Milliseconds a process."""
    seconds = row.get(engine)
    if seconds is None:
        return "FAIL" if engine in row else "-"
    return f"{seconds * 1e3:.1f} ms"
