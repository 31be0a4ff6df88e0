"""Options of sockets. Source: net/core/sock.c."""

from __future__ import annotations

from errno import EINVAL, ENOPROTOOPT, EOPNOTSUPP, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.net.control_messages import SOL_SOCKET, UCRED, seen
from loadstone.linux.structs import INT, SECOND, TIMEVAL
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.sockets import SO_RCVTIMEO, SO_SNDTIMEO, peer_of, socket_file
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.inet_sockets import InetSocket
from loadstone.vfs.sockets import AF_UNIX, LISTENING, SOCK_STREAM

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, Int
    from loadstone.vfs.sockets import Socket

# include/uapi/asm-generic/socket.h
SO_DEBUG, SO_REUSEADDR, SO_TYPE, SO_ERROR, SO_DONTROUTE, SO_BROADCAST, SO_SNDBUF, SO_RCVBUF = range(1, 9)
SO_KEEPALIVE, SO_OOBINLINE, _SO_NO_CHECK, SO_PRIORITY, SO_LINGER, _SO_BSDCOMPAT, SO_REUSEPORT = range(9, 16)
SO_PASSCRED, SO_PEERCRED, SO_RCVLOWAT, SO_SNDLOWAT = range(16, 20)
SO_PEERNAME, SO_TIMESTAMP, SO_ACCEPTCONN, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 28, 29, 30, 32, 33
SO_PASSSEC, SO_PROTOCOL, SO_DOMAIN, SO_PEEK_OFF = 34, 38, 39, 42
MAX_BUFFER = 4 << 20  # net.core.wmem_max and rmem_max; for root too: the bytes are in the host's memory
MIN_SEND_BUFFER, MIN_RECEIVE_BUFFER = 4608, 2304  # SOCK_MIN_SNDBUF, SOCK_MIN_RCVBUF
LINGER = Struct("<Q")  # struct linger, its two words as one number: whether, and for how many seconds
_TRUTHS = (
    SO_REUSEADDR, SO_DONTROUTE, SO_BROADCAST, SO_KEEPALIVE, SO_OOBINLINE, SO_REUSEPORT, SO_TIMESTAMP, SO_PASSSEC,
    SO_DEBUG,
)  # fmt: skip
_NOTE = "SO_PEEK_OFF and SO_PEERSEC are refused; SO_RCVLOWAT and options about packets are remembered only"


@syscall(support=PARTIAL, note=_NOTE)
def setsockopt(task: Task, fd: Fd, level: Int, option: Int, value: Address, length: Int) -> int:
    """Set an option."""
    socket = socket_file(task, fd).socket
    if level != SOL_SOCKET:
        _set_inet_option(task, socket, level, option, value, length)
        return 0
    if length < INT.size:
        raise LinuxError(EINVAL)
    (number,) = INT.unpack(copy_in(task.process.space, value, INT.size))
    setter = _SETTERS.get(option)
    if setter is None:
        raise LinuxError(ENOPROTOOPT)
    setter(Setting(task, socket, option, number, value, length))
    return 0


class Setting(NamedTuple):
    """What setsockopt(2) was asked for: `number` is the int at `address`, where there are `length` bytes in all."""

    task: Task
    socket: Socket
    option: int
    number: int
    address: int
    length: int


def _set_inet_option(task: Task, socket: Socket, level: int, option: int, address: int, length: int) -> None:
    if not isinstance(socket, InetSocket):
        raise LinuxError(EOPNOTSUPP)
    from loadstone.linux.net import options as inet_options

    raw = copy_in(task.process.space, address, min(max(length, 0), 64))
    inet_options.put(socket, level, option, raw)


def _set_time_limit(asked: Setting) -> None:
    asked.socket.settings[asked.option] = _limit(asked.task, asked.address, asked.length)


def _set_linger(asked: Setting) -> None:
    if asked.length < LINGER.size:
        raise LinuxError(EINVAL)
    (linger,) = LINGER.unpack(copy_in(asked.task.process.space, asked.address, LINGER.size))
    asked.socket.settings[SO_LINGER] = linger
    if isinstance(asked.socket, InetSocket):
        asked.socket.linger = linger


def _set_passing_credentials(asked: Setting) -> None:
    asked.socket.passes_credentials = bool(asked.number)


def _set_send_buffer(asked: Setting) -> None:
    asked.socket.send_limit = max(_doubled(asked.number), MIN_SEND_BUFFER)
    asked.socket.relieve(0)


def _set_receive_buffer(asked: Setting) -> None:
    asked.socket.receive_limit = max(_doubled(asked.number), MIN_RECEIVE_BUFFER)


def _remember_number(asked: Setting) -> None:
    asked.socket.settings[asked.option] = asked.number


def _remember_truth(asked: Setting) -> None:
    asked.socket.settings[asked.option] = int(bool(asked.number))


def _set_debugging(asked: Setting) -> None:
    if asked.number and asked.task.process.credentials.euid:
        raise LinuxError(EPERM)
    _remember_truth(asked)


def _set_reuse(asked: Setting) -> None:
    _remember_truth(asked)
    if isinstance(asked.socket, InetSocket):
        asked.socket.reuses_address = bool(asked.socket.settings.get(SO_REUSEADDR))
        asked.socket.reuses_port = bool(asked.socket.settings.get(SO_REUSEPORT))


_SETTERS: dict[int, Callable[[Setting], None]] = {
    **dict.fromkeys(_TRUTHS, _remember_truth),
    SO_DEBUG: _set_debugging,
    SO_REUSEADDR: _set_reuse,
    SO_REUSEPORT: _set_reuse,
    SO_LINGER: _set_linger,
    SO_PASSCRED: _set_passing_credentials,
    SO_PRIORITY: _remember_number,
    SO_RCVLOWAT: _remember_number,
    SO_SNDBUF: _set_send_buffer,
    SO_SNDBUFFORCE: _set_send_buffer,
    SO_RCVBUF: _set_receive_buffer,
    SO_RCVBUFFORCE: _set_receive_buffer,
    SO_RCVTIMEO: _set_time_limit,
    SO_SNDTIMEO: _set_time_limit,
}


def _doubled(number: int) -> int:
    """Half of a buffer is for what the messages themselves need."""
    return min(number & 0xFFFFFFFF, MAX_BUFFER) * 2


def _limit(task: Task, address: int, length: int) -> int:
    """A struct timeval as ns; 0 for ever (sock_set_timeout)."""
    if length < TIMEVAL.size:
        raise LinuxError(EINVAL)
    seconds, micro = TIMEVAL.unpack(copy_in(task.process.space, address, TIMEVAL.size))
    if not 0 <= micro < 1_000_000:
        from errno import EDOM

        raise LinuxError(EDOM)
    return max(1, seconds * SECOND + micro * 1000) if seconds >= 0 and (seconds or micro) else int(seconds < 0)


@syscall(support=PARTIAL, note=_NOTE)
def getsockopt(task: Task, fd: Fd, level: Int, option: Int, value: Address, length: Address) -> int:
    """Ask for an option."""
    socket = socket_file(task, fd).socket
    if level != SOL_SOCKET and not isinstance(socket, InetSocket):
        raise LinuxError(EOPNOTSUPP)
    (room,) = INT.unpack(copy_in(task.process.space, length, INT.size))
    if room < 0:
        raise LinuxError(EINVAL)
    answer = _answer(task, socket, option, room) if level == SOL_SOCKET else _inet_answer(socket, level, option)
    copy_out(task.process.space, value, answer[:room])
    copy_out(task.process.space, length, INT.pack(min(room, len(answer))))
    return 0


_NUMBERS: dict[int, Callable[[Socket], int]] = {
    SO_TYPE: lambda socket: socket.kind,
    SO_ERROR: lambda socket: socket.take_error(),
    SO_SNDBUF: lambda socket: socket.send_limit,
    SO_RCVBUF: lambda socket: socket.receive_limit,
    SO_PASSCRED: lambda socket: int(socket.passes_credentials),
    SO_ACCEPTCONN: lambda socket: int(socket.state == LISTENING),
    SO_PROTOCOL: lambda socket: 0 if socket.family == AF_UNIX else 6 if socket.kind == SOCK_STREAM else 17,
    SO_DOMAIN: lambda socket: socket.family,
    SO_RCVLOWAT: lambda socket: max(1, socket.settings.get(SO_RCVLOWAT, 1)),
    SO_SNDLOWAT: lambda socket: 1,
    SO_PRIORITY: lambda socket: socket.settings.get(SO_PRIORITY, 0),
    SO_PEEK_OFF: lambda socket: -1,
}


def _inet_answer(socket: Socket, level: int, option: int) -> bytes:
    from loadstone.linux.net import options as inet_options

    assert isinstance(socket, InetSocket)
    return inet_options.get(socket, level, option)


def _answer(task: Task, socket: Socket, option: int, room: int) -> bytes:
    if option in _NUMBERS:
        return INT.pack(_NUMBERS[option](socket))
    if option in _TRUTHS:
        return INT.pack(socket.settings.get(option, 0))
    if option in (SO_RCVTIMEO, SO_SNDTIMEO):
        seconds, rest = divmod(socket.settings.get(option, 0), SECOND)
        return TIMEVAL.pack(seconds, rest // 1000)
    if option == SO_LINGER:
        return LINGER.pack(socket.settings.get(option, 0))
    if option == SO_PEERCRED:
        return UCRED.pack(*seen(task.process, socket.peer_who))
    if option == SO_PEERNAME:
        return _peer_name(socket, room)
    raise LinuxError(ENOPROTOOPT)  # SO_PEERSEC as well: there is no security module


def _peer_name(socket: Socket, room: int) -> bytes:
    name = peer_of(socket)
    if len(name) < room:
        raise LinuxError(EINVAL)
    return name
