"""F_NOTIFY: signals that tell of changes in a directory. Source: fs/notify/dnotify/dnotify.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadstone.linux.signal.file_owners import OWNER_PROCESS, POLL_MSG, FileOwner, make_owner
from loadstone.vfs.flags import (
    FS_RENAME,
    IN_ACCESS,
    IN_ATTRIB,
    IN_CREATE,
    IN_DELETE,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.vfs.file import OpenFile

DN_MULTISHOT: Final = 0x80000000
# include/uapi/linux/fcntl.h, DN_*, and what they are events of
_EVENTS: Final = {
    0x01: IN_ACCESS,
    0x02: IN_MODIFY,
    0x04: IN_CREATE | IN_MOVED_TO,
    0x08: IN_DELETE | IN_MOVED_FROM,
    0x10: FS_RENAME,
    0x20: IN_ATTRIB,
}


class DirectoryNotice:
    """One open directory whose owner is told. Implements `vfs.watches.Watch` and `vfs.file.Follower`.

    `mask`: of which events (inotify's); `again`: more than once. Unlike in the kernel it ends with the last descriptor
    of the open file, not with the first that its process closes.
    """

    __slots__ = ("again", "fd", "mask", "owner")

    def __init__(self, owner: FileOwner) -> None:
        self.owner = owner
        self.mask = self.fd = 0
        self.again = False

    def tell(self, mask: int, name: str = "", cookie: int = 0, *, unlinked: bool = False) -> None:
        """Send the signal, for what happened in the directory or to itself."""
        if not mask & self.mask or not (name or mask & IN_ISDIR):
            return
        self.owner.send(self.fd, POLL_MSG)
        if not self.again:
            self.end()

    def end(self) -> None:
        """Tell no more."""
        file = self.owner.file
        file.inode.watches = tuple(one for one in file.inode.watches if one is not self)
        file.file_interests = tuple(one for one in file.file_interests if one is not self)

    def file_closed(self) -> None:
        """The directory is closed."""
        self.end()


def notify_of(task: Task, fd: int, file: OpenFile, wanted: int) -> None:
    """F_NOTIFY: tell of DN_* events in the directory, besides those of which it is told; of none (0): no more."""
    known = next((one for one in file.file_interests if isinstance(one, DirectoryNotice)), None)
    if not wanted & ~DN_MULTISHOT:
        if known is not None:
            known.end()
        return
    owner = make_owner(task, file)
    owner.propose(task, OWNER_PROCESS, task.process.pid)
    if known is None:
        known = DirectoryNotice(owner)
        file.file_interests = (*file.file_interests, known)
        file.inode.watches = (*file.inode.watches, known)
    known.fd = fd
    known.again = known.again or bool(wanted & DN_MULTISHOT)
    for bit, events in _EVENTS.items():
        if wanted & bit:
            known.mask |= events
