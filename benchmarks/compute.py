"""Programs that compute: CPU time beyond start-up, as a ratio to the native run's.

Start-up is what the same program costs on the same engine with next to nothing to do, measured in turn with it, and
taken off. CPU time is user and system time of the whole process; a KVM guest's counts as its host process's user time.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from benchmarks.measure import compare
from benchmarks.workbench import STATIC_BARE, Bench

_SLOW = 10.0  # seconds; an engine that takes longer runs once, so that the others can run often
_PYTHON_LOOP = "n = 0\nfor i in range({}): n = (n * 31 + i) & 0xffffff\nprint(n)"


def programs(bench: Bench) -> list[tuple[str, list[str], list[str]]]:
    """(name, the program, the same with nothing to do)."""
    nbody, fnv = bench.build("nbody", "-lm"), bench.build("fnv")
    sieve, no_sieve = (bench.build("sieve", *STATIC_BARE, f"-DPASSES={n}") for n in (bench.scale(20, 2), 0))
    text, empty = bench.file(bench.scale(40, 4) * 10**6, compressible=True), bench.file(0)
    data, less = bench.file(bench.scale(100, 10) * 10**6), bench.file(bench.scale(4, 1) * 10**6, compressible=True)
    steps, rounds, loops = bench.scale(4_000_000, 200_000), bench.scale(400_000_000, 40_000_000), bench.scale(40, 4)
    python, gzip, xz = ["/usr/bin/python3", "-S", "-c"], ["/bin/gzip", "-nc"], ["/usr/bin/xz", "-c"]
    return [
        ("n-body", [nbody, str(steps)], [nbody, "0"]),
        ("sieve of 5 MB", [sieve], [no_sieve]),
        ("FNV-1a loop", [fnv, str(rounds)], [fnv, "0"]),
        (f"gzip -c of {megabytes(text)}", [*gzip, text], [*gzip, empty]),
        (f"sha256sum of {megabytes(data)}", ["/usr/bin/sha256sum", data], ["/usr/bin/sha256sum", empty]),
        ("python3 loop", [*python, _PYTHON_LOOP.format(loops * 100_000)], [*python, _PYTHON_LOOP.format(0)]),
        (f"xz -c of {megabytes(less)}", [*xz, less], [*xz, empty]),
    ]


def megabytes(path: str) -> str:
    """The size of a file, for the name of a row."""
    return f"{os.path.getsize(path) // 10**6} MB"


def compute(bench: Bench) -> None:
    """A row a program: seconds of CPU beyond start-up by engine; None where the output or status was wrong."""
    for name, words, idle in programs(bench):
        if not os.path.exists(words[0]):
            continue
        full, start = (compare(line, bench.engines, 3 * bench.runs, limit=_SLOW) for line in (words, idle))
        row: dict[str, Any] = {"program": name}
        for engine, sample in full.items():
            right = sample.digest == full["native"].digest and sample.status == full["native"].status
            row[engine] = sample.cpu_median - start[engine].cpu_median if right else None
        bench.computing.append(row)
        print(f"  {name}: " + ", ".join(f"{engine} {cell(row, engine)}" for engine in full), file=sys.stderr)


def cell(row: dict[str, Any], engine: str) -> str:
    """Native seconds, and of the others how much of the native speed they reach."""
    seconds = row.get(engine)
    if seconds is None:
        return "FAIL" if engine in row else "-"
    if engine == "native":
        return f"{seconds:.2f} s"
    return f"{row['native'] / seconds:.2f}" if seconds > 0 else "?"
