"""Open file descriptions: what a file descriptor refers to. Their common kinds are in `open_files`."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EBADF, EINVAL, ENOTDIR, ESPIPE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import Protocol
from loadstone.vfs.flags import (
    CREATION,
    IN_CLOSE_NOWRITE,
    IN_CLOSE_WRITE,
    O_ACCMODE,
    O_CLOEXEC,
    O_NOATIME,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
)

if TYPE_CHECKING:
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Location
    from loadstone.vfs.pty import Pty
    from loadstone.vfs.regular import RegularFile
    from loadstone.wait import WaitQueue

ALWAYS_READY = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM


class WouldBlock(Exception):  # noqa: N818 - it is not an error: the handler waits, or gives EAGAIN with O_NONBLOCK
    """Nothing can be done now. Wait on `queue`, or for the host's descriptor (to be written if `host_write`)."""

    def __init__(self, queue: WaitQueue | None, host_fd: int = -1, host_write: bool = False) -> None:
        super().__init__()
        self.queue = queue
        self.host_fd = host_fd
        self.host_write = host_write
        self.deadline: int | None = None  # on the machine's clock, for files that wait for a limited time

    def follows(self, earlier: WouldBlock) -> None:
        """The file was asked again after `earlier`, and there is still nothing."""

    def expire(self) -> None:
        """The deadline has passed."""


def total(pieces: Sequence[memoryview]) -> int:
    """Bytes in all pieces."""
    return sum(map(len, pieces))


def after(pieces: Sequence[memoryview], done: int) -> list[memoryview]:
    """The pieces without their first `done` bytes."""
    rest: list[memoryview] = []
    for piece in pieces:
        if done >= len(piece):
            done -= len(piece)
        else:
            rest.append(piece[done:] if done else piece)
            done = 0
    return rest


class Follower(Protocol):
    """Who is interested in an open file without keeping it open."""

    def file_closed(self) -> None:
        """The last descriptor is closed."""


class OpenFile:
    """An open file description (the kernel's `struct file`): shared by descriptors that dup() and fork() made.

    This class is one that can neither be read nor written: subclasses say what their kind of file does.
    """

    __slots__ = (
        "created", "file_interests", "flags", "inode", "location", "offset", "read_queue", "references", "write_queue",
    )  # fmt: skip

    terminal: bool = False  # whether job control looks at who reads and writes
    tty: Pty | None = None  # the pseudo-terminal behind it, if it is a side of one
    driver: str = ""  # of a device that answers requests of its own: which of ours it is
    mapped: RegularFile | None = None  # what mmap(2) maps in place of the inode: the contents of a block device
    asynchronous: bool = False  # whether it knows O_ASYNC: tells by its queues what happens (f_op->fasync)
    pollable: bool = True  # whether epoll takes it; poll(2) takes every file, and says of others that they are ready

    def __init__(self, inode: Inode, flags: int, location: Location | None) -> None:
        self.inode = inode
        self.flags = flags & ~(CREATION | O_CLOEXEC)
        self.location = location
        self.offset = 0
        self.created = False  # the file was made by opening it
        self.references = 0  # descriptors; the last close() releases
        self.read_queue: WaitQueue | None = None
        self.write_queue: WaitQueue | None = None
        self.file_interests: tuple[Follower, ...] = ()  # what is to be told when the last descriptor is closed

    @property
    def path(self) -> str:
        """What /proc/self/fd/N reads."""
        location = self.location
        return location.path if location is not None else f"anon_inode:[{self.inode.inode}]"

    @property
    def readable(self) -> bool:
        """Whether it was opened for reading."""
        return self.flags & O_ACCMODE in (O_RDONLY, O_RDWR) and not self.flags & O_PATH

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self.flags & O_ACCMODE in (O_WRONLY, O_RDWR) and not self.flags & O_PATH

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Read into `pieces` in order; the number of bytes, 0 at the end.

        With `offset` None the file offset is used and moved. Raises WouldBlock, or LinuxError.
        """
        self.demand_readable()
        raise LinuxError(EINVAL)

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Write `pieces` in order; the number of bytes, which may be less than there are. Raises as read_into."""
        self.demand_writable()
        raise LinuxError(EINVAL)

    def demand_readable(self) -> None:
        """EBADF if it was not opened for reading."""
        if not self.readable:
            raise LinuxError(EBADF)

    def demand_writable(self) -> None:
        """EBADF if it was not opened for writing."""
        if not self.writable:
            raise LinuxError(EBADF)

    def seek(self, offset: int, whence: int) -> int:
        """Move the file offset; the new one."""
        if self.flags & O_PATH:
            raise LinuxError(EBADF)
        raise LinuxError(ESPIPE)

    def truncate(self, size: int) -> None:
        """Make the file `size` bytes long: ftruncate(2)."""
        raise LinuxError(EBADF if self.flags & O_PATH else EINVAL)

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """fallocate(2)."""
        self.demand_writable()
        raise LinuxError(ESPIPE)

    def sync(self) -> None:
        """fsync(2)."""
        raise LinuxError(EBADF if self.flags & O_PATH else EINVAL)

    def next_entries(self) -> list[tuple[str, int, int, int]]:
        """(name, inode number, d_type, cookie) from the offset on; after taking one set `offset = cookie`."""
        raise LinuxError(EBADF if self.flags & O_PATH else ENOTDIR)

    def ready(self) -> int:
        """The POLL* bits that hold now."""
        return ALWAYS_READY

    @property
    def positioned(self) -> bool:
        """Whether it can be read and written at an offset: pread(2), pwrite(2)."""
        return False

    def available(self) -> int | None:
        """FIONREAD: bytes that can be read now without waiting; None where the question has no answer."""
        return None

    def tells_of_room(self) -> bool:
        """Whether O_ASYNC is to tell of room now, of which the queue for writers has just told."""
        return True

    def swallow(self, count: int) -> int:
        """Take `count` bytes without looking at them, as /dev/null does; -1 if this file wants to see what it gets."""
        return -1

    def host_fd(self) -> int:
        """The host's descriptor to wait for, -1 if everything here is ours."""
        return -1

    @property
    def breaks_silently(self) -> bool:
        """Whether writing where nobody reads gives EPIPE without SIGPIPE."""
        return False

    def queues(self) -> list[WaitQueue]:
        """What wakes those who wait for it, whatever they wait for: errors and hang-ups concern everybody."""
        return [one for one in (self.read_queue, self.write_queue) if one is not None]

    def opening(self) -> WouldBlock | None:
        """What the opener must still wait for: the other end of a FIFO, who has a lease. Ask again when woken."""
        return None

    @property
    def watched(self) -> bool:
        """Whether somebody wants to know what is done to it."""
        return self.location is not None and self.location.dentry.watched

    def tell(self, mask: int) -> None:
        """Tell who watches it of IN_* events."""
        location = self.location
        if location is not None and location.dentry.watched:
            from loadstone.vfs.watches import tell_place

            tell_place(location.dentry, mask, by_file=True)

    def accessed(self) -> None:
        """It was read: note the time (file_accessed)."""
        location = self.location
        if location is not None and not self.flags & O_NOATIME:
            location.accessed()

    def hold(self) -> None:
        """One more descriptor refers to this."""
        self.references += 1

    def close(self) -> None:
        """One descriptor less; the last one releases the file."""
        self.references -= 1
        if self.references <= 0:
            told = self.watched and not self.flags & O_PATH
            if told:
                self.tell(IN_CLOSE_WRITE if self.writable else IN_CLOSE_NOWRITE)
            for one in self.file_interests:
                one.file_closed()
            if self.inode.locks is not None:
                self.inode.locks.release_file(self)
            self.release()
            if told:
                from loadstone.vfs.watches import end_if_gone

                end_if_gone(self.inode)

    def release(self) -> None:
        """Nobody refers to this any more."""
