"""Addresses and ports of the loopback network inside a machine. Sources: net/ipv4/inet_connection_sock.c, udp.c, ip(7).

Addresses are 16 bytes, as of IPv6; those of IPv4 are mapped (::ffff:127.0.0.1), as a dual-stack socket sees them.
"""

from __future__ import annotations

from errno import EADDRINUSE, EADDRNOTAVAIL, EINVAL
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.vfs.inet_sockets import InetSocket

MAPPED: Final = bytes(10) + b"\xff\xff"
ANY_4: Final = MAPPED + bytes(4)
ANY_6: Final = bytes(16)
LOOPBACK_4: Final = MAPPED + b"\x7f\0\0\1"
LOOPBACK_6: Final = bytes(15) + b"\1"
FIRST_EPHEMERAL: Final = 32_768  # net.ipv4.ip_local_port_range
LAST_EPHEMERAL: Final = 60_999


class Endpoint(NamedTuple):
    """An address and a port."""

    address: bytes
    port: int


def is_any(address: bytes) -> bool:
    """Whether it stands for every address."""
    return address in (ANY_4, ANY_6)


def is_local(address: bytes) -> bool:
    """Whether it leads back into the machine: 127.0.0.0/8 and ::1, all that there is."""
    return address == LOOPBACK_6 or address.startswith(MAPPED + b"\x7f")


def destination(address: bytes) -> bytes:
    """Where what is sent to it goes: the unspecified address means this host."""
    return {ANY_4: LOOPBACK_4, ANY_6: LOOPBACK_6}.get(address, address)


def source_of(address: bytes) -> bytes:
    """The address that a packet to `address` comes from, unless its sender chose one."""
    return LOOPBACK_4 if address.startswith(MAPPED) else LOOPBACK_6


class Ports:
    """Which sockets of a protocol are bound to which port."""

    __slots__ = ("_next", "_sockets")

    def __init__(self) -> None:
        self._sockets: dict[int, list[InetSocket]] = {}
        self._next = FIRST_EPHEMERAL

    def sockets(self) -> list[InetSocket]:
        """All that have a port, by its number."""
        return [one for _, there in sorted(self._sockets.items()) for one in there]

    def at(self, endpoint: Endpoint) -> Iterator[InetSocket]:
        """Those that get what is sent there; bound to the very address first, then to every address."""
        found = [one for one in self._sockets.get(endpoint.port, ()) if one.covers(endpoint.address)]
        return iter(sorted(found, key=lambda one: is_any(one.local.address)))

    def bind(self, socket: InetSocket, endpoint: Endpoint) -> None:
        """bind(2), and what connect(2) and listen(2) do to a socket without a port; 0 chooses one."""
        if socket.local.port:
            raise LinuxError(EINVAL)
        if not is_any(endpoint.address) and not is_local(endpoint.address):
            raise LinuxError(EADDRNOTAVAIL)
        port = endpoint.port or self._free()
        socket.local = Endpoint(endpoint.address, port)
        try:
            self.demand_alone(socket)
        except LinuxError:
            socket.local = Endpoint(socket.local.address, 0)
            raise
        self.add(socket)

    def demand_alone(self, socket: InetSocket) -> None:
        """EADDRINUSE if another socket is in the way (inet_csk_bind_conflict)."""
        for one in self._sockets.get(socket.local.port, ()):
            if one is not socket and not one.shares(socket) and one.meets(socket):
                raise LinuxError(EADDRINUSE)

    def add(self, socket: InetSocket) -> None:
        """The socket has its port."""
        self._sockets.setdefault(socket.local.port, []).append(socket)

    def remove(self, socket: InetSocket) -> None:
        """The socket is closed."""
        there = self._sockets.get(socket.local.port, [])
        if socket in there:
            there.remove(socket)
            if not there:
                del self._sockets[socket.local.port]

    def _free(self) -> int:
        """The next port that nobody has; the kernel draws one, here they come in order."""
        for _ in range(FIRST_EPHEMERAL, LAST_EPHEMERAL + 1):
            port = self._next
            self._next = port + 1 if port < LAST_EPHEMERAL else FIRST_EPHEMERAL
            if port not in self._sockets:
                return port
        raise LinuxError(EADDRINUSE)
