"""Taking pages away: clear page-table entries, tell the cores, let go of the frames, free empty tables.

The cost is that of what is mapped, not of the range: absent page tables are skipped whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.machine.paging import DIRTY, FRAME_MASK, ZERO_PAGE
from loadstone.machine.physical import CACHE, ENTRIES, FRAME_SHIFT
from loadstone.memory.vma import PAGE_SHIFT, SHARED, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

_EMPTY = memoryview(bytes(8 * ENTRIES)).cast("Q")
_TAGS = 6  # the number of the byte of an entry that says whether it is of the zero page
_ZERO_TAG = ZERO_PAGE >> 8 * _TAGS


def zap(space: AddressSpace, vma: Vma, start: int, end: int) -> bool:
    """Unmap the pages of [start, end) in `vma`; the VMA stays (kernel: zap_page_range_single).

    Whether any page was there, and a page table may therefore be empty now.
    """
    space.note_resident_peak()
    gone = clear(space, vma, start, end)
    space.shootdown.retire(space.page_table.root, start, end, gone)
    return bool(gone)


def clear(space: AddressSpace, vma: Vma, start: int, end: int) -> list[int]:
    """Clear the entries of [start, end) in `vma`; what they were, for `Shootdown.retire`.

    A page written through a shared mapping passes its dirty bit on to the page cache.
    """
    if vma.flags & SHARED:
        pass_all_dirty_on(space, vma, start, end)
    words = space.memory.words
    gone: list[int] = []
    for _, slot, count in space.page_table.spans(start, end):
        if space.memory.holds_zeros(slot, count):
            continue
        found = [*filter(None, words[slot : slot + count].tolist())]
        space.resident_pages -= len(found) - space.memory.column(slot, count, _TAGS).count(_ZERO_TAG)
        gone += found
        words[slot : slot + count] = _EMPTY[:count]
    return gone


def pass_all_dirty_on(space: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """`pass_dirty_on` for the pages of [start, end) in a shared mapping that were written."""
    for address, _, entry in space.page_table.entries(start, end):
        if entry & DIRTY:
            pass_dirty_on(space, vma, address, (entry & FRAME_MASK) >> FRAME_SHIFT)


def pass_dirty_on(space: AddressSpace, vma: Vma, address: int, frame: int) -> None:
    """Note that the page-cache page behind `address` of a shared mapping was written (kernel: set_page_dirty)."""
    if vma.backing is not None and vma.backing.pages is not None and space.memory.owner(frame) == CACHE:
        vma.backing.pages.dirty.add((vma.offset + address - vma.start) >> PAGE_SHIFT)
