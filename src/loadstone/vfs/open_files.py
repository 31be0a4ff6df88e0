"""Open files of the kinds that file systems share: bytes at offsets, directories, and places that are not opened."""

from __future__ import annotations

from errno import EAGAIN, EBADF, EINVAL, EISDIR, ENXIO, EOPNOTSUPP, EOVERFLOW
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.vfs.file import OpenFile
from loadstone.vfs.flags import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    O_ACCMODE,
    O_APPEND,
    O_NONBLOCK,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
    S_IFDIR,
    SEEK_CUR,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.file import WouldBlock
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Location
    from loadstone.vfs.regular import RegularFile

MAX_OFFSET: Final = (1 << 63) - 1


class PathFile(OpenFile):
    """What O_PATH gives: a place, not a file."""

    __slots__ = ()

    def ready(self) -> int:
        """Nothing can be polled here (poll(2) says POLLNVAL, which the handler adds)."""
        return 0


class SeekableFile(OpenFile):
    """An open file with offsets."""

    __slots__ = ()

    @property
    def positioned(self) -> bool:
        """It has offsets."""
        return True

    def available(self) -> int | None:
        """What is left to the end of file."""
        return max(0, self.end() - self.offset)

    def seek(self, offset: int, whence: int) -> int:
        """Move the file offset; EINVAL before the start, ENXIO for data or holes past the end."""
        if whence == SEEK_SET:
            target = offset
        elif whence == SEEK_CUR:
            target = self.offset + offset
        elif whence == SEEK_END:
            target = self.end() + offset
        elif whence in (SEEK_DATA, SEEK_HOLE):
            target = self.find(offset, whence)
        else:
            raise LinuxError(EINVAL)
        if target < 0 or target > MAX_OFFSET:
            raise LinuxError(EINVAL if target < 0 else EOVERFLOW)
        self.offset = target
        return target

    def end(self) -> int:
        """Where SEEK_END starts from."""
        return self.inode.size

    def find(self, offset: int, whence: int) -> int:
        """Where SEEK_DATA or SEEK_HOLE leads: a file without holes."""
        if not 0 <= offset < self.end():
            raise LinuxError(ENXIO)
        return offset if whence == SEEK_DATA else self.end()

    def sync(self) -> None:
        """Everything is where it should be."""


class RegularOpen(SeekableFile):
    """An open regular file."""

    __slots__ = ("counts_as_writer", "file", "strips")

    def __init__(self, inode: RegularFile, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location)
        self.counts_as_writer = self.writable  # who executes the file has to wait
        if self.counts_as_writer:
            inode.take_write()
        self.strips = False  # opened by somebody without CAP_FSETID: writing takes set-ID bits away
        self.file = inode  # the same object, with its type
        inode.opened += 1

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Read through the file's one data path."""
        if self.flags & (O_PATH | O_ACCMODE) not in (O_RDONLY, O_RDWR):
            raise LinuxError(EBADF)
        if offset is not None:
            if offset < 0:
                raise LinuxError(EINVAL)
            done = self.file.read_into(pieces, offset)
        else:
            done = self.file.read_into(pieces, self.offset)
            self.offset += done
        if self.file.notes_access:  # asked here too, since most files are the host's
            self.accessed()
        return done

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Write through the file's one data path; with O_APPEND always at the end, as Linux does for pwrite too."""
        flags = self.flags
        if flags & (O_PATH | O_ACCMODE) not in (O_WRONLY, O_RDWR):
            raise LinuxError(EBADF)
        if offset is not None and offset < 0:
            raise LinuxError(EINVAL)
        if flags & O_APPEND:
            at = self.file.end()
        else:
            at = self.offset if offset is None else offset
        done = self.file.write_from(pieces, at)
        if self.strips and done:
            self.file.drop_privileges()
        if offset is None and done:
            self.offset = at + done
        return done

    def end(self) -> int:
        """The file's size, now."""
        return self.file.end()

    def available(self) -> int:
        """What is left to the end of file."""
        left = self.file.end() - self.offset
        return left if left > 0 else 0

    def find(self, offset: int, whence: int) -> int:
        """As the host's file system knows it."""
        return self.file.find(offset, whence)

    def opening(self) -> WouldBlock | None:
        """Leases that this excludes are broken; EAGAIN if that takes time, and O_NONBLOCK was asked for."""
        locks = self.file.locks
        if locks is None or locks.leases is None:
            return None
        wait = locks.leases.broken(self.flags & O_ACCMODE != O_RDONLY)
        if wait is not None and self.flags & O_NONBLOCK:
            raise LinuxError(EAGAIN, "somebody has a lease on the file")
        return wait

    def truncate(self, size: int) -> None:
        """ftruncate(2): EINVAL if not open for writing."""
        if self.flags & O_PATH:
            raise LinuxError(EBADF)
        if not self.writable or size < 0:
            raise LinuxError(EINVAL)
        self.file.truncate(size)
        if self.strips:
            self.file.drop_privileges()

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """fallocate(2): room, holes (FALLOC_FL_PUNCH_HOLE) and zeros (FALLOC_FL_ZERO_RANGE); others are EOPNOTSUPP."""
        self.demand_writable()
        if offset < 0 or length <= 0:
            raise LinuxError(EINVAL)
        keeps, what = bool(mode & FALLOC_KEEP_SIZE), mode & ~FALLOC_KEEP_SIZE
        if what not in (0, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE) or (what == FALLOC_PUNCH_HOLE and not keeps):
            raise LinuxError(EOPNOTSUPP)
        if what:
            self.file.clear(offset, length)
        if not keeps and offset + length > self.file.end():
            self.file.truncate(offset + length)

    def sync(self) -> None:
        """Dirty pages of shared mappings reach the file."""
        self.file.sync()

    def release(self) -> None:
        """One opener less."""
        self.let_execute()
        self.file.opened -= 1
        self.file.closed()

    def let_execute(self) -> None:
        """Count as a writer no more."""
        if self.counts_as_writer:
            self.counts_as_writer = False
            self.file.put_write()


class BytesOpen(SeekableFile):
    """An open file whose bytes were made when it was opened (/proc)."""

    __slots__ = ("data",)

    def __init__(self, inode: Inode, flags: int, location: Location | None, data: bytes) -> None:
        super().__init__(inode, flags, location)
        self.data = data

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Copy out of the bytes."""
        self.demand_readable()
        start = at = self.offset if offset is None else offset
        if at < 0:
            raise LinuxError(EINVAL)
        data = memoryview(self.data)
        for piece in pieces:
            part = data[at : at + len(piece)]
            piece[: len(part)] = part
            at += len(part)
            if len(part) < len(piece):
                break
        if offset is None:
            self.offset = at
        return at - start

    def end(self) -> int:
        """Bytes there are."""
        return len(self.data)


class DirectoryFile(OpenFile):
    """An open directory.

    Offsets are positions in the list taken when reading starts at 0, so they stay valid while names come and go;
    rewinding takes a new list. `.` has cookie 1 and `..` cookie 2.
    """

    __slots__ = ("names",)

    def __init__(self, inode: Inode, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location)
        self.names: list[tuple[str, int, int]] | None = None

    @property
    def positioned(self) -> bool:
        """EISDIR comes before ESPIPE."""
        return True

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """EISDIR."""
        self.demand_readable()
        raise LinuxError(EISDIR)

    def seek(self, offset: int, whence: int) -> int:
        """Go to a cookie."""
        if whence == SEEK_CUR:
            offset += self.offset
        elif whence == SEEK_END:
            # What ext4 and btrfs answer here differs; a position after all names is what a caller can use.
            offset += len(self._list()) + 2
        elif whence != SEEK_SET:
            raise LinuxError(EINVAL)
        if not 0 <= offset <= MAX_OFFSET:
            raise LinuxError(EINVAL)
        self.offset = offset
        return offset

    def next_entries(self) -> list[tuple[str, int, int, int]]:
        """All entries from the offset on, `.` and `..` first."""
        at = self.offset
        if at == 0:
            self.names = None
        names = self._list()
        parent = self.inode
        if self.location is not None:
            parent = self.location.parent.inode
        dots = [(".", self.inode.inode, S_IFDIR >> 12, 1), ("..", parent.inode, S_IFDIR >> 12, 2)]
        rest = names[at - 2 :] if at > 2 else names
        first = max(at, 2) + 1
        return dots[at:] + [(*entry, cookie) for cookie, entry in enumerate(rest, first)]

    def _list(self) -> list[tuple[str, int, int]]:
        if self.names is None:
            self.names = self.inode.entries()
        return self.names

    def sync(self) -> None:
        """Nothing to do."""
