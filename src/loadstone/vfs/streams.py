"""Descriptors of the host as files of the guest: stdin, stdout, stderr, and what else it inherits.

A transfer never blocks Loadstone: what would have to wait raises WouldBlock with the host's descriptor. A regular
file is used at the host's own offset, which is shared with whoever redirected it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from errno import EACCES, EINVAL, EIO, EISDIR, EOPNOTSUPP, EPERM, ESPIPE
from typing import TYPE_CHECKING

from loadstone.clock import EPOCH_NS
from loadstone.errors import LinuxError
from loadstone.vfs.file import OpenFile, WouldBlock, after, total
from loadstone.vfs.flags import (
    O_ACCMODE,
    O_APPEND,
    O_LARGEFILE,
    O_NONBLOCK,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    S_IFCHR,
    S_IFDIR,
    S_IFMT,
    S_IFREG,
)
from loadstone.vfs.inode import Inode
from loadstone.vfs.open_files import PathFile, RegularOpen
from loadstone.vfs.regular import IOV_MAX, RegularFile, before

if TYPE_CHECKING:
    from loadstone.vfs.location import Location
    from loadstone.vfs.regular import Cache
    from loadstone.vfs.vfs import Vfs

# What a host pipe or terminal that says "writable" surely takes without waiting: PIPE_BUF.
SURE_BYTES = 4096
# What a deterministic machine shows in place of the host's numbers.
ANONYMOUS_DEVICE, STREAM_INODES = 14, 9000
NULL_DEVICE = 1 << 8 | 3
FIONREAD = 0x541B  # include/uapi/asm-generic/ioctls.h


def _load_status(inode: Inode, fd: int, deterministic: bool) -> None:
    """Take the attributes from the host's descriptor."""
    stat = os.fstat(fd)
    inode.device, inode.inode, inode.mode = stat.st_dev, stat.st_ino, stat.st_mode
    inode.uid, inode.gid, inode.nlink, inode.rdev = stat.st_uid, stat.st_gid, stat.st_nlink, stat.st_rdev
    inode.size, inode.blocks = stat.st_size, stat.st_blocks
    inode.atime_ns, inode.mtime_ns, inode.ctime_ns = stat.st_atime_ns, stat.st_mtime_ns, stat.st_ctime_ns
    if deterministic:
        inode.device, inode.inode = ANONYMOUS_DEVICE, STREAM_INODES + fd
        inode.atime_ns = inode.mtime_ns = inode.ctime_ns = EPOCH_NS


class StreamInode(Inode):
    """A pipe, socket, terminal or other device of the host that was handed to us as a descriptor.

    `terminal`: whether the host says it is one; terminal ioctls go to `fd`, by an allow-list elsewhere.
    `handed_over`: whether it is the guest's alone, and to be closed with the guest's last open file of it: who reads
    the other end of a pipe then sees its end. The standard ones are ours as well, and stay.
    """

    __slots__ = ("deterministic", "fd", "handed_over", "opened", "terminal")

    def __init__(self, fd: int, deterministic: bool = False, handed_over: bool = False) -> None:
        super().__init__(0, 0, 0)
        self.fd = fd
        self.deterministic = deterministic
        self.handed_over = handed_over
        self.opened = 0  # open files there are of it
        self.refresh()
        self.terminal = self.mode & S_IFMT == S_IFCHR and os.isatty(fd)

    def refresh(self) -> None:
        """Ask the host."""
        _load_status(self, self.fd, self.deterministic)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it again (/dev/stdin, /proc/self/fd/0, /dev/tty): the same host descriptor."""
        return StreamFile(self, flags, location)

    def left(self) -> None:
        """One open file less."""
        self.opened -= 1
        if self.handed_over and not self.opened:
            os.close(self.fd)

    def truncate(self, size: int) -> None:
        """Nothing to cut."""
        raise LinuxError(EINVAL)


class StreamFile(OpenFile):
    """An open host pipe, terminal or device."""

    __slots__ = ("fd", "polled", "terminal")

    def __init__(self, inode: StreamInode, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location)
        inode.opened += 1
        self.fd = inode.fd
        self.terminal = inode.terminal
        self.polled = select.poll()
        self.polled.register(self.fd, POLLIN | POLLOUT)

    @property
    def path(self) -> str:
        """What the host calls it."""
        if self.location is not None:
            return self.location.path
        name = host_name(self.fd)
        if isinstance(self.inode, StreamInode) and self.inode.deterministic and name.endswith("]"):
            return f"{name.partition('[')[0]}[{self.inode.inode}]"
        return name

    def _events(self) -> int:
        found = self.polled.poll(0)
        return found[0][1] if found else 0

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Read what is there; WouldBlock if nothing is."""
        self.demand_readable()
        if offset is not None:
            raise LinuxError(ESPIPE)
        if not self._events() & ~POLLOUT:
            raise WouldBlock(None, self.fd, False)
        try:
            return os.readv(self.fd, pieces[:IOV_MAX])
        except BlockingIOError:
            raise WouldBlock(None, self.fd, False) from None
        except OSError as error:
            raise LinuxError(error.errno or EIO) from None

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Write what is taken at once; WouldBlock if nothing is. EPIPE becomes the guest's SIGPIPE."""
        self.demand_writable()
        if offset is not None:
            raise LinuxError(ESPIPE)
        if not pieces:
            return 0
        try:
            # Writes what fits and no more, where the host's kernel can do that (pipes: since 6.4).
            return os.pwritev(self.fd, pieces[:IOV_MAX], -1, os.RWF_NOWAIT)
        except BlockingIOError:
            raise WouldBlock(None, self.fd, True) from None
        except OSError as error:
            if error.errno not in (EOPNOTSUPP, ESPIPE, EINVAL):
                raise LinuxError(error.errno or EIO) from None
        return self._write_carefully(pieces)

    def _write_carefully(self, pieces: Sequence[memoryview]) -> int:
        """For terminals and older kernels: no more at a time than is surely taken."""
        done, wanted = 0, total(pieces)
        rest = list(pieces)
        while done < wanted:
            if not self._events() & ~POLLIN:
                break
            try:
                count = os.writev(self.fd, before(rest, SURE_BYTES)[:IOV_MAX])
            except BlockingIOError:
                break
            except OSError as error:
                if done:
                    return done
                raise LinuxError(error.errno or EIO) from None
            done += count
            rest = after(rest, count)
        if wanted and not done:
            raise WouldBlock(None, self.fd, True)
        return done

    def ready(self) -> int:
        """What the host says."""
        bits = self._events()
        if bits & POLLIN:
            bits |= POLLRDNORM
        if bits & POLLOUT:
            bits |= POLLWRNORM
        if not self.writable:
            bits &= ~(POLLOUT | POLLWRNORM)
        if not self.readable:
            bits &= ~(POLLIN | POLLRDNORM)
        return bits

    def available(self) -> int | None:
        """FIONREAD: what the host says; None where it does not know."""
        import fcntl

        try:
            return int.from_bytes(fcntl.ioctl(self.fd, FIONREAD, b"\0\0\0\0"), "little")
        except OSError:
            return None

    def host_fd(self) -> int:
        """The host's descriptor."""
        return self.fd

    def release(self) -> None:
        """Nobody of the guest's uses it any more."""
        assert isinstance(self.inode, StreamInode)
        self.inode.left()


class RedirectedFile(RegularFile):
    """A regular file of the host behind a descriptor that was handed to us, as by redirection. It may be mapped."""

    __slots__ = ("access", "deterministic", "fd")

    huge_aligned = False

    def __init__(self, cache: Cache | None, fd: int, access: int, deterministic: bool = False) -> None:
        super().__init__(cache, 0, 0, S_IFREG)
        self.fd = fd
        self.access = access
        self.deterministic = deterministic
        self.refresh()

    def refresh(self) -> None:
        """Ask the host."""
        _load_status(self, self.fd, self.deterministic)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it again, with an offset of its own, for no more than it was handed over for."""
        wanted = flags & O_ACCMODE
        if self.access != O_RDWR and wanted != self.access:
            raise LinuxError(EACCES, "the host's descriptor was not opened for this")
        return RegularOpen(self, flags, location)

    def end(self) -> int:
        """The size on the host, now."""
        self.size = os.fstat(self.fd).st_size
        return self.size

    def read_fd(self) -> int:
        """The descriptor."""
        return self.fd

    def write_fd(self, offset: int, length: int) -> int:
        """The descriptor."""
        return self.fd

    def written(self, end: int, modified: bool) -> None:
        """The host keeps the times."""
        self.size = max(self.size, end)

    def truncate(self, size: int) -> None:
        """Truncate it, if it was handed over for writing."""
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise LinuxError(error.errno or EIO) from None
        self.size = size
        self.cut(size)

    def set_mode(self, mode: int) -> None:
        """Refuse: the bytes were handed over, the file's permissions were not."""
        raise LinuxError(EPERM, "the host's file keeps its permissions")

    def drop_privileges(self) -> None:
        """The host's kernel does that itself when the file is written."""

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Left as it is: writing has set them."""


class RedirectedOpen(RegularOpen):
    """The descriptor itself: reads, writes and seeks move the host's offset, which others share."""

    __slots__ = ("fd",)

    def __init__(self, inode: RedirectedFile, flags: int) -> None:
        super().__init__(inode, flags, None)
        self.fd = inode.fd

    @property
    def path(self) -> str:
        """What the host calls it."""
        return host_name(self.fd)

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """As RegularOpen, at the host's offset."""
        if offset is None:
            self.offset = os.lseek(self.fd, 0, os.SEEK_CUR)
        done = super().read_into(pieces, offset)
        if offset is None:
            os.lseek(self.fd, self.offset, os.SEEK_SET)
        return done

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """As RegularOpen, at the host's offset."""
        if offset is None and not self.flags & O_APPEND:
            self.offset = os.lseek(self.fd, 0, os.SEEK_CUR)
        done = super().write_from(pieces, offset)
        if offset is None:
            os.lseek(self.fd, self.offset, os.SEEK_SET)
        return done

    def available(self) -> int:
        """What is left after the host's offset."""
        self.offset = os.lseek(self.fd, 0, os.SEEK_CUR)
        return super().available()

    def seek(self, offset: int, whence: int) -> int:
        """Move the host's offset."""
        if not self.flags & O_PATH:
            self.offset = os.lseek(self.fd, 0, os.SEEK_CUR)
        target = super().seek(offset, whence)
        os.lseek(self.fd, target, os.SEEK_SET)
        return target


def host_name(fd: int) -> str:
    """What the host calls a descriptor: `pipe:[123]`, `/dev/pts/0`, `/home/me/out`."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"host:[{fd}]"


def host_stream(vfs: Vfs, fd: int, *, handed_over: bool = False) -> OpenFile:
    """An open file over one of our own descriptors; EBADF if it is not open.

    It is not closed with the guest's file, unless it is no regular file and `handed_over`: the guest's alone.
    The host's /dev/null is the guest's: programs compare a descriptor with what stat(2) says of the name.
    """
    import fcntl

    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        status = os.fstat(fd)
    except OSError as error:
        raise LinuxError(error.errno or EIO) from None
    mode = status.st_mode
    if flags & O_PATH:
        return PathFile(StreamInode(fd, vfs.deterministic), flags, None)
    kept = flags & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_LARGEFILE)
    if mode & S_IFMT == S_IFREG:
        return RedirectedOpen(RedirectedFile(vfs.page_cache, fd, flags & O_ACCMODE, vfs.deterministic), kept)
    if mode & S_IFMT == S_IFCHR and status.st_rdev == NULL_DEVICE:
        return vfs.open("/dev/null", kept)
    if mode & S_IFMT == S_IFDIR:
        return DirectoryStream(StreamInode(fd, vfs.deterministic), O_RDONLY, None)
    return StreamFile(StreamInode(fd, vfs.deterministic, handed_over), kept & ~O_NONBLOCK, None)


class DirectoryStream(OpenFile):
    """A directory as stdin: nothing can be read from it."""

    __slots__ = ()

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """EISDIR."""
        raise LinuxError(EISDIR)
