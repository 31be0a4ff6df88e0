"""System calls on scheduling (kernel/sched/syscalls.c). Who runs next is for `kernel.policies` to say."""

from __future__ import annotations

from errno import EINVAL, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import task_of
from loadstone.linux.state import task_state
from loadstone.linux.structs import INT, TIMESPEC, UINT
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.transfer import read_struct, write_struct
from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, OutTime, Pid, Policy, UInt

SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, _, SCHED_IDLE, SCHED_DEADLINE, SCHED_EXT = range(8)
_RESET_ON_FORK = 0x40000000
_REAL_TIME = (SCHED_FIFO, SCHED_RR)
_ATTRIBUTES = Struct(
    "<IIQiIQQQII"
)  # size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max


@syscall(FULL)
def sched_yield(task: Task) -> int:
    """sched_yield(2): the slice ends."""
    task.kernel.scheduler.yield_now()
    return 0


@syscall(FULL)
def sched_getaffinity(task: Task, pid: Pid, size: UInt, mask: Address) -> int:
    """sched_getaffinity(2) of the kernel: the bytes written."""
    count = task.kernel.options.cpu_count
    if size * 8 < count or size & 7:
        raise LinuxError(EINVAL, f"a CPU mask of {size} bytes")
    target = task_of(task, pid)
    kept: int = task.kernel.profile.cpu_mask_bytes
    length = min(size, max((count + 63) // 64 * 8, kept))
    affinity = target.affinity
    allowed = (1 << count) - 1 if affinity is None else affinity
    copy_out(task.process.space, mask, allowed.to_bytes(length, "little"))
    return length


@syscall(PARTIAL, "the CPUs of a machine take turns")
def sched_setaffinity(task: Task, pid: Pid, size: UInt, mask: Address) -> int:
    """sched_setaffinity(2)."""
    present = (1 << task.kernel.options.cpu_count) - 1
    wanted = int.from_bytes(copy_in(task.process.space, mask, min(size, 1024)), "little") & present
    target = task_of(task, pid)
    who, whom = task.process.credentials, target.process.credentials
    if who.euid not in (0, whom.uid, whom.euid):
        raise LinuxError(EPERM, "another user's thread")
    if not wanted:
        raise LinuxError(EINVAL, "none of these CPUs exists")
    target.affinity = wanted
    if target is task and not wanted >> task.cpu & 1:
        task.kernel.scheduler.yield_now()
    return 0


@syscall(FULL)
def getcpu(task: Task, cpu: Address, node: Address, unused: Address) -> int:
    """getcpu(2)."""
    if cpu:
        write_struct(task, cpu, UINT, task.cpu)
    if node:
        write_struct(task, node, UINT, 0)
    return 0


@syscall(FULL)
def sched_getscheduler(task: Task, pid: Pid) -> Policy:
    """sched_getscheduler(2)."""
    target = task_of(task, pid)
    return task_state(target).policy


@syscall(PARTIAL, "followed by --policy priority; the other policies do not look at it")
def sched_setscheduler(task: Task, pid: Pid, policy: Policy, parameters: Address) -> int:
    """sched_setscheduler(2)."""
    if not parameters or pid < 0:
        raise LinuxError(EINVAL)
    (priority,) = read_struct(task, parameters, INT)
    target = task_of(task, pid)
    _set_policy(task, target, policy & ~_RESET_ON_FORK, priority)
    task_state(target).resets_on_fork = bool(policy & _RESET_ON_FORK)
    return 0


@syscall(FULL)
def sched_getparam(task: Task, pid: Pid, parameters: Address) -> int:
    """sched_getparam(2)."""
    if not parameters or pid < 0:
        raise LinuxError(EINVAL)
    target = task_of(task, pid)
    write_struct(task, parameters, INT, target.real_time)
    return 0


@syscall(PARTIAL, "followed by --policy priority; the other policies do not look at it")
def sched_setparam(task: Task, pid: Pid, parameters: Address) -> int:
    """sched_setparam(2)."""
    if not parameters or pid < 0:
        raise LinuxError(EINVAL)
    (priority,) = read_struct(task, parameters, INT)
    target = task_of(task, pid)
    _set_policy(task, target, task_state(target).policy, priority)
    return 0


def _set_policy(task: Task, target: Task, policy: int, priority: int) -> None:
    who, whom = task.process.credentials, target.process.credentials
    if who.euid not in (0, whom.uid, whom.euid):
        raise LinuxError(EPERM, "another user's thread")
    if policy in _REAL_TIME:
        if not 1 <= priority <= 99:
            raise LinuxError(EINVAL, f"a real-time priority of {priority}")
        if task.process.credentials.euid != 0:
            raise LinuxError(EPERM, "real-time scheduling needs privilege")
    elif policy not in (SCHED_OTHER, SCHED_BATCH, SCHED_IDLE) or priority:
        raise LinuxError(EINVAL, f"policy {policy} with priority {priority}")
    task_state(target).policy = policy
    target.real_time = priority
    target.runs_to_block = policy == SCHED_FIFO


@syscall(FULL)
def sched_getattr(task: Task, pid: Pid, attributes: Address, size: UInt, flags: UInt) -> int:
    """sched_getattr(2)."""
    if not attributes or pid < 0 or not 48 <= size <= 4096 or flags:
        raise LinuxError(EINVAL)
    target = task_of(task, pid)
    policy, priority = task_state(target).policy, target.real_time
    length = min(size, _ATTRIBUTES.size)
    full = _ATTRIBUTES.pack(length, policy, 0, target.nice, priority, 0, 0, 0, 0, 1024)
    copy_out(task.process.space, attributes, full[:length])
    return 0


@syscall(FULL)
def sched_get_priority_max(task: Task, policy: Policy) -> int:
    """sched_get_priority_max(2)."""
    return _priority_range(policy)[1]


@syscall(FULL)
def sched_get_priority_min(task: Task, policy: Policy) -> int:
    """sched_get_priority_min(2)."""
    return _priority_range(policy)[0]


def _priority_range(policy: int) -> tuple[int, int]:
    if policy in _REAL_TIME:
        return 1, 99
    if policy in (SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE, SCHED_EXT):
        return 0, 0
    raise LinuxError(EINVAL, f"no policy {policy}")


@syscall(PARTIAL, "always the default slice")
def sched_rr_get_interval(task: Task, pid: Pid, interval: OutTime) -> int:
    """sched_rr_get_interval(2)."""
    if pid < 0:
        raise LinuxError(EINVAL)
    target = task_of(task, pid)
    write_struct(task, interval, TIMESPEC, 0, 0 if task_state(target).policy == SCHED_FIFO else 4_000_000)
    return 0
