"""System calls on timers: alarm, the interval timers, and those of timer_create. Source: kernel/time/."""

from __future__ import annotations

from errno import EAGAIN, EINVAL, EOPNOTSUPP
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import linux_of, pid_meant
from loadstone.linux.signal.sending import queue_is_full
from loadstone.linux.signal.signals import HIGHEST
from loadstone.linux.state import process_state
from loadstone.linux.structs import INT, SECOND
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.time import COARSE, MONOTONIC_RAW, STEADY, WALL, cpu_clock, read_clock
from loadstone.linux.syscalls.transfer import KTIME_MAX, read_struct, write_struct
from loadstone.linux.timers import SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID, PosixTimer

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, ClockId, InItimer, Int, ItimerWhich, OutItimer, UInt

TIMER_ABSTIME = 1
_ITIMER = Struct("<4q")
_SIGEVENT = Struct("<Qiii44x")  # value, signal, how, thread
_MICRO = 1000


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


# struct itimerspec, as timerfd has it too


def read_setting(task: Task, address: int) -> tuple[int, int]:
    """(value, interval) in ns; EINVAL for what are no times."""
    seconds, nanoseconds, next_seconds, next_nanoseconds = read_struct(task, address, _ITIMER)
    if min(seconds, next_seconds) < 0 or not 0 <= nanoseconds < SECOND or not 0 <= next_nanoseconds < SECOND:
        raise LinuxError(EINVAL, "the time is not valid")
    value = min(next_seconds * SECOND + next_nanoseconds, KTIME_MAX)
    return value, min(seconds * SECOND + nanoseconds, KTIME_MAX)


def write_setting(task: Task, address: int, left: int, interval: int) -> None:
    """The time left and the interval."""
    write_struct(task, address, _ITIMER, *divmod(interval, SECOND), *divmod(left, SECOND))


def deadline_of(task: Task, clock: int, value: int, absolute: bool) -> int:
    """When a setting goes off, on the clock that its timer counts on: CLOCK_MONOTONIC, or CPU time; 0 for never."""
    if not value:
        return 0
    counts_on = cpu_clock(task, clock) or task.kernel.clock.monotonic_ns
    if not absolute:
        return counts_on() + value
    return max(1, counts_on() + value - read_clock(task, clock))


# Timers of timer_create


@syscall(PARTIAL, "the alarm clocks are EINVAL")
def timer_create(task: Task, clock: ClockId, event: Address, number: Address) -> int:
    """timer_create(2)."""
    given = read_struct(task, event, _SIGEVENT) if event else None
    read_clock(task, clock)
    counts = cpu_clock(task, clock)
    if counts is None and (clock in (MONOTONIC_RAW, *COARSE) or clock not in (*WALL, *STEADY)):
        raise LinuxError(EOPNOTSUPP)
    own = process_state(task.process).timers
    if queue_is_full(task.process):
        raise LinuxError(EAGAIN, "RLIMIT_SIGPENDING signals and timers are there")
    free = max(own, default=-1) + 1
    now = counts or task.kernel.clock.monotonic_ns
    timer = PosixTimer(linux_of(task).calls.timers, free, clock, now, counts is None, task.process)
    if given is not None:
        _direct(task, timer, *given)
    write_struct(task, number, INT, free)
    own[free] = timer
    return 0


def _direct(task: Task, timer: PosixTimer, value: int, number: int, how: int, thread: int) -> None:
    """Whom the timer signals, and with what (good_sigevent)."""
    if how == SIGEV_SIGNAL | SIGEV_THREAD_ID:
        tid = pid_meant(task.process, thread)
        timer.target = next((one for one in task.process.tasks if one.tid == tid), None)
        if timer.target is None:
            raise LinuxError(EINVAL, f"no thread {thread} in this process")
    elif how == SIGEV_NONE:
        timer.target = None
    elif how not in (SIGEV_SIGNAL, SIGEV_THREAD):
        raise LinuxError(EINVAL)
    if how != SIGEV_NONE and not 0 < number <= HIGHEST:
        raise LinuxError(EINVAL)
    timer.signal, timer.value = number, value


def _timer(task: Task, number: int) -> PosixTimer:
    found = process_state(task.process).timers.get(number)
    if found is None:
        raise LinuxError(EINVAL, f"no timer {number}")
    return found


@syscall(FULL)
def timer_settime(task: Task, number: Int, flags: Int, new: Address, old: Address) -> int:
    """timer_settime(2)."""
    if not new:
        raise LinuxError(EINVAL)
    value, interval = read_setting(task, new)
    one = _timer(task, number)
    before = one.timer.get()
    one.set(deadline_of(task, one.clock, value, bool(flags & TIMER_ABSTIME)), interval if value else 0)
    if old:
        write_setting(task, old, *before)
    return 0


@syscall(FULL)
def timer_gettime(task: Task, number: Int, current: Address) -> int:
    """timer_gettime(2)."""
    write_setting(task, current, *_timer(task, number).timer.get())
    return 0


@syscall(FULL)
def timer_getoverrun(task: Task, number: Int) -> int:
    """timer_getoverrun(2)."""
    return _timer(task, number).overrun


@syscall(FULL)
def timer_delete(task: Task, number: Int) -> int:
    """timer_delete(2)."""
    _timer(task, number).set(0, 0)
    del process_state(task.process).timers[number]
    return 0
