"""kcmp(2): whether two processes share something (kernel/kcmp.c)."""

from __future__ import annotations

from errno import EINVAL, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import task_of
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.tracing.inspecting import may_inspect

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.syscalls.arguments import Int, Pid, ULong

# include/uapi/linux/kcmp.h
KCMP_FILE, KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_IO, KCMP_SYSVSEM = range(7)
_SAME, _OTHER = 0, 3


@syscall(PARTIAL, "what differs is never ordered (3); KCMP_EPOLL_TFD is EINVAL")
def kcmp(task: Task, first: Pid, second: Pid, kind: Int, first_index: ULong, second_index: ULong) -> int:
    """kcmp(2)."""
    one, other = (_inspected(task, task_of(task, pid).process) for pid in (first, second))
    if kind == KCMP_FILE:
        same = one.files.get(first_index) is other.files.get(second_index)
    elif kind == KCMP_VM:
        same = one.space is other.space
    elif kind == KCMP_FILES:
        same = one.files is other.files
    elif kind == KCMP_FS:
        same = one.fs is other.fs
    elif kind == KCMP_SIGHAND:
        same = one.signals.actions is other.signals.actions
    elif kind in (KCMP_IO, KCMP_SYSVSEM):
        same = True  # nobody has any
    else:
        raise LinuxError(EINVAL, f"kcmp compares nothing called {kind}")
    return _SAME if same else _OTHER


def _inspected(task: Task, process: Process) -> Process:
    """The process, if the caller may look into it as ptrace would; EPERM."""
    if not may_inspect(task.process, process):
        raise LinuxError(EPERM)
    return process
