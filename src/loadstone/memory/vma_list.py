"""The VMAs of one address space, sorted by address, and the primitive changes to them: find, insert, split, resize.

After a fork two address spaces have the same VMAs, and most children change none of them before they call exec. So the
lists share the VMAs themselves, until one of them is about to change: it keeps them, and the others get copies. Whoever
holds a VMA of the space that changes can go on with it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from errno import ENOMEM

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.memory.shared import SharedMemory
from loadstone.memory.vma import ACCOUNT, PAGE_SHIFT, ForkedAnonVma, Vma

NOT_PACKED = (1 << 64, 0, 0)


class Summary(NamedTuple):
    """What fork and exit want to know of all VMAs of a list together. Figures in pages.

    `flags`: those that any of them has. `promised`: the sum of those with ACCOUNT; `largest` of them. `shared`: the
    shared memory behind them, as often as they map it.
    """

    flags: int
    promised: int
    largest: int
    shared: tuple[SharedMemory, ...]


class VmaList:
    """VMAs that never overlap, in ascending order. A lookup is one bisection over their starts.

    The starts are kept beside the VMAs, so a VMA's `start` is changed through `resize` only. Who changes anything else
    of one calls `own` first, and so does who asks for the kind of its anon_vma.

    Attributes:
        areas: the VMAs themselves. Only this class changes it.
        packed: what the last top-down search has learnt: (length, floor, top) says that no free range of `length` bytes
            or more ends in (floor, top]. It is forgotten when something goes away there.
    """

    __slots__ = ("_forked", "_sharing", "_starts", "_summary", "areas", "packed")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self.areas: list[Vma] = []
        self.packed = NOT_PACKED
        self._summary: Summary | None = None  # until something changes
        self._sharing: list[VmaList] | None = None  # the lists that have the same VMAs, this one among them
        self._forked = False  # the VMAs are still those of a parent

    def share(self) -> VmaList:
        """The list of a forked child: the same VMAs, until one of the two lists changes."""
        child = VmaList()
        child._starts, child.areas, child.packed = self._starts, self.areas, self.packed
        child._summary = summary = self.summary()
        child._forked = True
        if self._sharing is None:
            self._sharing = [self]
        self._sharing.append(child)
        child._sharing = self._sharing
        for memory in summary.shared:
            memory.use()
        return child

    def own(self) -> None:
        """Something of a VMA is about to change: whoever shares them has copies from now on."""
        self._summary = None
        sharing = self._sharing
        if sharing is None:
            return
        self._leave(sharing)
        if sharing:
            starts, copies = self._starts.copy(), [vma.copy(vma.start, vma.end, vma.offset) for vma in self.areas]
            for other in sharing:
                other._starts, other.areas = starts, copies
        if self._forked:
            self._forked = False
            fork_anon_vmas(self.areas)

    def summary(self) -> Summary:
        """Of the VMAs as they are now."""
        if self._summary is None:
            self._summary = _summary_of(self.areas)
        return self._summary

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

    def parts(self, start: int, end: int) -> Iterator[tuple[Vma, int, int]]:
        """What is mapped of `[start, end)`, VMA by VMA: each with the start and end of its part. Holes are passed over.

        Each is looked up when its turn comes, so that those before it may be changed, split and merged.
        """
        while start < end:
            vma = self.find_after(start)
            if vma is None or vma.start >= end:
                return
            start, last = max(start, vma.start), min(end, vma.end)
            yield vma, start, last
            start = last

    def gapless(self, start: int, end: int) -> Iterator[tuple[Vma, int, int]]:
        """As `parts`, for a range without holes: LinuxError(ENOMEM) where the first one begins."""
        for vma, first, last in self.parts(start, end):
            if first > start:
                break
            yield vma, first, last
            start = last
        if start < end:
            raise LinuxError(ENOMEM, f"nothing is mapped at {start:#x}")

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
        self.own()
        self._starts.insert(index, vma.start)
        self.areas.insert(index, vma)
        if isinstance(vma.backing, SharedMemory):
            vma.backing.use()

    def cut_in(self, vma: Vma) -> None:
        """Put a private `vma` in place of part or all of the one that is there; the rest below that stays itself."""
        self.own()
        index = bisect_right(self._starts, vma.start) - 1
        old = self.areas[index]
        parts = [vma]
        if vma.end < old.end:
            parts.append(old.copy(vma.end, old.end, old.offset + vma.end - old.start))
        if old.start < vma.start:
            old.end = vma.start
            parts.insert(0, old)
        self.areas[index : index + 1] = parts
        self._starts[index : index + 1] = [part.start for part in parts]

    def insert_all(self, vmas: list[Vma]) -> None:
        """Add one or more VMAs, in ascending order, to a range in which nothing is."""
        self.own()
        index = bisect_left(self._starts, vmas[0].start)
        self._starts[index:index] = [vma.start for vma in vmas]
        self.areas[index:index] = vmas
        for vma in vmas:
            if isinstance(vma.backing, SharedMemory):
                vma.backing.use()

    def remove(self, vma: Vma) -> None:
        """Take `vma` out."""
        self.own()
        index = self._index(vma)
        del self._starts[index]
        del self.areas[index]
        if vma.end > self.packed[1]:
            self.packed = NOT_PACKED
        if isinstance(vma.backing, SharedMemory):
            vma.backing.drop()

    def clear(self) -> None:
        """Take all of them out."""
        shared = self.summary().shared
        if self._sharing is not None:
            self._leave(self._sharing)
        self._starts, self.areas, self.packed, self._summary = [], [], NOT_PACKED, None
        for memory in shared:
            memory.drop()

    def resize(self, vma: Vma, start: int, end: int, offset: int) -> None:
        """Give `vma` another range, which does not take it past a neighbour (kernel: vma_set_range)."""
        self.own()
        self._starts[self._index(vma)] = start
        if vma.end > self.packed[1] and (start > vma.start or end < vma.end):
            self.packed = NOT_PACKED
        vma.start, vma.end, vma.offset = start, end, offset

    def split(self, vma: Vma, address: int) -> Vma:
        """Cut `vma` in two at `address`, inside it; the new VMA is the upper part (kernel: __split_vma)."""
        self.own()
        upper = vma.copy(address, vma.end, vma.offset + address - vma.start)
        vma.end = address
        self.insert(upper)
        return upper

    def _index(self, vma: Vma) -> int:
        return bisect_left(self._starts, vma.start)

    def _leave(self, sharing: list[VmaList]) -> None:
        sharing.remove(self)
        self._sharing = None


def fork_anon_vmas(areas: list[Vma]) -> None:
    """Note that anonymous pages of these VMAs may be a parent's (kernel: anon_vma_fork)."""
    for vma in areas:
        if vma.anon_vma is not None:
            vma.anon_vma = ForkedAnonVma()


def _summary_of(areas: list[Vma]) -> Summary:
    flags = 0
    promised: list[int] = []
    for vma in areas:
        flags |= vma.flags
        if vma.flags & ACCOUNT:
            promised.append((vma.end - vma.start) >> PAGE_SHIFT)
    shared = tuple([vma.backing for vma in areas if isinstance(vma.backing, SharedMemory)])
    return Summary(flags, sum(promised), max(promised, default=0), shared)
