"""ioctl: the requests that any file answers, and who answers those of a kind of file. Source: fs/ioctl.c.

A request that is in no table is ENOTTY and counted.
"""

from __future__ import annotations

from errno import EBADF, EINVAL, EIO, EISDIR, ENOTTY, EOPNOTSUPP, EPERM
from fcntl import ioctl as host_ioctl
from os import isatty
from struct import pack, unpack
from typing import TYPE_CHECKING, cast

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.linux.of_task import linux_of
from loadstone.linux.refusals import count_refusal
from loadstone.linux.structs import INT
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.terminal import FIONREAD, TERMINAL, TIOCCONS, TIOCLINUX, TIOCSTI, refused
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.flags import O_ASYNC, O_NONBLOCK, S_IFCHR, S_IFMT
from loadstone.vfs.open_files import SeekableFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.console import Console
    from loadstone.linux.namespaces.files import NamespaceFile
    from loadstone.linux.seccomp.notices import Listener
    from loadstone.linux.syscalls.arguments import Address, Fd, IoctlRequest
    from loadstone.linux.userfault import UserFaultFile
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.socket_space import SocketFile
    from loadstone.wait import Blocking

# include/uapi/asm-generic/ioctls.h
FIONBIO, FIONCLEX, FIOCLEX, FIOASYNC, FIOQSIZE = 0x5421, 0x5450, 0x5451, 0x5452, 0x5460
# include/uapi/linux/fs.h
FIBMAP, FIGETBSZ = 1, 2
FICLONE, FICLONERANGE, FIDEDUPERANGE = 0x40049409, 0x4020940D, 0xC0189436
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FIEMAP, FS_IOC_FSGETXATTR = 0x80086601, 0x40086602, 0xC020660B, 0x801C581F

SIOC = 0x89  # the upper byte of requests on sockets
SOCKFS_DEVICE = 8  # of sockets
NSFS_DEVICE = 4  # of what stands for namespaces


class Call(NamedTuple):
    """One ioctl: who asks, on which file, with which argument. `terminal` is the host's descriptor, -1 for none."""

    task: Task
    fd: int
    file: OpenFile
    request: int
    argument: int
    terminal: int

    @property
    def console(self) -> Console:
        """The machine's terminal state."""
        return linux_of(self.task).console

    def read(self, size: int) -> bytes:
        """What the argument points at."""
        return copy_in(self.task.process.space, self.argument, size)

    def write(self, data: bytes) -> int:
        """Give the answer where the argument points."""
        copy_out(self.task.process.space, self.argument, data)
        return 0

    def host(self, data: bytes) -> bytes:
        """Ask the host's terminal the same request, which is on the list of allowed ones."""
        try:
            return host_ioctl(self.terminal, self.request, data)
        except OSError as error:
            raise LinuxError(error.errno or EIO) from None

    def host_number(self, value: int) -> int:
        """As `host`, for a request whose argument is a number."""
        try:
            host_ioctl(self.terminal, self.request, value)
        except OSError as error:
            raise LinuxError(error.errno or EIO) from None
        return 0


@syscall(support=PARTIAL, note="terminals, FIONREAD and the like; what could type for the user is EPERM")
def ioctl(task: Task, fd: Fd, request: IoctlRequest, argument: Address) -> int | Blocking:
    """Ask or change something of a device."""
    file = open_file(task, fd)
    call = Call(task, fd, file, request, argument, terminal_of(file))
    action: Callable[[Call], int | Blocking] | None
    if file.tty is not None:
        from loadstone.linux.syscalls import pty

        pty.demand_connected(file, request)
        action = pty.PSEUDO_TERMINAL.get(request) or ANY_FILE.get(request)
    else:
        action = ANY_FILE.get(request) or (TERMINAL.get(request) if call.terminal >= 0 else None)
    action = action or _of_its_kind(call)
    if action is None:
        if call.terminal >= 0 or request not in TERMINAL:
            count_refusal(task, f"ioctl {request:#x}")
        raise LinuxError(ENOTTY, "not a request that this kind of file answers")
    return action(call)


def terminal_of(file: OpenFile) -> int:
    """The host's descriptor of an open terminal, -1 for any other file."""
    if file.inode.mode & S_IFMT != S_IFCHR:
        return -1
    fd = file.host_fd()
    return fd if fd >= 0 and isatty(fd) else -1


def _of_its_kind(call: Call) -> Callable[[Call], int | Blocking] | None:
    """What answers for a kind of file that has requests of its own."""
    file = call.file
    if isinstance(file, AnonymousFile) and file.kind in _ANONYMOUS:
        return _ANONYMOUS[file.kind]
    if file.driver:
        return _ask_driver
    if call.request >> 8 == SIOC and file.inode.device == SOCKFS_DEVICE:
        return _ask_network
    return _ask_namespace if file.inode.device == NSFS_DEVICE else None


def _ask_userfault(call: Call) -> int:
    from loadstone.linux.syscalls import userfaulting

    return userfaulting.answer(call.task, cast("UserFaultFile", call.file), call.request, call.argument)


def _ask_filter(call: Call) -> int | Blocking:
    from loadstone.linux.syscalls import seccomp_notices

    return seccomp_notices.answer(call.task, cast("Listener", call.file), call.request, call.argument)


_ANONYMOUS: dict[str, Callable[[Call], int | Blocking]] = {
    "userfaultfd": _ask_userfault,
    "seccomp notify": _ask_filter,
}


def _ask_driver(call: Call) -> int:
    from loadstone.linux.syscalls import loop_devices

    return loop_devices.answer(call)


def _ask_network(call: Call) -> int:
    from loadstone.linux.net import devices as network_devices
    from loadstone.linux.syscalls import file_signals

    if call.request in file_signals.SOCKET_REQUESTS:
        return file_signals.answer(call.task, call.file, call.request, call.argument)
    space = cast("SocketFile", call.file).socket.space
    return network_devices.answer(call.task, space, call.request, call.argument)


def _ask_namespace(call: Call) -> int:
    from loadstone.linux.namespaces import asking

    return asking.answer(call.task, cast("NamespaceFile", call.file), call.request, call.argument)


def _close_on_exec(call: Call) -> int:
    call.task.process.files.set_cloexec(call.fd, True)
    return 0


def _keep_on_exec(call: Call) -> int:
    call.task.process.files.set_cloexec(call.fd, False)
    return 0


def _nonblocking(call: Call) -> int:
    (wanted,) = INT.unpack(call.read(4))
    call.file.flags = call.file.flags & ~O_NONBLOCK | (O_NONBLOCK if wanted else 0)
    return 0


def _asynchronous(call: Call) -> int:
    """O_ASYNC, for files of a kind that knows it (ioctl_fioasync)."""
    (wanted,) = INT.unpack(call.read(4))
    if bool(wanted) != bool(call.file.flags & O_ASYNC):
        if not call.file.asynchronous:
            raise LinuxError(ENOTTY)
        from loadstone.linux.signal.file_owners import set_asynchronous

        set_asynchronous(call.task, call.fd, call.file, bool(wanted))
    return 0


def _bytes_to_read(call: Call) -> int:
    file = call.file
    if file.inode.is_regular and isinstance(file, SeekableFile):
        left = file.end() - file.offset
    else:
        available = file.available()
        if available is None or (file.inode.mode & S_IFMT == S_IFCHR and call.terminal < 0):
            raise LinuxError(ENOTTY)
        left = available
    return call.write(INT.pack(max(-(1 << 31), min(left, (1 << 31) - 1))))


def _size(call: Call) -> int:
    inode = call.file.inode
    if not (inode.is_regular or inode.is_directory or inode.is_symlink):
        raise LinuxError(ENOTTY)
    return call.write(pack("<q", inode.size))


def _block_size(call: Call) -> int:
    return call.write(INT.pack(call.file.inode.blksize))


def _block_map(call: Call) -> int:
    if not call.file.inode.is_regular:
        raise LinuxError(ENOTTY)
    raise LinuxError(EPERM if call.task.process.credentials.euid else EINVAL)


def _clone(call: Call) -> int:
    """FICLONE and FICLONERANGE: extents are not shared here, as on most file systems (vfs_clone_file_range)."""
    number = call.argument & 0xFFFFFFFF
    if call.request == FICLONERANGE:
        number = unpack("<q", call.read(8))[0]
    source = open_file(call.task, number)
    if source.inode.is_directory or call.file.inode.is_directory:
        raise LinuxError(EISDIR)
    if not source.inode.is_regular or not call.file.inode.is_regular:
        raise LinuxError(EINVAL)
    if not source.readable or not call.file.writable:
        raise LinuxError(EBADF)
    raise LinuxError(EOPNOTSUPP)


def _unsupported(call: Call) -> int:
    raise LinuxError(EOPNOTSUPP)


def _no_flags(call: Call) -> int:
    """FS_IOC_GETFLAGS: a file system without them."""
    raise LinuxError(ENOTTY)


ANY_FILE: dict[int, Callable[[Call], int]] = {
    FIOCLEX: _close_on_exec,
    FIONCLEX: _keep_on_exec,
    FIONBIO: _nonblocking,
    FIOASYNC: _asynchronous,
    FIONREAD: _bytes_to_read,
    FIOQSIZE: _size,
    FIGETBSZ: _block_size,
    FIBMAP: _block_map,
    FICLONE: _clone,
    FICLONERANGE: _clone,
    FIDEDUPERANGE: _unsupported,
    FS_IOC_FIEMAP: _unsupported,
    FS_IOC_GETFLAGS: _no_flags,
    FS_IOC_SETFLAGS: _no_flags,
    FS_IOC_FSGETXATTR: _no_flags,
    # Refused on every file: a pipe or /dev/null would say ENOTTY, but nobody needs to learn the difference.
    TIOCSTI: refused,
    TIOCLINUX: refused,
    TIOCCONS: refused,
}
