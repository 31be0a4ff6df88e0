"""Pipes. Source: fs/pipe.c."""

from __future__ import annotations

from errno import EINVAL
from struct import pack
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.syscalls.registry import syscall
from loadstone.memory.user import copy_out
from loadstone.vfs.flags import O_CLOEXEC, O_DIRECT, O_NONBLOCK

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Int, OutPair


@syscall()
def pipe(task: Task, descriptors: OutPair) -> int:
    """A pipe: the descriptor that reads, the descriptor that writes."""
    return pipe2(task, descriptors, 0)


@syscall()
def pipe2(task: Task, descriptors: OutPair, flags: Int) -> int:
    """As pipe, with flags."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT):
        raise LinuxError(EINVAL)
    files = task.process.files
    cloexec = bool(flags & O_CLOEXEC)
    reader, writer = task.kernel.vfs.pipe(flags & (O_NONBLOCK | O_DIRECT), task.process.credentials)
    first = second = -1
    try:
        first = files.install(reader, cloexec=cloexec)
        second = files.install(writer, cloexec=cloexec)
        copy_out(task.process.space, descriptors, pack("<ii", first, second))
    except LinuxError:
        for fd, file in ((first, reader), (second, writer)):
            if fd >= 0:
                files.close(fd)
            else:
                file.hold()
                file.close()
        raise
    return 0
