"""The commands of fcntl(2) on who is sent signals of a file: owners, leases, notices. Sources: fs/fcntl.c, fs/locks.c.

Processes see each other by the numbers of their PID namespace; kept are the machine's.
"""

from __future__ import annotations

from errno import EACCES, EAGAIN, EINVAL, ENOTDIR, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_LEASE, capable, user_shown
from loadstone.linux.of_task import pid_meant, pid_seen
from loadstone.linux.signal.file_owners import (
    OWNER_GROUP,
    OWNER_PROCESS,
    OWNER_THREAD,
    make_owner,
    owner_of,
)
from loadstone.linux.signal.signals import HIGHEST
from loadstone.linux.structs import INT, OWNER_EX, OWNER_IDS, signed
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.flags import O_ASYNC
from loadstone.vfs.locks import READ, UNLOCK, WRITE
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Task
    from loadstone.vfs.file import OpenFile

# include/uapi/asm-generic/fcntl.h, include/uapi/linux/fcntl.h
F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG = range(8, 12)
F_SETOWN_EX, F_GETOWN_EX, F_GETOWNER_UIDS = 15, 16, 17
F_SETLEASE, F_GETLEASE, F_NOTIFY = 1024, 1025, 1026

# include/uapi/asm-generic/sockios.h: of sockets, by ioctl(2)
FIOSETOWN, SIOCSPGRP, FIOGETOWN, SIOCGPGRP = SOCKET_REQUESTS = range(0x8901, 0x8905)

_LOWEST_INT = -(1 << 31)


def set_owner(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_SETOWN: a process, or with a minus a group, or with 0 nobody."""
    _set_owner(task, file, signed(argument))
    return 0


def _set_owner(task: Task, file: OpenFile, who: int) -> None:
    if who == _LOWEST_INT:
        raise LinuxError(EINVAL)
    number = _existing(task, abs(who))
    make_owner(task, file).set(task, OWNER_GROUP if who < 0 else OWNER_PROCESS, number)


def get_owner(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_GETOWN: as it was set; 0 if there is nobody, or nobody any more."""
    owner = owner_of(file)
    if owner is None or not owner.living:
        return 0
    number = pid_seen(task.process, owner.number)
    return -number if owner.kind == OWNER_GROUP else number


def answer(task: Task, file: OpenFile, request: int, argument: int) -> int:
    """FIOSETOWN and its like: as F_SETOWN and F_GETOWN, with the number in memory (sock_ioctl)."""
    if request in (FIOSETOWN, SIOCSPGRP):
        _set_owner(task, file, *INT.unpack(copy_in(task.process.space, argument, INT.size)))
    else:
        copy_out(task.process.space, argument, INT.pack(get_owner(task, -1, file, 0)))
    return 0


def set_owner_ex(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_SETOWN_EX: a thread, a process or a group."""
    kind, who = OWNER_EX.unpack(copy_in(task.process.space, argument, OWNER_EX.size))
    if kind not in (OWNER_THREAD, OWNER_PROCESS, OWNER_GROUP):
        raise LinuxError(EINVAL)
    make_owner(task, file).set(task, kind, _existing(task, who))
    return 0


def get_owner_ex(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_GETOWN_EX: kind and number."""
    owner = owner_of(file)
    kind = owner.kind if owner is not None else OWNER_THREAD
    number = pid_seen(task.process, owner.number) if owner is not None and owner.living else 0
    copy_out(task.process.space, argument, OWNER_EX.pack(kind, number))
    return 0


def get_owner_users(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_GETOWNER_UIDS: who set the owner, by real and effective user."""
    owner, who = owner_of(file), task.process.credentials
    users = (owner.uid, owner.euid) if owner is not None else (0, 0)
    copy_out(task.process.space, argument, OWNER_IDS.pack(*(user_shown(who, one) for one in users)))
    return 0


def _existing(task: Task, number: int) -> int:
    """The machine's number of what is a thread, process, group or session; ESRCH (find_vpid)."""
    if not number:
        return 0
    meant = pid_meant(task.process, number) if number > 0 else 0
    if meant <= 0 or not _is_known(task.kernel, meant):
        raise LinuxError(ESRCH, f"nothing is called {number}")
    return meant


def _is_known(kernel: Kernel, number: int) -> bool:
    if number in kernel.tasks or number in kernel.processes:
        return True
    return any(number in (one.group, one.session) for one in kernel.processes.values())


def set_signal(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_SETSIG: what is sent; 0 is SIGIO, without a siginfo of its own."""
    if argument > HIGHEST:
        raise LinuxError(EINVAL)
    make_owner(task, file).signal = argument
    return 0


def get_signal(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_GETSIG: as it was set."""
    owner = owner_of(file)
    return owner.signal if owner is not None else 0


def set_lease(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_SETLEASE: take one, change it, give it back. EAGAIN, EACCES for the file of somebody else, EINVAL."""
    kind = signed(argument)
    if kind not in (READ, WRITE, UNLOCK):
        raise LinuxError(EINVAL)
    who, inode = task.process.credentials, file.inode
    if who.fsuid != inode.uid and not capable(who, CAP_LEASE):
        raise LinuxError(EACCES)
    if not isinstance(inode, RegularFile):
        raise LinuxError(EINVAL, "leases are for regular files")
    from loadstone.vfs.leases import Leases

    locks = task.kernel.vfs.locks.of(inode)
    leases = locks.leases = locks.leases or Leases(locks)
    try:
        if kind == UNLOCK:
            if leases.held(file) is None:
                raise LinuxError(EAGAIN)
            leases.release_file(file)
            return 0
        owner = make_owner(task, file)
        leases.take(file, owner, kind, task.process.pid)
        owner.lease_fd = fd
        owner.propose(task, OWNER_PROCESS, task.process.pid)
        file.flags |= O_ASYNC
    finally:
        locks.settle()
    return 0


def get_lease(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_GETLEASE: the kind of the lease, or what it has to become."""
    locks = file.inode.locks
    held = locks.leases.held(file) if locks is not None and locks.leases is not None else None
    return UNLOCK if held is None else held.target


def notify(task: Task, fd: int, file: OpenFile, argument: int) -> int:
    """F_NOTIFY: a signal when something happens in a directory."""
    wanted = argument & 0xFFFFFFFF
    from loadstone.linux.directory_notices import DN_MULTISHOT, notify_of

    if wanted & ~DN_MULTISHOT and not file.inode.is_directory:
        raise LinuxError(ENOTDIR)
    notify_of(task, fd, file, wanted)
    return 0


COMMANDS: dict[int, Callable[[Task, int, OpenFile, int], int]] = {
    F_SETOWN: set_owner,
    F_GETOWN: get_owner,
    F_SETSIG: set_signal,
    F_GETSIG: get_signal,
    F_SETOWN_EX: set_owner_ex,
    F_GETOWN_EX: get_owner_ex,
    F_GETOWNER_UIDS: get_owner_users,
    F_SETLEASE: set_lease,
    F_GETLEASE: get_lease,
    F_NOTIFY: notify,
}
