"""TCP between the programs of a machine. Sources: net/ipv4/tcp.c, tcp_input.c, af_inet.c.

There are no packets, and nothing is lost. So a connection is made or refused when connect(2) is called, unless the
queue of those to be accepted is full. After both ends have gone nothing waits (no TIME_WAIT).
"""

from __future__ import annotations

from collections import deque
from errno import EALREADY, ECONNABORTED, ECONNREFUSED, ECONNRESET, EINVAL, EISCONN, ENOTCONN, EPIPE
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.vfs.file import WouldBlock, total
from loadstone.vfs.flags import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRNORM
from loadstone.vfs.inet_sockets import InetSocket
from loadstone.vfs.socket_messages import NOTHING, Extra, Message, Received
from loadstone.vfs.sockets import (
    AF_INET,
    CONNECTED,
    LISTENING,
    OPEN,
    SHUT_BOTH,
    SHUT_RECEIVE,
    SHUT_SEND,
    SOCK_STREAM,
    Socket,
)
from loadstone.vfs.unix_sockets import StreamSocket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.inet_ports import Endpoint
    from loadstone.vfs.socket_messages import Who
    from loadstone.vfs.socket_space import SocketSpace
    from loadstone.vfs.sockets import Find

CONNECTING: Final = 3  # a state beside those of every socket: the listener's queue is full
TCP_SEND_BUFFER, TCP_RECEIVE_BUFFER = 16_384, 131_072  # net.ipv4.tcp_wmem and tcp_rmem, their middle
TCP_CONNECTED_BUFFER: Final = 2_626_560  # what a send buffer of the loopback's connections has grown to
MOST_TCP_BYTES: Final = 256 << 20  # of all connections (net.ipv4.tcp_mem): then each may hold a small buffer only
MERGED_BYTES: Final = 16_384  # small writes are kept together up to this size
LINGER_NOW: Final = 1  # struct linger with l_onoff set and l_linger 0, as a number


class TcpSocket(InetSocket, StreamSocket):
    """SOCK_STREAM.

    Attributes:
        pending: of a listening socket, who waits for its queue to have room.
        in_progress: connect(2) did not wait, and the program has not asked for the outcome with another one.
    """

    __slots__ = ("in_progress", "pending")

    kind = SOCK_STREAM

    def __init__(self, space: SocketSpace, who: Who, family: int = AF_INET) -> None:
        super().__init__(space, who, family)
        self.pending: deque[TcpSocket] = deque()
        self.in_progress = False
        self.send_limit, self.receive_limit = TCP_SEND_BUFFER, TCP_RECEIVE_BUFFER

    # Connecting

    def listen(self, backlog: int, who: Who) -> None:
        """listen(2); without a port it gets one."""
        if self.state in (CONNECTED, CONNECTING):
            raise LinuxError(EINVAL)
        self.demand_port()
        self.backlog = backlog
        before_, self.state = self.state, LISTENING
        try:
            self.ports.demand_alone(self)
        except LinuxError:
            self.state = before_
            raise
        self._admit()

    def connect_to(self, target: Endpoint) -> None:
        """connect(2): CONNECTED or CONNECTING afterwards; ECONNREFUSED when nobody listens there."""
        if self.state == CONNECTING:
            raise LinuxError(EALREADY)
        if self.state != OPEN:
            raise LinuxError(EISCONN)
        self.shut = 0
        target = self.reach(target)
        listener = next((one for one in self.ports.at(target) if one.state == LISTENING), None)
        if not isinstance(listener, TcpSocket):
            raise LinuxError(ECONNREFUSED)
        self.remote, self.state = target, CONNECTING
        self.local = self.source(target)
        listener.pending.append(self)
        listener._admit()

    def connect_later(self, target: Endpoint) -> None:
        """As connect_to, for who does not wait: a refusal comes as an error of the socket."""
        try:
            self.connect_to(target)
        except LinuxError as error:
            if error.errno != ECONNREFUSED:
                raise
            self._reset(ECONNREFUSED)
        self.in_progress = True

    def finished(self) -> bool:
        """Whether connecting is over; an error that ended it is raised."""
        if self.state == CONNECTING:
            return False
        self.in_progress = False
        if error := self.take_error():
            raise LinuxError(error)
        if self.state != CONNECTED:
            raise LinuxError(ECONNABORTED)  # the program has taken the error itself
        return True

    def _admit(self) -> None:
        """Make the connections for which the queue has room."""
        while self.pending and not self.is_full:
            client = self.pending.popleft()
            if client.state == CONNECTING:
                self._establish(client)

    def _establish(self, client: TcpSocket) -> None:
        assert client.remote is not None
        far = TcpSocket(self.space, self.who, self.family)
        far.local, far.remote = client.remote, client.local
        far.inode.uid, far.inode.gid = self.inode.uid, self.inode.gid
        far.settings = dict(self.settings)
        far.reuses_address, far.reuses_port, far.linger = self.reuses_address, self.reuses_port, self.linger
        self.ports.add(far)
        client.pair(far)
        for one in (client, far):
            one.send_limit = max(one.send_limit, TCP_CONNECTED_BUFFER)
        self.queue.append(far)
        self.arrived()
        client.changed()

    def admitted(self) -> None:
        """A connection was accepted, and another one may come."""
        super().admitted()
        if self.state == LISTENING:
            self._admit()

    def disconnect(self) -> None:
        """connect(2) with AF_UNSPEC, and what ends listening: the socket is as it was before, but for its port."""
        self.hang_up(True)
        self.set_peer(None)
        self.state, self.shut, self.remote = OPEN, 0, None
        self.unbind()
        self.discard_queue()
        self.changed()

    def shutdown(self, how: int) -> None:
        """shutdown(2): the other end hears of the end of sending only."""
        if self.state == LISTENING:
            if how & SHUT_RECEIVE:
                self.disconnect()
            return
        if self.state != CONNECTED:
            raise LinuxError(ENOTCONN)
        self.shut |= how
        peer = self.peer
        if how & SHUT_SEND and peer is not None and not peer.closed:
            peer.shut |= SHUT_RECEIVE
            peer.changed()
        self.changed()

    def hang_up(self, accepted: bool) -> None:
        """A reset if something was not received or must not linger, else the end of sending."""
        for client in self.pending:
            client._reset(ECONNREFUSED)
        self.pending.clear()
        peer = self.peer
        if not isinstance(peer, TcpSocket) or peer.closed:
            return
        unread = any(isinstance(one, Message) and len(one) for one in self.queue)
        if unread or self.linger == LINGER_NOW or not accepted:
            peer._reset(ECONNRESET)
        else:
            peer.shut |= SHUT_RECEIVE
            peer.changed()

    def _reset(self, error: int) -> None:
        """The other end is gone for good (tcp_reset)."""
        self.error, self.shut = error, SHUT_BOTH
        if self.state == CONNECTING:
            self.state = OPEN
        self.changed()

    # Looking

    @property
    def has_room(self) -> bool:
        """Source: sk_stream_is_writeable()."""
        return self.state != LISTENING and self.charged * 3 <= self._limit() * 2

    def _limit(self) -> int:
        """How much may be on its way: the bytes are in the host's memory."""
        return self.send_limit if self.space.tcp_bytes < MOST_TCP_BYTES else min(self.send_limit, TCP_SEND_BUFFER)

    def _demand_room(self) -> None:
        super()._demand_room()
        if self.charged >= self._limit():
            self.lacked_room = True
            raise WouldBlock(self.writable)

    def relieve(self, cost: int) -> None:
        """What was on its way has arrived, or never will."""
        self.space.tcp_bytes -= cost
        super().relieve(cost)

    def ready(self) -> int:
        """Source: tcp_poll()."""
        if self.state == LISTENING:
            return POLLIN | POLLRDNORM if self.queue else 0
        bits = POLLERR if self.error else 0
        if self.shut == SHUT_BOTH or self.state == OPEN:
            bits |= POLLHUP
        if self.shut & SHUT_RECEIVE:
            bits |= POLLIN | POLLRDNORM | POLLRDHUP
        if self.state == CONNECTING:
            return bits
        if self.queue:
            bits |= POLLIN | POLLRDNORM
        if self.shut & SHUT_SEND or self.has_room:
            bits |= POLLOUT | POLLWRNORM
        return bits

    # Data

    def _receiver(self) -> Socket:
        """Who gets what is sent. A first message to an end that is gone is lost, and answered with a reset."""
        if self.state == CONNECTING:
            raise WouldBlock(self.writable)
        if error := self.take_error():
            raise LinuxError(error)
        peer = self.peer
        if peer is None or self.shut & SHUT_SEND:
            raise LinuxError(EPIPE)
        return peer

    def _put(self, peer: Socket, data: bytes, extra: Extra) -> None:
        if peer.closed:
            self._reset(EPIPE)
            return
        self.space.tcp_bytes += len(data)
        last = peer.queue[-1] if peer.queue else None
        if isinstance(last, Message) and len(last.data) + len(data) <= MERGED_BYTES:
            last.data += data
            last.cost += len(data)
            self.charged += len(data)
        else:
            peer.queue.append(Message(data, self, NOTHING, len(data)))

    def send(self, pieces: Sequence[memoryview], extra: Extra = NOTHING, target: Find | None = None) -> int:
        """As of any stream; a connection that is reset meanwhile has taken everything."""
        size = total(pieces)
        peer = self._receiver()
        if peer.closed:
            if size:
                self._put(peer, b"", extra)
            return size
        return StreamSocket.send(self, pieces, extra)

    def receive(self, pieces: Sequence[memoryview], peek: bool = False) -> Received:
        """Bytes in order."""
        if self.state == CONNECTING:
            raise WouldBlock(self.readable)
        if self.state != CONNECTED:
            if error := self.take_error():
                raise LinuxError(error)
            raise LinuxError(ENOTCONN)
        return StreamSocket.receive(self, pieces, peek)
