"""mseal: mappings that can be changed and taken away no more (mm/mseal.c)."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.mapping import page_align
from loadstone.memory.merge import modify
from loadstone.memory.vma import PAGE, SEALED

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace


def seal(space: AddressSpace, start: int, length: int) -> None:
    """Seal what is mapped in the range. Raises LinuxError: EINVAL, ENOMEM for a hole, and then nothing is sealed."""
    end = start + page_align(length)
    if start & (PAGE - 1) or end >= 1 << 64 or (length and end == start):
        raise LinuxError(EINVAL, f"{start:#x} + {length:#x} is no range of whole pages")
    for _ in space.vmas.gapless(start, end):
        pass
    for vma, first, last in space.vmas.parts(start, end):
        if not vma.flags & SEALED:
            modify(space, vma, first, last, vma.flags | SEALED)
