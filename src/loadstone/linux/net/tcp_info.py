"""What TCP_INFO says of a connection. Sources: struct tcp_info of include/uapi/linux/tcp.h, tcp_get_info(), tcp(7).

There are no packets, so nothing is ever lost or under way; times and sizes are those of a new connection over the
loopback device.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from loadstone.linux.net.options import FIRST_SEGMENT, segment_of
from loadstone.vfs.sockets import LISTENING, OPEN, SHUT_SEND
from loadstone.vfs.tcp_sockets import CONNECTING

if TYPE_CHECKING:
    from loadstone.vfs.inet_sockets import InetSocket

# include/net/tcp_states.h
ESTABLISHED, SYN_SENT, FIN_WAIT2, CLOSE, CLOSE_WAIT, LISTEN = 1, 2, 5, 7, 8, 10
# struct tcp_info up to tcpi_total_retrans, which every kernel has: eight bytes, then 24 numbers.
_LAYOUT: Final = Struct("<8B24I")
_OPTIONS: Final = 1 | 2 | 4  # TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE: what both ends offer
_WINDOW_SCALES: Final = 0xAA  # ten bits each way
_FIRST_TIMEOUT, _TIMEOUT = (
    1_000_000,
    204_000,
)  # microseconds until a retransmission: TCP_TIMEOUT_INIT, and once connected
_ROUND_TRIP: Final = 28  # microseconds
_FIRST_WINDOW, _REORDERING, _NO_THRESHOLD = 10, 3, 0x7FFF_FFFF  # TCP_INIT_CWND, net.ipv4.tcp_reordering


def state_of(socket: InetSocket) -> int:
    """The state of a socket as TCP names it."""
    if socket.state == LISTENING:
        return LISTEN
    if socket.state == CONNECTING:
        return SYN_SENT
    if socket.state == OPEN:
        return CLOSE
    peer = socket.peer
    far_has_ended = peer is None or peer.closed or bool(peer.shut & SHUT_SEND)
    if socket.shut & SHUT_SEND:
        return CLOSE if far_has_ended else FIN_WAIT2
    return CLOSE_WAIT if far_has_ended else ESTABLISHED


def tcp_info(socket: InetSocket) -> bytes:
    """struct tcp_info of a socket."""
    state = state_of(socket)
    if state == LISTEN:
        return _listening(len(socket.queue), socket.backlog)
    connected = socket.remote is not None and state != SYN_SENT
    segment = segment_of(socket)
    timeout, path = (_TIMEOUT, 65_535) if connected else (_FIRST_TIMEOUT, 0)
    sizes = (timeout, 0, segment, FIRST_SEGMENT if connected else 0)
    paths = (path, segment if connected else 0, _ROUND_TRIP if connected else 0, _ROUND_TRIP // 2 if connected else 0)
    window = (_NO_THRESHOLD, _FIRST_WINDOW, segment if connected else 0, _REORDERING)
    offered, scales = (_OPTIONS, _WINDOW_SCALES) if connected else (0, 0)
    return _LAYOUT.pack(state, 0, 0, 0, 0, offered, scales, 0, *sizes, *[0] * 9, *paths, *window, 0, 0, 0)


def _listening(waiting: int, backlog: int) -> bytes:
    """Of one that listens there are only the length of its queue and of the longest (as unacked and sacked)."""
    numbers = [0] * 24
    numbers[4:6] = waiting, backlog
    numbers[18], numbers[20] = _FIRST_WINDOW, _REORDERING
    return _LAYOUT.pack(LISTEN, *[0] * 7, *numbers)
