"""What a program asked for and did not get is counted, for the report of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadstone.kernel.process import Task


def count_refusal(task: Task, what: str) -> None:
    """Count one refusal of `what`, as a person would call it: `ioctl TIOCSTI`, `socket AF_INET`."""
    calls = getattr(task.kernel.personality, "calls", None)
    if calls is not None:
        counts: dict[str, int] = calls.refused
        counts[what] = counts.get(what, 0) + 1
