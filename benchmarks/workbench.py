"""What every part of the benchmarks is given: sizes, engines, a scratch directory, and where its rows go."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.measure import engines

SOURCES = Path(__file__).parent / "programs"
STATIC_BARE = (
    "-static",
    "-nostdlib",
    "-no-pie",
    "-fno-pie",
    "-fno-stack-protector",
    "-fno-builtin",
    "-fno-tree-loop-distribute-patterns",
)
_LONG = 4  # times the usual size
_AT_NATIVE_SPEED = ("native", "loadstone kvm")


class Bench:
    """One run of the benchmarks.

    Rows, by what they are about: `costs` inside the machine, whole `programs`, `computing`, `starting` processes, and
    `exits` from the core. `long`: more work for the engines that take no longer than the host itself, and only for
    those, so that what start-up takes hardly counts.
    """

    def __init__(self, quick: bool, scratch: Path, *, long: bool = False) -> None:
        self.quick = quick
        self.long = long
        self.scratch = scratch
        self.runs = 1 if quick else 3
        self.engines = {name: line for name, line in engines().items() if not long or name in _AT_NATIVE_SPEED}
        self.costs: list[dict[str, Any]] = []
        self.programs: list[dict[str, Any]] = []
        self.computing: list[dict[str, Any]] = []
        self.starting: list[dict[str, Any]] = []
        self.exits: list[dict[str, Any]] = []

    def scale(self, full: int, quick: int) -> int:
        """A size: the smaller one with --quick, more with --long."""
        size = quick if self.quick else full
        return size * _LONG if self.long else size

    def build(self, name: str, *options: str, compiler: str = "gcc") -> str:
        """Compile one of the programs here; the path of what came out."""
        target = self.scratch / f"{name}-{abs(hash((compiler, options))) % 10**6}"
        line = [compiler, "-O2", "-w", "-o", str(target), str(SOURCES / f"{name}.c"), *options]
        subprocess.run(line, check=True)
        return str(target)

    def file(self, size: int, compressible: bool = False) -> str:
        """The path of a file of `size` bytes: noise, or text."""
        target = self.scratch / f"data-{size}"
        if not target.exists():
            block = (
                os.urandom(1 << 16) if not compressible else b"".join(b"line %d of the text\n" % n for n in range(4000))
            )
            with target.open("wb") as file:
                while file.tell() < size:
                    file.write(block[: size - file.tell()])
        return str(target)
