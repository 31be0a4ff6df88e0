"""UNIX sockets: streams, datagrams, sequenced packets. Sources: net/unix/af_unix.c, net/core/sock.c.

What a message is charged is what its buffer occupies in Linux (`truesize`).
"""

from __future__ import annotations

from errno import ECONNREFUSED, ECONNRESET, EINVAL, EMSGSIZE, ENOTCONN, EPERM, EPIPE, EPROTOTYPE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.file import WouldBlock, after, total
from loadstone.vfs.regular import before, scatter
from loadstone.vfs.socket_messages import (
    MOST_OF_STREAM,
    NOTHING,
    Extra,
    Message,
    Received,
    Who,
    message_cost,
    stream_cost,
)
from loadstone.vfs.sockets import (
    CONNECTED,
    OPEN,
    SHUT_RECEIVE,
    SHUT_SEND,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    Ended,
    Socket,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.sockets import Find


class StreamSocket(Socket):
    """SOCK_STREAM: bytes in order."""

    __slots__ = ()

    kind = SOCK_STREAM

    def send(self, pieces: Sequence[memoryview], extra: Extra = NOTHING, target: Find | None = None) -> int:
        """Cut into messages; what goes along goes with the first."""
        peer = self._receiver()
        wanted, done = total(pieces), 0
        while done < wanted:
            try:
                self._demand_room()
            except WouldBlock:
                if done:
                    break
                raise
            size = min(wanted - done, self.send_limit // 2 - 64, MOST_OF_STREAM)
            self._put(peer, b"".join(before(after(pieces, done), size)), extra)
            extra = extra._replace(rights=())
            done += size
        if done:
            peer.arrived()
        return done

    def _receiver(self) -> Socket:
        """Who gets what is sent; ENOTCONN, EPIPE."""
        peer = self.peer
        if peer is None:
            raise LinuxError(ENOTCONN)
        if self.shut & SHUT_SEND or peer.closed or peer.shut & SHUT_RECEIVE:
            raise LinuxError(EPIPE)
        return peer

    def _put(self, peer: Socket, data: bytes, extra: Extra) -> None:
        peer.queue.append(Message(data, self, self.marked(extra, peer), stream_cost(len(data))))

    def receive(self, pieces: Sequence[memoryview], peek: bool = False) -> Received:
        """Bytes of as many messages as fit, but only of one sender's, and not past open files (unix_stream_read)."""
        if self.state != CONNECTED:
            raise LinuxError(EINVAL)
        wanted = total(pieces)
        if not self.queue:
            return self._nothing()
        done = 0
        rights: tuple[OpenFile, ...] = ()
        first: Message | None = None
        for one in list(self.queue):
            assert isinstance(one, Message)
            if first is not None and self.passes_credentials and one.extra.who != first.extra.who:
                break
            first = first or one
            part = min(len(one), wanted - done)
            scatter(before(after(pieces, done), part), memoryview(one.data)[one.start : one.start + part])
            done += part
            rights = one.take_rights(peek)
            if not peek:
                self._consume(one, part)
            if rights or done >= wanted:
                break
        assert first is not None
        return Received(done, done, first.sender, Extra(rights, first.extra.who))

    def _consume(self, one: Message, count: int) -> None:
        one.start += count
        if not len(one):
            self.queue.popleft()
            one.sender.relieve(one.cost)


class DatagramSocket(Socket):
    """SOCK_DGRAM: messages, each received whole or cut."""

    __slots__ = ()

    kind = SOCK_DGRAM
    connects = False

    def _nothing(self) -> Received:
        """As of any socket, but the end shows only to those who wait."""
        if self.shut & SHUT_RECEIVE and not self.connects:
            raise Ended(self.readable)
        return Socket._nothing(self)

    def available(self) -> int:
        """What the next one has; all there are, over a connection (unix_inq_len)."""
        if self.connects or not self.queue:
            return Socket.available(self)
        first = self.queue[0]
        return len(first) if isinstance(first, Message) else 0

    def connect(self, other: Socket, who: Who) -> None:
        """Messages go to `other` from now on, and come from there only."""
        if self.kind != other.kind:
            raise LinuxError(EPROTOTYPE)
        if other.peer is not None and other.peer is not self:
            raise LinuxError(EPERM)
        if other is not self.peer:
            self.disconnect()
        self.who = who
        self.peer_who = other.who
        self.set_peer(other)
        self.state = CONNECTED

    def disconnect(self) -> None:
        """connect(2) with AF_UNSPEC: messages of the old peer are lost, and it is told (unix_dgram_disconnected)."""
        peer = self.peer
        self.state = OPEN
        if peer is None:
            return
        self.set_peer(None)
        if not self.queue:
            return
        self.discard_queue()
        if not peer.closed and peer.peer is self:
            peer.error = ECONNRESET
            peer.changed()

    def peer_takes(self) -> bool:
        """Whether the peer's queue has room; one that sends here is not held up by its queue."""
        peer = self.peer
        return peer is None or peer.peer is self or not peer.is_full

    def send(self, pieces: Sequence[memoryview], extra: Extra = NOTHING, target: Find | None = None) -> int:
        """One message, to `target` or the peer. Source: unix_dgram_sendmsg()."""
        size = total(pieces)
        if size > self.send_limit - 32:
            raise LinuxError(EMSGSIZE)
        self._demand_room()
        other = self.peer if target is None else target()
        if other is None:
            raise LinuxError(ENOTCONN)
        if self.kind != other.kind:
            raise LinuxError(EPROTOTYPE)
        if other.closed:
            self._lost(other)
        if other.peer is not None and other.peer is not self:
            raise LinuxError(EPERM)
        if other.shut & SHUT_RECEIVE:
            raise LinuxError(EPIPE)
        if other is not self and other.peer is not self and other.is_full:
            raise WouldBlock(other.admits)
        other.queue.append(Message(b"".join(pieces), self, self.marked(extra, other), message_cost(size)))
        other.arrived()
        return size

    def _lost(self, other: Socket) -> None:
        """The one sent to is gone."""
        if self.peer is other:
            self.disconnect()
        raise LinuxError(ECONNREFUSED)

    def receive(self, pieces: Sequence[memoryview], peek: bool = False) -> Received:
        """The oldest message; what does not fit is lost."""
        found = self._copy_first(pieces)
        if found is None:
            return self._nothing()
        one, count = found
        extra = Extra(one.take_rights(peek), one.extra.who)
        if not peek:
            self.queue.popleft()
            one.discard()
            self.admitted()
        return Received(count, len(one), one.sender, extra)


class SequencedSocket(DatagramSocket):
    """SOCK_SEQPACKET: messages over a connection."""

    __slots__ = ()

    kind = SOCK_SEQPACKET
    connects = True

    def connect(self, other: Socket, who: Who) -> None:
        """As of a stream."""
        Socket.connect(self, other, who)

    def send(self, pieces: Sequence[memoryview], extra: Extra = NOTHING, target: Find | None = None) -> int:
        """One message to the peer; an address is ignored."""
        if error := self.take_error():
            raise LinuxError(error)
        if self.state != CONNECTED:
            raise LinuxError(ENOTCONN)
        return DatagramSocket.send(self, pieces, extra)

    def receive(self, pieces: Sequence[memoryview], peek: bool = False) -> Received:
        """The oldest message of the connection."""
        if self.state != CONNECTED:
            raise LinuxError(ENOTCONN)
        return DatagramSocket.receive(self, pieces, peek)

    def _lost(self, other: Socket) -> None:
        raise LinuxError(EPIPE)


KINDS: dict[int, type[Socket]] = {
    SOCK_STREAM: StreamSocket,
    SOCK_DGRAM: DatagramSocket,
    SOCK_RAW: DatagramSocket,
    SOCK_SEQPACKET: SequencedSocket,
}
