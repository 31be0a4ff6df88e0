"""The VMAs of one address space, sorted by address, and the primitive changes to them: find, insert, split, resize."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from loadstone.memory.shared import SharedMemory
from loadstone.memory.vma import Vma

NOT_PACKED = (1 << 64, 0, 0)


class VmaList:
    """VMAs that never overlap, in ascending order. A lookup is one bisection over their starts.

    The starts are kept beside the VMAs, so a VMA's `start` is changed through `resize` only.

    Attributes:
        areas: the VMAs themselves. Only this class changes it.
        packed: what the last top-down search has learnt: (length, floor, top) says that no free range of `length` bytes
            or more ends in (floor, top]. It is forgotten when something goes away there.
    """

    __slots__ = ("_starts", "areas", "packed")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self.areas: list[Vma] = []
        self.packed = NOT_PACKED

    def __len__(self) -> int:
        return len(self.areas)

    def __iter__(self) -> Iterator[Vma]:
        return iter(self.areas)

    def __getitem__(self, index: int) -> Vma:
        return self.areas[index]

    def find(self, address: int) -> Vma | None:
        """The VMA that contains `address` (kernel: vma_lookup)."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0:
            vma = self.areas[index]
            if address < vma.end:
                return vma
        return None

    def index_after(self, address: int) -> int:
        """The index of the first VMA with `end > address`; the length of the list when there is none."""
        index = bisect_right(self._starts, address)
        return index - 1 if index and self.areas[index - 1].end > address else index

    def find_after(self, address: int) -> Vma | None:
        """The first VMA with `end > address` (kernel: find_vma)."""
        index = self.index_after(address)
        return self.areas[index] if index < len(self.areas) else None

    def find_before(self, address: int) -> Vma | None:
        """The last VMA with `start < address`."""
        index = bisect_left(self._starts, address) - 1
        return self.areas[index] if index >= 0 else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """All VMAs with a byte in `[start, end)`."""
        return self.areas[self.index_after(start) : bisect_left(self._starts, end)]

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any VMA has a byte in `[start, end)` (kernel: find_vma_intersection)."""
        vma = self.find_after(start)
        return vma is not None and vma.start < end

    def room(self, start: int, end: int) -> int:
        """Where in the list a VMA of `[start, end)` would be; -1 if there is one with a byte in it."""
        vmas = self.areas
        index = bisect_left(self._starts, start)
        if index and vmas[index - 1].end > start:
            return -1
        return index if index == len(vmas) or vmas[index].start >= end else -1

    def before(self, vma: Vma) -> Vma | None:
        """The neighbour below."""
        index = self._index(vma) - 1
        return self.areas[index] if index >= 0 else None

    def after(self, vma: Vma) -> Vma | None:
        """The neighbour above."""
        index = self._index(vma) + 1
        return self.areas[index] if index < len(self.areas) else None

    def insert(self, vma: Vma) -> None:
        """Add `vma`, which overlaps none."""
        self.insert_at(bisect_left(self._starts, vma.start), vma)

    def insert_at(self, index: int, vma: Vma) -> None:
        """Add `vma` where there is `room` for it."""
        self._starts.insert(index, vma.start)
        self.areas.insert(index, vma)
        if isinstance(vma.backing, SharedMemory):
            vma.backing.use()

    def insert_all(self, vmas: list[Vma]) -> None:
        """Add one or more VMAs, in ascending order, to a range in which nothing is."""
        index = bisect_left(self._starts, vmas[0].start)
        self._starts[index:index] = [vma.start for vma in vmas]
        self.areas[index:index] = vmas
        for vma in vmas:
            if isinstance(vma.backing, SharedMemory):
                vma.backing.use()

    def remove(self, vma: Vma) -> None:
        """Take `vma` out."""
        index = self._index(vma)
        del self._starts[index]
        del self.areas[index]
        if vma.end > self.packed[1]:
            self.packed = NOT_PACKED
        if isinstance(vma.backing, SharedMemory):
            vma.backing.drop()

    def clear(self) -> None:
        """Take all of them out."""
        gone = self.areas
        self._starts, self.areas, self.packed = [], [], NOT_PACKED
        for vma in gone:
            if isinstance(vma.backing, SharedMemory):
                vma.backing.drop()

    def resize(self, vma: Vma, start: int, end: int, offset: int) -> None:
        """Give `vma` another range, which does not take it past a neighbour (kernel: vma_set_range)."""
        self._starts[self._index(vma)] = start
        if vma.end > self.packed[1] and (start > vma.start or end < vma.end):
            self.packed = NOT_PACKED
        vma.start, vma.end, vma.offset = start, end, offset

    def split(self, vma: Vma, address: int) -> Vma:
        """Cut `vma` in two at `address`, inside it; the new VMA is the upper part (kernel: __split_vma)."""
        upper = vma.copy(address, vma.end, vma.offset + address - vma.start)
        vma.end = address
        self.insert(upper)
        return upper

    def _index(self, vma: Vma) -> int:
        return bisect_left(self._starts, vma.start)
