"""Telling who watches files what is done to them. Sources: include/linux/fsnotify.h, fs/notify/fsnotify.c.

A file's watches are at its inode. What happens to a file is told to those who watch its directory, with the file's
name, and then to those who watch the file itself. Masks are those of inotify(7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import Protocol
from loadstone.vfs.flags import (
    FS_RENAME,
    IN_ACCESS,
    IN_ATTRIB,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    OMIT,
)
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Dentry


class Watch(Protocol):
    """Who is told."""

    def tell(self, mask: int, name: str = "", cookie: int = 0, *, unlinked: bool = False) -> None:
        """Something of `mask` happened, to the file called `name` in the directory, or to the file itself.

        `unlinked`: it came through a name that is gone.
        """

    def end(self) -> None:
        """There will be nothing to watch any more."""


def _kind(inode: Inode) -> int:
    return IN_ISDIR if inode.is_directory else 0


def tell_inode(inode: Inode, mask: int) -> None:
    """Something happened to a file, whatever its name (fsnotify_inode)."""
    for watch in inode.watches:
        watch.tell(mask | _kind(inode))


def tell_name(directory: Inode, mask: int, name: str, inode: Inode, cookie: int = 0) -> None:
    """A name of a directory changed, which stands or stood for `inode` (fsnotify_name)."""
    for watch in directory.watches:
        watch.tell(mask | _kind(inode), name, cookie)


def tell_place(dentry: Dentry, mask: int, *, by_file: bool = False) -> None:
    """Something was done to a file through its name (fsnotify_dentry); `by_file`: to an open file (fsnotify_file)."""
    inode, parent = dentry.inode, dentry.parent
    unlinked = by_file and dentry.gone
    special = not (inode.is_regular or inode.is_directory)
    if parent is not None and not (special and mask & (IN_ACCESS | IN_MODIFY)):
        for watch in parent.inode.watches:
            watch.tell(mask | _kind(inode), dentry.name, unlinked=unlinked)
    for watch in inode.watches:
        watch.tell(mask | _kind(inode), unlinked=unlinked)


def tell_times(dentry: Dentry, times: tuple[int, int] | None) -> None:
    """A file's times were set: each alone counts as what would have changed it (fsnotify_change)."""
    if times is not None and times[1] == OMIT:
        tell_place(dentry, IN_ACCESS)
    elif times is not None and times[0] == OMIT:
        tell_place(dentry, IN_MODIFY)
    else:
        tell_place(dentry, IN_ATTRIB)


# Names


def tell_created(directory: Inode, name: str, inode: Inode) -> None:
    """A name was made."""
    tell_name(directory, IN_CREATE, name, inode)


def tell_linked(directory: Inode, name: str, inode: Inode) -> None:
    """A file has got another name."""
    tell_inode(inode, IN_ATTRIB)
    tell_name(directory, IN_CREATE, name, inode)


def tell_removed(directory: Inode, name: str, inode: Inode) -> None:
    """A name was taken away, and with the last one of a file that nobody has open the file is gone."""
    if not inode.is_directory:
        tell_inode(inode, IN_ATTRIB)
    end_if_gone(inode)
    tell_name(directory, IN_DELETE, name, inode)


def tell_moved(
    old: Inode, old_name: str, new: Inode, new_name: str, inode: Inode, replaced: Inode | None, cookie: int
) -> None:
    """A name was moved, perhaps over another one; `cookie` ties the two events together (fsnotify_move)."""
    if old is new:
        tell_name(old, FS_RENAME, old_name, inode)
    tell_name(old, IN_MOVED_FROM, old_name, inode, cookie)
    tell_name(new, IN_MOVED_TO, new_name, inode, cookie)
    if replaced is not None:
        tell_inode(replaced, IN_ATTRIB)
    tell_inode(inode, IN_MOVE_SELF)
    if replaced is not None:
        end_if_gone(replaced)


def end_if_gone(inode: Inode) -> None:
    """A file without names and openers is gone. Only regular files count those who have them open."""
    if inode.watches and inode.nlink == 0 and not (isinstance(inode, RegularFile) and inode.opened):
        tell_inode(inode, IN_DELETE_SELF)
        for watch in inode.watches:
            watch.end()
