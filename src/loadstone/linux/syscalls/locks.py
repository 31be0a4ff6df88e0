"""File locks: flock, and the record locks of fcntl. Source: fs/locks.c."""

from __future__ import annotations

from errno import EAGAIN, EBADF, EINVAL, EOVERFLOW, EWOULDBLOCK
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.structs import FLOCK
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import syscall
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs import locks
from loadstone.vfs.file import MAX_OFFSET
from loadstone.vfs.flags import SEEK_CUR, SEEK_END, SEEK_SET
from loadstone.wait import Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Fd, Int
    from loadstone.linux.syscalls.registry import Blocking
    from loadstone.vfs.file import OpenFile

LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN, LOCK_MAND = 1, 2, 4, 8, 32
RETRY_NS = 5_000_000  # locks have no queue: who waits for one asks again this often


@syscall()
def flock(task: Task, fd: Fd, operation: Int) -> int | Blocking:
    """Lock a whole file for an open file description."""
    if operation & LOCK_MAND:
        return 0  # a kind of lock that went away; asking for it does nothing
    kind = operation & ~LOCK_NB
    if kind not in (LOCK_SH, LOCK_EX, LOCK_UN):
        raise LinuxError(EINVAL)
    file = open_file(task, fd)
    exclusive = None if kind == LOCK_UN else kind == LOCK_EX
    try:
        locks.flock(file, exclusive)
    except LinuxError as error:
        if operation & LOCK_NB or error.errno != EAGAIN:
            raise LinuxError(EWOULDBLOCK) from None
        return _flock_later(task, file, exclusive)
    return 0


def _flock_later(task: Task, file: OpenFile, exclusive: bool | None) -> Blocking:
    while True:
        yield Wait((), task.kernel.clock.monotonic_ns() + RETRY_NS)
        try:
            locks.flock(file, exclusive)
        except LinuxError:
            continue
        return 0


def _range_of(file: OpenFile, raw: bytes) -> tuple[int, int, int]:
    """(kind, start, end) of a struct flock; EINVAL, EOVERFLOW (flock64_to_posix_lock)."""
    kind, whence, start, length, _ = FLOCK.unpack(raw)
    if whence == SEEK_CUR:
        start += file.offset
    elif whence == SEEK_END:
        start += file.inode.size
    elif whence != SEEK_SET:
        raise LinuxError(EINVAL)
    if start > MAX_OFFSET:
        raise LinuxError(EOVERFLOW)
    if start < 0:
        raise LinuxError(EINVAL)
    end = start + length if length else locks.FOREVER
    if length < 0:
        start, end = start + length, start
        if start < 0:
            raise LinuxError(EINVAL)
    if kind not in (locks.READ, locks.WRITE, locks.UNLOCK):
        raise LinuxError(EINVAL)
    return kind, start, end


def get_lock(task: Task, file: OpenFile, address: int, own_file: bool) -> int:
    """F_GETLK: the lock in the way, or F_UNLCK."""
    raw = copy_in(task.process.space, address, FLOCK.size)
    if own_file and FLOCK.unpack(raw)[4]:
        raise LinuxError(EINVAL)
    kind, start, end = _range_of(file, raw)
    if kind == locks.UNLOCK:
        raise LinuxError(EINVAL)
    owner: object = file if own_file else task.process.pid
    found = locks.conflict(file.inode, owner, kind, start, end)
    if found is None:
        _, whence, start, length, pid = FLOCK.unpack(raw)
        answer = FLOCK.pack(locks.UNLOCK, whence, start, length, pid)
    else:
        length = 0 if found.end == locks.FOREVER else found.end - found.start
        pid = found.owner if isinstance(found.owner, int) else -1
        answer = FLOCK.pack(found.kind, SEEK_SET, found.start, length, pid)
    copy_out(task.process.space, address, answer)
    return 0


def set_lock(task: Task, file: OpenFile, address: int, own_file: bool, wait: bool) -> int | Blocking:
    """F_SETLK and F_SETLKW, for the process or (`own_file`) for the open file description."""
    raw = copy_in(task.process.space, address, FLOCK.size)
    if own_file and FLOCK.unpack(raw)[4]:
        raise LinuxError(EINVAL)
    kind, start, end = _range_of(file, raw)
    if (kind == locks.READ and not file.readable) or (kind == locks.WRITE and not file.writable):
        raise LinuxError(EBADF)
    owner: object = file if own_file else task.process.pid
    try:
        locks.set_record(file.inode, owner, kind, start, end)
    except LinuxError:
        if not wait:
            raise
        return _lock_later(task, file, owner, kind, start, end)
    return 0


def _lock_later(task: Task, file: OpenFile, owner: object, kind: int, start: int, end: int) -> Blocking:
    while True:
        yield Wait((), task.kernel.clock.monotonic_ns() + RETRY_NS)
        try:
            locks.set_record(file.inode, owner, kind, start, end)
        except LinuxError:
            continue
        return 0
