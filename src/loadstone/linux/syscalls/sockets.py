"""Sockets: making them, naming them, connecting them. Sources: net/socket.c, net/unix/af_unix.c."""

from __future__ import annotations

from errno import (
    EADDRINUSE,
    EAFNOSUPPORT,
    EAGAIN,
    EBADF,
    ECONNREFUSED,
    EEXIST,
    EINTR,
    EINVAL,
    ENOTCONN,
    ENOTSOCK,
    EOPNOTSUPP,
    EPROTONOSUPPORT,
    ESOCKTNOSUPPORT,
)
from os import fsdecode
from struct import pack
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.refusals import count_refusal
from loadstone.linux.state import task_state
from loadstone.linux.structs import INT
from loadstone.linux.syscalls.lookup import AT_FDCWD, open_file, origin
from loadstone.linux.syscalls.readwrite import wait_for
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.file import WouldBlock
from loadstone.vfs.flags import O_CLOEXEC, O_NONBLOCK, O_PATH, S_IFMT, S_IFSOCK, W_OK
from loadstone.vfs.inet_sockets import InetSocket
from loadstone.vfs.inode import demand
from loadstone.vfs.netlink_sockets import AF_NETLINK, NetlinkSocket
from loadstone.vfs.socket_messages import Who
from loadstone.vfs.socket_space import SocketFile
from loadstone.vfs.sockets import AF_INET, AF_INET6, AF_UNIX, SHUT_BOTH, SOCK_DGRAM, SOCK_RAW, Ended
from loadstone.vfs.unix_sockets import KINDS, DatagramSocket
from loadstone.wait import TIMED_OUT, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, Int
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.socket_space import SocketSpace
    from loadstone.vfs.sockets import Socket
    from loadstone.wait import Blocking

AF_UNSPEC, AF_MAX = 0, 46
FAMILIES = {16: "AF_NETLINK", 17: "AF_PACKET"}
TYPE_MASK, TYPE_FLAGS = 0xF, O_CLOEXEC | O_NONBLOCK  # SOCK_CLOEXEC and SOCK_NONBLOCK have these values
SOCK_MAX = 11
SOMAXCONN = 4096  # net.core.somaxconn
FAMILY_BYTES, ADDRESS_BYTES, STORAGE_BYTES = 2, 110, 128  # sa_family_t, struct sockaddr_un, sockaddr_storage
SO_RCVTIMEO, SO_SNDTIMEO = 20, 21
_LOCAL = "UNIX sockets, TCP and UDP inside the machine; other families are refused"


# What the area offers to others


def socket_file(task: Task, fd: int) -> SocketFile:
    """The socket behind a descriptor; EBADF, ENOTSOCK."""
    file = open_file(task, fd)
    if file.flags & O_PATH:
        raise LinuxError(EBADF)
    if not isinstance(file, SocketFile):
        raise LinuxError(ENOTSOCK)
    return file


def caller(task: Task) -> Who:
    """The process as SO_PEERCRED shows it (init_peercred: effective numbers)."""
    who = task.process.credentials
    return Who(task.process.pid, who.euid, who.egid)


def read_address(task: Task, address: int, length: int) -> bytes:
    """The bytes of a struct sockaddr (move_addr_to_kernel); EINVAL, EFAULT."""
    if not 0 <= length <= STORAGE_BYTES:
        raise LinuxError(EINVAL)
    return copy_in(task.process.space, address, length) if length else b""


def name_in(raw: bytes) -> bytes:
    """What a struct sockaddr_un names: a path, or an abstract name that starts with NUL; EINVAL."""
    if not FAMILY_BYTES < len(raw) <= ADDRESS_BYTES or _family(raw) != AF_UNIX:
        raise LinuxError(EINVAL)
    name = raw[FAMILY_BYTES:]
    return name if name[:1] == b"\0" else name.split(b"\0")[0]


def _family(raw: bytes) -> int:
    return int.from_bytes(raw[:FAMILY_BYTES], "little")


def packed_address(name: bytes | None) -> bytes:
    """A struct sockaddr_un, as long as it has to be."""
    return pack("<H", AF_UNIX) + (name or b"")


def name_of(socket: Socket) -> bytes:
    """The address that a socket is bound to."""
    if isinstance(socket, InetSocket):
        from loadstone.linux.net import inet

        return inet.name_of(socket)
    return packed_address(socket.name)


def peer_of(socket: Socket) -> bytes:
    """The address of what a socket is connected to; ENOTCONN."""
    if isinstance(socket, InetSocket):
        from loadstone.linux.net import inet

        return inet.peer_of(socket)
    if socket.peer is None:
        raise LinuxError(ENOTCONN)
    return packed_address(socket.peer.name)


def write_address(task: Task, raw: bytes, address: int, length_address: int) -> None:
    """Give an address to the user: as much as there is room for, and how long it is (move_addr_to_user)."""
    (room,) = INT.unpack(copy_in(task.process.space, length_address, INT.size))
    if room < 0:
        raise LinuxError(EINVAL)
    if room and raw:
        copy_out(task.process.space, address, raw[:room])
    copy_out(task.process.space, length_address, INT.pack(len(raw)))


def find(task: Task, space: SocketSpace, name: bytes) -> Socket:
    """The socket of a name in a network namespace; ECONNREFUSED, and what resolving a path gives: unix_find_other()."""
    if name[:1] == b"\0":
        return space.at_name(name)
    path = fsdecode(name)
    place = task.kernel.vfs.resolve(path, origin(task, AT_FDCWD, path))
    demand(place.inode, W_OK, task.process.credentials)
    if place.inode.mode & S_IFMT != S_IFSOCK:
        raise LinuxError(ECONNREFUSED)
    return space.at_inode(place.inode)


def patiently(task: Task, file: SocketFile, attempt: Callable[[], int], option: int, dont_wait: bool) -> Blocking:
    """Attempt until there is no wait; EAGAIN without blocking, and after the time limit of `option` (SO_…TIMEO)."""
    limit = file.socket.settings.get(option, 0)
    deadline = task.kernel.clock.monotonic_ns() + limit if limit else None
    reason = ""
    file.hold()  # another thread may close the descriptor meanwhile
    try:
        while True:
            try:
                return attempt()
            except WouldBlock as block:
                if dont_wait or file.flags & O_NONBLOCK or reason == TIMED_OUT:
                    raise LinuxError(EAGAIN) from None
                if isinstance(block, Ended):
                    if block.errno:
                        raise LinuxError(block.errno) from None
                    return 0
                wait = wait_for(block, deadline)
            try:
                reason = yield wait
            except Interrupted:
                if deadline is not None:
                    raise LinuxError(EINTR) from None  # sock_intr_errno()
                raise
    finally:
        file.close()


# Making


def _space(task: Task) -> SocketSpace:
    kernel, state = task.kernel, task_state(task)
    space = kernel.vfs.sockets if state.namespaces is None else state.namespaces.net.sockets

    def sender() -> Who:
        """Who sends, as SCM_CREDENTIALS shows it (scm_set_cred: real numbers)."""
        current = kernel.scheduler.current
        if current is None:
            return Who()
        who = current.process.credentials
        return Who(current.process.pid, who.uid, who.gid)

    space.caller = sender
    return space


def _new(task: Task, family: int, kind: int, protocol: int) -> SocketFile:
    """Source: __sys_socket(), unix_create()."""
    flags = kind & ~TYPE_MASK
    kind &= TYPE_MASK
    if flags & ~TYPE_FLAGS:
        raise LinuxError(EINVAL)
    if not 0 <= family < AF_MAX:
        raise LinuxError(EAFNOSUPPORT)
    if kind >= SOCK_MAX:
        raise LinuxError(EINVAL)
    if family in (AF_INET, AF_INET6):
        from loadstone.linux.net import inet

        return _file_of(task, inet.create(task, _space(task), family, kind, protocol, Who()), flags)
    if family == AF_NETLINK and kind in (SOCK_RAW, SOCK_DGRAM) and protocol == 0:
        return _file_of(task, NetlinkSocket(_space(task), Who()), flags)
    if family != AF_UNIX:
        count_refusal(task, f"socket {FAMILIES.get(family, family)}")
        raise LinuxError(EAFNOSUPPORT, "the machine has no network")
    if protocol not in (0, AF_UNIX):
        raise LinuxError(EPROTONOSUPPORT)
    if kind not in KINDS:
        raise LinuxError(ESOCKTNOSUPPORT)
    return _file_of(task, _space(task).make(kind, Who()), flags)


def _file_of(task: Task, socket: Socket, flags: int) -> SocketFile:
    """The file of a new socket; who makes it has it (sock_alloc)."""
    who = task.process.credentials
    socket.inode.uid, socket.inode.gid = who.fsuid, who.fsgid
    return SocketFile(socket, flags & O_NONBLOCK)


@syscall(support=PARTIAL, note=_LOCAL)
def socket(task: Task, family: Int, kind: Int, protocol: Int) -> int:
    """A socket without a name or a connection."""
    file = _new(task, family, kind, protocol)
    return task.process.files.install(file, cloexec=bool(kind & O_CLOEXEC))


@syscall(support=PARTIAL, note=_LOCAL)
def socketpair(task: Task, family: Int, kind: Int, protocol: Int, pair: Address) -> int:
    """Two sockets, connected with each other."""
    if family in (AF_INET, AF_INET6):
        raise LinuxError(EOPNOTSUPP)
    files, pairs = task.process.files, [_new(task, family, kind, protocol) for _ in range(2)]
    for file in pairs:
        file.socket.who = caller(task)
    pairs[0].socket.pair(pairs[1].socket)
    installed: list[int] = []
    try:
        for file in pairs:
            installed.append(files.install(file, cloexec=bool(kind & O_CLOEXEC)))
        copy_out(task.process.space, pair, pack("<ii", *installed))
    except LinuxError:
        for fd in installed:
            files.close(fd)
        raise
    return 0


# Names


@syscall()
def bind(task: Task, fd: Fd, address: Address, length: Int) -> int:
    """Give a socket a name: a path, whose file is made, or an abstract one."""
    socket = socket_file(task, fd).socket
    raw = read_address(task, address, length)
    if isinstance(socket, InetSocket):
        from loadstone.linux.net import inet

        inet.bind(task, socket, raw)
        return 0
    space = socket.space
    if len(raw) == FAMILY_BYTES and _family(raw) == AF_UNIX:
        space.bind_automatically(socket)
        return 0
    name = name_in(raw)
    if name[:1] == b"\0":
        space.bind_abstract(socket, name)
    elif socket.name is not None:
        raise LinuxError(EADDRINUSE if _exists(task, fsdecode(name)) else EINVAL)
    else:
        space.bind_path(socket, name, lambda: _make_inode(task, fsdecode(name)))
    return 0


def _exists(task: Task, path: str) -> bool:
    try:
        task.kernel.vfs.resolve(path, origin(task, AT_FDCWD, path), follow=False)
    except LinuxError:
        return False
    return True


def _make_inode(task: Task, path: str) -> Inode:
    """The file of a bound socket; EADDRINUSE if the path exists."""
    vfs, here = task.kernel.vfs, origin(task, AT_FDCWD, path)
    try:
        vfs.mknod(path, S_IFSOCK | 0o777 & ~task.process.fs.umask, 0, here)
    except LinuxError as error:
        raise LinuxError(EADDRINUSE if error.errno == EEXIST else error.errno) from None
    return vfs.resolve(path, here, follow=False).inode


@syscall()
def getsockname(task: Task, fd: Fd, address: Address, length: Address) -> int:
    """The name that a socket is bound to."""
    write_address(task, name_of(socket_file(task, fd).socket), address, length)
    return 0


@syscall()
def getpeername(task: Task, fd: Fd, address: Address, length: Address) -> int:
    """The name of what a socket is connected to."""
    write_address(task, peer_of(socket_file(task, fd).socket), address, length)
    return 0


# Connections


@syscall()
def listen(task: Task, fd: Fd, backlog: Int) -> int:
    """Let others connect."""
    socket_file(task, fd).socket.listen(min(backlog & 0xFFFFFFFF, SOMAXCONN), caller(task))
    return 0


@syscall()
def connect(task: Task, fd: Fd, address: Address, length: Int) -> int | Blocking:
    """Connect to a name; a socket for datagrams only remembers it."""
    file = socket_file(task, fd)
    raw = read_address(task, address, length)
    socket = file.socket
    if isinstance(socket, InetSocket):
        from loadstone.linux.net import inet

        return patiently(
            task, file, inet.Connecting(task, socket, raw, bool(file.flags & O_NONBLOCK)), SO_SNDTIMEO, False
        )
    if isinstance(socket, DatagramSocket) and not socket.connects:
        if len(raw) < FAMILY_BYTES:
            raise LinuxError(EINVAL)
        if _family(raw) == AF_UNSPEC:
            socket.disconnect()
            return 0
    name = name_in(raw)

    def attempt() -> int:
        socket.connect(find(task, socket.space, name), caller(task))
        return 0

    return patiently(task, file, attempt, SO_SNDTIMEO, False)


@syscall()
def accept(task: Task, fd: Fd, address: Address, length: Address) -> int | Blocking:
    """The oldest connection that was made, as a socket of its own."""
    return accept4(task, fd, address, length, 0)


@syscall()
def accept4(task: Task, fd: Fd, address: Address, length: Address, flags: Int) -> int | Blocking:
    """As accept, with flags for the new descriptor."""
    if flags & ~TYPE_FLAGS:
        raise LinuxError(EINVAL)
    file = socket_file(task, fd)
    files = task.process.files
    files.free()

    def attempt() -> int:
        made = _file_of(task, file.socket.accept(), flags)
        made.hold()
        try:
            if address:
                write_address(task, _accepted_from(made.socket), address, length)
            return files.install(made, cloexec=bool(flags & O_CLOEXEC))
        finally:
            made.close()

    return patiently(task, file, attempt, SO_RCVTIMEO, False)


def _accepted_from(socket: Socket) -> bytes:
    """Who connected; a client of a path or an abstract name that has gone since has none."""
    if socket.peer is None and socket.family == AF_UNIX:
        return packed_address(None)
    return peer_of(socket)


@syscall()
def shutdown(task: Task, fd: Fd, how: Int) -> int:
    """End receiving (0), sending (1) or both (2)."""
    file = socket_file(task, fd)
    if not 0 <= how < SHUT_BOTH:
        raise LinuxError(EINVAL)
    file.socket.shutdown(how + 1)
    return 0
