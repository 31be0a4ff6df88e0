"""`python -m benchmarks [--quick] [--json FILE] [--only WORD]`: the figures of the docs, measured here and now."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import compute, processes
from benchmarks.measure import Sample, compare, engines, median_call, printed_by, seconds_printed_by

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


class Bench:
    """One run of the benchmarks: sizes, a scratch directory, and the results so far."""

    def __init__(self, quick: bool, scratch: Path) -> None:
        self.quick = quick
        self.scratch = scratch
        self.runs = 1 if quick else 3
        self.engines = engines()
        self.costs: list[dict[str, Any]] = []
        self.programs: list[dict[str, Any]] = []
        self.computing: list[dict[str, Any]] = []
        self.starting: list[dict[str, Any]] = []
        self.exits: list[dict[str, Any]] = []
        self.bare = STATIC_BARE

    def scale(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def build(self, name: str, *options: str, compiler: str = "gcc") -> str:
        target = self.scratch / f"{name}-{abs(hash((compiler, options))) % 10**6}"
        line = [compiler, "-O2", "-w", "-o", str(target), str(SOURCES / f"{name}.c"), *options]
        subprocess.run(line, check=True)
        return str(target)

    def file(self, size: int, compressible: bool = False) -> str:
        target = self.scratch / f"data-{size}"
        if not target.exists():
            block = (
                os.urandom(1 << 16) if not compressible else b"".join(b"line %d of the text\n" % n for n in range(4000))
            )
            with target.open("wb") as file:
                while file.tell() < size:
                    file.write(block[: size - file.tell()])
        return str(target)

    # -- what one thing costs inside the machine

    def cost(self, what: str, value: float, unit: str, bound: str, ok: bool) -> None:
        self.costs.append({"what": what, "value": value, "unit": unit, "bound": bound, "met": ok})
        print(f"  {what}: {value:.2f} {unit}  (bound: {bound})", file=sys.stderr)

    def page_faults(self) -> None:
        program = self.build("touch")
        for kind in ("write", "read", "both"):
            base = seconds_printed_by("benchmarks.in_machine", program, "0", kind, runs=self.runs)
            for pages in (1000, 8000) if self.quick else (1000, 8000, 65000):
                spent = seconds_printed_by("benchmarks.in_machine", program, str(pages), kind, runs=self.runs)
                each = (spent - base) / pages * 1e6
                bound = 16.0 if kind == "both" else 8.0
                self.cost(f"page fault, {kind}, {pages:,} pages", each, "µs a page", f"≤ {bound:g}", each <= bound)

    def system_calls(self) -> None:
        program, calls = self.build("calls"), self.scale(200_000, 20_000)
        base = seconds_printed_by("benchmarks.in_machine", program, "0", runs=self.runs)
        spent = seconds_printed_by("benchmarks.in_machine", program, str(calls), runs=self.runs)
        each = (spent - base) / calls * 1e6
        self.cost("system call", each, "µs", "≤ 6", each <= 6)

    def sieve(self) -> None:
        program = self.build("sieve", *STATIC_BARE, f"-DPASSES={self.scale(20, 4)}")
        bare = seconds_printed_by("benchmarks.bare_unicorn", program, runs=self.runs)
        ours = seconds_printed_by("benchmarks.in_machine", program, runs=self.runs)
        self.cost(
            f"sieve over 5 MB (bare Unicorn {bare:.2f} s)", ours / bare, "x bare Unicorn", "≤ 1.3", ours / bare <= 1.3
        )

    def start(self) -> None:
        samples = compare(["/bin/true"], self.engines, self.scale(15, 5))
        ours = samples["loadstone"].median * 1e3
        self.cost("loadstone run /bin/true", ours, "ms", "≤ 75", ours <= 75)
        self.table("/bin/true", samples)

    def explain(self) -> None:
        from loadstone import explain

        spent = median_call(lambda: explain("/bin/ls", ["ls"], {"LC_ALL": "C"}), 50) * 1e3
        self.cost("explain /bin/ls, once imported", spent, "ms", "≤ 2", spent <= 2)

    def pipe(self) -> None:
        size = self.scale(100_000_000, 20_000_000)
        cat = compare(["/bin/cat", self.file(size)], self.engines, self.runs, consumer=["/usr/bin/wc", "-c"])
        start = compare(["/bin/true"], {"loadstone": self.engines["loadstone"]}, 5)["loadstone"].median
        ratio = max(0.0, cat["loadstone"].median - start) / cat["native"].median
        self.cost(f"cat {size // 10**6} MB into a pipe", ratio, "x native after start-up", "≤ 2", ratio <= 2)
        self.table(f"cat {size // 10**6} MB", cat)

    # -- the table of programs

    def table(self, name: str, samples: dict[str, Sample]) -> None:
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
        self.programs.append(row)
        print(f"  {name}: " + ", ".join(f"{k} {cell(row[k])}" for k in samples), file=sys.stderr)

    def program_table(self) -> None:
        rows: list[tuple[str, list[str]]] = [("hello, glibc dynamic", [self.build("hello")])]
        rows.append(("hello, glibc static", [self.build("hello", "-static")]))
        if shutil.which("musl-gcc"):
            rows.append(("hello, musl static", [self.build("hello", "-static", compiler="musl-gcc")]))
        loops, megabytes = self.scale(20_000, 2_000), self.scale(20, 2)
        loop = f"for ((i = 0; i < {loops}; i++)); do x=$((x + i)); done; echo $x"
        rows += [
            ("ls -l /usr/bin", ["/bin/ls", "-l", "/usr/bin"]),
            (f"bash loop of {loops:,}", ["/bin/bash", "-c", loop]),
            ("python3 -c 'print(1)'", ["/usr/bin/python3", "-c", "print(1)"]),
            (f"gzip -c {megabytes} MB", ["/bin/gzip", "-nc", self.file(megabytes * 10**6, compressible=True)]),
            (f"sha256sum {self.scale(50, 5)} MB", ["/usr/bin/sha256sum", self.file(self.scale(50, 5) * 10**6)]),
            ("n-body", [self.build("nbody", "-lm"), str(self.scale(4_000_000, 100_000))]),
            ("primes", [self.build("primes"), str(self.scale(4_000_000, 400_000))]),
            (f"touch {self.scale(256, 32)} MB", [self.build("touch"), str(self.scale(65_536, 8_192)), "write"]),
        ]
        for name, words in rows:
            if os.path.exists(words[0]):
                self.table(name, compare(words, self.engines, self.runs))

    def compute(self) -> None:
        self.computing = compute.measure(self)

    def processes(self) -> None:
        self.starting = processes.measure(self)

    # -- how often a core leaves a program

    def exit_table(self) -> None:
        nbody = self.build("nbody", "-lm")
        rows = [
            ("/bin/true", ["/bin/true"]),
            ("ls -l /usr/bin", ["/bin/ls", "-l", "/usr/bin"]),
            ("python3 -c 'print(1)'", ["/usr/bin/python3", "-c", "print(1)"]),
            ("gzip -c 20 MB", ["/bin/gzip", "-nc", self.file(20 * 10**6, compressible=True)]),
            ("touch a file", ["/bin/touch", str(self.scratch / "touched")]),
            ("touch 256 MB", [self.build("touch"), "65536", "write"]),
            ("n-body", [nbody, str(self.scale(1_000_000, 100_000))]),
        ]
        for name, words in rows:
            for engine in ("kvm", "unicorn") if "loadstone kvm" in self.engines else ("unicorn",):
                row: dict[str, Any] = {"program": name, "engine": engine}
                for how, around, ahead in (("neither", 4096, 0), ("around", 65536, 0), ("both", 65536, 512)):
                    row[how] = printed_by("benchmarks.count_exits", engine, str(around), str(ahead), *words)
                self.exits.append(row)
                print(f"  {name}, {engine}: {row}", file=sys.stderr)


def cell(found: dict[str, Any] | None) -> str:
    """One measurement as a person reads it."""
    if found is None:
        return "-"
    time = f"{found['seconds'] * 1e3:.1f} ms" if found["seconds"] < 1 else f"{found['seconds']:.2f} s"
    return f"{time} ({found['ratio']:.1f}x)" if found["right"] else "FAIL"


def total(exits: dict[str, int]) -> int:
    """All exits but for what depends on how long the run took."""
    return sum(number for cause, number in exits.items() if cause not in ("status", "interrupts"))


def show(bench: Bench) -> None:
    """The tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if bench.costs:
        table = Table("what", "measured", "bound", "met", title="Costs inside the machine (Unicorn core)")
        for row in bench.costs:
            met = "yes" if row["met"] else "NO"
            table.add_row(row["what"], f"{row['value']:.2f} {row['unit']}", row["bound"], met)
        console.print(table)
    if bench.programs:
        table = Table("program", *bench.engines, title="Whole processes: median wall time (ratio to native)")
        for row in bench.programs:
            table.add_row(row["program"], *(cell(row.get(engine)) for engine in bench.engines))
        console.print(table)
    if bench.computing:
        title = "Computing: CPU time beyond start-up; of the native speed (1.00 is as fast)"
        table = Table("program", *bench.engines, title=title)
        for row in bench.computing:
            table.add_row(row["program"], *(compute.cell(row, engine) for engine in bench.engines))
        console.print(table)
    if bench.starting:
        title = "Processes: CPU time of fork, exec of /bin/true, exit and wait, each, beyond the shell's own"
        table = Table("processes", *bench.engines, title=title)
        for row in bench.starting:
            table.add_row(f"{row['processes']:,}", *(processes.cell(row, engine) for engine in bench.engines))
        console.print(table)
    if bench.exits:
        title = "How often the core leaves the program (page faults): one page a fault, fault-around, and filling ahead"
        table = Table("program", "engine", "4K", "64K", "64K, 512", "system calls", title=title)
        for row in bench.exits:
            shown = [f"{total(row[how])} ({row[how]['page_faults']})" for how in ("neither", "around", "both")]
            table.add_row(row["program"], row["engine"], *shown, str(row["both"]["system_calls"]))
        console.print(table)
    absent = [name for name in ("qemu-user", "qiling") if name not in bench.engines]
    if absent:
        console.print(f"not installed here, so not measured: {', '.join(absent)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one run each: a minute instead of many")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--only", metavar="WORD", default="", help="only what has WORD in its name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loadstone-bench-") as scratch:
        bench = Bench(options.quick, Path(scratch))
        costs: list[Callable[[], None]] = [bench.start, bench.explain, bench.page_faults, bench.system_calls]
        parts = [*costs, bench.sieve, bench.pipe, bench.program_table, bench.compute, bench.processes, bench.exit_table]
        for part in parts:
            if options.only in part.__name__:
                print(f"{part.__name__} …", file=sys.stderr)
                part()
    show(bench)
    if options.json:
        host = {"machine": platform.machine(), "kernel": platform.release(), "cpus": os.cpu_count()}
        result = {"host": host, "quick": bench.quick, "costs": bench.costs, "programs": bench.programs}
        result |= {"compute": bench.computing, "exits": bench.exits, "processes": bench.starting}
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


main()
