"""/proc/PID/net: the sockets and devices of a network namespace. Sources: net/ipv4/tcp_ipv4.c, udp.c, net/ipv6/.

What is sent is acknowledged at once, so nothing waits to be sent. The bytes that went over a device are not counted,
and kernel addresses are shown as to who may not see them.
"""

from __future__ import annotations

from struct import unpack
from typing import TYPE_CHECKING

from loadstone.linux.net.tcp_info import CLOSE, CLOSE_WAIT, ESTABLISHED, LISTEN, state_of
from loadstone.linux.proc.files import Directory, ProcFile
from loadstone.vfs.flags import S_IFREG
from loadstone.vfs.inet_ports import ANY_4, ANY_6, Endpoint
from loadstone.vfs.sockets import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.linux.proc.files import Make
    from loadstone.vfs.inet_sockets import InetSocket
    from loadstone.vfs.socket_space import SocketSpace

_COLUMNS = "st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
_TITLES_4 = f"sl  local_address rem_address   {_COLUMNS}"
_TITLES_6 = f"  sl  {'local_address':<38}{'remote_address':<38}{_COLUMNS}"
_MORE_TITLES = " ref pointer drops"
_TCP_WIDTH, _UDP_WIDTH = 149, 127  # seq_setwidth(): lines of IPv4 are filled up with blanks
_NO_POINTER = "0" * 16
# What an established connection has further (timeouts in ticks, ato, quick acks, window, threshold), and a listener.
_OF_CONNECTION, _OF_LISTENER = "20 4 0 10 -1", "100 0 0 10 0"
_COUNTERS = (7, 7, 4, 4, 4, 5, 10, 9, 8, 7, 4, 4, 4, 5, 7, 10)  # how wide each is
_DEVICES = (
    f"Inter-|   {'Receive':<55}|  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast"
    "|bytes    packets errs drop fifo colls carrier compressed\n"
    f"{'lo':>6}: {' '.join(f'{0:{width}d}' for width in _COUNTERS)}\n"
)


def directory(space: SocketSpace, inode: int, now_ns: int) -> Directory:
    """net/"""
    texts: dict[str, Callable[[], str]] = {
        "dev": lambda: _DEVICES,
        "tcp": lambda: _tcp(space, AF_INET),
        "tcp6": lambda: _tcp(space, AF_INET6),
        "udp": lambda: _udp(space, AF_INET),
        "udp6": lambda: _udp(space, AF_INET6),
    }

    def maker(number: int, text: Callable[[], str]) -> Make:
        return lambda: ProcFile(lambda: text().encode(), inode=number, now_ns=now_ns)

    table = {name: (S_IFREG, maker(inode + 1 + at, text)) for at, (name, text) in enumerate(texts.items())}
    return Directory(table, inode=inode, now_ns=now_ns)


def _tcp(space: SocketSpace, family: int) -> str:
    """tcp and tcp6: listeners first, as tcp_seq_start() goes."""
    sockets = sorted(_sockets(space, SOCK_STREAM, family), key=lambda one: state_of(one) != LISTEN)
    waiting = {id(far) for one in sockets if state_of(one) == LISTEN for far in one.queue}
    lines = [f"  {_TITLES_4}" if family == AF_INET else _TITLES_6]
    for at, one in enumerate(sockets):
        state = state_of(one)
        listens = state == LISTEN
        unread = len(one.queue) if listens else one.available() + (state == CLOSE_WAIT)  # the end counts as a byte
        number = 0 if id(one) in waiting else one.inode.inode  # who is not accepted has no file
        more = f"1 {_NO_POINTER} {_OF_LISTENER if listens else _OF_CONNECTION}"
        lines.append(f"{at:4d}: {_common(one, state, unread, number)} {more}")
    return _text(lines, _TCP_WIDTH if family == AF_INET else 0)


def _udp(space: SocketSpace, family: int) -> str:
    """udp and udp6."""
    lines = [f"   {_TITLES_4}{_MORE_TITLES}" if family == AF_INET else _TITLES_6 + _MORE_TITLES]
    for one in _sockets(space, SOCK_DGRAM, family):
        state = CLOSE if one.remote is None else ESTABLISHED
        lines.append(f"{one.local.port:5d}: {_common(one, state, one.available(), one.inode.inode)} 2 {_NO_POINTER} 0")
    return _text(lines, _UDP_WIDTH if family == AF_INET else 0)


def _sockets(space: SocketSpace, kind: int, family: int) -> list[InetSocket]:
    """Those that have a port."""
    return [one for one in space.ports(kind).sockets() if one.family == family]


def _text(lines: list[str], width: int) -> str:
    return "".join(f"{line:<{width}}\n" for line in lines)


def _common(socket: InetSocket, state: int, unread: int, inode: int) -> str:
    """What lines of TCP and UDP have in common: from the addresses to the inode."""
    remote = socket.remote or Endpoint(ANY_4 if socket.family == AF_INET else ANY_6, 0)
    ends = f"{_end(socket, socket.local)} {_end(socket, remote)}"
    return f"{ends} {state:02X} {0:08X}:{unread:08X} 00:00000000 {0:08X} {socket.inode.uid:5d} {0:8d} {inode}"


def _end(socket: InetSocket, end: Endpoint) -> str:
    """An address as numbers of the host's byte order, and a port."""
    words = unpack("=4I", end.address)
    shown = words[3:] if socket.family == AF_INET else words
    return "".join(f"{word:08X}" for word in shown) + f":{end.port:04X}"
