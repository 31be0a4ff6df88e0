"""What a fault does for the pages beside the one that faulted.

The kernel's own part is fault-around: a read fault on a file maps what is cached of the 64 KiB around it. The rest are
favours of Loadstone's, given on the terms of filling ahead (see memory.fill_ahead): not where anybody looks at faults.
They matter to processes, which fork copies and exec builds anew, page by page:

- a read fault on a file maps all the cached pages that the same page table and mapping have;
- mapping a small file for reading, or a part of a program or library, maps its cached pages at once; data, which is
  written first, gets frames of its own then if there is little of it, and so does .bss behind it;
- a write fault that copies or reclaims a page of a private mapping does so for the 128 KiB around it;
- a write fault in a small anonymous mapping, as a library has for .bss, fills all of it.

A page-cache page is copied ahead only where the mapping belongs to a program or library: of any other file the program
may expect to see what is written to it later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.errors import OutOfFrames
from loadstone.machine.paging import AHEAD, COUNTED, DIRTY, FRAME_MASK, PROTNONE, WRITABLE, ZERO_PAGE
from loadstone.machine.physical import ANONYMOUS, FRAME_SHIFT
from loadstone.memory.entries import anonymous_entry, file_entry
from loadstone.memory.flags import RAND_READ
from loadstone.memory.merge import prepare_anon_vma
from loadstone.memory.vma import EXEC, GROWSDOWN, PAGE, PAGE_SHIFT, PROTECTION, SHARED, WRITE, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.backing import Backing

_ENTRIES_IN_TABLE = 512
_OWNED_AROUND = 32  # pages, aligned in the page table: 128 KiB
_EMPTY = bytes(8 * _ENTRIES_IN_TABLE)
_TABLE_MASK = (1 << 21) - 1  # of an address: where in its page table
_SMALL = 16  # pages of a mapping that is filled as a whole
_SEGMENTS = 5  # mappings of one library, in which its code is looked for


def map_around(space: AddressSpace, vma: Vma, backing: Backing, page: int, writable: bool) -> int:
    """Map the faulting page of a file and its neighbours that are cached (do_fault_around); how many neighbours.

    The window is aligned in the page table, and stays within the VMA, the page table and the file. A favour goes as far
    as those do, but for pages that are cached already.
    """
    count = space.fault_around >> PAGE_SHIFT
    in_table = page >> PAGE_SHIFT & (_ENTRIES_IN_TABLE - 1)
    index = (vma.offset + page - vma.start) >> PAGE_SHIFT
    to_index = index - in_table
    lowest = max(0, in_table - ((page - vma.start) >> PAGE_SHIFT)) + to_index
    highest = min(_ENTRIES_IN_TABLE, in_table + ((vma.end - page) >> PAGE_SHIFT)) - 1 + to_index
    highest = min(highest, (backing.size - 1) >> PAGE_SHIFT)
    low = max((in_table & -count) + to_index, lowest)
    high = min(low + count - 1, highest)
    cache = space.cache
    try:
        frames = cache.bring(backing, *((low, high) if cache.warm and backing.writeback else (index, index)))
    except OutOfFrames:  # the neighbours are a favour; the page itself has to be there
        frames = cache.bring(backing, index, index)
    bits = file_entry(vma, 0, writable)
    if space.fill_ahead is not None and space.fill_ahead.unseen(space):
        low, high = lowest, highest
        mapped = _map_window(space, backing, page + (low - index << PAGE_SHIFT), low, high, bits)
        if mapped:
            return mapped - 1
    slot = space.page_table.slot(page) - index
    mapped = 0
    words, guards = space.memory.words, space.guards
    for each, entry in enumerate(words[slot + low : slot + high + 1].tolist(), low):
        if not entry and each in frames and not (guards and page + (each - index << PAGE_SHIFT) in guards):
            words[slot + each] = frames[each] << FRAME_SHIFT | bits
            mapped += 1
    space.resident_pages += mapped
    return mapped - 1


def fill_block(space: AddressSpace, vma: Vma, page: int, slot: int, access: int, after_read: bool = False) -> int:
    """A fault on anonymous memory that continued no walk: give the absent pages of the block around it frames of their
    own, where fill_ahead says so; how many.

    A read is only counted. (The page itself has its entry, or gets it from the caller.)
    """
    ahead = space.fill_ahead
    size = ahead.block(space, vma, page, access, after_read) if ahead is not None else 1
    if ahead is None or size < 2:
        return 0
    first, end = _block(vma, page, slot, size)
    memory = space.memory
    words = memory.words
    absent = [here for here, entry in enumerate(words[first:end].tolist(), first) if not entry and here != slot]
    if not absent:
        return 0
    try:
        frames = memory.allocate_many(len(absent), ANONYMOUS)
    except OutOfFrames:
        return 0
    bits = anonymous_entry(vma, 0) | DIRTY | AHEAD
    for here, frame in zip(absent, frames, strict=True):
        words[here] = frame << FRAME_SHIFT | bits
    space.resident_pages += len(absent)
    ahead.count(memory, 1 + len(absent))
    return len(absent)


def map_small(space: AddressSpace, vma: Vma) -> None:
    """A file was mapped that is read soon if it is small, as locales and tables are: map what is cached of it."""
    if not vma.flags & WRITE and _is_small(space, vma):
        map_ahead(space, vma, vma.start, vma.end)


def map_ahead(space: AddressSpace, vma: Vma, start: int, stop: int) -> None:
    """Map what is cached of the program or library behind [start, stop) of `vma`, which its loader has mapped just now.

    Data, and memory after it, is written first: a little of either gets frames of its own.
    """
    ahead, backing = space.fill_ahead, vma.backing
    if vma.flags & WRITE:
        _own_ahead(space, vma)
        return
    if ahead is None or backing is None or backing.pages is None or not (ahead.unseen(space) and ahead.has_room(1)):
        return
    if not vma.flags & PROTECTION:
        return
    bits = file_entry(vma, 0, False)
    page = start
    while page < stop:
        end = min(stop, (page | _TABLE_MASK) + 1)
        first = (vma.offset + page - vma.start) >> PAGE_SHIFT
        last = min(first + ((end - page) >> PAGE_SHIFT), -(-backing.size >> PAGE_SHIFT)) - 1
        if first <= last:
            _map_window(space, backing, page, first, last, bits)
        page = end


def _map_window(space: AddressSpace, backing: Backing, address: int, first: int, last: int, bits: int) -> int:
    """Map the cached pages among first..last, the first at `address`, with `bits`; how many.

    None are if any entry is there already, or a guard page in the space.
    """
    if backing.pages is None or space.guards:
        return 0
    entries, mapped = backing.pages.window(first, last, bits)
    if not mapped:
        return 0
    slot = space.page_table.slot(address)
    words = space.memory.words[slot : slot + len(entries)]
    if words.tobytes() != _EMPTY[: words.nbytes]:
        return 0
    words[:] = entries
    space.resident_pages += mapped
    return mapped


def fill_below(space: AddressSpace, vma: Vma, page: int, pages: int) -> None:
    """Give the `pages` below `page` frames, which are in the stack `vma` of a new image: it will grow into them."""
    ahead, memory = space.fill_ahead, space.memory
    start = max(page - pages * PAGE, vma.start)
    if ahead is None or not (ahead.unseen(space) and ahead.has_room(pages)) or start ^ page > _TABLE_MASK:
        return
    bits = anonymous_entry(vma, 0) | AHEAD
    slot = space.page_table.slot(start)
    for here, frame in enumerate(memory.allocate_many((page - start) >> PAGE_SHIFT, ANONYMOUS), slot):
        memory.words[here] = frame << FRAME_SHIFT | bits
        space.resident_pages += 1


def fill_small(space: AddressSpace, vma: Vma, page: int, slot: int) -> int:
    """A write fault has given `page` of an anonymous mapping a frame: if it is small, give its other pages one too.

    How many.
    """
    ahead = space.fill_ahead
    if ahead is None or not _is_small(space, vma) or vma.flags & (GROWSDOWN | RAND_READ):
        return 0
    filled = _fill_absent(space, vma, slot - ((page - vma.start) >> PAGE_SHIFT))
    if filled:
        ahead.count(space.memory, 1 + filled)
    return filled


def own_around(space: AddressSpace, vma: Vma, page: int, slot: int) -> None:
    """A write fault has made `page` of a private mapping the process's own: do the same for the pages around it."""
    ahead = space.fill_ahead
    if ahead is None or space.guards or not ahead.unseen(space):
        return
    memory = space.memory
    words = memory.words
    first, end = _block(vma, page, slot, _OWNED_AROUND)
    may_copy = ahead.has_room(end - first)
    cached = _image_pages(space, vma)
    to_index = ((vma.offset + page - vma.start) >> PAGE_SHIFT) - slot
    shared: list[tuple[int, int, int]] = []
    for here, entry in enumerate(words[first:end].tolist(), first):
        if entry & (WRITABLE | PROTNONE | ZERO_PAGE):
            continue
        frame = (entry & FRAME_MASK) >> FRAME_SHIFT if entry else cached.get(here + to_index, 0)
        if entry & COUNTED and memory.is_exclusive(frame):
            words[here] = entry & ~DIRTY | WRITABLE  # dirty once it is written: fork goes by that
        elif may_copy and frame and (entry & COUNTED or cached):
            shared.append((here, entry, frame))
    if shared:
        address = page - (slot << PAGE_SHIFT)
        _own(space, vma, address + (first << PAGE_SHIFT), address + (end << PAGE_SHIFT), shared)


def _own(space: AddressSpace, vma: Vma, start: int, end: int, shared: list[tuple[int, int, int]]) -> None:
    """Give [start, end) in `vma` copies of the frames in `shared`: (slot, entry, frame) each."""
    memory = space.memory
    bits = anonymous_entry(vma, 0)
    copies = memory.duplicate([frame for _, _, frame in shared])
    for (here, _, _), copy in zip(shared, copies, strict=True):
        memory.words[here] = copy << FRAME_SHIFT | bits
    old = [entry for _, entry, _ in shared if entry]
    space.resident_pages += len(shared) - len(old)
    space.shootdown.retire(space.page_table.root, start, end, old)


def _own_ahead(space: AddressSpace, vma: Vma) -> None:
    """Give the pages of a small new mapping, of data or after it, frames of their own."""
    if not _is_small(space, vma) or vma.flags & SHARED:
        return
    slot = space.page_table.slot(vma.start)
    if vma.backing is None:
        prepare_anon_vma(space, vma)
        _fill_absent(space, vma, slot)
        return
    cached = _image_pages(space, vma)
    first = vma.offset >> PAGE_SHIFT
    known = range(first, first + ((vma.end - vma.start) >> PAGE_SHIFT))
    words, to_slot = space.memory.words, slot - first
    found = [(to_slot + index, 0, cached[index]) for index in known if index in cached and not words[to_slot + index]]
    if found:
        prepare_anon_vma(space, vma)
        _own(space, vma, vma.start, vma.end, found)


def _fill_absent(space: AddressSpace, vma: Vma, first: int) -> int:
    """Give the absent pages of `vma`, whose first slot is `first`, frames of zeros; how many."""
    memory, pages = space.memory, (vma.end - vma.start) >> PAGE_SHIFT
    absent = [here for here, entry in enumerate(memory.words[first : first + pages].tolist(), first) if not entry]
    bits = anonymous_entry(vma, 0) | AHEAD
    for here, frame in zip(absent, memory.allocate_many(len(absent), ANONYMOUS), strict=True):
        memory.words[here] = frame << FRAME_SHIFT | bits
    space.resident_pages += len(absent)
    return len(absent)


def _is_small(space: AddressSpace, vma: Vma) -> bool:
    """Whether a favour may fill all of `vma`, which is in one page table."""
    ahead, pages = space.fill_ahead, (vma.end - vma.start) >> PAGE_SHIFT
    return (
        ahead is not None
        and pages <= min(_SMALL, ahead.limit)
        and vma.start ^ vma.end - 1 <= _TABLE_MASK
        and not space.guards
        and ahead.unseen(space)
        and ahead.has_room(pages)
    )


def _block(vma: Vma, page: int, slot: int, size: int) -> tuple[int, int]:
    """The slots of the aligned block of `size` pages around `page`, as far as `vma` has them: first, end."""
    in_table = page >> PAGE_SHIFT & (_ENTRIES_IN_TABLE - 1)
    window = in_table & -size
    first = max(window, in_table - ((page - vma.start) >> PAGE_SHIFT))
    end = min(window + size, in_table + ((vma.end - page) >> PAGE_SHIFT))
    return slot - in_table + first, slot - in_table + end


def _image_pages(space: AddressSpace, vma: Vma) -> dict[int, int]:
    """The cached pages, by index, of the file behind `vma`, if that is the data of a program or library; else none."""
    pages = vma.backing.pages if vma.backing is not None else None
    return pages.frames if pages is not None and is_image(space, vma) else {}


def is_image(space: AddressSpace, vma: Vma) -> bool:
    """Whether the file behind `vma` is mapped as code, too, right below: it is the data of a program or library."""
    if vma.backing is None:
        return False
    below = vma
    for _ in range(_SEGMENTS):
        if below.flags & EXEC:
            return True
        neighbour = space.vmas.before(below)
        if neighbour is None or neighbour.backing is not vma.backing:
            return False
        below = neighbour
    return False
