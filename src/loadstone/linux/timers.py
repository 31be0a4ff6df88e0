"""Timers of programs: alarm(2), setitimer(2), timer_create(2), and what timerfd(2) is made of.

One `Timers` for the whole machine: the scheduler asks `next_deadline` when it sleeps, and calls `expire` between time
slices. Sources: kernel/time/itimer.c, posix-timers.c, posix-cpu-timers.c.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from loadstone.kernel.process import Task
from loadstone.linux.signal import sending, signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Process

REAL, VIRTUAL, PROFILING = range(3)
SIGNALS = (signals.SIGALRM, signals.SIGVTALRM, signals.SIGPROF)
SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, SIGEV_THREAD_ID = 0, 1, 2, 4
MOST_OVERRUNS = (1 << 31) - 1  # DELAYTIMER_MAX
_TIMER_FIELDS = Struct("<iiQ")  # si_timerid, si_overrun, si_value


class Timer:
    """Counts down on a clock.

    `now` reads the clock, in ns; `sleeps`: it is CLOCK_MONOTONIC, so that it goes on while nobody runs. `ring` is
    called with how often the timer went off since it was last called; `over` says that nobody is interested any more.
    """

    __slots__ = ("_timers", "deadline", "interval", "now", "over", "ring", "sleeps")

    def __init__(
        self,
        timers: Timers,
        now: Callable[[], int],
        sleeps: bool,
        ring: Callable[[int], None],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._timers = timers
        self.now = now
        self.sleeps = sleeps
        self.ring = ring
        self.over = over
        self.deadline = 0  # 0: not armed
        self.interval = 0

    def get(self) -> tuple[int, int]:
        """(ns left, interval); what is left is 0 when the timer is not armed, and never while it is."""
        if not self.deadline:
            return 0, self.interval
        return max(self.deadline - self.now(), 1), self.interval

    def set(self, deadline: int, interval: int) -> None:
        """Go off at `deadline` and then every `interval` ns; 0 disarms."""
        self.deadline, self.interval = deadline, interval
        if deadline:
            self._timers.armed[self] = None
        else:
            self._timers.armed.pop(self, None)

    def advance(self) -> None:
        """Ring if it is time; intervals that passed unseen are counted."""
        now = self.now()
        if now < self.deadline:
            return
        times = 1
        if self.interval:
            times += (now - self.deadline) // self.interval
            self.deadline += times * self.interval
        else:
            self.set(0, 0)
        self.ring(times)


class Timers:
    """The armed timers of a machine, in the order in which they were armed, and the interval timers of processes."""

    __slots__ = ("_intervals", "armed")

    def __init__(self) -> None:
        self.armed: dict[Timer, None] = {}
        self._intervals: dict[tuple[Process, int], Timer] = {}

    def get(self, process: Process, which: int) -> tuple[int, int]:
        """getitimer(2): (ns left, interval); (0, 0) when the timer is not armed."""
        timer = self._intervals.get((process, which))
        return timer.get() if timer is not None else (0, 0)

    def set(self, process: Process, which: int, value: int, interval: int) -> tuple[int, int]:
        """setitimer(2): go off in `value` ns and then every `interval`; 0 disarms. What it was before."""
        timer = self._intervals.get((process, which))
        before = timer.get() if timer is not None else (0, 0)
        if not value:
            if timer is not None:
                timer.set(0, 0)
                del self._intervals[process, which]
            return before
        if timer is None:
            timer = self._intervals[process, which] = self._interval_timer(process, which)
        timer.set(timer.now() + value, interval)
        return before

    def _interval_timer(self, process: Process, which: int) -> Timer:
        info = signals.from_kernel(SIGNALS[which])
        clock = process.kernel.clock
        now = clock.monotonic_ns if which == REAL else _counted(process, which)

        # Intervals that passed unseen count once: the signal is pending anyhow.
        return Timer(self, now, which == REAL, lambda times: sending.send(process, info))

    def forget(self, process: Process) -> None:
        """A process has ended, and its interval timers with it."""
        for which in (REAL, VIRTUAL, PROFILING):
            self.set(process, which, 0, 0)

    def next_deadline(self) -> int | None:
        """CLOCK_MONOTONIC time at which the next timer goes off; None when none is armed that runs meanwhile."""
        if not self.armed:
            return None
        return min((timer.deadline for timer in self.armed if timer.sleeps and not timer.over()), default=None)

    def expire(self) -> None:
        """Let ring what went off."""
        for timer in list(self.armed):
            if timer.over():
                timer.set(0, 0)
            elif timer in self.armed:
                timer.advance()


class PosixTimer:
    """A timer of timer_create(2). `target` gets its signal: a process, a thread, or None for nobody."""

    __slots__ = ("_info", "clock", "number", "overrun", "signal", "target", "timer", "value")

    def __init__(
        self, timers: Timers, number: int, clock: int, now: Callable[[], int], sleeps: bool, owner: Process
    ) -> None:
        self.number = number
        self.clock = clock
        self.signal = signals.SIGALRM
        self.value = number
        self.target: Process | Task | None = owner
        self.overrun = 0  # of the last signal: how often more the timer went off than signals came
        self._info: signals.SigInfo | None = None
        self.timer = Timer(timers, now, sleeps, self._ring, lambda: owner.status is not None)

    def _ring(self, times: int) -> None:
        """Send the signal; while it has not been delivered, only count (posix_timer_event)."""
        target = self.target
        if target is None:
            return
        pending = target.signals.pending.queue
        at = next((at for at, info in enumerate(pending) if info is self._info), -1)
        before = self.overrun + 1 if at >= 0 else 0
        self.overrun = min(before + times - 1, MOST_OVERRUNS)
        self._info = signals.SigInfo(
            self.signal, signals.SI_TIMER, _TIMER_FIELDS.pack(self.number, self.overrun, self.value)
        )
        if at >= 0:
            pending[at] = self._info
            return
        if isinstance(target, Task):
            sending.send_task(target, self._info, has_room=True)
        else:
            sending.send(target, self._info, has_room=True)

    def set(self, deadline: int, interval: int) -> None:
        """Go off at `deadline` and then every `interval` ns, 0: never; a signal of before that still waits is lost."""
        self.overrun = 0
        if self.target is not None and self._info is not None:
            self.target.signals.pending.remove(self._info)
            self._info = None
        self.timer.set(deadline, interval)


def _counted(process: Process, which: int) -> Callable[[], int]:
    """What an interval timer of CPU time counts: ITIMER_VIRTUAL leaves the kernel's time out."""
    return (lambda: process_user_ns(process)) if which == VIRTUAL else lambda: process_cpu_ns(process)


def process_user_ns(process: Process) -> int:
    """The user time of a process."""
    return process.total_usage().user_ns


def process_cpu_ns(process: Process) -> int:
    """CLOCK_PROCESS_CPUTIME_ID of a process."""
    total = process.usage.cpu_ns
    for task in process.tasks:
        total += task.cpu_ns
    return total + _running_ns(process.kernel.scheduler.current, process)


def thread_cpu_ns(task: Task) -> int:
    """CLOCK_THREAD_CPUTIME_ID of a thread."""
    return task.cpu_ns + _running_ns(task.kernel.scheduler.current, task)


def thread_system_ns(task: Task) -> int:
    """How much of that was the kernel's work."""
    scheduler = task.kernel.scheduler
    return task.system_ns + (scheduler.slice_system_ns() if scheduler.current is task else 0)


def _running_ns(current: Task | None, who: Process | Task) -> int:
    """What the slice that runs now adds, if it is a slice of `who`."""
    if current is None or (current is not who and current.process is not who):
        return 0
    return current.kernel.scheduler.slice_cpu_ns()
