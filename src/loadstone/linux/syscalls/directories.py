"""Names: directories are made, read and left; names are made, moved and removed. Sources: fs/namei.c, fs/readdir.c."""

from __future__ import annotations

from errno import EINVAL, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, ERANGE
from os import fsencode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SYS_CHROOT, capable
from loadstone.linux.structs import pack_dirent, pack_dirent64
from loadstone.linux.syscalls.lookup import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    maybe_path,
    named_by_descriptor,
    only,
    open_file,
    origin,
    path_at,
)
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.user import copy_out
from loadstone.vfs.flags import (
    IN_ACCESS,
    O_PATH,
    PATH_MAX,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    X_OK,
)
from loadstone.vfs.inode import demand
from loadstone.vfs.namespace import Origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import (
        AtFlags,
        Device,
        DirFd,
        Fd,
        Int,
        Mode,
        OutBytes,
        OutDirectory,
        Path,
        RenameFlags,
        Size,
        UInt,
    )
    from loadstone.vfs.location import Location


# The working directory


@syscall()
def getcwd(task: Task, buffer: OutBytes, size: Size) -> int:
    """The working directory's path, with its NUL; the length."""
    fs = task.process.fs
    if fs.cwd.deleted:
        raise LinuxError(ENOENT)
    path = fsencode(task.kernel.vfs.path_of(fs.cwd, fs.root)) + b"\0"
    if len(path) > PATH_MAX:  # the C library finds the way up by itself then
        raise LinuxError(ENAMETOOLONG)
    if len(path) > size:
        raise LinuxError(ERANGE)
    copy_out(task.process.space, buffer, path)
    return len(path)


def _directory(task: Task, path: int) -> Location:
    text = path_at(task, path)
    location = task.kernel.vfs.resolve(text, origin(task, AT_FDCWD, text), directory=True)
    demand(location.inode, X_OK, task.process.credentials)
    return location


@syscall()
def chdir(task: Task, path: Path) -> int:
    """Go to a directory."""
    task.process.fs.cwd = _directory(task, path)
    return 0


@syscall()
def fchdir(task: Task, fd: Fd) -> int:
    """Go to an open directory, O_PATH included."""
    process = task.process
    file = process.files.get(fd)
    if file.location is None or not file.inode.is_directory:
        raise LinuxError(ENOTDIR)
    demand(file.inode, X_OK, process.credentials)
    process.fs.cwd = file.location
    return 0


@syscall(note="inside the guest's own tree")
def chroot(task: Task, path: Path) -> int:
    """Make a directory the root of this process."""
    location = _directory(task, path)
    if not capable(task.process.credentials, CAP_SYS_CHROOT):
        raise LinuxError(EPERM)
    task.process.fs.root = location
    return 0


@syscall()
def umask(task: Task, mask: Int) -> int:
    """Set the permission bits that new files do not get; the old ones."""
    fs = task.process.fs
    old: int = fs.umask
    fs.umask = mask & 0o777
    return old


# Reading


@syscall()
def getdents64(task: Task, fd: Fd, buffer: OutDirectory, size: UInt) -> int:
    """The next entries of a directory, as many as fit."""
    return _entries(task, fd, buffer, size, pack_dirent64)


@syscall()
def getdents(task: Task, fd: Fd, buffer: OutBytes, size: UInt) -> int:
    """As getdents64, in the old form."""
    return _entries(task, fd, buffer, size, pack_dirent)


def _entries(task: Task, fd: int, buffer: int, size: int, pack: Callable[[int, int, int, bytes], bytes]) -> int:
    file = open_file(task, fd)
    records: list[bytes] = []
    used = 0
    reached = file.offset
    for name, inode, kind, cookie in file.next_entries():
        record = pack(inode, cookie, kind, fsencode(name))
        if used + len(record) > size:
            if not records:
                raise LinuxError(EINVAL)
            break
        records.append(record)
        used += len(record)
        reached = cookie
    if records:
        copy_out(task.process.space, buffer, b"".join(records))
        file.offset = reached
    file.tell(IN_ACCESS)
    file.accessed()
    return used


# Making and removing


@syscall()
def mkdir(task: Task, path: Path, mode: Mode) -> int:
    """Make a directory."""
    return _mkdir(task, AT_FDCWD, path, mode)


@syscall()
def mkdirat(task: Task, fd: DirFd, path: Path, mode: Mode) -> int:
    """Make a directory."""
    return _mkdir(task, fd, path, mode)


def _mkdir(task: Task, fd: int, address: int, mode: int) -> int:
    path = path_at(task, address)
    task.kernel.vfs.mkdir(path, mode & 0o1777 & ~task.process.fs.umask, origin(task, fd, path))
    return 0


_DEVICES = "a device node stands for a device of the machine's; none can be made in directories given with --rw"


@syscall(support=PARTIAL, note=_DEVICES)
def mknod(task: Task, path: Path, mode: Mode, device: Device) -> int:
    """Make a regular file, FIFO or socket."""
    return _mknod(task, AT_FDCWD, path, mode, device)


@syscall(support=PARTIAL, note=_DEVICES)
def mknodat(task: Task, fd: DirFd, path: Path, mode: Mode, device: Device) -> int:
    """Make a regular file, FIFO or socket."""
    return _mknod(task, fd, path, mode, device)


def _mknod(task: Task, fd: int, address: int, mode: int, device: int) -> int:
    kind = mode & S_IFMT
    if kind == S_IFDIR:
        raise LinuxError(EPERM)
    if kind not in (0, S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK):
        raise LinuxError(EINVAL)
    path = path_at(task, address)
    permissions = mode & 0o7777 & ~task.process.fs.umask | (kind or S_IFREG)
    task.kernel.vfs.mknod(path, permissions, device, origin(task, fd, path))
    return 0


@syscall()
def symlink(task: Task, target: Path, path: Path) -> int:
    """Make a symbolic link."""
    return _symlink(task, target, AT_FDCWD, path)


@syscall()
def symlinkat(task: Task, target: Path, fd: DirFd, path: Path) -> int:
    """Make a symbolic link."""
    return _symlink(task, target, fd, path)


def _symlink(task: Task, target: int, fd: int, address: int) -> int:
    text = path_at(task, target)
    if not text:
        raise LinuxError(ENOENT)
    path = path_at(task, address)
    task.kernel.vfs.symlink(text, path, origin(task, fd, path))
    return 0


@syscall()
def link(task: Task, old: Path, new: Path) -> int:
    """Give a file another name."""
    return _link(task, AT_FDCWD, old, AT_FDCWD, new, 0)


@syscall()
def linkat(task: Task, old_fd: DirFd, old: Path, new_fd: DirFd, new: Path, flags: AtFlags) -> int:
    """Give a file another name."""
    return _link(task, old_fd, old, new_fd, new, flags)


def _link(task: Task, old_fd: int, old: int, new_fd: int, new: int, flags: int) -> int:
    only(flags, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)
    process = task.process
    source = maybe_path(task, old, flags)
    target = path_at(task, new)
    file = named_by_descriptor(task, old_fd, source, flags)
    if file is not None and file.location is None:
        raise LinuxError(ENOENT)
    start = file.location if file is not None else None
    task.kernel.vfs.link(
        source,
        target,
        Origin(start, process.fs.root, process.credentials) if start else origin(task, old_fd, source, flags),
        origin(task, new_fd, target),
        follow=bool(flags & AT_SYMLINK_FOLLOW),
        empty=bool(flags & AT_EMPTY_PATH),
    )
    return 0


@syscall()
def unlink(task: Task, path: Path) -> int:
    """Remove the name of a file."""
    return _remove(task, AT_FDCWD, path, 0)


@syscall()
def rmdir(task: Task, path: Path) -> int:
    """Remove an empty directory."""
    return _remove(task, AT_FDCWD, path, AT_REMOVEDIR)


@syscall()
def unlinkat(task: Task, fd: DirFd, path: Path, flags: AtFlags) -> int:
    """Remove the name of a file, or an empty directory."""
    only(flags, AT_REMOVEDIR)
    return _remove(task, fd, path, flags)


def _remove(task: Task, fd: int, address: int, flags: int) -> int:
    path = path_at(task, address)
    vfs = task.kernel.vfs
    remove = vfs.rmdir if flags & AT_REMOVEDIR else vfs.unlink
    remove(path, origin(task, fd, path))
    return 0


@syscall()
def rename(task: Task, old: Path, new: Path) -> int:
    """Move a name."""
    return _rename(task, AT_FDCWD, old, AT_FDCWD, new, 0)


@syscall()
def renameat(task: Task, old_fd: DirFd, old: Path, new_fd: DirFd, new: Path) -> int:
    """Move a name."""
    return _rename(task, old_fd, old, new_fd, new, 0)


@syscall(support=PARTIAL, note="RENAME_WHITEOUT is EINVAL")
def renameat2(task: Task, old_fd: DirFd, old: Path, new_fd: DirFd, new: Path, flags: RenameFlags) -> int:
    """Move a name, perhaps only to a free one, or in exchange."""
    return _rename(task, old_fd, old, new_fd, new, flags)


def _rename(task: Task, old_fd: int, old: int, new_fd: int, new: int, flags: int) -> int:
    only(flags, RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)
    if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
        raise LinuxError(EINVAL)
    source, target = path_at(task, old), path_at(task, new)
    if flags & RENAME_WHITEOUT:
        raise LinuxError(EINVAL, "a file system without whiteouts")
    task.kernel.vfs.rename(source, target, origin(task, old_fd, source), origin(task, new_fd, target), flags=flags)
    return 0


# Symbolic links


@syscall()
def readlink(task: Task, path: Path, buffer: OutBytes, size: Int) -> int:
    """The text of a symbolic link, cut to `size`, without a NUL."""
    return _readlink(task, AT_FDCWD, path, buffer, size)


@syscall()
def readlinkat(task: Task, fd: DirFd, path: Path, buffer: OutBytes, size: Int) -> int:
    """As readlink; the empty path is a link that was opened with O_PATH and O_NOFOLLOW."""
    return _readlink(task, fd, path, buffer, size)


def _readlink(task: Task, fd: int, address: int, buffer: int, size: int) -> int:
    if size <= 0:
        raise LinuxError(EINVAL)
    path = path_at(task, address)
    file = named_by_descriptor(task, fd, path, AT_EMPTY_PATH)
    if file is not None:
        if not file.flags & O_PATH or not file.inode.is_symlink:
            raise LinuxError(ENOENT)
        text = file.inode.readlink()
        if file.location is not None:
            file.location.accessed()
    else:
        text = task.kernel.vfs.readlink(path, origin(task, fd, path))
    data = fsencode(text)[:size]
    copy_out(task.process.space, buffer, data)
    return len(data)
