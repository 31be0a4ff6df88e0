"""The reports of `verify --fuzz`, `--conformance` and `--aslr`, for a person and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from loadstone.report.paper import DIM, STRONG, WARNING, Column, Paper, count
from loadstone.report.verify import NOTICE
from loadstone.verify.case_text import render
from loadstone.verify.fuzz import MOST_BYTES, MOST_MILLISECONDS

if TYPE_CHECKING:
    from loadstone.verify.aslr import Result
    from loadstone.verify.conformance import Checked
    from loadstone.verify.fuzz import Disagreement, Findings

Conditions = Sequence[tuple[str, str]]

_MOST_LINES = 60  # of a difference; maps are longer than anything else


def write_findings(findings: Findings, conditions: Conditions, stream: IO[str], width: int | None = None) -> None:
    """What `--fuzz` found."""
    paper, total = Paper(stream, width), findings.total
    mutants, wrong = findings.mutants, findings.wrong
    paper.title(f"{count(mutants, 'mutant')} of {count(findings.seeds, 'seed')}, --seed {findings.seed}")
    _write_conditions(paper, conditions)
    paper.heading("Verdicts of the kernel")
    rows = sorted(findings.verdicts.items(), key=lambda row: -row[1])
    paper.table([Column("verdict", fixed=True), Column("mutants", right=True)], [(kind, f"{n:,}") for kind, n in rows])
    paper.heading("What a mutant cost Loadstone")
    slowest, largest = total.slowest, total.largest
    paper.line(
        f"CPU time   {total.nanoseconds / 1e6 / max(mutants, 1):.2f} ms on average, at most {slowest[0] / 1e6:.1f} ms "
        f"(mutant {slowest[1]}); over {MOST_MILLISECONDS} ms: {total.too_slow}"
    )
    paper.line(
        f"memory     at most {largest[0] / (1 << 20):.1f} MiB more than before it (mutant {largest[1]}); "
        f"over {MOST_BYTES >> 20} MiB: {total.too_large}"
    )
    paper.line(f"frames that were not given back: {total.leaked}")
    for disagreement in findings.disagreements:
        _write_disagreement(paper, disagreement)
    paper.blank()
    result = f"{count(wrong, 'disagreement')}, {count(findings.tracebacks, 'traceback')}"
    style = STRONG if not wrong else WARNING
    paper.line(f"{result}, in {findings.seconds:.0f} s with {count(findings.workers, 'worker')}", indent=0, style=style)


def findings_to_dict(findings: Findings, conditions: Conditions) -> dict[str, Any]:
    """The same as data, schema loadstone/verify-fuzz/1."""
    total = findings.total
    return {
        "schema": "loadstone/verify-fuzz/1",
        "conditions": dict(conditions),
        "seed": findings.seed,
        "seeds": findings.seeds,
        "mutants": findings.mutants,
        "verdicts": findings.verdicts,
        "disagreements": findings.wrong,
        "tracebacks": findings.tracebacks,
        "cpu_milliseconds": {
            "mean": total.nanoseconds / 1e6 / max(findings.mutants, 1),
            "most": total.slowest[0] / 1e6,
            "mutant": total.slowest[1],
            "over_limit": total.too_slow,
        },
        "memory_bytes": {"most": total.largest[0], "mutant": total.largest[1], "over_limit": total.too_large},
        "frames_leaked": total.leaked,
        "seconds": findings.seconds,
        "workers": findings.workers,
        "classes": [
            {
                "kind": one.kind,
                "mutants": one.times,
                "first": list(one.numbers),
                "case": render(one.case),
                "differences": [list(difference) for difference in one.differences],
            }
            for one in findings.disagreements
        ],
    }


def write_checked(
    checked: Sequence[Checked], conditions: Conditions, stream: IO[str], width: int | None = None
) -> None:
    """What came of the conformance list."""
    paper = Paper(stream, width)
    paper.title(f"{count(len(checked), 'bad or odd file')}, by hand")
    _write_conditions(paper, conditions)
    paper.blank()
    columns = [Column("case"), Column("kernel", fixed=True), Column("Loadstone", fixed=True), Column("", fixed=True)]
    paper.table(columns, [_checked_row(one) for one in checked])
    for one in checked:
        if one.skipped:
            paper.line(f"not tried: {one.case.what}: {one.skipped}", style=DIM)
        if one.good or one.judged is None:
            continue
        paper.heading(one.case.what)
        for unmet in one.unmet:
            paper.line(f"is not as on Linux 6.18: {unmet}")
        _write_case(paper, render(one.case), one.judged.differences)
    good = sum(one.good and not one.skipped for one in checked)
    tried = sum(not one.skipped for one in checked)
    paper.blank()
    paper.line(f"{good} of {tried} agree and are as expected", indent=0, style=STRONG if good == tried else WARNING)


def checked_to_dict(checked: Sequence[Checked], conditions: Conditions) -> dict[str, Any]:
    """The same as data, schema loadstone/verify-conformance/1."""
    return {
        "schema": "loadstone/verify-conformance/1",
        "conditions": dict(conditions),
        "cases": [
            {
                "what": one.case.what,
                "kernel": one.judged.kernel.kind if one.judged else None,
                "loadstone": one.judged.own.kind if one.judged else None,
                "unmet": list(one.unmet),
                "differences": [list(difference) for difference in one.judged.differences] if one.judged else [],
                "skipped": one.skipped or None,
            }
            for one in checked
        ],
    }


def write_randomisation(results: Sequence[Result], execs: int, stream: IO[str], width: int | None = None) -> None:
    """How the areas of randomised processes compare."""
    paper = Paper(stream, width)
    paper.title(f"{count(execs, 'exec')} of each program on both sides, addresses randomised")
    paper.paragraph(NOTICE, indent=0, style=DIM)
    paper.blank()
    columns = [
        Column("program"),
        Column("area"),
        Column("bits", right=True),
        Column("step", right=True),
        Column("range", right=True),
        Column("kernel", right=True),
        Column("Loadstone", right=True),
    ]
    paper.table(columns, [_randomised_row(result) for result in results])
    paper.paragraph("kernel, Loadstone: how much of the range the sample spans, in percent.", style=DIM)
    for result in results:
        for fault in result.faults:
            paper.line(f"{result.program}, {result.area.name}: {fault}", style=WARNING)
    wrong = sum(bool(result.faults) for result in results)
    paper.blank()
    text = "all areas agree" if not wrong else f"{count(wrong, 'area')} of {len(results)} not as the kernel's"
    paper.line(text, indent=0, style=WARNING if wrong else STRONG)


def randomisation_to_dict(results: Sequence[Result], execs: int) -> dict[str, Any]:
    """The same as data, schema loadstone/verify-aslr/1."""
    return {
        "schema": "loadstone/verify-aslr/1",
        "execs": execs,
        "areas": [
            {
                "program": result.program,
                "area": result.area.name,
                "source": result.area.source,
                "bits": result.bits,
                "step": result.area.unit,
                "range": [result.lowest, result.highest],
                "kernel": [min(result.live), max(result.live)],
                "loadstone": [min(result.own), max(result.own)],
                "faults": list(result.faults),
            }
            for result in results
        ],
    }


def _write_conditions(paper: Paper, conditions: Conditions) -> None:
    paper.paragraph(NOTICE, indent=0, style=DIM)
    paper.heading("What verdicts depend on")
    width = max(len(what) for what, _ in conditions)
    for what, value in conditions:
        paper.line(f"{what:<{width}}   {value}")


def _write_disagreement(paper: Paper, one: Disagreement) -> None:
    numbers = ", ".join(str(number) for number in one.numbers)
    paper.heading(f"Disagreement: {one.kind} ({count(one.times, 'mutant')}: {numbers}{', …' * (one.times > 5)})")
    _write_case(paper, render(one.case), one.differences)


def _write_case(paper: Paper, text: str, differences: Sequence[tuple[str, str, str]]) -> None:
    for line in text.splitlines():
        paper.line(line)
    for what, theirs, ours in differences:
        for side, value in (("kernel", theirs), ("Loadstone", ours)):
            lines = value.splitlines()[-_MOST_LINES:] or [""]
            paper.line(f"{what}, {side}: {lines[0] if len(lines) == 1 else ''}".rstrip())
            for line in lines if len(lines) > 1 else ():
                paper.line(line, indent=4)


def _checked_row(one: Checked) -> tuple[str, str, str, str]:
    if one.judged is None:
        return one.case.what, "-", "-", "not tried"
    return one.case.what, one.judged.kernel.kind, one.judged.own.kind, "" if one.good else "wrong"


def _randomised_row(result: Result) -> tuple[str, ...]:
    size = result.highest - result.lowest
    spans = [f"{100 * (max(sample) - min(sample)) / size:.1f}" if size else "-" for sample in (result.live, result.own)]
    return (result.program, result.area.name, str(result.bits), f"{result.area.unit:#x}", f"{size:#x}", *spans)
