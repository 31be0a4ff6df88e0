"""Files of the host in an interest list: an epoll descriptor of the host listens to them."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError

if TYPE_CHECKING:
    from loadstone.linux.epoll_file import Interest


class HostEdges:
    """Tells when something happens to the host's files behind interests.

    The host is asked edge-triggered, so that it tells of each thing once, as a wait queue of ours would. Every interest
    has a copy of the descriptor, because the host takes a descriptor once and each interest wants other events.
    """

    __slots__ = ("_copies", "_epoll", "_interests")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._copies: dict[Interest, int] = {}
        self._interests: dict[int, Interest] = {}

    def fileno(self) -> int:
        """A descriptor that can be read when there is something to take."""
        return self._epoll.fileno()

    def add(self, interest: Interest) -> None:
        """Listen for it; EPERM if the host's file is of a kind that cannot be waited for."""
        copy = os.dup(interest.file.host_fd())
        try:
            self._epoll.register(copy, _wanted(interest))
        except OSError as error:
            os.close(copy)
            raise LinuxError(error.errno or 0) from None
        self._copies[interest] = copy
        self._interests[copy] = interest

    def modify(self, interest: Interest) -> None:
        """It wants other events; nothing happens if it is not here."""
        copy = self._copies.get(interest)
        if copy is not None:
            self._epoll.modify(copy, _wanted(interest))

    def remove(self, interest: Interest) -> None:
        """Listen no more; nothing happens if it is not here."""
        copy = self._copies.pop(interest, None)
        if copy is not None:
            del self._interests[copy]
            self._epoll.unregister(copy)  # closing alone would not: the copy is not the last descriptor
            os.close(copy)

    def take(self) -> list[tuple[Interest, int]]:
        """What has happened since this was last asked: (interest, events)."""
        if not self._interests:
            return []
        return [(self._interests[copy], events) for copy, events in self._epoll.poll(0)]

    def close(self) -> None:
        """Give the host its descriptor back; every interest has been removed."""
        self._epoll.close()


def _wanted(interest: Interest) -> int:
    return interest.events & 0xFFFF | select.EPOLLET
