"""What a program asked for and did not get is counted, for the report of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.syscalls.machine import linux_of

if TYPE_CHECKING:
    from loadstone.kernel.process import Task

MOST = 1000
OTHERS = "others"


def count_refusal(task: Task, what: str) -> None:
    """Count one refusal of `what`, as a person would call it: `ioctl TIOCSTI`, `socket AF_INET`."""
    count(linux_of(task).calls.refused, what)


def count(counts: dict[str, int], what: str) -> None:
    """Count `what`; a program that asks for ever new things has the late ones counted as one."""
    if len(counts) >= MOST and what not in counts:
        what = OTHERS
    counts[what] = counts.get(what, 0) + 1
