"""/proc/locks: every lock of the machine, and below each who waits for it. Source: fs/locks.c, lock_get_status()."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.structs import major, minor
from loadstone.vfs.leases import Lease
from loadstone.vfs.locks import FOREVER, READ, UNLOCK, WRITE, Flock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.vfs.inode import Inode
    from loadstone.vfs.locks import LockTable, Record, Request


_LEASES = {READ: "READ", WRITE: "WRITE", UNLOCK: "UNLCK"}


def locks_text(table: LockTable) -> bytes:
    """The file's text: the newest lock first."""
    taken: list[tuple[Inode, Flock | Record | Lease]] = []
    for locks in table.files:
        taken += [(locks.inode, one) for one in locks.flocks]
        taken += [(locks.inode, one) for one in locks.records]
        taken += [(locks.inode, one) for one in (locks.leases.given if locks.leases is not None else ())]
    lines: list[str] = []
    for number, (inode, lock) in enumerate(sorted(taken, key=lambda one: -one[1].serial), 1):
        lines.append(f"{number}: {_line(inode, lock)}")
        lines += [f"{number}: -> {_line(inode, one)}" for one in _waiting(table, inode, lock)]
    return "".join(f"{line}\n" for line in lines).encode()


def _waiting(table: LockTable, inode: Inode, lock: Flock | Record | Lease) -> Iterator[Flock | Request]:
    """Those whom this lock is the first to block."""
    for where, wanted in table.waiting:
        if where is not inode or inode.locks is None:
            continue
        if isinstance(wanted, Flock):
            blocker: object = next((one for one in inode.locks.flocks if wanted.exclusive or one.exclusive), None)
        else:
            blocker = inode.locks.conflict(wanted)
        if blocker is lock:
            yield wanted


def _line(inode: Inode, lock: Flock | Record | Request | Lease) -> str:
    where = f"{major(inode.device):02x}:{minor(inode.device):02x}:{inode.inode}"
    if isinstance(lock, Flock):
        return f"FLOCK  ADVISORY  {'WRITE' if lock.exclusive else 'READ'} {lock.pid} {where} 0 EOF"
    if isinstance(lock, Lease):
        state = "BREAKING " if lock.breaking else "ACTIVE   "
        return f"LEASE  {state} {_LEASES[lock.target]} {lock.pid} {where} 0 EOF"
    kind = "POSIX " if lock.pid > 0 else "OFDLCK"
    end = "EOF" if lock.end == FOREVER else lock.end - 1
    return f"{kind} ADVISORY  {'WRITE' if lock.kind == WRITE else 'READ'} {lock.pid} {where} {lock.start} {end}"
