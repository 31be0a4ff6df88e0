"""The page cache: file pages in frames, one frame a page, shared by every mapping of the file.

It is also a model. Which faults are *major* is decided here and not by the host's disk: with a `warm` cache every page
of a file counts as being in memory already; with a `cold` one a page is there once it was read, by a fault or by the
read-ahead around it (mm/filemap.c: do_sync_mmap_readahead).
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from loadstone.errors import OutOfFrames
from loadstone.machine.paging import COUNTED, FRAME_MASK
from loadstone.machine.physical import CACHE, FRAME_SHIFT, PhysicalMemory
from loadstone.memory.vma import PAGE, PAGE_SHIFT
from loadstone.memory.zap import zap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.backing import Backing
    from loadstone.memory.vma import Vma

READ_AHEAD_PAGES = 32  # VM_READAHEAD_PAGES: 128 KiB
_MOST_WINDOWS = 32  # of one file: a library has a handful


class FilePages:
    """The pages of one file that are in memory (the kernel's address_space of an inode).

    Attributes:
        frames: page index -> frame, which is the cache's as long as it is in here. Only the cache changes it.
        dirty: indices of pages that were written through a mapping and not yet written back.
        generation: how often a page came or went.
    """

    __slots__ = ("_windows", "dirty", "frames", "generation")

    def __init__(self) -> None:
        self.frames: dict[int, int] = {}
        self.dirty: set[int] = set()
        self.generation = 0
        self._windows: dict[tuple[int, int, int], tuple[memoryview, int]] = {}  # until a page comes or goes

    def window(self, first: int, last: int, bits: int) -> tuple[memoryview, int]:
        """The page-table entries that map pages first..last with `bits`, 0 where one is not cached; how many are not 0.

        They are made once for all processes that map the same part of a program or library.
        """
        key = (first, last, bits)
        found = self._windows.get(key)
        if found is None:
            frames = list(map(self.frames.get, range(first, last + 1)))
            entries = array("Q", [0 if frame is None else frame << FRAME_SHIFT | bits for frame in frames])
            found = memoryview(entries), len(frames) - frames.count(None)
            if len(self._windows) >= _MOST_WINDOWS:
                self._windows.clear()
            self._windows[key] = found
        return found

    def changed(self) -> None:
        """A page came or went."""
        self.generation += 1
        self._windows.clear()


class PageCache:
    """The page cache of a machine.

    Attributes:
        memory: where the frames are.
        warm: whether file pages count as read before the program starts.
        spaces: the address spaces that may map files; they register themselves.
    """

    def __init__(self, memory: PhysicalMemory, *, warm: bool = True) -> None:
        self.memory = memory
        self.warm = warm
        self.spaces: list[AddressSpace] = []

    def lookup(self, backing: Backing, index: int) -> int:
        """The frame of page `index`, or -1."""
        return backing.pages.frames.get(index, -1) if backing.pages is not None else -1

    def is_cached(self, backing: Backing, index: int) -> bool:
        """Whether the page counts as being in memory, so that a fault on it is minor."""
        return (self.warm and backing.writeback) or self.lookup(backing, index) >= 0

    def bring(self, backing: Backing, first: int, last: int) -> dict[int, int]:
        """Have pages first..last (inclusive) of the file in frames; what is missing is read, in runs. Returns `frames`.

        Pages past the end of file are the caller's mistake: they come as zeros.
        """
        pages = backing.pages
        if pages is None:
            pages = backing.pages = FilePages()
        frames = pages.frames
        index = first
        while index <= last:
            if index in frames:
                index += 1
                continue
            end = index + 1
            while end <= last and end not in frames:
                end += 1
            self._read(backing, pages, index, end - index)
            index = end
        return frames

    def read_ahead(self, backing: Backing, index: int) -> None:
        """Read what the kernel reads around a page that a fault missed: 32 pages, centred, within the file."""
        first = max(0, index - READ_AHEAD_PAGES // 2)
        last = min(first + READ_AHEAD_PAGES, -(-backing.size // PAGE)) - 1
        self.bring(backing, min(first, index), max(last, index))

    def write_back(self, backing: Backing, first: int, last: int) -> None:
        """Write the dirty pages among first..last (inclusive) to the file."""
        pages = backing.pages
        if pages is None or not pages.dirty:
            return
        for index in sorted(i for i in pages.dirty if first <= i <= last):
            pages.dirty.discard(index)
            if index in pages.frames:
                backing.write_page(index, self.memory.page(pages.frames[index]))

    def truncate(self, backing: Backing, new_size: int) -> None:
        """The file is now `new_size` bytes long: unmap and drop what lies past that, zero the rest of the last page."""
        pages = backing.pages
        if pages is None:
            return
        keep = -(-new_size // PAGE)
        self._unmap(backing, keep)
        for index in [i for i in pages.frames if i >= keep]:
            self._drop(pages, index)
        if new_size % PAGE and keep - 1 in pages.frames:
            tail = new_size % PAGE
            self.memory.view(pages.frames[keep - 1], tail, PAGE - tail)[:] = bytes(PAGE - tail)
            self.memory.written(pages.frames[keep - 1])

    def punch(self, backing: Backing, first: int, end: int) -> None:
        """Unmap and drop pages first..end - 1: a hole in a file that is nowhere but here."""
        pages = backing.pages
        if pages is None:
            return
        self._unmap(backing, first, end)
        for index in [i for i in pages.frames if first <= i < end]:
            self._drop(pages, index)

    def forget(self, backing: Backing) -> None:
        """Drop every page of the file; no mapping of it may be left."""
        pages = backing.pages
        if pages is not None:
            for index in list(pages.frames):
                self._drop(pages, index)

    def map_counts(self, backing: Backing, first: int, end: int) -> dict[int, int]:
        """Frame -> how many PTEs point at it, of those of pages first..end - 1 that any does (page_mapcount)."""
        counts: dict[int, int] = {}
        for space, _, low, high in self._mappings(backing, first, end):
            for _, _, entry in space.page_table.entries(low, high):
                if not entry & COUNTED:
                    frame = (entry & FRAME_MASK) >> FRAME_SHIFT
                    counts[frame] = counts.get(frame, 0) + 1
        return counts

    def _read(self, backing: Backing, pages: FilePages, index: int, count: int) -> None:
        """Read `count` pages that are missing, into consecutive frames if there are any."""
        memory, frames = self.memory, pages.frames
        pages.changed()
        try:
            first = memory.allocate_run(count, CACHE)
        except OutOfFrames:
            for each in range(index, index + count):
                frames[each] = self._filled(backing, each, memory.allocate(CACHE), 1)
            return
        self._filled(backing, index, first, count)
        for each in range(count):
            frames[index + each] = first + each

    def _filled(self, backing: Backing, index: int, first: int, count: int) -> int:
        """`first`, the first of `count` new frames, once they hold the file's pages; they are free if reading fails."""
        memory = self.memory
        try:
            backing.read_pages(index, memory.view(first, 0, count << PAGE_SHIFT))
        except BaseException:
            for frame in range(first, first + count):
                memory.release(frame)
            raise
        return first

    def _drop(self, pages: FilePages, index: int) -> None:
        self.memory.release(pages.frames.pop(index))
        pages.dirty.discard(index)
        pages.changed()

    def _unmap(self, backing: Backing, first: int, end: int = 1 << 52) -> None:
        """Take pages first..end - 1 out of every address space, private copies too (unmap_mapping_range)."""
        for space, vma, low, high in self._mappings(backing, first, end):
            zap(space, vma, low, high)

    def _mappings(self, backing: Backing, first: int, end: int) -> Iterator[tuple[AddressSpace, Vma, int, int]]:
        """Where pages first..end - 1 are mapped: address space, VMA, range of addresses (kernel: mm/rmap.c)."""
        for space in self.spaces:
            for vma in space.vmas:
                if vma.backing is backing:
                    origin = vma.start - vma.offset
                    low = max(vma.start, origin + (first << PAGE_SHIFT))
                    high = min(vma.end, origin + (end << PAGE_SHIFT))
                    if low < high:
                        yield space, vma, low, high
