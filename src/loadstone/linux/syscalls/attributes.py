"""What is changed about files: modes, owners, times. Sources: fs/open.c, fs/utimes.c."""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.structs import SECOND, TIMESPEC, TIMEVAL, UTIMBUF
from loadstone.linux.syscalls.lookup import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    find,
    maybe_path,
    only,
    open_file,
    path_at,
)
from loadstone.linux.syscalls.registry import syscall
from loadstone.memory.user import copy_in
from loadstone.vfs.attributes import change_mode, change_owner, change_times
from loadstone.vfs.flags import IN_ATTRIB, NOW, OMIT

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, AtFlags, DirFd, Fd, Gid, InTimes, Mode, Path, Uid
    from loadstone.vfs.location import Location

    Times = tuple[int, int] | None
    """Access and modification time in ns, or NOW or OMIT; None: both now."""

_NOBODY = 0xFFFFFFFF  # (uid_t)-1: keep
UTIME_NOW, UTIME_OMIT = 0x3FFFFFFF, 0x3FFFFFFE


# Modes


@syscall()
def chmod(task: Task, path: Path, mode: Mode) -> int:
    """Set the permission bits of what a path leads to."""
    return _chmod(task, AT_FDCWD, path, mode, 0)


@syscall()
def fchmodat(task: Task, fd: DirFd, path: Path, mode: Mode) -> int:
    """As chmod, from a directory's descriptor."""
    return _chmod(task, fd, path, mode, 0)


@syscall()
def fchmodat2(task: Task, fd: DirFd, path: Path, mode: Mode, flags: AtFlags) -> int:
    """As fchmodat, with flags."""
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)
    return _chmod(task, fd, path, mode, flags)


@syscall()
def fchmod(task: Task, fd: Fd, mode: Mode) -> int:
    """Set the permission bits of an open file."""
    file = open_file(task, fd)
    _demand_writable(file.location)
    change_mode(file.inode, mode & 0o7777, task.process.credentials)
    _tell(file.location)
    return 0


def _chmod(task: Task, fd: int, address: int, mode: int, flags: int) -> int:
    inode, place = find(task, fd, maybe_path(task, address, flags), flags)
    _demand_writable(place)
    if inode.is_symlink:
        raise LinuxError(EOPNOTSUPP, "a symbolic link has no permission bits")
    change_mode(inode, mode & 0o7777, task.process.credentials)
    _tell(place)
    return 0


def _demand_writable(place: Location | None) -> None:
    """EROFS on a mount that is read-only."""
    if place is not None:
        place.demand_writable()


def _tell(place: Location | None) -> None:
    """Tell who watches the file; what has no place is watched by nobody."""
    if place is not None:
        place.tell(IN_ATTRIB)


# Owners


@syscall()
def chown(task: Task, path: Path, uid: Uid, gid: Gid) -> int:
    """Set the owner of what a path leads to."""
    return _chown(task, AT_FDCWD, path, uid, gid, 0)


@syscall()
def lchown(task: Task, path: Path, uid: Uid, gid: Gid) -> int:
    """Set the owner of what a path names, be it a symbolic link."""
    return _chown(task, AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW)


@syscall()
def fchownat(task: Task, fd: DirFd, path: Path, uid: Uid, gid: Gid, flags: AtFlags) -> int:
    """As chown, from a directory's descriptor."""
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)
    return _chown(task, fd, path, uid, gid, flags)


@syscall()
def fchown(task: Task, fd: Fd, uid: Uid, gid: Gid) -> int:
    """Set the owner of an open file."""
    file = open_file(task, fd)
    _demand_writable(file.location)
    change_owner(file.inode, _identity(uid), _identity(gid), task.process.credentials)
    _tell(file.location)
    return 0


def _identity(number: int) -> int:
    return -1 if number == _NOBODY else number


def _chown(task: Task, fd: int, address: int, uid: int, gid: int, flags: int) -> int:
    inode, place = find(task, fd, maybe_path(task, address, flags), flags)
    _demand_writable(place)
    change_owner(inode, _identity(uid), _identity(gid), task.process.credentials)
    _tell(place)
    return 0


# Times


@syscall()
def utimensat(task: Task, fd: DirFd, path: Path, times: InTimes, flags: AtFlags) -> int:
    """Set the times of a file; without a path those of the open file itself."""
    chosen: Times = None
    valid = True
    if times:
        raw = copy_in(task.process.space, times, 32)
        seconds_nanoseconds = TIMESPEC.unpack(raw[:16]), TIMESPEC.unpack(raw[16:])
        if all(n == UTIME_OMIT for _, n in seconds_nanoseconds):
            return 0
        valid = all(0 <= n < SECOND or n in (UTIME_NOW, UTIME_OMIT) for _, n in seconds_nanoseconds)
        chosen = _time(*seconds_nanoseconds[0]), _time(*seconds_nanoseconds[1])
    return _set_times(task, fd, path, chosen, flags, valid)


@syscall()
def utime(task: Task, path: Path, times: Address) -> int:
    """Set the times, in seconds."""
    chosen: Times = None
    if times:
        access, modification = UTIMBUF.unpack(copy_in(task.process.space, times, 16))
        chosen = access * SECOND, modification * SECOND
    return _set_times(task, AT_FDCWD, path, chosen, 0, True)


@syscall()
def utimes(task: Task, path: Path, times: Address) -> int:
    """Set the times, in microseconds."""
    return _set_times(task, AT_FDCWD, path, _timevals(task, times), 0, True)


@syscall()
def futimesat(task: Task, fd: DirFd, path: Path, times: Address) -> int:
    """As utimes, from a directory's descriptor."""
    return _set_times(task, fd, path, _timevals(task, times), 0, True)


def _timevals(task: Task, address: int) -> Times:
    if not address:
        return None
    raw = copy_in(task.process.space, address, 32)
    first, second = TIMEVAL.unpack(raw[:16]), TIMEVAL.unpack(raw[16:])
    if not (0 <= first[1] < 1_000_000 and 0 <= second[1] < 1_000_000):
        raise LinuxError(EINVAL)
    return first[0] * SECOND + first[1] * 1000, second[0] * SECOND + second[1] * 1000


def _time(seconds: int, nanoseconds: int) -> int:
    if nanoseconds == UTIME_NOW:
        return NOW
    return OMIT if nanoseconds == UTIME_OMIT else seconds * SECOND + nanoseconds


def _set_times(task: Task, fd: int, address: int, times: Times, flags: int, valid: bool) -> int:
    """`valid` is whether the nanoseconds are: the kernel looks at them only when it has found the file."""
    if not address and fd != AT_FDCWD:
        if flags:
            raise LinuxError(EINVAL)
        file = open_file(task, fd)
        inode, place = file.inode, file.location
    else:
        only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)
        inode, place = find(task, fd, path_at(task, address), flags)
    if not valid:
        raise LinuxError(EINVAL)
    _demand_writable(place)
    change_times(inode, times, task.process.credentials)
    if place is not None and place.dentry.watched:
        from loadstone.vfs.watches import tell_times

        tell_times(place.dentry, times)
    return 0
