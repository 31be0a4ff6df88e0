"""Options of TCP, UDP and their addresses. Sources: net/ipv4/ip_sockglue.c, tcp.c, net/ipv6/ipv6_sockglue.c, tcp(7).

There are no packets, so what says how packets are sent is remembered only.
"""

from __future__ import annotations

from errno import EINVAL, ENOPROTOOPT, EOPNOTSUPP
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.linux.structs import INT
from loadstone.vfs.sockets import AF_INET6, SOCK_STREAM

if TYPE_CHECKING:
    from loadstone.vfs.inet_sockets import InetSocket

SOL_IP, SOL_TCP, SOL_UDP, SOL_IPV6 = 0, 6, 17, 41
IPV6_V6ONLY: Final = 26
# What is remembered, with what it is before anybody sets it (include/uapi/linux/in.h, in6.h, tcp.h).
_DEFAULTS: Final = {
    SOL_IP: {1: 0, 2: 64, 6: 0, 8: 0, 10: 1, 11: 0, 12: 0, 13: 0, 15: 0, 24: 0, 33: 1, 34: 1},
    SOL_TCP: {1: 0, 2: 65_483, 3: 0, 4: 7200, 5: 75, 6: 9, 7: 6, 8: 0, 9: 0, 10: 65_536, 12: 1, 18: 0},
    SOL_UDP: {1: 0},
    SOL_IPV6: {2: 0, 16: 64, 18: 64, 19: 1, 23: 0, 25: 0, 26: 0, 49: 0, 51: 0, 66: 0, 67: 0},
}


def _known(socket: InetSocket, level: int, option: int, wrong_level: int = ENOPROTOOPT) -> int:
    """What an option is before it is set; ENOPROTOOPT, `wrong_level`."""
    applies = {SOL_TCP: socket.kind == SOCK_STREAM, SOL_UDP: socket.kind != SOCK_STREAM}
    applies[SOL_IPV6] = socket.family == AF_INET6
    if not applies.get(level, level == SOL_IP):
        raise LinuxError(wrong_level)
    if option not in _DEFAULTS[level]:
        raise LinuxError(ENOPROTOOPT)
    return _DEFAULTS[level][option]


def put(socket: InetSocket, level: int, option: int, raw: bytes) -> None:
    """setsockopt(2)."""
    _known(socket, level, option)
    if not raw or (len(raw) < INT.size and level != SOL_IP):
        raise LinuxError(EINVAL)
    number = INT.unpack(raw[: INT.size])[0] if len(raw) >= INT.size else raw[0]
    if (level, option) == (SOL_IPV6, IPV6_V6ONLY):
        if socket.local.port:
            raise LinuxError(EINVAL)
        socket.only_6 = bool(number)
    socket.settings[level << 16 | option] = number


def get(socket: InetSocket, level: int, option: int) -> bytes:
    """getsockopt(2)."""
    default = _known(socket, level, option, EOPNOTSUPP)
    return INT.pack(socket.settings.get(level << 16 | option, default))
