"""PID namespaces: the numbers of processes (kernel/pid_namespace.c)."""

from __future__ import annotations

from loadstone.linux.clone import CLONE_NEWPID
from loadstone.linux.namespaces.base import Namespace


class PidNamespace(Namespace):
    """Numbers of processes."""

    __slots__ = ()

    kind = "pid"
    flag = CLONE_NEWPID
