"""System calls on resource limits, use and priority (kernel/sys.c)."""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM, ESRCH
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.children import pack_usage
from loadstone.linux.profile import RLIM_INFINITY, RLIM_NLIMITS, RLIMIT_NICE, RLIMIT_NOFILE
from loadstone.linux.state import process_state
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
_NR_OPEN = 1 << 20  # fs.nr_open


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


@syscall(PARTIAL, "only of the calling process")
def prlimit64(task: Task, pid: Pid, resource: Resource, new: InRlimit, old: OutRlimit) -> int:
    """prlimit(2)."""
    values = read_struct(task, new, _RLIMIT) if new else None
    if pid and all(pid != thread.tid for thread in task.process.tasks):
        raise LinuxError(ESRCH, f"no process {pid}")
    before = _limit(task.process, resource)
    if values is not None:
        _set(task.process, resource, *values)
    if old:
        write_struct(task, old, _RLIMIT, *before)
    return 0


def _limit(process: Process, resource: int) -> tuple[int, int]:
    if resource >= RLIM_NLIMITS:
        raise LinuxError(EINVAL, f"no resource {resource}")
    return process.limits.get(resource, (RLIM_INFINITY, RLIM_INFINITY))


def _set(process: Process, resource: int, soft: int, hard: int) -> None:
    """Kernel: do_prlimit. Raising a hard limit needs privilege."""
    _, old_hard = _limit(process, resource)
    if soft > hard:
        raise LinuxError(EINVAL, f"the soft limit {soft} is above the hard limit {hard}")
    if resource == RLIMIT_NOFILE and hard > _NR_OPEN:
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
    process = task.process
    if who == _CHILDREN:
        taken = process.children_usage
    else:
        taken = process.total_usage()
        if who == _THREAD:
            taken.cpu_ns, taken.switches = task.cpu_ns, task.switches
    copy_out(process.space, usage, pack_usage(taken))
    return 0


_PRIO_PROCESS, _PRIO_PGRP, _PRIO_USER = range(3)


@syscall(PARTIAL, "only of the calling process")
def getpriority(task: Task, which: PriorityWhich, who: Int) -> int:
    """getpriority(2) of the kernel: 20 minus the nice value, so that no result is negative."""
    return 20 - process_state(_priority_target(task, which, who)).nice


@syscall(PARTIAL, "only of the calling process; the scheduler does not look at it")
def setpriority(task: Task, which: PriorityWhich, who: Int, nice: Int) -> int:
    """setpriority(2)."""
    process = _priority_target(task, which, who)
    nice = max(-20, min(nice, 19))
    floor = 20 - min(process.limits.get(RLIMIT_NICE, (0, 0))[0], 40)
    if nice < process_state(process).nice and nice < floor and process.credentials.euid != 0:
        raise LinuxError(EACCES, "a higher priority needs privilege")
    process_state(process).nice = nice
    return 0


def _priority_target(task: Task, which: int, who: int) -> Process:
    process = task.process
    if which not in (_PRIO_PROCESS, _PRIO_PGRP, _PRIO_USER):
        raise LinuxError(EINVAL)
    own = {
        _PRIO_PROCESS: {thread.tid for thread in process.tasks},
        _PRIO_PGRP: {process.group},
        _PRIO_USER: {process.credentials.uid},
    }[which]
    if who and who not in own:
        raise LinuxError(ESRCH)
    return process
