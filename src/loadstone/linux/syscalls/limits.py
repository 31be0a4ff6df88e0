"""System calls on resource limits, use and priority (kernel/sys.c)."""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM, ESRCH
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import INIT
from loadstone.linux.of_task import linux_of, pid_meant, task_of
from loadstone.linux.profile import RLIM_INFINITY, RLIM_NLIMITS, RLIMIT_NICE, RLIMIT_NOFILE
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.transfer import read_struct, write_struct
from loadstone.memory.user import copy_out

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.syscalls.arguments import (
        Address,
        InRlimit,
        Int,
        OutRlimit,
        Pid,
        PriorityWhich,
        Resource,
        UsageWho,
    )

_RLIMIT = Struct("<QQ")


@syscall(FULL)
def getrlimit(task: Task, resource: Resource, limit: OutRlimit) -> int:
    """getrlimit(2)."""
    write_struct(task, limit, _RLIMIT, *_limit(task.process, resource))
    return 0


@syscall(FULL)
def setrlimit(task: Task, resource: Resource, limit: InRlimit) -> int:
    """setrlimit(2)."""
    _set(task.process, resource, *read_struct(task, limit, _RLIMIT))
    return 0


@syscall(FULL)
def prlimit64(task: Task, pid: Pid, resource: Resource, new: InRlimit, old: OutRlimit) -> int:
    """prlimit(2)."""
    values = read_struct(task, new, _RLIMIT) if new else None
    process = task_of(task, pid).process
    if process is not task.process:
        _check_same_user(task.process, process)
    before = _limit(process, resource)
    if values is not None:
        _set(process, resource, *values)
    if old:
        write_struct(task, old, _RLIMIT, *before)
    return 0


def _check_same_user(caller: Process, process: Process) -> None:
    """Kernel: check_prlimit_permission."""
    who, whom = caller.credentials, process.credentials
    uids, gids = (whom.euid, whom.suid, whom.uid), (whom.egid, whom.sgid, whom.gid)
    if who.euid != 0 and (any(uid != who.uid for uid in uids) or any(gid != who.gid for gid in gids)):
        raise LinuxError(EPERM, "the limits of another user's process")


def _limit(process: Process, resource: int) -> tuple[int, int]:
    if resource >= RLIM_NLIMITS:
        raise LinuxError(EINVAL, f"no resource {resource}")
    return process.limits.get(resource, (RLIM_INFINITY, RLIM_INFINITY))


def _set(process: Process, resource: int, soft: int, hard: int) -> None:
    """Kernel: do_prlimit. Raising a hard limit needs privilege."""
    _, old_hard = _limit(process, resource)
    if soft > hard:
        raise LinuxError(EINVAL, f"the soft limit {soft} is above the hard limit {hard}")
    if resource == RLIMIT_NOFILE and hard > linux_of(process.tasks[0]).most_descriptors:
        raise LinuxError(EPERM, f"{hard} descriptors are more than fs.nr_open")
    if hard > old_hard and process.credentials.euid != 0:
        raise LinuxError(EPERM, f"the hard limit is {old_hard}")
    process.limits[resource] = (soft, hard)
    if resource == RLIMIT_NOFILE:
        process.files.limit = soft


_SELF, _CHILDREN, _THREAD = 0, -1, 1


@syscall(PARTIAL, "times, peak memory and faults are counted; the rest reads 0, as most of it does on Linux")
def getrusage(task: Task, who: UsageWho, usage: Address) -> int:
    """getrusage(2)."""
    if who not in (_SELF, _CHILDREN, _THREAD):
        raise LinuxError(EINVAL, f"no such who: {who}")
    from loadstone.linux.children import pack_usage  # wait4's; few programs ask, all pay for what start-up loads
    from loadstone.linux.timers import thread_cpu_ns, thread_system_ns

    process = task.process
    if who == _CHILDREN:
        taken = process.children_usage
    else:
        taken = process.total_usage()
        if who == _THREAD:
            taken.cpu_ns, taken.system_ns, taken.switches = thread_cpu_ns(task), thread_system_ns(task), task.switches
    copy_out(process.space, usage, pack_usage(taken))
    return 0


_PRIO_PROCESS, _PRIO_PGRP, _PRIO_USER = range(3)


@syscall(FULL)
def getpriority(task: Task, which: PriorityWhich, who: Int) -> int:
    """getpriority(2) of the kernel: 20 minus the lowest nice value, so that no result is negative."""
    return 20 - min(target.nice for target in _priority_targets(task, which, who))


@syscall(FULL, "policies fair and priority follow it")
def setpriority(task: Task, which: PriorityWhich, who: Int, nice: Int) -> int:
    """setpriority(2)."""
    nice = max(-20, min(nice, 19))
    if (which, who) == (_PRIO_PROCESS, INIT):
        raise LinuxError(EPERM, "the machine's own process")
    for target in _priority_targets(task, which, who):
        change_nice(task, target, nice)
    return 0


def change_nice(task: Task, target: Task, nice: int, refusal: int = EACCES) -> None:
    """Give a thread another nice value; EPERM for another user's, `refusal` for a better one than is allowed."""
    caller, whom = task.process.credentials, target.process.credentials
    if caller.euid not in (0, whom.euid, whom.uid):
        raise LinuxError(EPERM, "the priority of another user's process")
    floor = 20 - min(target.process.limits.get(RLIMIT_NICE, (0, 0))[0], 40)
    if nice < target.nice and nice < floor and caller.euid != 0:
        raise LinuxError(refusal, "a higher priority needs privilege")
    target.nice = nice


def _priority_targets(task: Task, which: int, who: int) -> list[Task]:
    """The threads of whom a priority is asked; ESRCH if there are none."""
    kernel = task.kernel
    if which in (_PRIO_PROCESS, _PRIO_PGRP):
        who = pid_meant(task.process, who)
    if which == _PRIO_PROCESS:
        return [task_of(task, who)]
    if which == _PRIO_PGRP:
        group = who or task.process.group
        found = [thread for thread in kernel.tasks.values() if thread.process.group == group]
    elif which == _PRIO_USER:
        uid = who or task.process.credentials.uid
        found = [thread for thread in kernel.tasks.values() if thread.process.credentials.uid == uid]
    else:
        raise LinuxError(EINVAL)
    if not found:
        raise LinuxError(ESRCH)
    return found
