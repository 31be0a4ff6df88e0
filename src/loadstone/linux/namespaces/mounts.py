"""Mount namespaces: which tree of mounts a process sees (fs/namespace.c)."""

from __future__ import annotations

from loadstone.linux.clone import CLONE_NEWNS
from loadstone.linux.namespaces.base import Namespace


class MountNamespace(Namespace):
    """A tree of mounts."""

    __slots__ = ()

    kind = "mnt"
    flag = CLONE_NEWNS
