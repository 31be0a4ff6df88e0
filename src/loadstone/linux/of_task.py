"""What a task leads to: the Linux personality with its type, another thread, what its tracer knows."""

from __future__ import annotations

from errno import ESRCH
from typing import TYPE_CHECKING, cast

from loadstone.errors import LinuxError

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.personality import Linux
    from loadstone.linux.ptrace import Tracee


def linux_of(task: Task) -> Linux:
    """The personality of the machine on which `task` runs."""
    return cast("Linux", task.kernel.personality)


def tracee_of(task: Task) -> Tracee | None:
    """What is known of a thread that is traced; None for one that is not."""
    tracing = linux_of(task).calls.tracing
    return tracing.tracees.get(task) if tracing is not None else None


def task_of(task: Task, tid: int) -> Task:
    """The living thread called `tid`, 0 for `task` itself. Raises LinuxError(ESRCH)."""
    found = task.kernel.tasks.get(tid) if tid else task
    if found is None or found.process.status is not None:
        raise LinuxError(ESRCH, f"no thread {tid}")
    return found
