"""Sending and receiving on sockets. Sources: net/socket.c, net/unix/af_unix.c."""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL, EISCONN, EMSGSIZE, ENOBUFS, EOPNOTSUPP, EPIPE
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.net.control_messages import MSG_CMSG_CLOEXEC, ControlOut, extra_in
from loadstone.linux.structs import INT
from loadstone.linux.syscalls.readwrite import UIO_MAXIOV, broken_pipe, gather, length_of, segments_at
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.sockets import (
    SO_RCVTIMEO,
    SO_SNDTIMEO,
    STORAGE_BYTES,
    find,
    name_in,
    packed_address,
    patiently,
    read_address,
    socket_file,
    write_address,
)
from loadstone.linux.syscalls.transfer import read_struct, read_time
from loadstone.memory.placement import TASK_SIZE_MAX
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.inet_sockets import InetSocket
from loadstone.vfs.socket_messages import Extra, Received
from loadstone.vfs.sockets import CONNECTED, SOCK_DGRAM, SOCK_STREAM
from loadstone.vfs.udp_sockets import MOST_OF_DATAGRAM, UdpSocket
from loadstone.wait import Interrupted

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, InBytes, Int, InTime, OutBytes, Size, UInt
    from loadstone.linux.syscalls.readwrite import Segments
    from loadstone.vfs.inet_ports import Endpoint
    from loadstone.vfs.socket_space import SocketFile
    from loadstone.wait import Blocking

MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT, MSG_EOR, MSG_WAITALL = 1, 2, 0x20, 0x40, 0x80, 0x100
MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_WAITFORONE = 0x2000, 0x4000, 0x10000
MOST_CONTROL = 131_072  # net.core.optmem_max
CHUNK = 1 << 20  # bytes of the user's resolved at a time
_MSGHDR = Struct("<QIxxxxQQQQIxxxx")
_LENGTH_OFFSET = 56  # of msg_len in struct mmsghdr, which is
_MMSGHDR_SIZE = 64
_NO_OUT_OF_BAND = "MSG_OOB is EOPNOTSUPP"


class MessageHeader(NamedTuple):
    """A struct msghdr at `where`, its vector read."""

    where: int
    name: int
    name_length: int
    segments: Segments
    control: int
    control_length: int


def _header(task: Task, where: int) -> MessageHeader:
    name, name_length, vector, count, control, control_length, _ = read_struct(task, where, _MSGHDR)
    if name_length >> 31:
        raise LinuxError(EINVAL)
    if count > UIO_MAXIOV:
        raise LinuxError(EMSGSIZE)
    name_length = min(name_length, STORAGE_BYTES) if name else 0
    segments = segments_at(task.process.space, vector, count)
    return MessageHeader(where, name, name_length, segments, control, control_length)


def _buffer(address: int, length: int) -> Segments:
    if address + length > TASK_SIZE_MAX:
        raise LinuxError(EFAULT)
    return [(address, min(length, 0x7FFFF000))]


# Sending


@syscall(support=PARTIAL, note=_NO_OUT_OF_BAND)
def sendto(
    task: Task, fd: Fd, buffer: InBytes, length: Size, flags: UInt, address: Address, address_length: Int
) -> Blocking:
    """Send bytes, perhaps to an address."""
    segments = _buffer(buffer, length)
    file = socket_file(task, fd)
    raw = read_address(task, address, address_length) if address else b""
    return _send(task, file, segments, raw, Extra(), flags)


@syscall(support=PARTIAL, note=_NO_OUT_OF_BAND)
def sendmsg(task: Task, fd: Fd, message: Address, flags: UInt) -> Blocking:
    """Send bytes from several buffers, with control messages."""
    return _sendmsg(task, socket_file(task, fd), message, flags)


def _sendmsg(task: Task, file: SocketFile, message: int, flags: int) -> Blocking:
    header = _header(task, message)
    raw = read_address(task, header.name, header.name_length)
    control = b""
    if header.control and header.control_length:
        if header.control_length > MOST_CONTROL:
            raise LinuxError(ENOBUFS)
        control = copy_in(task.process.space, header.control, header.control_length)
    return _send(task, file, header.segments, raw, extra_in(task, control), flags)


def _send(task: Task, file: SocketFile, segments: Segments, raw: bytes, extra: Extra, flags: int) -> Blocking:
    if flags & MSG_OOB:
        raise LinuxError(EOPNOTSUPP)
    kind = file.socket.kind
    if isinstance(file.socket, InetSocket):
        from loadstone.linux.net import inet

        target = inet.target_in(task, file.socket, raw)
        if kind == SOCK_STREAM:
            return _send_stream(task, file, segments, Extra(), flags)
        return _send_datagram(task, file, segments, target, flags)
    if kind == SOCK_STREAM:
        if raw:
            raise LinuxError(EISCONN if file.socket.state == CONNECTED else EOPNOTSUPP)
        return _send_stream(task, file, segments, extra, flags)
    name = name_in(raw) if raw and kind == SOCK_DGRAM else None
    return _send_message(task, file, segments, name, extra, flags)


def _send_message(
    task: Task, file: SocketFile, segments: Segments, name: bytes | None, extra: Extra, flags: int
) -> Blocking:
    size = length_of(segments) if segments else 0
    if size > file.socket.send_limit - 32:
        raise LinuxError(EMSGSIZE)

    def attempt() -> int:
        views = _whole(task, segments, size)
        return file.socket.send(views, extra, None if name is None else lambda: find(task, file.socket.space, name))

    return patiently(task, file, attempt, SO_SNDTIMEO, bool(flags & MSG_DONTWAIT))


def _whole(task: Task, segments: Segments, size: int) -> list[memoryview]:
    """The bytes of a message; EFAULT if part of them is not to be had, since no part of a message is sent."""
    views = gather(task.process.space, segments, 0, size, False) if size else []
    if sum(map(len, views)) < size:
        raise LinuxError(EFAULT)
    return views


def _send_datagram(task: Task, file: SocketFile, segments: Segments, target: Endpoint | None, flags: int) -> Blocking:
    """A UDP message."""
    size = length_of(segments) if segments else 0
    if size > MOST_OF_DATAGRAM:
        raise LinuxError(EMSGSIZE)

    def attempt() -> int:
        assert isinstance(file.socket, UdpSocket)
        return file.socket.send_to(_whole(task, segments, size), target)

    return patiently(task, file, attempt, SO_SNDTIMEO, bool(flags & MSG_DONTWAIT))


def _send_stream(task: Task, file: SocketFile, segments: Segments, extra: Extra, flags: int) -> Blocking:
    """Until all is sent; an error or a signal counts only if nothing was."""
    size = length_of(segments) if segments else 0
    done = 0

    def attempt() -> int:
        part = min(size - done, CHUNK)
        views = gather(task.process.space, segments, done, part, False) if part else []
        if part and not views:
            raise LinuxError(EFAULT)
        return file.socket.send(views, extra)

    try:
        while True:
            done += yield from patiently(task, file, attempt, SO_SNDTIMEO, bool(flags & MSG_DONTWAIT))
            extra = Extra(who=extra.who)
            if done >= size:
                return done
    except (LinuxError, Interrupted) as error:
        if done:
            return done
        if isinstance(error, LinuxError) and error.errno == EPIPE and not flags & MSG_NOSIGNAL:
            broken_pipe(task)
        raise


@syscall(support=PARTIAL, note=_NO_OUT_OF_BAND)
def sendmmsg(task: Task, fd: Fd, messages: Address, count: UInt, flags: UInt) -> Blocking:
    """Send several messages; how many were sent."""
    return _sendmmsg(task, socket_file(task, fd), messages, min(count, UIO_MAXIOV), flags)


def _sendmmsg(task: Task, file: SocketFile, messages: int, count: int, flags: int) -> Blocking:
    done = 0
    try:
        while done < count:
            where = messages + done * _MMSGHDR_SIZE
            sent = yield from _sendmsg(task, file, where, flags)
            copy_out(task.process.space, where + _LENGTH_OFFSET, INT.pack(sent))
            done += 1
    except (LinuxError, Interrupted):
        if not done:
            raise
    return done


# Receiving


@syscall(support=PARTIAL, note=_NO_OUT_OF_BAND)
def recvfrom(
    task: Task, fd: Fd, buffer: OutBytes, length: Size, flags: UInt, address: Address, address_length: Address
) -> Blocking:
    """Receive bytes, and who sent them."""
    segments = _buffer(buffer, length)
    return _recvfrom(task, socket_file(task, fd), segments, flags, address, address_length)


def _recvfrom(
    task: Task, file: SocketFile, segments: Segments, flags: int, address: int, address_length: int
) -> Blocking:
    call = Receive(task, file, segments, flags)
    done = yield from call.run()
    call.close_rights()
    if address:
        write_address(task, call.sender_address(), address, address_length)
    return done


@syscall(support=PARTIAL, note=_NO_OUT_OF_BAND)
def recvmsg(task: Task, fd: Fd, message: Address, flags: UInt) -> Blocking:
    """Receive bytes into several buffers, with control messages."""
    return _recvmsg(task, socket_file(task, fd), message, flags)


def _recvmsg(task: Task, file: SocketFile, message: int, flags: int) -> Blocking:
    header = _header(task, message)
    call = Receive(task, file, header.segments, flags)
    done = yield from call.run()
    control = ControlOut(task, header.control, header.control_length)
    control.put(call.received.extra, file.socket.passes_credentials, bool(flags & MSG_CMSG_CLOEXEC))
    space = task.process.space
    if header.name:
        write_address(task, call.sender_address(), header.name, header.where + 8)
    copy_out(space, header.where + 48, INT.pack(flags & MSG_CMSG_CLOEXEC | call.flags | control.flags))
    copy_out(space, header.where + 40, control.used.to_bytes(8, "little"))
    return done


@syscall(support=PARTIAL, note=_NO_OUT_OF_BAND)
def recvmmsg(task: Task, fd: Fd, messages: Address, count: UInt, flags: UInt, timeout: InTime) -> Blocking:
    """Receive several messages; how many came. The time limit is looked at between two of them only, as on Linux."""
    limit = read_time(task, timeout) if timeout else None
    deadline = None if limit is None else task.kernel.clock.monotonic_ns() + limit
    return _recvmmsg(task, socket_file(task, fd), messages, min(count, UIO_MAXIOV), flags, deadline)


def _recvmmsg(task: Task, file: SocketFile, messages: int, count: int, flags: int, deadline: int | None) -> Blocking:
    done = 0
    try:
        while done < count:
            where = messages + done * _MMSGHDR_SIZE
            got = yield from _recvmsg(task, file, where, flags & ~MSG_WAITFORONE)
            copy_out(task.process.space, where + _LENGTH_OFFSET, INT.pack(got))
            done += 1
            if flags & MSG_WAITFORONE:
                flags |= MSG_DONTWAIT
            if deadline is not None and task.kernel.clock.monotonic_ns() >= deadline:
                break
    except (LinuxError, Interrupted):
        if not done:
            raise
    return done


class Receive:
    """One receiving call. `flags`: what recvmsg(2) tells of the message."""

    __slots__ = ("_file", "_flags", "_segments", "_task", "done", "flags", "received")

    def __init__(self, task: Task, file: SocketFile, segments: Segments, flags: int) -> None:
        self._task = task
        self._file = file
        self._segments = segments
        self._flags = flags
        self.done = 0
        self.flags = 0
        self.received = Received(0)
        if flags & MSG_OOB:
            raise LinuxError(EINVAL if file.socket.kind == SOCK_STREAM else EOPNOTSUPP)
        if flags & MSG_ERRQUEUE:
            raise LinuxError(EAGAIN if file.socket.kind == SOCK_STREAM else EOPNOTSUPP)

    def run(self) -> Blocking:
        """Receive; the call's result."""
        flags = self._flags
        all_of_it = flags & MSG_WAITALL and not flags & MSG_PEEK and self._file.socket.kind == SOCK_STREAM
        wanted = length_of(self._segments) if self._segments else 0
        try:
            while True:
                got = yield from patiently(
                    self._task, self._file, lambda: self._once(wanted), SO_RCVTIMEO, bool(flags & MSG_DONTWAIT)
                )
                self.done += got
                if not all_of_it or not got or self.done >= wanted or self.received.extra.rights:
                    break
        except (LinuxError, Interrupted):
            if not self.done:
                raise
        if self._file.socket.kind != SOCK_STREAM and self.received.length > self.received.copied:
            self.flags |= MSG_TRUNC
            if flags & MSG_TRUNC:
                return self.received.length
        return self.done

    def _once(self, wanted: int) -> int:
        """One try; no page of the user's is touched that nothing comes for."""
        socket, space = self._file.socket, self._task.process.space
        count = min(wanted - self.done, socket.available(), CHUNK) if socket.state == CONNECTED or socket.queue else 0
        views = gather(space, self._segments, self.done, count, True) if count > 0 else []
        if sum(map(len, views)) < count:
            raise LinuxError(EFAULT)
        if not count and socket.kind == SOCK_STREAM and not wanted and socket.queue:
            return 0
        self.received = socket.receive(views, bool(self._flags & MSG_PEEK))
        return self.received.copied

    def close_rights(self) -> None:
        """Nobody takes the open files that came along."""
        for file in self.received.extra.rights:
            file.close()

    def sender_address(self) -> bytes:
        """The sender's address; nothing if it has no name."""
        sender, socket = self.received.sender, self._file.socket
        if isinstance(socket, InetSocket):
            from loadstone.linux.net.addresses import packed

            return packed(socket, self.received.source) if self.received.source is not None else b""
        return packed_address(sender.name) if sender is not None and sender.name is not None else b""
