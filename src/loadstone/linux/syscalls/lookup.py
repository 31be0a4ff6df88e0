"""What the file calls share: the path a pointer names, the file a descriptor names, where a `*at` call starts from."""

from __future__ import annotations

from errno import EBADF, EINVAL, ENOENT, ENOTDIR
from os import fsdecode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.user import read_string
from loadstone.vfs.flags import O_PATH, PATH_MAX
from loadstone.vfs.namespace import Origin

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Location

# include/uapi/linux/fcntl.h
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_REMOVEDIR = AT_EACCESS = 0x200
AT_SYMLINK_FOLLOW = 0x400
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_STATX_SYNC_TYPE = 0x6000


def path_at(task: Task, address: int) -> str:
    """The path at `address`: EFAULT, ENAMETOOLONG (fs/namei.c, getname)."""
    return fsdecode(read_string(task.process.space, address, PATH_MAX))


def maybe_path(task: Task, address: int, flags: int) -> str:
    """As path_at, but with AT_EMPTY_PATH a null pointer is the empty path (fs/namei.c, getname_maybe_null)."""
    if flags & AT_EMPTY_PATH and address == 0:
        return ""
    return path_at(task, address)


def start(task: Task, fd: int, path: str) -> Location:
    """The directory from which `path` is resolved by a `*at` call: ENOENT for no path, EBADF, ENOTDIR."""
    if not path:
        raise LinuxError(ENOENT)
    process = task.process
    if fd == AT_FDCWD or path[0] == "/":
        return process.fs.cwd
    file = process.files.get(fd)
    if file.location is None or not file.inode.is_directory:
        raise LinuxError(ENOTDIR)
    return file.location


def named_by_descriptor(task: Task, fd: int, path: str, flags: int) -> OpenFile | None:
    """The file itself, if the call is about descriptor `fd` (an empty path with AT_EMPTY_PATH); EBADF."""
    if path or not flags & AT_EMPTY_PATH or fd == AT_FDCWD:
        return None
    return task.process.files.get(fd)


def origin(task: Task, fd: int, path: str, flags: int = 0) -> Origin:
    """Where `path` starts and who asks; AT_EMPTY_PATH with AT_FDCWD means the working directory itself."""
    process = task.process
    itself = not path and flags & AT_EMPTY_PATH and fd == AT_FDCWD
    return Origin(process.fs.cwd if itself else start(task, fd, path), process.fs.root, process.credentials)


def find(task: Task, fd: int, path: str, flags: int) -> tuple[Inode, Location | None]:
    """The file that `path`, or with AT_EMPTY_PATH the descriptor, leads to; links are followed if flags do not forbid.

    The location is None for what has no place in the tree: pipes and the like.
    """
    file = named_by_descriptor(task, fd, path, flags)
    if file is not None:
        return file.inode, file.location
    location = task.kernel.vfs.resolve(
        path,
        origin(task, fd, path, flags),
        follow=not flags & AT_SYMLINK_NOFOLLOW,
        empty=bool(flags & AT_EMPTY_PATH),
    )
    return location.inode, location


def open_file(task: Task, fd: int) -> OpenFile:
    """The open file of descriptor `fd`; EBADF also for one that was opened with O_PATH (fs/file.c, fdget)."""
    file = task.process.files.get(fd)
    if file.flags & O_PATH:
        raise LinuxError(EBADF)
    return file


def only(flags: int, allowed: int) -> None:
    """EINVAL if `flags` has a bit that is not in `allowed`."""
    if flags & ~allowed:
        raise LinuxError(EINVAL)
