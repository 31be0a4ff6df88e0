"""System calls on scheduling (kernel/sched/syscalls.c). Who runs next is for `kernel.policies` to say."""

from __future__ import annotations

from errno import E2BIG, EINVAL, EOPNOTSUPP, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import task_of
from loadstone.linux.state import task_state
from loadstone.linux.structs import INT, TIMESPEC, UINT
from loadstone.linux.syscalls.limits import change_nice
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.transfer import read_struct, write_struct
from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, OutTime, Pid, Policy, UInt

SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, _, SCHED_IDLE, SCHED_DEADLINE, SCHED_EXT = range(8)
_RESET_ON_FORK = 0x40000000
_REAL_TIME = (SCHED_FIFO, SCHED_RR)
# struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max
_ATTRIBUTES = Struct("<IIQiIQQQII")
_FIRST_SIZE = 48  # SCHED_ATTR_SIZE_VER0: without the last two
# SCHED_FLAG_*
_FLAG_RESET_ON_FORK, _FLAG_KEEP_POLICY, _FLAG_KEEP_PARAMS, _FLAG_UTIL_CLAMP, _FLAG_ALL = 0x1, 0x8, 0x10, 0x60, 0x7F
_FAIR = (SCHED_OTHER, SCHED_BATCH, SCHED_IDLE)
_LEAST_RUNTIME, _PERIODS = 1 << 10, (100_000, 1 << 22)  # ns; kernel.sched_deadline_period_min_us and _max_us
_PAGE = 4096
_MOST_UTIL = 1024  # SCHED_CAPACITY_SCALE


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
    _demand_same_user(task, target)
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
    state = task_state(task_of(task, pid))
    return state.policy | (_RESET_ON_FORK if state.resets_on_fork else 0)


@syscall(PARTIAL, "followed by --policy priority; the other policies do not look at it")
def sched_setscheduler(task: Task, pid: Pid, policy: Policy, parameters: Address) -> int:
    """sched_setscheduler(2)."""
    if not parameters or pid < 0:
        raise LinuxError(EINVAL)
    (priority,) = read_struct(task, parameters, INT)
    target = task_of(task, pid)
    _settle_policy(task, target, policy & ~_RESET_ON_FORK, priority)
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
    _settle_policy(task, target, task_state(target).policy, priority)
    return 0


def _settle_policy(task: Task, target: Task, policy: int, priority: int) -> None:
    """Set policy and priority by a call that says no times: not SCHED_DEADLINE. Raises as _demand_policy."""
    if policy == SCHED_DEADLINE:
        raise LinuxError(EINVAL, "SCHED_DEADLINE is for sched_setattr")
    _demand_policy(task, target, policy, priority)
    _set_policy(target, policy, priority)


def _demand_same_user(task: Task, target: Task) -> None:
    who, whom = task.process.credentials, target.process.credentials
    if who.euid not in (0, whom.uid, whom.euid):
        raise LinuxError(EPERM, "another user's thread")


def _demand_policy(task: Task, target: Task, policy: int, priority: int) -> None:
    """EINVAL for a policy or priority that there is not, EPERM where it is not allowed."""
    _demand_same_user(task, target)
    if policy in _REAL_TIME:
        if not 1 <= priority <= 99:
            raise LinuxError(EINVAL, f"a real-time priority of {priority}")
        if task.process.credentials.euid != 0:
            raise LinuxError(EPERM, "real-time scheduling needs privilege")
    elif policy not in (*_FAIR, SCHED_DEADLINE) or priority:
        raise LinuxError(EINVAL, f"policy {policy} with priority {priority}")
    elif policy == SCHED_DEADLINE and task.process.credentials.euid != 0:
        raise LinuxError(EPERM, "SCHED_DEADLINE needs privilege")


def _set_policy(target: Task, policy: int, priority: int) -> None:
    task_state(target).policy = policy
    target.real_time = priority
    target.runs_to_block = policy == SCHED_FIFO


@syscall(FULL)
def sched_getattr(task: Task, pid: Pid, attributes: Address, size: UInt, flags: UInt) -> int:
    """sched_getattr(2)."""
    if not attributes or pid < 0 or not 48 <= size <= 4096 or flags:
        raise LinuxError(EINVAL)
    target = task_of(task, pid)
    state = task_state(target)
    length = min(size, _ATTRIBUTES.size)
    flags = _FLAG_RESET_ON_FORK if state.resets_on_fork else 0
    nice = target.nice if state.policy in _FAIR else 0
    times = state.deadline if state.policy == SCHED_DEADLINE else (0, 0, 0)
    full = _ATTRIBUTES.pack(length, state.policy, flags, nice, target.real_time, *times, 0, _MOST_UTIL)
    copy_out(task.process.space, attributes, full[:length])
    return 0


@syscall(PARTIAL, "as sched_setscheduler; the times of SCHED_DEADLINE are kept and not followed")
def sched_setattr(task: Task, pid: Pid, attributes: Address, flags: UInt) -> int:
    """sched_setattr(2)."""
    if not attributes or pid < 0 or flags:
        raise LinuxError(EINVAL)
    _, policy, flags, nice, priority, *rest = _read_attributes(task, attributes)
    if policy >> 31:
        raise LinuxError(EINVAL)
    target = task_of(task, pid)
    state = task_state(target)
    if flags & _FLAG_KEEP_POLICY:
        policy = state.policy
    if flags & _FLAG_KEEP_PARAMS:
        nice, priority, rest[:3] = target.nice, target.real_time, state.deadline
    if flags & ~_FLAG_ALL:
        raise LinuxError(EINVAL, f"flags {flags:#x}")
    times = (rest[0], rest[1], rest[2] or rest[1])
    _demand_times(policy, times)
    _demand_policy(task, target, policy, priority)
    if flags & _FLAG_UTIL_CLAMP:
        raise LinuxError(EOPNOTSUPP, "utilisation is not clamped here")  # as without CONFIG_UCLAMP_TASK
    if policy in (SCHED_OTHER, SCHED_BATCH):  # fair_policy(): the nice value of SCHED_IDLE stays
        change_nice(task, target, max(-20, min(nice, 19)), EPERM)
    _set_policy(target, policy, priority)
    state.deadline = times
    if not flags & _FLAG_KEEP_POLICY:
        state.resets_on_fork = bool(flags & _FLAG_RESET_ON_FORK)
    return 0


def _read_attributes(task: Task, address: int) -> list[int]:
    """A struct sched_attr of whatever size; E2BIG, after telling the size that is known (sched_copy_attr)."""
    (size,) = read_struct(task, address, UINT)
    size = size or _FIRST_SIZE
    if not _FIRST_SIZE <= size <= _PAGE:
        write_struct(task, address, UINT, _ATTRIBUTES.size)
        raise LinuxError(E2BIG)
    raw = copy_in(task.process.space, address, size)
    if any(raw[_ATTRIBUTES.size :]):
        write_struct(task, address, UINT, _ATTRIBUTES.size)
        raise LinuxError(E2BIG, "it says something that is not known here")
    found = list(_ATTRIBUTES.unpack(raw[: _ATTRIBUTES.size].ljust(_ATTRIBUTES.size, b"\0")))
    if found[2] & _FLAG_UTIL_CLAMP and size < _ATTRIBUTES.size:
        raise LinuxError(EINVAL)
    return found


def _demand_times(policy: int, times: tuple[int, int, int]) -> None:
    """EINVAL unless runtime, deadline and period of SCHED_DEADLINE are in order (__checkparam_dl)."""
    runtime, deadline, period = times
    if policy == SCHED_DEADLINE and not (
        _LEAST_RUNTIME <= runtime <= deadline <= period and _PERIODS[0] <= period <= _PERIODS[1] * 1000
    ):
        raise LinuxError(EINVAL, f"a runtime of {runtime} ns in {deadline} of {period}")


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
