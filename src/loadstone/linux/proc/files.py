"""Kinds of files under /proc: texts that are made when they are read, and directories of fixed names."""

from __future__ import annotations

from errno import EACCES, EIO
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.seq_file import LINES, RecordBuffer
from loadstone.vfs.flags import O_ACCMODE, O_RDONLY, O_WRONLY, POLLERR, POLLIN, POLLPRI, POLLRDNORM
from loadstone.vfs.generated import GeneratedDirectory, GeneratedFile
from loadstone.vfs.open_files import BytesOpen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.kernel.process import Process
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Entry, Inode
    from loadstone.vfs.location import Location
    from loadstone.vfs.namespace import MountTable

    Produce = Callable[[], bytes]
    Make = Callable[[], Inode]

PROC_DEVICE = 21


class ProcFile(GeneratedFile):
    """A file whose text is made anew whenever it is read from the start; `accept`, if there is one, takes writes.

    `record`: the pattern that ends each of its records, if it has several (see seq_file.py).
    """

    __slots__ = ("accept", "record")

    def __init__(
        self,
        produce: Produce,
        *,
        inode: int,
        mode: int = 0o444,
        uid: int = 0,
        gid: int = 0,
        now_ns: int = 0,
        accept: Callable[[bytes], None] | None = None,
        record: bytes = b"",
    ) -> None:
        super().__init__(produce, device=PROC_DEVICE, inode=inode, mode=mode, uid=uid, gid=gid, now_ns=now_ns)
        self.accept = accept
        self.record = record

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Make the text, or get ready to take some."""
        if flags & O_ACCMODE != O_RDONLY and self.accept is None:
            raise LinuxError(EACCES if not self.mode & 0o222 else EIO, "this file can only be read")
        return ProcOpen(self, flags, location)


class ProcOpen(BytesOpen):
    """An open file of /proc."""

    __slots__ = ("buffer", "proc")

    def __init__(self, inode: ProcFile, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location, inode.produce() if flags & O_ACCMODE != O_WRONLY else b"")
        self.proc = inode
        self.buffer: RecordBuffer | None = None

    def available(self) -> int | None:
        """What the next read gives at most; at the start the text is made again, as seq_file does."""
        if self.offset == 0:
            self.data = self.proc.produce()
            self.buffer = RecordBuffer(self.data, self.proc.record) if self.proc.record else None
        return super().available() if self.buffer is None else self.buffer.available(self.offset)

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Copy out of the text."""
        start = self.offset
        done = super().read_into(pieces, offset)
        if self.buffer is not None and offset is None:
            self.buffer.taken(start, done)
        return done

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Hand what is written to whoever takes it."""
        self.demand_writable()
        data = b"".join(pieces)
        if self.proc.accept is None:
            raise LinuxError(EIO)
        self.proc.accept(data)
        return len(data)


class MountsFile(ProcFile):
    """A text on the mounts, which tells who polls it that they have changed."""

    __slots__ = ("mounts",)

    def __init__(self, produce: Produce, mounts: MountTable, *, inode: int, uid: int, gid: int, now_ns: int) -> None:
        super().__init__(produce, inode=inode, uid=uid, gid=gid, now_ns=now_ns, record=LINES)
        self.mounts = mounts

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Make the text."""
        if flags & O_ACCMODE != O_RDONLY:
            raise LinuxError(EACCES, "this file can only be read")
        return MountsOpen(self, flags, location)


class MountsOpen(ProcOpen):
    """An open text on the mounts. `told`: of which change of theirs its pollers know."""

    __slots__ = ("mounts", "told")

    def __init__(self, inode: MountsFile, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location)
        self.mounts = inode.mounts
        self.told = self.mounts.changes
        self.read_queue = self.mounts.changed

    def ready(self) -> int:
        """It can be read; and each change is told of once (mounts_poll)."""
        told, self.told = self.told, self.mounts.changes
        return POLLIN | POLLRDNORM | (0 if told == self.told else POLLERR | POLLPRI)


class Directory(GeneratedDirectory):
    """A directory of /proc with fixed names: (name, type bits of the mode, how to make the inode)."""

    __slots__ = ("table",)

    def __init__(self, table: dict[str, tuple[int, Make]], *, inode: int, mode: int = 0o555, now_ns: int = 0) -> None:
        self.table = table
        super().__init__(self.listed, self.made, device=PROC_DEVICE, inode=inode, mode=mode, now_ns=now_ns)

    def listed(self) -> list[Entry]:
        """The names, in the table's order; inode numbers follow the place in it."""
        return [(name, self.inode + 1 + at, kind >> 12) for at, (name, (kind, _)) in enumerate(self.table.items())]

    def made(self, name: str) -> Inode | None:
        """The inode of a name."""
        row = self.table.get(name)
        return row[1]() if row is not None else None


class ProcessDirectory(Directory):
    """/proc/PID. Open, it stands for the process as a pidfd does; `process` is None for /proc/1."""

    __slots__ = ("process",)

    process: Process | None


def process_number(pid: int, started_ns: int = 0) -> int:
    """The inode number of a process's directory; its files follow. A later process of the same number has
    others, in the lower half too, which is all that some programs look at.
    """
    return pid << 32 | (started_ns // 1000 & 0xFFFF) << 16
