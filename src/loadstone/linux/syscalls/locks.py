"""File locks: flock, and the record locks of fcntl. Source: fs/locks.c."""

from __future__ import annotations

from errno import EAGAIN, EBADF, EDEADLK, EINVAL, EOVERFLOW
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import pid_seen
from loadstone.linux.structs import FLOCK
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import syscall
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.flags import SEEK_CUR, SEEK_END, SEEK_SET
from loadstone.vfs.locks import FOREVER, READ, UNLOCK, WRITE, Flock, Record, Request
from loadstone.vfs.open_files import MAX_OFFSET
from loadstone.wait import Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Fd, Int
    from loadstone.vfs.file import OpenFile
    from loadstone.wait import Blocking

LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN, LOCK_MAND = 1, 2, 4, 8, 32


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
    if _try_flock(task, file, exclusive):
        return 0
    if operation & LOCK_NB:
        raise LinuxError(EAGAIN)
    return _flock_later(task, file, exclusive)


def _try_flock(task: Task, file: OpenFile, exclusive: bool | None) -> bool:
    locks = task.kernel.vfs.locks.of(file.inode)
    try:
        locks.flock(file, exclusive, task.process.pid)
    except LinuxError:
        return False
    finally:
        locks.settle()
    return True


def _flock_later(task: Task, file: OpenFile, exclusive: bool | None) -> Blocking:
    table = task.kernel.vfs.locks
    waiting = (file.inode, Flock(file, bool(exclusive), task.process.pid, 0))
    file.hold()  # another thread may close the descriptor meanwhile
    table.waiting.append(waiting)
    try:
        while not _try_flock(task, file, exclusive):
            yield Wait((table.of(file.inode).released,))
        return 0
    finally:
        table.waiting.remove(waiting)
        file.close()


def _request(task: Task, file: OpenFile, raw: bytes, own_file: bool) -> Request:
    """A struct flock as a request; EINVAL, EOVERFLOW (flock64_to_posix_lock)."""
    kind, whence, start, length, pid = FLOCK.unpack(raw)
    if own_file and pid:
        raise LinuxError(EINVAL)
    if whence == SEEK_CUR:
        start += file.offset
    elif whence == SEEK_END:
        start += file.inode.size
    elif whence != SEEK_SET:
        raise LinuxError(EINVAL)
    if start > MAX_OFFSET:
        raise LinuxError(EOVERFLOW)
    if start < 0 or start + min(length, 0) < 0:
        raise LinuxError(EINVAL)
    start, end = (start, start + length) if length >= 0 else (start + length, start)
    if end > FOREVER:
        raise LinuxError(EOVERFLOW)
    if kind not in (READ, WRITE, UNLOCK):
        raise LinuxError(EINVAL)
    owner, holder = (file, -1) if own_file else (task.process.files, task.process.pid)
    return Request(owner, kind, start, end if length else FOREVER, holder)


def get_lock(task: Task, file: OpenFile, address: int, own_file: bool) -> int:
    """F_GETLK: the lock in the way, or F_UNLCK."""
    raw = copy_in(task.process.space, address, FLOCK.size)
    asked_kind, whence, start, length, pid = FLOCK.unpack(raw)
    if not own_file and asked_kind not in (READ, WRITE):
        raise LinuxError(EINVAL)
    request = _request(task, file, raw, own_file)
    found = file.inode.locks.conflict(request) if file.inode.locks else None
    if found is None:
        answer = FLOCK.pack(UNLOCK, whence, start, length, pid)
    else:
        length = 0 if found.end == FOREVER else found.end - found.start
        holder = pid_seen(task.process, found.pid) if found.pid > 0 else found.pid
        answer = FLOCK.pack(found.kind, SEEK_SET, found.start, length, holder)
    copy_out(task.process.space, address, answer)
    return 0


def set_lock(task: Task, fd: int, file: OpenFile, address: int, own_file: bool, wait: bool) -> int | Blocking:
    """F_SETLK and F_SETLKW, for the descriptor table or (`own_file`) for the open file description."""
    request = _request(task, file, copy_in(task.process.space, address, FLOCK.size), own_file)
    if (request.kind == READ and not file.readable) or (request.kind == WRITE and not file.writable):
        raise LinuxError(EBADF)
    blocker = _try_record(task, file, request)
    if blocker is None:
        return 0
    if not wait:
        raise LinuxError(EAGAIN)
    _demand_no_deadlock(task, request, blocker)
    return _record_later(task, fd, file, request)


def _try_record(task: Task, file: OpenFile, request: Request) -> Record | None:
    """Set the lock; the one in its way if it cannot be."""
    locks = task.kernel.vfs.locks.of(file.inode)
    blocker = None if request.kind == UNLOCK else locks.conflict(request)
    if blocker is None:
        locks.set(request)
        locks.settle()
    return blocker


def _demand_no_deadlock(task: Task, request: Request, blocker: Record) -> None:
    if task.kernel.vfs.locks.is_deadlock(request, blocker):
        raise LinuxError(EDEADLK, f"process {blocker.pid}, which has the lock, waits for this one")


def _record_later(task: Task, fd: int, file: OpenFile, request: Request) -> Blocking:
    table = task.kernel.vfs.locks
    waiting = (file.inode, request)
    file.hold()
    table.waiting.append(waiting)
    try:
        while (blocker := _try_record(task, file, request)) is not None:
            _demand_no_deadlock(task, request, blocker)
            yield Wait((table.of(file.inode).released,))
    finally:
        table.waiting.remove(waiting)
        file.close()
    _demand_open(task, fd, file, request)
    return 0


def _demand_open(task: Task, fd: int, file: OpenFile, request: Request) -> None:
    """EBADF if another thread closed the descriptor while this one waited: then nobody would give the lock back."""
    files = task.process.files
    if request.owner is files and request.kind != UNLOCK and not (fd in files and files.get(fd) is file):
        if file.inode.locks:
            file.inode.locks.release_owner(files)
        raise LinuxError(EBADF)
