"""Pipes and FIFOs. Source: fs/pipe.c."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import EBADF, EBUSY, EINVAL, ENXIO, EPIPE, ESPIPE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.file import OpenFile, WouldBlock, total
from loadstone.vfs.flags import (
    O_ACCMODE,
    O_DIRECT,
    O_NONBLOCK,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    S_IFIFO,
)
from loadstone.vfs.inode import Inode
from loadstone.vfs.ring import PAGE, Ring
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from loadstone.vfs.location import Location

Waker = Callable[[list[object]], object]

PAGE_BITS = 12
MOST_BYTES = 1 << 31  # of F_SETPIPE_SZ


def no_waker(woken: list[object]) -> None:
    """For pipes nobody waits on."""


class Pipe:
    """A ring with those who read and write it."""

    __slots__ = ("opens", "readable", "readers", "ring", "wake", "writable", "writers")

    def __init__(self, wake: Waker, name: str) -> None:
        self.ring = Ring()
        self.readers = 0
        self.writers = 0
        self.opens = [0, 0]  # how often an end for reading, for writing was ever opened
        self.wake = wake
        self.readable = WaitQueue(f"data in {name}")
        self.writable = WaitQueue(f"room in {name}")

    def notify(self, queue: WaitQueue, events: int = 0) -> None:
        """Make whoever waits on `queue` run, and tell of `events`: POLL* bits, 0 for any change."""
        if queue.waiters or queue.listeners:
            self.wake(queue.wake(events=events))

    def read(self, pieces: Sequence[memoryview]) -> int:
        """Take bytes; 0 when the last writer is gone; WouldBlock when there is nothing yet."""
        wanted = total(pieces)
        if wanted == 0:
            return 0
        if not self.ring.buffers:
            if self.writers:
                raise WouldBlock(self.readable)
            return 0
        was_full = self.ring.full
        count = self.ring.take(pieces, wanted)
        if was_full and not self.ring.full:
            self.notify(self.writable, POLLOUT | POLLWRNORM)
        return count

    def write(self, pieces: Sequence[memoryview], packet: bool = False) -> int:
        """Put bytes, up to a page of them all or none; EPIPE without a reader; WouldBlock when there is no room."""
        wanted = total(pieces)
        if wanted == 0:
            return 0
        if not self.readers:
            raise LinuxError(EPIPE)
        count = self.ring.put(pieces, wanted, packet)
        if not count:
            raise WouldBlock(self.writable)
        self.notify(self.readable, POLLIN | POLLRDNORM)
        return count

    @property
    def capacity(self) -> int:
        """F_GETPIPE_SZ: bytes in as many full pages as there may be."""
        return self.ring.most * PAGE

    def resize(self, size: int) -> int:
        """F_SETPIPE_SZ: round up to a power of two of pages; EBUSY if more buffers are in use."""
        if size > MOST_BYTES:
            raise LinuxError(EINVAL)
        buffers = 1 << (max(size, PAGE) - 1).bit_length() >> PAGE_BITS
        if buffers < len(self.ring.buffers):
            raise LinuxError(EBUSY)
        self.ring.most = buffers
        self.notify(self.writable)
        return self.capacity


class PipeInode(Inode):
    """What fstat() of a pipe without a name shows."""

    __slots__ = ("pipe",)

    def __init__(self, device: int, inode: int, uid: int, gid: int, now_ns: int, wake: Waker) -> None:
        super().__init__(device, inode, S_IFIFO | 0o600, uid, gid, now_ns)
        self.pipe = Pipe(wake, f"pipe:[{inode}]")

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open an end again, through /proc/self/fd; unlike a FIFO's, this never waits (fifo_open(): is_pipe)."""
        return PipeFile(self, flags, None, self.pipe)

    def set_mode(self, mode: int) -> None:
        """Nobody looks at it, but it is kept."""
        self.mode = S_IFIFO | mode & 0o7777

    def set_owner(self, uid: int, gid: int) -> None:
        """Nobody looks at it, but it is kept."""
        self.uid = uid if uid >= 0 else self.uid
        self.gid = gid if gid >= 0 else self.gid


class PipeFile(OpenFile):
    """One end of a pipe, or both (a FIFO opened for reading and writing)."""

    __slots__ = ("hangs_up_after", "pipe", "waits_from")

    asynchronous = True

    def __init__(self, inode: Inode, flags: int, location: Location | None, pipe: Pipe) -> None:
        super().__init__(inode, flags, location)
        access = flags & O_ACCMODE
        if location is not None and access == O_WRONLY and flags & O_NONBLOCK and not pipe.readers:
            raise LinuxError(ENXIO, "nobody has this FIFO open for reading")
        self.pipe = pipe
        self.hangs_up_after = 0  # POLLHUP means that of more than these openings for writing none is left
        self.waits_from = -1  # how often the other end had been opened when this one was, if it was not open then
        if access in (O_RDONLY, O_RDWR):
            pipe.readers += 1
            pipe.opens[0] += 1
            self.read_queue = pipe.readable
        if access in (O_WRONLY, O_RDWR):
            pipe.writers += 1
            pipe.opens[1] += 1
            self.write_queue = pipe.writable
        other = pipe.writers if access == O_RDONLY else pipe.readers
        if location is not None and not other:
            if flags & O_NONBLOCK:
                self.hangs_up_after = pipe.opens[1]
            else:
                self.waits_from = pipe.opens[1 if access == O_RDONLY else 0]
        pipe.notify(pipe.readable)
        pipe.notify(pipe.writable)

    @property
    def path(self) -> str:
        """`pipe:[N]`, or a FIFO's path."""
        return self.location.path if self.location is not None else f"pipe:[{self.inode.inode}]"

    def opening(self) -> WouldBlock | None:
        """The other end of a FIFO, until somebody has opened it (even if it is closed again by now)."""
        reads = self.flags & O_ACCMODE == O_RDONLY
        if self.waits_from < 0 or self.pipe.opens[1 if reads else 0] > self.waits_from:
            return None
        return WouldBlock(self.pipe.readable if reads else self.pipe.writable)

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Take bytes out of the pipe."""
        self.demand_readable()
        if offset is not None:
            raise LinuxError(ESPIPE)
        done = self.pipe.read(pieces)
        if done:
            self.accessed()
        return done

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Put bytes into the pipe."""
        self.demand_writable()
        if offset is not None:
            raise LinuxError(ESPIPE)
        try:
            done = self.pipe.write(pieces, bool(self.flags & O_DIRECT))
        except WouldBlock:
            if self.flags & O_NONBLOCK:  # pollers are told even of a write that had no room (poll_usage)
                self.pipe.notify(self.pipe.readable, POLLIN | POLLRDNORM)
            raise
        if done and self.location is not None and not self.location.read_only:
            self.inode.fed()
        return done

    def ready(self) -> int:
        """Source: fs/pipe.c, pipe_poll()."""
        pipe, bits = self.pipe, 0
        if self.readable:
            if pipe.ring.buffers:
                bits |= POLLIN | POLLRDNORM
            if not pipe.writers and pipe.opens[1] > self.hangs_up_after:
                bits |= POLLHUP
        if self.writable:
            if not pipe.ring.full:
                bits |= POLLOUT | POLLWRNORM
            if not pipe.readers:
                bits |= POLLERR
        return bits

    def available(self) -> int:
        """FIONREAD: bytes that can be read now."""
        if self.flags & O_ACCMODE not in (O_RDONLY, O_WRONLY, O_RDWR):
            raise LinuxError(EBADF)
        return len(self.pipe.ring)

    def release(self) -> None:
        """This end is gone; the other end sees end of file, or EPIPE."""
        access, pipe = self.flags & O_ACCMODE, self.pipe
        if access in (O_RDONLY, O_RDWR):
            pipe.readers -= 1
        if access in (O_WRONLY, O_RDWR):
            pipe.writers -= 1
        if not pipe.readers and not pipe.writers:
            pipe.ring.clear()
        pipe.notify(pipe.readable)
        pipe.notify(pipe.writable)


def make_pipe(inode: PipeInode, flags: int) -> tuple[OpenFile, OpenFile]:
    """The two ends of a new pipe: the one that reads, the one that writes."""
    return PipeFile(inode, O_RDONLY | flags, None, inode.pipe), PipeFile(inode, O_WRONLY | flags, None, inode.pipe)
