"""System calls on time (kernel/time/). All time comes from the machine's clock."""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import monotonic_ahead, pid_meant
from loadstone.linux.signal.restart import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, Restart
from loadstone.linux.structs import SECOND, TIMESPEC, TIMEVAL, WORD
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.transfer import read_time, write_struct
from loadstone.linux.timers import process_cpu_ns, thread_cpu_ns
from loadstone.wait import Interrupted, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import (
        Address,
        ClockId,
        InTime,
        OutTime,
        OutTimeval,
        SleepFlags,
    )
    from loadstone.wait import Blocking

REALTIME, MONOTONIC, PROCESS_CPU, THREAD_CPU, MONOTONIC_RAW, REALTIME_COARSE, MONOTONIC_COARSE = range(7)
BOOTTIME, REALTIME_ALARM, BOOTTIME_ALARM, _SGI, TAI = range(7, 12)
# The two alarm clocks are EINVAL: they need a real-time clock device, and the machine has none.
WALL = (REALTIME, REALTIME_COARSE, TAI)
STEADY = (MONOTONIC, MONOTONIC_RAW, MONOTONIC_COARSE, BOOTTIME)
COARSE = (REALTIME_COARSE, MONOTONIC_COARSE)
TICK_NS = 4_000_000  # CONFIG_HZ 250
_MICRO = 1000
_ABSOLUTE = 1


def read_clock(task: Task, clock: int) -> int:
    """A clock in ns; EINVAL for one that does not exist. A negative number is another process's CPU clock."""
    machine = task.kernel.clock
    if clock == MONOTONIC_RAW:
        return machine.raw_ns() + _ahead(task, clock)
    if clock == TAI:
        return machine.realtime_ns() + machine.tai_ahead_ns
    if clock in WALL:
        return _floor(clock, machine.realtime_ns())
    if clock in STEADY:
        return _floor(clock, machine.monotonic_ns()) + _ahead(task, clock)
    counts = cpu_clock(task, clock)
    if counts is None:
        raise LinuxError(EINVAL, f"no clock {clock}")
    return counts()


def _ahead(task: Task, clock: int) -> int:
    """How far the caller's time namespace is ahead of the machine, in ns."""
    state = task.personal
    if clock == BOOTTIME and state is not None and state.namespaces is not None:
        return int(state.namespaces.time.boottime)
    return monotonic_ahead(task)


def _floor(clock: int, now: int) -> int:
    return now - now % TICK_NS if clock in COARSE else now


def cpu_clock(task: Task, clock: int) -> Callable[[], int] | None:
    """What reads a clock of CPU time; None for another clock, EINVAL for nobody's.

    A negative number is that of a process or thread (clock_getcpuclockid(3)): the complement of its own number, then a
    bit for threads, then the kind. Source: kernel/time/posix-cpu-timers.c, pid_for_clock().
    """
    process = task.process
    if clock == PROCESS_CPU:
        return lambda: process_cpu_ns(process)
    if clock == THREAD_CPU:
        return lambda: thread_cpu_ns(task)
    if clock >= 0 or clock & 3 == 3:
        return None
    number = pid_meant(process, ~(clock >> 3))
    if clock & 4:
        found = task if not number else next((one for one in process.tasks if one.tid == number), None)
        thread = found
        return None if thread is None else lambda: thread_cpu_ns(thread)
    other = process if not number else task.kernel.processes.get(number)
    return None if other is None else lambda: process_cpu_ns(other)


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
        write_struct(task, resolution, TIMESPEC, 0, TICK_NS if clock in COARSE else 1)
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
    if clock in (THREAD_CPU, MONOTONIC_RAW, *COARSE):
        raise LinuxError(EOPNOTSUPP, f"clock {clock} cannot be slept on")
    now = read_clock(task, clock)
    if clock not in (*WALL, *STEADY):
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
