"""Regular files: the one path that file data takes, between a host descriptor or page cache and the given memory.

Whatever the kind, the bytes are behind one host descriptor: a host file's, or an anonymous memfd's. A transfer
goes straight between that descriptor and the caller's memoryviews (`preadv`, `pwritev`), except for pages of the
range that are in the page cache: those are copied from and to their frames. Writes go to the descriptor as well as
to the frames, so only stores through shared mappings leave dirty pages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EFBIG, EINVAL, ENXIO, ETXTBSY
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import Protocol
from loadstone.vfs.file import after, total
from loadstone.vfs.flags import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, SEEK_HOLE
from loadstone.vfs.inode import Inode
from loadstone.vfs.open_files import MAX_OFFSET, RegularOpen

if TYPE_CHECKING:
    from loadstone.memory.page_cache import FilePages
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location

PAGE = 4096
IOV_MAX = 1024  # include/uapi/linux/uio.h: more pieces are EINVAL


class Frames(Protocol):
    """What is asked of physical memory here."""

    def page(self, frame: int) -> memoryview:
        """4,096 writable bytes."""

    def written(self, frame: int) -> None:
        """Somebody other than the program wrote there."""


class Cache(Protocol):
    """What is asked of the page cache here."""

    @property
    def memory(self) -> Frames:
        """The frames' memory."""

    def write_back(self, backing: RegularFile, first: int, last: int) -> None:
        """Write dirty pages to the file."""

    def truncate(self, backing: RegularFile, new_size: int) -> None:
        """Drop pages wholly past the end; zero the tail of the last one."""

    def forget(self, backing: RegularFile) -> None:
        """Drop all pages."""


class RegularFile(Inode):
    """A file with bytes at offsets. Implements `memory.backing.Backing`."""

    __slots__ = ("cache", "linkable", "opened", "pages", "write_count")

    writeback = True  # behaves as on a file system with a journal, which is told of a page's first write
    huge_aligned = False

    def __init__(
        self, cache: Cache | None, device: int, inode: int, mode: int, uid: int = 0, gid: int = 0, now_ns: int = 0
    ) -> None:
        super().__init__(device, inode, mode, uid, gid, now_ns)
        self.cache = cache
        self.pages: FilePages | None = None
        self.opened = 0  # open file descriptions
        self.linkable = False  # made without a name, and may get one
        self.write_count = 0  # i_writecount: openers for writing; negative: address spaces that execute the file

    def __del__(self) -> None:
        # Nothing maps it: a mapping would hold it. Without `pages` it was never finished: Ctrl-C came between.
        if getattr(self, "pages", None) is not None and self.cache is not None:
            try:
                if self.nlink:
                    self.sync()
                self.cache.forget(self)
            except (LinuxError, ValueError):
                pass  # the machine is being taken down, or the host's file is gone

    @property
    def write_sealed(self) -> bool:
        """Whether it may not be written any more, by whomever."""
        return False

    @property
    def forgettable(self) -> bool:
        """Not with pages in the page cache."""
        return self.pages is None

    def take_write(self) -> None:
        """Somebody writes from now on (get_write_access); ETXTBSY while it is executed."""
        if self.write_count < 0:
            raise LinuxError(ETXTBSY, "the file is a program that is running")
        self.write_count += 1

    def put_write(self) -> None:
        """One writer less."""
        self.write_count -= 1

    def demand_unwritten(self) -> None:
        """ETXTBSY while somebody has the file open for writing."""
        if self.write_count > 0:
            raise LinuxError(ETXTBSY, "the file is open for writing")

    def deny_write(self) -> None:
        """The file is executed from now on (deny_write_access); ETXTBSY while it is open for writing."""
        self.demand_unwritten()
        self.write_count -= 1

    def allow_write(self) -> None:
        """One that executes it less."""
        self.write_count += 1

    def read_fd(self) -> int:
        """The host descriptor that has the bytes."""
        raise NotImplementedError

    def write_fd(self, offset: int, length: int) -> int:
        """The host descriptor that takes bytes, `length` of them at `offset` being about to come; ENOSPC, EROFS."""
        raise NotImplementedError

    def written(self, end: int, modified: bool) -> None:
        """Bytes up to `end` were written; set size and, if `modified`, times."""
        raise NotImplementedError

    def closed(self) -> None:
        """An open file description of this file is gone."""

    def end(self) -> int:
        """The size, now."""
        return self.size

    def read_into(self, pieces: Sequence[memoryview], offset: int) -> int:
        """Read from byte `offset` on into `pieces`, in order; the number of bytes, 0 at the end of file."""
        pages = self.pages
        if pages is None or not pages.frames:
            return self._read_host(pieces, offset)
        length = total(pieces)
        frame = pages.frames.get(offset // PAGE) if len(pieces) == 1 and offset % PAGE + length <= PAGE else None
        if frame is not None and self.cache is not None:  # what a loader reads: one piece of one cached page
            length = max(min(length, self.end() - offset), 0)
            start = offset % PAGE
            pieces[0][:length] = self.cache.memory.page(frame)[start : start + length]
            return length
        return self._read_mixed(pieces, offset) if self._cached(offset, length) else self._read_host(pieces, offset)

    def write_from(self, pieces: Sequence[memoryview], offset: int) -> int:
        """Write `pieces`, in order, to byte `offset` and on; the number of bytes."""
        length = total(pieces)
        if length == 0:
            return 0
        if offset + length > MAX_OFFSET:
            raise LinuxError(EFBIG)
        done = self._write_host(pieces, offset, length)
        if self.pages is not None and self.pages.frames:
            self._write_frames(pieces, offset, done)
        self.written(offset + done, True)
        return done

    def _read_host(self, pieces: Sequence[memoryview], offset: int) -> int:
        if offset > MAX_OFFSET:
            raise LinuxError(EINVAL)
        try:
            return os.preadv(self.read_fd(), pieces[:IOV_MAX], offset)
        except OSError as error:
            raise LinuxError(error.errno or EINVAL) from None

    def _write_host(self, pieces: Sequence[memoryview], offset: int, length: int) -> int:
        fd = self.write_fd(offset, length)
        try:
            return os.pwritev(fd, pieces[:IOV_MAX], offset)
        except OSError as error:
            raise LinuxError(error.errno or EINVAL) from None

    def _cached(self, offset: int, length: int) -> bool:
        assert self.pages is not None
        frames = self.pages.frames
        first, last = offset // PAGE, (offset + length - 1) // PAGE
        if last - first > len(frames):
            return any(first <= index <= last for index in frames)
        return any(index in frames for index in range(first, last + 1))

    def _read_mixed(self, pieces: Sequence[memoryview], offset: int) -> int:
        """Runs of uncached pages come from the descriptor, cached pages from their frames."""
        assert self.pages is not None and self.cache is not None
        frames, memory = self.pages.frames, self.cache.memory
        left = min(total(pieces), self.end() - offset)
        done = 0
        rest = list(pieces)
        while left > 0:
            index, start = divmod(offset + done, PAGE)
            count = min(PAGE - start, left)
            if index in frames:
                source = memory.page(frames[index])[start : start + count]
                scatter(rest, source)
            else:
                while count < left and (offset + done + count) // PAGE not in frames:
                    count = min(count + PAGE, left)
                got = self._read_host(before(rest, count), offset + done)
                if got < count:
                    return done + got
            done += count
            left -= count
            rest = after(rest, count)
        return done

    def _write_frames(self, pieces: Sequence[memoryview], offset: int, length: int) -> None:
        """Give cached pages of the range the bytes that the descriptor got."""
        assert self.pages is not None and self.cache is not None
        frames, memory = self.pages.frames, self.cache.memory
        for piece in pieces:
            position = 0
            while position < len(piece) and length > 0:
                index, start = divmod(offset, PAGE)
                count = min(PAGE - start, len(piece) - position, length)
                frame = frames.get(index)
                if frame is not None:
                    memory.page(frame)[start : start + count] = piece[position : position + count]
                    memory.written(frame)
                position += count
                offset += count
                length -= count

    def clear(self, offset: int, length: int) -> None:
        """Make a range of the file read as zeros, and give back what held it; the size stays (fallocate(2))."""
        end = min(offset + length, self.end())
        if end <= offset:
            return
        _punch(self.write_fd(offset, 0), offset, end - offset)
        if self.pages is not None and self.cache is not None:
            frames, memory = self.pages.frames, self.cache.memory
            for index in [index for index in frames if offset // PAGE <= index < -(-end // PAGE)]:
                first, last = max(offset - index * PAGE, 0), min(end - index * PAGE, PAGE)
                memory.page(frames[index])[first:last] = bytes(last - first)
                memory.written(frames[index])
        self.written(end, True)

    def read_pages(self, index: int, target: memoryview) -> None:
        """Fill `target` from page `index` on; past the end of file with zeros. Part of `Backing`."""
        done = 0
        while done < len(target):
            got = self._read_host([target[done:]], index * PAGE + done)
            if got == 0:
                target[done:] = bytes(len(target) - done)
                return
            done += got

    def write_page(self, index: int, page: memoryview) -> None:
        """Write a dirty page back, up to the end of file. Part of `Backing`."""
        offset = index * PAGE
        count = min(PAGE, self.size - offset)
        if count > 0:
            self._write_host([page[:count]], offset, count)
            self.written(offset + count, False)

    def find(self, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE, as the file system of the descriptor knows it."""
        if not 0 <= offset < self.end():
            raise LinuxError(ENXIO)
        if self.pages is not None and self.pages.frames:  # a dirty page may fill a hole
            return offset if whence != SEEK_HOLE else self.end()
        try:
            return os.lseek(self.read_fd(), offset, whence)
        except OSError as error:
            raise LinuxError(error.errno or EINVAL) from None

    def sync(self) -> None:
        """Write dirty pages of shared mappings to the file."""
        if self.pages is not None and self.cache is not None and self.pages.dirty:
            self.cache.write_back(self, 0, self.size // PAGE)

    def cut(self, size: int) -> None:
        """Tell the page cache that the file now has `size` bytes."""
        if self.pages is not None and self.cache is not None:
            self.cache.truncate(self, size)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it; permissions have been checked."""
        return RegularOpen(self, flags, location)


def _punch(fd: int, offset: int, length: int) -> None:
    """Punch a hole into a file of the host, which Python has no call for."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_int64
    if library.fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, size(offset), size(length)):
        raise LinuxError(ctypes.get_errno() or EINVAL)


def before(pieces: Sequence[memoryview], count: int) -> list[memoryview]:
    """The first `count` bytes of the pieces."""
    taken: list[memoryview] = []
    for piece in pieces:
        if count <= 0:
            break
        taken.append(piece if len(piece) <= count else piece[:count])
        count -= len(piece)
    return taken


def scatter(pieces: Sequence[memoryview], source: memoryview) -> None:
    """Copy `source` into the pieces, in order."""
    at = 0
    for piece in pieces:
        part = source[at : at + len(piece)]
        piece[: len(part)] = part
        at += len(part)
        if at >= len(source):
            return
