"""What one thing costs inside the machine, on the Unicorn core, with the bound that it is meant to keep."""

from __future__ import annotations

import sys

from benchmarks.measure import compare, median_call, seconds_printed_by
from benchmarks.whole_programs import add_row
from benchmarks.workbench import STATIC_BARE, Bench


def cost(bench: Bench, what: str, value: float, unit: str, bound: str, ok: bool) -> None:
    bench.costs.append({"what": what, "value": value, "unit": unit, "bound": bound, "met": ok})
    print(f"  {what}: {value:.2f} {unit}  (bound: {bound})", file=sys.stderr)


def page_faults(bench: Bench) -> None:
    program = bench.build("touch")
    for kind in ("write", "read", "both"):
        base = seconds_printed_by("benchmarks.in_machine", program, "0", kind, runs=bench.runs)
        for pages in (1000, 8000) if bench.quick else (1000, 8000, 65000):
            spent = seconds_printed_by("benchmarks.in_machine", program, str(pages), kind, runs=bench.runs)
            each = (spent - base) / pages * 1e6
            bound = 16.0 if kind == "both" else 8.0
            cost(bench, f"page fault, {kind}, {pages:,} pages", each, "µs a page", f"≤ {bound:g}", each <= bound)


def system_calls(bench: Bench) -> None:
    program, calls = bench.build("calls"), bench.scale(200_000, 20_000)
    base = seconds_printed_by("benchmarks.in_machine", program, "0", runs=bench.runs)
    spent = seconds_printed_by("benchmarks.in_machine", program, str(calls), runs=bench.runs)
    each = (spent - base) / calls * 1e6
    cost(bench, "system call", each, "µs", "≤ 6", each <= 6)


def sieve(bench: Bench) -> None:
    program = bench.build("sieve", *STATIC_BARE, f"-DPASSES={bench.scale(20, 4)}")
    bare = seconds_printed_by("benchmarks.bare_unicorn", program, runs=bench.runs)
    ours = seconds_printed_by("benchmarks.in_machine", program, runs=bench.runs)
    cost(
        bench,
        f"sieve over 5 MB (bare Unicorn {bare:.2f} s)",
        ours / bare,
        "x bare Unicorn",
        "≤ 1.3",
        ours / bare <= 1.3,
    )


def start(bench: Bench) -> None:
    samples = compare(["/bin/true"], bench.engines, bench.scale(15, 5))
    ours = samples["loadstone"].median * 1e3
    cost(bench, "loadstone run /bin/true", ours, "ms", "≤ 75", ours <= 75)
    add_row(bench, "/bin/true", samples)


def explain(bench: Bench) -> None:
    from loadstone import explain

    spent = median_call(lambda: explain("/bin/ls", ["ls"], {"LC_ALL": "C"}), 50) * 1e3
    cost(bench, "explain /bin/ls, once imported", spent, "ms", "≤ 2", spent <= 2)


def pipe(bench: Bench) -> None:
    size = bench.scale(100_000_000, 20_000_000)
    cat = compare(["/bin/cat", bench.file(size)], bench.engines, bench.runs, consumer=["/usr/bin/wc", "-c"])
    start = compare(["/bin/true"], {"loadstone": bench.engines["loadstone"]}, 5)["loadstone"].median
    ratio = max(0.0, cat["loadstone"].median - start) / cat["native"].median
    cost(bench, f"cat {size // 10**6} MB into a pipe", ratio, "x native after start-up", "≤ 2", ratio <= 2)
    add_row(bench, f"cat {size // 10**6} MB", cat)
