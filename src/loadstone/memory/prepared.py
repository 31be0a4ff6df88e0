"""An address space as exec builds it, kept to be made again at once.

What exec maps of a program, and what it touches there, follows from the files and from where things go. So the next
exec of the same program ends with equal VMAs and equal page tables, but for the frames of its own pages: those are new
each time, copies of cached pages or zeros. A `PreparedSpace` is such a result, taken from the address space of an exec
that went through it step by step; filling another with it takes a quarter of the time.

Pages of the stack are left out: they are the strings of each exec.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from loadstone.machine.paging import COUNTED, FRAME_MASK, USER_END, ZERO_PAGE
from loadstone.machine.physical import ANONYMOUS, FRAME_SHIFT
from loadstone.memory.accounting import OVERCOMMIT_NEVER
from loadstone.memory.flags import RLIMIT_AS, RLIMIT_DATA
from loadstone.memory.vma import PAGE, PAGE_MASK, PAGE_SHIFT, Vma

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.memory.address_space import AddressSpace

_SEEN_IN = 64  # pages for which there must be room where pages are filled ahead


def ahead(space: AddressSpace) -> bool:
    """Whether exec fills pages ahead in `space`; a prepared space is good for others with the same answer."""
    return space.fill_ahead is not None and space.fill_ahead.unseen(space) and space.fill_ahead.has_room(_SEEN_IN)


class PreparedSpace:
    """What an address space held. See `of` and `fill`."""

    __slots__ = (
        "_cleared",
        "_copied",
        "_faults",
        "_files",
        "_own",
        "_promised",
        "_resident",
        "_shared",
        "_usage",
        "_vmas",
    )

    def __init__(self, space: AddressSpace) -> None:
        self._vmas = [vma.copy(vma.start, vma.end, vma.offset) for vma in space.vmas]
        self._usage = space.usage.copy()
        self._usage.peak = space.usage.peak
        self._promised = space.vmas.summary().promised
        self._faults = space.minor_faults
        backings = {id(vma.backing): vma.backing for vma in space.vmas if vma.backing is not None}.values()
        self._files = [(each, each.pages, each.pages.generation if each.pages else 0) for each in backings]
        self._shared: list[tuple[int, memoryview]] = []  # entries that all get: address of the first, entries
        self._own: list[tuple[int, int]] = []  # pages that each has of its own: address, entry without a frame
        self._copied: list[int] = []  # the frames that the first ones of those are copies of; the others are zeros
        self._cleared: list[tuple[int, int]] = []  # number of one of those, byte from which on it is cleared
        self._resident = 0

    @classmethod
    def of(cls, space: AddressSpace, stack: Vma, cleared: Sequence[int]) -> PreparedSpace | None:
        """What `space` holds; None if that does not follow from its files alone, as far as anybody can tell.

        `cleared`: the addresses from which on the rest of a page of the program's data was cleared.
        """
        if space.major_faults or space.walks or space.scattered or space.guards:
            return None
        found = cls(space)
        cleared_from = {address & PAGE_MASK: address % PAGE for address in cleared}
        return found if found._take_pages(space, stack, cleared_from) else None

    def _take_pages(self, space: AddressSpace, stack: Vma, cleared: dict[int, int]) -> bool:
        """Take the page tables down, and whether that explains all there is."""
        copies: list[tuple[int, int, int]] = []
        zeros: list[tuple[int, int]] = []
        for first, _, entries in space.page_table.runs(0, USER_END):
            self._take_shared(first, entries)
            for address, entry in zip(range(first, USER_END, PAGE), entries):  # noqa: B905 - as many as there are
                if not entry & COUNTED or stack.start <= address < stack.end:
                    continue
                source = _source(space, address)
                if not _holds(space, entry, source, cleared.get(address, PAGE)):
                    return False
                if source < 0:
                    zeros.append((address, entry & ~FRAME_MASK))
                else:
                    copies.append((address, entry & ~FRAME_MASK, source))
        self._own = [(address, bits) for address, bits, _ in copies] + zeros
        self._copied = [source for _, _, source in copies]
        self._cleared = [(n, cleared[address]) for n, (address, _, _) in enumerate(copies) if address in cleared]
        self._resident += len(self._own)
        return True

    def _take_shared(self, first: int, entries: list[int]) -> None:
        shared = [0 if entry & COUNTED else entry for entry in entries]
        there = [number for number, entry in enumerate(shared) if entry]
        if there:
            self._resident += sum(not shared[number] & ZERO_PAGE for number in there)
            part = array("Q", shared[there[0] : there[-1] + 1])
            self._shared.append((first + (there[0] << PAGE_SHIFT), memoryview(part)))

    def fits(self, space: AddressSpace) -> bool:
        """Whether the same pages are cached, no limit of `space`, which is empty, can refuse it, and nobody listens."""
        events, limits, commitment = space.events, space.limits, space.limits.commitment
        return (
            not (events is not None and (events.map or events.fault))
            and all(each.pages is pages and (not pages or pages.generation == n) for each, pages, n in self._files)
            and len(self._vmas) < limits.max_map_count
            and self._usage.peak <= limits.soft(RLIMIT_AS) >> PAGE_SHIFT
            and self._usage.data <= limits.soft(RLIMIT_DATA) >> PAGE_SHIFT
            and commitment.mode != OVERCOMMIT_NEVER
            and self._promised <= commitment.total
        )

    def fill(self, space: AddressSpace) -> None:
        """Have `space`, which is empty and which this `fits`, hold the same. Raises OutOfFrames."""
        memory, table = space.memory, space.page_table
        words = memory.words
        space.charge(self._promised)
        space.vmas.insert_all([vma.copy(vma.start, vma.end, vma.offset) for vma in self._vmas])
        space.usage = usage = self._usage.copy()
        usage.peak = self._usage.peak
        space.minor_faults = self._faults
        for address, entries in self._shared:
            slot = table.slot(address)
            words[slot : slot + len(entries)] = entries
        slots = [table.slot(address) for address, _ in self._own]
        frames = memory.duplicate(self._copied)
        try:
            frames += memory.allocate_many(len(slots) - len(frames), ANONYMOUS)
        except BaseException:
            memory.release_all(frames)
            raise
        for slot, frame, (_, bits) in zip(slots, frames, self._own, strict=True):
            words[slot] = frame << FRAME_SHIFT | bits
        for number, first in self._cleared:
            memory.page(frames[number])[first:] = bytes(PAGE - first)
        space.resident_pages = self._resident


def _source(space: AddressSpace, address: int) -> int:
    """The frame of the cached page of the file at `address`; -1 for anonymous memory."""
    vma = space.find(address)
    if vma is None or vma.backing is None:
        return -1
    return space.cache.lookup(vma.backing, (vma.offset + address - vma.start) >> PAGE_SHIFT)


def _holds(space: AddressSpace, entry: int, source: int, end: int) -> bool:
    """Whether a page holds what `source` does, zeros if that is -1, and zeros from byte `end` on."""
    expected = bytes(space.memory.page(source)) if source >= 0 else bytes(PAGE)
    return bytes(space.memory.page((entry & FRAME_MASK) >> FRAME_SHIFT)) == expected[:end].ljust(PAGE, b"\0")
