"""Mappings that are worked out before it is known where they go: a program's. See memory.mapping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.memory.accounting import Usage
from loadstone.memory.vma import ACCOUNT, PAGE_SHIFT

if TYPE_CHECKING:
    from collections.abc import Sequence


class Area(NamedTuple):
    """A private mapping that is to be: of the file from byte `offset` on, or of nothing. Addresses in bytes."""

    start: int
    end: int
    flags: int
    offset: int
    anonymous: bool


class Outline:
    """Private mappings in ascending order that neither overlap nor merge. Addresses before the load bias.

    Attributes:
        start, end: the range that they all lie in.
        total, data, executable: their pages, as memory.accounting counts them.
        promised: pages of memory that they promise.
    """

    __slots__ = ("areas", "data", "end", "executable", "promised", "start", "total")

    def __init__(self, areas: Sequence[Area]) -> None:
        self.areas = tuple(areas)
        self.start, self.end = areas[0].start, areas[-1].end
        usage = Usage()
        for start, end, flags, _, _ in areas:
            usage.add(flags, (end - start) >> PAGE_SHIFT)
        self.total, self.data, self.executable = usage.total, usage.data, usage.executable
        self.promised = sum((area.end - area.start) >> PAGE_SHIFT for area in areas if area.flags & ACCOUNT)
