"""IPC namespaces: the tables of System V and POSIX objects (ipc/namespace.c)."""

from __future__ import annotations

from loadstone.linux.clone import CLONE_NEWIPC
from loadstone.linux.namespaces.base import Namespace


class IpcNamespace(Namespace):
    """The objects that processes find by key or name here."""

    __slots__ = ()

    kind = "ipc"
    flag = CLONE_NEWIPC
