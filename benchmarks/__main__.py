"""`python -m benchmarks [OPTION…]`: the figures of the docs, measured here and now."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import compute, exits, inside, processes, tables, whole_programs
from benchmarks.workbench import Bench

PARTS: list[Callable[[Bench], None]] = [
    inside.start,
    inside.explain,
    inside.page_faults,
    inside.system_calls,
    inside.sieve,
    inside.pipe,
    whole_programs.program_table,
    compute.compute,
    processes.processes,
    exits.exit_table,
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one run each: a minute instead of many")
    parser.add_argument("--long", action="store_true", help="native and KVM alone, on four times the work")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--only", metavar="WORD", default="", help="only what has WORD in its name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loadstone-bench-") as scratch:
        bench = Bench(options.quick, Path(scratch), long=options.long)
        for part in PARTS:
            if options.only in part.__name__:
                print(f"{part.__name__} …", file=sys.stderr)
                part(bench)
    tables.show(bench)
    if options.json:
        host = {"machine": platform.machine(), "kernel": platform.release(), "cpus": os.cpu_count()}
        result = {"host": host, "quick": bench.quick, "costs": bench.costs, "programs": bench.programs}
        result |= {"compute": bench.computing, "exits": bench.exits, "processes": bench.starting}
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
