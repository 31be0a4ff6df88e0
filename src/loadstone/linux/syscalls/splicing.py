"""Moving what is in pipes: splice, tee, vmsplice. Source: fs/splice.c.

Between pipes whole buffers move. From a file or from memory bytes are copied, into buffers cut where its pages end.
"""

from __future__ import annotations

from errno import EAGAIN, EBADF, EINVAL, EPIPE, ESPIPE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.linux.syscalls.file_transfer import BUFFER, Copy, offset_at, store_offset
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.readwrite import broken_pipe, gather, read_segments, segments_at, wait_for
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.vfs.file import WouldBlock
from loadstone.vfs.flags import IN_ACCESS, O_APPEND, O_NONBLOCK
from loadstone.vfs.open_files import SeekableFile
from loadstone.vfs.pipe import PipeFile
from loadstone.wait import Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, InVector, Size, UInt, ULong
    from loadstone.linux.syscalls.readwrite import Segments
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.pipe import Pipe
    from loadstone.wait import Blocking

SPLICE_F_NONBLOCK = 2
_KNOWN_FLAGS = 15  # MOVE, NONBLOCK, MORE, GIFT: where bytes are copied anyhow, only the second makes a difference


@syscall(support=PARTIAL, note="bytes are copied, but between pipes")
def splice(
    task: Task, in_fd: Fd, in_offset: Address, out_fd: Fd, out_offset: Address, count: Size, flags: UInt
) -> int | Blocking:
    """Move bytes between a pipe and another file."""
    if not count:
        return 0
    if flags & ~_KNOWN_FLAGS:
        raise LinuxError(EINVAL)
    source, target = open_file(task, in_fd), open_file(task, out_fd)
    if not source.readable or not target.writable:
        raise LinuxError(EBADF)
    nonblocking = bool(flags & SPLICE_F_NONBLOCK)
    if isinstance(source, PipeFile):
        if in_offset or (out_offset and isinstance(target, PipeFile)):
            raise LinuxError(ESPIPE)
        if isinstance(target, PipeFile):
            if source.pipe is target.pipe:
                raise LinuxError(EINVAL)
            return _between_pipes(task, source, target, count, nonblocking)
        return _out_of_pipe(task, source, target, count, out_offset, nonblocking)
    if not isinstance(target, PipeFile):
        raise LinuxError(EINVAL)
    if out_offset:
        raise LinuxError(ESPIPE)
    if (in_offset and not source.positioned) or isinstance(source, AnonymousFile) or source.inode.is_directory:
        raise LinuxError(EINVAL)  # the last two have no splice_read
    return into_pipe(task, source, target, count, offset_at(task, in_offset), in_offset, nonblocking)


def _out_of_pipe(
    task: Task, source: PipeFile, target: OpenFile, count: int, out_offset: int, nonblocking: bool
) -> Blocking:
    if (out_offset and not target.positioned) or target.flags & O_APPEND or isinstance(target, AnonymousFile):
        raise LinuxError(EINVAL)  # the last kind has no splice_write
    copy = Copy(task, source, target, min(count, BUFFER), None, offset_at(task, out_offset), nonblocking)
    done = yield from copy.run()
    store_offset(task, out_offset, copy.offset_out)
    return done


def into_pipe(
    task: Task, source: OpenFile, target: PipeFile, count: int, offset: int | None, where: int, nonblocking: bool
) -> Blocking:
    """As much as the pipe has room for, once it has any (splice_file_to_pipe).

    `offset` is the one at address `where`, None for the file's own.
    """
    pipe = target.pipe
    yield from _wait_for_room(task, pipe, nonblocking or bool(target.flags & O_NONBLOCK))
    at = (source.offset if offset is None else offset) if isinstance(source, SeekableFile) else 0
    buffer = memoryview(bytearray(min(count, pipe.ring.room_for_pages(at))))
    while True:
        try:
            got = source.read_into([buffer], offset)
            break
        except WouldBlock as block:
            if nonblocking or source.flags & O_NONBLOCK:
                raise LinuxError(EAGAIN) from None
            yield wait_for(block)
    done = pipe.ring.put_pages(buffer[:got], at)
    if done:
        source.tell(IN_ACCESS)
        pipe.notify(pipe.readable)
    store_offset(task, where, None if offset is None else offset + done)
    return done


def _wait_for_room(task: Task, pipe: Pipe, nonblocking: bool) -> Blocking:
    """Until a buffer is free (wait_for_space, opipe_prep)."""
    while True:
        if not pipe.readers:
            broken_pipe(task)
            raise LinuxError(EPIPE)
        if not pipe.ring.full:
            return 0
        if nonblocking:
            raise LinuxError(EAGAIN)
        yield Wait((pipe.writable,))


def _wait_for_data(pipe: Pipe, nonblocking: bool) -> Blocking:
    """Until there is something, or will never be (ipipe_prep); whether there is."""
    while not pipe.ring.buffers:
        if not pipe.writers:
            return 0
        if nonblocking:
            raise LinuxError(EAGAIN)
        yield Wait((pipe.readable,))
    return 1


def _between_pipes(task: Task, source: PipeFile, target: PipeFile, count: int, nonblocking: bool) -> Blocking:
    """Source: splice_pipe_to_pipe()."""
    here, there = source.pipe, target.pipe
    nonblocking = nonblocking or bool((source.flags | target.flags) & O_NONBLOCK)
    while True:
        yield from _wait_for_data(here, nonblocking)
        yield from _wait_for_room(task, there, nonblocking)
        done = here.ring.move(there.ring, count)
        if done:
            there.notify(there.readable)
            here.notify(here.writable)
        if done or not here.writers:
            return done


@syscall(FULL)
def tee(task: Task, in_fd: Fd, out_fd: Fd, count: Size, flags: UInt) -> int | Blocking:
    """Copy what is in one pipe to another, and leave it there."""
    if flags & ~_KNOWN_FLAGS:
        raise LinuxError(EINVAL)
    if not count:
        return 0
    source, target = open_file(task, in_fd), open_file(task, out_fd)
    if not source.readable or not target.writable:
        raise LinuxError(EBADF)
    if not isinstance(source, PipeFile) or not isinstance(target, PipeFile) or source.pipe is target.pipe:
        raise LinuxError(EINVAL)
    return _tee(task, source, target, count, bool(flags & SPLICE_F_NONBLOCK))


def _tee(task: Task, source: PipeFile, target: PipeFile, count: int, nonblocking: bool) -> Blocking:
    nonblocking = nonblocking or bool((source.flags | target.flags) & O_NONBLOCK)
    yield from _wait_for_data(source.pipe, nonblocking)
    yield from _wait_for_room(task, target.pipe, nonblocking)
    done = source.pipe.ring.copy(target.pipe.ring, count)
    if done:
        target.pipe.notify(target.pipe.readable)
    return done


@syscall(support=PARTIAL, note="bytes are copied: later changes of the memory do not show in the pipe")
def vmsplice(task: Task, fd: Fd, vector: InVector, count: ULong, flags: UInt) -> int | Blocking:
    """Move bytes between a pipe and the user's memory."""
    if flags & ~_KNOWN_FLAGS:
        raise LinuxError(EINVAL)
    file = open_file(task, fd)
    if not file.writable and not file.readable:
        raise LinuxError(EBADF)
    segments = segments_at(task.process.space, vector, count)
    if not segments:
        return 0
    if not isinstance(file, PipeFile):
        raise LinuxError(EBADF)
    if not file.writable:
        return read_segments(task, file, segments)
    return _from_memory(task, file, segments, bool(flags & SPLICE_F_NONBLOCK or file.flags & O_NONBLOCK))


def _from_memory(task: Task, file: PipeFile, segments: Segments, nonblocking: bool) -> Blocking:
    """Source: vmsplice_to_pipe()."""
    pipe, done = file.pipe, 0
    yield from _wait_for_room(task, pipe, nonblocking)
    try:
        for address, length in segments:
            wanted = min(length, pipe.ring.room_for_pages(address))
            data = b"".join(gather(task.process.space, [(address, wanted)], 0, wanted, False)) if wanted else b""
            done += pipe.ring.put_pages(memoryview(data), address)
            if len(data) < length:
                break
    except LinuxError:
        if not done:
            raise
    if done:
        pipe.notify(pipe.readable)
    return done
