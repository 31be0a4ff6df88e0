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
    from loadstone.linux.syscalls.arguments import Fd, InSiginfo, Pid, Signal, UHex


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
    """The process behind a pidfd or an open /proc/PID; None for the machine, which is /proc/1."""
    inode = open_file(task, fd).inode
    if not isinstance(inode, ProcessDirectory):
        return process_of(task, fd)
    return _still_there(task, inode.process) if inode.process is not None else None


def _still_there(task: Task, process: Process) -> Process:
    if task.kernel.processes.get(process.pid) is not process:
        raise LinuxError(ESRCH, f"process {process.pid} is gone")
    return process


@syscall(PARTIAL, "flags must be 0")
def pidfd_send_signal(task: Task, fd: Fd, number: Signal, info: InSiginfo, flags: UHex) -> int:
    """pidfd_send_signal(2)."""
    if flags:
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}")
    target = _signalled(task, fd)
    sender = task.process
    given = signals.from_process(number, sender.pid, sender.credentials.uid)
    if info:
        if signals.unpack(copy_in(task.process.space, info, 128)).number != number:
            raise LinuxError(EINVAL, "the siginfo is of another signal")
        given = queued(task, number, info, INIT if target is None else target.pid)
    check_number(number)
    if not may_signal(sender, target, number) if target is not None else sender.credentials.euid:
        raise LinuxError(EPERM)
    if number and target is not None:
        sending.send(target, given)
    return 0


@syscall(FULL)
def pidfd_getfd(task: Task, fd: Fd, target: Fd, flags: UHex) -> Fd:
    """pidfd_getfd(2): a descriptor of another process's, as ptrace would let the caller see it."""
    if flags:
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}")
    process = process_of(task, fd)
    if not may_inspect(task.process, process):
        raise LinuxError(EPERM, "a process of another user")
    return task.process.files.install(process.files.get(target), cloexec=True)
