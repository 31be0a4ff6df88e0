"""Watching files. Source: fs/notify/inotify/inotify_user.c."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.inotify_file import InotifyFile
from loadstone.linux.syscalls.lookup import AT_FDCWD, open_file, origin, path_at
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.vfs.flags import (
    IN_ALL_EVENTS,
    IN_DONT_FOLLOW,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    O_CLOEXEC,
    O_NONBLOCK,
    R_OK,
)
from loadstone.vfs.inode import demand

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Fd, Int, Path, UInt

ALL_BITS = (
    IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK
    | IN_MASK_ADD | IN_MASK_CREATE | IN_ISDIR | IN_ONESHOT
)  # fmt: skip
_NOTE = "changes that programs of the machine make; not the host's, nor through mappings, nor unmounting and executing"


@syscall(support=PARTIAL, note=_NOTE)
def inotify_init(task: Task) -> int:
    """A list of watches."""
    return inotify_init1(task, 0)


@syscall(support=PARTIAL, note=_NOTE)
def inotify_init1(task: Task, flags: Int) -> int:
    """A list of watches, with flags."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise LinuxError(EINVAL)
    file = InotifyFile(task.kernel.vfs, flags & O_NONBLOCK)
    return task.process.files.install(file, cloexec=bool(flags & O_CLOEXEC))


def _instance(task: Task, fd: int) -> InotifyFile:
    file = open_file(task, fd)
    if not isinstance(file, InotifyFile):
        raise LinuxError(EINVAL)
    return file


@syscall(support=PARTIAL, note=_NOTE)
def inotify_add_watch(task: Task, fd: Fd, path: Path, mask: UInt) -> int:
    """Watch a file or a directory, or watch it for something else; the watch's number."""
    if mask & ~ALL_BITS or not mask & ALL_BITS:
        raise LinuxError(EINVAL)
    open_file(task, fd)
    if mask & IN_MASK_ADD and mask & IN_MASK_CREATE:
        raise LinuxError(EINVAL)
    file = _instance(task, fd)
    text = path_at(task, path)
    place = task.kernel.vfs.resolve(
        text,
        origin(task, AT_FDCWD, text),
        follow=not mask & IN_DONT_FOLLOW,
        directory=bool(mask & IN_ONLYDIR),
    )
    demand(place.inode, R_OK, task.process.credentials)
    return file.watch(place.inode, mask)


@syscall(support=PARTIAL, note=_NOTE)
def inotify_rm_watch(task: Task, fd: Fd, watch: Int) -> int:
    """End a watch."""
    found = _instance(task, fd).watches.get(watch)
    if found is None:
        raise LinuxError(EINVAL)
    found.end()
    return 0
