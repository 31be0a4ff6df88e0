"""What a task or a number leads to: the personality with its type, a thread or process, its tracer; and who asks."""

from __future__ import annotations

from errno import ENOENT, ESRCH
from typing import TYPE_CHECKING, cast

from loadstone.errors import LinuxError

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.namespaces.pids import PidNamespace
    from loadstone.linux.personality import Linux
    from loadstone.linux.tracing.ptrace import Tracee


def linux_of(task: Task) -> Linux:
    """The personality of the machine on which `task` runs."""
    return cast("Linux", task.kernel.personality)


def current_task(kernel: Kernel) -> Task:
    """The task that looks at what the kernel makes up as it is read; where none runs, any. ENOENT if there is none."""
    task = kernel.scheduler.current
    if task is not None:
        return task
    for process in kernel.processes.values():
        if process.tasks:
            return process.tasks[0]
    raise LinuxError(ENOENT)


def tracee_of(task: Task) -> Tracee | None:
    """What is known of a thread that is traced; None for one that is not."""
    tracing = linux_of(task).calls.tracing
    return tracing.tracees.get(task) if tracing is not None else None


def pids_of(process: Process) -> PidNamespace | None:
    """The PID namespace of a process; None for the machine's first."""
    state = process.personal
    pids: PidNamespace | None = state.pids if state is not None else None
    return pids


def pid_seen(viewer: Process, number: int) -> int:
    """What the process, thread, group or session `number` is called where `viewer` is; 0 if it is not there."""
    pids = pids_of(viewer)
    return number if pids is None else pids.seen(number)


def pid_meant(speaker: Process, number: int) -> int:
    """The machine's number of what a process calls `number`. 0 and -1 stay; a negative one names a group."""
    pids = pids_of(speaker)
    if pids is None or number in (0, -1):
        return number
    return pids.meant(number) if number > 0 else -pids.meant(-number)


def own_tid(task: Task) -> int:
    """What a thread is called where it is: the number in lock words that it writes."""
    return pid_seen(task.process, task.tid)


def monotonic_ahead(task: Task) -> int:
    """How far CLOCK_MONOTONIC of a thread's time namespace is ahead of the machine's, in ns."""
    state = task.personal
    return int(state.namespaces.time.monotonic) if state is not None and state.namespaces is not None else 0


def task_of(task: Task, tid: int) -> Task:
    """The living thread called `tid`, 0 for `task` itself. Raises LinuxError(ESRCH)."""
    found = task.kernel.tasks.get(tid) if tid else task
    if found is None or found.process.status is not None:
        raise LinuxError(ESRCH, f"no thread {tid}")
    return found


def process_called(task: Task, number: int) -> Process | None:
    """The process with that number, or with a thread of that number (kernel: find_vpid)."""
    found = task.kernel.processes.get(number)
    if found is None and number in task.kernel.tasks:
        found = task.kernel.tasks[number].process
    return found
