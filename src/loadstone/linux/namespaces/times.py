"""Time namespaces: how far the monotonic clocks are ahead of the machine's (kernel/time/namespace.c)."""

from __future__ import annotations

from loadstone.linux.clone import CLONE_NEWTIME
from loadstone.linux.namespaces.base import Namespace


class TimeNamespace(Namespace):
    """Offsets of clocks."""

    __slots__ = ()

    kind = "time"
    flag = CLONE_NEWTIME
