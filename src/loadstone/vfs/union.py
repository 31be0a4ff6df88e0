"""overlayfs: a directory tree made of others, of which only the uppermost is written. Source: fs/overlayfs/.

A file of a lower layer is copied up when it is first opened for writing or otherwise changed. What is removed is
covered by a whiteout, a character device 0:0, in the upper layer. A directory made over a whiteout is opaque: nothing
below it is shown (`vfs.union_directory`). The machine's own root is not this but `vfs.overlay`, whose upper layer is no
directory to be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EROFS
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from loadstone.errors import LinuxError
from loadstone.vfs.flags import O_ACCMODE, O_RDONLY, S_IFMT, S_IFREG
from loadstone.vfs.inode import ROOT, Inode
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Dentry, Location
    from loadstone.vfs.regular import Cache
    from loadstone.vfs.union_directory import UnionDirectory

_CHUNK = 1 << 20


class Union:
    """A mounted overlay. `top`: the upper layer's own place, None without one: nothing can be written then."""

    __slots__ = ("cache", "device", "nodes", "top")

    def __init__(self, cache: Cache | None, device: int, top: Dentry | None) -> None:
        self.cache = cache
        self.device = device
        self.top = top
        self.nodes: WeakValueDictionary[int, UnionNode] = WeakValueDictionary()  # by the identity of what is real

    @property
    def read_only(self) -> bool:
        """Whether there is no upper layer."""
        return self.top is None

    def node(self, parent: UnionDirectory, name: str, real: Inode, upper: bool) -> UnionNode:
        """The one object for a file of a layer that is no directory."""
        known = self.nodes.get(id(real))
        if known is None:
            made = UnionFile if real.mode & S_IFMT == S_IFREG else UnionOther
            known = self.nodes[id(real)] = made(self, parent, name, real, upper)
        return known


class UnionNode(Inode):
    """A file or directory of an overlay.

    Attributes:
        real: the file of a layer that it shows; `upper`: of the upper layer.
        parent, name: where it is, so that it can be copied up there.
    """

    __slots__ = ()

    fs: Union
    parent: UnionDirectory | None
    name: str
    real: Inode
    upper: bool

    def begin(self, fs: Union, parent: UnionDirectory | None, name: str, real: Inode, upper: bool) -> None:
        """The common part of construction. (The slots are in the subclasses, as in Overlaid.)"""
        self.fs = fs  # type: ignore[misc]
        self.parent = parent  # type: ignore[misc]
        self.name = name  # type: ignore[misc]
        self.real = real  # type: ignore[misc]
        self.upper = upper  # type: ignore[misc]
        Inode.__init__(self, fs.device, real.inode, real.mode)
        self.notes_access = True
        self.refresh()

    def refresh(self) -> None:
        """The attributes of the file that is shown."""
        real = self.real
        real.refresh()
        self.mode, self.uid, self.gid, self.rdev = real.mode, real.uid, real.gid, real.rdev
        self.size, self.blocks, self.nlink = real.size, real.blocks, real.nlink
        self.atime_ns, self.mtime_ns, self.ctime_ns = real.atime_ns, real.mtime_ns, real.ctime_ns
        self.born_ns = real.born_ns

    def copy_up(self) -> Inode:
        """The file in the upper layer, copied there if it is not yet; EROFS without one."""
        if self.upper:
            return self.real
        if self.fs.read_only or self.parent is None:
            raise LinuxError(EROFS, "the overlay has no upper layer")
        old = self.real
        old.refresh()
        made = self.make_copy(self.parent.copy_up(), old)
        made.set_owner(old.uid, old.gid)
        made.set_mode(old.mode & 0o7777)
        made.set_times(old.atime_ns, old.mtime_ns)
        self.real, self.upper = made, True  # type: ignore[misc]
        self.fs.nodes[id(made)] = self
        return made

    def make_copy(self, directory: Inode, old: Inode) -> Inode:
        """Make the file in a directory of the upper layer."""
        if old.is_symlink:
            return directory.symlink(self.name, old.readlink(), ROOT)
        return directory.mknod(self.name, old.mode, old.rdev, ROOT)

    def set_mode(self, mode: int) -> None:
        """Set the twelve permission bits, in the upper layer."""
        self.copy_up().set_mode(mode)
        self.refresh()

    def set_owner(self, uid: int, gid: int) -> None:
        """Set owner and group, in the upper layer."""
        self.copy_up().set_owner(uid, gid)
        self.refresh()

    def accessed(self, relative: bool) -> None:
        """Set the access time of a file of the upper layer; those below are only read (ovl_get_layers)."""
        if self.upper and self.real.notes_access:
            self.real.accessed(relative)
            self.atime_ns = self.real.atime_ns

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Set the times, in the upper layer."""
        self.copy_up().set_times(atime_ns, mtime_ns)
        self.refresh()


class UnionOther(UnionNode):
    """A symbolic link, FIFO, socket's name or device node."""

    __slots__ = ("fs", "name", "parent", "real", "upper")

    def __init__(self, fs: Union, parent: UnionDirectory | None, name: str, real: Inode, upper: bool) -> None:
        self.begin(fs, parent, name, real, upper)

    def readlink(self) -> str:
        """The text."""
        return self.real.readlink()

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """As the layer does."""
        return self.real.open(flags, location)


class UnionFile(RegularFile, UnionNode):
    """A regular file."""

    __slots__ = ("fs", "name", "parent", "real", "upper")

    real: RegularFile

    def __init__(self, fs: Union, parent: UnionDirectory | None, name: str, real: Inode, upper: bool) -> None:
        RegularFile.__init__(self, fs.cache, 0, 0, 0)
        self.begin(fs, parent, name, real, upper)

    def make_copy(self, directory: Inode, old: Inode) -> Inode:
        """A file with the same bytes."""
        assert isinstance(old, RegularFile)
        made = directory.create(self.name, old.mode & 0o7777, ROOT)
        assert isinstance(made, RegularFile)
        at, buffer = 0, memoryview(bytearray(min(_CHUNK, old.end())))
        try:
            while (done := old.read_into([buffer], at)) > 0:
                made.write_from([buffer[:done]], at)
                at += done
        except LinuxError:  # no room: as if nothing had been tried
            directory.unlink(self.name, made)
            raise
        return made

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it; for writing, it is copied up now."""
        if flags & O_ACCMODE != O_RDONLY:
            self.copy_up()
        return RegularFile.open(self, flags, location)

    def end(self) -> int:
        """The size, now."""
        return self.real.end()

    def _read_host(self, pieces: Sequence[memoryview], offset: int) -> int:
        return self.real.read_into(pieces, offset)

    def _write_host(self, pieces: Sequence[memoryview], offset: int, length: int) -> int:
        self.copy_up()
        return self.real.write_from(pieces, offset)

    def written(self, end: int, modified: bool) -> None:
        """The layer has noted it."""
        self.refresh()

    def truncate(self, size: int) -> None:
        """Make it `size` bytes long."""
        self.copy_up()
        self.real.truncate(size)
        self.cut(size)
        self.refresh()

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        self.copy_up()
        self.sync()
        self.real.clear(offset, length)
        if self.pages is not None and self.cache is not None:
            self.cache.forget(self)
        self.refresh()

    def find(self, offset: int, whence: int) -> int:
        """As the layer knows it."""
        return self.real.find(offset, whence)
