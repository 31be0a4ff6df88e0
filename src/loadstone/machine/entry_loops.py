"""What fork and the end of a process do to every entry of every page table, as loops in machine code.

In Python such a loop takes 30 us a page table, and a process that is forked, executes a program and ends goes through
twenty of them. Their source is entries.s; a test assembles that again, and compares what the loops do with what the
Python ones do that take their place on other hosts than x86-64.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Sequence
from ctypes import CFUNCTYPE, c_int64, c_uint32, c_uint64
from functools import cache
from typing import Any

from loadstone.machine.executable_page import ExecutablePage
from loadstone.machine.paging import ACCESSED, COUNTED, DIRTY, FRAME_MASK, WRITABLE, ZERO_PAGE
from loadstone.machine.physical import ANONYMOUS, ENTRIES, FRAME_SHIFT, FREE, PhysicalMemory

# entries.s, assembled.
_CODE = bytes.fromhex(
    """
    5331db45 31c94531 db4939d1 73524a8b 04cf4885 c0744448 0fbae034 730f4989
    c249c1e2 0c49c1ea 1842ff04 91480fba e0357203 48ffc341 89c24183 e2424183
    fa427507 47890c98 49ffc348 83e0fd4a 8904cf48 83e0df4a 8904ce49 ffc1eba9
    48c1e320 4a8d041b 5bc3cccc cccccccc 53554154 41554889 fb4889f5 4989d449
    89cd31d2 4c39ca73 584d8b14 d44a8b04 d34883c8 024a8904 d34889c6 48c1e60c
    48c1ee18 ff4cb500 498b3cd0 4989f249 31fa49c1 e20c4c31 d04883e0 df4d8b54
    d5004a89 04d348c1 e60c4801 de48c1e7 0c4801df b9000200 00f348a5 48ffc2eb
    a3415d41 5c5d5bc3 cccccccc cccccccc 535531c0 bd000200 0031db48 39f37341
    4c8b14df 48ffc349 0fbae234 73ed49c1 e20c49c1 ea1842ff 0c9275df 42803c11
    03751543 803c1000 750e42c6 04110045 89148148 ffc0ebc3 48ffcd45 8914a9eb
    bab9 00020000 29e948c1 e1204809 c85d5bc3
    """
)
_OFFSETS = {"share": 0x0, "part": 0x70, "drop": 0xF0}

_SHARE = CFUNCTYPE(c_uint64, c_uint64, c_uint64, c_int64, c_uint64, c_uint64)
_PART = CFUNCTYPE(None, c_uint64, c_uint64, c_uint64, c_uint64, c_uint64, c_int64)
_DROP = CFUNCTYPE(c_uint64, c_uint64, c_int64, c_uint64, c_uint64, c_uint64, c_uint64)


def share(memory: PhysicalMemory, slot: int, target: int, count: int) -> tuple[list[int], int]:
    """Copy `count` entries of one page table, from word `slot` on, to those from `target` on, for a forked child.

    Neither side may write any more, and the child's are not marked as accessed; what they refer to is held. The numbers
    of those that could be written and were, and how many resident pages there are (all but the zero page's).
    """
    code = _machine_code()
    if code is None:
        return share_in_python(memory, slot, target, count)
    base = memory.base
    found = code.share(base + 8 * slot, base + 8 * target, count, memory.references_address, code.found_address)
    return code.found[: found & 0xFFFF_FFFF], found >> 32


def part(memory: PhysicalMemory, slots: Sequence[int], targets: Sequence[int]) -> None:
    """Undo the sharing of entries, in `slots` of a parent's and `targets` of its child's: both have a page of their own
    then, and may write. Raises OutOfFrames, with nothing changed.
    """
    code = _machine_code()
    copies = memory.allocate_old(len(slots))
    if code is None:
        part_in_python(memory, slots, targets, copies)
        return
    arrays = [array("Q", numbers) for numbers in (slots, targets, copies)]
    code.part(memory.base, memory.references_address, *[numbers.buffer_info()[0] for numbers in arrays], len(copies))


def drop(memory: PhysicalMemory, slot: int, count: int) -> list[int]:
    """Let go of what `count` entries of one page table refer to, which nobody will look at again.

    Of the frames that nothing refers to any more, those of anonymous memory without code are for `memory.take_back`:
    they are returned, their owner is FREE. The others are free.
    """
    code = _machine_code()
    if code is None:
        own, others = drop_in_python(memory, slot, count)
    else:
        found = code.drop(
            memory.base + 8 * slot,
            count,
            memory.references_address,
            memory.owners_address,
            memory.executed_address,
            code.found_address,
        )
        own, others = code.found[: found & 0xFFFF_FFFF], code.found[ENTRIES - (found >> 32) :]
    if others:
        memory.free_all(others[::-1])
    return own


def share_in_python(memory: PhysicalMemory, slot: int, target: int, count: int) -> tuple[list[int], int]:
    """`share`, on any host."""
    words = memory.words
    written: list[int] = []
    resident = 0
    for number, entry in enumerate(words[slot : slot + count].tolist()):
        if not entry:
            continue
        if entry & COUNTED:
            memory.hold((entry & FRAME_MASK) >> FRAME_SHIFT)
        if not entry & ZERO_PAGE:
            resident += 1
        if entry & (WRITABLE | DIRTY) == WRITABLE | DIRTY:
            written.append(number)
        words[slot + number] = entry & ~WRITABLE
        words[target + number] = entry & ~(WRITABLE | ACCESSED)
    return written, resident


def part_in_python(memory: PhysicalMemory, slots: Sequence[int], targets: Sequence[int], copies: Sequence[int]) -> None:
    """`part` with `copies` for the child, on any host."""
    words = memory.words
    for slot, target, copy in zip(slots, targets, copies, strict=True):
        entry = words[slot] | WRITABLE
        frame = (entry & FRAME_MASK) >> FRAME_SHIFT
        words[slot] = entry
        words[target] = entry & ~(FRAME_MASK | ACCESSED) | copy << FRAME_SHIFT
        memory.page(copy)[:] = memory.page(frame)
        memory.let_go(frame)


def drop_in_python(memory: PhysicalMemory, slot: int, count: int) -> tuple[list[int], list[int]]:
    """`drop` on any host, with the others too, which are still to be freed: the last one first."""
    entries = memory.words[slot : slot + count].tolist()
    frames = [(entry & FRAME_MASK) >> FRAME_SHIFT for entry in entries if entry & COUNTED]
    gone = [frame for frame in frames if not memory.let_go(frame)]
    own = [frame for frame in gone if memory.owner(frame) == ANONYMOUS and not memory.executed[frame]]
    for frame in own:
        memory.disown(frame)
    return own, [frame for frame in reversed(gone) if memory.owner(frame) != FREE]


class _MachineCode:
    """The functions, and the numbers that they have found."""

    def __init__(self) -> None:
        self._page = ExecutablePage(_CODE, near=0)
        self.share: Any = _SHARE(self._page.address + _OFFSETS["share"])
        self.part: Any = _PART(self._page.address + _OFFSETS["part"])
        self.drop: Any = _DROP(self._page.address + _OFFSETS["drop"])
        self.found = (c_uint32 * ENTRIES)()
        self.found_address = ctypes.addressof(self.found)


@cache
def _machine_code() -> _MachineCode | None:
    return _MachineCode() if os.uname().machine == "x86_64" else None
