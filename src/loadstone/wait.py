"""Wait queues: how a system call that must block says what it waits for. Depends on nothing.

A blocking handler is a generator: `reason = yield Wait(queue, deadline)`. It is resumed with `WOKEN` or `TIMED_OUT`; a
signal is thrown in at the yield as `Interrupted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator

WOKEN = "woken"
TIMED_OUT = "timed-out"
INTERRUPTED = "interrupted"


class Interrupted(Exception):  # noqa: N818 - it is not an error: the handler decides what it returns
    """A signal arrived while the task was waiting. A handler that does nothing about it is restarted or gets EINTR."""


class WaitQueue:
    """The tasks that wait for one thing to happen, in the order in which they came."""

    __slots__ = ("waiters", "what")

    def __init__(self, what: str) -> None:
        self.what = what  # for a person: "data in pipe:[17]"
        self.waiters: list[object] = []

    def wake(self, count: int | None = None) -> list[object]:
        """Take the first `count` waiters (default: all) off the queue and return them; the scheduler makes them run."""
        taken = self.waiters[:count]
        del self.waiters[: len(taken)]
        return taken


class Wait(NamedTuple):
    """What a blocking handler yields.

    `queues`: any of them wakes it. `host_fd`: also wake when this host descriptor is ready (for `host_write` to be
    written, else read); -1 for none. `deadline`: absolute machine time in ns (CLOCK_MONOTONIC), None for ever.
    `interruptible`: signals end it; else only a kill does.
    """

    queues: tuple[WaitQueue, ...] = ()
    deadline: int | None = None
    host_fd: int = -1
    host_write: bool = False
    interruptible: bool = True


if TYPE_CHECKING:
    Blocking = Generator[Wait, str, int]
    """What a handler that waits is: it yields `Wait`, is sent WOKEN or TIMED_OUT, and returns the result."""
