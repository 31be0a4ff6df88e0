"""What a program asked for and did not get is counted, for the report of the run."""

from __future__ import annotations

from errno import ENOSYS
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import linux_of

if TYPE_CHECKING:
    from loadstone.kernel.process import Task

MOST = 1000
OTHERS = "others"


class AbsentError(LinuxError):
    """ENOSYS of a feature that the machine's kernel is built without, as many kernels are: no gap in the machine."""

    def __init__(self, option: str) -> None:
        super().__init__(ENOSYS, f"as a kernel built without {option}")


def count_refusal(task: Task, what: str) -> None:
    """Count one refusal of `what`, as a person would call it: `ioctl TIOCSTI`, `socket AF_INET`."""
    count(linux_of(task).calls.refused, what)


def count(counts: dict[str, int], what: str) -> None:
    """Count `what`; a program that asks for ever new things has the late ones counted as one."""
    if len(counts) >= MOST and what not in counts:
        what = OTHERS
    counts[what] = counts.get(what, 0) + 1
