"""Extended attributes. Source: fs/xattr.c. What they are kept in is `vfs.extended`."""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENAMETOOLONG, ERANGE
from os import fsdecode, fsencode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.syscalls.lookup import AT_FDCWD, AT_SYMLINK_NOFOLLOW, find, open_file, path_at
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.user import copy_in, copy_out, read_string
from loadstone.vfs import extended
from loadstone.vfs.flags import IN_ATTRIB

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, Int, Path, Size
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Location

NOTE = "of the host's only those called user.; no access control lists"
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
    return fsdecode(name)


def _answer(task: Task, data: bytes, address: int, size: int) -> int:
    """Give `data` to a buffer of `size` bytes; asked with 0, only its length. ERANGE if it does not fit."""
    if size:
        if len(data) > size:
            raise LinuxError(ERANGE)
        copy_out(task.process.space, address, data)
    return len(data)


def _get(task: Task, inode: Inode, name: int, value: int, size: int) -> int:
    return _answer(task, extended.get(inode, _name(task, name), task.process.credentials), value, size)


def _list(task: Task, inode: Inode, names: int, size: int) -> int:
    found = extended.names(inode, task.process.credentials)
    return _answer(task, b"".join(fsencode(name) + b"\0" for name in found), names, size)


def _new_value(task: Task, name: int, value: int, size: int, flags: int) -> tuple[str, bytes]:
    """(name, value) to be set, checked before the file is looked for (setxattr_copy)."""
    if flags & ~(extended.CREATE | extended.REPLACE):
        raise LinuxError(EINVAL)
    text = _name(task, name)
    if size > _SIZE_MAX:
        raise LinuxError(E2BIG)
    return text, copy_in(task.process.space, value, size) if size else b""


def _at(task: Task, path: int, flags: int) -> Inode:
    return _place(task, path, flags)[0]


def _place(task: Task, path: int, flags: int) -> tuple[Inode, Location | None]:
    return find(task, AT_FDCWD, path_at(task, path), flags)


def _put(task: Task, found: tuple[Inode, Location | None], name: str, data: bytes, flags: int) -> int:
    inode, place = found
    if place is not None:
        place.demand_writable()
    extended.put(inode, name, data, flags, task.process.credentials)
    return _changed(place)


def _remove(task: Task, found: tuple[Inode, Location | None], name: int) -> int:
    inode, place = found
    if place is not None:
        place.demand_writable()
    extended.remove(inode, _name(task, name), task.process.credentials)
    return _changed(place)


def _changed(place: Location | None) -> int:
    """Tell who watches the file (fsnotify_xattr)."""
    if place is not None:
        place.tell(IN_ATTRIB)
    return 0


@syscall(support=PARTIAL, note=NOTE)
def getxattr(task: Task, path: Path, name: Path, value: Address, size: Size) -> int:
    """An attribute of what a path leads to."""
    return _get(task, _at(task, path, 0), name, value, size)


@syscall(support=PARTIAL, note=NOTE)
def lgetxattr(task: Task, path: Path, name: Path, value: Address, size: Size) -> int:
    """An attribute of what a path names."""
    return _get(task, _at(task, path, AT_SYMLINK_NOFOLLOW), name, value, size)


@syscall(support=PARTIAL, note=NOTE)
def fgetxattr(task: Task, fd: Fd, name: Path, value: Address, size: Size) -> int:
    """An attribute of an open file."""
    return _get(task, open_file(task, fd).inode, name, value, size)


@syscall(support=PARTIAL, note=NOTE)
def listxattr(task: Task, path: Path, names: Address, size: Size) -> int:
    """The names of the attributes of what a path leads to."""
    return _list(task, _at(task, path, 0), names, size)


@syscall(support=PARTIAL, note=NOTE)
def llistxattr(task: Task, path: Path, names: Address, size: Size) -> int:
    """The names of the attributes of what a path names."""
    return _list(task, _at(task, path, AT_SYMLINK_NOFOLLOW), names, size)


@syscall(support=PARTIAL, note=NOTE)
def flistxattr(task: Task, fd: Fd, names: Address, size: Size) -> int:
    """The names of the attributes of an open file."""
    return _list(task, open_file(task, fd).inode, names, size)


@syscall(support=PARTIAL, note=NOTE)
def setxattr(task: Task, path: Path, name: Path, value: Address, size: Size, flags: Int) -> int:
    """Set an attribute of what a path leads to."""
    text, data = _new_value(task, name, value, size, flags)
    return _put(task, _place(task, path, 0), text, data, flags)


@syscall(support=PARTIAL, note=NOTE)
def lsetxattr(task: Task, path: Path, name: Path, value: Address, size: Size, flags: Int) -> int:
    """Set an attribute of what a path names."""
    text, data = _new_value(task, name, value, size, flags)
    return _put(task, _place(task, path, AT_SYMLINK_NOFOLLOW), text, data, flags)


@syscall(support=PARTIAL, note=NOTE)
def fsetxattr(task: Task, fd: Fd, name: Path, value: Address, size: Size, flags: Int) -> int:
    """Set an attribute of an open file."""
    text, data = _new_value(task, name, value, size, flags)
    file = open_file(task, fd)
    return _put(task, (file.inode, file.location), text, data, flags)


@syscall(support=PARTIAL, note=NOTE)
def removexattr(task: Task, path: Path, name: Path) -> int:
    """Remove an attribute of what a path leads to."""
    return _remove(task, _place(task, path, 0), name)


@syscall(support=PARTIAL, note=NOTE)
def lremovexattr(task: Task, path: Path, name: Path) -> int:
    """Remove an attribute of what a path names."""
    return _remove(task, _place(task, path, AT_SYMLINK_NOFOLLOW), name)


@syscall(support=PARTIAL, note=NOTE)
def fremovexattr(task: Task, fd: Fd, name: Path) -> int:
    """Remove an attribute of an open file."""
    file = open_file(task, fd)
    return _remove(task, (file.inode, file.location), name)
