"""In which blocks of the device a file's bytes are: twelve direct pointers, then one, two and three levels of them.

Source: fs/ext2/inode.c. A pointer of 0 is a hole.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadstone.vfs.ext2.volume import Volume

DIRECT = 12
POINTERS = 15
_POINTER = Struct("<I")
_ALL = Struct("<15I")


class BlockMap:
    """The pointers of one file. `taken` counts its blocks, those that hold pointers too."""

    __slots__ = ("goal", "pointers", "taken", "volume")

    def __init__(self, volume: Volume, raw: bytes, taken: int, goal: int) -> None:
        self.volume = volume
        self.pointers: list[int] = list(_ALL.unpack(raw))
        self.taken = taken
        self.goal = goal  # where the next block would best be

    def pack(self) -> bytes:
        """The pointers as the inode has them."""
        return _ALL.pack(*self.pointers)

    def _path(self, index: int) -> list[int]:
        """Which pointer to follow at each level: first in the inode, then in blocks of pointers."""
        if index < DIRECT:
            return [index]
        index -= DIRECT
        many = self.volume.block_size // 4
        if index < many:
            return [12, index]
        index -= many
        if index < many * many:
            return [13, index // many, index % many]
        index -= many * many
        return [14, index // (many * many), index // many % many, index % many]

    def find(self, index: int) -> int:
        """The device's block for block `index` of the file; 0 for a hole."""
        first, *rest = self._path(index)
        block = self.pointers[first]
        for step in rest:
            if not block:
                return 0
            block = self._get((block, step))
        return int(block)

    def run(self, index: int, most: int) -> tuple[int, int]:
        """(device's block or 0, how many follow it in a row on the device and in the file), at most `most`."""
        block, count = self.find(index), 1
        while count < most:
            following = self.find(index + count)
            if following != (block + count if block else 0):
                break
            count += 1
        return block, count

    def make(self, index: int, most: int) -> tuple[int, int]:
        """Give a hole blocks: (the first one, how many in a row, at most `most`); they are not cleared. ENOSPC."""
        wanted = 1
        while wanted < most and not self.find(index + wanted):
            wanted += 1
        slots = [self._slot(index)]
        first, count = self.volume.new_blocks(self.goal, wanted)
        self.goal = first + count
        self._set(slots[0], first)
        for more in range(1, count):
            try:
                self._set(self._slot(index + more), first + more)
            except BaseException:  # no room for a block of pointers
                self.volume.release_blocks(list(range(first + more, first + count)))
                self.taken += more
                return first, more
        self.taken += count
        return first, count

    def _slot(self, index: int) -> tuple[int, int]:
        """Where the pointer to block `index` is: (block of pointers, or 0 for the inode; position); made if absent."""
        first, *rest = self._path(index)
        holder, position = 0, first
        for step in rest:
            block = self._get((holder, position))
            if not block:
                block, _ = self.volume.new_blocks(self.goal, 1)
                self.goal = block + 1
                self.volume.write_block(block, bytes(self.volume.block_size))
                self.taken += 1
                self._set((holder, position), block)
            holder, position = block, step
        return holder, position

    def _get(self, slot: tuple[int, int]) -> int:
        holder, position = slot
        if not holder:
            return self.pointers[position]
        (block,) = _POINTER.unpack(self.volume.read_in(holder, 4 * position, 4))
        return int(block)

    def _set(self, slot: tuple[int, int], block: int) -> None:
        holder, position = slot
        if not holder:
            self.pointers[position] = block
        else:
            self.volume.write(holder * self.volume.block_size + 4 * position, _POINTER.pack(block))

    def cut(self, blocks: int) -> None:
        """Give back what the file has behind its first `blocks` blocks."""
        freed: list[int] = []
        many = self.volume.block_size // 4
        start = 0
        for position in range(POINTERS):
            level = max(0, position - DIRECT + 1)
            covers: int = many**level
            if start + covers > blocks and self.pointers[position]:
                self.pointers[position] = self._cut_below(self.pointers[position], level, blocks - start, freed)
            start += covers
        self.taken -= len(freed)
        self.volume.release_blocks(freed)

    def _cut_below(self, block: int, level: int, keep: int, freed: list[int]) -> int:
        """Cut a tree of pointers down to its first `keep` blocks; what is left of its top: the block, or 0."""
        if level:
            many = self.volume.block_size // 4
            raw = bytearray(self.volume.read_block(block))
            each: int = many ** (level - 1)
            for position in range(max(0, keep // each), many):
                (below,) = _POINTER.unpack_from(raw, 4 * position)
                if below:
                    left = self._cut_below(below, level - 1, keep - position * each, freed)
                    _POINTER.pack_into(raw, 4 * position, left)
            if keep > 0:
                self.volume.write_block(block, bytes(raw))
        if keep > 0:
            return block
        freed.append(block)
        return 0
