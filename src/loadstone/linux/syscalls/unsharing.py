"""unshare(2) and setns(2): what a thread shares with others becomes its own, or what others have becomes its.

Sources: kernel/fork.c, ksys_unshare; kernel/nsproxy.c, setns.
"""

from __future__ import annotations

from errno import EINVAL, EMFILE, EPERM, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.clone_flags import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
    NAMESPACES,
)
from loadstone.linux.ipc.sem_undo import leave_undo
from loadstone.linux.of_task import linux_of
from loadstone.linux.pidfd import PidFile
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import FULL, syscall
from loadstone.linux.tracing.inspecting import may_inspect

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.namespaces.base import Namespace
    from loadstone.linux.syscalls.arguments import CloneFlags, Fd

_SMALLEST_TABLE = 64  # NR_OPEN_DEFAULT: descriptors that every process has room for
_ALONE = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM
_KNOWN = _ALONE | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | NAMESPACES


@syscall(FULL)
def unshare(task: Task, flags: CloneFlags) -> int:
    """unshare(2)."""
    flags &= 0xFFFF_FFFF
    if flags & CLONE_NEWUSER:
        flags |= CLONE_THREAD | CLONE_FS
    if flags & CLONE_NEWNS:
        flags |= CLONE_FS
    process = task.process
    if flags & ~_KNOWN or (flags & _ALONE and _has_company(process, flags)):
        raise LinuxError(EINVAL, f"unshare flags {flags:#x}")
    if flags & (CLONE_SYSVSEM | CLONE_NEWIPC):
        leave_undo(task)
    if flags & CLONE_FILES and process.files.shared:
        _demand_room(task)
    if flags & NAMESPACES:
        from loadstone.linux.namespaces import changing
        from loadstone.linux.namespaces.mounts import follow

        moved = changing.make_for(task, task, flags)
        process.unshare(task, files=False, fs=bool(flags & CLONE_FS))
        follow(process.fs, moved)
        flags &= ~CLONE_FS
    process.unshare(task, files=bool(flags & CLONE_FILES), fs=bool(flags & CLONE_FS))
    return 0


def _demand_room(task: Task) -> None:
    """EMFILE for a copy of a table that is larger than fs.nr_open has come to allow (dup_fd)."""
    highest = max((fd for fd, _ in task.process.files.items()), default=0)
    if highest >= max(linux_of(task).most_descriptors, _SMALLEST_TABLE):
        raise LinuxError(EMFILE, f"descriptor {highest} is open, and fs.nr_open is lower")


def _has_company(process: Process, flags: int) -> bool:
    """Whether there are other threads, or for CLONE_VM another process in the same memory."""
    return len(process.tasks) > 1 or bool(flags & CLONE_VM and process.space.users > 1)


@syscall(FULL)
def setns(task: Task, fd: Fd, kinds: CloneFlags) -> int:
    """setns(2)."""
    from loadstone.linux.namespaces import changing

    changing.enter(task, _meant(task, fd, kinds & 0xFFFF_FFFF))
    return 0


def _meant(task: Task, fd: int, kinds: int) -> list[Namespace]:
    """The namespaces behind a descriptor: one of nsfs, or several of a process."""
    from loadstone.linux.namespaces import files

    file = open_file(task, fd)
    if isinstance(file, files.NamespaceFile):
        if kinds and kinds != file.namespace.flag:
            raise LinuxError(EINVAL, f"{file.namespace.name} is not of kind {kinds:#x}")
        return [file.namespace]
    if not isinstance(file, PidFile) or not kinds or kinds & ~NAMESPACES:
        raise LinuxError(EINVAL, f"descriptor {fd} stands for no namespaces, or not of kinds {kinds:#x}")
    if file.process.status is not None:
        raise LinuxError(ESRCH, "the process has ended")
    if not may_inspect(task.process, file.process):
        raise LinuxError(EPERM, "a process of another user")
    return files.of_kinds(file.process.tasks[0], kinds)
