"""What TCP and UDP have in common: names with ports. Source: net/ipv4/af_inet.c.

There are no packets: what is sent lies in the receiver's queue at once, in order.
"""

from __future__ import annotations

from errno import ENETUNREACH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.inet_ports import ANY_4, ANY_6, MAPPED, Endpoint, destination, is_any, is_local, source_of
from loadstone.vfs.sockets import AF_INET, LISTENING, OPEN, SHUT_BOTH, Socket

if TYPE_CHECKING:
    from loadstone.vfs.inet_ports import Ports
    from loadstone.vfs.socket_messages import Who
    from loadstone.vfs.socket_space import SocketSpace


class InetSocket(Socket):
    """What TCP and UDP have in common.

    Attributes:
        family: AF_INET or AF_INET6.
        local: where it is bound; port 0: nowhere yet.
        chosen: what of that the program has said.
        remote: what it is connected to.
        reuses_address, reuses_port, only_6: SO_REUSEADDR, SO_REUSEPORT, IPV6_V6ONLY.
        linger: SO_LINGER, as its struct's number.
    """

    __slots__ = ("chosen", "family", "linger", "local", "only_6", "remote", "reuses_address", "reuses_port")

    def __init__(self, space: SocketSpace, who: Who, family: int = AF_INET) -> None:
        super().__init__(space, who)
        self.family = family
        self.local = Endpoint(ANY_4 if family == AF_INET else ANY_6, 0)
        self.chosen = self.local
        self.remote: Endpoint | None = None
        self.reuses_address = self.reuses_port = self.only_6 = False
        self.linger = 0

    @property
    def ports(self) -> Ports:
        """The ports of its protocol."""
        return self.space.ports(self.kind)

    def covers(self, address: bytes) -> bool:
        """Whether what is sent to the address is for it, as far as it is bound."""
        own = self.local.address
        mapped = address.startswith(MAPPED)
        if own == ANY_6:
            return not (self.only_6 and mapped)
        return own == address or (own == ANY_4 and mapped)

    def meets(self, other: InetSocket) -> bool:
        """Whether some address is for both."""
        return self.covers(other.local.address) or other.covers(self.local.address)

    def shares(self, other: InetSocket) -> bool:
        """Whether `other` may have the port that this one has."""
        if self.reuses_port and other.reuses_port:
            return True
        return self.reuses_address and other.reuses_address and self.state != LISTENING

    def bind_to(self, endpoint: Endpoint) -> None:
        """bind(2)."""
        self.ports.bind(self, endpoint)
        self.chosen = endpoint

    def unbind(self) -> None:
        """Give back what of its name the program has not chosen (SOCK_BINDADDR_LOCK, SOCK_BINDPORT_LOCK)."""
        address, port = self.local
        if is_any(self.chosen.address):
            address = ANY_4 if self.family == AF_INET else ANY_6
        if not self.chosen.port:
            self.ports.remove(self)
            port = 0
        self.local = Endpoint(address, port)

    def reach(self, target: Endpoint) -> Endpoint:
        """Where `target` is; ENETUNREACH outside of the machine. The socket gets a port, and its own address there."""
        if not self.space.up and not is_any(target.address):
            raise LinuxError(ENETUNREACH, "the loopback device is down")
        target = Endpoint(destination(target.address), target.port)
        if not is_local(target.address) or (self.family == AF_INET) > target.address.startswith(MAPPED):
            raise LinuxError(ENETUNREACH, "there is no network outside of the machine")
        self.demand_port()
        return target

    def demand_port(self) -> None:
        """Have a port, whichever (inet_autobind)."""
        if not self.local.port:
            self.ports.bind(self, Endpoint(self.local.address, 0))

    def source(self, target: Endpoint) -> Endpoint:
        """What `target` sees as the sender's address."""
        if is_any(self.local.address):
            return Endpoint(source_of(target.address), self.local.port)
        return self.local

    def close(self, accepted: bool = True) -> None:
        """Nobody refers to this end any more."""
        self.closed = True
        self.ports.remove(self)
        self.hang_up(accepted)
        self.state, self.shut = OPEN, SHUT_BOTH
        self.set_peer(None)
        self.discard_queue()
        self.changed()

    def hang_up(self, accepted: bool) -> None:
        """Tell the other end."""
