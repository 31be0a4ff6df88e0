"""The interval timers of processes: alarm(2), setitimer(2). One object for the whole machine.

The scheduler asks `next_deadline` when it sleeps, and calls `expire` between time slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux import signals

if TYPE_CHECKING:
    from loadstone.kernel.process import Process

REAL, VIRTUAL, PROFILING = range(3)
_SIGNALS = (signals.SIGALRM, signals.SIGVTALRM, signals.SIGPROF)


class Timers:
    """Armed timers: (process, which) -> (deadline, interval) in ns.

    REAL runs on CLOCK_MONOTONIC. The other two run on the CPU time of the whole machine, which is the process's while
    there is one process.
    """

    __slots__ = ("_armed",)

    def __init__(self) -> None:
        self._armed: dict[tuple[Process, int], tuple[int, int]] = {}

    def get(self, process: Process, which: int) -> tuple[int, int]:
        """(ns left, interval); (0, 0) when the timer is not armed."""
        armed = self._armed.get((process, which))
        if armed is None:
            return 0, 0
        deadline, interval = armed
        return max(deadline - _now(process, which), 1), interval

    def set(self, process: Process, which: int, value: int, interval: int) -> tuple[int, int]:
        """Arm the timer to go off in `value` ns and then every `interval`; 0 disarms. What it was before."""
        before = self.get(process, which)
        if value:
            self._armed[process, which] = (_now(process, which) + value, interval)
        else:
            self._armed.pop((process, which), None)
        return before

    def next_deadline(self) -> int | None:
        """CLOCK_MONOTONIC time at which the next REAL timer goes off; None when none is armed."""
        if not self._armed:
            return None
        return min((deadline for (_, which), (deadline, _) in self._armed.items() if which == REAL), default=None)

    def expire(self) -> None:
        """Send the signals of the timers that went off; intervals that passed unseen count once, as on Linux."""
        for (process, which), (deadline, interval) in list(self._armed.items()):
            now = _now(process, which)
            if now < deadline:
                continue
            if process.status is not None:
                del self._armed[process, which]
                continue
            if interval:
                passed = (now - deadline) // interval + 1
                self._armed[process, which] = (deadline + passed * interval, interval)
            else:
                del self._armed[process, which]
            signals.send(process, signals.from_kernel(_SIGNALS[which]))


def _now(process: Process, which: int) -> int:
    """What the timers of this kind are measured against."""
    clock = process.kernel.clock
    return clock.monotonic_ns() if which == REAL else clock.cpu_ns()
