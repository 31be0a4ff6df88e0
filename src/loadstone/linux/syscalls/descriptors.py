"""Descriptors: copies, flags, fcntl. Source: fs/fcntl.c, fs/file.c."""

from __future__ import annotations

from errno import EBADF, EBUSY, EINVAL, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import linux_of
from loadstone.linux.structs import WORD, signed
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.user import copy_out
from loadstone.memory.vma import MAYWRITE, SHARED
from loadstone.vfs.flags import O_ASYNC, O_CLOEXEC, O_DIRECT, O_NOATIME, O_PATH, S_IFIFO, S_IFMT, SETTABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import FcntlCommand, Fd, Int, ULong
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.memfd import MemoryFile
    from loadstone.wait import Blocking


@syscall()
def dup(task: Task, fd: Fd) -> int:
    """A second descriptor, the lowest free one."""
    return task.process.files.dup(fd)


@syscall()
def dup2(task: Task, old: Fd, new: Fd) -> int:
    """A second descriptor of a chosen number, which is closed first."""
    return task.process.files.dup2(old, new)


@syscall()
def dup3(task: Task, old: Fd, new: Fd, flags: Int) -> int:
    """As dup2, with O_CLOEXEC; the same number is EINVAL."""
    if flags & ~O_CLOEXEC:
        raise LinuxError(EINVAL)
    return task.process.files.dup3(old, new, bool(flags & O_CLOEXEC))


# include/uapi/asm-generic/fcntl.h, include/uapi/linux/fcntl.h
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW = range(8)
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38
F_DUPFD_QUERY, F_CREATED_QUERY = 1027, 1028
F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS = 1030, 1031, 1032, 1033, 1034
F_GET_RW_HINT, F_SET_RW_HINT, F_GET_FILE_RW_HINT, F_SET_FILE_RW_HINT = 1035, 1036, 1037, 1038


@syscall(support=PARTIAL, note="O_ASYNC tells nothing of the host's own files; exec does not wait for a lease")
def fcntl(task: Task, fd: Fd, command: FcntlCommand, argument: ULong) -> int | Blocking:
    """Ask or change something of a descriptor or of its open file."""
    file = task.process.files.get(fd)
    if file.flags & O_PATH and command not in _ON_PATHS:
        raise LinuxError(EBADF)
    action = _COMMANDS.get(command)
    if action is None:
        from loadstone.linux.syscalls import file_signals

        action = file_signals.COMMANDS.get(command)
    if action is None:
        raise LinuxError(EINVAL)
    return action(task, fd, file, argument)


def _dupfd(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    return task.process.files.dup(fd, minimum=_unsigned(argument))


def _dupfd_cloexec(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    return task.process.files.dup(fd, minimum=_unsigned(argument), cloexec=True)


def _unsigned(argument: int) -> int:
    """The kernel takes the number as an unsigned int."""
    return argument & 0xFFFFFFFF


def _getfd(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    return int(task.process.files.is_cloexec(fd))


def _setfd(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    task.process.files.set_cloexec(fd, bool(argument & 1))
    return 0


def _getfl(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    return file.flags


def _setfl(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """Only O_APPEND, O_NONBLOCK, O_ASYNC, O_DIRECT and O_NOATIME change (setfl)."""
    who = task.process.credentials
    if argument & O_NOATIME and not file.flags & O_NOATIME and who.fsuid not in (0, file.inode.uid):
        raise LinuxError(EPERM)
    if argument & O_DIRECT and not file.inode.is_regular and file.inode.mode & S_IFMT != S_IFIFO:
        raise LinuxError(EINVAL)
    if (argument ^ file.flags) & O_ASYNC:
        from loadstone.linux.signal.file_owners import set_asynchronous

        set_asynchronous(task, fd, file, bool(argument & O_ASYNC))
    file.flags = file.flags & ~SETTABLE | argument & SETTABLE
    return 0


def _getlk(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    from loadstone.linux.syscalls import locks

    return locks.get_lock(task, file, argument, False)


def _setlk(task: Task, fd: int, file: OpenFile, argument: int) -> int | Blocking:
    from loadstone.linux.syscalls import locks

    return locks.set_lock(task, fd, file, argument, False, False)


def _setlkw(task: Task, fd: int, file: OpenFile, argument: int) -> int | Blocking:
    from loadstone.linux.syscalls import locks

    return locks.set_lock(task, fd, file, argument, False, True)


def _ofd_getlk(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    from loadstone.linux.syscalls import locks

    return locks.get_lock(task, file, argument, True)


def _ofd_setlk(task: Task, fd: int, file: OpenFile, argument: int) -> int | Blocking:
    from loadstone.linux.syscalls import locks

    return locks.set_lock(task, fd, file, argument, True, False)


def _ofd_setlkw(task: Task, fd: int, file: OpenFile, argument: int) -> int | Blocking:
    from loadstone.linux.syscalls import locks

    return locks.set_lock(task, fd, file, argument, True, True)


def _set_hint(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """Accepted: how long what is written will live changes nothing here."""
    return 0


def _same_file(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    try:
        return int(task.process.files.get(signed(argument)) is file)
    except LinuxError:
        raise LinuxError(EBADF) from None


def _created(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    return int(file.created)


def _setpipe(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    from loadstone.vfs.pipe import MOST_BYTES, PipeFile

    if not isinstance(file, PipeFile):
        raise LinuxError(EBADF)
    size = _unsigned(argument)
    if linux_of(task).pipe_max_size < size <= MOST_BYTES:  # for root too: its pipes are in the host's memory
        raise LinuxError(EPERM)
    return file.pipe.resize(size)


def _getpipe(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    from loadstone.vfs.pipe import PipeFile

    if not isinstance(file, PipeFile):
        raise LinuxError(EBADF)
    return file.pipe.capacity


def _seals(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    from loadstone.vfs.memfd import SEAL_WRITE, MemoryFile

    inode = file.inode
    if not isinstance(inode, MemoryFile):
        raise LinuxError(EINVAL, "only a memfd can be sealed")
    if not file.writable:
        raise LinuxError(EPERM)
    seals = _unsigned(argument)
    if seals & SEAL_WRITE and not inode.write_sealed and _is_mapped_writable(task, inode):
        raise LinuxError(EBUSY, "the file is mapped to be written")
    inode.seal(seals)
    return 0


def _is_mapped_writable(task: Task, inode: MemoryFile) -> bool:
    """Whether some process has a shared mapping of the file that is, or may become, writable (mapping_writably_mapped).

    With SHARED a mapping has it only if its file was open for writing.
    """
    backing: object = inode
    spaces = [process.space for process in task.kernel.processes.values() if process.status is None]
    return any(
        area.backing is backing and area.flags & SHARED and area.flags & MAYWRITE
        for space in spaces
        for area in space.vmas
    )


def _getseals(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    from loadstone.vfs.memfd import MemoryFile

    if not isinstance(file.inode, MemoryFile):
        raise LinuxError(EINVAL)
    return file.inode.seals


def _get_hint(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    copy_out(task.process.space, argument, WORD.pack(0))
    return 0


_ON_PATHS = (F_DUPFD, F_DUPFD_CLOEXEC, F_DUPFD_QUERY, F_CREATED_QUERY, F_GETFD, F_SETFD, F_GETFL)
_COMMANDS: dict[int, Callable[[Task, int, OpenFile, int], int | Blocking]] = {
    F_DUPFD: _dupfd,
    F_DUPFD_CLOEXEC: _dupfd_cloexec,
    F_GETFD: _getfd,
    F_SETFD: _setfd,
    F_GETFL: _getfl,
    F_SETFL: _setfl,
    F_GETLK: _getlk,
    F_SETLK: _setlk,
    F_SETLKW: _setlkw,
    F_OFD_GETLK: _ofd_getlk,
    F_OFD_SETLK: _ofd_setlk,
    F_OFD_SETLKW: _ofd_setlkw,
    F_DUPFD_QUERY: _same_file,
    F_CREATED_QUERY: _created,
    F_SETPIPE_SZ: _setpipe,
    F_GETPIPE_SZ: _getpipe,
    F_ADD_SEALS: _seals,
    F_GET_SEALS: _getseals,
    F_GET_RW_HINT: _get_hint,
    F_SET_RW_HINT: _set_hint,
}
