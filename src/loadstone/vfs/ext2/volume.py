"""The superblock, the group descriptors, and what is free. Sources: fs/ext2/{super,balloc,ialloc}.c."""

from __future__ import annotations

from errno import EFBIG, EINVAL, ENOSPC
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.discard import Space

if TYPE_CHECKING:
    from loadstone.clock import Clock
    from loadstone.vfs.loop import LoopDisk

MAGIC = 0xEF53
ROOT_INODE = 2
NAME_MAX = 255
_AT, _SIZE = 1024, 1024  # of the superblock, in bytes
_VALID = 1  # EXT2_VALID_FS: it was unmounted cleanly
_FILETYPE = 0x2
_RECOVER = 0x4
_INCOMPATIBLE = _FILETYPE  # what files may be read with
_READ_ONLY_COMPATIBLE = 0x1 | 0x2  # SPARSE_SUPER, LARGE_FILE: what files may be written with
_DYNAMIC_REVISION = 1
_FIRST_INODE_OF_OLD = 11
_FULL = b"\xff"

_COUNTS = Struct("<7I")  # at 0: inodes, blocks, reserved, free blocks, free inodes, first data block, log of block size
_GROUPS = Struct("<3I")  # at 32: blocks, fragments and inodes in a group
_TIMES = Struct("<IIHhHH")  # at 44: mounted, written, mounts, most mounts, magic, state
_REVISION = Struct("<I4xIHH3I")  # at 76: revision, first inode, inode size, group, features
_SPARE, _JOURNAL = Struct("<H"), Struct("<I")
_DESCRIPTOR = Struct("<3I3H")  # block bitmap, inode bitmap, inode table, free blocks, free inodes, directories
_DESCRIPTOR_SIZE = 32


class Group:
    """A group of blocks: where its tables are, and how much is free in it."""

    __slots__ = ("block_bitmap", "directories", "free_blocks", "free_inodes", "inode_bitmap", "inode_table", "maps")

    def __init__(self, raw: bytes) -> None:
        fields: tuple[int, ...] = _DESCRIPTOR.unpack_from(raw)
        self.block_bitmap, self.inode_bitmap, self.inode_table = fields[:3]
        self.free_blocks, self.free_inodes, self.directories = fields[3:]
        self.maps: dict[int, bytearray] = {}  # the bitmaps that were read, by block

    def pack(self) -> bytes:
        """The fields of its descriptor. The counts of a damaged image may not fit."""
        counts = (min(max(0, one), 0xFFFF) for one in (self.free_blocks, self.free_inodes, self.directories))
        return _DESCRIPTOR.pack(self.block_bitmap, self.inode_bitmap, self.inode_table, *counts)


class Volume:
    """A mounted file system's own data. Raises LinuxError(EINVAL) for a device that does not hold one.

    Attributes:
        block_size: bytes; block numbers count in it.
        inode_size: bytes in the inode table.
        read_only: nothing is written.
    """

    def __init__(self, disk: LoopDisk, clock: Clock, read_only: bool) -> None:
        self.disk = disk
        self.clock = clock
        self.read_only = read_only
        self.raw = bytearray(self.read(_AT, _SIZE))
        self._check(read_only)
        counts: tuple[int, ...] = _COUNTS.unpack_from(self.raw)
        self.inodes, self.blocks, self.reserved, self.free_blocks, self.free_inodes, self.first, log = counts
        if log > 2:
            raise _bad(f"blocks of 1,024 << {log} bytes")
        self.block_size = 1024 << log
        groups: tuple[int, ...] = _GROUPS.unpack_from(self.raw, 32)
        self.per_group, _, self.inodes_per_group = groups
        revision, first_inode, inode_size, _, _, incompatible, _ = _REVISION.unpack_from(self.raw, 76)
        self.inode_size = inode_size if revision >= _DYNAMIC_REVISION else 128
        self.first_inode = first_inode if revision >= _DYNAMIC_REVISION else _FIRST_INODE_OF_OLD
        self.typed = bool(incompatible & _FILETYPE)  # directory entries say what kind of file they name
        self._check_geometry()
        self.descriptors = (self.first + 1) * self.block_size
        count = -(-(self.blocks - self.first) // self.per_group)
        table = self.read(self.descriptors, count * _DESCRIPTOR_SIZE)
        self.groups = [Group(table[at : at + _DESCRIPTOR_SIZE]) for at in range(0, len(table), _DESCRIPTOR_SIZE)]
        if len(self.groups) != count or not count:
            raise _bad("the group descriptors are not there")

    def _check(self, read_only: bool) -> None:
        if _TIMES.unpack_from(self.raw, 44)[4] != MAGIC:
            raise _bad("the device has no superblock of ext2")
        *_, incompatible, read_only_compatible = _REVISION.unpack_from(self.raw, 76)
        if incompatible & ~_INCOMPATIBLE:
            what = "its journal was not replayed" if incompatible & _RECOVER else f"features {incompatible:#x}"
            raise _bad(f"this is no ext2, or one that was not unmounted: {what}")
        if read_only_compatible & ~_READ_ONLY_COMPATIBLE and not read_only:
            raise _bad(f"it can only be mounted read-only: features {read_only_compatible:#x}")

    def _check_geometry(self) -> None:
        """Nothing of the superblock is trusted: it sizes what is read next."""
        size = self.block_size
        if not 128 <= self.inode_size <= size or self.inode_size & self.inode_size - 1:
            raise _bad(f"inodes of {self.inode_size} bytes")
        if not 0 < self.per_group <= 8 * size or not 0 < self.inodes_per_group <= 8 * size:
            raise _bad("more in a group than its bitmap has bits")
        if self.first != (1 if size == 1024 else 0) or not self.first < self.blocks <= self.disk.size // size:
            raise _bad(f"{self.blocks} blocks, which is not what the device holds")

    # Bytes of the device

    def read(self, offset: int, count: int) -> bytes:
        """Bytes of the device; past its end, which may have come nearer, zeros."""
        data = bytearray(count)
        self.disk.read_into([memoryview(data)], offset)
        return bytes(data)

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Change bytes of the device."""
        self.disk.write_from([memoryview(data)], offset)

    def read_block(self, block: int) -> bytes:
        """One block; EINVAL for a number past the end."""
        return self.read_in(block, 0, self.block_size)

    def read_in(self, block: int, offset: int, count: int) -> bytes:
        """A part of one block."""
        if not self.first <= block < self.blocks:
            raise _bad(f"block {block} of {self.blocks}")
        return self.read(block * self.block_size + offset, count)

    def write_block(self, block: int, data: bytes) -> None:
        """Change one block."""
        if not self.first < block < self.blocks:
            raise _bad(f"block {block} of {self.blocks}")
        self.write(block * self.block_size, data)

    def now(self) -> int:
        """The time for a timestamp, ns since 1970: whole seconds, which is what there is room for."""
        return self.clock.realtime_ns() // 1_000_000_000 * 1_000_000_000

    # Inodes

    def inode_offset(self, number: int) -> int:
        """Where an inode is on the device."""
        if not 0 < number <= self.inodes:
            raise _bad(f"inode {number} of {self.inodes}")
        group, index = divmod(number - 1, self.inodes_per_group)
        if group >= len(self.groups):
            raise _bad(f"inode {number} is in no group")
        return self.groups[group].inode_table * self.block_size + index * self.inode_size

    def new_inode(self, near: int, directory: bool) -> int:
        """Take an inode, in the group of inode `near` if there is one left; ENOSPC."""
        first = (near - 1) // self.inodes_per_group
        for step in range(len(self.groups)):
            number = (first + step) % len(self.groups)
            group = self.groups[number]
            if not group.free_inodes:
                continue
            bits = self._bits(group, group.inode_bitmap)
            start = self.first_inode - 1 if number == 0 else 0
            found = _free_run(bits, start, self.inodes_per_group, 1)
            if found is None:
                continue
            self._mark(group, group.inode_bitmap, found[0], 1, True)
            group.free_inodes -= 1
            group.directories += directory
            self.free_inodes -= 1
            self._save_group(number)
            return number * self.inodes_per_group + found[0] + 1
        raise LinuxError(ENOSPC, "no inode is left")

    def free_inode(self, number: int, directory: bool) -> None:
        """Give an inode back."""
        at, index = divmod(number - 1, self.inodes_per_group)
        group = self.groups[at]
        self._mark(group, group.inode_bitmap, index, 1, False)
        group.free_inodes += 1
        group.directories -= directory
        self.free_inodes += 1
        self._save_group(at)

    # Blocks

    def new_blocks(self, goal: int, most: int) -> tuple[int, int]:
        """Take up to `most` blocks in a row, at `goal` or behind it where there are some: (first, how many); ENOSPC."""
        goal = goal if self.first < goal < self.blocks else self.first
        home, start = divmod(goal - self.first, self.per_group)
        for step in range(len(self.groups) + 1):
            number = (home + step) % len(self.groups)
            group = self.groups[number]
            here = min(self.per_group, self.blocks - self.first - number * self.per_group)
            if group.free_blocks:
                found = _free_run(self._bits(group, group.block_bitmap), start, here, most)
                if found is not None:
                    return self._take_blocks(number, *found)
            start = 0
        raise LinuxError(ENOSPC, "no block is left")

    def _take_blocks(self, number: int, index: int, count: int) -> tuple[int, int]:
        group = self.groups[number]
        self._mark(group, group.block_bitmap, index, count, True)
        group.free_blocks -= count
        self.free_blocks -= count
        self._save_group(number)
        return self.first + number * self.per_group + index, count

    def release_blocks(self, blocks: list[int]) -> None:
        """Give blocks back."""
        touched = set()
        for block in blocks:
            if not self.first < block < self.blocks:
                continue  # a bad pointer in the image frees nothing
            number, index = divmod(block - self.first, self.per_group)
            group = self.groups[number]
            bits = self._bits(group, group.block_bitmap)
            if bits[index >> 3] >> (index & 7) & 1:
                bits[index >> 3] &= ~(1 << (index & 7))
                group.free_blocks += 1
                self.free_blocks += 1
                touched.add(number)
        for number in touched:
            group = self.groups[number]
            self.write_block(group.block_bitmap, bytes(group.maps[group.block_bitmap]))
            self._save_group(number)

    def _bits(self, group: Group, block: int) -> bytearray:
        bits = group.maps.get(block)
        if bits is None:
            bits = group.maps[block] = bytearray(self.read_block(block))
        return bits

    def _mark(self, group: Group, block: int, index: int, count: int, taken: bool) -> None:
        bits = self._bits(group, block)
        for bit in range(index, index + count):
            if taken:
                bits[bit >> 3] |= 1 << (bit & 7)
            else:
                bits[bit >> 3] &= ~(1 << (bit & 7))
        self.write_block(block, bytes(bits))

    # The superblock

    def _save_group(self, number: int) -> None:
        self.write(self.descriptors + number * _DESCRIPTOR_SIZE, self.groups[number].pack())
        self._save()

    def _save(self) -> None:
        _COUNTS.pack_into(
            self.raw, 0, self.inodes, self.blocks, self.reserved,
            max(0, self.free_blocks) & 0xFFFF_FFFF, max(0, self.free_inodes) & 0xFFFF_FFFF, self.first,
            (self.block_size >> 10).bit_length() - 1,
        )  # fmt: skip
        self.write(_AT, self.raw)

    def mark_clean(self, clean: bool) -> None:
        """Note that it is in use, or was unmounted, and when."""
        mounted, _, mounts, most, magic, state = _TIMES.unpack_from(self.raw, 44)
        seconds = self.now() // 1_000_000_000 & 0xFFFF_FFFF
        if clean:
            state |= _VALID
        else:
            mounted, mounts, state = seconds, mounts + 1 & 0xFFFF, state & ~_VALID
        _TIMES.pack_into(self.raw, 44, mounted, seconds, mounts, most, magic, state)
        self._save()

    def space(self) -> Space:
        """statfs(2): the blocks that files can have, without the tables (ext2_statfs)."""
        count, size = len(self.groups), self.block_size
        table = -(-self.inodes_per_group * self.inode_size // size)
        descriptors = -(-count * _DESCRIPTOR_SIZE // size)
        sparse = _REVISION.unpack_from(self.raw, 76)[-1] & 1
        copies = sum(1 for number in range(count) if not sparse or _has_superblock(number))
        (spare,) = _SPARE.unpack_from(self.raw, 206)  # blocks for descriptors of groups that may come
        overhead = self.first + count * (2 + table) + copies * (1 + descriptors + spare) + self._journal()
        free = self.free_blocks * size
        available = max(0, self.free_blocks - self.reserved) * size
        total, files = (self.blocks - overhead) * size, self.inodes
        return Space(size, total, free, files, self.free_inodes, NAME_MAX, MAGIC, available)

    def _journal(self) -> int:
        """Blocks of the journal inside, if there is one (ext4_calculate_overhead)."""
        (number,) = _JOURNAL.unpack_from(self.raw, 224)
        if not number:
            return 0
        (size,) = _JOURNAL.unpack(self.read(self.inode_offset(number) + 4, 4))
        return int(size) // self.block_size

    def most_bytes(self) -> int:
        """How large a file may become: what three levels of pointers reach (ext2_max_size)."""
        pointers = self.block_size // 4
        return (12 + pointers + pointers * pointers + pointers * pointers * pointers) * self.block_size

    def demand_size(self, size: int) -> None:
        """EFBIG for more than a file can have."""
        if size > self.most_bytes():
            raise LinuxError(EFBIG)


def _bad(why: str) -> LinuxError:
    return LinuxError(EINVAL, why)


def _has_superblock(group: int) -> bool:
    """Whether a group has a copy of the superblock, where few do: powers of 3, 5 and 7 (ext2_bg_has_super)."""
    if group < 2:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


def _free_run(bits: bytearray, start: int, end: int, most: int) -> tuple[int, int] | None:
    """(first, how many) of bits that are 0, at or behind `start`, at most `most`; None if there are none."""
    index = start
    while index < end:
        if not index & 7:
            rest = bytes(bits[index >> 3 :])
            index += 8 * (len(rest) - len(rest.lstrip(_FULL)))
            if index >= end:
                return None
        if not bits[index >> 3] >> (index & 7) & 1:
            last = index + 1
            while last < end and last - index < most and not bits[last >> 3] >> (last & 7) & 1:
                last += 1
            return index, last - index
        index += 1
    return None
