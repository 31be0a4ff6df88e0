"""mseal: mappings that can be changed and taken away no more (mm/mseal.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.memory.mapping import end_of_pages
from loadstone.memory.merge import modify
from loadstone.memory.vma import SEALED

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace


def seal(space: AddressSpace, start: int, length: int) -> None:
    """Seal what is mapped in the range. Raises LinuxError: EINVAL, ENOMEM for a hole, and then nothing is sealed."""
    end = end_of_pages(start, length)
    for _ in space.vmas.gapless(start, end):
        pass
    for vma, first, last in space.vmas.parts(start, end):
        if not vma.flags & SEALED:
            modify(space, vma, first, last, vma.flags | SEALED)
