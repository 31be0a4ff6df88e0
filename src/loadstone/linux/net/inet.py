"""What system calls do with TCP and UDP sockets. Sources: net/ipv4/af_inet.c, net/ipv6/af_inet6.c, ip(7)."""

from __future__ import annotations

from errno import EACCES, EINPROGRESS, EINVAL, ENOTCONN, EPROTONOSUPPORT, ESOCKTNOSUPPORT
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.linux.net.addresses import AF_UNSPEC, demand_inside, endpoint_in, family_of, packed
from loadstone.linux.refusals import count_refusal
from loadstone.vfs.file import WouldBlock
from loadstone.vfs.sockets import AF_INET, CONNECTED, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM
from loadstone.vfs.tcp_sockets import TcpSocket
from loadstone.vfs.udp_sockets import UdpSocket

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.vfs.inet_ports import Endpoint
    from loadstone.vfs.inet_sockets import InetSocket
    from loadstone.vfs.socket_messages import Who
    from loadstone.vfs.socket_space import SocketSpace

IPPROTO_IP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP = 0, 1, 6, 17
IPPROTO_MAX: Final = 263
FIRST_UNPRIVILEGED: Final = 1024  # net.ipv4.ip_unprivileged_port_start
PROTOCOLS: Final = {SOCK_STREAM: IPPROTO_TCP, SOCK_DGRAM: IPPROTO_UDP}


def create(task: Task, space: SocketSpace, family: int, kind: int, protocol: int, who: Who) -> InetSocket:
    """socket(2). Only TCP and UDP: what makes packets itself would need a network, and is EACCES."""
    if not 0 <= protocol < IPPROTO_MAX:
        raise LinuxError(EINVAL)
    if kind not in (SOCK_STREAM, SOCK_DGRAM, SOCK_RAW):
        raise LinuxError(ESOCKTNOSUPPORT)
    if kind == SOCK_RAW or protocol == IPPROTO_ICMP:
        count_refusal(task, "network: a socket for raw packets")
        raise LinuxError(EACCES, "there is no network outside of the machine")
    if protocol not in (IPPROTO_IP, PROTOCOLS[kind]):
        raise LinuxError(EPROTONOSUPPORT)
    return (TcpSocket if kind == SOCK_STREAM else UdpSocket)(space, who, family)


def bind(task: Task, socket: InetSocket, raw: bytes) -> None:
    """bind(2); EACCES for a low port without privilege."""
    if family_of(raw) == AF_UNSPEC and socket.family == AF_INET and not any(raw[4:8]):
        raw = AF_INET.to_bytes(2, "little") + raw[2:]
    endpoint = endpoint_in(socket, raw)
    if 0 < endpoint.port < FIRST_UNPRIVILEGED and task.process.credentials.euid:
        raise LinuxError(EACCES)
    socket.bind_to(endpoint)


class Connecting:
    """One connect(2): call it until it does not wait any more."""

    def __init__(self, task: Task, socket: InetSocket, raw: bytes, dont_wait: bool) -> None:
        self._task = task
        self._socket = socket
        self._raw = raw
        self._dont_wait = dont_wait
        self._begun = False

    def __call__(self) -> int:
        """Begin, or see whether it is done.

        EINPROGRESS for who does not wait, though it may be done already: so the kernel does it over the loopback too.
        """
        socket = self._socket
        if not self._begun:
            self._begun = True
            self._begin()
        if isinstance(socket, TcpSocket) and not socket.finished():
            raise WouldBlock(socket.writable)
        return 0

    def _begin(self) -> None:
        socket, raw = self._socket, self._raw
        if family_of(raw) == AF_UNSPEC and isinstance(socket, TcpSocket | UdpSocket):
            socket.disconnect()
            return
        target = endpoint_in(socket, raw)
        demand_inside(self._task, "connect", target)
        if isinstance(socket, UdpSocket):
            socket.connect_to(target)
            return
        assert isinstance(socket, TcpSocket)
        if socket.in_progress and socket.finished():
            return
        if self._dont_wait:
            socket.connect_later(target)
            raise LinuxError(EINPROGRESS)
        socket.connect_to(target)


def name_of(socket: InetSocket) -> bytes:
    """getsockname(2)."""
    return packed(socket, socket.local)


def peer_of(socket: InetSocket) -> bytes:
    """getpeername(2); ENOTCONN."""
    if socket.remote is None or socket.state != CONNECTED:
        raise LinuxError(ENOTCONN)
    return packed(socket, socket.remote)


def target_in(task: Task, socket: InetSocket, raw: bytes) -> Endpoint | None:
    """Where sendto(2) sends; None where the socket is connected."""
    if not raw or not isinstance(socket, UdpSocket):
        return None
    target = endpoint_in(socket, raw)
    demand_inside(task, "send to", target)
    return target
