"""Symbolic links, FIFOs, names of sockets and device nodes of ext2. Sources: fs/ext2/{symlink,inode}.c."""

from __future__ import annotations

from os import fsdecode, major, makedev, minor
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.vfs.ext2.node import AT_POINTERS, INLINE, Node
from loadstone.vfs.flags import S_IFIFO, S_IFMT

if TYPE_CHECKING:
    from loadstone.vfs.ext2.system import Ext2
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location
    from loadstone.vfs.pipe import Pipe

_NUMBERS = Struct("<II")


class Symlink(Node):
    """A symbolic link."""

    __slots__ = ("fs", "map", "raw")

    def __init__(self, fs: Ext2, number: int, raw: bytearray) -> None:
        self.begin(fs, number, raw)

    def __del__(self) -> None:
        if getattr(self, "map", None) is not None:
            self.end_of_life()

    def readlink(self) -> str:
        """The text."""
        if not self.map.taken:
            return fsdecode(bytes(self.raw[AT_POINTERS : AT_POINTERS + min(self.size, INLINE)]))
        return fsdecode(self.fs.volume.read_block(self.map.find(0))[: self.size])


class Special(Node):
    """A FIFO, a socket's name, or a device node."""

    __slots__ = ("fs", "map", "pipe", "raw")

    def __init__(self, fs: Ext2, number: int, raw: bytearray) -> None:
        self.begin(fs, number, raw)
        self.pipe: Pipe | None = None
        old, new = self.map.pointers[:2]
        if old:
            self.rdev = makedev(old >> 8 & 0xFF, old & 0xFF)
        elif new:
            self.rdev = makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)

    def __del__(self) -> None:
        if getattr(self, "map", None) is not None:
            self.end_of_life()

    def set_number(self, rdev: int) -> None:
        """Say which device it stands for, as the format has it: 16 bits where they do, else 32."""
        self.rdev = rdev
        high, low = major(rdev), minor(rdev)
        old, new = high << 8 | low, low & 0xFF | high << 8 | (low & ~0xFF) << 12
        numbers = (old, 0) if high < 256 and low < 256 else (0, new)
        _NUMBERS.pack_into(self.raw, AT_POINTERS, *numbers)
        self.save()

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open an end of a FIFO, or the machine's device of the number; ENXIO."""
        if self.mode & S_IFMT != S_IFIFO:
            return self.fs.vfs.open_device(self, flags, location)
        from loadstone.vfs.pipe import Pipe, PipeFile

        if self.pipe is None:
            self.pipe = Pipe(self.fs.vfs.wake, f"fifo:[{self.inode}]")
        return PipeFile(self, flags, location, self.pipe)

    def fed(self) -> None:
        """Set the times of a change, and write them."""
        self.changed(contents=True)
