"""System calls on pidfds (kernel/pid.c, kernel/signal.c)."""

from __future__ import annotations

from errno import EBADF, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import INIT
from loadstone.linux.pidfd import PidFile
from loadstone.linux.proc.files import ProcessDirectory
from loadstone.linux.signal import sending, signals
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.signal import check_number, may_signal, queued
from loadstone.linux.tracing.inspecting import may_inspect
from loadstone.memory.user import copy_in
from loadstone.vfs.flags import O_NONBLOCK

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.signal.signals import SigInfo
    from loadstone.linux.syscalls.arguments import Fd, InSiginfo, Pid, Signal, UHex

PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP = 1, 2, 4


@syscall(PARTIAL, "PIDFD_THREAD is EINVAL")
def pidfd_open(task: Task, pid: Pid, flags: UHex) -> Fd:
    """pidfd_open(2)."""
    if flags & ~O_NONBLOCK or pid <= 0:
        raise LinuxError(EINVAL, f"no pidfd of {pid} with flags {flags:#x}")
    process = task.kernel.processes.get(pid)
    if process is None:
        raise LinuxError(EINVAL if pid in task.kernel.tasks else ESRCH, f"no process {pid}")
    return task.process.files.install(PidFile(task.kernel.vfs, process, flags), cloexec=True)


def process_of(task: Task, fd: int) -> Process:
    """The process behind a pidfd; EBADF for another file, ESRCH when its parent has waited for it."""
    file = open_file(task, fd)
    if not isinstance(file, PidFile):
        raise LinuxError(EBADF, f"descriptor {fd} is no pidfd")
    return _still_there(task, file.process)


def _signalled(task: Task, fd: int) -> Process | None:
    """The process behind a pidfd or an open /proc/PID, which may be gone; None for the machine, which is /proc/1."""
    file = open_file(task, fd)
    if isinstance(file, PidFile):
        return file.process
    if isinstance(file.inode, ProcessDirectory):
        return file.inode.process
    raise LinuxError(EBADF, f"descriptor {fd} is no pidfd")


def _still_there(task: Task, process: Process) -> Process:
    if task.kernel.processes.get(process.pid) is not process:
        raise LinuxError(ESRCH, f"process {process.pid} is gone")
    return process


@syscall(FULL)
def pidfd_send_signal(task: Task, fd: Fd, number: Signal, info: InSiginfo, flags: UHex) -> int:
    """pidfd_send_signal(2): to the process, to its first thread, or to the group that is called like it."""
    if flags not in (0, PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP):
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}, or several")
    named = _signalled(task, fd)
    given = _siginfo(task, INIT if named is None else named.pid, number, info, flags)
    check_number(number)
    if named is None:  # the machine hears nothing
        if task.process.credentials.euid:
            raise LinuxError(EPERM)
        return 0
    if flags == PIDFD_SIGNAL_PROCESS_GROUP:
        targets = [one for one in task.kernel.processes.values() if one.group == named.pid]
        if not targets:
            raise LinuxError(ESRCH, f"no process group {named.pid}")
    else:
        targets = [_still_there(task, named)]
    allowed = [one for one in targets if may_signal(task.process, one, number)]
    if not allowed:
        raise LinuxError(EPERM)
    for one in allowed if number else ():
        if flags == PIDFD_SIGNAL_THREAD:
            sending.send_task(one.tasks[0], given)
        else:
            sending.send(one, given)
    return 0


def _siginfo(task: Task, pid: int, number: int, address: int, flags: int) -> SigInfo:
    """What is told with the signal to `pid`: what the caller wrote, or who it is."""
    if not address:
        code = signals.SI_TKILL if flags == PIDFD_SIGNAL_THREAD else signals.SI_USER
        return signals.from_process(number, task.process.pid, task.process.credentials.uid, code)
    if signals.unpack(copy_in(task.process.space, address, 128)).number != number:
        raise LinuxError(EINVAL, "the siginfo is of another signal")
    return queued(task, number, address, 0 if flags == PIDFD_SIGNAL_PROCESS_GROUP else pid)


@syscall(FULL)
def pidfd_getfd(task: Task, fd: Fd, target: Fd, flags: UHex) -> Fd:
    """pidfd_getfd(2): a descriptor of another process's, as ptrace would let the caller see it."""
    if flags:
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}")
    process = process_of(task, fd)
    if not may_inspect(task.process, process):
        raise LinuxError(EPERM, "a process of another user")
    return task.process.files.install(process.files.get(target), cloexec=True)
