"""Directories of ext2, and what is done with names in them. Source: fs/ext2/namei.c."""

from __future__ import annotations

from errno import EEXIST, EINVAL, EMLINK, ENOENT, ENOTEMPTY, EXDEV
from os import fsencode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.ext2.entries import Entries
from loadstone.vfs.ext2.node import AT_POINTERS, INLINE, Node
from loadstone.vfs.ext2.others import Special
from loadstone.vfs.flags import S_IFDIR, S_IFLNK, S_IFREG, d_type
from loadstone.vfs.open_files import DirectoryFile

if TYPE_CHECKING:
    from loadstone.vfs.ext2.system import Ext2
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Entry, Identity, Inode
    from loadstone.vfs.location import Location

_MOST_LINKS = 32000  # EXT2_LINK_MAX


class Directory(Node):
    """A directory."""

    __slots__ = ("fs", "map", "raw")

    def __init__(self, fs: Ext2, number: int, raw: bytearray) -> None:
        self.begin(fs, number, raw)

    def __del__(self) -> None:
        if getattr(self, "map", None) is not None:
            self.end_of_life()

    @property
    def names(self) -> Entries:
        """Its entries on the device."""
        return Entries(self.fs.volume, self.map)

    def lookup(self, name: str) -> Inode:
        """The file of a name."""
        found = self.names.find(self.size, name)
        if found is None:
            raise LinuxError(ENOENT)
        return self.fs.get(found.inode)

    def entries(self) -> list[Entry]:
        """In the order of the device."""
        found = self.names.all(self.size)
        return [(one.name, one.inode, d_type(one.kind)) for one in found if one.name not in (".", "..")]

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names."""
        return DirectoryFile(self, flags, location)

    def _put(self, name: str, inode: Node) -> None:
        if self.nlink == 0:
            raise LinuxError(ENOENT)
        self.size = self.names.add(self.size, name, inode.inode, inode.mode)
        self.changed(contents=True)

    def _take(self, name: str) -> None:
        found = self.names.find(self.size, name)
        if found is None:
            raise LinuxError(ENOENT)
        self.names.remove(found)
        self.changed(contents=True)

    def _new(self, name: str, mode: int, who: Identity) -> Node:
        if self.names.find(self.size, name) is not None:
            raise LinuxError(EEXIST)
        made = self.fs.make(self, mode, who)
        try:
            self._put(name, made)
        except LinuxError:
            made.nlink = 0
            raise
        return made

    def create(self, name: str, mode: int, who: Identity) -> Inode:
        """An empty regular file."""
        return self._new(name, S_IFREG | mode & 0o7777, who)

    def temporary(self, mode: int, who: Identity) -> Inode:
        """A regular file without a name."""
        made = self.fs.make(self, S_IFREG | mode & 0o7777, who)
        made.nlink = 0
        made.save()
        return made

    def mkdir(self, name: str, mode: int, who: Identity) -> Inode:
        """An empty directory; EMLINK."""
        if self.nlink >= _MOST_LINKS:
            raise LinuxError(EMLINK)
        made = self.fs.make(self, S_IFDIR | mode & 0o1777, who)
        assert isinstance(made, Directory)
        try:
            made.size = made.names.start(made.inode, self.inode)
            made.nlink = 2
            made.save()
            self._put(name, made)
        except LinuxError:
            made.nlink = 0
            raise
        self.count_links(1)
        return made

    def symlink(self, name: str, target: str, who: Identity) -> Inode:
        """A symbolic link: its text in the inode, or in a block. ENAMETOOLONG is the caller's to see."""
        made = self._new(name, S_IFLNK | 0o777, who)
        text = fsencode(target)
        made.size = len(text)
        if len(text) < INLINE:
            made.raw[AT_POINTERS : AT_POINTERS + 60] = text.ljust(60, b"\0")
        else:
            block, _ = made.map.make(0, 1)
            self.fs.volume.write_block(block, text.ljust(self.fs.volume.block_size, b"\0"))
        made.save()
        return made

    def mknod(self, name: str, mode: int, rdev: int, who: Identity) -> Inode:
        """A FIFO, a socket's name, or a device node."""
        made = self._new(name, mode, who)
        if isinstance(made, Special):
            made.set_number(rdev)
        return made

    def link(self, name: str, inode: Inode) -> None:
        """Another name; EXDEV, EMLINK."""
        if not isinstance(inode, Node) or inode.fs is not self.fs:
            raise LinuxError(EXDEV)
        if inode.nlink >= _MOST_LINKS:
            raise LinuxError(EMLINK)
        self._put(name, inode)
        inode.count_links(1)

    def unlink(self, name: str, inode: Inode) -> None:
        """Take a name away; with the last one the file goes when nobody has it open."""
        assert isinstance(inode, Node)
        self._take(name)
        inode.count_links(-1)

    def rmdir(self, name: str, inode: Inode) -> None:
        """Remove an empty directory."""
        if not isinstance(inode, Directory) or inode.entries():
            raise LinuxError(ENOTEMPTY)
        self._take(name)
        inode.count_links(-inode.nlink)
        self.count_links(-1)

    def rename(self, name: str, inode: Inode, target: Inode, new_name: str, replaced: Inode | None) -> None:
        """Move a name: the new one first, so that the file always has one."""
        assert isinstance(inode, Node)
        if not isinstance(target, Directory) or target.fs is not self.fs:
            raise LinuxError(EXDEV)
        if replaced is not None:
            assert isinstance(replaced, Node)
            if isinstance(replaced, Directory) and replaced.entries():
                raise LinuxError(ENOTEMPTY)
            found = target.names.find(target.size, new_name)
            if found is None:
                raise LinuxError(ENOENT)
            target.names.point(found, inode.inode, inode.mode)
            target.changed(contents=True)
            replaced.count_links(-replaced.nlink if replaced.is_directory else -1)
            if replaced.is_directory:
                target.count_links(-1)
        else:
            target._put(new_name, inode)
        self._take(name)
        inode.changed()
        if isinstance(inode, Directory) and target is not self:
            inode.set_parent(target)
            target.count_links(1)
            self.count_links(-1)

    def set_parent(self, parent: Directory) -> None:
        """Let `..` lead elsewhere."""
        found = self.names.find(self.size, "..")
        if found is not None:
            self.names.point(found, parent.inode, parent.mode)

    def exchange(self, name: str, inode: Inode, target: Inode, new_name: str, other: Inode) -> None:
        """EINVAL: ext2 does not exchange names."""
        raise LinuxError(EINVAL)
