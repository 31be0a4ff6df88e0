"""Directories on the device: entries of inode number, length, and name, one behind another in blocks. fs/ext2/dir.c."""

from __future__ import annotations

from errno import EINVAL
from os import fsdecode, fsencode
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.vfs.flags import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.vfs.ext2.mapping import BlockMap
    from loadstone.vfs.ext2.volume import Volume

_HEAD = Struct("<IHBB")  # inode, length of the entry, length of the name, kind of file
_KINDS = {1: S_IFREG, 2: S_IFDIR, 3: S_IFCHR, 4: S_IFBLK, 5: S_IFIFO, 6: S_IFSOCK, 7: S_IFLNK}
_CODES = {kind: code for code, kind in _KINDS.items()}


class Found(NamedTuple):
    """An entry, and where: the device's block, its offset there, that of the entry before it in the block or -1."""

    name: str
    inode: int
    kind: int
    block: int
    offset: int
    before: int


def space_for(name: bytes) -> int:
    """Bytes that an entry needs: whole words."""
    return _HEAD.size + len(name) + 3 & ~3


class Entries:
    """The entries of one directory of `blocks` blocks."""

    __slots__ = ("map", "volume")

    def __init__(self, volume: Volume, block_map: BlockMap) -> None:
        self.volume = volume
        self.map = block_map

    def all(self, size: int) -> Iterator[Found]:
        """Those in use, `.` and `..` too; EINVAL for a directory that is damaged."""
        for index in range(size // self.volume.block_size):
            block = self.map.find(index)
            if block:
                yield from self._in_block(block)

    def _in_block(self, block: int) -> Iterator[Found]:
        raw, offset, before = self.volume.read_block(block), 0, -1
        while offset < len(raw):
            inode, length, name_length, code = self._head(raw, offset)
            if inode:
                name = raw[offset + _HEAD.size : offset + _HEAD.size + name_length]
                kind = _KINDS.get(code, 0) if self.volume.typed else 0
                yield Found(fsdecode(name), inode, kind, block, offset, before)
            before, offset = offset, offset + length

    @staticmethod
    def _head(raw: bytes | bytearray, offset: int) -> tuple[int, int, int, int]:
        if offset + _HEAD.size > len(raw):
            raise LinuxError(EINVAL, "a directory entry past the end of its block")
        inode, length, name_length, code = _HEAD.unpack_from(raw, offset)
        if length < _HEAD.size or length & 3 or offset + length > len(raw) or _HEAD.size + name_length > length:
            raise LinuxError(EINVAL, f"a directory entry of {length} bytes with a name of {name_length}")
        return inode, length, name_length, code

    def find(self, size: int, name: str) -> Found | None:
        """The entry called `name`."""
        return next((one for one in self.all(size) if one.name == name), None)

    def add(self, size: int, name: str, inode: int, mode: int) -> int:
        """Put an entry where there is room, else into a new block; the directory's size after that. ENOSPC."""
        raw_name = fsencode(name)
        needed, length = space_for(raw_name), self.volume.block_size
        for index in range(size // length):
            block = self.map.find(index)
            if block and self._add_in(block, needed, raw_name, inode, mode):
                return size
        block, _ = self.map.make(size // length, 1)
        self.volume.write_block(block, self._entry(inode, length, raw_name, mode).ljust(length, b"\0"))
        return size + length

    def _entry(self, inode: int, length: int, name: bytes, mode: int) -> bytes:
        code = _CODES.get(mode & S_IFMT, 0) if self.volume.typed else 0
        return _HEAD.pack(inode, length, len(name), code) + name

    def _add_in(self, block: int, needed: int, name: bytes, inode: int, mode: int) -> bool:
        raw, offset = bytearray(self.volume.read_block(block)), 0
        while offset < len(raw):
            used_by, length, name_length, code = self._head(raw, offset)
            taken = _HEAD.size + name_length + 3 & ~3 if used_by else 0
            if length - taken >= needed:
                if taken:  # the entry keeps what it needs, and the new one has the rest
                    _HEAD.pack_into(raw, offset, used_by, taken, name_length, code)
                made = self._entry(inode, length - taken, name, mode)
                raw[offset + taken : offset + taken + len(made)] = made
                self.volume.write_block(block, bytes(raw))
                return True
            offset += length
        return False

    def remove(self, found: Found) -> None:
        """Take an entry away: the one before it has its room, else it stays as an empty one."""
        raw = bytearray(self.volume.read_block(found.block))
        _, length, name_length, code = self._head(raw, found.offset)
        if found.before >= 0:
            inode, before, *rest = self._head(raw, found.before)
            _HEAD.pack_into(raw, found.before, inode, before + length, *rest)
        else:
            _HEAD.pack_into(raw, found.offset, 0, length, name_length, code)
        self.volume.write_block(found.block, bytes(raw))

    def point(self, found: Found, inode: int, mode: int) -> None:
        """Let an entry name another file."""
        raw = bytearray(self.volume.read_block(found.block))
        _, length, name_length, _ = self._head(raw, found.offset)
        code = _CODES.get(mode & S_IFMT, 0) if self.volume.typed else 0
        _HEAD.pack_into(raw, found.offset, inode, length, name_length, code)
        self.volume.write_block(found.block, bytes(raw))

    def start(self, own: int, parent: int) -> int:
        """Give a new directory its first block, with `.` and `..`; its size."""
        length = self.volume.block_size
        block, _ = self.map.make(0, 1)
        dot = self._entry(own, 12, b".", S_IFDIR).ljust(12, b"\0")
        self.volume.write_block(block, (dot + self._entry(parent, length - 12, b"..", S_IFDIR)).ljust(length, b"\0"))
        return length
