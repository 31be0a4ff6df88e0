"""Reading and writing: one path from a file to the user's frames and back. Sources: fs/read_write.c, lib/iov_iter.c.

No page is touched that the kernel would not touch: before pages are resolved, a read asks how much there is to read.
A bad page ends the transfer with the bytes done; EFAULT only if there are none. A call that must wait goes on as a
generator, which keeps its progress and takes the pages anew after each wait.
"""

from __future__ import annotations

from errno import EAGAIN, EBADF, EFAULT, EFBIG, EINVAL, EOPNOTSUPP, EPIPE, ESPIPE
from struct import unpack
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux import jobs
from loadstone.linux.of_task import linux_of
from loadstone.linux.profile import PAGE, RLIM_INFINITY, RLIMIT_FSIZE
from loadstone.linux.signal.signals import SIGTTIN
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.placement import TASK_SIZE_MAX
from loadstone.memory.user import copy_in, pieces
from loadstone.vfs.file import WouldBlock
from loadstone.vfs.flags import IN_ACCESS, IN_MODIFY, O_APPEND, O_NONBLOCK, S_IFIFO, S_IFMT, S_IFSOCK
from loadstone.vfs.open_files import SeekableFile
from loadstone.vfs.regular import before
from loadstone.wait import TIMED_OUT, Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import (
        Fd,
        InBytes,
        Int,
        InVector,
        Offset,
        OutBytes,
        OutVector,
        Size,
        ULong,
        Whence,
    )
    from loadstone.memory.address_space import AddressSpace
    from loadstone.vfs.file import OpenFile
    from loadstone.wait import Blocking

    Segments = list[tuple[int, int]]
    """(address, length) of a buffer's parts."""

MAX_COUNT = 0x7FFFF000  # include/linux/fs.h: MAX_RW_COUNT
UIO_MAXIOV = 1024
CHUNK = 4 << 20  # pages resolved at a time: 1,024, which is also what one host call takes
BOUNCE = 1 << 20
UNLIMITED = (RLIM_INFINITY, RLIM_INFINITY)
RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND = 1, 2, 4, 8, 16


# What the area offers to others


def wait_for(block: WouldBlock, deadline: int | None = None) -> Wait:
    """What to yield after `block`."""
    if deadline is None:
        deadline = block.deadline
    return Wait(() if block.queue is None else (block.queue,), deadline, block.host_fd, block.host_write)


def broken_pipe(task: Task) -> None:
    """Send SIGPIPE, as writing where nobody reads does."""
    from loadstone.linux.signal.sending import send_task
    from loadstone.linux.signal.signals import SIGPIPE, from_process

    process = task.process
    send_task(task, from_process(SIGPIPE, process.pid, process.credentials.uid))


def too_big(task: Task) -> LinuxError:
    """Send SIGXFSZ; the error to raise."""
    from loadstone.linux.signal.sending import send_task
    from loadstone.linux.signal.signals import SIGXFSZ, from_process

    process = task.process
    send_task(task, from_process(SIGXFSZ, process.pid, process.credentials.uid))
    return LinuxError(EFBIG, "the file would be larger than RLIMIT_FSIZE")


def ahead(file: OpenFile, offset: int | None, count: int) -> int:
    """How many of `count` bytes a read at `offset` (None: the file offset) can find; -1 if nobody can tell."""
    if offset is None or not isinstance(file, SeekableFile):
        available = file.available()
        if available is not None:
            return min(count, available)
        if file.inode.is_directory:
            return 0
        return count if file.host_fd() < 0 else -1
    return min(count, max(0, file.end() - offset))


# One buffer


@syscall()
def read(task: Task, fd: Fd, buffer: OutBytes, count: Size) -> int | Blocking:
    """Read at the file offset."""
    file = task.process.files.get(fd)
    if not file.readable:
        raise LinuxError(EBADF)
    done = _read(task, file, _range(buffer, count), None)
    answered = linux_of(task).answered_reads
    if answered is not None and done.__class__ is int and file.inode.is_regular:
        answered.has_read(task, fd, file, count, done)
    return done


@syscall()
def pread64(task: Task, fd: Fd, buffer: OutBytes, count: Size, offset: Offset) -> int | Blocking:
    """Read at an offset."""
    file = _positioned(task, fd, offset)
    if not file.readable:
        raise LinuxError(EBADF)
    return _read(task, file, _range(buffer, count), offset)


@syscall()
def write(task: Task, fd: Fd, buffer: InBytes, count: Size) -> int | Blocking:
    """Write at the file offset."""
    file = task.process.files.get(fd)
    if not file.writable:
        raise LinuxError(EBADF)
    return _write(task, file, _range(buffer, count), None)


@syscall()
def pwrite64(task: Task, fd: Fd, buffer: InBytes, count: Size, offset: Offset) -> int | Blocking:
    """Write at an offset."""
    file = _positioned(task, fd, offset)
    if not file.writable:
        raise LinuxError(EBADF)
    return _write(task, file, _range(buffer, count), offset)


def _range(buffer: int, count: int) -> Segments:
    """One buffer as segments; EFAULT if it leaves user memory (access_ok)."""
    if buffer + count > TASK_SIZE_MAX:
        raise LinuxError(EFAULT)
    return [(buffer, min(count, MAX_COUNT))]


def _positioned(task: Task, fd: int, offset: int) -> OpenFile:
    if offset < 0:
        raise LinuxError(EINVAL)
    file = open_file(task, fd)
    if not file.positioned:
        raise LinuxError(ESPIPE)
    return file


# Many buffers


@syscall()
def readv(task: Task, fd: Fd, vector: OutVector, count: ULong) -> int | Blocking:
    """Read into several buffers, at the file offset."""
    return _readv(task, fd, vector, count, None, 0)


@syscall()
def writev(task: Task, fd: Fd, vector: InVector, count: ULong) -> int | Blocking:
    """Write from several buffers, at the file offset."""
    return _writev(task, fd, vector, count, None, 0)


@syscall()
def preadv(task: Task, fd: Fd, vector: OutVector, count: ULong, offset: Offset) -> int | Blocking:
    """Read into several buffers, at an offset."""
    return _readv(task, fd, vector, count, offset, 0)


@syscall()
def pwritev(task: Task, fd: Fd, vector: InVector, count: ULong, offset: Offset) -> int | Blocking:
    """Write from several buffers, at an offset."""
    return _writev(task, fd, vector, count, offset, 0)


@syscall(support=PARTIAL, note="RWF_NOWAIT is EOPNOTSUPP")
def preadv2(
    task: Task, fd: Fd, vector: OutVector, count: ULong, offset: Offset, high: ULong, flags: Int
) -> int | Blocking:
    """As preadv, with flags; offset -1 is the file offset."""
    return _readv(task, fd, vector, count, None if offset == -1 else offset, flags)


@syscall(support=PARTIAL, note="RWF_NOWAIT is EOPNOTSUPP")
def pwritev2(
    task: Task, fd: Fd, vector: InVector, count: ULong, offset: Offset, high: ULong, flags: Int
) -> int | Blocking:
    """As pwritev, with flags; offset -1 is the file offset."""
    return _writev(task, fd, vector, count, None if offset == -1 else offset, flags)


def _readv(task: Task, fd: int, vector: int, count: int, offset: int | None, flags: int) -> int | Blocking:
    file = open_file(task, fd) if offset is None else _positioned(task, fd, offset)
    if not file.readable:
        raise LinuxError(EBADF)
    segments = segments_at(task.process.space, vector, count)
    if flags & ~(RWF_HIPRI | RWF_DSYNC | RWF_SYNC):
        raise LinuxError(EOPNOTSUPP)
    return _read(task, file, segments, offset)


def _writev(task: Task, fd: int, vector: int, count: int, offset: int | None, flags: int) -> int | Blocking:
    file = open_file(task, fd) if offset is None else _positioned(task, fd, offset)
    if not file.writable:
        raise LinuxError(EBADF)
    segments = segments_at(task.process.space, vector, count)
    if flags & ~(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_APPEND):
        raise LinuxError(EOPNOTSUPP)
    if flags & RWF_APPEND and isinstance(file, SeekableFile):
        if offset is None:
            file.seek(0, 2)
        else:
            offset = file.end()
    return _write(task, file, segments, offset)


def segments_at(space: AddressSpace, vector: int, count: int) -> Segments:
    """The `count` elements of the struct iovec array at `vector`: EINVAL, EFAULT; MAX_COUNT bytes in all."""
    if count > UIO_MAXIOV:
        raise LinuxError(EINVAL)
    words = unpack(f"<{2 * count}Q", copy_in(space, vector, 16 * count))
    segments: Segments = []
    left = MAX_COUNT
    for address, length in zip(words[::2], words[1::2], strict=True):
        if length >> 63:
            raise LinuxError(EINVAL)
        if address + length > TASK_SIZE_MAX:
            raise LinuxError(EFAULT)
        taken = min(length, left)
        left -= taken
        if taken:
            segments.append((address, taken))
    return segments


def gather(space: AddressSpace, segments: Segments, skip: int, count: int, write: bool) -> list[memoryview]:
    """The frames behind `count` bytes of the segments from byte `skip` on, up to the first bad page; EFAULT if none."""
    if len(segments) == 1:
        return pieces(space, segments[0][0] + skip, count, write)
    views: list[memoryview] = []
    for address, length in segments:
        if skip >= length:
            skip -= length
            continue
        part = min(length - skip, count)
        if not part:
            break
        try:
            found = pieces(space, address + skip, part, write)
        except LinuxError:
            if views:
                break
            raise
        views += found
        skip, count = 0, count - part
        if sum(map(len, found)) < part:
            break
    return views


def whole_pages(file: OpenFile, views: list[memoryview], wanted: int) -> list[memoryview]:
    """What a transfer with a bad page in its way moves.

    A pipe takes and gives its buffers, of a page, whole or not; a socket its messages.
    """
    kind = file.inode.mode & S_IFMT
    if kind not in (S_IFIFO, S_IFSOCK) or (found := sum(map(len, views))) == wanted:
        return views
    if found < PAGE or kind == S_IFSOCK:
        raise LinuxError(EFAULT)
    return before(views, found & -PAGE)


def length_of(segments: Segments) -> int:
    """Bytes in all segments."""
    return segments[0][1] if len(segments) == 1 else sum(length for _, length in segments)


def read_segments(task: Task, file: OpenFile, segments: Segments) -> int | Blocking:
    """Read into the segments, as readv(2) does once it has checked everything."""
    return _read(task, file, segments, None)


# Reading


def _read(task: Task, file: OpenFile, segments: Segments, offset: int | None) -> int | Blocking:
    if file.terminal:
        jobs.must_be_foreground(task, SIGTTIN, file.tty)
    try:
        return _read_now(task, file, segments, offset)
    except WouldBlock as block:
        if file.flags & O_NONBLOCK:
            raise LinuxError(EAGAIN) from None
        return _read_later(task, file, segments, offset, block)


def _read_later(task: Task, file: OpenFile, segments: Segments, offset: int | None, block: WouldBlock) -> Blocking:
    while True:
        if (yield wait_for(block)) == TIMED_OUT:
            block.expire()
        try:
            return _read_now(task, file, segments, offset)
        except WouldBlock as again:
            again.follows(block)
            block = again


def _read_now(task: Task, file: OpenFile, segments: Segments, offset: int | None) -> int:
    count = length_of(segments)
    wanted = ahead(file, offset, count)
    space = task.process.space
    if wanted <= 0:
        return _read_unsure(space, file, segments, offset, count, wanted)
    done = 0
    while done < wanted:
        part = min(wanted - done, CHUNK)
        try:
            views = whole_pages(file, gather(space, segments, done, part, True), part)
            got = file.read_into(views, None if offset is None else offset + done)
        except (LinuxError, WouldBlock):
            if done:
                break
            raise
        done += got
        if got < part and got < sum(map(len, views)):
            break
    if done:
        file.tell(IN_ACCESS)
    return done


def _read_unsure(
    space: AddressSpace, file: OpenFile, segments: Segments, offset: int | None, count: int, wanted: int
) -> int:
    """Nothing is there to read, or nobody knows how much: no page of the user's is touched before that is clear.

    The file itself says whether this is its end, an error or a reason to wait. It is asked for 128 bytes (a signalfd
    takes no less) in a buffer of ours, or (`wanted` < 0) for what the user asked for.
    """
    size = min(count, BOUNCE) if wanted < 0 else 0 if isinstance(file, SeekableFile) else min(count, 128)
    buffer = memoryview(bytearray(size))
    got = file.read_into([buffer], offset)
    done = 0
    for view in gather(space, segments, 0, got, True) if got else ():
        view[:] = buffer[done : done + len(view)]
        done += len(view)
    if done:
        file.tell(IN_ACCESS)
    return done


# Writing


def _write(task: Task, file: OpenFile, segments: Segments, offset: int | None) -> int | Blocking:
    count = length_of(segments)
    if file.inode.is_regular:
        count = _within_limit(task, file, offset, count)
    elif (swallowed := file.swallow(count)) >= 0:
        return swallowed
    elif file.terminal:
        jobs.before_write(task, file)
    try:
        part = min(count, CHUNK)
        views = whole_pages(file, gather(task.process.space, segments, 0, part, False), part)
        done = file.write_from(views, offset)
    except WouldBlock as block:
        if file.flags & O_NONBLOCK:
            raise LinuxError(EAGAIN) from None
        return _write_rest(task, file, segments, offset, count, 0, block)
    except LinuxError as error:
        if error.errno == EPIPE and not file.breaks_silently:
            broken_pipe(task)
        raise
    if done >= count:
        if done:
            file.tell(IN_MODIFY)
        return done
    return _write_rest(task, file, segments, offset, count, done, None)


def _write_rest(
    task: Task, file: OpenFile, segments: Segments, offset: int | None, count: int, done: int, block: WouldBlock | None
) -> Blocking:
    """Go on until all is written, an error comes (which counts only if nothing was), or a signal."""
    while done < count:
        if block is not None:
            try:
                yield wait_for(block)
            except Interrupted:
                if done:
                    break
                raise
            block = None
        try:
            part = min(count - done, CHUNK)
            views = whole_pages(file, gather(task.process.space, segments, done, part, False), part)
            written = file.write_from(views, None if offset is None else offset + done)
        except WouldBlock as again:
            if file.flags & O_NONBLOCK:
                break
            block = again
            continue
        except LinuxError as error:
            if error.errno == EPIPE and not file.breaks_silently:
                broken_pipe(task)
            if done:
                break
            raise
        if not written:
            break
        done += written
    if done:
        file.tell(IN_MODIFY)
    return done


def _within_limit(task: Task, file: OpenFile, offset: int | None, count: int) -> int:
    """How much of `count` RLIMIT_FSIZE lets through; EFBIG and SIGXFSZ for nothing (generic_write_check_limits)."""
    limit = task.process.limits.get(RLIMIT_FSIZE, UNLIMITED)[0]
    if limit >> 63 or not count:
        return count
    at = file.offset if offset is None else offset
    if file.flags & O_APPEND and isinstance(file, SeekableFile):
        at = file.end()
    if at >= limit:
        raise too_big(task)
    return min(count, limit - at)


# The offset


@syscall()
def lseek(task: Task, fd: Fd, offset: Offset, whence: Whence) -> int:
    """Move the file offset."""
    file = open_file(task, fd)
    if whence > 4:
        raise LinuxError(EINVAL)
    return file.seek(offset, whence)
