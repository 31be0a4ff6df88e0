"""Programs that compute: CPU time beyond start-up, as a ratio to the native run's.

Start-up is what the same program costs on the same engine with next to nothing to do; it is taken off. CPU time is user
and system time of the whole process; a KVM guest's counts as its host process's user time.

All runs of one program go strictly in turns: an engine's run with nothing to do, its full run, then the next
engine's. What counts is the *least* of many, of each of the four. On hardware that others share, noise only ever adds
(a neighbour takes caches, memory bandwidth and clock), by up to a half and for seconds at a time, so the least of a
dozen is close to what the program costs by itself, while a median is as good as the hour was. It is also the stricter
one: a long run finds a quiet moment less often than a short one, and the emulator's are the longer ones. Beside it
stands the median of the ratios of neighbouring runs, which tells what to expect in such an hour.
"""

from __future__ import annotations

import os
import statistics
import sys
from typing import Any

from benchmarks.measure import Sample, compare_lines
from benchmarks.workbench import STATIC_BARE, Bench

_RUNS, _LONG_RUNS = 15, 7
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
    """A row a program: what `beyond` says by engine; None where the output or status was wrong."""
    runs = 1 if bench.quick else _LONG_RUNS if bench.long else _RUNS
    for name, words, idle in programs(bench):
        if not os.path.exists(words[0]):
            continue
        start, full = compare_lines([idle, words], bench.engines, runs, limit=_SLOW)
        native = full["native"]
        row: dict[str, Any] = {"program": name}
        for engine, sample in full.items():
            right = sample.digest == native.digest and sample.status == native.status
            row[engine] = beyond(start, full, engine) if right else None
        bench.computing.append(row)
        print(f"  {name}: " + ", ".join(f"{engine} {cell(row, engine)}" for engine in full), file=sys.stderr)


def beyond(start: dict[str, Sample], full: dict[str, Sample], engine: str) -> dict[str, float]:
    """Seconds of CPU beyond start-up, by the least times, and the median of the native speed's parts, pair by pair."""
    pairs = [
        (native - no_work) / max(own - start_up, 1e-6)
        for no_work, native, start_up, own in zip(
            start["native"].cpu, full["native"].cpu, start[engine].cpu, full[engine].cpu, strict=False
        )
    ]
    return {"seconds": full[engine].cpu_least - start[engine].cpu_least, "pairs": statistics.median(pairs)}


def cell(row: dict[str, Any], engine: str) -> str:
    """Native seconds, and of the others how much of the native speed they reach: by least times, and pair by pair."""
    found = row.get(engine)
    if found is None:
        return "FAIL" if engine in row else "-"
    if engine == "native":
        return f"{found['seconds']:.2f} s"
    if found["seconds"] <= 0:
        return "?"
    return f"{row['native']['seconds'] / found['seconds']:.2f} ({found['pairs']:.2f})"
