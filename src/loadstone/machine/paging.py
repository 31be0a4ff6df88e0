"""Page tables in the x86-64 four-level format, in simulated physical memory.

A virtual address is five fields; each of the first four picks one of 512 entries of a table that fills a frame:

    63      48 47    39 38    30 29    21 20    12 11       0
    | sign    | PML4   | PDPT   | PD     | PT     | offset   |

An entry, at every level (Intel SDM vol. 3, 4.5):

    63 62      52 51                    12 11   9 8 7 6 5 4 3 2 1 0
    |NX| software | frame number          | soft |G|S|D|A| | |U|W|P|

Of the software's bits those from 52 on are ours; there is no memory so large that a frame number reaches byte 6.

A table frame exists once something below it is mapped. An address space starts as one frame: the PML4, its page
directory. Its last entry, above everything a program can name, is the machine's own half, shared by all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadstone.errors import OutOfFrames
from loadstone.lean import NamedTuple
from loadstone.machine.physical import ENTRIES, TABLE, PhysicalMemory

PRESENT = 1
WRITABLE = 2
USER = 4
ACCESSED = 0x20
DIRTY = 0x40
PROTNONE = 0x100  # software: PRESENT is clear, but the frame is kept, which nobody may touch (kernel: _PAGE_PROTNONE)
COUNTED = 1 << 52  # software: a leaf entry that holds a reference to its frame; only anonymous memory's do
ZERO_PAGE = 1 << 53  # software: the frame is that of zeros (the kernel's _PAGE_SPECIAL)
AHEAD = 0x400  # software: filled beside a page that faulted; nobody may ever have touched it
NO_EXECUTE = 1 << 63
FRAME_MASK = 0x000F_FFFF_FFFF_F000

KERNEL_SLOT = 511
KERNEL_BASE = 0xFFFF_FF80_0000_0000  # the lowest address that this entry of the page directory maps
USER_END = 1 << 47  # above what a program can name
LEVEL_NAMES = ("PML4", "PDPT", "PD", "PT")
_SHIFTS = (39, 30, 21, 12)
_REGION_SHIFT = 21  # a page table maps 2 MiB
_TABLE_BITS = PRESENT | WRITABLE | USER | ACCESSED | DIRTY  # as the kernel's _PAGE_TABLE

# PTE bits for each of the eight protections READ=1 | WRITE=2 | EXEC=4. x86 has no write-only or execute-only page.
_PERMISSIONS = tuple(
    (PRESENT | USER | (WRITABLE if prot & 2 else 0) | (0 if prot & 4 else NO_EXECUTE)) if prot else (PROTNONE | USER)
    for prot in range(8)
)


def permissions(prot: int) -> int:
    """PTE bits for a protection of READ=1 | WRITE=2 | EXEC=4; with none of them the page is not PRESENT."""
    return _PERMISSIONS[prot & 7]


def frames_of(entries: Sequence[int]) -> list[int]:
    """The frames that entries point at."""
    return [(entry & FRAME_MASK) >> 12 for entry in entries]


class Step(NamedTuple):
    """One level of a walk, for showing: which table, which entry in it, what it says."""

    level: str
    table: int  # frame
    number: int  # of the entry, 0 to 511
    entry: int


class PageTable:
    """The page tables of one address space. `root` is the frame of the page directory (what CR3 points at)."""

    __slots__ = ("_leaves", "_memory", "_root_word", "_tables", "_words", "root")

    def __init__(self, memory: PhysicalMemory, kernel_entry: int = 0) -> None:
        self._memory = memory
        self._words = memory.words
        self.root = memory.allocate(TABLE)
        self._root_word = self.root * ENTRIES
        # By level, from the page tables up: number of what it maps, 2 MiB, 1 GiB or 512 GiB -> word index of the table.
        self._tables: tuple[dict[int, int], ...] = ({}, {}, {})
        self._leaves = self._tables[0]
        if kernel_entry:
            self._words[self._root_word + KERNEL_SLOT] = kernel_entry

    @classmethod
    def of_root(cls, memory: PhysicalMemory, root: int, start: int, end: int) -> PageTable:
        """The page tables of [start, end) that exist under the page directory in frame `root`, to look into."""
        words = memory.words
        found = [(0, root)]
        for shift in _SHIFTS[:3]:
            first, last = start >> shift, (end - 1) >> shift
            found = [
                (number, (entry & FRAME_MASK) >> 12)
                for above, frame in found
                for number in range(max(first, above * ENTRIES), min(last, above * ENTRIES + ENTRIES - 1) + 1)
                if (entry := words[frame * ENTRIES + number % ENTRIES])
            ]
        table = cls.__new__(cls)
        table._memory, table._words = memory, words
        table.root, table._root_word = root, root * ENTRIES
        table._leaves = {region: frame * ENTRIES for region, frame in found}
        table._tables = (table._leaves, {}, {})
        return table

    def find(self, address: int) -> int:
        """The index in `PhysicalMemory.words` of the leaf entry of `address`; -1 where a table is missing."""
        leaf = self._leaves.get(address >> 21)
        return leaf + (address >> 12 & 511) if leaf is not None else -1

    def entry(self, address: int) -> int:
        """The leaf entry of `address`, 0 if there is none."""
        slot = self.find(address)
        return self._words[slot] if slot >= 0 else 0

    def slot(self, address: int) -> int:
        """As `find`, with the missing tables made. Raises OutOfFrames."""
        leaf = self._leaves.get(address >> 21)
        if leaf is None:
            try:
                leaf = self._make(0, address >> 21)
            except OutOfFrames:
                self._free_branch(address)
                raise
        return leaf + (address >> 12 & 511)

    def entries(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(address, slot, entry) of every leaf entry in [start, end) that is not 0; absent tables cost nothing."""
        for base, first, entries in self.runs(start, end):
            for index, entry in enumerate(entries):
                if entry:
                    yield base + (index << 12), first + index, entry

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int, list[int]]]:
        """(first address, first slot, entries) of the part of every page table that maps some of [start, end)."""
        words = self._words
        for first, slot, count in self.spans(start, end):
            yield first, slot, words[slot : slot + count].tolist()

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """As `runs`, with how many entries there are instead of them."""
        for region, leaf in self._leaf_tables(start, end):
            first = max(start, region << 21)
            last = min(end, region + 1 << 21) - 1
            number = first >> 12 & 511
            yield first, leaf + number, (last >> 12 & 511) + 1 - number

    def walk(self, address: int) -> list[Step]:
        """Each level from the page directory down, ending with the first entry that is 0, or with the leaf."""
        steps = []
        table = self.root
        for level, shift in zip(LEVEL_NAMES, _SHIFTS, strict=True):
            index = address >> shift & 511
            entry = self._words[table * ENTRIES + index]
            steps.append(Step(level, table, index, entry))
            if not entry:
                break
            table = (entry & FRAME_MASK) >> 12
        return steps

    def prune(self, start: int, end: int) -> None:
        """Free the page tables of [start, end) that hold no entry any more, and what is empty above them then."""
        for region, leaf in self._leaf_tables(start, end):
            if self._memory.holds_zeros(leaf, ENTRIES):
                self._free_branch(region << _REGION_SHIFT)

    def table_frames(self) -> int:
        """How many frames the tables take, the page directory included."""
        return 1 + sum(map(len, self._tables))

    def release(self) -> None:
        """Free every table and the page directory. What the leaf entries pointed at is the caller's to release."""
        slots = [slot for tables in self._tables for _, slot in sorted(tables.items())]
        self._memory.free_tables([slot // ENTRIES for slot in slots] + [self.root])
        for tables in self._tables:
            tables.clear()

    def _make(self, level: int, number: int) -> int:
        """A table that is missing, and those above it that are; its word index. Raises OutOfFrames."""
        if level == len(_SHIFTS) - 2:
            above = self._root_word
        else:
            above = self._tables[level + 1].get(number >> 9, -1)
            if above < 0:
                above = self._make(level + 1, number >> 9)
        frame = self._memory.allocate(TABLE)
        self._words[above + (number & 511)] = frame << 12 | _TABLE_BITS
        table = self._tables[level][number] = frame * ENTRIES
        return table

    def _leaf_tables(self, start: int, end: int) -> list[tuple[int, int]]:
        """(2 MiB region, word index of its page table) of the page tables that exist for [start, end), ascending."""
        first, last = start >> 21, (end - 1) >> 21
        leaves = self._leaves
        if first == last:
            return [(first, leaves[first])] if first in leaves else []
        if last - first < len(leaves):
            return [(region, leaves[region]) for region in range(first, last + 1) if region in leaves]
        return sorted(item for item in leaves.items() if first <= item[0] <= last)

    def _free_branch(self, address: int) -> None:
        """Free the page table of `address`, if it is empty or missing, and the tables above that are empty then."""
        for level, tables in enumerate(self._tables):
            number = address >> _REGION_SHIFT + 9 * level
            table = tables.get(number)
            if table is None:
                continue
            if not self._memory.holds_zeros(table, ENTRIES):
                return
            above = self._root_word if level == 2 else self._tables[level + 1][number >> 9]
            self._words[above + (number & 511)] = 0
            del tables[number]
            self._memory.release(table // ENTRIES)
