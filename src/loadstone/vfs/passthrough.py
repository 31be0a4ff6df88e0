"""Directories that the user handed over with `--rw`: what the guest does there, the host does.

Every operation names one component below the O_PATH descriptor of a directory that was reached one component at a time,
with links not followed, so nothing outside the directory can be meant.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EBUSY, EFBIG, EINVAL, ENOENT, ENOTEMPTY, EOPNOTSUPP, EPERM, EXDEV
from time import clock_gettime_ns
from typing import TYPE_CHECKING, TypeVar

from loadstone.errors import LinuxError
from loadstone.vfs.flags import NOW, O_ACCMODE, OMIT, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, d_type
from loadstone.vfs.host import HostNode, both_directories, host_error
from loadstone.vfs.inode import Entry, Identity, Inode
from loadstone.vfs.open_files import MAX_OFFSET, DirectoryFile
from loadstone.vfs.overlaid import Overlaid
from loadstone.vfs.overlay import Overlay
from loadstone.vfs.overlay_files import OverlayFifo, OverlaySpecial, no_special_file
from loadstone.vfs.regular import RegularFile
from loadstone.vfs.store import INODE_COST

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location

Result = TypeVar("Result")

_CLOCK_REALTIME_COARSE = 5  # include/uapi/linux/time.h; what the kernel stamps files with


def host(operation: Callable[[], Result]) -> Result:
    """Do something on the host; its errors are the guest's."""
    try:
        return operation()
    except OSError as error:
        raise host_error(error) from None


def make(fs: Overlay, node: HostNode, pinned: bool) -> Inode:
    """The inode of a file in a directory that was handed over; `pinned` for that directory itself."""
    kind = node.stat.st_mode & S_IFMT
    made: Through
    if kind == S_IFREG:
        made = WritableFile(fs, node)
    elif kind == S_IFDIR:
        made = WritableDirectory(fs, node)
        made.pinned = pinned
    elif kind == S_IFLNK:
        made = WritableSymlink(fs, node)
    else:
        made = WritableSpecial(fs, node)
    made.load()
    return made


def seen_again(inode: Inode, node: HostNode) -> None:
    """A known file was found under this name: it may have been the other one that is gone by now."""
    if isinstance(inode, Through) and not inode.is_directory:
        inode.node.parent, inode.node.name = node.parent, node.name


class Through(Inode):
    """A file whose attributes are the host's, now."""

    __slots__ = ()

    fs: Overlay
    node: HostNode

    def start(self, fs: Overlay, node: HostNode) -> None:
        """The common part of construction."""
        self.fs = fs  # type: ignore[misc]
        self.node = node  # type: ignore[misc]
        Inode.__init__(self, 0, 0, node.stat.st_mode)

    def load(self) -> None:
        """Take the attributes from what the host said last."""
        stat = self.node.stat
        self.device = self.fs.device if self.fs.deterministic else stat.st_dev
        self.inode = self.fs.show(stat.st_dev, stat.st_ino)
        self.mode, self.nlink, self.rdev = stat.st_mode, stat.st_nlink, stat.st_rdev
        self.uid, self.gid = stat.st_uid, stat.st_gid
        self.size, self.blocks = stat.st_size, stat.st_blocks
        self.atime_ns, self.mtime_ns, self.ctime_ns = stat.st_atime_ns, stat.st_mtime_ns, stat.st_ctime_ns

    @property
    def noexec(self) -> bool | None:
        """As the host's mount says."""
        return self.node.noexec

    @property
    def host_path(self) -> str:
        """Where the host has it."""
        return self.node.path

    def refresh(self) -> None:
        """Ask the host."""
        self.node.status()
        self.load()

    def _by_descriptor(self, operation: Callable[[str], object]) -> None:
        """Do something to exactly this file, by a name under /proc that means an open descriptor."""
        if self.node.fd >= 0:
            host(lambda: operation(f"/proc/self/fd/{self.node.fd}"))
        else:
            fd = self.node.reopened()
            try:
                host(lambda: operation(f"/proc/self/fd/{fd}"))
            finally:
                os.close(fd)
        self.refresh()

    def set_mode(self, mode: int) -> None:
        """Set the permission bits on the host."""
        self._by_descriptor(lambda name: os.chmod(name, mode))

    def set_owner(self, uid: int, gid: int) -> None:
        """Set owner and group on the host."""
        if self.is_symlink:
            directory = self._directory()
            host(lambda: os.chown(self.node.name, uid, gid, dir_fd=directory, follow_symlinks=False))
            self.refresh()
        else:
            self._by_descriptor(lambda name: os.chown(name, uid, gid))

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Set the times on the host. Now is now there, as for what is written: `make` compares the two."""
        self.refresh()
        now = clock_gettime_ns(_CLOCK_REALTIME_COARSE)
        times = (
            self.atime_ns if atime_ns == OMIT else now if atime_ns == NOW else atime_ns,
            self.mtime_ns if mtime_ns == OMIT else now if mtime_ns == NOW else mtime_ns,
        )
        if self.is_symlink:
            directory = self._directory()
            host(lambda: os.utime(self.node.name, ns=times, dir_fd=directory, follow_symlinks=False))
            self.refresh()
        else:
            self._by_descriptor(lambda name: os.utime(name, ns=times))

    def _directory(self) -> int:
        parent = self.node.parent
        if parent is None:
            raise LinuxError(EOPNOTSUPP)
        return parent.directory_fd()


class WritableFile(RegularFile, Through):
    """A regular file of the host that may be written."""

    __slots__ = ("fs", "node")

    def __init__(self, fs: Overlay, node: HostNode) -> None:
        RegularFile.__init__(self, fs.cache, 0, 0, node.stat.st_mode)
        self.start(fs, node)

    @property
    def huge_aligned(self) -> bool:  # type: ignore[override]
        """As the host's file system does."""
        return self.node.tree.huge_aligned(self.node.stat.st_dev)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it on the host as well, and keep it open there: its name and mode may change."""
        self.node.file_fd(flags & O_ACCMODE != 0)
        self.refresh()
        opened = RegularFile.open(self, flags, location)
        self.node.keep = True
        return opened

    def closed(self) -> None:
        """Without openers the descriptor may be closed to make room, unless the file has no name."""
        if not self.opened and self.nlink:
            self.node.keep = False

    def end(self) -> int:
        """The size on the host, now."""
        if self.node.fd >= 0:
            self.size = os.fstat(self.node.fd).st_size
        return self.size

    def read_fd(self) -> int:
        """The host's file."""
        return self.node.file_fd()

    def write_fd(self, offset: int, length: int) -> int:
        """The host's file."""
        return self.node.file_fd(True)

    def written(self, end: int, modified: bool) -> None:
        """The host keeps the times."""
        self.size = max(self.size, end)

    def truncate(self, size: int) -> None:
        """Truncate it on the host."""
        if size < 0 or size > MAX_OFFSET:
            raise LinuxError(EINVAL if size < 0 else EFBIG)
        fd = self.node.file_fd(True)
        host(lambda: os.ftruncate(fd, size))
        self.size = size
        self.cut(size)


class WritableSymlink(Through):
    """A symbolic link of the host. Its text is resolved among the guest's names, so it leads to nothing else."""

    __slots__ = ("fs", "node")

    def __init__(self, fs: Overlay, node: HostNode) -> None:
        self.start(fs, node)

    def readlink(self) -> str:
        """Its text."""
        return self.node.readlink()


class WritableSpecial(Through):
    """A FIFO, socket or device of the host: seen, not opened."""

    __slots__ = ("fs", "node")

    def __init__(self, fs: Overlay, node: HostNode) -> None:
        self.start(fs, node)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Refuse, as for those outside."""
        raise no_special_file(self.mode)


class WritableDirectory(Through):
    """A directory of the host that may be changed.

    FIFOs and sockets that the guest makes here stay in memory (`private`): the host's are never opened.
    """

    __slots__ = ("fs", "node", "pinned", "private")

    volatile = True

    def __init__(self, fs: Overlay, node: HostNode) -> None:
        self.start(fs, node)
        self.pinned = False
        self.private: dict[str, Inode] = {}

    @property
    def forgettable(self) -> bool:
        """Not with names that are only here."""
        return not self.private

    def still(self, name: str, child: Inode) -> bool:
        """Whether the host still has this file under this name."""
        if name in self.private:
            return self.private[name] is child
        if not isinstance(child, Through):
            return False
        try:
            stat = os.stat(name, dir_fd=self.node.directory_fd(), follow_symlinks=False)
        except (OSError, LinuxError):
            return False
        same = (stat.st_dev, stat.st_ino) == child.node.key and not (stat.st_mode ^ child.mode) & S_IFMT
        if same and child.node.name:
            child.node.stat = stat
            child.node.parent, child.node.name = self.node, name
        return same

    def lookup(self, name: str) -> Inode:
        """Ours, or the host's."""
        if name in self.private:
            return self.private[name]
        return self.fs.inode_for(self.node.lookup(name), True)

    def entries(self) -> list[Entry]:
        """The host's order, then ours; sorted on a deterministic machine."""
        device, fs = self.node.stat.st_dev, self.fs
        names = self.node.names()
        if fs.deterministic:
            names.sort()
            names = [(name, fs.show(device, number), kind) for name, number, kind in names]
        return names + [(name, one.inode, d_type(one.mode)) for name, one in self.private.items()]

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names."""
        return DirectoryFile(self, flags, location)

    def _made(self, name: str, who: Identity, mode: int | None) -> Inode:
        """The inode of what was just made, with the mode and owner asked for."""
        node = self.node.lookup(name)
        self.fs.forget(*node.key, True)  # the number may have been another file's, before
        inode = self.fs.inode_for(node, True)
        if (who.fsuid, who.fsgid) != (inode.uid, inode.gid) and os.geteuid() == 0:
            gid = inode.gid if self.mode & 0o2000 else who.fsgid
            inode.set_owner(who.fsuid, gid)
        if mode is not None and inode.mode & 0o7777 != mode:
            inode.set_mode(mode)
        return inode

    def create(self, name: str, mode: int, who: Identity) -> Inode:
        """A new file on the host."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = self.node.directory_fd()
        fd = host(lambda: os.open(name, flags, 0o600, dir_fd=directory))
        try:
            host(lambda: os.fchmod(fd, mode & 0o7777))  # whatever the umask of this process is
            inode = self._made(name, who, None)
        except BaseException:
            os.close(fd)
            raise
        if isinstance(inode, WritableFile):
            inode.node.adopt_file(fd)
        else:
            os.close(fd)
        return inode

    def temporary(self, mode: int, who: Identity) -> Inode:
        """A file without a name on the host's file system."""
        directory = self.node.directory_fd()
        fd = host(lambda: os.open(f"/proc/self/fd/{directory}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode & 0o7777))
        host(lambda: os.fchmod(fd, mode & 0o7777))
        node = HostNode(self.node.tree, self.node, "", os.fstat(fd))
        self.fs.forget(*node.key, True)
        inode = self.fs.inode_for(node, True)
        assert isinstance(inode, WritableFile)
        node.adopt_file(fd)
        node.keep = True
        return inode

    def mkdir(self, name: str, mode: int, who: Identity) -> Inode:
        """A new directory on the host."""
        directory = self.node.directory_fd()
        host(lambda: os.mkdir(name, 0o700, dir_fd=directory))
        inode = self._made(name, who, None)
        inode.set_mode(mode & 0o1777 | inode.mode & 0o2000)
        self.refresh()
        return inode

    def symlink(self, name: str, target: str, who: Identity) -> Inode:
        """A new symbolic link on the host."""
        directory = self.node.directory_fd()
        host(lambda: os.symlink(target, name, dir_fd=directory))
        return self._made(name, who, None)

    def mknod(self, name: str, mode: int, rdev: int, who: Identity) -> Inode:
        """A FIFO or a socket's name, in memory."""
        kind = mode & S_IFMT
        made: Overlaid
        if kind == S_IFIFO:
            made = OverlayFifo(self.fs, mode)
        elif kind == S_IFSOCK:
            made = OverlaySpecial(self.fs, None, mode)
        else:
            raise LinuxError(EPERM, "a guest makes no devices")
        self.fs.budget.take(INODE_COST)
        made.owned(who, self)
        self.private[name] = made
        return made

    def link(self, name: str, inode: Inode) -> None:
        """Another name; EXDEV for a file from outside."""
        if not isinstance(inode, WritableFile | WritableSymlink):
            raise LinuxError(EXDEV, "the file is not in a directory that was handed over with --rw")
        node = inode.node
        if node.fd >= 0:  # its last known name may be gone, or never have been
            target = self.node.directory_fd()
            host(lambda: os.link(f"/proc/self/fd/{node.fd}", name, dst_dir_fd=target, follow_symlinks=True))
            node.name, node.parent = name, self.node
        else:
            assert node.parent is not None
            source, target = both_directories(node.parent, self.node)
            there = host(lambda: os.stat(node.name, dir_fd=source, follow_symlinks=False))
            if (there.st_dev, there.st_ino) != node.key:
                raise LinuxError(ENOENT)
            host(lambda: os.link(node.name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False))
        inode.refresh()

    def unlink(self, name: str, inode: Inode) -> None:
        """Remove a name on the host; the contents stay as long as they are open or mapped here."""
        if self.private.pop(name, None) is not None:
            self.fs.budget.take(-INODE_COST)
            return
        if isinstance(inode, WritableFile) and (inode.opened or inode.pages is not None):
            inode.node.file_fd()
            inode.node.keep = True
        directory = self.node.directory_fd()
        host(lambda: os.unlink(name, dir_fd=directory))
        self._gone(inode)

    def _gone(self, inode: Inode) -> None:
        if not isinstance(inode, Through):
            return
        if inode.nlink > 1 and not inode.is_directory:
            inode.nlink -= 1
            if inode.node.fd >= 0:
                inode.refresh()
        else:
            inode.nlink = 0
            self.fs.forget(*inode.node.key, True)

    def rmdir(self, name: str, inode: Inode) -> None:
        """Remove an empty directory on the host."""
        if isinstance(inode, WritableDirectory) and inode.private:
            raise LinuxError(ENOTEMPTY)
        directory = self.node.directory_fd()
        host(lambda: os.rmdir(name, dir_fd=directory))
        self._gone(inode)
        self.refresh()

    def rename(self, name: str, inode: Inode, target: Inode, new_name: str, replaced: Inode | None) -> None:
        """Rename on the host; EXDEV to anywhere outside."""
        if not isinstance(target, WritableDirectory):
            raise LinuxError(EXDEV, "one side is in a directory that was handed over with --rw, the other is not")
        if name in self.private or new_name in target.private:
            self._rename_private(name, inode, target, new_name, replaced)
            return
        if target.node.has_own(new_name):
            raise LinuxError(EBUSY, "the run itself writes a file of this name")
        if isinstance(replaced, WritableFile) and (replaced.opened or replaced.pages is not None):
            replaced.node.file_fd()
            replaced.node.keep = True
        source, to = both_directories(self.node, target.node)
        host(lambda: os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=to))
        if isinstance(inode, Through):
            inode.node.parent, inode.node.name = target.node, new_name
            inode.refresh()
        if replaced is not None:
            self._gone(replaced)
        self.refresh()
        target.refresh()

    def _rename_private(
        self, name: str, inode: Inode, target: WritableDirectory, new_name: str, replaced: Inode | None
    ) -> None:
        if replaced is not None:
            target.unlink(new_name, replaced)
        if name in self.private:
            target.private[new_name] = self.private.pop(name)
        else:
            self.rename(name, inode, target, new_name, None)
