"""Many page-table entries at once.

Most of what an entry says besides its frame is in two of its eight bytes: in byte 0 what a CPU looks at and sets, in
byte 6 what is the software's own. That byte of many entries, taken out as one string, is tested and changed with
`bytes.translate`, `find` and `count`: a page table takes a microsecond, where a loop over its entries takes thirty.
"""

from __future__ import annotations

from itertools import compress

from loadstone.machine.paging import COUNTED, FRAME_MASK, USER_END, ZERO_PAGE, PageTable
from loadstone.machine.physical import FRAME_SHIFT, PhysicalMemory

FLAGS, TAGS = 0, 6  # the numbers of the bytes
_ZERO_TAG = ZERO_PAGE >> 8 * TAGS


def clearing(bits: int) -> bytes:
    """What `bytes.translate` needs to clear `bits`."""
    return bytes(byte & ~bits for byte in range(256))


def marking(bits: int) -> bytes:
    """What `bytes.translate` needs to make the bytes that have all of `bits` 1, and the others 0."""
    return bytes(byte & bits == bits for byte in range(256))


MARK_COUNTED = marking(COUNTED >> 8 * TAGS)


def resident(flags: bytes, tags: bytes) -> int:
    """How many entries are resident pages: those that are there, but for the zero page's."""
    return len(flags) - flags.count(0) - tags.count(_ZERO_TAG)


def marked(memory: PhysicalMemory, slot: int, marks: bytes) -> list[int]:
    """Those entries from word `slot` on for which `marks` has a 1."""
    first = marks.find(1)
    if first < 0:
        return []
    end = marks.rfind(1) + 1
    return list(compress(memory.words[slot + first : slot + end].tolist(), marks[first:end]))


def positions(marks: bytes, most: int) -> list[int]:
    """The places of the first `most` 1s."""
    found: list[int] = []
    place = -1
    while len(found) < most and (place := marks.find(1, place + 1)) >= 0:
        found.append(place)
    return found


def frames_of(entries: list[int]) -> list[int]:
    """The frames that entries point at."""
    return [(entry & FRAME_MASK) >> FRAME_SHIFT for entry in entries]


def all_counted(memory: PhysicalMemory, table: PageTable) -> list[int]:
    """The entries of the program's half of an address space that hold a reference to their frame, ascending."""
    found: list[int] = []
    for _, slot, count in table.spans(0, USER_END):
        found += marked(memory, slot, memory.column(slot, count, TAGS).translate(MARK_COUNTED))
    return found
