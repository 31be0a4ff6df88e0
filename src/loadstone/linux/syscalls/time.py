"""System calls on time (kernel/time/). All time comes from the machine's clock."""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.structs import SECOND, TIMESPEC, TIMEVAL, WORD
from loadstone.linux.syscalls.machine import linux_of
from loadstone.linux.syscalls.registry import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, FULL, PARTIAL, Restart, syscall
from loadstone.linux.syscalls.transfer import KTIME_MAX, read_struct, read_time, write_struct
from loadstone.wait import Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import (
        Address,
        ClockId,
        InItimer,
        InTime,
        ItimerWhich,
        OutItimer,
        OutTime,
        OutTimeval,
        SleepFlags,
        UInt,
    )
    from loadstone.linux.syscalls.registry import Blocking

REALTIME, MONOTONIC, PROCESS_CPU, THREAD_CPU, MONOTONIC_RAW, REALTIME_COARSE, MONOTONIC_COARSE = range(7)
BOOTTIME, REALTIME_ALARM, BOOTTIME_ALARM, _SGI, TAI = range(7, 12)
# The two alarm clocks are EINVAL: they need a real-time clock device, and the machine has none.
_WALL = (REALTIME, REALTIME_COARSE, TAI)
_STEADY = (MONOTONIC, MONOTONIC_RAW, MONOTONIC_COARSE, BOOTTIME)
_COARSE = (REALTIME_COARSE, MONOTONIC_COARSE)
TICK_NS = 4_000_000  # CONFIG_HZ 250
_MICRO = 1000
_ABSOLUTE = 1
_ITIMER = Struct("<4q")


def read_clock(task: Task, clock: int) -> int:
    """A clock in ns; EINVAL for one that does not exist. A negative number is another process's CPU clock."""
    machine = task.kernel.clock
    if clock in _WALL:
        return _floor(clock, machine.realtime_ns())
    if clock in _STEADY:
        return _floor(clock, machine.monotonic_ns())
    if clock in (PROCESS_CPU, THREAD_CPU) or _is_own_cpu_clock(task, clock):
        return machine.cpu_ns()
    raise LinuxError(EINVAL, f"no clock {clock}")


def _floor(clock: int, now: int) -> int:
    return now - now % TICK_NS if clock in _COARSE else now


def _is_own_cpu_clock(task: Task, clock: int) -> bool:
    """clock_getcpuclockid(3): the complement of the process number, then 1 for a thread's, then the kind."""
    if clock >= 0 or clock & 3 == 3:
        return False
    number = ~(clock >> 3)
    return number == 0 or any(number in (task.process.pid, thread.tid) for thread in task.process.tasks)


@syscall(FULL)
def clock_gettime(task: Task, clock: ClockId, time: OutTime) -> int:
    """clock_gettime(2)."""
    write_struct(task, time, TIMESPEC, *divmod(read_clock(task, clock), SECOND))
    return 0


@syscall(FULL)
def clock_getres(task: Task, clock: ClockId, resolution: OutTime) -> int:
    """clock_getres(2)."""
    read_clock(task, clock)
    if resolution:
        write_struct(task, resolution, TIMESPEC, 0, TICK_NS if clock in _COARSE else 1)
    return 0


@syscall(PARTIAL, "the machine's clock cannot be set: EPERM, as without CAP_SYS_TIME")
def clock_settime(task: Task, clock: ClockId, time: InTime) -> int:
    """clock_settime(2)."""
    if clock != REALTIME:
        raise LinuxError(EINVAL)
    read_time(task, time)
    raise LinuxError(EPERM, "the machine's clock cannot be set")


@syscall(FULL)
def gettimeofday(task: Task, time: OutTimeval, zone: Address) -> int:
    """gettimeofday(2)."""
    if time:
        seconds, nanoseconds = divmod(task.kernel.clock.realtime_ns(), SECOND)
        write_struct(task, time, TIMEVAL, seconds, nanoseconds // _MICRO)
    if zone:
        write_struct(task, zone, Struct("<ii"), 0, 0)
    return 0


@syscall(FULL)
def time(task: Task, result: Address) -> int:
    """time(2)."""
    seconds = task.kernel.clock.realtime_ns() // SECOND
    if result:
        write_struct(task, result, WORD, seconds)
    return seconds


@syscall(FULL)
def nanosleep(task: Task, request: InTime, remaining: OutTime) -> Blocking:
    """nanosleep(2)."""
    duration = read_time(task, request)
    return _sleep(task, task.kernel.clock.monotonic_ns() + duration, remaining)


@syscall(PARTIAL, "not on the CPU-time clocks")
def clock_nanosleep(
    task: Task, clock: ClockId, flags: SleepFlags, request: InTime, remaining: OutTime
) -> int | Blocking:
    """clock_nanosleep(2)."""
    machine = task.kernel.clock
    if clock in (THREAD_CPU, MONOTONIC_RAW, *_COARSE):
        raise LinuxError(EOPNOTSUPP, f"clock {clock} cannot be slept on")
    now = read_clock(task, clock)
    if clock not in (*_WALL, *_STEADY):
        raise LinuxError(EOPNOTSUPP, "sleeping on CPU time")
    target = read_time(task, request)
    if flags & _ABSOLUTE:
        return _sleep(task, machine.monotonic_ns() + target - now, 0, absolute=True)
    return _sleep(task, machine.monotonic_ns() + target, remaining)


def _sleep(task: Task, deadline: int, remaining: int, *, absolute: bool = False) -> Blocking:
    clock = task.kernel.clock
    try:
        yield Wait((), deadline)
    except Interrupted:
        if absolute:
            raise Restart(ERESTARTNOHAND) from None
        if remaining:
            write_struct(task, remaining, TIMESPEC, *divmod(max(deadline - clock.monotonic_ns(), 0), SECOND))
        raise Restart(ERESTART_RESTARTBLOCK, lambda task: _sleep(task, deadline, remaining)) from None
    return 0


@syscall(FULL)
def alarm(task: Task, seconds: UInt) -> int:
    """alarm(2): the seconds the old one had left, rounded to the nearest and never to 0."""
    left, _ = linux_of(task).calls.timers.set(task.process, 0, seconds * SECOND, 0)
    return max((left + SECOND // 2) // SECOND, 1) if left else 0


@syscall(FULL)
def getitimer(task: Task, which: ItimerWhich, value: OutItimer) -> int:
    """getitimer(2)."""
    if not 0 <= which <= 2:
        raise LinuxError(EINVAL, f"no interval timer {which}")
    _write_itimer(task, value, *linux_of(task).calls.timers.get(task.process, which))
    return 0


@syscall(FULL)
def setitimer(task: Task, which: ItimerWhich, new: InItimer, old: OutItimer) -> int:
    """setitimer(2); no new value disarms."""
    interval = value = 0
    if new:
        seconds, micro, next_seconds, next_micro = read_struct(task, new, _ITIMER)
        if min(seconds, next_seconds) < 0 or not 0 <= micro < 1_000_000 or not 0 <= next_micro < 1_000_000:
            raise LinuxError(EINVAL, "the time is not valid")
        interval = min(seconds * SECOND + micro * _MICRO, KTIME_MAX)
        value = min(next_seconds * SECOND + next_micro * _MICRO, KTIME_MAX)
    if not 0 <= which <= 2:
        raise LinuxError(EINVAL, f"no interval timer {which}")
    before = linux_of(task).calls.timers.set(task.process, which, value, interval)
    if old:
        _write_itimer(task, old, *before)
    return 0


def _write_itimer(task: Task, address: int, left: int, interval: int) -> None:
    values = (*divmod(interval // _MICRO, 1_000_000), *divmod(left // _MICRO, 1_000_000))
    write_struct(task, address, _ITIMER, *values)
