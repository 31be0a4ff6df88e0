"""Files without a place, to be waited for: eventfd counters, epoll lists. Sources: fs/eventfd.c, fs/eventpoll.c."""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.file import OpenFile, WouldBlock, total
from loadstone.vfs.flags import O_RDWR, POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from loadstone.vfs.inode import Inode
from loadstone.vfs.regular import scatter
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadstone.vfs.vfs import Vfs

ANON_INODE_DEVICE = 15
EPOLLONESHOT, EPOLLET = 1 << 30, 1 << 31
MAX_COUNT = (1 << 64) - 2


class AnonymousInode(Inode):
    """The one inode behind all files of this kind: permissions without a type."""

    __slots__ = ()

    def __init__(self, vfs: Vfs) -> None:
        super().__init__(ANON_INODE_DEVICE, 1, 0o600, now_ns=vfs.clock.realtime_ns())


class AnonymousFile(OpenFile):
    """A file without a place, called `anon_inode:[kind]`."""

    __slots__ = ("vfs",)

    kind = ""

    def __init__(self, vfs: Vfs, flags: int) -> None:
        super().__init__(AnonymousInode(vfs), O_RDWR | flags, None)
        self.vfs = vfs

    @property
    def path(self) -> str:
        """As /proc/self/fd shows it."""
        return f"anon_inode:[{self.kind}]"


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
        self._notify(self.write_queue)
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
        self._notify(self.read_queue)
        return 8

    def _notify(self, queue: WaitQueue | None) -> None:
        if queue is not None and queue.waiters:
            self.vfs.wake(queue.wake())

    def available(self) -> int | None:
        """What a read gives: 8 bytes or a wait."""
        return 8 if self.count else 0

    def ready(self) -> int:
        """POLLIN with a count, POLLOUT with room."""
        bits = POLLIN | POLLRDNORM if self.count else 0
        return bits | (POLLOUT | POLLWRNORM if self.count < MAX_COUNT else 0)


class Interest:
    """What is wanted of one descriptor."""

    __slots__ = ("data", "events", "file", "told")

    def __init__(self, file: OpenFile, events: int, data: int) -> None:
        self.file = file
        self.events = events
        self.data = data
        self.told = 0  # with EPOLLET: the bits for writing that were reported and have not gone since

    def occurred(self) -> int:
        """The events to report now."""
        bits = self.file.ready() & (self.events | POLLERR | POLLHUP) & 0xFFFF
        if not self.events & EPOLLET:
            return bits
        # Reading is reported as long as there is something: a program that empties the file sees no difference, and
        # none can miss an arrival. Readiness for writing would never end, so it is reported when it begins.
        writing = bits & (POLLOUT | POLLWRNORM)
        fresh = bits & ~self.told
        self.told = writing
        return fresh


class EpollFile(AnonymousFile):
    """An interest list: descriptor -> Interest."""

    __slots__ = ("interests",)

    kind = "eventpoll"

    def __init__(self, vfs: Vfs) -> None:
        super().__init__(vfs, 0)
        self.interests: dict[int, Interest] = {}

    def forget_closed(self) -> None:
        """A file leaves the list when its last descriptor is closed."""
        for fd in [fd for fd, one in self.interests.items() if one.file.references <= 0]:
            del self.interests[fd]

    def add(self, fd: int, interest: Interest) -> None:
        """EPOLL_CTL_ADD."""
        self.forget_closed()
        old = self.interests.get(fd)
        if old is not None and old.file is interest.file:
            raise LinuxError(EEXIST)
        self.interests[fd] = interest

    def find(self, fd: int, file: OpenFile) -> Interest:
        """The interest in a descriptor; ENOENT."""
        self.forget_closed()
        found = self.interests.get(fd)
        if found is None or found.file is not file:
            raise LinuxError(ENOENT)
        return found

    def collect(self, most: int) -> list[tuple[int, int]]:
        """(events, data) of what has occurred, `most` at most; one-shot interests are then silent."""
        self.forget_closed()
        found: list[tuple[int, int]] = []
        for fd in list(self.interests):
            one = self.interests[fd]
            if not one.events & 0xFFFF and one.events & EPOLLONESHOT:
                continue
            bits = one.occurred()
            if not bits:
                continue
            found.append((bits, one.data))
            if one.events & EPOLLONESHOT:
                one.events = EPOLLONESHOT
            # whoever was served goes to the end, so that nobody starves
            self.interests[fd] = self.interests.pop(fd)
            if len(found) == most:
                break
        return found

    def lists(self) -> Iterator[EpollFile]:
        """The interest lists that this one has an interest in."""
        return (one.file for one in self.interests.values() if isinstance(one.file, EpollFile))

    def sources(self) -> list[Interest]:
        """The interests in files that are no lists, here and in the lists that are waited for, each list once."""
        found: list[Interest] = []
        todo = [self]
        for here in todo:
            here.forget_closed()
            for one in here.interests.values():
                if not isinstance(one.file, EpollFile):
                    found.append(one)
                elif one.events & POLLIN and one.file not in todo:
                    todo.append(one.file)
        return found

    def watched(self, events: int) -> list[tuple[OpenFile, int]]:
        """Whatever may make it readable."""
        return [(one.file, one.events) for one in self.sources()] if events & POLLIN else []

    def ready(self) -> int:
        """POLLIN when something has occurred."""
        wanted = (one.file.ready() & (one.events | POLLERR | POLLHUP) & 0xFFFF for one in self.sources())
        return POLLIN | POLLRDNORM if any(wanted) else 0
