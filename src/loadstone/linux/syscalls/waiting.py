"""wait4(2) and waitid(2): from arguments to what `linux.children` does."""

from __future__ import annotations

from errno import EAGAIN, EBADF, EINVAL, ESRCH
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import user_shown
from loadstone.linux.children import pack_usage, wait_for_child
from loadstone.linux.of_task import pid_meant, pid_seen
from loadstone.linux.signal.signals import SIGCHLD
from loadstone.linux.structs import INT, signed
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import FULL, syscall
from loadstone.linux.syscalls.transfer import write_struct
from loadstone.linux.waited import (
    P_ALL,
    P_PGID,
    P_PID,
    P_PIDFD,
    WALL,
    WCLONE,
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOTHREAD,
    WNOWAIT,
    WUNTRACED,
)
from loadstone.memory.user import copy_out
from loadstone.vfs.flags import O_NONBLOCK
from loadstone.wait import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Int, Pid
    from loadstone.linux.waited import Report, Selectable
    from loadstone.wait import Blocking

_WAIT4 = WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WALL | WCLONE
_WAITID = _WAIT4 | WEXITED | WNOWAIT
_STATES = WEXITED | WUNTRACED | WCONTINUED
_SIGNO_ERRNO_CODE, _WHO = Struct("<iii"), Struct("<iIi")  # the fields of siginfo that waitid fills in
_WHO_OFFSET = 16


@syscall(FULL)
def wait4(task: Task, pid: Pid, status: Address, options: Int, usage: Address) -> Pid | Blocking:
    """wait4(2)."""
    if options & 0xFFFF_FFFF & ~_WAIT4:
        raise LinuxError(EINVAL, f"unknown options {options:#x}")
    if pid == -(1 << 31):
        raise LinuxError(ESRCH)
    return _wait4(task, pid, status, options | WEXITED, usage)


def _wait4(task: Task, pid: int, status: int, options: int, usage: int) -> Blocking:
    report = yield from wait_for_child(task, _selector(task, pid), options)
    if report is None:
        return 0
    if status:
        write_struct(task, status, INT, signed(report.status))
    if usage:
        copy_out(task.process.space, usage, pack_usage(report.usage))
    return report.pid


def _selector(task: Task, pid: int) -> Callable[[Selectable], bool]:
    """Which children a wait4 is for. The caller's group is the one of now, whatever it becomes while it waits."""
    if pid == -1:
        return lambda child: True
    if pid > 0:
        return lambda child: child.pid == pid
    group = -pid or task.process.group
    return lambda child: child.group == group


@syscall(FULL)
def waitid(task: Task, which: Int, number: Int, info: Address, options: Int, usage: Address) -> Blocking:
    """waitid(2)."""
    if options & 0xFFFF_FFFF & ~_WAITID or not options & _STATES:
        raise LinuxError(EINVAL, f"unknown options {options:#x}")
    nonblocking = False
    if which == P_ALL:
        selects = _selector(task, -1)
    elif which == P_PID and number > 0:
        selects = _selector(task, pid_meant(task.process, number))
    elif which == P_PGID and number >= 0:
        selects = _selector(task, -pid_meant(task.process, number))
    elif which == P_PIDFD and number >= 0:
        from loadstone.linux.pidfd import PidFile

        file = open_file(task, number)
        if not isinstance(file, PidFile):
            raise LinuxError(EBADF, f"descriptor {number} is no pidfd")
        nonblocking = bool(file.flags & O_NONBLOCK)
        selects = _selector(task, file.process.pid)
    else:
        raise LinuxError(EINVAL, f"nothing to wait for is called {which}, {number}")
    return _waitid(task, selects, info, options, usage, nonblocking)


def _waitid(
    task: Task, selects: Callable[[Selectable], bool], info: int, options: int, usage: int, nonblocking: bool
) -> Blocking:
    """A pidfd with O_NONBLOCK turns the wait that would block into EAGAIN."""
    try:
        report = yield from wait_for_child(task, selects, options | (WNOHANG if nonblocking else 0))
        if report is None and nonblocking and not options & WNOHANG:
            raise LinuxError(EAGAIN)
    except (LinuxError, Interrupted):  # the kernel fills the structure in all the same
        _write_info(task, info, None)
        raise
    if report is not None and usage:
        copy_out(task.process.space, usage, pack_usage(report.usage))
    _write_info(task, info, report)
    return 0


def _write_info(task: Task, address: int, report: Report | None) -> None:
    """The part of siginfo that waitid fills in: zeros if there is nothing to tell."""
    if not address:
        return
    head = who = (0, 0, 0)
    if report is not None:
        head = (SIGCHLD, 0, report.code)
        process = task.process
        who = (pid_seen(process, report.pid), user_shown(process.credentials, report.uid), report.value)
    write_struct(task, address, _SIGNO_ERRNO_CODE, *head)
    write_struct(task, address + _WHO_OFFSET, _WHO, *who)
