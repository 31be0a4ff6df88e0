"""fork(2), vfork(2), clone(2), clone3(2): from registers or a structure to what `linux.clone` does."""

from __future__ import annotations

from errno import E2BIG, EFAULT, EINVAL
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.clone import CloneArguments
from loadstone.linux.clone import clone as make
from loadstone.linux.clone_flags import (
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_INTO_CGROUP,
    CLONE_NEWTIME,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    CSIGNAL,
)
from loadstone.linux.signal.signals import HIGHEST, SIGCHLD
from loadstone.linux.syscalls.registry import FULL, syscall
from loadstone.memory.user import copy_in

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, CloneFlags, Pid, Size
    from loadstone.wait import Blocking


@syscall(FULL)
def fork(task: Task) -> Pid | Blocking:
    """fork(2)."""
    return make(task, CloneArguments(0, SIGCHLD))


@syscall(FULL)
def vfork(task: Task) -> Pid | Blocking:
    """vfork(2): the parent goes on when the child has called exec or ended."""
    return make(task, CloneArguments(CLONE_VFORK | CLONE_VM, SIGCHLD))


@syscall(FULL)
def clone(
    task: Task, flags: CloneFlags, stack: Address, parent_tid: Address, child_tid: Address, tls: Address
) -> Pid | Blocking:
    """clone(2) as x86-64 orders its arguments. `parent_tid` is also where CLONE_PIDFD puts the descriptor."""
    flags &= 0xFFFF_FFFF
    if flags & CLONE_PIDFD and flags & CLONE_PARENT_SETTID:
        raise LinuxError(EINVAL, "CLONE_PIDFD and CLONE_PARENT_SETTID use the same argument")
    return make(task, CloneArguments(flags & ~CSIGNAL, flags & CSIGNAL, stack, parent_tid, child_tid, parent_tid, tls))


# struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, then since version 1
# set_tid, set_tid_size, and since version 2 cgroup
_CLONE_ARGS = Struct("<11Q")
_FIRST_SIZE, _PAGE = 64, 4096
_MOST_PIDS = 32  # MAX_PID_NS_LEVEL
_CLONE3_FLAGS = 0xFFFF_FFFF | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP


@syscall(FULL)
def clone3(task: Task, arguments: Address, size: Size) -> Pid | Blocking:
    """clone3(2)."""
    if size > _PAGE:
        raise LinuxError(E2BIG, f"a struct clone_args of {size} bytes")
    if size < _FIRST_SIZE:
        raise LinuxError(EINVAL, f"a struct clone_args of {size} bytes")
    raw = copy_in(task.process.space, arguments, size)
    if len(raw) < size:
        raise LinuxError(EFAULT)
    if any(raw[_CLONE_ARGS.size :]):
        raise LinuxError(E2BIG, "fields that this kernel does not know")
    values = _CLONE_ARGS.unpack(raw[: _CLONE_ARGS.size].ljust(_CLONE_ARGS.size, b"\0"))
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, pids, pid_count, cgroup = values
    if flags & CLONE_INTO_CGROUP and (cgroup >> 31 or size < _CLONE_ARGS.size):
        raise LinuxError(EINVAL, "no descriptor of a cgroup")
    _check_clone3(flags, exit_signal, stack, stack_size, pids, pid_count)
    wanted = Struct(f"<{pid_count}i").unpack(copy_in(task.process.space, pids, 4 * pid_count)) if pid_count else ()
    top = stack + stack_size
    return make(task, CloneArguments(flags, exit_signal, top, parent_tid, child_tid, pidfd, tls, wanted, cgroup))


def _check_clone3(flags: int, exit_signal: int, stack: int, stack_size: int, pids: int, pid_count: int) -> None:
    """Kernel: copy_clone_args_from_user and clone3_args_valid."""
    if (
        pid_count > _MOST_PIDS
        or bool(pids) != bool(pid_count)
        or exit_signal > HIGHEST
        or flags & ~_CLONE3_FLAGS
        or flags & (CLONE_DETACHED | CSIGNAL & ~CLONE_NEWTIME)
        or (flags & (CLONE_THREAD | CLONE_PARENT) and exit_signal)
        or bool(stack) != bool(stack_size)
    ):
        raise LinuxError(EINVAL, "clone3 arguments that do not go together")
