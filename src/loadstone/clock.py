"""The machine's clock: the host's, or one that only the program's own progress moves. Depends on nothing."""

from __future__ import annotations

import time

# 2036-01-01T00:00:00Z: where a deterministic machine's calendar starts. Later than the times of the host's files, which
# are shown as they are: `make` compares them with those of files made inside. Before 2038: seconds fit 32 bits.
EPOCH_NS = 2_082_758_400 * 1_000_000_000


class Clock:
    """Time as the guest sees it, in nanoseconds.

    Attributes:
        tai_ahead_ns: what CLOCK_TAI is ahead of CLOCK_REALTIME: whole seconds, none unless the host was told of leap
            seconds.
    """

    def __init__(self) -> None:
        self.tai_ahead_ns = round(time.clock_gettime(time.CLOCK_TAI) - time.time()) * 1_000_000_000

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def raw_ns(self) -> int:
        """CLOCK_MONOTONIC_RAW."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME."""
        return time.time_ns()

    def cpu_ns(self) -> int:
        """CLOCK_PROCESS_CPUTIME_ID."""
        return time.process_time_ns()

    def seen_ns(self) -> int:
        """CLOCK_MONOTONIC for an observer: looking moves no clock."""
        return time.monotonic_ns()

    def sleep_until(self, monotonic_ns: int) -> None:
        """Let time pass until CLOCK_MONOTONIC reads `monotonic_ns`; the host sleeps."""
        left = monotonic_ns - time.monotonic_ns()
        if left > 0:
            time.sleep(left / 1e9)


class VirtualClock(Clock):
    """A clock that reads the same on every run: it moves by a fixed step at each reading, slice and sleep."""

    READ_STEP_NS = 1_000
    BOOT_NS = 1_000_000_000_000

    def __init__(self, epoch_ns: int = EPOCH_NS) -> None:
        self.tai_ahead_ns = 0
        self._epoch_ns = epoch_ns
        self._now = self.BOOT_NS

    def advance(self, nanoseconds: int) -> None:
        """Let `nanoseconds` of machine time pass."""
        self._now += nanoseconds

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        self._now += self.READ_STEP_NS
        return self._now

    def raw_ns(self) -> int:
        """CLOCK_MONOTONIC_RAW."""
        return self.monotonic_ns()

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME."""
        return self._epoch_ns + self.monotonic_ns() - self.BOOT_NS

    def cpu_ns(self) -> int:
        """CLOCK_PROCESS_CPUTIME_ID."""
        return self.monotonic_ns() - self.BOOT_NS

    def seen_ns(self) -> int:
        """CLOCK_MONOTONIC for an observer, who leaves the run as it is."""
        return self._now

    def sleep_until(self, monotonic_ns: int) -> None:
        """Let time pass at once."""
        self._now = max(self._now, monotonic_ns)
