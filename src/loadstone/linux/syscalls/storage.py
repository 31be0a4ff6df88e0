"""A file's size and what of it is on disk. Sources: fs/open.c, fs/sync.c, mm/fadvise.c, mm/readahead.c."""

from __future__ import annotations

from errno import EBADF, EINVAL, EISDIR, ENODEV, ESPIPE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.profile import RLIMIT_FSIZE
from loadstone.linux.syscalls.lookup import AT_FDCWD, open_file, origin, path_at
from loadstone.linux.syscalls.readwrite import UNLIMITED, too_big
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.vfs.flags import IN_MODIFY, S_IFIFO, S_IFMT
from loadstone.vfs.regular import RegularFile
from loadstone.wait import Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Fd, FileAdvice, Int, Long, Offset, Path, Size, UInt
    from loadstone.vfs.location import Location
    from loadstone.wait import Blocking


@syscall()
def truncate(task: Task, path: Path, size: Long) -> int | Blocking:
    """Make the file at a path `size` bytes long."""
    if size < 0:
        raise LinuxError(EINVAL)
    text = path_at(task, path)
    vfs, where = task.kernel.vfs, origin(task, AT_FDCWD, text)
    place = vfs.to_cut(text, size, where)
    locks = place.inode.locks
    if locks is not None and locks.leases is not None:
        return _truncate_later(task, place, size)
    vfs.cut(place, size, where.who)
    return 0


def _truncate_later(task: Task, place: Location, size: int) -> Blocking:
    """Wait for who has a lease on the file, as one who writes it."""
    inode = place.inode
    assert isinstance(inode, RegularFile)
    inode.take_write()
    try:
        while inode.locks is not None and inode.locks.leases is not None and (wait := inode.locks.leases.broken(True)):
            yield Wait((inode.locks.released,), wait.deadline)
        task.kernel.vfs.cut(place, size, task.process.credentials)
        return 0
    finally:
        inode.put_write()


@syscall()
def ftruncate(task: Task, fd: Fd, size: Long) -> int:
    """Make an open file `size` bytes long."""
    if size < 0:
        raise LinuxError(EINVAL)
    file = open_file(task, fd)
    if not file.inode.is_regular or not file.writable:
        raise LinuxError(EINVAL)
    limit = task.process.limits.get(RLIMIT_FSIZE, UNLIMITED)[0]
    if size > file.inode.size and size > limit:
        raise too_big(task)
    file.truncate(size)
    file.tell(IN_MODIFY)
    return 0


@syscall(support=PARTIAL, note="no FALLOC_FL_COLLAPSE_RANGE, _INSERT_RANGE, _UNSHARE_RANGE: EOPNOTSUPP")
def fallocate(task: Task, fd: Fd, mode: Int, offset: Offset, length: Offset) -> int:
    """Make room in a file."""
    file = open_file(task, fd)
    if offset < 0 or length <= 0:
        raise LinuxError(EINVAL)
    if not file.writable:
        raise LinuxError(EBADF)
    if file.inode.mode & S_IFMT == S_IFIFO:
        raise LinuxError(ESPIPE)
    if file.inode.is_directory:
        raise LinuxError(EISDIR)
    if not file.inode.is_regular:
        raise LinuxError(ENODEV)
    file.allocate(mode, offset, length)
    file.tell(IN_MODIFY)
    return 0


@syscall()
def fsync(task: Task, fd: Fd) -> int:
    """Write a file's dirty pages."""
    open_file(task, fd).sync()
    return 0


@syscall()
def fdatasync(task: Task, fd: Fd) -> int:
    """As fsync."""
    open_file(task, fd).sync()
    return 0


@syscall(note="each write reaches its file at once; shared mappings are written back by msync and at exit")
def sync(task: Task) -> int:
    """Write everything."""
    return 0


@syscall()
def syncfs(task: Task, fd: Fd) -> int:
    """Write everything of one file system."""
    open_file(task, fd)
    return 0


@syscall()
def sync_file_range(task: Task, fd: Fd, offset: Offset, length: Offset, flags: UInt) -> int:
    """Write a part of a file."""
    file = open_file(task, fd)
    if flags & ~7 or offset < 0 or length < 0:
        raise LinuxError(EINVAL)
    if not file.positioned:
        raise LinuxError(ESPIPE)
    if file.inode.is_regular:
        file.sync()
    return 0


@syscall(note="the page cache is filled by faults and reads, not by advice")
def readahead(task: Task, fd: Fd, offset: Offset, count: Size) -> int:
    """Announce a read."""
    file = open_file(task, fd)
    if not file.readable:
        raise LinuxError(EBADF)
    if not file.inode.is_regular:
        raise LinuxError(EINVAL)
    return 0


@syscall(note="advice is checked and not followed")
def fadvise64(task: Task, fd: Fd, offset: Offset, length: Size, advice: FileAdvice) -> int:
    """Announce how a file will be used."""
    file = open_file(task, fd)
    if file.inode.mode & S_IFMT == S_IFIFO:
        raise LinuxError(ESPIPE)
    if length >> 63 or not 0 <= advice <= 5:
        raise LinuxError(EINVAL)
    return 0
