"""The directories of an overlay: the host's names, under ours.

`upper` names what was put over the host's names: an inode, or None for a name that was taken away (a whiteout). A
directory of the host that is renamed keeps its lower directory, so moving a tree moves one name.
"""

from __future__ import annotations

from errno import EBUSY, ENOENT, ENOTEMPTY, EPERM, EXDEV
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.flags import S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, d_type
from loadstone.vfs.inode import Entry, Identity, Inode
from loadstone.vfs.open_files import DirectoryFile
from loadstone.vfs.overlaid import Overlaid
from loadstone.vfs.overlay_files import OverlayFifo, OverlayFile, OverlaySpecial, OverlaySymlink
from loadstone.vfs.store import INODE_COST

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.host import HostNode
    from loadstone.vfs.location import Location
    from loadstone.vfs.overlay import Overlay


def _cost_of_name(inode: Inode) -> int:
    """What a name in memory counts as; a symbolic link's text is in memory too."""
    return INODE_COST + (inode.size if inode.is_symlink else 0)


class OverlayDirectory(Overlaid):
    """A directory: the host's names, under ours."""

    __slots__ = ("changed", "fs", "lower", "upper")

    def __init__(self, fs: Overlay, lower: HostNode | None, mode: int) -> None:
        self.begin(fs, lower, mode)
        self.upper: dict[str, Inode | None] = {}
        if lower is None:
            self.size = 4096
            self.blocks = 8

    def lookup(self, name: str) -> Inode:
        """Ours first, then the host's."""
        upper = self.upper
        if name in upper:
            found = upper[name]
            if found is None:
                raise LinuxError(ENOENT)
            return found
        if self.lower is None:
            raise LinuxError(ENOENT)
        return self.fs.inode_for(self.lower.lookup(name), False)

    def entries(self) -> list[Entry]:
        """Host order, then ours in the order of creation; sorted by name on a deterministic machine."""
        names: list[Entry] = []
        upper = self.upper
        if self.lower is not None:
            device, fs = self.lower.stat.st_dev, self.fs
            names = [(name, number, kind) for name, number, kind in self.lower.names() if name not in upper]
            if fs.deterministic:
                names.sort()
                names = [(name, fs.show(device, number), kind) for name, number, kind in names]
        names += [(name, one.inode, d_type(one.mode)) for name, one in upper.items() if one is not None]
        if self.fs.deterministic:
            names.sort()
        return names

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names."""
        return DirectoryFile(self, flags, location)

    def _put(self, name: str, inode: Inode) -> None:
        """A new name here. A directory that was removed takes none."""
        if self.nlink == 0:
            raise LinuxError(ENOENT)
        known = self.upper.get(name)
        self.fs.budget.take(_cost_of_name(inode) - (_cost_of_name(known) if known is not None else 0))
        self.alter()
        self.upper[name] = inode
        self.mtime_ns = self.ctime_ns = self.fs.now()

    def _take(self, name: str) -> None:
        """A name less: covered if the host has it."""
        self.alter()
        known = self.upper.pop(name, None)
        if known is not None:
            self.fs.budget.take(-_cost_of_name(known))
        if self.lower is not None:
            try:
                self.lower.lookup(name)
                self.upper[name] = None
            except LinuxError:
                pass
        self.mtime_ns = self.ctime_ns = self.fs.now()

    def _subdirectories(self, change: int) -> None:
        """Count `..` links, on file systems that do (elsewhere a directory has nlink 1)."""
        if change:
            self.alter()
            if self.nlink >= 2:
                self.nlink += change

    def _new(self, name: str, made: Overlaid, who: Identity) -> Inode:
        made.owned(who, self)
        self._put(name, made)
        return made

    def create(self, name: str, mode: int, who: Identity) -> Inode:
        """An empty regular file, in memory."""
        return self._new(name, OverlayFile(self.fs, None, S_IFREG | mode & 0o7777), who)

    def temporary(self, mode: int, who: Identity) -> Inode:
        """A regular file without a name, in memory."""
        made = OverlayFile(self.fs, None, S_IFREG | mode & 0o7777)
        made.owned(who, self)
        made.nlink = 0
        return made

    def mkdir(self, name: str, mode: int, who: Identity) -> Inode:
        """An empty directory, in memory."""
        made = self._new(name, OverlayDirectory(self.fs, None, S_IFDIR | mode & 0o1777), who)
        self._subdirectories(1)
        return made

    def symlink(self, name: str, target: str, who: Identity) -> Inode:
        """A symbolic link, in memory."""
        return self._new(name, OverlaySymlink(self.fs, None, S_IFLNK | 0o777, target), who)

    def mknod(self, name: str, mode: int, rdev: int, who: Identity) -> Inode:
        """A FIFO, a socket's name or a device node, in memory. A node stands for a device of the machine's."""
        kind = mode & S_IFMT
        if kind == S_IFIFO:
            return self._new(name, OverlayFifo(self.fs, S_IFIFO | mode & 0o7777), who)
        if kind == S_IFSOCK:
            return self._new(name, OverlaySpecial(self.fs, None, S_IFSOCK | mode & 0o7777), who)
        if who.fsuid != 0:
            raise LinuxError(EPERM, "only root makes device nodes")
        made = OverlaySpecial(self.fs, None, kind | mode & 0o7777)
        made.rdev = rdev
        return self._new(name, made, who)

    def link(self, name: str, inode: Inode) -> None:
        """Another name for one of this overlay's files."""
        if not isinstance(inode, Overlaid) or inode.fs is not self.fs:
            raise LinuxError(EXDEV)
        self._put(name, inode)
        inode.count_links(1)

    def unlink(self, name: str, inode: Inode) -> None:
        """Take a name away; the host keeps its file."""
        self._take(name)
        if isinstance(inode, Overlaid):
            inode.count_links(-1)

    def rmdir(self, name: str, inode: Inode) -> None:
        """Remove an empty directory."""
        self._empty(inode)
        self._take(name)
        self._subdirectories(-1)
        inode.nlink = 0

    def _empty(self, inode: Inode) -> None:
        if not isinstance(inode, OverlayDirectory):
            raise LinuxError(EBUSY)
        if inode.entries():
            raise LinuxError(ENOTEMPTY)
        inode.alter()

    def rename(self, name: str, inode: Inode, target: Inode, new_name: str, replaced: Inode | None) -> None:
        """Move a name; a directory takes its lower directory with it."""
        if not isinstance(target, OverlayDirectory) or target.fs is not self.fs or not isinstance(inode, Overlaid):
            raise LinuxError(EXDEV)
        if target.nlink == 0:
            raise LinuxError(ENOENT)
        moves = 1 if inode.is_directory else 0
        if self.upper.get(name) is None:  # a name of the host's costs nothing until it moves
            self.fs.budget.demand(_cost_of_name(inode))
        if replaced is not None:
            if replaced.is_directory:
                self._empty(replaced)
                replaced.nlink = 0
                target._subdirectories(-1)
            elif isinstance(replaced, Overlaid):
                replaced.count_links(-1)
        inode.alter()
        self._take(name)
        target._put(new_name, inode)
        self._subdirectories(-moves)
        target._subdirectories(moves)
        inode.ctime_ns = self.fs.now()

    def exchange(self, name: str, inode: Inode, target: Inode, new_name: str, other: Inode) -> None:
        """Two names change places."""
        if not isinstance(target, OverlayDirectory) or target.fs is not self.fs:
            raise LinuxError(EXDEV)
        if not isinstance(inode, Overlaid) or not isinstance(other, Overlaid):
            raise LinuxError(EXDEV)
        self.fs.budget.demand(_cost_of_name(inode) + _cost_of_name(other))
        for one in (inode, other):
            one.alter()
        self._put(name, other)
        target._put(new_name, inode)
        moves = int(inode.is_directory) - int(other.is_directory)
        self._subdirectories(-moves)
        target._subdirectories(moves)
        inode.ctime_ns = other.ctime_ns = self.fs.now()
