"""The bytes of a program: for a core that looks at an instruction, and for others who may not fault anything in."""

from __future__ import annotations

from loadstone.machine.paging import FRAME_MASK, PRESENT, USER_END, PageTable
from loadstone.machine.physical import FRAME_SHIFT, FRAME_SIZE, PhysicalMemory


def code_at(memory: PhysicalMemory, table: PageTable, pc: int, size: int) -> bytes:
    """`size` bytes from `pc` on, or less: as far as pages are present. Faults nothing in."""
    parts = []
    while size > 0 and 0 <= pc < USER_END:
        entry = table.entry(pc)
        if not entry & PRESENT:
            break
        offset = pc % FRAME_SIZE
        length = min(size, FRAME_SIZE - offset)
        parts.append(bytes(memory.view((entry & FRAME_MASK) >> FRAME_SHIFT, offset, length)))
        pc += length
        size -= length
    return b"".join(parts)
