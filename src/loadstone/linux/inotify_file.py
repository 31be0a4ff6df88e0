"""What inotify_init(2) gives: watches, and the events they were told. Sources: fs/notify/, fs/notify/inotify/."""

from __future__ import annotations

from collections import deque
from errno import EEXIST, EINVAL, ENOSPC, ESPIPE
from os import fsencode
from struct import Struct
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.vfs.file import WouldBlock, total
from loadstone.vfs.flags import (
    IN_ALL_EVENTS,
    IN_DELETE_SELF,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_MOVE_SELF,
    IN_ONESHOT,
    IN_Q_OVERFLOW,
    O_ACCMODE,
    O_RDONLY,
    POLLIN,
    POLLRDNORM,
)
from loadstone.vfs.regular import scatter
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.inode import Inode
    from loadstone.vfs.vfs import Vfs

MOST_EVENTS: Final = 16_384  # fs.inotify.max_queued_events
MOST_WATCHES: Final = 65_536  # fs.inotify.max_user_watches; the kernel's depends on its memory
_KEPT = IN_EXCL_UNLINK | IN_ONESHOT  # of a watch, besides the events
_HEADER = Struct("<iIII")  # struct inotify_event without its name


class Event(NamedTuple):
    """A struct inotify_event."""

    watch: int
    mask: int
    cookie: int = 0
    name: bytes = b""

    def packed(self) -> bytes:
        """As read(2) gives it: the name is padded to whole headers, at least one NUL."""
        name = self.name
        length = -(-(len(name) + 1) // _HEADER.size) * _HEADER.size if name else 0
        return _HEADER.pack(self.watch, self.mask, self.cookie, length) + name.ljust(length, b"\0")


class InodeWatch:
    """One watch. Implements `vfs.watches.Watch`; keeps its inode."""

    __slots__ = ("file", "inode", "mask", "number")

    def __init__(self, file: InotifyFile, inode: Inode, mask: int, number: int) -> None:
        self.file = file
        self.inode = inode
        self.mask = mask
        self.number = number

    def tell(self, mask: int, name: str = "", cookie: int = 0, *, unlinked: bool = False) -> None:
        """Queue it, if it is wanted (inotify_handle_inode_event)."""
        if not mask & self.mask & IN_ALL_EVENTS or (unlinked and self.mask & IN_EXCL_UNLINK):
            return
        if mask & (IN_DELETE_SELF | IN_MOVE_SELF):
            mask &= ~IN_ISDIR
        self.file.queue(Event(self.number, mask, cookie, fsencode(name)))
        if self.mask & IN_ONESHOT:
            self.end()

    def end(self) -> None:
        """The watch is over, and that is told."""
        self.file.forget(self)
        self.file.queue(Event(self.number, IN_IGNORED))


class InotifyFile(AnonymousFile):
    """An inotify instance. `watches`: by their numbers, which are not used again."""

    __slots__ = ("_events", "_last", "_overflown", "watches")

    kind = "inotify"
    asynchronous = True

    def __init__(self, vfs: Vfs, flags: int) -> None:
        super().__init__(vfs, flags)
        self.flags = self.flags & ~O_ACCMODE | O_RDONLY
        self.watches: dict[int, InodeWatch] = {}
        self.read_queue: WaitQueue = WaitQueue("an event in an inotify instance")
        self._events: deque[Event] = deque()
        self._overflown = False  # the event that says so is in the queue
        self._last = 0

    @property
    def path(self) -> str:
        """As /proc/self/fd shows it: the one kind without brackets."""
        return "anon_inode:inotify"

    def watch(self, inode: Inode, mask: int) -> int:
        """inotify_add_watch(2): a new watch, or another mask for the one there is; its number. EEXIST, ENOSPC."""
        known = next((one for one in inode.watches if isinstance(one, InodeWatch) and one.file is self), None)
        wanted = mask & (IN_ALL_EVENTS | _KEPT)
        if known is not None:
            if mask & IN_MASK_CREATE:
                raise LinuxError(EEXIST)
            known.mask = known.mask | wanted if mask & IN_MASK_ADD else wanted
            return known.number
        if len(self.watches) >= MOST_WATCHES:
            raise LinuxError(ENOSPC)
        self._last += 1
        made = self.watches[self._last] = InodeWatch(self, inode, wanted, self._last)
        inode.watches = (*inode.watches, made)
        return made.number

    def forget(self, watch: InodeWatch) -> None:
        """Watch no more."""
        del self.watches[watch.number]
        watch.inode.watches = tuple(one for one in watch.inode.watches if one is not watch)

    def queue(self, event: Event) -> None:
        """Let it be read, unless it says what the last one says. Past the limit it is lost, which is told once."""
        events = self._events
        if len(events) >= MOST_EVENTS:
            if self._overflown:
                return
            self._overflown = True
            event = Event(-1, IN_Q_OVERFLOW)
        elif events and _what(events[-1]) == _what(event):
            return
        events.append(event)
        self._notify(self.read_queue, POLLIN | POLLRDNORM)

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """As many events as fit; EINVAL if not even the first does."""
        if offset is not None:
            raise LinuxError(ESPIPE)
        if not self._events:
            raise WouldBlock(self.read_queue)
        room = total(pieces)
        data = bytearray()
        while self._events:
            packed = self._events[0].packed()
            if len(data) + len(packed) > room:
                break
            data += packed
            if self._events.popleft().watch < 0:
                self._overflown = False
        if not data:
            raise LinuxError(EINVAL)
        scatter(pieces, memoryview(data))
        return len(data)

    def available(self) -> int | None:
        """FIONREAD: bytes of all events."""
        return sum(len(event.packed()) for event in self._events)

    def ready(self) -> int:
        """POLLIN while there are events."""
        return POLLIN | POLLRDNORM if self._events else 0

    def seek(self, offset: int, whence: int) -> int:
        """Nothing moves (noop_llseek)."""
        return 0

    def release(self) -> None:
        """Nobody will be told."""
        for watch in list(self.watches.values()):
            self.forget(watch)


def _what(event: Event) -> tuple[int, int, bytes]:
    """What makes two events the same (event_compare): not the cookie."""
    return event.watch, event.mask, event.name
