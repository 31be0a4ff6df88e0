"""From a block device to a mounted ext2. Source: fs/ext2/super.c."""

from __future__ import annotations

from errno import EACCES
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.ext2.system import Ext2
from loadstone.vfs.ext2.volume import MAGIC, Volume
from loadstone.vfs.location import Dentry, Superblock

if TYPE_CHECKING:
    from loadstone.vfs.loop import LoopDisk
    from loadstone.vfs.vfs import Vfs


def mount_ext2(kind: str, disk: LoopDisk, vfs: Vfs, read_only: bool) -> Superblock:
    """The file system on a device; the one that is mounted already, if it is.

    Raises LinuxError: EINVAL for a device that holds no such file system, EACCES to write one that is read-only, EBUSY
    for one that somebody has for himself.
    """
    if isinstance(disk.holder, Superblock):
        return disk.holder
    if disk.read_only and not read_only:
        raise LinuxError(EACCES, "the block device is read-only")
    volume = Volume(disk, vfs.clock, read_only)
    fs = Ext2(volume, vfs, disk.device)
    made = Superblock(kind, MAGIC, Dentry(None, "/", fs.root()))
    disk.claim(made)
    made.read_only = read_only
    made.space = volume.space
    made.sync = fs.sync

    def release() -> None:
        fs.sync()
        if not volume.read_only:
            volume.mark_clean(True)
        disk.release(made)

    def set_read_only(closed: bool) -> None:
        if disk.read_only and not closed:
            raise LinuxError(EACCES, "the block device is read-only")
        if closed and not volume.read_only:
            fs.sync()
            volume.mark_clean(True)
        opened = volume.read_only and not closed
        volume.read_only = closed
        if opened:
            volume.mark_clean(False)

    made.release, made.set_read_only = release, set_read_only
    if not read_only:
        volume.mark_clean(False)
    return made
