"""A timer that is read: timerfd. Source: fs/timerfd.c."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.linux.timers import Timer
from loadstone.vfs.file import WouldBlock, total
from loadstone.vfs.flags import POLLIN, POLLRDNORM
from loadstone.vfs.regular import scatter
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.linux.timers import Timers
    from loadstone.vfs.vfs import Vfs


class TimerFile(AnonymousFile):
    """Counts how often its timer went off since it was last read. `clock`: the number of its clock."""

    __slots__ = ("clock", "ticks", "timer")

    kind = "timerfd"

    def __init__(self, vfs: Vfs, timers: Timers, clock: int, flags: int) -> None:
        super().__init__(vfs, flags)
        self.clock = clock
        self.ticks = 0
        self.timer = Timer(timers, vfs.clock.monotonic_ns, True, self._ring)
        self.read_queue = WaitQueue("a timerfd")

    def _ring(self, times: int) -> None:
        self.ticks += times
        self._notify(self.read_queue, POLLIN)

    def look(self) -> None:
        """Notice that it went off in the middle of a time slice."""
        if self.timer.deadline:
            self.timer.advance()

    def set(self, deadline: int, interval: int) -> None:
        """Go off at `deadline` (CLOCK_MONOTONIC) and then every `interval` ns; what was not read is forgotten."""
        self.ticks = 0
        self.timer.set(deadline, interval)
        self.look()

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Take the count."""
        if total(pieces) < 8:
            raise LinuxError(EINVAL)
        self.look()
        if not self.ticks:
            raise WouldBlock(self.read_queue)
        ticks, self.ticks = self.ticks, 0
        scatter(pieces, memoryview(ticks.to_bytes(8, "little")))
        return 8

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """It is set with a call of its own."""
        raise LinuxError(EINVAL)

    def available(self) -> int | None:
        """What a read gives: 8 bytes or a wait."""
        self.look()
        return 8 if self.ticks else 0

    def ready(self) -> int:
        """POLLIN once it went off."""
        self.look()
        return POLLIN | POLLRDNORM if self.ticks else 0

    def release(self) -> None:
        """The timer stops."""
        self.timer.set(0, 0)
