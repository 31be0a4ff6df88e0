"""Options of TCP, UDP and their addresses. Sources: net/ipv4/ip_sockglue.c, tcp.c, net/ipv6/ipv6_sockglue.c, tcp(7).

There are no packets, so what says how packets are sent is remembered only.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, ENOPROTOOPT, EOPNOTSUPP
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.structs import INT
from loadstone.vfs.sockets import AF_INET6, SOCK_STREAM

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.vfs.inet_sockets import InetSocket

SOL_IP, SOL_TCP, SOL_UDP, SOL_IPV6 = 0, 6, 17, 41
IP_TOS, IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS, IPV6_V6ONLY, IPV6_TCLASS = 1, 33, 18, 26, 67
TCP_MAXSEG, TCP_INFO, TCP_CONGESTION, TCP_FASTOPEN = 2, 11, 13, 23
# What spreads packets in time; the first is the default (CONFIG_TCP_CONG_CUBIC).
CONGESTION_CONTROLS: Final = (b"cubic", b"reno")
NAME_BYTES: Final = 16  # TCP_CA_NAME_MAX
ECN_BITS: Final = 3  # INET_ECN_MASK
MAX_LINGER: Final = 120  # TCP_FIN_TIMEOUT_MAX, seconds
FIRST_SEGMENT, LOOPBACK_SEGMENT = 536, 65_483  # TCP_MSS_DEFAULT; what fits into a packet of the loopback device
SMALLEST_WINDOW: Final = 1152  # SOCK_MIN_RCVBUF / 2


class _Option(NamedTuple):
    """What an option is before anybody sets it, and what is remembered of a number that is set (EINVAL)."""

    default: int
    taken: Callable[[int], int]


def _truth(number: int) -> int:
    return int(number != 0)


def _whole(number: int) -> int:
    return number


def _from(least: int, most: int = 0x7FFF_FFFF) -> Callable[[int], int]:
    """Only numbers from `least` to `most`."""

    def taken(number: int) -> int:
        if not least <= number <= most:
            raise LinuxError(EINVAL, f"the option takes {least} to {most}")
        return number

    return taken


def _or_default(default: int, least: int, most: int) -> _Option:
    """-1 is the default, for what takes `least` to `most`."""
    inside = _from(least, most)
    return _Option(default, lambda number: default if number == -1 else inside(number))


def _segment(number: int) -> int:
    """0: as the connection has it (tcp_sock_set_maxseg)."""
    return _from(88, 32_767)(number) if number else FIRST_SEGMENT


def _window(number: int) -> int:
    return max(number, SMALLEST_WINDOW) if number else 0


def _linger(number: int) -> int:
    """Seconds in FIN_WAIT2: negative is never, 0 is the default."""
    return -1 if number < 0 else min(number, MAX_LINGER) or 60


def _retransmissions(seconds: int) -> int:
    """Seconds as what that many retransmissions take, each twice as long as the one before (secs_to_retrans)."""
    whole, period, count = 0, 1, 0
    while whole < seconds and count < 255:
        whole, period, count = whole + period, min(period * 2, MAX_LINGER), count + 1
    return whole


_FLAG = _Option(0, _truth)
_FLAG_ONLY = _Option(0, _from(0, 1))
_SET_FLAG = _Option(1, _truth)
# By the numbers of include/uapi/linux/in.h, tcp.h, udp.h and in6.h.
_OPTIONS: Final = {
    SOL_IP: {
        IP_TOS: _Option(0, lambda number: number & 0xFF),
        2: _or_default(64, 1, 255),  # IP_TTL
        10: _Option(1, _from(0, 5)),  # IP_MTU_DISCOVER
        21: _Option(0, _from(0, 255)),  # IP_MINTTL
        IP_MULTICAST_TTL: _or_default(1, 0, 255),
        34: _SET_FLAG,  # IP_MULTICAST_LOOP
        49: _Option(1, _from(0, 1)),  # IP_MULTICAST_ALL
        # IP_RECVOPTS, RETOPTS, PKTINFO, RECVERR, RECVTTL, RECVTOS, FREEBIND, RECVORIGDSTADDR, CHECKSUM,
        # BIND_ADDRESS_NO_PORT
        **dict.fromkeys((6, 7, 8, 11, 12, 13, 15, 20, 23, 24), _FLAG),
    },
    SOL_TCP: {
        TCP_MAXSEG: _Option(0, _segment),
        4: _Option(7200, _from(1, 32_767)),  # TCP_KEEPIDLE
        5: _Option(75, _from(1, 32_767)),  # TCP_KEEPINTVL
        6: _Option(9, _from(1, 127)),  # TCP_KEEPCNT
        7: _Option(6, _from(1, 127)),  # TCP_SYNCNT
        8: _Option(60, _linger),  # TCP_LINGER2
        9: _Option(0, _retransmissions),  # TCP_DEFER_ACCEPT
        10: _Option(0, _window),  # TCP_WINDOW_CLAMP
        12: _SET_FLAG,  # TCP_QUICKACK
        16: _FLAG_ONLY,  # TCP_THIN_LINEAR_TIMEOUTS
        18: _Option(0, _from(0)),  # TCP_USER_TIMEOUT
        TCP_FASTOPEN: _Option(0, _from(0)),
        25: _Option(0, _whole),  # TCP_NOTSENT_LOWAT
        **dict.fromkeys((1, 3), _FLAG),  # TCP_NODELAY, TCP_CORK
        27: _Option(0, _from(0, 2)),  # TCP_SAVE_SYN
        **dict.fromkeys((30, 36), _FLAG_ONLY),  # TCP_FASTOPEN_CONNECT, TCP_INQ
    },
    SOL_UDP: {1: _FLAG},  # UDP_CORK
    SOL_IPV6: {
        16: _or_default(64, 0, 255),  # IPV6_UNICAST_HOPS
        IPV6_MULTICAST_HOPS: _or_default(1, 0, 255),
        19: _Option(1, _from(0, 1)),  # IPV6_MULTICAST_LOOP
        23: _Option(0, _from(0, 5)),  # IPV6_MTU_DISCOVER
        IPV6_TCLASS: _or_default(0, 0, 255),
        # IPV6_2292PKTINFO, IPV6_RECVERR, IPV6_V6ONLY, IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS
        **dict.fromkeys((2, 25, IPV6_V6ONLY, 49, 51, 66), _FLAG),
    },
}

# What TCP does not let anybody set, and how it says so.
_NOT_OF_STREAMS: Final = {(SOL_IP, IP_MULTICAST_TTL): EINVAL, (SOL_IPV6, IPV6_MULTICAST_HOPS): ENOPROTOOPT}


def _known(socket: InetSocket, level: int, option: int, wrong_level: int = ENOPROTOOPT) -> _Option:
    """What there is to know of an option; ENOPROTOOPT, `wrong_level`."""
    applies = {SOL_TCP: socket.kind == SOCK_STREAM, SOL_UDP: socket.kind != SOCK_STREAM}
    applies[SOL_IPV6] = socket.family == AF_INET6
    if not applies.get(level, level == SOL_IP):
        raise LinuxError(wrong_level)
    if option not in _OPTIONS[level]:
        raise LinuxError(ENOPROTOOPT)
    return _OPTIONS[level][option]


def _is_named(socket: InetSocket, level: int, option: int) -> bool:
    """Whether it is TCP_CONGESTION: a name, not a number."""
    return socket.kind == SOCK_STREAM and (level, option) == (SOL_TCP, TCP_CONGESTION)


def put(socket: InetSocket, level: int, option: int, raw: bytes) -> None:
    """setsockopt(2)."""
    if _is_named(socket, level, option):
        socket.settings[SOL_TCP << 16 | TCP_CONGESTION] = _control(raw)
        return
    known = _known(socket, level, option)
    if socket.kind == SOCK_STREAM and (level, option) in _NOT_OF_STREAMS:
        raise LinuxError(_NOT_OF_STREAMS[level, option])
    if not raw or (len(raw) < INT.size and level != SOL_IP):
        raise LinuxError(EINVAL)
    number = known.taken(INT.unpack(raw[: INT.size])[0] if len(raw) >= INT.size else raw[0])
    if socket.kind == SOCK_STREAM and (level, option) in ((SOL_IP, IP_TOS), (SOL_IPV6, IPV6_TCLASS)):
        number &= ~ECN_BITS  # TCP's own
    if (level, option) == (SOL_IPV6, IPV6_V6ONLY):
        if socket.local.port:
            raise LinuxError(EINVAL)
        socket.only_6 = bool(number)
    socket.settings[level << 16 | option] = number


def _control(raw: bytes) -> int:
    """Which of CONGESTION_CONTROLS a name means; ENOENT."""
    if not raw:
        raise LinuxError(EINVAL)
    name = raw[: NAME_BYTES - 1].split(b"\0")[0]
    if name not in CONGESTION_CONTROLS:
        raise LinuxError(ENOENT)
    return CONGESTION_CONTROLS.index(name)


def get(socket: InetSocket, level: int, option: int) -> bytes:
    """getsockopt(2)."""
    if _is_named(socket, level, option):
        return CONGESTION_CONTROLS[socket.settings.get(SOL_TCP << 16 | TCP_CONGESTION, 0)].ljust(NAME_BYTES, b"\0")
    if socket.kind == SOCK_STREAM and (level, option) == (SOL_TCP, TCP_INFO):
        from loadstone.linux.net.tcp_info import tcp_info

        return tcp_info(socket)
    known = _known(socket, level, option, EOPNOTSUPP)
    number = socket.settings.get(level << 16 | option, known.default)
    if (level, option) == (SOL_TCP, TCP_MAXSEG):
        number = segment_of(socket)
    return INT.pack(number)


def segment_of(socket: InetSocket) -> int:
    """How many bytes a packet may have (tcp_getsockopt of TCP_MAXSEG)."""
    if socket.remote is not None:
        return LOOPBACK_SEGMENT
    return socket.settings.get(SOL_TCP << 16 | TCP_MAXSEG, FIRST_SEGMENT)
