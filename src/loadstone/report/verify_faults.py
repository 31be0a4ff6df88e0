"""`loadstone verify --faults` for a person and as JSON: one program in detail, several as a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import IO, Any

from loadstone.observe.maps import parse_maps
from loadstone.observe.symbols import Symbolizer
from loadstone.report.paper import Column, Paper, count
from loadstone.verify.faults import Comparison, Difference, agreement, modes

SCHEMA = "loadstone/verify-faults/1"
_KERNEL_HALF = 1 << 63
_MOST_ROWS = 20
_UNKNOWN = "no reason that Loadstone can tell"


def write_detail(comparison: Comparison, stream: IO[str]) -> None:
    """One program: how many faults, what is the same, and every class of difference with its reason."""
    paper = Paper(stream)
    paper.title(f"{_words(comparison)}: the page faults of the whole run")
    here = comparison.here
    steady = (
        "its two runs alike"
        if comparison.repeatable == 1
        else f"its two runs agree to {_percent(comparison.repeatable)}"
    )
    paper.line(f"kernel     {_counts(comparison.native.faults)} ({steady})")
    around = f"--fault-around {here.fault_around >> 10}K, page cache {here.page_cache}"
    paper.line(f"Loadstone  {_counts(here.faults)} (--engine {here.engine}, {around})")
    if not comparison.native.kernel_mode:
        paper.paragraph("Faults in kernel mode were left out on both sides: the host shows them to root only.")
    if comparison.identical:
        paper.line("identical  every fault, by mode and page, in the same order")
    else:
        _write_differences(comparison, paper)
    if not comparison.same_end:
        paper.line(
            f"The program ended in another way: {_end(comparison.native.status)} on the host, {_end(here.status)} here."
        )


def _write_differences(comparison: Comparison, paper: Paper) -> None:
    most = "" if comparison.exact else "at most "
    paper.line(
        f"agreement  {_percent(comparison.agreement)}; the first {comparison.prefix} are the same;"
        f" edit distance {most}{comparison.distance}"
    )
    paper.heading("What differs")
    classes = _classes(comparison)
    rows = [
        [number, kind, mode, mapping, function, f"{page:#x}"]
        for (kind, mode, mapping, function, _), (number, page) in classes[:_MOST_ROWS]
    ]
    names = ("faults", "who has it", "mode", "in", "by", "first page")
    paper.table([Column(names[0], right=True), *(Column(name, fixed=name != "by") for name in names[1:])], rows)
    if len(classes) > _MOST_ROWS:
        paper.line(f"and {len(classes) - _MOST_ROWS} more kinds (--json has every one)")
    paper.heading("Why")
    for why, number in _reasons(comparison).most_common():
        paper.item(f"{number}", why)


def _classes(comparison: Comparison) -> list[tuple[tuple[str, str, str, str, str], tuple[int, int]]]:
    """Differences by (kind, mode, mapping, function, reason): how many, and the first one's page; the largest first."""
    symbols = Symbolizer(parse_maps(comparison.here.maps))
    found: dict[tuple[str, str, str, str, str], tuple[int, int]] = {}
    for each in comparison.differences:
        mapping = os.path.basename(each.mapping) if each.mapping.startswith("/") else each.mapping
        key = each.kind, each.mode, mapping or "anonymous", _function(each, symbols), each.why
        number, page = found.get(key, (0, each.page))
        found[key] = number + 1, page
    return sorted(found.items(), key=lambda item: -item[1][0])


def _function(difference: Difference, symbols: Symbolizer) -> str:
    """Which code faulted, as a person knows it."""
    if difference.mode == "kernel" or difference.pc >= _KERNEL_HALF:
        return "the kernel"
    place = symbols.place(difference.pc)
    return place.symbol.name if place.symbol is not None else os.path.basename(place.path) or f"{difference.pc:#x}"


def _reasons(comparison: Comparison) -> Counter[str]:
    return Counter(each.why or _UNKNOWN for each in comparison.differences)


def write_table(comparisons: Sequence[Comparison], failures: Sequence[tuple[str, str]], stream: IO[str]) -> None:
    """Several programs, a line each, and all of them together. `failures`: (command, why it could not be compared)."""
    paper = Paper(stream)
    columns = [
        Column("program"),
        *(Column(name, right=True) for name in ("kernel", "Loadstone", "distance", "agreement")),
    ]
    rows = [_row(_words(one), [one]) for one in comparisons]
    paper.table(columns, [*rows, _row("total", comparisons)])
    same = sum(one.identical for one in comparisons)
    paper.line(f"{same} of {count(len(comparisons), 'program')} identical")
    for why, number in sum((_reasons(one) for one in comparisons), Counter[str]()).most_common():
        paper.item(f"{number:,}", why)
    for command, why in failures:
        paper.line(f"not compared: {command}: {why}")


def _row(name: str, group: Sequence[Comparison]) -> list[str]:
    share = agreement([alignment for one in group for alignment in one.alignments])
    totals = (sum(len(one.native.faults) for one in group), sum(len(one.here.faults) for one in group))
    distance = sum(one.distance for one in group)
    return [name, *(f"{total:,}" for total in totals), f"{distance:,}", _percent(share)]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything, for programs. Addresses are numbers."""
    native, here = comparison.native, comparison.here
    return {
        "command": [os.fsdecode(word) for word in comparison.program.argv],
        "path": comparison.program.path,
        "engine": here.engine,
        "fault_around": here.fault_around,
        "page_cache": here.page_cache,
        "kernel_mode": native.kernel_mode,
        "status": {"kernel": native.status, "loadstone": here.status},
        "faults": {"kernel": modes(native.faults), "loadstone": modes(here.faults)},
        "repeatable": comparison.repeatable,
        "identical": comparison.identical,
        "prefix": comparison.prefix,
        "distance": comparison.distance,
        "distance_is_least": comparison.exact,
        "agreement": comparison.agreement,
        "differences": [each._asdict() for each in comparison.differences],
    }


def _words(comparison: Comparison) -> str:
    return " ".join(os.fsdecode(word) for word in comparison.program.argv)


def _counts(faults: Sequence[Any]) -> str:
    by_mode = modes(faults)
    return f"{count(len(faults), 'fault')}: {by_mode['user']:,} user, {by_mode['kernel']:,} kernel"


def _percent(share: float) -> str:
    """Two digits, but 100 only when it is all."""
    return "100 %" if share == 1 else f"{min(share * 100, 99.99):.2f} %"


def _end(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.waitstatus_to_exitcode(status)}"
