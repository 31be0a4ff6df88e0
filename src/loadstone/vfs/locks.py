"""File locks: flock(2) on open file descriptions, record locks of fcntl(2) on descriptor tables. Source: fs/locks.c.

A record lock belongs to a descriptor table (the kernel's `files_struct`), so that it is shared where descriptors are
and given back when any descriptor of the file is closed; with F_OFD_SETLK it belongs to the open file description.
Locks are kept per inode; the machine's `LockTable` knows which inodes have any, and which calls wait for one.
"""

from __future__ import annotations

from errno import EAGAIN
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.clock import Clock
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.leases import Leases

READ, WRITE, UNLOCK = 0, 1, 2  # F_RDLCK, F_WRLCK, F_UNLCK
FOREVER: Final = 1 << 63  # the end of a lock "to the end of the file"
MAX_DEADLOCK_STEPS: Final = 10  # MAX_DEADLK_ITERATIONS


class Flock(NamedTuple):
    """A lock on a whole file. `pid`: who took it, for /proc/locks. `serial`: how many locks were taken before it."""

    file: OpenFile
    exclusive: bool
    pid: int
    serial: int


class Record(NamedTuple):
    """A lock on bytes start..end (end not included). `owner`: a FileTable, or an OpenFile (then `pid` is -1)."""

    owner: object
    kind: int
    start: int
    end: int
    pid: int
    serial: int


class Request(NamedTuple):
    """A record lock that somebody wants (UNLOCK: wants to give back)."""

    owner: object
    kind: int
    start: int
    end: int
    pid: int

    def meets(self, other: Record | Request) -> bool:
        """Whether they have bytes in common."""
        return self.start < other.end and other.start < self.end


class LockTable:
    """All locks of a machine: the locked inodes, and the (inode, lock) that calls wait with.

    Attributes:
        leases_enabled, lease_seconds: fs.leases-enable and fs.lease-break-time; 0 seconds are for ever.
    """

    __slots__ = ("clock", "files", "lease_seconds", "leases_enabled", "serial", "waiting", "wake")

    def __init__(self, wake: Callable[[list[object]], object], clock: Clock) -> None:
        self.wake = wake
        self.clock = clock
        self.leases_enabled, self.lease_seconds = 1, 45
        self.files: list[FileLocks] = []
        self.waiting: list[tuple[Inode, Request | Flock]] = []
        self.serial = 0

    def of(self, inode: Inode) -> FileLocks:
        """The locks of an inode, made when first asked for."""
        if inode.locks is None:
            inode.locks = FileLocks(self, inode)
            self.files.append(inode.locks)
        return inode.locks

    def clear(self) -> None:
        """Forget everything: the machine is gone, and no inode may be kept by its locks."""
        for locks in self.files:
            locks.inode.locks = None
        self.files.clear()

    def next_serial(self) -> int:
        """A number for a new lock."""
        self.serial += 1
        return self.serial

    def is_deadlock(self, request: Request, blocker: Record) -> bool:
        """Whether the one who blocks `request` waits, perhaps through others, for its owner (posix_locks_deadlock)."""
        if not request.pid > 0:
            return False  # locks of open file descriptions belong to nobody who could wait
        for _ in range(MAX_DEADLOCK_STEPS):
            following = self._who_blocks(blocker.owner)
            if following is None:
                return False
            blocker = following
            if blocker.owner is request.owner:
                return True
        return False

    def _who_blocks(self, owner: object) -> Record | None:
        """The lock that `owner` waits for, None if it does not."""
        for inode, wanted in self.waiting:
            if isinstance(wanted, Request) and wanted.owner is owner:
                return inode.locks.conflict(wanted) if inode.locks is not None else None
        return None


class FileLocks:
    """The locks of one inode. It is dropped when nobody has or wants one. `leases`: None before the first."""

    __slots__ = ("flocks", "inode", "leases", "records", "released", "table")

    def __init__(self, table: LockTable, inode: Inode) -> None:
        self.table = table
        self.inode = inode
        self.flocks: list[Flock] = []
        self.records: list[Record] = []  # those of an owner together, by their start
        self.leases: Leases | None = None
        self.released = WaitQueue(f"a lock on inode {inode.inode}")

    def flock(self, file: OpenFile, exclusive: bool | None, pid: int) -> None:
        """Take a lock, or give it back (None); EAGAIN if another open file description has one that conflicts.

        A lock of the other kind is given back first, and lost if the new one is not to be had.
        """
        mine = [one for one in self.flocks if one.file is file]
        if mine and mine[0].exclusive == exclusive:
            return
        self._set_flocks([one for one in self.flocks if one.file is not file])
        if exclusive is None:
            return
        if any(exclusive or one.exclusive for one in self.flocks):
            raise LinuxError(EAGAIN)
        self.flocks.append(Flock(file, exclusive, pid, self.table.next_serial()))

    def _set_flocks(self, kept: list[Flock]) -> None:
        fewer = len(kept) < len(self.flocks)
        self.flocks = kept
        if fewer:
            self.notify()

    def conflict(self, request: Request) -> Record | None:
        """The first record lock that stands in the way, or None. Asked with UNLOCK: the owner's own."""
        for one in self.records:
            mine = one.owner is request.owner
            if request.kind == UNLOCK:
                if mine and request.meets(one):
                    return one
            elif not mine and request.meets(one) and WRITE in (request.kind, one.kind):
                return one
        return None

    def set(self, request: Request) -> None:
        """Lock or unlock bytes (F_SETLK); EAGAIN if another owner's lock conflicts."""
        if request.kind != UNLOCK and self.conflict(request) is not None:
            raise LinuxError(EAGAIN)
        old = [one for one in self.records if one.owner is request.owner]
        new = self._after(request, old)
        at = self.records.index(old[0]) if old else len(self.records)
        self.records[at : at + len(old)] = new
        if old and new != old:
            self.notify()

    def _after(self, request: Request, old: list[Record]) -> list[Record]:
        """What an owner has after a request: kept parts of the old, the new one joined with its like beside it."""
        kept: list[Record] = []
        start, end = request.start, request.end
        serial = 0
        for one in old:
            if one.kind == request.kind:
                if start <= one.end and one.start <= end:
                    start, end = min(start, one.start), max(end, one.end)
                    serial = serial or one.serial
                else:
                    kept.append(one)
                continue
            if not request.meets(one):
                kept.append(one)
                continue
            if one.start < request.start:
                kept.append(one._replace(end=request.start))
            if request.end < one.end:
                kept.append(one._replace(start=request.end))
        if request.kind != UNLOCK:
            serial = serial or self.table.next_serial()
            kept.append(Record(request.owner, request.kind, start, end, request.pid, serial))
        return sorted(kept, key=lambda one: one.start)

    def release_owner(self, owner: object) -> None:
        """A descriptor table closed a descriptor of the file, or an open file is gone: its record locks go."""
        if any(one.owner is owner for one in self.records):
            self.records = [one for one in self.records if one.owner is not owner]
            self.notify()
        self.settle()

    def release_file(self, file: OpenFile) -> None:
        """An open file description is gone, and its locks with it."""
        self._set_flocks([one for one in self.flocks if one.file is not file])
        if self.leases is not None:
            self.leases.release_file(file)
        self.release_owner(file)

    def settle(self) -> None:
        """Forget this if it is empty and nobody waits."""
        held = self.flocks or self.records or (self.leases is not None and self.leases.given)
        if self.inode.locks is self and not (held or self.released.waiters):
            self.inode.locks = None
            self.table.files.remove(self)

    def notify(self) -> None:
        """Something was given back: those who wait look again."""
        if self.released.waiters:
            self.table.wake(self.released.wake())
