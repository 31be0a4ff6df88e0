"""Files that are made when they are looked at: what /proc consists of. Whoever mounts them says what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from errno import EACCES, ENAMETOOLONG, ENOENT
from os import fsencode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.flags import O_ACCMODE, O_RDONLY, PATH_MAX, S_IFDIR, S_IFLNK, S_IFREG, d_type
from loadstone.vfs.inode import Entry, Inode
from loadstone.vfs.open_files import BytesOpen, DirectoryFile

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location

PROC_BLOCK = 1024
"""st_blksize in /proc (fs/proc/root.c: s_blocksize); the size of a stdio buffer on a file of it."""


class GeneratedFile(Inode):
    """A regular file of size 0 whose bytes `produce()` makes at each open. It cannot be written."""

    __slots__ = ("produce",)

    blksize = PROC_BLOCK

    def __init__(
        self,
        produce: Callable[[], bytes],
        *,
        device: int = 0,
        inode: int = 0,
        mode: int = 0o444,
        uid: int = 0,
        gid: int = 0,
        now_ns: int = 0,
    ) -> None:
        super().__init__(device, inode, S_IFREG | mode, uid, gid, now_ns)
        self.produce = produce

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Make the bytes."""
        if flags & O_ACCMODE != O_RDONLY:
            raise LinuxError(EACCES, "this file can only be read")
        return BytesOpen(self, flags, location, self.produce())

    def truncate(self, size: int) -> None:
        """Nothing happens, as with /proc files opened with O_TRUNC."""


class GeneratedDirectory(Inode):
    """A directory whose names come and go by themselves: nothing is remembered but what something is mounted on.

    `names()` gives (name, inode number, d_type) of each, `find(name)` the inode, or None if there is none.
    """

    __slots__ = ("find", "names")

    blksize = PROC_BLOCK
    cacheable = False
    volatile = True

    def __init__(
        self,
        names: Callable[[], Sequence[Entry]],
        find: Callable[[str], Inode | None],
        *,
        device: int = 0,
        inode: int = 0,
        mode: int = 0o555,
        uid: int = 0,
        gid: int = 0,
        now_ns: int = 0,
    ) -> None:
        super().__init__(device, inode, S_IFDIR | mode, uid, gid, now_ns)
        self.names = names
        self.find = find

    def lookup(self, name: str) -> Inode:
        """What `find` says."""
        found = self.find(name)
        if found is None:
            raise LinuxError(ENOENT)
        return found

    def still(self, name: str, child: Inode) -> bool:
        """Whether `find` says something of the same number and kind."""
        found = self.find(name)
        return found is not None and (found.inode, found.mode) == (child.inode, child.mode)

    def entries(self) -> list[Entry]:
        """What `names` says."""
        return list(self.names())

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names."""
        return DirectoryFile(self, flags, location)


class StaticDirectory(Inode):
    """A directory with fixed names."""

    __slots__ = ("children",)

    def __init__(
        self, children: Mapping[str, Inode], *, device: int = 0, inode: int = 0, mode: int = 0o555, now_ns: int = 0
    ) -> None:
        super().__init__(device, inode, S_IFDIR | mode, now_ns=now_ns)
        self.children = children
        self.nlink = 2 + sum(one.is_directory for one in children.values())

    def lookup(self, name: str) -> Inode:
        """One of the names."""
        found = self.children.get(name)
        if found is None:
            raise LinuxError(ENOENT)
        return found

    def entries(self) -> list[Entry]:
        """All of them, in their order."""
        return [(name, one.inode, d_type(one.mode)) for name, one in self.children.items()]

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names."""
        return DirectoryFile(self, flags, location)


class DynamicLink(Inode):
    """A symbolic link whose text is made when it is read: /proc/self."""

    __slots__ = ("text",)

    blksize = PROC_BLOCK

    def __init__(self, text: Callable[[], str], *, device: int = 0, inode: int = 0, mode: int = 0o777) -> None:
        super().__init__(device, inode, S_IFLNK | mode)
        self.text = text

    def readlink(self) -> str:
        """The text, now."""
        return self.text()


class MagicLink(DynamicLink):
    """A link that leads to a place and not to a path: /proc/self/fd/N, exe, cwd, root.

    `place()` is where it leads, or None if it has no place (a pipe: opening it takes more than a location).
    """

    __slots__ = ("place",)

    def __init__(
        self,
        text: Callable[[], str],
        place: Callable[[], Location | None],
        *,
        device: int = 0,
        inode: int = 0,
        mode: int = 0o777,
    ) -> None:
        super().__init__(text, device=device, inode=inode, mode=mode)
        self.place = place

    def readlink(self) -> str:
        """The path of the place, now; ENAMETOOLONG when it is deeper than a path can say (d_path's buffer)."""
        text = self.text()
        if len(fsencode(text)) >= PATH_MAX:
            raise LinuxError(ENAMETOOLONG)
        return text

    def follow(self) -> Location | None:
        """The place; ENOENT if there is none."""
        found = self.place()
        if found is None:
            raise LinuxError(ENOENT)
        return found
