"""/proc/locks: every lock of the machine, and below each who waits for it. Source: fs/locks.c, lock_get_status()."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.structs import major, minor
from loadstone.vfs.locks import FOREVER, WRITE, Flock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.vfs.inode import Inode
    from loadstone.vfs.locks import LockTable, Record, Request


def locks_text(table: LockTable) -> bytes:
    """The file's text: the newest lock first."""
    taken: list[tuple[Inode, Flock | Record]] = []
    for locks in table.files:
        taken += [(locks.inode, one) for one in locks.flocks]
        taken += [(locks.inode, one) for one in locks.records]
    lines: list[str] = []
    for number, (inode, lock) in enumerate(sorted(taken, key=lambda one: -one[1].serial), 1):
        lines.append(f"{number}: {_line(inode, lock)}")
        lines += [f"{number}: -> {_line(inode, one)}" for one in _waiting(table, inode, lock)]
    return "".join(f"{line}\n" for line in lines).encode()


def _waiting(table: LockTable, inode: Inode, lock: Flock | Record) -> Iterator[Flock | Request]:
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


def _line(inode: Inode, lock: Flock | Record | Request) -> str:
    where = f"{major(inode.device):02x}:{minor(inode.device):02x}:{inode.inode}"
    if isinstance(lock, Flock):
        return f"FLOCK  ADVISORY  {'WRITE' if lock.exclusive else 'READ'} {lock.pid} {where} 0 EOF"
    kind = "POSIX " if lock.pid > 0 else "OFDLCK"
    end = "EOF" if lock.end == FOREVER else lock.end - 1
    return f"{kind} ADVISORY  {'WRITE' if lock.kind == WRITE else 'READ'} {lock.pid} {where} {lock.start} {end}"
