"""Network namespaces: the loopback device, ports, and abstract names of sockets (net/core/net_namespace.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.clone_flags import CLONE_NEWNET
from loadstone.linux.namespaces.base import Namespace

if TYPE_CHECKING:
    from loadstone.linux.namespaces.users import UserNamespace
    from loadstone.vfs.socket_space import SocketSpace


class NetNamespace(Namespace):
    """A network of its own.

    Attributes:
        sockets: what sockets made here can find.
        tags: net.ipv4.conf.*.tag, numbers that nothing looks at.
    """

    __slots__ = ("sockets", "tags")

    kind = "net"
    flag = CLONE_NEWNET

    def __init__(self, number: int, owner: UserNamespace, sockets: SocketSpace) -> None:
        super().__init__(number, owner)
        self.sockets = sockets
        self.tags = {"all": 0, "default": 0, "lo": 0}

    def another(self, number: int, owner: UserNamespace) -> NetNamespace:
        """A new one has a loopback device that is down, and knows no sockets but those with a name in the tree."""
        return NetNamespace(number, owner, self.sockets.apart())
