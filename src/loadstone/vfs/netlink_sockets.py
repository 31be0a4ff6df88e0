"""Netlink sockets, as far as the C library needs them: it waits on one for mq_notify(3) with SIGEV_THREAD.

Source: ipc/mqueue.c, which puts the cookie it was given into the socket's queue. There is nothing else behind these
sockets: they cannot be bound, and what is sent is refused, as the machine has no routes or devices to tell of.
"""

from __future__ import annotations

from errno import ECONNREFUSED
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.socket_messages import NOTHING, Extra, Message
from loadstone.vfs.sockets import SOCK_RAW
from loadstone.vfs.unix_sockets import DatagramSocket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.sockets import Find

AF_NETLINK = 16


class NetlinkSocket(DatagramSocket):
    """Receives what the kernel puts there."""

    __slots__ = ()

    kind = SOCK_RAW
    family = AF_NETLINK

    def deliver(self, data: bytes) -> None:
        """The kernel has a message; nobody is charged for it, and a closed socket gets none."""
        if not self.closed:
            self.queue.append(Message(data, self, NOTHING, 0))
            self.arrived()

    def send(self, pieces: Sequence[memoryview], extra: Extra = NOTHING, target: Find | None = None) -> int:
        """Nobody listens to any protocol."""
        raise LinuxError(ECONNREFUSED, "nothing answers on netlink sockets here")
