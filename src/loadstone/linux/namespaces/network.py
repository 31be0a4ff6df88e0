"""Network namespaces: interfaces, ports and abstract names of sockets (net/core/net_namespace.c)."""

from __future__ import annotations

from loadstone.linux.clone import CLONE_NEWNET
from loadstone.linux.namespaces.base import Namespace


class NetNamespace(Namespace):
    """A network of its own."""

    __slots__ = ()

    kind = "net"
    flag = CLONE_NEWNET
