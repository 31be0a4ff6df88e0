"""What the sockets of a machine have in common. Sources: net/core/sock.c, net/unix/af_unix.c.

What is sent lies in the receiver's queue as messages, and is charged to the sender until it has been received whole:
that is what `SO_SNDBUF` bounds.
"""

from __future__ import annotations

from collections import deque
from errno import ECONNREFUSED, ECONNRESET, EINVAL, EISCONN, EOPNOTSUPP, EPIPE, EPROTOTYPE
from typing import TYPE_CHECKING, ClassVar, Final

from loadstone.errors import LinuxError
from loadstone.vfs.file import WouldBlock, total
from loadstone.vfs.flags import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDHUP,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
)
from loadstone.vfs.regular import before, scatter
from loadstone.vfs.socket_messages import NOTHING, Extra, Message, Received, Who
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.vfs.inode import Inode
    from loadstone.vfs.socket_space import SocketSpace

    Find = Callable[[], "Socket"]

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET = 1, 2, 3, 5
OPEN, LISTENING, CONNECTED = range(3)
SHUT_RECEIVE, SHUT_SEND, SHUT_BOTH = 1, 2, 3  # sk_shutdown

DEFAULT_BUFFER: Final = 212_992  # net.core.wmem_default
MAX_DGRAM_QUEUE: Final = 10  # net.unix.max_dgram_qlen
# What sock_def_readable() and unix_write_space() tell.
ARRIVED: Final = POLLIN | POLLPRI | POLLRDNORM | POLLRDBAND
WRITABLE: Final = POLLOUT | POLLWRNORM | POLLWRBAND


class Ended(WouldBlock):
    """There is nothing, and nothing will come: a call that may wait gives 0 or `errno`, one that may not EAGAIN."""

    def __init__(self, queue: WaitQueue, errno: int = 0) -> None:
        super().__init__(queue)
        self.errno = errno


class Socket:
    """One end. Subclasses say how bytes travel.

    Attributes:
        name: the bytes of the address it is bound to without the family (a path ends with NUL); None: not bound.
        bound: the inode of the path it is bound to.
        queue: what has arrived and was not received; of a listening socket, the connections not yet accepted.
        clients: the sockets whose `peer` this is.
        admits: woken when the queue has room again, for those who wait to send to it or to connect.
        passes_credentials: SO_PASSCRED.
        lacked_room: somebody wanted to send and could not, and has not been told of room since.
    """

    __slots__ = (
        "admits", "backlog", "bound", "charged", "clients", "closed", "error", "inode", "lacked_room", "name",
        "passes_credentials", "peer", "peer_who", "queue", "readable", "receive_limit", "send_limit", "settings",
        "shut", "space", "state", "who", "writable",
    )  # fmt: skip

    kind: ClassVar[int]
    family: int = AF_UNIX
    connects: ClassVar[bool] = True  # listen() and accept() are for this kind

    def __init__(self, space: SocketSpace, who: Who) -> None:
        self.space = space
        self.inode = inode = space.new_inode(who)
        self.who = who
        self.peer_who = Who()
        self.state = OPEN
        self.peer: Socket | None = None
        self.clients: set[Socket] = set()
        self.name: bytes | None = None
        self.bound: Inode | None = None
        self.queue: deque[Message | Socket] = deque()
        self.backlog = MAX_DGRAM_QUEUE
        self.shut = 0
        self.error = 0
        self.closed = False
        self.charged = 0
        self.send_limit = self.receive_limit = DEFAULT_BUFFER
        self.passes_credentials = self.lacked_room = False
        self.settings: dict[int, int] = {}  # options that are only remembered
        label = f"socket:[{inode.inode}]"
        self.readable = WaitQueue(f"data in {label}")
        self.writable = WaitQueue(f"room in {label}")
        self.admits = WaitQueue(f"room in the queue of {label}")

    # Waking

    def notify(self, queue: WaitQueue, events: int = 0) -> None:
        """Make whoever waits on the queue run, and tell of `events`: POLL* bits, 0 for any change."""
        if queue.waiters or queue.listeners:
            self.space.wake(queue.wake(events=events))

    def arrived(self) -> None:
        """There is something to receive or to accept (sk_data_ready)."""
        self.notify(self.readable, ARRIVED)

    def changed(self) -> None:
        """Something that readers, writers and pollers look at is different (sk_state_change)."""
        self.notify(self.readable)
        self.notify(self.writable)

    def relieve(self, cost: int) -> None:
        """What was charged is given back; writers are woken when three quarters are free (unix_write_space)."""
        self.charged -= cost
        if self.has_room:
            self.notify(self.writable, WRITABLE)

    @property
    def has_room(self) -> bool:
        """Whether poll says that it can be written (unix_writable)."""
        return self.state != LISTENING and (self.charged + 1) << 2 <= self.send_limit

    def admitted(self) -> None:
        """A message or connection left the queue."""
        self.notify(self.admits)
        for client in list(self.clients):
            self.notify(client.writable, WRITABLE)

    @property
    def is_full(self) -> bool:
        """Whether more is in the queue than the backlog (unix_recvq_full)."""
        return len(self.queue) > self.backlog

    # Connecting

    def pair(self, other: Socket) -> None:
        """socketpair(2): each is the other's peer."""
        for one, two in ((self, other), (other, self)):
            one.set_peer(two)
            one.state = CONNECTED
            one.peer_who = two.who

    def set_peer(self, peer: Socket | None) -> None:
        """Send to `peer` from now on."""
        if self.peer is not None:
            self.peer.clients.discard(self)
        self.peer = peer
        if peer is not None:
            peer.clients.add(self)

    def listen(self, backlog: int, who: Who) -> None:
        """listen(2)."""
        if not self.connects:
            raise LinuxError(EOPNOTSUPP)
        if self.name is None or self.state == CONNECTED:
            raise LinuxError(EINVAL)
        more = backlog > self.backlog
        self.backlog = backlog
        self.state = LISTENING
        self.who = self.peer_who = who
        if more:
            self.notify(self.admits)

    def connect(self, other: Socket, who: Who) -> None:
        """connect(2) to a listening socket; WouldBlock while its queue is full."""
        if self.kind != other.kind:
            raise LinuxError(EPROTOTYPE)
        if other.state != LISTENING or other.shut & SHUT_RECEIVE:
            raise LinuxError(ECONNREFUSED)
        if other.is_full:
            raise WouldBlock(other.admits)
        if self.state != OPEN:
            raise LinuxError(EISCONN if self.state == CONNECTED else EINVAL)
        far = type(self)(self.space, other.who)
        self.who = who
        far.name = other.name
        far.passes_credentials = other.passes_credentials
        self.pair(far)
        other.queue.append(far)
        other.arrived()

    def accept(self) -> Socket:
        """The far end of the oldest connection; WouldBlock without one."""
        if not self.connects:
            raise LinuxError(EOPNOTSUPP)
        if self.state != LISTENING:
            raise LinuxError(EINVAL)
        if not self.queue:
            if self.shut & SHUT_RECEIVE:
                raise Ended(self.readable, EINVAL)
            raise WouldBlock(self.readable)
        found = self.queue.popleft()
        assert isinstance(found, Socket)
        self.admitted()
        return found

    def shutdown(self, how: int) -> None:
        """shutdown(2): `how` is SHUT_RECEIVE, SHUT_SEND or both. A connection's other end is shut the other way."""
        self.shut |= how
        other = self.peer
        self.changed()
        if other is not None and self.connects:
            other.shut |= (SHUT_SEND if how & SHUT_RECEIVE else 0) | (SHUT_RECEIVE if how & SHUT_SEND else 0)
            other.changed()

    def take_error(self) -> int:
        """SO_ERROR: an errno that was kept, once."""
        error, self.error = self.error, 0
        return error

    def close(self, accepted: bool = True) -> None:
        """Nobody refers to this end any more. Source: unix_release_sock(); not `accepted`: its `embrion`."""
        self.closed = True
        self.space.unbind(self)
        self.state = OPEN
        self.shut = SHUT_BOTH
        peer = self.peer
        if peer is not None and self.connects:
            peer.shut = SHUT_BOTH
            if not accepted or any(len(one) for one in self.queue if isinstance(one, Message)):
                peer.error = ECONNRESET
            peer.changed()
        self.set_peer(None)
        self.discard_queue()
        self.changed()

    def discard_queue(self) -> None:
        """Nobody will receive what is there, or accept who is."""
        while self.queue:
            one = self.queue.popleft()
            if isinstance(one, Message):
                one.discard()
            else:
                one.close(accepted=False)
        self.admitted()

    # Looking

    def available(self) -> int:
        """SIOCINQ: bytes that can be received; of datagrams, what the next one has."""
        if self.state == LISTENING:
            raise LinuxError(EINVAL)
        return sum(len(one) for one in self.queue if isinstance(one, Message))

    def ready(self) -> int:
        """Source: unix_poll()."""
        bits = POLLERR if self.error else 0
        if self.shut == SHUT_BOTH:
            bits |= POLLHUP
        if self.shut & SHUT_RECEIVE:
            bits |= POLLRDHUP | POLLIN | POLLRDNORM
        if self.queue:
            bits |= POLLIN | POLLRDNORM
        if self.connects and self.state == OPEN:
            bits |= POLLHUP
        if self.has_room and self.peer_takes():
            bits |= POLLOUT | POLLWRNORM | POLLWRBAND
        return bits

    def peer_takes(self) -> bool:
        """Whether the peer's queue has room."""
        return True

    # Data

    def send(self, pieces: Sequence[memoryview], extra: Extra = NOTHING, target: Find | None = None) -> int:
        """Send bytes to the peer or to what `target` finds; how many were taken. WouldBlock when there is no room."""
        raise NotImplementedError

    def receive(self, pieces: Sequence[memoryview], peek: bool = False) -> Received:
        """Receive bytes; WouldBlock when there are none. With `peek` they stay."""
        raise NotImplementedError

    def marked(self, extra: Extra, receiver: Socket) -> Extra:
        """What goes along, with the sender's name if either end wants names (maybe_add_creds)."""
        if extra.who is None and (self.passes_credentials or receiver.passes_credentials):
            return extra._replace(who=self.space.caller())
        return extra

    def _copy_first(self, pieces: Sequence[memoryview]) -> tuple[Message, int] | None:
        """The oldest message, and how many of its bytes fitted; None without one. An error that was kept is raised."""
        if error := self.take_error():
            raise LinuxError(error)
        if not self.queue:
            return None
        one = self.queue[0]
        assert isinstance(one, Message)
        count = min(total(pieces), len(one))
        scatter(before(pieces, count), memoryview(one.data)[:count])
        return one, count

    def _nothing(self) -> Received:
        """What a receiver gets when the queue is empty: an error that was kept, the end, or a wait."""
        if error := self.take_error():
            raise LinuxError(error)
        if self.shut & SHUT_RECEIVE:
            return Received(0)
        raise WouldBlock(self.readable)

    def _demand_room(self) -> None:
        """Source: sock_alloc_send_pskb()."""
        if error := self.take_error():
            raise LinuxError(error)
        if self.shut & SHUT_SEND:
            raise LinuxError(EPIPE)
        if self.charged >= self.send_limit:
            self.lacked_room = True
            raise WouldBlock(self.writable)
