"""From file to file without the user's memory: sendfile and copy_file_range. Source: fs/read_write.c."""

from __future__ import annotations

from errno import EBADF, EINVAL, EISDIR, ESPIPE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.syscalls.file_transfer import Copy, offset_at, store_offset
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.readwrite import ahead
from loadstone.linux.syscalls.registry import FULL, syscall
from loadstone.vfs.flags import O_APPEND
from loadstone.vfs.open_files import SeekableFile
from loadstone.vfs.pipe import PipeFile

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, Size, UInt
    from loadstone.vfs.file import OpenFile
    from loadstone.wait import Blocking


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
