"""`loadstone verify` for a person: one program with both images side by side, many as a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING

from loadstone.linux.exec import auxv
from loadstone.report.paper import DIM, STRONG, WARNING, Column, Paper, count
from loadstone.verify.native import NativeMapping, parse_maps
from loadstone.verify.runner import DIFFERS, IDENTICAL, LEFT_OUT, REFUSED_ALIKE

if TYPE_CHECKING:
    from loadstone.linux.profile_fields import ProfileDifference
    from loadstone.verify.image import Difference, ImageFacts
    from loadstone.verify.runner import Result
    from loadstone.verify.summary import Summary

SAME = "="
NOTICE = (
    "The host executes the file: each process is stopped before its first instruction, looked at through ptrace, and "
    "killed. Nothing of it runs, no file is changed."
)
DECIMAL = ("AT_PHENT", "AT_PHNUM", "AT_CLKTCK", "AT_UID", "AT_EUID", "AT_GID", "AT_EGID", "AT_SECURE")
MOST_SHOWN = 20  # programs that differ, with their differences; the JSON report has all


def write_one(result: Result, kernel: str, stream: IO[str], width: int | None = None) -> None:
    """Write the whole comparison of one program. `kernel` names the kernel that was asked."""
    paper = Paper(stream, width)
    words = " ".join(os.fsdecode(word) for word in result.request.argv[1:4])
    more = " …" if len(result.request.argv) > 4 else ""
    paper.title(f"{result.request.path} {words}{more}".rstrip() + f": {result.kind}")
    paper.paragraph(f"{NOTICE} Kernel: {kernel}.", indent=0, style=DIM)
    if result.images is not None:
        _write_images(paper, *result.images)
    _write_must_differ(paper, [(item.what, item.reason, 1) for item in result.must_differ])
    if result.draws is not None:
        drawn = ", ".join(f"{name} {value}" for name, value in result.draws._asdict().items() if value is not None)
        paper.paragraph(f"The kernel's draws: {drawn} (pages; the jitters in bytes).", style=DIM)
    if result.differences:
        _write_differences(paper, result.differences)
    paper.blank()
    paper.line(verdict_line(result), indent=0, style=STRONG if result.passed else WARNING)


def verdict_line(result: Result) -> str:
    """How it came out, in one line."""
    if result.outcome == IDENTICAL:
        return (
            f"identical: {count(result.mappings, 'mapping')}, all registers, the auxiliary vector, and "
            f"{count(result.compared, 'byte')} of stack, written pages and vDSO"
        )
    if result.outcome == DIFFERS:
        return f"differs: {count(len(result.differences), 'thing')}" + (f"; {result.why}" if result.why else "")
    return f"{result.outcome}: {result.why}"


def write_many(
    results: Sequence[Result], summary: Summary, kernel: str, stream: IO[str], width: int | None = None
) -> None:
    """Write what came of many comparisons."""
    paper = Paper(stream, width)
    one = "exec" if any(result.request.label for result in results) else "name"
    paper.title(f"{count(summary.names, one)} of {count(summary.files, 'file')} compared with {kernel}")
    paper.paragraph(NOTICE, indent=0, style=DIM)
    paper.blank()
    _write_table(paper, results)
    _write_must_differ(paper, summary.must_differ)
    refused = Counter(result.why.partition(":")[0] for result in results if result.outcome == REFUSED_ALIKE)
    if refused:
        reasons = ", ".join(f"{why} {number}" for why, number in sorted(refused.items()))
        paper.paragraph(f"Refused by both, for the same reason: {reasons}.")
    for result in results:
        if result.outcome == LEFT_OUT:
            paper.line(f"left out: {result.request.path}: {result.why}", style=DIM)
    _write_failures(paper, [result for result in results if result.outcome == DIFFERS])
    paper.blank()
    agreed = sum(result.passed for result in results)
    judged = sum(result.outcome != LEFT_OUT for result in results)
    style = STRONG if agreed == judged else WARNING
    share = f"{100 * agreed / judged:.2f} %" if judged else "nothing to compare"
    paper.line(f"{agreed:,} of {judged:,} agree ({share}), in {summary.seconds:.1f} s", indent=0, style=style)


def write_profile_differences(
    here: str, there: str, differences: Iterable[ProfileDifference], stream: IO[str], width: int | None = None
) -> None:
    """Write what the modelled kernel `here` does otherwise than the one underneath, `there`."""
    paper = Paper(stream, width)
    paper.title(f"{here}, beside {there} underneath: what their sources do differently")
    for field, mine, others in differences:
        paper.item(f"{field.name}:", f"{mine}; underneath: {others}. It decides: {field.what}. Source: {field.file}")
    paper.blank()


def _write_images(paper: Paper, ours: ImageFacts, kernel: ImageFacts) -> None:
    paper.heading("Mappings")
    paper.table([Column("Loadstone", fixed=True), Column("kernel"), Column("what")], _mapping_rows(ours, kernel))
    paper.heading("Auxiliary vector, in order")
    paper.table(
        [Column("entry", fixed=True), Column("Loadstone", right=True), Column("kernel")], _auxv_rows(ours, kernel)
    )
    paper.heading("Registers")
    rows = [(name, *_pair(ours.registers.get(name), value)) for name, value in kernel.registers.items()]
    shown = [row for row in rows if row[1] != "0" or row[2] != SAME]
    paper.table([Column("register", fixed=True), Column("Loadstone", right=True), Column("kernel")], shown)
    paper.paragraph(f"The other {len(rows) - len(shown)} are 0 on both sides.", style=DIM)
    paper.heading("What the kernel keeps of it (/proc/PID/stat)")
    notes = [(name, *_pair(ours.notes[name], value)) for name, value in kernel.notes.items()]
    paper.table([Column("field", fixed=True), Column("Loadstone", right=True), Column("kernel")], notes)
    paper.heading("Initial stack")
    size = len(kernel.stack)
    paper.paragraph(
        f"{count(size, 'byte')} from {kernel.stack_pointer:#x} to {kernel.stack_top:#x}, compared byte by byte."
    )
    if ours.pages:
        pages = ", ".join(f"{address:#x}" for address in ours.pages)
        paper.paragraph(f"Pages that the kernel wrote besides (cleared tails of segments), compared too: {pages}.")


def _mapping_rows(ours: ImageFacts, kernel: ImageFacts) -> list[tuple[str, str, str]]:
    """Both maps, merged by address."""
    mine, theirs = ({line.start: line for line in parse_maps(side.maps)} for side in (ours, kernel))
    rows = []
    for start in sorted(mine.keys() | theirs.keys()):
        left, right = mine.get(start), theirs.get(start)
        named = left or right
        assert named is not None
        rows.append((_mapping(left), SAME if left == right else _mapping(right), named.path))
    return rows


def _mapping(line: NativeMapping | None) -> str:
    return f"{line.start:08x}-{line.end:08x} {line.perms} {line.offset:08x}" if line else "-"


def _auxv_rows(ours: ImageFacts, kernel: ImageFacts) -> list[tuple[str, str, str]]:
    mine, theirs = dict(ours.auxv), dict(kernel.auxv)
    rows = []
    for key in dict.fromkeys((*mine, *theirs)):
        name = auxv.name(key)
        rows.append((name, *_pair(mine.get(key), theirs.get(key), decimal=name in DECIMAL)))
    return rows


def _pair(left: int | str | None, right: int | str | None, *, decimal: bool = False) -> tuple[str, str]:
    """One value of both sides as two cells."""

    def cell(value: int | str | None) -> str:
        if value is None:
            return "-"
        if isinstance(value, str):
            return value
        return str(value) if decimal or value < 10 else f"{value:#x}"

    return cell(left), SAME if left == right else cell(right)


def _write_must_differ(paper: Paper, rows: Sequence[tuple[str, str, int]]) -> None:
    if rows:
        paper.heading("What must differ, and does")
        columns = [Column("what", fixed=True), Column("why")]
        if any(number > 1 for _, _, number in rows):
            columns.append(Column("programs", right=True))
        paper.table(columns, [(what, why, f"{number:,}")[: len(columns)] for what, why, number in rows])


def _write_differences(paper: Paper, differences: Sequence[Difference]) -> None:
    paper.heading("What differs")
    columns = [Column("what"), Column("Loadstone"), Column("kernel")]
    paper.table(columns, [(item.what, item.ours or "-", item.kernel or "-") for item in differences])
    paper.heading("Why the kernel has it there")
    for origin in dict.fromkeys(item.origin for item in differences):
        paper.item(f"{origin.name}:", f"{origin.function} ({origin.file}): {origin.rule}.")


def _write_table(paper: Paper, results: Sequence[Result]) -> None:
    outcomes = (IDENTICAL, REFUSED_ALIKE, DIFFERS, LEFT_OUT)
    numbers = Counter((result.kind, result.outcome) for result in results)
    kinds = sorted({result.kind for result in results})
    rows: list[tuple[object, ...]] = [
        (kind, *(f"{numbers[kind, outcome]:,}" if numbers[kind, outcome] else "" for outcome in outcomes))
        for kind in kinds
    ]
    totals = [sum(numbers[kind, outcome] for kind in kinds) for outcome in outcomes]
    rows.append(("total", *(f"{number:,}" for number in totals)))
    paper.table([Column("kind"), *(Column(outcome, right=True) for outcome in outcomes)], rows)


def _write_failures(paper: Paper, failures: Sequence[Result]) -> None:
    for result in failures[:MOST_SHOWN]:
        label = f" ({result.request.label})" if result.request.label else ""
        paper.heading(f"{result.request.path}{label}: {verdict_line(result)}")
        _write_differences(paper, result.differences[:MOST_SHOWN])
    if len(failures) > MOST_SHOWN:
        paper.paragraph(f"{len(failures) - MOST_SHOWN} more differ; --report FILE has all of them.", style=WARNING)
