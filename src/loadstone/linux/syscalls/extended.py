"""Extended attributes: the overlay keeps none, as a file system mounted without them. Source: fs/xattr.c."""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENAMETOOLONG, ENODATA, EOPNOTSUPP, ERANGE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.syscalls.lookup import AT_FDCWD, AT_SYMLINK_NOFOLLOW, find, open_file, path_at
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.user import read_string

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, Int, Path, Size

NONE = "files have no extended attributes here"
_NAME_MAX = 255
_SIZE_MAX = 65536


def _name(task: Task, address: int) -> str:
    """The attribute's name: EFAULT, ERANGE for none or too long a one."""
    try:
        name = read_string(task.process.space, address, _NAME_MAX + 2)
    except LinuxError as error:
        raise LinuxError(ERANGE if error.errno == ENAMETOOLONG else error.errno) from None
    if not name or len(name) > _NAME_MAX:
        raise LinuxError(ERANGE)
    return name.decode("utf-8", "surrogateescape")


def _get(task: Task, name: int) -> int:
    text = _name(task, name)
    known = text.startswith(("user.", "security.", "trusted."))
    raise LinuxError(ENODATA if known else EOPNOTSUPP, NONE)


def _set(task: Task, name: int, size: int, flags: int) -> int:
    if flags & ~3:
        raise LinuxError(EINVAL)
    _name(task, name)
    if size > _SIZE_MAX:
        raise LinuxError(E2BIG)
    raise LinuxError(EOPNOTSUPP, NONE)


@syscall(support=PARTIAL, note=NONE)
def getxattr(task: Task, path: Path, name: Path, value: Address, size: Size) -> int:
    """An attribute of what a path leads to."""
    find(task, AT_FDCWD, path_at(task, path), 0)
    return _get(task, name)


@syscall(support=PARTIAL, note=NONE)
def lgetxattr(task: Task, path: Path, name: Path, value: Address, size: Size) -> int:
    """An attribute of what a path names."""
    find(task, AT_FDCWD, path_at(task, path), AT_SYMLINK_NOFOLLOW)
    return _get(task, name)


@syscall(support=PARTIAL, note=NONE)
def fgetxattr(task: Task, fd: Fd, name: Path, value: Address, size: Size) -> int:
    """An attribute of an open file."""
    open_file(task, fd)
    return _get(task, name)


@syscall(support=PARTIAL, note=NONE)
def listxattr(task: Task, path: Path, names: Address, size: Size) -> int:
    """The names of the attributes."""
    find(task, AT_FDCWD, path_at(task, path), 0)
    return 0


@syscall(support=PARTIAL, note=NONE)
def llistxattr(task: Task, path: Path, names: Address, size: Size) -> int:
    """The names of the attributes of what a path names."""
    find(task, AT_FDCWD, path_at(task, path), AT_SYMLINK_NOFOLLOW)
    return 0


@syscall(support=PARTIAL, note=NONE)
def flistxattr(task: Task, fd: Fd, names: Address, size: Size) -> int:
    """The names of the attributes of an open file."""
    open_file(task, fd)
    return 0


@syscall(support=PARTIAL, note=NONE)
def setxattr(task: Task, path: Path, name: Path, value: Address, size: Size, flags: Int) -> int:
    """Set an attribute of what a path leads to."""
    find(task, AT_FDCWD, path_at(task, path), 0)
    return _set(task, name, size, flags)


@syscall(support=PARTIAL, note=NONE)
def lsetxattr(task: Task, path: Path, name: Path, value: Address, size: Size, flags: Int) -> int:
    """Set an attribute of what a path names."""
    find(task, AT_FDCWD, path_at(task, path), AT_SYMLINK_NOFOLLOW)
    return _set(task, name, size, flags)


@syscall(support=PARTIAL, note=NONE)
def fsetxattr(task: Task, fd: Fd, name: Path, value: Address, size: Size, flags: Int) -> int:
    """Set an attribute of an open file."""
    open_file(task, fd)
    return _set(task, name, size, flags)


@syscall(support=PARTIAL, note=NONE)
def removexattr(task: Task, path: Path, name: Path) -> int:
    """Remove an attribute of what a path leads to."""
    find(task, AT_FDCWD, path_at(task, path), 0)
    return _get(task, name)


@syscall(support=PARTIAL, note=NONE)
def lremovexattr(task: Task, path: Path, name: Path) -> int:
    """Remove an attribute of what a path names."""
    find(task, AT_FDCWD, path_at(task, path), AT_SYMLINK_NOFOLLOW)
    return _get(task, name)


@syscall(support=PARTIAL, note=NONE)
def fremovexattr(task: Task, fd: Fd, name: Path) -> int:
    """Remove an attribute of an open file."""
    open_file(task, fd)
    return _get(task, name)
