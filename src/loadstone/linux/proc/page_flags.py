"""/proc/kpageflags: a word for each frame, with what it is used for. Source: fs/proc/page.c, stable_page_flags()."""

from __future__ import annotations

from array import array
from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.proc.files import PROC_DEVICE
from loadstone.machine.paging import DIRTY, FRAME_MASK
from loadstone.machine.physical import ANONYMOUS, CACHE, FRAME_SHIFT, FREE, TABLE, ZERO
from loadstone.memory.vma import SHARED
from loadstone.vfs.file import total
from loadstone.vfs.flags import S_IFREG
from loadstone.vfs.inode import Inode
from loadstone.vfs.open_files import SeekableFile
from loadstone.vfs.regular import scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.kernel.kernel import Kernel
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location

# include/uapi/linux/kernel-page-flags.h
_UPTODATE, _DIRTY, _LRU, _BUDDY, _MMAP, _ANON, _SWAPBACKED = (1 << bit for bit in (3, 4, 5, 10, 11, 12, 14))
_ZERO_PAGE, _PGTABLE, _RESERVED = (1 << bit for bit in (24, 26, 32))
_BY_OWNER = {
    FREE: _BUDDY,
    TABLE: _PGTABLE,
    ANONYMOUS: _UPTODATE | _LRU | _MMAP | _ANON | _SWAPBACKED,
    CACHE: _UPTODATE | _LRU,
    ZERO: _ZERO_PAGE,
}
_WORD = 8
_MOST = 1 << 15  # frames that are looked up at once


class PageFlagsFile(Inode):
    """/proc/kpageflags. For root alone."""

    __slots__ = ("kernel",)

    def __init__(self, kernel: Kernel, number: int, now_ns: int) -> None:
        super().__init__(PROC_DEVICE, number, S_IFREG | 0o400, now_ns=now_ns)
        self.kernel = kernel

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it."""
        return PageFlagsOpen(self, flags, location, self.kernel)


class PageFlagsOpen(SeekableFile):
    """The open file: the word of a frame is at its number times 8."""

    __slots__ = ("kernel",)

    def __init__(self, inode: Inode, flags: int, location: Location | None, kernel: Kernel) -> None:
        super().__init__(inode, flags, location)
        self.kernel = kernel

    def end(self) -> int:
        """After the last frame."""
        return self.kernel.memory.frames * _WORD

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """The words; EINVAL for a part of one."""
        self.demand_readable()
        start, length = self.offset if offset is None else offset, total(pieces)
        if start % _WORD or length % _WORD:
            raise LinuxError(EINVAL, "kpageflags is read in words of 8 bytes")
        count = min(length, max(0, self.end() - start), _MOST * _WORD) // _WORD
        memory, dirty, first = self.kernel.memory, _dirty_frames(self.kernel), start // _WORD
        words = array("Q", bytes(_WORD * count))
        for frame in range(first, first + count):
            word = _BY_OWNER.get(memory.owner(frame), _RESERVED)
            if memory.owner(frame) == CACHE:
                word |= (_MMAP if memory.references(frame) > 1 else 0) | (_DIRTY if frame in dirty else 0)
            words[frame - first] = word
        scatter(pieces, memoryview(words).cast("B"))
        if offset is None:
            self.offset = start + _WORD * count
        return _WORD * count


def _dirty_frames(kernel: Kernel) -> set[int]:
    """The frames of mapped files that were written and are not yet in their file."""
    found: set[int] = set()
    for process in kernel.processes.values():
        if process.status is not None:
            continue
        for area in process.space.vmas:
            backing = area.backing
            if not area.flags & SHARED or backing is None or backing.pages is None:
                continue
            frames = backing.pages.frames
            found.update(frames[index] for index in backing.pages.dirty if index in frames)
            for _, _, entry in process.space.page_table.entries(area.start, area.end):
                if entry & DIRTY:
                    found.add((entry & FRAME_MASK) >> FRAME_SHIFT)
    return found
