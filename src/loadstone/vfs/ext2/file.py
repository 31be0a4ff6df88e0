"""Regular files of ext2: their bytes, in blocks of the device. Source: fs/ext2/inode.c."""

from __future__ import annotations

from collections.abc import Sequence
from errno import ENOSPC, ENXIO
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.ext2.node import Node
from loadstone.vfs.file import after, total
from loadstone.vfs.flags import SEEK_DATA
from loadstone.vfs.regular import RegularFile, before

if TYPE_CHECKING:
    from loadstone.vfs.ext2.system import Ext2


class File(RegularFile, Node):
    """A regular file."""

    __slots__ = ("fs", "map", "raw")

    def __init__(self, fs: Ext2, number: int, raw: bytearray) -> None:
        RegularFile.__init__(self, fs.vfs.page_cache, 0, 0, 0)
        self.begin(fs, number, raw)

    def __del__(self) -> None:
        RegularFile.__del__(self)
        if getattr(self, "map", None) is not None:
            self.end_of_life()

    def _read_host(self, pieces: Sequence[memoryview], offset: int) -> int:
        volume, done = self.fs.volume, 0
        length = volume.block_size
        count = min(total(pieces), self.size - offset)
        while done < count:
            index, start = divmod(offset + done, length)
            block, run = self.map.run(index, -(-(start + count - done) // length))
            part = before(pieces, min(run * length - start, count - done))
            if block:
                volume.disk.read_into(part, block * length + start)
            else:
                for piece in part:
                    piece[:] = bytes(len(piece))
            done += total(part)
            pieces = after(pieces, total(part))
        return done

    def _write_host(self, pieces: Sequence[memoryview], offset: int, length: int) -> int:
        self.fs.volume.demand_size(offset + length)
        done = 0
        try:
            while done < length:
                part = self._write_run(pieces, offset + done, length - done)
                done += part
                pieces = after(pieces, part)
        except LinuxError as error:
            if not done or error.errno != ENOSPC:
                self.save()
                raise
        return done

    def _write_run(self, pieces: Sequence[memoryview], offset: int, count: int) -> int:
        """Write what is in one row of blocks, which are made if there is a hole; the number of bytes."""
        volume = self.fs.volume
        length = volume.block_size
        index, start = divmod(offset, length)
        most = -(-(start + count) // length)
        block, run = self.map.run(index, most)
        if not block:
            block, run = self.map.make(index, run)
            if start:
                volume.write_block(block, bytes(length))
            if (start + count) % length and start + count <= run * length:
                volume.write_block(block + run - 1, bytes(length))
        part = before(pieces, min(run * length - start, count))
        volume.disk.write_from(part, block * length + start)
        return total(part)

    def written(self, end: int, modified: bool) -> None:
        """Note the new size and time."""
        self.size = max(self.size, end)
        if modified:
            self.changed(contents=True)
        else:
            self.save()

    def truncate(self, size: int) -> None:
        """Make it `size` bytes long; EFBIG."""
        self.fs.volume.demand_size(size)
        length = self.fs.volume.block_size
        if size < self.size:
            index, start = divmod(size, length)
            block = self.map.find(index) if start else 0
            if block:  # what comes after the end reads as zeros if the file grows again
                self.fs.volume.write(block * length + start, bytes(length - start))
            self.map.cut(-(-size // length))
        self.size = size
        self.cut(size)
        self.changed(contents=True)

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        count = min(length, self.size - offset)
        if count > 0:
            self.write_from([memoryview(bytes(count))], offset)

    def find(self, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE: ext2 knows of no holes (generic_file_llseek)."""
        if not 0 <= offset < self.size:
            raise LinuxError(ENXIO)
        return offset if whence == SEEK_DATA else self.size
