"""Cgroup namespaces: which cgroup is the root of /proc/PID/cgroup. All processes are in one, so that they all agree."""

from __future__ import annotations

from loadstone.linux.clone_flags import CLONE_NEWCGROUP
from loadstone.linux.namespaces.base import Namespace


class CgroupNamespace(Namespace):
    """A cgroup namespace; its root is the cgroup that everybody is in."""

    __slots__ = ()

    kind = "cgroup"
    flag = CLONE_NEWCGROUP
