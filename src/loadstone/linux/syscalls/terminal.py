"""ioctl: terminals through a list of what is allowed, and the few requests that any file answers.

A request that is not in the tables is ENOTTY and counted. What would let a program type on the user's behalf, or take
over their terminal, is EPERM: TIOCSTI, TIOCLINUX, TIOCCONS and whatever else changes more than modes.
Sources: fs/ioctl.c, drivers/tty/tty_io.c, tty_ioctl.c.
"""

from __future__ import annotations

from errno import EBADF, EINVAL, EIO, EISDIR, ENOTTY, EOPNOTSUPP, EPERM, ESRCH
from fcntl import ioctl as host_ioctl
from os import isatty
from struct import pack, unpack
from typing import TYPE_CHECKING, cast

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux import jobs
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.linux.of_task import linux_of, pid_meant, pid_seen
from loadstone.linux.refusals import count_refusal
from loadstone.linux.signals import SIGTTOU
from loadstone.linux.structs import INT, TERMIOS, TERMIOS2, WINSIZE
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.flags import O_ASYNC, O_NONBLOCK, S_IFCHR, S_IFMT
from loadstone.vfs.open_files import SeekableFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.console import Console
    from loadstone.linux.namespaces.files import NamespaceFile
    from loadstone.linux.syscalls.arguments import Address, Fd, IoctlRequest
    from loadstone.linux.userfault import UserFaultFile
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.socket_space import SocketFile
    from loadstone.wait import Blocking

# include/uapi/asm-generic/ioctls.h
TCGETS, TCSETS, TCSETSW, TCSETSF, TCGETA, TCSETA, TCSETAW, TCSETAF = range(0x5401, 0x5409)
TCSBRK, TCXONC, TCFLSH, TIOCEXCL, TIOCNXCL, TIOCSCTTY, TIOCGPGRP, TIOCSPGRP = range(0x5409, 0x5411)
TIOCOUTQ, TIOCSTI, TIOCGWINSZ, TIOCSWINSZ, TIOCMGET = range(0x5411, 0x5416)
FIONREAD, TIOCLINUX, TIOCCONS = 0x541B, 0x541C, 0x541D
TIOCPKT, FIONBIO, TIOCNOTTY, TIOCSETD, TIOCGETD, TCSBRKP = 0x5420, 0x5421, 0x5422, 0x5423, 0x5424, 0x5425
TIOCGSID, TIOCGPTN, TIOCVHANGUP, TIOCGEXCL = 0x5429, 0x80045430, 0x5437, 0x80045440
TCGETS2, TCSETS2, TCSETSW2, TCSETSF2 = 0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D
FIONCLEX, FIOCLEX, FIOASYNC, FIOQSIZE = 0x5450, 0x5451, 0x5452, 0x5460
# include/uapi/linux/fs.h
FIBMAP, FIGETBSZ = 1, 2
FICLONE, FICLONERANGE, FIDEDUPERANGE = 0x40049409, 0x4020940D, 0xC0189436
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FIEMAP, FS_IOC_FSGETXATTR = 0x80086601, 0x40086602, 0xC020660B, 0x801C581F

SIOC = 0x89  # the upper byte of requests on sockets
SOCKFS_DEVICE = 8  # of sockets
NSFS_DEVICE = 4  # of what stands for namespaces
TERMIO_SIZE = 18  # struct termio of System V


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
    terminal = terminal_of(file)
    action = ANY_FILE.get(request)
    if action is None and terminal >= 0:
        action = TERMINAL.get(request)
    if file.tty is not None:
        from loadstone.linux.syscalls.pty import PSEUDO_TERMINAL, demand_connected

        demand_connected(file, request)
        action = PSEUDO_TERMINAL.get(request, action)
    if action is None and isinstance(file, AnonymousFile) and file.kind == "userfaultfd":
        from loadstone.linux.syscalls import userfaulting

        return userfaulting.answer(task, cast("UserFaultFile", file), request, argument)
    if action is None and file.driver:
        from loadstone.linux.syscalls import loop_devices

        return loop_devices.answer(Call(task, fd, file, request, argument, terminal))
    if action is None and request >> 8 == SIOC and file.inode.device == SOCKFS_DEVICE:
        from loadstone.linux import network_devices

        return network_devices.answer(task, cast("SocketFile", file).socket.space, request, argument)
    if action is None and file.inode.device == NSFS_DEVICE:
        from loadstone.linux.namespaces import asking

        return asking.answer(task, cast("NamespaceFile", file), request, argument)
    if action is None:
        if terminal >= 0 or request not in TERMINAL:
            count_refusal(task, f"ioctl {request:#x}")
        raise LinuxError(ENOTTY, "not a request that this kind of file answers")
    return action(Call(task, fd, file, request, argument, terminal))


def terminal_of(file: OpenFile) -> int:
    """The host's descriptor of an open terminal, -1 for any other file."""
    if file.inode.mode & S_IFMT != S_IFCHR:
        return -1
    fd = file.host_fd()
    return fd if fd >= 0 and isatty(fd) else -1


# Any file


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
    (wanted,) = INT.unpack(call.read(4))
    if wanted:
        count_refusal(call.task, "ioctl FIOASYNC")
        raise LinuxError(ENOTTY)
    call.file.flags &= ~O_ASYNC
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


# Terminals


def _get_modes(call: Call) -> int:
    return call.write(call.host(bytes(TERMIOS.size)))


def _set_modes(call: Call) -> int:
    jobs.must_be_foreground(call.task, SIGTTOU)
    modes = call.read(TERMIOS.size)
    call.console.remember(call.terminal)
    call.host(modes)
    return 0


def _get_modes_and_speed(call: Call) -> int:
    return call.write(call.host(bytes(TERMIOS2.size)))


def _set_modes_and_speed(call: Call) -> int:
    jobs.must_be_foreground(call.task, SIGTTOU)
    modes = call.read(TERMIOS2.size)
    call.console.remember(call.terminal)
    call.host(modes)
    return 0


def _get_old_modes(call: Call) -> int:
    return call.write(call.host(bytes(TERMIO_SIZE)))


def _set_old_modes(call: Call) -> int:
    jobs.must_be_foreground(call.task, SIGTTOU)
    modes = call.read(TERMIO_SIZE)
    call.console.remember(call.terminal)
    call.host(modes)
    return 0


def _get_size(call: Call) -> int:
    return call.write(call.host(bytes(WINSIZE.size)))


def _get_number(call: Call) -> int:
    return call.write(call.host(bytes(4)))


def _with_number(call: Call) -> int:
    """TCSBRK, TCFLSH, TCXONC: the argument itself is the number; -1 and the like stay what they are."""
    jobs.must_be_foreground(call.task, SIGTTOU)
    return call.host_number((call.argument & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)


def _need_terminal(call: Call) -> None:
    if jobs.controlling(call.task.process) is not call.console:
        raise LinuxError(ENOTTY, "not the controlling terminal of the caller's session")


def _get_foreground(call: Call) -> int:
    _need_terminal(call)
    return call.write(INT.pack(pid_seen(call.task.process, call.console.foreground)))


def _set_foreground(call: Call) -> int:
    """The group must be one of the session; the host's terminal is not asked, its groups are not the guest's."""
    jobs.must_be_foreground(call.task, SIGTTOU)
    _need_terminal(call)
    call.console.foreground = group_of_session(call)
    return 0


def group_of_session(call: Call) -> int:
    """The group that TIOCSPGRP names: EINVAL, ESRCH, or EPERM if it is another session's."""
    (group,) = INT.unpack(call.read(4))
    if group < 0:
        raise LinuxError(EINVAL)
    group = pid_meant(call.task.process, group)
    members = [p for p in call.task.kernel.processes.values() if p.group == group and p.status is None]
    if not members:
        raise LinuxError(ESRCH)
    if all(p.session != call.task.process.session for p in members):
        raise LinuxError(EPERM)
    group_number: int = group
    return group_number


def _get_session(call: Call) -> int:
    _need_terminal(call)
    return call.write(INT.pack(pid_seen(call.task.process, call.task.process.session)))


def _discipline(call: Call) -> int:
    return call.write(INT.pack(0))


def _set_discipline(call: Call) -> int:
    (wanted,) = INT.unpack(call.read(4))
    if wanted:
        return _refused(call)
    return 0


def _exclusive(call: Call) -> int:
    """TIOCEXCL would lock the user's other programs out; without it a guest loses nothing."""
    return 0


def _leave(call: Call) -> int:
    """TIOCNOTTY: the guest's session gives its terminal up; the host's process keeps it."""
    jobs.give_terminal_up(call.task.process)
    return 0


def _take(call: Call) -> int:
    """TIOCSCTTY. A terminal is never taken away from another session, whatever the argument says."""
    jobs.take_terminal(call.task.process)
    return 0


def _refused(call: Call) -> int:
    count_refusal(call.task, f"ioctl {NAMES.get(call.request, hex(call.request))}")
    raise LinuxError(EPERM, "not allowed on the user's terminal")


NAMES = {
    TIOCSTI: "TIOCSTI",
    TIOCLINUX: "TIOCLINUX",
    TIOCCONS: "TIOCCONS",
    TIOCSWINSZ: "TIOCSWINSZ",
    TIOCSETD: "TIOCSETD",
    TIOCVHANGUP: "TIOCVHANGUP",
    TIOCPKT: "TIOCPKT",
}

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
    TIOCSTI: _refused,
    TIOCLINUX: _refused,
    TIOCCONS: _refused,
}

TERMINAL: dict[int, Callable[[Call], int]] = {
    TCGETS: _get_modes,
    TCSETS: _set_modes,
    TCSETSW: _set_modes,
    TCSETSF: _set_modes,
    TCGETS2: _get_modes_and_speed,
    TCSETS2: _set_modes_and_speed,
    TCSETSW2: _set_modes_and_speed,
    TCSETSF2: _set_modes_and_speed,
    TCGETA: _get_old_modes,
    TCSETA: _set_old_modes,
    TCSETAW: _set_old_modes,
    TCSETAF: _set_old_modes,
    TCSBRK: _with_number,
    TCSBRKP: _with_number,
    TCXONC: _with_number,
    TCFLSH: _with_number,
    TIOCOUTQ: _get_number,
    TIOCGWINSZ: _get_size,
    TIOCSWINSZ: _refused,
    TIOCGPGRP: _get_foreground,
    TIOCSPGRP: _set_foreground,
    TIOCGSID: _get_session,
    TIOCGETD: _discipline,
    TIOCSETD: _set_discipline,
    TIOCEXCL: _exclusive,
    TIOCNXCL: _exclusive,
    TIOCNOTTY: _leave,
    TIOCSCTTY: _take,
    TIOCPKT: _refused,
    TIOCVHANGUP: _refused,
}
