"""remap_file_pages (mm/mmap.c): pages of a file in an order of their own; since Linux 4.0 by further mappings."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.flags import MAP_FIXED, MAP_LOCKED, MAP_NONBLOCK, MAP_POPULATE, MAP_SHARED
from loadstone.memory.mapping import FileAccess
from loadstone.memory.shared import SharedMemory
from loadstone.memory.vma import LOCKED, MAYEXEC, PAGE_MASK, PAGE_SHIFT, PROTECTION, SHARED, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

_ALL_BITS = (1 << 64) - 1


def remap_pages(space: AddressSpace, start: int, size: int, prot: int, page_offset: int, flags: int) -> None:
    """Let [start, start + size) of a shared mapping show the file from page `page_offset` on, its protection kept.

    Raises EINVAL for anything but a part of one shared mapping (or of neighbours alike), and what mmap raises.
    """
    start &= PAGE_MASK
    size &= PAGE_MASK
    if prot or not start < start + size <= _ALL_BITS or page_offset + (size >> PAGE_SHIFT) > _ALL_BITS:
        raise LinuxError(EINVAL, "remap_file_pages takes no protection, and a range of pages")
    vma = space.vmas.find(start)
    if vma is None or not vma.flags & SHARED or not _covers(space, vma, start, start + size):
        raise LinuxError(EINVAL, f"{start:#x} is not in a shared mapping of that length")
    flags = flags & MAP_NONBLOCK | MAP_SHARED | MAP_FIXED | MAP_POPULATE | (MAP_LOCKED if vma.flags & LOCKED else 0)
    access = FileAccess(execute=bool(vma.flags & MAYEXEC))
    backing = vma.backing
    if isinstance(backing, SharedMemory):
        backing.use()  # its pages outlive the mapping that is replaced
    try:
        space.map(
            start, size, vma.flags & PROTECTION, flags, backing, page_offset << PAGE_SHIFT,
            path=vma.path, file=vma.file, access=access,
        )  # fmt: skip
    finally:
        if isinstance(backing, SharedMemory):
            backing.drop()


def _covers(space: AddressSpace, vma: Vma, start: int, end: int) -> bool:
    """Whether [start, end) is mapped without a hole by `vma` and others of the same file and flags."""
    last_end = start
    for other in space.vmas.overlapping(start, end):
        if max(other.start, start) != last_end or other.file is not vma.file or other.flags != vma.flags:
            return False
        last_end = other.end
    return last_end >= end
