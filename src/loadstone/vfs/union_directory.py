"""Directories of an overlay: merged of those of its layers, and changed in the upper one. Source: fs/overlayfs/.

Whiteouts and opaque directories are explained in `vfs.union`.
"""

from __future__ import annotations

from errno import EINVAL, ENODATA, ENOENT, ENOTEMPTY, EOPNOTSUPP, EXDEV
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from loadstone.errors import LinuxError
from loadstone.vfs import extended
from loadstone.vfs.flags import S_IFCHR, S_IFDIR, S_IFMT, d_type
from loadstone.vfs.inode import ROOT, Entry, Identity, Inode
from loadstone.vfs.open_files import DirectoryFile
from loadstone.vfs.union import UnionNode

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location
    from loadstone.vfs.union import Union

OPAQUE = "trusted.overlay.opaque"


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
