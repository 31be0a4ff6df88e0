"""Files without a place, to be waited for: what they have in common, and eventfd counters. Source: fs/eventfd.c."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.file import OpenFile, WouldBlock, total
from loadstone.vfs.flags import O_RDWR, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from loadstone.vfs.inode import Inode
from loadstone.vfs.regular import scatter
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.vfs import Vfs

ANON_INODE_DEVICE = 15
MAX_COUNT = (1 << 64) - 2


class AnonymousInode(Inode):
    """The one inode behind all files of this kind: permissions without a type."""

    __slots__ = ()

    def __init__(self, vfs: Vfs) -> None:
        super().__init__(ANON_INODE_DEVICE, 1, 0o600, now_ns=vfs.clock.realtime_ns())


class AnonymousFile(OpenFile):
    """A file without a place, called `anon_inode:[kind]`.

    `seeks`: lseek(2) succeeds and does nothing (noop_llseek); else it is ESPIPE.
    """

    __slots__ = ("vfs",)

    kind = ""
    seeks = True

    def __init__(self, vfs: Vfs, flags: int) -> None:
        super().__init__(AnonymousInode(vfs), O_RDWR | flags, None)
        self.vfs = vfs

    @property
    def path(self) -> str:
        """As /proc/self/fd shows it."""
        return f"anon_inode:[{self.kind}]"

    def seek(self, offset: int, whence: int) -> int:
        """There is nowhere to go, which for most is no error."""
        return 0 if self.seeks else super().seek(offset, whence)

    def details(self) -> bytes:
        """What /proc/PID/fdinfo/FD says besides what it says of all files (show_fdinfo)."""
        return b""

    def _notify(self, queue: WaitQueue | None, events: int = 0) -> None:
        """Make whoever waits on the queue run, and tell of `events`: POLL* bits, 0 for any change."""
        if queue is not None and (queue.waiters or queue.listeners):
            self.vfs.wake(queue.wake(events=events))


class EventFile(AnonymousFile):
    """A counter that is waited on."""

    __slots__ = ("count", "semaphore")

    kind = "eventfd"

    def __init__(self, vfs: Vfs, count: int, semaphore: bool, flags: int) -> None:
        super().__init__(vfs, flags)
        self.count = count
        self.semaphore = semaphore
        self.read_queue = WaitQueue("a count in an eventfd")
        self.write_queue = WaitQueue("room in an eventfd")

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Take the count, or one of it."""
        if total(pieces) < 8:
            raise LinuxError(EINVAL)
        if not self.count:
            raise WouldBlock(self.read_queue)
        taken = 1 if self.semaphore else self.count
        self.count -= taken
        scatter(pieces, memoryview(taken.to_bytes(8, "little")))
        self._notify(self.write_queue, POLLOUT)
        return 8

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Add to the count."""
        if total(pieces) < 8:
            raise LinuxError(EINVAL)
        added = int.from_bytes(b"".join(pieces)[:8], "little")
        if added > MAX_COUNT:
            raise LinuxError(EINVAL)
        if self.count + added > MAX_COUNT:
            raise WouldBlock(self.write_queue)
        self.count += added
        self._notify(self.read_queue, POLLIN)
        return 8

    def available(self) -> int | None:
        """What a read gives: 8 bytes or a wait."""
        return 8 if self.count else 0

    def ready(self) -> int:
        """POLLIN with a count, POLLOUT with room."""
        bits = POLLIN | POLLRDNORM if self.count else 0
        return bits | (POLLOUT | POLLWRNORM if self.count < MAX_COUNT else 0)
