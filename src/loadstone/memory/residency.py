"""Which pages are in memory (mincore), and which have to go back to their file (msync). mm/mincore.c, mm/msync.c."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.paging import COUNTED, DIRTY, FRAME_MASK, PRESENT, PROTNONE, WRITABLE, ZERO_PAGE
from loadstone.machine.physical import FRAME_SHIFT
from loadstone.memory.flags import MS_ASYNC, MS_INVALIDATE, MS_SYNC
from loadstone.memory.mapping import page_align
from loadstone.memory.shared import SharedMemory
from loadstone.memory.vma import LOCKED, PAGE, PAGE_SHIFT, SHARED, Vma
from loadstone.memory.zap import pass_dirty_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.memory.address_space import AddressSpace


def resident(space: AddressSpace, start: int, length: int) -> bytes:
    """A byte a page: 1 if it is in memory, mapped or in the page cache.

    Raises EINVAL (unaligned) and ENOMEM (a hole, or past the address space).
    """
    if start & (PAGE - 1):
        raise LinuxError(EINVAL, f"{start:#x} is not page-aligned")
    limit = space.layout.task_size
    if start + length > limit:
        raise LinuxError(ENOMEM, "past the end of the address space")
    end = start + page_align(length)
    answer = bytearray()
    for vma, first, last in space.vmas.gapless(start, end):
        answer += _resident_in(space, vma, first, last)
    return bytes(answer)


def sync(space: AddressSpace, start: int, length: int, flags: int) -> None:
    """msync: with MS_SYNC what was written through shared mappings of the range is in its file afterwards.

    Raises EINVAL, EBUSY (MS_INVALIDATE of locked pages), ENOMEM (a hole; the rest is done).
    """
    if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or (flags & MS_ASYNC and flags & MS_SYNC):
        raise LinuxError(EINVAL, f"msync knows no such combination of flags ({flags:#x})")
    if start & (PAGE - 1):
        raise LinuxError(EINVAL, f"{start:#x} is not page-aligned")
    end = start + page_align(length)
    if end >= 1 << 64:
        raise LinuxError(ENOMEM, "the range wraps around")
    mapped = 0
    for vma, first, last in space.vmas.parts(start, end):
        if flags & MS_INVALIDATE and vma.flags & LOCKED:
            raise LinuxError(EBUSY, "the range is locked")
        if flags & MS_SYNC and vma.flags & SHARED and vma.backing is not None:
            _write_back(space, vma, first, last)
        mapped += last - first
    if mapped < end - start:
        raise LinuxError(ENOMEM, "part of the range is not mapped")


def _resident_in(space: AddressSpace, vma: Vma, start: int, end: int) -> bytearray:
    """The pages of [start, end) in one VMA (kernel: do_mincore)."""
    pages = (end - start) >> PAGE_SHIFT
    if vma.name:
        return bytearray(b"\1") * pages  # a special mapping: the kernel does not say
    answer = bytearray(pages)
    if vma.backing is not None and vma.backing.pages is not None:
        first = (vma.offset + start - vma.start) >> PAGE_SHIFT
        frames = vma.backing.pages.frames
        if pages < len(frames):
            for index in range(pages):
                answer[index] = first + index in frames
        else:
            for index in frames:
                if first <= index < first + pages:
                    answer[index - first] = 1
    for address, _, entry in space.page_table.entries(start, end):
        if entry & (PRESENT | PROTNONE):
            answer[(address - start) >> PAGE_SHIFT] = 1
    return answer


def _write_back(space: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """Write the dirty pages of the range to the file; the next write to one of them faults again (page_mkclean)."""
    words = space.memory.words
    cleaned = False
    for address, slot, entry in space.page_table.entries(start, end):
        if entry & DIRTY:
            pass_dirty_on(space, vma, address, (entry & FRAME_MASK) >> 12)
            words[slot] = entry & ~(DIRTY | WRITABLE)
            cleaned = True
    if cleaned:
        space.shootdown.changed(space.page_table.root, start, end)
    first = (vma.offset + start - vma.start) >> PAGE_SHIFT
    last = (vma.offset + end - vma.start - 1) >> PAGE_SHIFT
    assert vma.backing is not None
    space.cache.write_back(vma.backing, first, last)


def with_sharing(space: AddressSpace, vma: Vma, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Address and entry of each page that [start, end) in `vma` has in its page tables, and whether nobody else does.

    Kernel: page_mapcount() == 1. For pages of a file it looks at all who map it.
    """
    memory, counts = space.memory, {}
    if vma.backing is not None:
        origin = vma.start - vma.offset
        counts = space.cache.map_counts(vma.backing, (start - origin) >> PAGE_SHIFT, (end - origin) >> PAGE_SHIFT)
    for address, _, entry in space.page_table.entries(start, end):
        frame = (entry & FRAME_MASK) >> FRAME_SHIFT
        yield address, entry, memory.is_exclusive(frame) if entry & COUNTED else counts.get(frame) == 1


def by_kind(space: AddressSpace) -> tuple[int, int, int]:
    """Resident pages: anonymous, of files, of shared memory. The zero frame and special mappings count for nothing."""
    anonymous = files = shared = 0
    for vma in space.vmas:
        for _, _, entry in space.page_table.entries(vma.start, vma.end):
            if entry & COUNTED:
                anonymous += 1
            elif not entry & ZERO_PAGE and not vma.name:
                if isinstance(vma.backing, SharedMemory):
                    shared += 1
                else:
                    files += 1
    return anonymous, files, shared
