"""A mounted ext2: the one object of each inode, and new inodes. Source: fs/ext2/{inode,ialloc}.c."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from loadstone.errors import LinuxError
from loadstone.vfs.ext2.directory import Directory
from loadstone.vfs.ext2.file import File
from loadstone.vfs.ext2.node import AT_OWNER_HIGH, BYTES, HEAD, OWNER_HIGH, SECOND
from loadstone.vfs.ext2.others import Special, Symlink
from loadstone.vfs.ext2.volume import ROOT_INODE
from loadstone.vfs.flags import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID

if TYPE_CHECKING:
    from loadstone.vfs.ext2.node import Node
    from loadstone.vfs.ext2.volume import Volume
    from loadstone.vfs.inode import Identity
    from loadstone.vfs.vfs import Vfs


class Ext2:
    """A mounted file system: finds the one object of each inode."""

    __slots__ = ("device", "nodes", "vfs", "volume")

    def __init__(self, volume: Volume, vfs: Vfs, device: int) -> None:
        self.volume = volume
        self.vfs = vfs
        self.device = device
        self.nodes: WeakValueDictionary[int, Node] = WeakValueDictionary()

    def root(self) -> Node:
        """The topmost directory; EINVAL if it is none."""
        root = self.get(ROOT_INODE)
        if not root.is_directory:
            raise LinuxError(EINVAL, "the root inode is no directory")
        return root

    def get(self, number: int) -> Node:
        """The inode of a number; EINVAL for one that is not on the device."""
        known = self.nodes.get(number)
        if known is None:
            raw = bytearray(self.volume.read(self.volume.inode_offset(number), BYTES))
            known = self._object(number, raw)
        return known

    def make(self, parent: Node, mode: int, who: Identity) -> Node:
        """A new inode, beside its directory; ENOSPC."""
        number = self.volume.new_inode(parent.inode, mode & S_IFMT == S_IFDIR)
        raw = bytearray(BYTES)
        gid = parent.gid if parent.mode & S_ISGID else who.fsgid
        if parent.mode & S_ISGID and mode & S_IFMT == S_IFDIR:
            mode |= S_ISGID
        seconds = self.volume.now() // SECOND
        HEAD.pack_into(raw, 0, mode, who.fsuid & 0xFFFF, 0, seconds, seconds, seconds, 0, gid & 0xFFFF, 1, 0, 0, 0)
        OWNER_HIGH.pack_into(raw, AT_OWNER_HIGH, who.fsuid >> 16, gid >> 16)
        self.volume.write(self.volume.inode_offset(number), bytes(self.volume.inode_size))
        made = self._object(number, raw)
        made.save()
        return made

    def _object(self, number: int, raw: bytearray) -> Node:
        kind = HEAD.unpack_from(raw)[0] & S_IFMT
        made: Node
        if kind == S_IFREG:
            made = File(self, number, raw)
        elif kind == S_IFDIR:
            made = Directory(self, number, raw)
        elif kind == S_IFLNK:
            made = Symlink(self, number, raw)
        else:
            made = Special(self, number, raw)
        self.nodes[number] = made
        return made

    def sync(self) -> None:
        """Write the dirty pages of shared mappings."""
        for node in list(self.nodes.values()):
            if isinstance(node, File):
                node.sync()
        self.volume.disk.sync()
