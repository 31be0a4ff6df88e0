"""What came of a sweep, counted; and as JSON, schema `loadstone/verify/1`."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from loadstone.verify.runner import DIFFERS, IDENTICAL, LEFT_OUT, REFUSED_ALIKE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.linux.profile import KernelProfile
    from loadstone.verify.runner import Result

SCHEMA = "loadstone/verify/1"


class Summary(NamedTuple):
    """The figures over all results."""

    names: int  # comparisons
    files: int  # distinct files behind them
    must_differ: list[tuple[str, str, int]]  # what, why, in how many images
    seconds: float


def summarise(results: Sequence[Result], files: int, seconds: float) -> Summary:
    """Count."""
    numbers = Counter((item.what, item.reason) for result in results for item in result.must_differ)
    rows = [(what, reason, number) for (what, reason), number in sorted(numbers.items())]
    return Summary(len(results), files, rows, seconds)


def to_dict(results: Sequence[Result], summary: Summary, profile: KernelProfile) -> dict[str, Any]:
    """The report in schema `loadstone/verify/1`; integers are numbers, text may hold surrogate escapes."""
    outcomes = Counter(result.outcome for result in results)
    uname = os.uname()
    return {
        "schema": SCHEMA,
        "kernel": {"release": uname.release, "version": uname.version, "machine": uname.machine},
        "profile": profile.name,
        "totals": {
            outcome.replace(" ", "_"): outcomes[outcome] for outcome in (IDENTICAL, REFUSED_ALIKE, DIFFERS, LEFT_OUT)
        },
        "files": summary.files,
        "seconds": round(summary.seconds, 3),
        "must_differ": [
            {"what": what, "reason": reason, "images": number} for what, reason, number in summary.must_differ
        ],
        "results": [_result(result) for result in results],
    }


def _result(result: Result) -> dict[str, Any]:
    request = result.request
    return {
        "path": request.path,
        "variant": request.label,
        "kind": result.kind,
        "outcome": result.outcome.replace(" ", "_"),
        "why": result.why,
        "mappings": result.mappings,
        "bytes": result.compared,
        "must_differ": [item.what for item in result.must_differ],
        "draws": None if result.draws is None else result.draws._asdict(),
        "differences": [
            {
                "what": item.what,
                "loadstone": item.ours,
                "kernel": item.kernel,
                "function": item.origin.function,
                "file": item.origin.file,
                "rule": item.origin.rule,
            }
            for item in result.differences
        ],
    }
