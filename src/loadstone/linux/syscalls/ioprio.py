"""System calls on the priority of input and output (block/ioprio.c). It is kept; nothing here queues for a disk."""

from __future__ import annotations

from errno import EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import pid_meant, task_of
from loadstone.linux.state import task_state
from loadstone.linux.syscalls.registry import FULL, syscall

if TYPE_CHECKING:
    from loadstone.kernel.process import Credentials, Task
    from loadstone.linux.syscalls.arguments import Int

# include/uapi/linux/ioprio.h
_PROCESS, _GROUP, _USER = 1, 2, 3
_CLASS_SHIFT, _CLASS_MASK, _DATA_MASK = 13, 7, 0x1FFF
_NONE, _REAL_TIME, _BEST_EFFORT, _IDLE = range(4)

_SCHED_IDLE = 5


@syscall(FULL, "kept and inherited; no input or output waits for another's here")
def ioprio_set(task: Task, which: Int, who: Int, priority: Int) -> int:
    """ioprio_set(2)."""
    _check(priority, task.process.credentials)
    for target in _targets(task, which, who):
        caller, owner = task.process.credentials, target.process.credentials.uid
        if caller.euid not in (0, owner) and caller.uid != owner:
            raise LinuxError(EPERM, "the priority of another user's thread")
        task_state(target).io_priority = priority & 0xFFFF
    return 0


@syscall(FULL)
def ioprio_get(task: Task, which: Int, who: Int) -> int:
    """ioprio_get(2): of one thread what was set for it, of several the best that counts for any."""
    targets = _targets(task, which, who)
    if which == _PROCESS:
        return task_state(targets[0]).io_priority
    return min(map(_effective, targets))


def _check(priority: int, who: Credentials) -> None:
    """Kernel: ioprio_check_cap. The bits between level and class are hints, and any will do."""
    kind, data = priority >> _CLASS_SHIFT & _CLASS_MASK, priority & _DATA_MASK
    if kind == _REAL_TIME and who.euid != 0:
        raise LinuxError(EPERM, "input and output in real time need privilege")
    if kind > _IDLE or (kind == _NONE and data & 7):
        raise LinuxError(EINVAL, f"no priority {data} in class {kind}")


def _targets(task: Task, which: int, who: int) -> list[Task]:
    if which in (_PROCESS, _GROUP):
        who = pid_meant(task.process, who)
    if which == _PROCESS:
        return [task_of(task, who)]
    threads = task.kernel.tasks.values()
    if which == _GROUP:
        group = who or task.process.group
        found = [thread for thread in threads if thread.process.group == group]
    elif which == _USER:
        found = [thread for thread in threads if thread.process.credentials.uid == who]
    else:
        raise LinuxError(EINVAL, f"no such which: {which}")
    if not found:
        raise LinuxError(ESRCH)
    return found


def _effective(target: Task) -> int:
    """Where nothing was set, the CPU priority says class and level (task_nice_ioclass, task_nice_ioprio)."""
    state = task_state(target)
    if state.io_priority >> _CLASS_SHIFT != _NONE:
        return state.io_priority
    if state.policy == _SCHED_IDLE:
        kind = _IDLE
    else:
        kind = _REAL_TIME if target.real_time else _BEST_EFFORT
    return kind << _CLASS_SHIFT | (target.nice + 20) // 5
