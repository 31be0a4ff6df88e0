"""The one place to which every change of a page-table entry that a core may have cached is reported.

A core caches translations; it must be told when an entry is narrowed, retargeted or removed, and a frame may be used
again only when no core can still reach it. Not-present to present needs no report: no core caches an absence.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadstone.lean import Protocol
from loadstone.machine.paging import ACCESSED, COUNTED, FRAME_MASK
from loadstone.machine.physical import FRAME_SHIFT, PhysicalMemory


class Listener(Protocol):
    """A core, as far as stale translations go."""

    def invalidate(self, root: int, start: int, end: int, frames: Sequence[int]) -> None:
        """Forget the translations of [start, end) in the address space of page directory `root`.

        `frames` are those that the old entries pointed at; none when the entries of now still point at them.
        """


class Shootdown:
    """Passes changes on to every core of the machine, then lets go of frames."""

    __slots__ = ("_listeners", "_memory")

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._listeners: list[Listener] = []

    def listen(self, core: Listener) -> None:
        """Report to `core` from now on."""
        self._listeners.append(core)

    def changed(self, root: int, start: int, end: int, frames: Sequence[int] = ()) -> None:
        """Entries in [start, end) allow less than before or lost accessed or dirty bits, or have moved.

        `frames` are those behind the entries that changed; without any they are looked up, but for those that moved.
        """
        for core in self._listeners:
            core.invalidate(root, start, end, frames)

    def retire(self, root: int, start: int, end: int, entries: Sequence[int]) -> None:
        """`entries`, which were in [start, end), are gone or have others in their place: let go of their frames.

        A core remembers no entry that it has not marked as accessed; but where there are several, another may have done
        so since the entries were read.
        """
        known = entries if len(self._listeners) > 1 else [entry for entry in entries if entry & ACCESSED]
        if known:
            frames = [(entry & FRAME_MASK) >> FRAME_SHIFT for entry in known]
            for core in self._listeners:
                core.invalidate(root, start, end, frames)
        counted = [(entry & FRAME_MASK) >> FRAME_SHIFT for entry in entries if entry & COUNTED]
        if counted:
            self._memory.release_all(counted)
