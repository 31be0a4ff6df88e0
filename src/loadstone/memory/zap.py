"""Taking pages away: clear page-table entries, tell the cores, let go of the frames, free empty tables.

The cost is that of what is mapped, not of the range: absent page tables are skipped whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.machine.paging import DIRTY, FRAME_MASK
from loadstone.machine.physical import CACHE
from loadstone.memory.vma import PAGE_SHIFT, SHARED, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace


def zap(space: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """Unmap the pages of [start, end) in `vma`; the VMA stays (kernel: zap_page_range_single)."""
    space.note_resident_peak()
    space.shootdown.retire(space.page_table.root, start, end, clear(space, vma, start, end))


def clear(space: AddressSpace, vma: Vma, start: int, end: int) -> list[int]:
    """Clear the entries of [start, end) in `vma`; the frames they pointed at, a reference of each now the caller's.

    A page written through a shared mapping passes its dirty bit on to the page cache.
    """
    words = space.memory.words
    zero_frame = space.memory.zero_frame
    frames = []
    for address, slot, entry in space.page_table.entries(start, end):
        words[slot] = 0
        frame = (entry & FRAME_MASK) >> 12
        frames.append(frame)
        if frame != zero_frame:
            space.resident_pages -= 1
        if entry & DIRTY and vma.flags & SHARED:
            pass_dirty_on(space, vma, address, frame)
    return frames


def pass_dirty_on(space: AddressSpace, vma: Vma, address: int, frame: int) -> None:
    """Note that the page-cache page behind `address` of a shared mapping was written (kernel: set_page_dirty)."""
    if vma.backing is not None and vma.backing.pages is not None and space.memory.owner(frame) == CACHE:
        vma.backing.pages.dirty.add((vma.offset + address - vma.start) >> PAGE_SHIFT)
