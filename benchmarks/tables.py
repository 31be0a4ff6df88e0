"""The results as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks import compute, exits, processes, whole_programs
from benchmarks.workbench import Bench


def show(bench: Bench) -> None:
    """The tables that have rows."""
    console = Console()
    for make in (_costs, _programs, _computing, _processes, _exits):
        table = make(bench)
        if table.row_count:
            console.print(table)
    absent = [name for name in ("qemu-user", "qiling") if name not in bench.engines]
    if absent and not bench.long:
        console.print(f"not installed here, so not measured: {', '.join(absent)}")


def _costs(bench: Bench) -> Table:
    table = Table("what", "measured", "bound", "met", title="Costs inside the machine (Unicorn core)")
    for row in bench.costs:
        met = "yes" if row["met"] else "NO"
        table.add_row(row["what"], f"{row['value']:.2f} {row['unit']}", row["bound"], met)
    return table


def _programs(bench: Bench) -> Table:
    table = Table("program", *bench.engines, title="Whole processes: median wall time (ratio to native)")
    for row in bench.programs:
        table.add_row(row["program"], *(whole_programs.cell(row.get(engine)) for engine in bench.engines))
    return table


def _computing(bench: Bench) -> Table:
    title = "Computing: CPU time beyond start-up; part of the native speed by least times (by pairs)"
    table = Table("program", *bench.engines, title=title)
    for row in bench.computing:
        table.add_row(row["program"], *(compute.cell(row, engine) for engine in bench.engines))
    return table


def _processes(bench: Bench) -> Table:
    title = "Processes: CPU time of fork, exec of /bin/true, exit and wait, each, beyond the shell's own"
    table = Table("processes", *bench.engines, title=title)
    for row in bench.starting:
        table.add_row(f"{row['processes']:,}", *(processes.cell(row, engine) for engine in bench.engines))
    return table


def _exits(bench: Bench) -> Table:
    title = "How often the core leaves the program (page faults): one page a fault, fault-around, and filling ahead"
    table = Table("program", "engine", "4K", "64K", "64K, 512", "system calls", title=title)
    for row in bench.exits:
        shown = [f"{exits.total(row[how])} ({row[how]['page_faults']})" for how in ("neither", "around", "both")]
        table.add_row(row["program"], row["engine"], *shown, str(row["both"]["system_calls"]))
    return table
