"""One transfer from file to file, and the offsets that it begins with and leaves. Source: fs/read_write.c.

The bytes pass through a buffer of ours of at most 1 MiB. What was taken from a pipe is always delivered: a pipe is read
only when the other side can be written.
"""

from __future__ import annotations

from errno import EAGAIN, EPIPE
from struct import pack, unpack
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.syscalls.readwrite import MAX_COUNT, broken_pipe, wait_for
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.file import WouldBlock
from loadstone.vfs.flags import IN_ACCESS, IN_MODIFY, O_NONBLOCK, POLLERR, POLLOUT
from loadstone.vfs.open_files import SeekableFile
from loadstone.vfs.pipe import PipeFile
from loadstone.wait import Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.vfs.file import OpenFile
    from loadstone.wait import Blocking

BUFFER = 1 << 20


class Copy:
    """One transfer from `source` to `target`; offsets of None are the files' own."""

    __slots__ = ("count", "done", "nonblocking", "offset_in", "offset_out", "source", "target", "task")

    def __init__(
        self,
        task: Task,
        source: OpenFile,
        target: OpenFile,
        count: int,
        offset_in: int | None,
        offset_out: int | None,
        nonblocking: bool = False,
    ) -> None:
        """`count` is in bytes; `nonblocking` is EAGAIN where there would be a wait."""
        self.task = task
        self.source = source
        self.target = target
        self.count = min(count, MAX_COUNT)
        self.offset_in = offset_in
        self.offset_out = offset_out
        self.nonblocking = nonblocking
        self.done = 0

    def run(self) -> Blocking:
        """Copy until all is, the source ends, or something stops it; the bytes copied."""
        buffer = bytearray(min(self.count, BUFFER))
        while self.done < self.count:
            try:
                if isinstance(self.source, PipeFile):
                    yield from self._room()
                view = memoryview(buffer)[: min(self.count - self.done, len(buffer))]
                got = yield from self._read(view)
                if not got:
                    break
                yield from self._write(view[:got])
            except (LinuxError, Interrupted):
                if self.done:
                    break
                raise
            if isinstance(self.source, PipeFile):
                break  # what was there is gone; more would be another wait
        if self.done:
            self.source.tell(IN_ACCESS)
            self.target.tell(IN_MODIFY)
        return self.done

    def _room(self) -> Blocking:
        target = self.target
        while not target.ready() & (POLLOUT | POLLERR):
            if self.nonblocking or target.flags & O_NONBLOCK:
                raise LinuxError(EAGAIN)
            queues = () if target.write_queue is None else (target.write_queue,)
            yield Wait(queues, None, target.host_fd(), True)
        return 0

    def _read(self, view: memoryview) -> Blocking:
        while True:
            try:
                got = self.source.read_into([view], self.offset_in)
            except WouldBlock as block:
                if self.nonblocking or self.source.flags & O_NONBLOCK:
                    raise LinuxError(EAGAIN) from None
                yield wait_for(block)
                continue
            if self.offset_in is not None:
                self.offset_in += got
            return got

    def _write(self, view: memoryview) -> Blocking:
        at = 0
        try:
            while at < len(view):
                try:
                    written = self.target.write_from([view[at:]], self.offset_out)
                except WouldBlock as block:
                    if self.nonblocking or self.target.flags & O_NONBLOCK:
                        raise LinuxError(EAGAIN) from None
                    yield wait_for(block)
                    continue
                at += written
                self.done += written
                if self.offset_out is not None:
                    self.offset_out += written
        except (LinuxError, Interrupted) as error:
            self._unread(len(view) - at)
            if isinstance(error, LinuxError) and error.errno == EPIPE:
                broken_pipe(self.task)
            raise
        return at

    def _unread(self, count: int) -> None:
        """Bytes that were read and not written go back; only a file has a place for them."""
        if self.offset_in is not None:
            self.offset_in -= count
        elif isinstance(self.source, SeekableFile):
            self.source.offset -= count


def offset_at(task: Task, address: int) -> int | None:
    """The loff_t at `address`, None for a null pointer; EFAULT, EINVAL for a negative one."""
    if not address:
        return None
    (offset,) = unpack("<q", copy_in(task.process.space, address, 8))
    return int(offset)


def store_offset(task: Task, address: int, offset: int | None) -> None:
    """Write an offset back, where there was one."""
    if address and offset is not None:
        copy_out(task.process.space, address, pack("<q", offset))
