"""Whole programs on every engine, start-up included: median wall time, and its ratio to the native run's."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from benchmarks.measure import Sample, compare
from benchmarks.workbench import Bench


def add_row(bench: Bench, name: str, samples: dict[str, Sample]) -> None:
    native = samples["native"]
    row: dict[str, Any] = {"program": name}
    for engine, sample in samples.items():
        right = sample.digest == native.digest and sample.status == native.status
        row[engine] = {
            "seconds": sample.median,
            "ratio": sample.median / native.median,
            "resident": sample.resident,
            "right": right,
        }
    bench.programs.append(row)
    print(f"  {name}: " + ", ".join(f"{k} {cell(row[k])}" for k in samples), file=sys.stderr)


def program_table(bench: Bench) -> None:
    rows: list[tuple[str, list[str]]] = [("hello, glibc dynamic", [bench.build("hello")])]
    rows.append(("hello, glibc static", [bench.build("hello", "-static")]))
    if shutil.which("musl-gcc"):
        rows.append(("hello, musl static", [bench.build("hello", "-static", compiler="musl-gcc")]))
    loops, megabytes = bench.scale(20_000, 2_000), bench.scale(20, 2)
    loop = f"for ((i = 0; i < {loops}; i++)); do x=$((x + i)); done; echo $x"
    rows += [
        ("ls -l /usr/bin", ["/bin/ls", "-l", "/usr/bin"]),
        (f"bash loop of {loops:,}", ["/bin/bash", "-c", loop]),
        ("python3 -c 'print(1)'", ["/usr/bin/python3", "-c", "print(1)"]),
        (f"gzip -c {megabytes} MB", ["/bin/gzip", "-nc", bench.file(megabytes * 10**6, compressible=True)]),
        (f"sha256sum {bench.scale(50, 5)} MB", ["/usr/bin/sha256sum", bench.file(bench.scale(50, 5) * 10**6)]),
        ("n-body", [bench.build("nbody", "-lm"), str(bench.scale(4_000_000, 100_000))]),
        ("primes", [bench.build("primes"), str(bench.scale(4_000_000, 400_000))]),
        (f"touch {bench.scale(256, 32)} MB", [bench.build("touch"), str(bench.scale(65_536, 8_192)), "write"]),
    ]
    for name, words in rows:
        if os.path.exists(words[0]):
            add_row(bench, name, compare(words, bench.engines, bench.runs))


def cell(found: dict[str, Any] | None) -> str:
    """One measurement as a person reads it."""
    if found is None:
        return "-"
    time = f"{found['seconds'] * 1e3:.1f} ms" if found["seconds"] < 1 else f"{found['seconds']:.2f} s"
    return f"{time} ({found['ratio']:.1f}x)" if found["right"] else "FAIL"
