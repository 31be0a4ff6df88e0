"""Memory as an observer sees it: looking at a process, or changing it, without a fault being counted."""

from __future__ import annotations

from errno import EFAULT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.paging import FRAME_MASK, PRESENT, PROTNONE
from loadstone.memory.fault import populate_page
from loadstone.memory.vma import PAGE, PAGE_SHIFT, SHARED, WRITE

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace


def peek(space: AddressSpace, address: int, length: int) -> bytes:
    """`length` bytes at `address`: of a page that is not resident, what a read would find.

    Raises LinuxError(EFAULT) where nothing is mapped.
    """
    parts = []
    while length > 0:
        offset = address % PAGE
        count = min(length, PAGE - offset)
        parts.append(_page(space, address - offset)[offset : offset + count])
        address += count
        length -= count
    return b"".join(parts)


def poke(space: AddressSpace, address: int, data: bytes) -> None:
    """Change memory, whatever its protection; a private page becomes the process's own first.

    Raises LinuxError(EFAULT) where nothing is mapped, and in a file that is shared for reading only (as for ptrace,
    mm/gup.c: check_vma_flags), with what comes before it changed.
    """
    done = 0
    while done < len(data):
        offset = address % PAGE
        count = min(len(data) - done, PAGE - offset)
        vma = space.find(address)
        if vma is not None and vma.flags & (SHARED | WRITE) == SHARED:
            raise LinuxError(EFAULT, f"{address:#x}: the mapping is shared, and it is read-only")
        bad = populate_page(space, address, WRITE)
        if bad is not None:
            raise LinuxError(EFAULT, f"{address:#x}: {bad.why}")
        frame = (space.page_table.entry(address) & FRAME_MASK) >> PAGE_SHIFT
        space.memory.view(frame, offset, count)[:] = data[done : done + count]
        space.memory.written(frame)
        address += count
        done += count


def _page(space: AddressSpace, page: int) -> bytes:
    """The contents of one page."""
    entry = space.page_table.entry(page)
    if entry & (PRESENT | PROTNONE):
        return bytes(space.memory.page((entry & FRAME_MASK) >> PAGE_SHIFT))
    vma = space.find(page)
    if vma is None:
        raise LinuxError(EFAULT, f"nothing is mapped at {page:#x}")
    content = bytearray(PAGE)
    if vma.backing is not None:
        index = (vma.offset + page - vma.start) >> PAGE_SHIFT
        cached = vma.backing.pages.frames.get(index) if vma.backing.pages is not None else None
        if cached is not None:
            return bytes(space.memory.page(cached))
        vma.backing.read_pages(index, memoryview(content))
    return bytes(content)
