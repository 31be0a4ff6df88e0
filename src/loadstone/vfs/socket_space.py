"""Where sockets find each other: the names that are bound, in the tree and in the abstract name space."""

from __future__ import annotations

from errno import EADDRINUSE, ECONNREFUSED, EINVAL, ENOSPC, ENXIO, ESPIPE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.file import OpenFile, total
from loadstone.vfs.flags import O_NONBLOCK, O_RDWR, S_IFSOCK
from loadstone.vfs.inode import Inode
from loadstone.vfs.socket_messages import Who
from loadstone.vfs.sockets import SOCK_STREAM, Ended, Socket
from loadstone.vfs.unix_sockets import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.clock import Clock
    from loadstone.vfs.inet_ports import Ports
    from loadstone.vfs.location import Location

SOCKFS_DEVICE = 8
FIRST_INODE = 20_000
AUTOBIND_NAMES = 1 << 20  # unix_autobind(): five hexadecimal digits


class SocketInode(Inode):
    """What fstat() of a socket shows."""

    __slots__ = ()

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """ENXIO, also through /proc/self/fd."""
        raise LinuxError(ENXIO, "a socket cannot be opened by name")

    def set_mode(self, mode: int) -> None:
        """Nobody looks at it, but it is kept."""
        self.mode = S_IFSOCK | mode & 0o7777

    def set_owner(self, uid: int, gid: int) -> None:
        """Nobody looks at it, but it is kept."""
        self.uid = uid if uid >= 0 else self.uid
        self.gid = gid if gid >= 0 else self.gid


class SocketFile(OpenFile):
    """A descriptor's view of a socket."""

    __slots__ = ("socket",)

    asynchronous = True

    def __init__(self, socket: Socket, flags: int) -> None:
        super().__init__(socket.inode, O_RDWR | flags, None)
        self.socket = socket
        self.read_queue = socket.readable
        self.write_queue = socket.writable

    @property
    def path(self) -> str:
        """As /proc/self/fd shows it."""
        return f"socket:[{self.inode.inode}]"

    @property
    def breaks_silently(self) -> bool:
        """Whether EPIPE comes without SIGPIPE: for all but streams."""
        return self.socket.kind != SOCK_STREAM

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """As recv(2) without flags; open files that come along are closed again."""
        if offset is not None:
            raise LinuxError(ESPIPE)
        if not total(pieces):
            return 0
        try:
            got = self.socket.receive(pieces)
        except Ended:
            if self.flags & O_NONBLOCK:
                raise
            return 0
        for file in got.extra.rights:
            file.close()
        return got.copied

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """As send(2) without flags."""
        if offset is not None:
            raise LinuxError(ESPIPE)
        return self.socket.send(pieces)

    def ready(self) -> int:
        """What poll says."""
        return self.socket.ready()

    def tells_of_room(self) -> bool:
        """Only who found none before is told (SOCKWQ_ASYNC_NOSPACE)."""
        lacked, self.socket.lacked_room = self.socket.lacked_room, False
        return lacked

    def available(self) -> int:
        """FIONREAD."""
        return self.socket.available()

    def release(self) -> None:
        """The last descriptor is closed."""
        self.socket.close()


class _Machine:
    """What the network namespaces of a machine have in common."""

    __slots__ = ("last_inode", "tcp_bytes")

    def __init__(self) -> None:
        self.last_inode = FIRST_INODE
        self.tcp_bytes = 0


class SocketSpace:
    """The sockets of a network namespace.

    Attributes:
        caller: who makes the system call that is being served.
        abstract: those bound to a name that starts with NUL, by it.
        paths: those bound to a path, by its inode; one table for all namespaces.
        up: whether the loopback device is.
    """

    __slots__ = ("_last_name", "_machine", "_ports", "abstract", "caller", "clock", "paths", "up", "wake")

    def __init__(self, wake: Callable[[list[object]], object], clock: Clock, first: SocketSpace | None = None) -> None:
        self.wake = wake
        self.clock = clock
        self.caller: Callable[[], Who] = Who
        self.abstract: dict[bytes, Socket] = {}
        self.paths: dict[Inode, Socket] = {} if first is None else first.paths
        self.up = first is None
        self._machine: _Machine = _Machine() if first is None else first._machine
        self._last_name = 0
        self._ports: dict[int, Ports] = {}

    def apart(self) -> SocketSpace:
        """One for another network namespace of the machine."""
        made = SocketSpace(self.wake, self.clock, self)
        made.caller = self.caller
        return made

    @property
    def tcp_bytes(self) -> int:
        """What lies in the queues of the machine's TCP connections."""
        return self._machine.tcp_bytes

    @tcp_bytes.setter
    def tcp_bytes(self, value: int) -> None:
        self._machine.tcp_bytes = value

    def make(self, kind: int, who: Who) -> Socket:
        """A new socket of one of `KINDS`."""
        return KINDS[kind](self, who)

    def ports(self, kind: int) -> Ports:
        """The ports of TCP (SOCK_STREAM) or UDP (SOCK_DGRAM)."""
        from loadstone.vfs.inet_ports import Ports

        if kind not in self._ports:
            self._ports[kind] = Ports()
        return self._ports[kind]

    def new_inode(self, who: Who) -> Inode:
        """An inode for a socket."""
        self._machine.last_inode += 1
        mode, now = S_IFSOCK | 0o777, self.clock.realtime_ns()
        return SocketInode(SOCKFS_DEVICE, self._machine.last_inode, mode, who.uid, who.gid, now)

    def bind_abstract(self, socket: Socket, name: bytes) -> None:
        """bind(2) to a name that starts with NUL; EADDRINUSE."""
        _demand_unbound(socket)
        if name in self.abstract:
            raise LinuxError(EADDRINUSE)
        socket.name = name
        self.abstract[name] = socket

    def bind_automatically(self, socket: Socket) -> None:
        """bind(2) to nothing: an abstract name of five digits, unless it has a name."""
        if socket.name is not None:
            return
        for _ in range(AUTOBIND_NAMES):
            self._last_name = (self._last_name + 1) % AUTOBIND_NAMES
            name = b"\0%05x" % self._last_name
            if name not in self.abstract:
                self.bind_abstract(socket, name)
                return
        raise LinuxError(ENOSPC)

    def bind_path(self, socket: Socket, path: bytes, make: Callable[[], Inode]) -> None:
        """bind(2) to a path, whose socket inode `make` makes."""
        inode = make()
        socket.name, socket.bound = path + b"\0", inode
        self.paths[inode] = socket

    def at_name(self, name: bytes) -> Socket:
        """The socket with an abstract name; ECONNREFUSED."""
        found = self.abstract.get(name)
        if found is None:
            raise LinuxError(ECONNREFUSED)
        return found

    def at_inode(self, inode: Inode) -> Socket:
        """The socket bound to a path; ECONNREFUSED, also for sockets of the host."""
        found = self.paths.get(inode)
        if found is None:
            raise LinuxError(ECONNREFUSED)
        return found

    def unbind(self, socket: Socket) -> None:
        """A socket is gone, and its name is free; a path stays where it is."""
        if socket.bound is not None:
            self.paths.pop(socket.bound, None)
        elif socket.name is not None and self.abstract.get(socket.name) is socket:
            del self.abstract[socket.name]


def _demand_unbound(socket: Socket) -> None:
    if socket.name is not None:
        raise LinuxError(EINVAL, "the socket has a name")
