"""What comes to a machine from the host while it runs: signals, input, and the end of its time."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from loadstone.kernel.process import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from loadstone.wait import Wait

POLLIN, POLLOUT, ALWAYS = 1, 4, 8 | 16 | 32  # poll(2); POLLERR, POLLHUP and POLLNVAL come unasked
TIMED_OUT_STATUS = 124
_LONGEST = 1.0  # seconds of one poll: then the time limit is looked at again


class Outside:
    """The host's side of a scheduler. `post` and `stop` may be called from signal handlers.

    Attributes:
        stopped: how everybody is to end; None while the machine runs.
    """

    def __init__(self, timeout: float | None, interrupt: Callable[[], None]) -> None:
        self.stopped: ExitStatus | None = None
        self._signals: list[int] = []
        self._timeout = timeout
        self._interrupt = interrupt
        self._deadline: float | None = None
        self._bell = -1  # an eventfd while the machine idles: rung by what comes from outside

    def post(self, number: int) -> None:
        """A signal came from the host."""
        self._signals.append(number)
        self._ring()

    def stop(self, status: ExitStatus) -> None:
        """Switch the machine off soon; everybody in it ends with `status`."""
        self.stopped = status
        self._ring()

    def _ring(self) -> None:
        self._interrupt()
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)

    def start_deadline(self) -> float | None:
        """Let the machine's time begin, if it has not; the seconds that are left, None without a limit."""
        if self._timeout is None:
            return None
        if self._deadline is None:
            self._deadline = time.monotonic() + self._timeout
        return max(0.0, self._deadline - time.monotonic())

    def take_signals(self) -> list[int]:
        """The signals that came since; also notices that the machine's time is up."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.stopped = ExitStatus(TIMED_OUT_STATUS, timed_out=True)
        taken = self._signals
        if taken:
            self._signals = []
        return taken

    def poll(self, waits: Iterable[Wait], seconds: float | None) -> dict[int, int]:
        """poll(2) on the host descriptors of `waits`, for `seconds` (None: about as long as it takes).

        Ended early by `post` and `stop`: Python itself would go on with an interrupted poll(). Returns the events by
        descriptor.
        """
        import select

        poll = select.poll()
        wanted: dict[int, int] = {}
        for wait in waits:
            wanted[wait.host_fd] = wanted.get(wait.host_fd, 0) | events_of(wait)
        for fd, events in wanted.items():
            poll.register(fd, events)
        if seconds == 0:
            return dict(poll.poll(0))
        return self._poll_with_bell(poll, self._bounded(seconds))

    def _poll_with_bell(self, poll: object, seconds: float) -> dict[int, int]:
        self._bell = bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            poll.register(bell, POLLIN)  # type: ignore[attr-defined]
            if self._signals or self.stopped:
                seconds = 0
            found: list[tuple[int, int]] = poll.poll(seconds * 1000)  # type: ignore[attr-defined]
            return {fd: events for fd, events in found if fd != bell}
        finally:
            self._bell = -1
            os.close(bell)

    def _bounded(self, seconds: float | None) -> float:
        bounded = _LONGEST if seconds is None else min(seconds, _LONGEST)
        if self._deadline is not None:
            bounded = min(bounded, max(0.0, self._deadline - time.monotonic()))
        return bounded


def events_of(wait: Wait) -> int:
    """The poll(2) event that a wait is for."""
    return POLLOUT if wait.host_write else POLLIN
