"""Wait queues: how a system call that must block says what it waits for. Depends on nothing.

A blocking handler is a generator: `reason = yield Wait(queue, deadline)`. It is resumed with `WOKEN` or `TIMED_OUT`; a
signal is thrown in at the yield as `Interrupted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator

WOKEN = "woken"
TIMED_OUT = "timed-out"
INTERRUPTED = "interrupted"


class Interrupted(Exception):  # noqa: N818 - it is not an error: the handler decides what it returns
    """A signal arrived while the task was waiting. A handler that does nothing about it is restarted or gets EINTR."""


class Listener(Protocol):
    """Who is told each time that something happens to a file, and stays to be told again: an interest of epoll's."""

    exclusive: bool
    """One of these is enough: those after it are not told once it has woken somebody."""

    def happened(self, events: int) -> bool:
        """What a queue stands for has happened; `events`: which POLL* bits, 0 for "look yourself".

        Returns whether this woke a task.
        """


class WaitQueue:
    """Who waits for one thing to happen: tasks, in the order in which they came, and those who listen."""

    __slots__ = ("listeners", "waiters", "what")

    def __init__(self, what: str) -> None:
        self.what = what  # for a person: "data in pipe:[17]"
        self.waiters: list[object] = []
        self.listeners: tuple[Listener, ...] = ()

    def wake(self, count: int | None = None, events: int = 0) -> list[object]:
        """Take the first `count` waiters (default: all) off the queue and return them; the scheduler makes them run.

        The listeners are told of `events`. Who calls this only for somebody asks for `waiters` and for `listeners`.
        """
        taken = self.waiters[:count]
        del self.waiters[: len(taken)]
        for listener in self.listeners:
            if listener.happened(events) and listener.exclusive and events:
                break
        return taken

    def listen(self, listener: Listener) -> None:
        """Tell `listener` from now on. The latest is told first, but all who are not exclusive before those who are."""
        self.listeners = (*self.listeners, listener) if listener.exclusive else (listener, *self.listeners)

    def unlisten(self, listener: Listener) -> None:
        """Tell it no more; nothing happens if it is not here."""
        self.listeners = tuple(one for one in self.listeners if one is not listener)


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
