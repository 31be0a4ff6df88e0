"""What all inodes of ext2 have in common: their attributes, on the device. Source: fs/ext2/inode.c."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.ext2.mapping import BlockMap
from loadstone.vfs.flags import NOW, OMIT, S_IFMT, S_IFREG, S_ISGID, S_ISUID
from loadstone.vfs.inode import Inode, access_time

if TYPE_CHECKING:
    from loadstone.vfs.ext2.system import Ext2

# mode, user, size, access, change, modification, deletion, group, links, sectors, flags, reserved
HEAD = Struct("<HHIIIIIHHIII")
_SIZE_HIGH, OWNER_HIGH = Struct("<I"), Struct("<HH")
AT_POINTERS, _AT_SIZE_HIGH, AT_OWNER_HIGH, BYTES = 40, 108, 120, 128
SECOND = 1_000_000_000
_INDEXED = 0x1000  # EXT2_INDEX_FL: a hash tree over the entries, which a linear change makes wrong
INLINE = 60  # a symbolic link shorter than this is in the inode
_SECTOR = 512


class Node(Inode):
    """An inode of the device. What is changed is written there at once."""

    __slots__ = ()

    fs: Ext2
    map: BlockMap
    raw: bytearray

    def begin(self, fs: Ext2, number: int, raw: bytearray) -> None:
        """Take the attributes from the inode's bytes. (The slots are in the subclasses, as in Overlaid.)"""
        volume = fs.volume
        mode, uid, size, atime, ctime, mtime, _, gid, links, sectors, _, _ = HEAD.unpack_from(raw)
        uid_high, gid_high = OWNER_HIGH.unpack_from(raw, AT_OWNER_HIGH)
        Inode.__init__(self, fs.device, number, mode, uid | uid_high << 16, gid | gid_high << 16)
        self.notes_access = True
        self.fs = fs  # type: ignore[misc]
        self.raw = raw  # type: ignore[misc]
        if mode & S_IFMT == S_IFREG:
            size |= _SIZE_HIGH.unpack_from(raw, _AT_SIZE_HIGH)[0] << 32
        self.size, self.nlink, self.blocks = size, links, sectors
        self.atime_ns, self.mtime_ns, self.ctime_ns = (_signed(one) * SECOND for one in (atime, mtime, ctime))
        goal = fs.volume.first + (number - 1) // volume.inodes_per_group * volume.per_group
        taken = sectors * _SECTOR // volume.block_size
        pointers = bytes(raw[AT_POINTERS : AT_POINTERS + 60])
        self.map = BlockMap(volume, pointers, taken, goal)  # type: ignore[misc]

    def save(self) -> None:
        """Write the attributes to the device."""
        volume, raw = self.fs.volume, self.raw
        if volume.read_only:
            return
        # a damaged image may count less than is then given back
        self.blocks = max(0, self.map.taken) * volume.block_size // _SECTOR & 0xFFFF_FFFF
        times = [min(max(one // SECOND, -(1 << 31)), (1 << 31) - 1) & 0xFFFF_FFFF for one in self._times()]
        flags = HEAD.unpack_from(raw)[10] & ~(_INDEXED if self.is_directory else 0)
        HEAD.pack_into(
            raw, 0, self.mode, self.uid & 0xFFFF, self.size & 0xFFFF_FFFF, *times, self.gid & 0xFFFF,
            self.nlink, self.blocks, flags, 0,
        )  # fmt: skip
        if self.is_regular:
            _SIZE_HIGH.pack_into(raw, _AT_SIZE_HIGH, self.size >> 32)
        OWNER_HIGH.pack_into(raw, AT_OWNER_HIGH, self.uid >> 16, self.gid >> 16)
        if not self._is_inline:
            raw[AT_POINTERS : AT_POINTERS + 60] = self.map.pack()
        volume.write(volume.inode_offset(self.inode), raw)

    @property
    def _is_inline(self) -> bool:
        """Whether something else is where the pointers would be: a short link's text, a device's number."""
        return not (self.is_regular or self.is_directory) and not self.map.taken

    def _times(self) -> tuple[int, int, int, int]:
        deleted = self.fs.volume.now() if not self.nlink else 0
        return self.atime_ns, self.ctime_ns, self.mtime_ns, deleted

    def end_of_life(self) -> None:
        """Nobody has the inode any more: if it has no name either, its room is free again."""
        volume = self.fs.volume
        if self.nlink == 0 and not volume.read_only:
            try:
                self.size = 0
                if not self._is_inline:
                    self.map.cut(0)
                self.save()
                volume.free_inode(self.inode, self.is_directory)
            except (LinuxError, ValueError, OSError):
                pass  # the machine is being taken down: e2fsck finds it

    def changed(self, *, contents: bool = False) -> None:
        """Note the time of a change, and write it."""
        self.ctime_ns = self.fs.volume.now()
        if contents:
            self.mtime_ns = self.ctime_ns
        self.save()

    def set_mode(self, mode: int) -> None:
        """Set the twelve permission bits."""
        self.mode = self.mode & S_IFMT | mode & 0o7777
        self.changed()

    def set_owner(self, uid: int, gid: int) -> None:
        """Set owner and group. Not for directories, set-ID bits go, as in chown_common()."""
        self.uid = uid if uid >= 0 else self.uid
        self.gid = gid if gid >= 0 else self.gid
        if not self.is_directory:
            self.mode &= ~S_ISUID & (~S_ISGID if self.mode & 0o010 else ~0)
        self.changed()

    def accessed(self, relative: bool) -> None:
        """Set the access time, in whole seconds; written only if that makes another one."""
        time = access_time(self, relative, self.fs.volume.now()) // SECOND * SECOND
        if time != self.atime_ns:
            self.atime_ns = time
            self.save()

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Set the times, in whole seconds."""
        now = self.fs.volume.now()
        if atime_ns != OMIT:
            self.atime_ns = now if atime_ns == NOW else atime_ns // SECOND * SECOND
        if mtime_ns != OMIT:
            self.mtime_ns = now if mtime_ns == NOW else mtime_ns // SECOND * SECOND
        self.changed()

    def count_links(self, change: int) -> None:
        """One name more or less."""
        self.nlink = min(max(0, self.nlink + change), 0xFFFF)
        self.changed()


def _signed(seconds: int) -> int:
    return (seconds ^ 0x8000_0000) - 0x8000_0000
