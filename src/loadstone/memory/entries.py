"""What a new leaf entry of a page table says, by what is behind the page.

The frames of anonymous memory count the entries that point at them. Page-cache frames and the zero frame do not: those
stay with the cache and the machine, and before the cache drops a page it takes it out of every address space.
"""

from __future__ import annotations

from loadstone.machine.paging import ACCESSED, COUNTED, ZERO_PAGE, permissions
from loadstone.machine.physical import FRAME_SHIFT
from loadstone.memory.vma import PROTECTION, READ, WRITE, Vma

# By what a VMA allows. Where a page is not to be written yet, what may be written may be read.
_WRITABLE = tuple(ACCESSED | permissions(prot) for prot in range(8))
_UNWRITTEN = tuple(ACCESSED | permissions(prot & ~WRITE | READ if prot & WRITE else prot) for prot in range(8))


def permitted(vma: Vma, writable: bool) -> int:
    """The bits for what the VMA allows, writable only if `writable` as well."""
    return (_WRITABLE if writable else _UNWRITTEN)[vma.flags & PROTECTION]


def anonymous_entry(vma: Vma, frame: int) -> int:
    """For a frame of the process's own; the reference it comes with is the entry's from now on."""
    return frame << FRAME_SHIFT | COUNTED | _WRITABLE[vma.flags & PROTECTION]


def file_entry(vma: Vma, frame: int, writable: bool) -> int:
    """For a frame of the page cache."""
    return frame << FRAME_SHIFT | permitted(vma, writable)


def zero_entry(vma: Vma, frame: int) -> int:
    """For the frame of zeros."""
    return frame << FRAME_SHIFT | ZERO_PAGE | _UNWRITTEN[vma.flags & PROTECTION]
