"""Who may change what about a file: its mode, its owner, its times. Sources: fs/open.c, fs/attr.c, fs/utimes.c."""

from __future__ import annotations

from errno import EACCES, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.flags import NOW, OMIT, S_ISGID, W_OK
from loadstone.vfs.inode import CAP_CHOWN, CAP_FOWNER, ROOT, in_group, may

if TYPE_CHECKING:
    from loadstone.vfs.inode import Identity, Inode


def change_mode(inode: Inode, mode: int, credentials: Identity = ROOT) -> None:
    """fchmod(2): the owner or root; EPERM."""
    if inode.is_symlink:
        raise LinuxError(EOPNOTSUPP)
    if credentials.fsuid not in (0, inode.uid) and not credentials.rules(inode, CAP_FOWNER):
        raise LinuxError(EPERM)
    if credentials.fsuid != 0 and not in_group(credentials, inode.gid):
        mode &= ~S_ISGID
    inode.set_mode(mode & 0o7777)


def change_owner(inode: Inode, uid: int, gid: int, credentials: Identity = ROOT) -> None:
    """fchown(2): root, or the owner giving the file to one of their groups; EPERM."""
    if credentials.fsuid != 0 and not credentials.rules(inode, CAP_CHOWN):
        own = credentials.fsuid == inode.uid
        if uid >= 0 and not (own and uid == inode.uid):
            raise LinuxError(EPERM)
        if gid >= 0 and not (own and (in_group(credentials, gid) or gid == inode.gid)):
            raise LinuxError(EPERM)
    inode.set_owner(uid, gid)


def change_times(inode: Inode, times: tuple[int, int] | None, credentials: Identity = ROOT) -> None:
    """futimens(3): the owner or root; who may write may set both to now (else EACCES)."""
    atime, mtime = times if times is not None else (NOW, NOW)
    if atime == OMIT and mtime == OMIT:
        return
    if credentials.fsuid not in (0, inode.uid) and not credentials.rules(inode, CAP_FOWNER):
        if not atime == mtime == NOW:
            raise LinuxError(EPERM)
        if not may(inode, W_OK, credentials):
            raise LinuxError(EACCES)
    inode.set_times(atime, mtime)
