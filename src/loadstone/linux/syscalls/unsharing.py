"""unshare(2): what a thread shares with others becomes its own (kernel/fork.c, ksys_unshare)."""

from __future__ import annotations

from errno import EINVAL, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.clone import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_NEWNS,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
    NAMESPACES,
)
from loadstone.linux.refusals import count_refusal
from loadstone.linux.syscalls.registry import PARTIAL, syscall

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.syscalls.arguments import CloneFlags

_ALONE = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM
_KNOWN = _ALONE | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | NAMESPACES | CLONE_NEWTIME


@syscall(PARTIAL, "namespaces are EPERM")
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
    if flags & (NAMESPACES | CLONE_NEWTIME):
        count_refusal(task, "unshare of a namespace")
        raise LinuxError(EPERM, "namespaces are not for guests")
    process.unshare(task, files=bool(flags & CLONE_FILES), fs=bool(flags & CLONE_FS))
    return 0


def _has_company(process: Process, flags: int) -> bool:
    """Whether there are other threads, or for CLONE_VM another process in the same memory."""
    return len(process.tasks) > 1 or bool(flags & CLONE_VM and process.space.users > 1)
