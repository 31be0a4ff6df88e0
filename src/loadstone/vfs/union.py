"""overlayfs: a directory tree made of others, of which only the uppermost is written. Source: fs/overlayfs/.

A file of a lower layer is copied up when it is first opened for writing or otherwise changed. What is removed is
covered by a whiteout, a character device 0:0, in the upper layer. A directory made over a whiteout is opaque: nothing
below it is shown. The machine's own root is not this but `vfs.overlay`, whose upper layer is no directory to be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EINVAL, ENODATA, ENOENT, ENOTEMPTY, EOPNOTSUPP, EROFS, EXDEV
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from loadstone.errors import LinuxError
from loadstone.vfs import extended
from loadstone.vfs.flags import O_ACCMODE, O_RDONLY, S_IFCHR, S_IFDIR, S_IFMT, S_IFREG, d_type
from loadstone.vfs.inode import ROOT, Entry, Identity, Inode
from loadstone.vfs.open_files import DirectoryFile
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Dentry, Location
    from loadstone.vfs.regular import Cache

OPAQUE = "trusted.overlay.opaque"
_CHUNK = 1 << 20


def is_whiteout(inode: Inode) -> bool:
    """Whether it covers what is below."""
    return inode.mode & S_IFMT == S_IFCHR and inode.rdev == 0


def is_opaque(directory: Inode) -> bool:
    """Whether nothing below a directory is shown."""
    try:
        return extended.get(directory, OPAQUE, ROOT) == b"y"
    except LinuxError as error:
        if error.errno in (ENODATA, EOPNOTSUPP):
            return False
        raise


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


class UnionDirectory(UnionNode):
    """A directory: `layers` are those of its layers, the upper one first if `upper`."""

    __slots__ = ("below", "fs", "layers", "name", "parent", "real", "upper")

    def __init__(self, fs: Union, parent: UnionDirectory | None, name: str, layers: list[Inode], upper: bool) -> None:
        self.layers = layers
        self.below: WeakValueDictionary[str, UnionDirectory] = WeakValueDictionary()
        self.begin(fs, parent, name, layers[0], upper)

    def refresh(self) -> None:
        """The attributes of the uppermost layer; the number of links is not that of a merged directory."""
        UnionNode.refresh(self)
        if len(self.layers) > 1:
            self.nlink = min(self.nlink, 1)

    @property
    def lower(self) -> list[Inode]:
        """The layers that are never written."""
        return self.layers[1:] if self.upper else self.layers

    def make_copy(self, directory: Inode, old: Inode) -> Inode:
        """A directory without names, in front of the others."""
        made = directory.mkdir(self.name, old.mode & 0o7777, ROOT)
        self.layers = [made, *self.layers]
        return made

    def lookup(self, name: str) -> Inode:
        """The uppermost file of the name, or a directory merged of those that are not covered."""
        found: list[Inode] = []
        upper = False
        for at, layer in enumerate(self.layers):
            one = _in(layer, name)
            if one is None:
                continue
            if is_whiteout(one):
                break
            if not one.is_directory:
                if not found:
                    return self.fs.node(self, name, one, self.upper and at == 0)
                break
            found.append(one)
            upper = upper or (self.upper and at == 0)
            if is_opaque(one):
                break
        if not found:
            raise LinuxError(ENOENT)
        known = self.below.get(name)
        if known is None or known.layers[0] is not found[0]:
            known = self.below[name] = UnionDirectory(self.fs, self, name, found, upper)
        return known

    def entries(self) -> list[Entry]:
        """The names of all layers, each once, without those that are covered."""
        seen: dict[str, Entry | None] = {}
        for layer in self.layers:
            for name, number, kind in layer.entries():
                if name in seen:
                    continue
                covered = kind == d_type(S_IFCHR) and is_whiteout(layer.lookup(name))
                seen[name] = None if covered else (name, number, kind)
        return [one for one in seen.values() if one is not None]

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names."""
        return DirectoryFile(self, flags, location)

    def _forget(self, name: str) -> None:
        """What is remembered of a name in the upper layer's own place is no longer true."""
        names, directory = [name], self
        while directory.parent is not None:
            names.append(directory.name)
            directory = directory.parent
        dentry = self.fs.top
        while dentry is not None and len(names) > 1:
            dentry = dentry.children.get(names.pop())
        if dentry is not None:
            dentry.children.pop(name, None)

    def _below_has(self, name: str) -> bool:
        """Whether a lower layer would show the name."""
        for layer in self.lower:
            one = _in(layer, name)
            if one is not None:
                return not is_whiteout(one)
        return False

    def _ready(self, name: str) -> tuple[Inode, bool]:
        """(the upper directory, whether a whiteout of the name was taken away there), before something is made."""
        self._forget(name)
        upper = self.copy_up()
        old = _in(upper, name)
        if old is None or not is_whiteout(old):
            return upper, False
        upper.unlink(name, old)
        return upper, True

    def _wrap(self, name: str, real: Inode) -> Inode:
        self.refresh()
        return self.fs.node(self, name, real, True)

    def create(self, name: str, mode: int, who: Identity) -> Inode:
        """An empty regular file in the upper layer."""
        return self._wrap(name, self._ready(name)[0].create(name, mode, who))

    def temporary(self, mode: int, who: Identity) -> Inode:
        """A regular file without a name in the upper layer."""
        return self._wrap("", self.copy_up().temporary(mode, who))

    def symlink(self, name: str, target: str, who: Identity) -> Inode:
        """A symbolic link in the upper layer."""
        return self._wrap(name, self._ready(name)[0].symlink(name, target, who))

    def mknod(self, name: str, mode: int, rdev: int, who: Identity) -> Inode:
        """A FIFO, socket's name or device node in the upper layer."""
        return self._wrap(name, self._ready(name)[0].mknod(name, mode, rdev, who))

    def mkdir(self, name: str, mode: int, who: Identity) -> Inode:
        """A directory in the upper layer, opaque where something below was covered."""
        upper, covered = self._ready(name)
        real = upper.mkdir(name, mode, who)
        if covered:
            self._hide_below(name, real)
        self.refresh()
        made = self.below[name] = UnionDirectory(self.fs, self, name, [real], True)
        return made

    def _hide_below(self, name: str, real: Inode) -> None:
        """Make a directory of the upper layer opaque; with whiteouts where there are no extended attributes."""
        try:
            extended.put(real, OPAQUE, b"y", 0, ROOT)
        except LinuxError as error:
            if error.errno != EOPNOTSUPP:
                raise
            below = [one for layer in self.lower if (one := _in(layer, name)) is not None and one.is_directory]
            for hidden in {entry[0] for layer in below for entry in layer.entries()}:
                real.mknod(hidden, S_IFCHR, 0, ROOT)

    def _cover(self, name: str) -> None:
        """Put a whiteout over what the lower layers have."""
        if self._below_has(name):
            self.copy_up().mknod(name, S_IFCHR, 0, ROOT)
        self.refresh()

    def link(self, name: str, inode: Inode) -> None:
        """Another name in the upper layer."""
        if not isinstance(inode, UnionNode) or inode.fs is not self.fs:
            raise LinuxError(EXDEV)
        real = inode.copy_up()
        self._ready(name)[0].link(name, real)
        inode.refresh()
        self.refresh()

    def unlink(self, name: str, inode: Inode) -> None:
        """Take the name away, in the upper layer or with a whiteout."""
        assert isinstance(inode, UnionNode)
        self._forget(name)
        upper = self.copy_up()
        own = _in(upper, name)
        if own is not None:
            upper.unlink(name, own)
            inode.refresh()
        self._cover(name)

    def rmdir(self, name: str, inode: Inode) -> None:
        """Remove a directory that shows no names; its whiteouts go with it."""
        assert isinstance(inode, UnionDirectory)
        if inode.entries():
            raise LinuxError(ENOTEMPTY)
        self._forget(name)
        upper = self.copy_up()
        own = _in(upper, name)
        if own is not None:
            for hidden, _, _ in own.entries():
                own.unlink(hidden, own.lookup(hidden))
            upper.rmdir(name, own)
        self.below.pop(name, None)
        self._cover(name)
        inode.nlink = 0

    def rename(self, name: str, inode: Inode, target: Inode, new_name: str, replaced: Inode | None) -> None:
        """Move a name in the upper layer; a directory that a lower layer has stays: EXDEV, so that it is copied."""
        assert isinstance(inode, UnionNode)
        if not isinstance(target, UnionDirectory) or target.fs is not self.fs:
            raise LinuxError(EXDEV)
        if isinstance(inode, UnionDirectory) and inode.lower:
            raise LinuxError(EXDEV, "a lower layer has the directory (redirect_dir=off)")
        self._forget(name)
        real = inode.copy_up()
        if isinstance(replaced, UnionDirectory):
            target.rmdir(new_name, replaced)
        upper, covered = target._ready(new_name)
        self.copy_up().rename(name, real, upper, new_name, _in(upper, new_name))
        if isinstance(inode, UnionDirectory):
            self.below.pop(name, None)
            target.below[new_name] = inode
            if covered or target._below_has(new_name):
                target._hide_below(new_name, real)
        inode.parent, inode.name = target, new_name  # type: ignore[misc]
        self._cover(name)
        target.refresh()
        inode.refresh()
        if replaced is not None and not replaced.is_directory:
            replaced.refresh()

    def exchange(self, name: str, inode: Inode, target: Inode, new_name: str, other: Inode) -> None:
        """EINVAL: not done here."""
        raise LinuxError(EINVAL)


def _in(layer: Inode, name: str) -> Inode | None:
    """The file of a name in one layer, if it has one."""
    try:
        return layer.lookup(name)
    except LinuxError as error:
        if error.errno == ENOENT:
            return None
        raise


def union_root(fs: Union, layers: list[Inode]) -> UnionDirectory:
    """The topmost directory of an overlay; EINVAL if a layer is no directory."""
    if not all(layer.mode & S_IFMT == S_IFDIR for layer in layers):
        raise LinuxError(EINVAL, "a layer of an overlay is a directory")
    return UnionDirectory(fs, None, "", layers, not fs.read_only)
