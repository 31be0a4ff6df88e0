"""process_vm_readv(2) and process_vm_writev(2): bytes between two processes (mm/process_vm_access.c)."""

from __future__ import annotations

from errno import EFAULT, EINVAL, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import task_of
from loadstone.linux.syscalls.readwrite import UIO_MAXIOV
from loadstone.linux.syscalls.registry import FULL, syscall
from loadstone.linux.tracing.inspecting import may_inspect
from loadstone.memory.user import copy_in, gather, pieces
from loadstone.vfs.file import after, total
from loadstone.vfs.regular import before, scatter

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Pid, ULong

_IOVEC = Struct("<QQ")


@syscall(FULL)
def process_vm_readv(
    task: Task, pid: Pid, local: Address, local_count: ULong, remote: Address, remote_count: ULong, flags: ULong
) -> ULong:
    """Copy from another process's memory to the caller's."""
    return _transfer(task, pid, (local, local_count), (remote, remote_count), flags, write=False)


@syscall(FULL)
def process_vm_writev(
    task: Task, pid: Pid, local: Address, local_count: ULong, remote: Address, remote_count: ULong, flags: ULong
) -> ULong:
    """Copy from the caller's memory to another process's."""
    return _transfer(task, pid, (local, local_count), (remote, remote_count), flags, write=True)


def _transfer(task: Task, pid: int, local: tuple[int, int], remote: tuple[int, int], flags: int, *, write: bool) -> int:
    """How many bytes were copied: up to the shorter side's length, and to the first byte that cannot be had there."""
    if flags:
        raise LinuxError(EINVAL)
    here, there = _vectors(task, *local), _vectors(task, *remote)
    if not sum(length for _, length in here) or not there:
        return 0
    other = task_of(task, pid).process
    if not may_inspect(task.process, other):
        raise LinuxError(EPERM, "a process of another user")
    mine = gather(task.process.space, here, not write)
    done = 0
    for address, length in there:
        wanted = min(length, total(mine))
        if not wanted:
            continue
        try:
            theirs = pieces(other.space, address, wanted, write)
        except LinuxError:
            break
        copied = total(theirs)
        source, target = (mine, theirs) if write else (theirs, mine)
        scatter(target, memoryview(b"".join(before(source, copied))))
        done += copied
        mine = after(mine, copied)
        if copied < wanted:
            break
    if not done and any(length for _, length in there):
        raise LinuxError(EFAULT)
    return done


def _vectors(task: Task, address: int, count: int) -> list[tuple[int, int]]:
    if count > UIO_MAXIOV:
        raise LinuxError(EINVAL, f"{count} vectors")
    vectors = list(_IOVEC.iter_unpack(copy_in(task.process.space, address, count * _IOVEC.size))) if count else []
    if any(length >> 63 for _, length in vectors):
        raise LinuxError(EINVAL, "a negative length")
    return vectors
