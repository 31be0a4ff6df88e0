"""What fork and the end of a process do to every entry of every page table, as loops in machine code.

In Python such a loop takes 30 us a page table, and a process that is forked, executes a program and ends goes through
twenty of them. Their source is entries.s; a test assembles that again, and compares what the loops do with what the
Python ones do that take their place on other hosts than x86-64.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import CFUNCTYPE, c_int64, c_uint32, c_uint64
from functools import cache
from typing import Any

from loadstone.machine.executable_page import ExecutablePage
from loadstone.machine.paging import ACCESSED, COUNTED, DIRTY, FRAME_MASK, WRITABLE, ZERO_PAGE
from loadstone.machine.physical import ENTRIES, FRAME_SHIFT, PhysicalMemory

# entries.s, assembled.
_CODE = bytes.fromhex(
    """
    5331db45 31c94531 db4939d1 73524a8b 04cf4885 c0744448 0fbae034 730f4989
    c249c1e2 0c49c1ea 1842ff04 91480fba e0357203 48ffc341 89c24183 e2424183
    fa427507 47890c98 49ffc348 83e0fd4a 8904cf48 83e0df4a 8904ce49 ffc1eba9
    48c1e320 4a8d041b 5bc3cccc cccccccc 31c04531 c94939f1 73254e8b 14cf490f
    bae23473 1549c1e2 0c49c1ea 1842ff0c 92750744 89148148 ffc049ff c1ebd6c3
    """
)
_OFFSETS = {"share": 0x0, "drop": 0x70}

_SHARE = CFUNCTYPE(c_uint64, c_uint64, c_uint64, c_int64, c_uint64, c_uint64)
_DROP = CFUNCTYPE(c_int64, c_uint64, c_int64, c_uint64, c_uint64)


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


def drop(memory: PhysicalMemory, slot: int, count: int) -> list[int]:
    """Let go of what `count` entries of one page table refer to, which nobody will look at again.

    The frames that nothing refers to any more: they are the caller's to free.
    """
    code = _machine_code()
    if code is None:
        return drop_in_python(memory, slot, count)
    return code.found[: code.drop(memory.base + 8 * slot, count, memory.references_address, code.found_address)]


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


def drop_in_python(memory: PhysicalMemory, slot: int, count: int) -> list[int]:
    """`drop`, on any host."""
    frames = [(e & FRAME_MASK) >> FRAME_SHIFT for e in memory.words[slot : slot + count].tolist() if e & COUNTED]
    return [frame for frame in frames if not memory.let_go(frame)]


class _MachineCode:
    """The two functions, and the numbers that they have found."""

    def __init__(self) -> None:
        self._page = ExecutablePage(_CODE, near=0)
        self.share: Any = _SHARE(self._page.address + _OFFSETS["share"])
        self.drop: Any = _DROP(self._page.address + _OFFSETS["drop"])
        self.found = (c_uint32 * ENTRIES)()
        self.found_address = ctypes.addressof(self.found)


@cache
def _machine_code() -> _MachineCode | None:
    return _MachineCode() if os.uname().machine == "x86_64" else None
