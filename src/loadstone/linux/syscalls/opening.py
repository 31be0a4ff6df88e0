"""Opening and closing. Sources: fs/open.c (build_open_flags, do_sys_openat2), fs/file.c."""

from __future__ import annotations

from errno import E2BIG, EAGAIN, EFAULT, EINVAL, EXDEV
from os import fsdecode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux import jobs
from loadstone.linux.structs import OPEN_HOW
from loadstone.linux.syscalls.lookup import AT_FDCWD, path_at, start
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.user import copy_in, read_string
from loadstone.vfs.flags import (
    IN_OPEN,
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_LARGEFILE,
    O_NOCTTY,
    O_NOFOLLOW,
    O_PATH,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    TMPFILE_BIT,
)
from loadstone.vfs.namespace import Origin
from loadstone.wait import Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, DirFd, Fd, Mode, OpenFlags, Path, Size, UInt
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location
    from loadstone.wait import Blocking

VALID_OPEN_FLAGS = 0o37777703  # include/linux/fcntl.h, with O_SYNC and O_TMPFILE
O_PATH_FLAGS = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC
PERMISSIONS = 0o7777

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x01, 0x02, 0x04
RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_CACHED = 0x08, 0x10, 0x20


@syscall()
def open(task: Task, path: Path, flags: OpenFlags, mode: Mode) -> int | Blocking:
    """Open a file, perhaps creating it; the lowest free descriptor."""
    return _open(task, AT_FDCWD, path, flags, mode)


@syscall()
def openat(task: Task, fd: DirFd, path: Path, flags: OpenFlags, mode: Mode) -> int | Blocking:
    """Open a file, found from a directory's descriptor."""
    return _open(task, fd, path, flags, mode)


@syscall()
def creat(task: Task, path: Path, mode: Mode) -> int | Blocking:
    """Create a file, or empty it, for writing."""
    return _open(task, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode)


def _open(task: Task, fd: int, address: int, flags: int, mode: int) -> int | Blocking:
    """The two old calls ignore what they do not know (build_open_how)."""
    flags &= VALID_OPEN_FLAGS
    if flags & O_PATH:
        flags &= O_PATH_FLAGS
    if not flags & (O_CREAT | TMPFILE_BIT):
        mode = 0
    _check(flags)
    text = path_at(task, address)
    return _finish(task, text, start(task, fd, text), flags, mode & PERMISSIONS, None)


@syscall(support=PARTIAL, note="RESOLVE_BENEATH stops at its start without EXDEV; the RESOLVE_NO_ flags do little")
def openat2(task: Task, fd: DirFd, path: Path, how: Address, size: Size) -> int | Blocking:
    """As openat, with everything checked and ways to restrict how the path is followed."""
    if size < OPEN_HOW.size:
        raise LinuxError(EINVAL)
    if size > 4096:
        raise LinuxError(E2BIG)
    raw = copy_in(task.process.space, how, size)
    if any(raw[OPEN_HOW.size :]):
        raise LinuxError(E2BIG)
    flags, mode, resolve = OPEN_HOW.unpack(raw[: OPEN_HOW.size])
    if flags & ~VALID_OPEN_FLAGS or resolve & ~0x3F:
        raise LinuxError(EINVAL)
    if resolve & RESOLVE_BENEATH and resolve & RESOLVE_IN_ROOT:
        raise LinuxError(EINVAL)
    if mode & ~PERMISSIONS or (mode and not flags & (O_CREAT | TMPFILE_BIT)):
        raise LinuxError(EINVAL)
    if flags & O_PATH and flags & ~O_PATH_FLAGS:
        raise LinuxError(EINVAL)
    _check(flags)
    if resolve & RESOLVE_CACHED:
        raise LinuxError(EAGAIN)
    text = path_at(task, path)
    directory = start(task, fd, text)
    if resolve & RESOLVE_BENEATH and text.startswith("/"):
        raise LinuxError(EXDEV)
    # Nothing here can follow a path under these restrictions safely but from a root of its own.
    inside = directory if resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT) else None
    if resolve & RESOLVE_NO_SYMLINKS:
        flags |= O_NOFOLLOW
    return _finish(task, text, directory, flags, mode, inside)


def _check(flags: int) -> None:
    """What build_open_flags refuses."""
    if flags & TMPFILE_BIT:
        if flags & O_TMPFILE != O_TMPFILE or flags & O_CREAT:
            raise LinuxError(EINVAL)
        if flags & O_ACCMODE not in (O_WRONLY, O_RDWR):
            raise LinuxError(EINVAL)
    elif flags & O_DIRECTORY and flags & O_CREAT:
        raise LinuxError(EINVAL)


def _finish(
    task: Task, path: str, directory: Location, flags: int, mode: int, inside: Location | None
) -> int | Blocking:
    process = task.process
    process.files.free()  # EMFILE comes before anything is created
    file = task.kernel.vfs.open(
        path,
        flags | O_LARGEFILE if not flags & O_PATH else flags,
        mode & ~process.fs.umask,
        Origin(directory, inside or process.fs.root, process.credentials),
    )
    if file.terminal and not flags & O_NOCTTY:
        jobs.opened_terminal(process, file)
    if file.opening() is not None:
        return _open_later(task, file, flags)
    return process.files.install(file, cloexec=bool(flags & O_CLOEXEC))


def _open_later(task: Task, file: OpenFile, flags: int) -> Blocking:
    """Wait for the other end of a FIFO, or for who has a lease."""
    file.hold()
    try:
        while (found := file.opening()) is not None and found.queue is not None:
            yield Wait((found.queue,), found.deadline)
        file.tell(IN_OPEN)
        if flags & O_TRUNC and file.inode.is_regular:
            task.kernel.vfs.empty(file, task.process.credentials)
        return task.process.files.install(file, cloexec=bool(flags & O_CLOEXEC))
    finally:
        file.close()


@syscall()
def close(task: Task, fd: Fd) -> int:
    """Close a descriptor."""
    task.process.files.close(fd)
    return 0


CLOSE_RANGE_UNSHARE, CLOSE_RANGE_CLOEXEC = 2, 4


@syscall()
def close_range(task: Task, first: UInt, last: UInt, flags: UInt) -> int:
    """Close all descriptors of a range, or mark them close-on-exec."""
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
        raise LinuxError(EINVAL)
    if flags & CLOSE_RANGE_UNSHARE:
        task.process.unshare(task, files=True, fs=False)
    for fd, _ in task.process.files.items():
        if first <= fd <= last:
            if flags & CLOSE_RANGE_CLOEXEC:
                task.process.files.set_cloexec(fd, True)
            else:
                close(task, fd)
    return 0


MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, MFD_EXEC = 1, 2, 8, 16


@syscall(support=PARTIAL, note="huge pages are EINVAL")
def memfd_create(task: Task, name: Path, flags: UInt) -> int:
    """A file without a name, in memory."""
    if flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC):
        raise LinuxError(EINVAL)
    from loadstone.vfs.memfd import SEAL_EXEC, MemoryFile

    if flags & MFD_NOEXEC_SEAL and flags & MFD_EXEC:
        raise LinuxError(EINVAL)
    try:
        text = fsdecode(read_string(task.process.space, name, 250))
    except LinuxError as error:
        # MFD_NAME_MAX_LEN is checked with strnlen_user, whose only error for too long is EINVAL
        raise LinuxError(EFAULT if error.errno == EFAULT else EINVAL) from None
    process = task.process
    process.files.free()
    file = task.kernel.vfs.anonymous(f"memfd:{text}", O_RDWR | O_LARGEFILE)
    assert isinstance(file.inode, MemoryFile)
    if flags & MFD_NOEXEC_SEAL:
        file.inode.mode &= ~0o111
        file.inode.seals = SEAL_EXEC
    elif flags & MFD_ALLOW_SEALING:
        file.inode.seals = 0
    return process.files.install(file, cloexec=bool(flags & MFD_CLOEXEC))
