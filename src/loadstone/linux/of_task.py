"""What system calls keep for the whole machine: the Linux personality, with its type."""

from __future__ import annotations

from errno import ESRCH
from typing import TYPE_CHECKING, cast

from loadstone.errors import LinuxError

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.personality import Linux


def linux_of(task: Task) -> Linux:
    """The personality of the machine on which `task` runs."""
    return cast("Linux", task.kernel.personality)


def task_of(task: Task, tid: int) -> Task:
    """The living thread called `tid`, 0 for `task` itself. Raises LinuxError(ESRCH)."""
    found = task.kernel.tasks.get(tid) if tid else task
    if found is None or found.process.status is not None:
        raise LinuxError(ESRCH, f"no thread {tid}")
    return found
