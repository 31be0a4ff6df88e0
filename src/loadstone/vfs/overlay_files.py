"""The files of an overlay that are no directories.

A regular file's contents are copied up, into a memfd, when it is first written; the inode object stays the same, so
what is mapped, open and named goes on being one file.
"""

from __future__ import annotations

from errno import EACCES, EFBIG, EINVAL, ENOSPC, ENXIO
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.file import total
from loadstone.vfs.flags import S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFSOCK
from loadstone.vfs.open_files import MAX_OFFSET
from loadstone.vfs.overlaid import Overlaid
from loadstone.vfs.regular import RegularFile, before
from loadstone.vfs.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.host import HostNode
    from loadstone.vfs.location import Location
    from loadstone.vfs.overlay import Overlay
    from loadstone.vfs.pipe import Pipe


class OverlayFile(RegularFile, Overlaid):
    """A regular file: the host's until it is written, then its own."""

    __slots__ = ("changed", "fs", "lower", "store")

    def __init__(self, fs: Overlay, lower: HostNode | None, mode: int) -> None:
        RegularFile.__init__(self, fs.cache, 0, 0, mode)
        self.begin(fs, lower, mode)
        self.store: Store | None = Store(fs.budget) if lower is None else None

    @property
    def writeback(self) -> bool:  # type: ignore[override]
        """As on the file system of the host; what is only in memory is like tmpfs."""
        return self.fs.tree is not None

    @property
    def huge_aligned(self) -> bool:  # type: ignore[override]
        """As the host's file system does, for what came from there."""
        lower, tree = self.lower, self.fs.tree
        return tree is not None and tree.huge_aligned(lower.stat.st_dev if lower is not None else self.device)

    @property
    def forgettable(self) -> bool:
        """As long as it is the host's, unchanged, and not in the page cache."""
        return not self.changed and self.pages is None

    @property
    def host_path(self) -> str:
        """The host's file, until this one has bytes of its own."""
        return self.lower.path if self.lower is not None and self.store is None else ""

    def refresh(self) -> None:
        """Attributes from whoever has the bytes."""
        if self.store is not None:
            self.blocks = self.store.blocks()
        else:
            Overlaid.refresh(self)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it; what the host refuses is refused here and now."""
        if self.store is None:
            self.read_fd()
            self.refresh()
        return RegularFile.open(self, flags, location)

    def read_fd(self) -> int:
        """The memfd, or the host's file."""
        if self.store is not None:
            return self.store.fd()
        assert self.lower is not None
        return self.lower.file_fd()

    def write_fd(self, offset: int, length: int) -> int:
        """The memfd, with room for what is about to come."""
        if self.store is None:
            self.copy_up(self.size)
        assert self.store is not None
        self.store.grow(offset, length)
        return self.store.fd()

    def write_from(self, pieces: Sequence[memoryview], offset: int) -> int:
        """As any file; where there is room for a part only, that part (generic_perform_write)."""
        try:
            return RegularFile.write_from(self, pieces, offset)
        except LinuxError as error:
            store, length = self.store, total(pieces)
            if error.errno != ENOSPC or store is None or not self.fs.budget.fills:
                raise
            room = max(store.charged - offset, 0) + self.fs.budget.room(length)
            if not 0 < room < length:
                raise
            return RegularFile.write_from(self, before(pieces, room), offset)

    def copy_up(self, size: int) -> None:
        """Make the contents ours: the first `size` bytes of them."""
        self.alter()
        self.born_ns = self.fs.now()
        store = Store(self.fs.budget)
        if size:
            store.fill(self.read_fd(), size)
        self.store = store
        self.size = store.size
        if self.lower is not None:
            self.lower.close()

    def written(self, end: int, modified: bool) -> None:
        """Note the new size and time."""
        assert self.store is not None
        if end > self.size:
            self.size = self.store.size = end
        if modified:
            self.mtime_ns = self.ctime_ns = self.fs.now()

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros; what it took of the budget is free again."""
        super().clear(offset, length)
        if self.store is not None:
            self.store.sparse = True
            self.store.settle()

    def truncate(self, size: int) -> None:
        """Make it `size` bytes long, copying no more than needed."""
        if size < 0:
            raise LinuxError(EINVAL)
        if size > MAX_OFFSET:
            raise LinuxError(EFBIG)
        if self.store is None:
            self.copy_up(min(size, self.size))
        assert self.store is not None
        shrinks = size < self.size
        self.store.set_size(size)
        self.size = size
        if shrinks or self.pages is not None:
            self.cut(size)
        self.mtime_ns = self.ctime_ns = self.fs.now()


class OverlaySymlink(Overlaid):
    """A symbolic link."""

    __slots__ = ("changed", "fs", "lower", "text")

    def __init__(self, fs: Overlay, lower: HostNode | None, mode: int, text: str | None) -> None:
        self.begin(fs, lower, mode)
        self.text = text
        if text is not None:
            self.size = len(text.encode("utf-8", "surrogateescape"))

    def readlink(self) -> str:
        """The text; the host is asked once."""
        if self.text is None:
            assert self.lower is not None
            self.text = self.lower.readlink()
        return self.text


class OverlaySpecial(Overlaid):
    """A FIFO, socket or device of the host, which is never opened; or a socket or device node that the guest made."""

    __slots__ = ("changed", "fs", "lower")

    def __init__(self, fs: Overlay, lower: HostNode | None, mode: int) -> None:
        self.begin(fs, lower, mode)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open the machine's device of the number, if the guest made the node; refuse anything else."""
        if self.lower is None and self.fs.devices is not None and self.mode & S_IFMT in (S_IFCHR, S_IFBLK):
            return self.fs.devices(self, flags, location)
        raise no_special_file(self.mode)


def no_special_file(mode: int) -> LinuxError:
    """What opening a special file of the host gives: ENXIO for a socket, as on Linux; EACCES for what Linux opens."""
    if mode & S_IFMT == S_IFSOCK:
        return LinuxError(ENXIO, "a socket cannot be opened by name")
    kind = "FIFO" if mode & S_IFMT == S_IFIFO else "device"
    return LinuxError(EACCES, f"this {kind} belongs to the host, and Loadstone does not open the host's")


class OverlayFifo(Overlaid):
    """A FIFO that the guest made."""

    __slots__ = ("changed", "fs", "lower", "pipe")

    def __init__(self, fs: Overlay, mode: int) -> None:
        self.begin(fs, None, mode)
        self.pipe: Pipe | None = None

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open one end, or both."""
        from loadstone.vfs.pipe import Pipe, PipeFile, no_waker

        if self.pipe is None:
            self.pipe = Pipe(self.fs.wake or no_waker, f"fifo:[{self.inode}]")
        return PipeFile(self, flags, location, self.pipe)

    def fed(self) -> None:
        """Set the times of a change."""
        self.mtime_ns = self.ctime_ns = self.fs.now()
