"""Leases: who holds one is told before somebody else may open a file. Source: fs/locks.c.

A lease (F_SETLEASE) belongs to an open file description, and is for reading or for writing. Whoever opens the file in a
way that it excludes *breaks* it: the holder is told, has `fs.lease-break-time` to give it up or to make less of it, and
the opener waits until then.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.lean import Protocol
from loadstone.vfs.file import WouldBlock
from loadstone.vfs.locks import READ, UNLOCK, WRITE
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.locks import FileLocks

SECOND: Final = 1_000_000_000
NEVER: Final = 1 << 63


class Holder(Protocol):
    """Who has taken a lease."""

    def lease_asked(self) -> None:
        """Somebody wants to open the file: the lease is to be given up, or made less of."""

    def lease_ended(self) -> None:
        """It was given up, or taken away."""


class Lease:
    """One lease. `kind`: READ or WRITE. `pid`, `serial`: as of other locks.

    `unlock_by`, `downgrade_by`: the machine's time (ns) by which it has to be gone, or for reading only; 0 while nobody
    has asked for that.
    """

    __slots__ = ("downgrade_by", "file", "holder", "kind", "pid", "serial", "unlock_by")

    def __init__(self, file: OpenFile, holder: Holder, kind: int, pid: int, serial: int) -> None:
        self.file = file
        self.holder = holder
        self.kind = kind
        self.pid = pid
        self.serial = serial
        self.unlock_by = self.downgrade_by = 0

    @property
    def breaking(self) -> bool:
        """Whether its holder has been told."""
        return bool(self.unlock_by or self.downgrade_by)

    @property
    def target(self) -> int:
        """What it is to become: what F_GETLEASE answers (target_leasetype)."""
        return UNLOCK if self.unlock_by else READ if self.downgrade_by else self.kind

    def excludes(self, writes: bool) -> bool:
        """Whether opening the file for writing, or else for reading, has to wait for it."""
        return writes or self.kind == WRITE


class Leases:
    """The leases on one file: `given`, in the order in which they were taken."""

    __slots__ = ("_locks", "given")

    def __init__(self, locks: FileLocks) -> None:
        self._locks = locks
        self.given: list[Lease] = []

    def held(self, file: OpenFile) -> Lease | None:
        """The one of an open file description, if its time is not over."""
        self._expire()
        return next((one for one in self.given if one.file is file), None)

    def take(self, file: OpenFile, holder: Holder, kind: int, pid: int) -> None:
        """F_SETLEASE: a lease, or the one there is made another kind. EAGAIN if the way the file is open forbids it."""
        self._expire()
        _demand_agreeing(file, kind)
        mine = self.held(file)
        for one in self.given:
            if one is not mine and (kind == WRITE or one.unlock_by):
                raise LinuxError(EAGAIN)
        if mine is not None:
            self._change(mine, kind)
            return
        table = self._locks.table
        if not table.leases_enabled:
            raise LinuxError(EINVAL, "fs.leases-enable is 0")
        self.given.append(Lease(file, holder, kind, pid, table.next_serial()))

    def release_file(self, file: OpenFile) -> None:
        """The open file description gives its lease back, or is gone."""
        for one in [one for one in self.given if one.file is file]:
            self._change(one, UNLOCK)

    def broken(self, writes: bool) -> WouldBlock | None:
        """Break what excludes opening for writing, or else for reading; what is to be waited for (__break_lease)."""
        self._expire()
        table = self._locks.table
        until = table.clock.monotonic_ns() + table.lease_seconds * SECOND if table.lease_seconds else NEVER
        for one in self.given:
            if not one.excludes(writes) or one.unlock_by or (one.downgrade_by and not writes):
                continue
            if writes:
                one.unlock_by = until
            else:
                one.downgrade_by = until
            one.holder.lease_asked()
        ends = [min(one.unlock_by or NEVER, one.downgrade_by or NEVER) for one in self.given if one.excludes(writes)]
        if not ends:
            return None
        wait = WouldBlock(self._locks.released)
        wait.deadline = min(ends) if min(ends) < NEVER else None
        return wait

    def _expire(self) -> None:
        """Take what its holder has not given up in time (time_out_leases)."""
        now = self._locks.table.clock.monotonic_ns()
        for one in list(self.given):
            if 0 < one.downgrade_by <= now:
                self._change(one, READ)
            if 0 < one.unlock_by <= now:
                self._change(one, UNLOCK)

    def _change(self, lease: Lease, kind: int) -> None:
        """Make it another kind, or none, and let those look again who wait for it (lease_modify)."""
        lease.kind = kind
        if kind == UNLOCK:
            self.given.remove(lease)
            lease.holder.lease_ended()
        elif kind == READ:
            lease.downgrade_by = 0
        self._locks.notify()
        self._locks.settle()


def _demand_agreeing(file: OpenFile, kind: int) -> None:
    """EAGAIN if the file is open for writing, or for a lease to write if anybody else has it open."""
    inode = file.inode
    assert isinstance(inode, RegularFile)
    if kind == READ:
        if inode.write_count > 0:
            raise LinuxError(EAGAIN, "the file is open for writing")
    elif inode.opened != 1 or inode.write_count != int(file.writable):
        raise LinuxError(EAGAIN, "somebody else has the file open")
