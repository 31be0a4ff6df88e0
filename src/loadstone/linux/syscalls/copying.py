"""From file to file without the user's memory. Source: fs/splice.c, fs/read_write.c.

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
    read_segments,
    segments_at,
    wait_for,
    write_segments,
)
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.file import SeekableFile, WouldBlock
from loadstone.vfs.flags import O_APPEND, O_NONBLOCK, POLLERR, POLLOUT
from loadstone.vfs.pipe import PipeFile
from loadstone.wait import Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, InVector, Size, UInt, ULong
    from loadstone.linux.syscalls.registry import Blocking
    from loadstone.vfs.file import OpenFile

BUFFER = 1 << 20
SPLICE_F_MOVE, SPLICE_F_NONBLOCK, SPLICE_F_MORE, SPLICE_F_GIFT = 1, 2, 4, 8


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


def _offset_at(task: Task, address: int) -> int | None:
    """The loff_t at `address`, None for a null pointer; EFAULT, EINVAL for a negative one."""
    if not address:
        return None
    (offset,) = unpack("<q", copy_in(task.process.space, address, 8))
    return int(offset)


def _store(task: Task, address: int, offset: int | None) -> None:
    if address and offset is not None:
        copy_out(task.process.space, address, pack("<q", offset))


@syscall()
def sendfile(task: Task, out_fd: Fd, in_fd: Fd, offset: Address, count: Size) -> int | Blocking:
    """Copy from a file to any open file."""
    start = _offset_at(task, offset)
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
    return _sendfile(task, Copy(task, source, target, count, start, None), offset)


def _sendfile(task: Task, copy: Copy, offset: int) -> Blocking:
    done = yield from copy.run()
    _store(task, offset, copy.offset_in)
    return done


@syscall(support=FULL, note="bytes are copied; nothing is shared between files")
def copy_file_range(
    task: Task, in_fd: Fd, in_offset: Address, out_fd: Fd, out_offset: Address, count: Size, flags: UInt
) -> int | Blocking:
    """Copy from a regular file to another."""
    source, target = open_file(task, in_fd), open_file(task, out_fd)
    offset_in, offset_out = _offset_at(task, in_offset), _offset_at(task, out_offset)
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
    _store(task, in_offset, copy.offset_in)
    _store(task, out_offset, copy.offset_out)
    return done


@syscall(support=PARTIAL, note="bytes are copied")
def splice(
    task: Task, in_fd: Fd, in_offset: Address, out_fd: Fd, out_offset: Address, count: Size, flags: UInt
) -> int | Blocking:
    """Move bytes between a pipe and another file."""
    if not count:
        return 0
    if flags & ~15:
        raise LinuxError(EINVAL)
    source, target = open_file(task, in_fd), open_file(task, out_fd)
    if not source.readable or not target.writable:
        raise LinuxError(EBADF)
    from_pipe, to_pipe = isinstance(source, PipeFile), isinstance(target, PipeFile)
    if (from_pipe and in_offset) or (to_pipe and out_offset):
        raise LinuxError(ESPIPE)
    if not from_pipe and not to_pipe:
        raise LinuxError(EINVAL)
    if from_pipe and to_pipe and source.inode is target.inode:
        raise LinuxError(EINVAL)
    if (in_offset and not source.positioned) or target.flags & O_APPEND:
        raise LinuxError(EINVAL)
    copy = Copy(
        task,
        source,
        target,
        min(count, BUFFER if from_pipe else 65536),
        _offset_at(task, in_offset),
        _offset_at(task, out_offset),
        bool(flags & SPLICE_F_NONBLOCK),
    )
    return _copy_range(task, copy, in_offset, out_offset)


@syscall(support=PARTIAL, note="bytes are copied")
def vmsplice(task: Task, fd: Fd, vector: InVector, count: ULong, flags: UInt) -> int | Blocking:
    """Move bytes between a pipe and the user's memory."""
    if flags & ~15:
        raise LinuxError(EINVAL)
    file = open_file(task, fd)
    if not isinstance(file, PipeFile):
        raise LinuxError(EBADF)
    segments = segments_at(task.process.space, vector, count)
    if not segments:
        return 0
    return write_segments(task, file, segments) if file.writable else read_segments(task, file, segments)


@syscall(support=PARTIAL, note="bytes are copied")
def tee(task: Task, in_fd: Fd, out_fd: Fd, count: Size, flags: UInt) -> int | Blocking:
    """Copy what is in one pipe to another, and leave it there."""
    if flags & ~15:
        raise LinuxError(EINVAL)
    if not count:
        return 0
    source, target = open_file(task, in_fd), open_file(task, out_fd)
    if not source.readable or not target.writable:
        raise LinuxError(EBADF)
    if not isinstance(source, PipeFile) or not isinstance(target, PipeFile) or source.pipe is target.pipe:
        raise LinuxError(EINVAL)
    return _tee(source, target, count, bool(flags & SPLICE_F_NONBLOCK))


def _tee(source: PipeFile, target: PipeFile, count: int, nonblocking: bool) -> Blocking:
    while not source.pipe.ring:
        if not source.pipe.writers:
            return 0
        if nonblocking or source.flags & O_NONBLOCK:
            raise LinuxError(EAGAIN)
        yield Wait((source.pipe.readable,))
    data = bytes(source.pipe.ring.data[:count])
    while True:
        try:
            return target.write_from([memoryview(data)])
        except WouldBlock as block:
            if nonblocking or target.flags & O_NONBLOCK:
                raise LinuxError(EAGAIN) from None
            yield wait_for(block)
