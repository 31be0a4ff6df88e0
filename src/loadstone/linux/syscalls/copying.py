"""From file to file without the user's memory. Source: fs/read_write.c.

The bytes pass through a buffer of ours of at most 1 MiB. What was taken from a pipe is always delivered: a pipe is read
only when the other side can be written.
"""

from __future__ import annotations

from errno import EAGAIN, EBADF, EINVAL, EISDIR, EPIPE, ESPIPE
from struct import pack, unpack
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.readwrite import (
    MAX_COUNT,
    ahead,
    broken_pipe,
    wait_for,
)
from loadstone.linux.syscalls.registry import FULL, syscall
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.file import WouldBlock
from loadstone.vfs.flags import IN_ACCESS, IN_MODIFY, O_APPEND, O_NONBLOCK, POLLERR, POLLOUT
from loadstone.vfs.open_files import SeekableFile
from loadstone.vfs.pipe import PipeFile
from loadstone.wait import Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, Size, UInt
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


@syscall()
def sendfile(task: Task, out_fd: Fd, in_fd: Fd, offset: Address, count: Size) -> int | Blocking:
    """Copy from a file to any open file."""
    start = offset_at(task, offset)
    source = open_file(task, in_fd)
    if not source.readable:
        raise LinuxError(EBADF)
    if start is not None and not source.positioned:
        raise LinuxError(ESPIPE)
    if start is not None and start < 0:
        raise LinuxError(EINVAL)
    target = open_file(task, out_fd)
    if not target.writable:
        raise LinuxError(EBADF)
    if not isinstance(source, SeekableFile) or target.flags & O_APPEND:
        raise LinuxError(EINVAL)
    if isinstance(target, PipeFile):
        from loadstone.linux.syscalls.splicing import into_pipe

        return into_pipe(task, source, target, count, start, offset, False)
    return _sendfile(task, Copy(task, source, target, count, start, None), offset)


def _sendfile(task: Task, copy: Copy, offset: int) -> Blocking:
    done = yield from copy.run()
    store_offset(task, offset, copy.offset_in)
    return done


@syscall(support=FULL, note="bytes are copied; nothing is shared between files")
def copy_file_range(
    task: Task, in_fd: Fd, in_offset: Address, out_fd: Fd, out_offset: Address, count: Size, flags: UInt
) -> int | Blocking:
    """Copy from a regular file to another."""
    source, target = open_file(task, in_fd), open_file(task, out_fd)
    offset_in, offset_out = offset_at(task, in_offset), offset_at(task, out_offset)
    if flags:
        raise LinuxError(EINVAL)
    for file in (source, target):
        if file.inode.is_directory:
            raise LinuxError(EISDIR)
    if not source.inode.is_regular or not target.inode.is_regular:
        raise LinuxError(EINVAL)
    if not source.readable or not target.writable or target.flags & O_APPEND:
        raise LinuxError(EBADF)
    _demand_apart(source, offset_in, target, offset_out, count)
    return _copy_range(task, Copy(task, source, target, count, offset_in, offset_out), in_offset, out_offset)


def _demand_apart(
    source: OpenFile, offset_in: int | None, target: OpenFile, offset_out: int | None, count: int
) -> None:
    """EINVAL for negative offsets and for ranges of one file that overlap."""
    start = source.offset if offset_in is None else offset_in
    end = target.offset if offset_out is None else offset_out
    if start < 0 or end < 0:
        raise LinuxError(EINVAL)
    if source.inode is target.inode and start < end + count and end < start + ahead(source, start, count):
        raise LinuxError(EINVAL)


def _copy_range(task: Task, copy: Copy, in_offset: int, out_offset: int) -> Blocking:
    done = yield from copy.run()
    store_offset(task, in_offset, copy.offset_in)
    store_offset(task, out_offset, copy.offset_out)
    return done
