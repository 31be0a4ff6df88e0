"""Filling pages ahead of a program that uses new anonymous memory, so that it faults less often.

An optimisation of Loadstone's own, with no counterpart in the kernel: a fault costs us as much as a hundred pages. A
page that is filled ahead reads as it would have if it had faulted by itself; a program can tell from fault counts and
from what is resident (mincore, RSS, pagemap), not from anything else.

- Walks: a fault where the last one of a walk left off fills twice as many pages as that did, up to the limit, so no
  more is ever filled in vain than the walk has touched before. Filled are pages that follow the faulting one in its VMA
  and its page table, and that have the very entry it had: none, or the zero frame.
- Tables that are used in no order: from the 16th such fault in the 2 MiB of a page table on, one fills the absent pages
  of the aligned block around its own, two pages, then four from the 32nd on, and so on up to 32. A hundred faults fill
  the table; in vain is filled four times what was touched, at most. Where pages were read first and then written, as
  in a hash table that is looked up and then entered, one that is read gets a frame of its own at once.
- Not in stacks, which grow the other way, nor after MADV_RANDOM.
- It stops where a sixteenth of physical memory is left. Should that run short as well, what was filled and holds
  nothing but zeros is taken back, once, and nothing is filled ahead from then on: no machine is full sooner for it.
- Fault records would not be the kernel's, so by default it is off while anybody listens to faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.machine.paging import AHEAD, FRAME_MASK, WRITABLE
from loadstone.machine.physical import FRAME_SHIFT, FRAME_SIZE
from loadstone.memory.flags import RAND_READ
from loadstone.memory.vma import GROWSDOWN, LOCKED, PAGE, PAGE_SHIFT, WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.machine.physical import PhysicalMemory
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.page_cache import PageCache
    from loadstone.memory.vma import Vma

MOST_PAGES = 512
"""The limit unless another is asked for: what one page table maps, 2 MiB."""

_WALKS = 8  # remembered per address space, as many as programs fill arrays at once
_TABLES = 64  # page tables whose faults in no order are counted, per address space
_SCATTERED = 8  # faults for each page of a block
_MOST_IN_BLOCK = 32
_TABLE_SHIFT = 21
_ENTRIES_IN_TABLE = 512
_KEPT_FREE = 16  # the part of physical memory that is not filled ahead
_ZEROS = bytes(FRAME_SIZE)


class FillAhead:
    """The machine's limit and what was done.

    Attributes:
        limit: pages that one fault fills at most, its own included; below 2 it is off.
        always: also while somebody listens to faults.
        faults: how many filled more than their own page. pages: how many they filled beside it.
        taken_back: pages that were taken back when memory ran short.
    """

    __slots__ = ("_cache", "_most_frames", "always", "faults", "limit", "pages", "taken_back")

    def __init__(self, cache: PageCache, limit: int = MOST_PAGES, *, always: bool = False) -> None:
        self._cache = cache
        self._most_frames = cache.memory.frames - cache.memory.frames // _KEPT_FREE
        self.limit = limit
        self.always = always
        self.faults = self.pages = self.taken_back = 0

    def unseen(self, space: AddressSpace) -> bool:
        """Whether nobody looks at the faults in `space`."""
        return self.limit > 1 and not (space.events is not None and space.events.fault)

    def has_room(self, pages: int) -> bool:
        """Whether `pages` more leave the part of physical memory free that is kept."""
        return self._cache.memory.used + pages <= self._most_frames

    def will_be_written(self, space: AddressSpace, page: int) -> bool:
        """Whether a page that is read now will be written next, as far as the faults around it tell."""
        faults, pairs = space.scattered.get(page >> _TABLE_SHIFT, (0, 0))
        return faults >= 2 * _SCATTERED and 3 * pairs >= faults and not self._is_kept_out(space) and self.has_room(1)

    def block(self, space: AddressSpace, vma: Vma, page: int, access: int, after_read: bool) -> int:
        """How many pages to fill in the aligned block around `page`, whose fault continued no walk; 1: its own only.

        That fault is counted, and a walk may go on behind the block. `after_read`: a write to a page that was read.
        """
        if self._is_kept_out(space) or vma.flags & (GROWSDOWN | RAND_READ):
            return 1
        table = page >> _TABLE_SHIFT
        known = space.scattered
        faults, pairs = known.pop(table, (0, 0))
        if len(known) >= _TABLES:
            del known[next(iter(known))]
        known[table] = faults + 1, pairs + after_read
        size = min(1 << (faults // _SCATTERED).bit_length() >> 1, _MOST_IN_BLOCK, self.limit)
        if size < 2 or access != WRITE or not self.has_room(size):
            return 1
        walks = space.walks
        if walks.pop(page + PAGE | WRITE, 0):
            walks[(page & -size * PAGE) + size * PAGE | WRITE] = size
        return size

    def extent(self, space: AddressSpace, vma: Vma, slot: int, page: int, access: int) -> int:
        """How many pages a fault at `page` is to fill, its own included, all of them with the entry that is in `slot`.

        `access` is READ or WRITE: a program that reads ahead of where it writes makes two walks.
        """
        if self._is_kept_out(space) or vma.flags & (GROWSDOWN | RAND_READ):
            return 1
        walks = space.walks
        wanted = min(walks.pop(page | access, 0) * 2 or 1, self.limit)
        pages = 1
        if wanted > 1:
            room = min((vma.end - page) >> PAGE_SHIFT, _ENTRIES_IN_TABLE - slot % _ENTRIES_IN_TABLE)
            pages = self._alike(space.memory, slot, min(wanted, room))
        elif len(walks) >= _WALKS:
            del walks[next(iter(walks))]
        walks[page + pages * PAGE | access] = wanted
        return pages

    def count(self, memory: PhysicalMemory, pages: int) -> None:
        """A fault has filled `pages`, more than one."""
        if not self.pages:
            memory.when_short(self.take_back)
        self.faults += 1
        self.pages += pages - 1

    def take_back(self) -> None:
        """Release what was filled ahead and holds nothing but zeros; fill nothing from now on."""
        self.limit = 0
        for space in self._cache.spaces:
            self.taken_back += _release_untouched(space)

    def _is_kept_out(self, space: AddressSpace) -> bool:
        return not (self.always or self.unseen(space)) or bool(space.guards)

    def _alike(self, memory: PhysicalMemory, slot: int, most: int) -> int:
        """How many entries from `slot` on say the same, at most `most`; 1 when memory is nearly full."""
        if not self.has_room(most):
            return 1
        entries = memory.words[slot : slot + most].tolist()
        first = entries[0]
        return next((i for i, entry in enumerate(entries) if entry != first), most)


def _release_untouched(space: AddressSpace) -> int:
    """Take back the pages of one address space that were filled ahead and hold nothing but zeros; how many.

    The kernel's own accesses clear AHEAD, so that no page which a system call has in its hands is among them.
    """
    memory = space.memory
    space.note_resident_peak()
    taken = list(_untouched(space))
    for slot, _ in taken:
        memory.words[slot] = 0
    whole = space.page_table.root, 0, space.layout.task_size
    space.shootdown.changed(*whole, [(entry & FRAME_MASK) >> FRAME_SHIFT for _, entry in taken])
    gone = []
    for slot, entry in taken:
        if _holds_zeros(memory, (entry & FRAME_MASK) >> FRAME_SHIFT):
            gone.append(entry)
        else:  # another core wrote to it before it forgot the entry
            memory.words[slot] = entry
    space.resident_pages -= len(gone)
    space.shootdown.retire(*whole, gone)
    return len(gone)


def _untouched(space: AddressSpace) -> Iterator[tuple[int, int]]:
    """Slot and entry of the pages that were filled ahead and hold nothing but zeros."""
    memory = space.memory
    for vma in space.vmas:
        if vma.backing is not None or vma.flags & LOCKED:
            continue
        for _, slot, entry in space.page_table.entries(vma.start, vma.end):
            if entry & (AHEAD | WRITABLE) == AHEAD | WRITABLE:
                frame = (entry & FRAME_MASK) >> FRAME_SHIFT
                if memory.is_exclusive(frame) and _holds_zeros(memory, frame):
                    yield slot, entry


def _holds_zeros(memory: PhysicalMemory, frame: int) -> bool:
    return bytes(memory.page(frame)) == _ZEROS  # a copy: comparing views goes byte by byte
