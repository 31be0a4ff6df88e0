"""UDP between the programs of a machine. Source: net/ipv4/udp.c.

Nothing is lost but the datagrams that a receiver has no room for.
"""

from __future__ import annotations

from errno import ECONNREFUSED, EDESTADDRREQ, EINVAL, EMSGSIZE, ENOTCONN, EPIPE
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.vfs.file import total
from loadstone.vfs.inet_sockets import InetSocket
from loadstone.vfs.socket_messages import NOTHING, Extra, Message, Received, message_cost
from loadstone.vfs.sockets import AF_INET, CONNECTED, OPEN, SHUT_RECEIVE, SHUT_SEND, SOCK_DGRAM, Socket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.inet_ports import Endpoint
    from loadstone.vfs.socket_messages import Who
    from loadstone.vfs.socket_space import SocketSpace
    from loadstone.vfs.sockets import Find

MOST_OF_DATAGRAM: Final = 65_507


class Datagram(Message):
    """One UDP message; `source`: where it came from. Its bytes are the receiver's to hold, not the sender's."""

    __slots__ = ("held", "source")

    def __init__(self, data: bytes, sender: Socket, source: Endpoint) -> None:
        super().__init__(data, sender, NOTHING, 0)
        self.source = source
        self.held = message_cost(len(data))


class UdpSocket(InetSocket):
    """SOCK_DGRAM. `held`: what the messages in its queue take of the receive buffer."""

    __slots__ = ("held",)

    kind = SOCK_DGRAM
    connects = False

    def __init__(self, space: SocketSpace, who: Who, family: int = AF_INET) -> None:
        super().__init__(space, who, family)
        self.held = 0

    def connect_to(self, target: Endpoint) -> None:
        """Messages go there from now on, and come from there only."""
        target = self.reach(target)
        self.local = self.source(target)
        self.remote, self.state = target, CONNECTED

    def disconnect(self) -> None:
        """connect(2) with AF_UNSPEC."""
        self.remote, self.state = None, OPEN
        self.unbind()

    def shutdown(self, how: int) -> None:
        """shutdown(2): of a connected socket only."""
        self.shut |= how
        self.changed()
        if self.state != CONNECTED:
            raise LinuxError(ENOTCONN)

    @property
    def has_room(self) -> bool:
        """What is sent is the receiver's at once."""
        return True

    def available(self) -> int:
        """What the next message has."""
        first = self.queue[0] if self.queue else None
        return len(first) if isinstance(first, Message) else 0

    def send_to(self, pieces: Sequence[memoryview], target: Endpoint | None) -> int:
        """One message, to `target` or where it is connected; lost without a word if nobody has room for it."""
        size = total(pieces)
        if size > MOST_OF_DATAGRAM:
            raise LinuxError(EMSGSIZE)
        if error := self.take_error():
            raise LinuxError(error)
        if self.shut & SHUT_SEND:
            raise LinuxError(EPIPE)
        if target is None and self.remote is None:
            self.demand_port()
            raise LinuxError(EDESTADDRREQ)
        if target is not None and not target.port:
            raise LinuxError(EINVAL)
        there = self.remote if target is None else self.reach(target)
        assert there is not None
        source = self.source(there)
        other = self._at(there, source)
        if other is not None:
            other._deliver(Datagram(b"".join(pieces), self, source))
        elif self.remote is not None:
            self.error = ECONNREFUSED  # the answer to a message that nobody wants (ICMP)
            self.changed()
        return size

    def send(self, pieces: Sequence[memoryview], extra: Extra = NOTHING, target: Find | None = None) -> int:
        """One message to where it is connected."""
        return self.send_to(pieces, None)

    def _at(self, there: Endpoint, source: Endpoint) -> UdpSocket | None:
        """Who gets it: one that is connected to the sender before others (compute_score)."""
        found = [one for one in self.ports.at(there) if isinstance(one, UdpSocket)]
        connected = [one for one in found if one.remote == source]
        return next(iter(connected + [one for one in found if one.remote is None]), None)

    def _deliver(self, message: Datagram) -> None:
        if self.held + message.held <= self.receive_limit and not self.shut & SHUT_RECEIVE:
            self.queue.append(message)
            self.held += message.held
            self.arrived()

    def receive(self, pieces: Sequence[memoryview], peek: bool = False) -> Received:
        """The oldest message; what does not fit is lost."""
        found = self._copy_first(pieces)
        if found is None:
            return self._nothing()
        one, count = found
        assert isinstance(one, Datagram)
        if not peek:
            self.queue.popleft()
            self.held -= one.held
        return Received(count, len(one), None, NOTHING, one.source)
