"""How often a core leaves a program, by how much of its memory one fault fills."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.measure import printed_by
from benchmarks.workbench import Bench


def exit_table(bench: Bench) -> None:
    nbody = bench.build("nbody", "-lm")
    rows = [
        ("/bin/true", ["/bin/true"]),
        ("ls -l /usr/bin", ["/bin/ls", "-l", "/usr/bin"]),
        ("python3 -c 'print(1)'", ["/usr/bin/python3", "-c", "print(1)"]),
        ("gzip -c 20 MB", ["/bin/gzip", "-nc", bench.file(20 * 10**6, compressible=True)]),
        ("touch a file", ["/bin/touch", str(bench.scratch / "touched")]),
        ("touch 256 MB", [bench.build("touch"), "65536", "write"]),
        ("n-body", [nbody, str(bench.scale(1_000_000, 100_000))]),
    ]
    for name, words in rows:
        for engine in ("kvm", "unicorn") if "loadstone kvm" in bench.engines else ("unicorn",):
            row: dict[str, Any] = {"program": name, "engine": engine}
            for how, around, ahead in (("neither", 4096, 0), ("around", 65536, 0), ("both", 65536, 512)):
                row[how] = printed_by("benchmarks.count_exits", engine, str(around), str(ahead), *words)
            bench.exits.append(row)
            print(f"  {name}, {engine}: {row}", file=sys.stderr)


def total(exits: dict[str, int]) -> int:
    """All exits but for what depends on how long the run took."""
    return sum(number for cause, number in exits.items() if cause not in ("status", "interrupts"))
