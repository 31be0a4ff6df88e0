"""Restartable sequences (kernel/rseq.c): the few words of user memory in which a thread finds its CPU number.

`struct rseq`: cpu_id_start, cpu_id (u32 each), rseq_cs (u64), flags, node_id, mm_cid (u32 each). `struct rseq_cs`:
version, flags (u32), start_ip, post_commit_offset, abort_ip (u64).
"""

from __future__ import annotations

from errno import EBUSY, EFAULT, EINVAL, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.state import task_state
from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from loadstone.kernel.process import Task

_IDS = Struct("<II")
_NODE = Struct("<II")
_CRITICAL = Struct("<IIQQQ")
_POINTER_OFFSET, _NODE_OFFSET = 8, 20
_ORIGINAL_SIZE = 32
_NO_CPU = 0xFFFF_FFFF
UNREGISTER = 1


def register(task: Task, address: int, length: int, flags: int, signature: int) -> None:
    """rseq(2)."""
    if flags & UNREGISTER:
        _unregister(task, address, length, flags, signature)
        return
    if flags:
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}")
    area = task_state(task).rseq
    if area is not None:
        if area[:2] != (address, length):
            raise LinuxError(EINVAL, "another area is registered")
        raise LinuxError(EPERM if area[2] != signature else EBUSY, "the area is registered")
    if length < _ORIGINAL_SIZE or address % _ORIGINAL_SIZE:
        raise LinuxError(EINVAL, f"no area of {length} bytes at {address:#x}")
    if address + length > task.process.space.layout.task_size:
        raise LinuxError(EFAULT, "the area is outside the address space")
    copy_out(task.process.space, address + _POINTER_OFFSET, bytes(8))
    task_state(task).rseq = (address, length, signature)
    update(task)


def _unregister(task: Task, address: int, length: int, flags: int, signature: int) -> None:
    area = task_state(task).rseq
    if flags & ~UNREGISTER or area is None or area[:2] != (address, length):
        raise LinuxError(EINVAL, "no such area is registered")
    if area[2] != signature:
        raise LinuxError(EPERM, "another signature is registered")
    copy_out(task.process.space, address, _IDS.pack(0, _NO_CPU) + bytes(8))
    copy_out(task.process.space, address + _NODE_OFFSET, _NODE.pack(0, 0))
    task_state(task).rseq = None


def update(task: Task) -> None:
    """Write the CPU number after the task came to another CPU."""
    area = task_state(task).rseq
    if area is not None:
        address = area[0]
        copy_out(task.process.space, address, _IDS.pack(task.cpu, task.cpu))
        copy_out(task.process.space, address + _NODE_OFFSET, _NODE.pack(0, 0))


def leave_critical_section(task: Task) -> None:
    """The task is preempted or gets a signal: inside a critical section it goes on at the abort handler.

    LinuxError when the descriptor is not what it must be; the kernel answers that with SIGSEGV.
    """
    area = task_state(task).rseq
    if area is None:
        return
    address, _, signature = area
    space = task.process.space
    pointer = int.from_bytes(copy_in(space, address + _POINTER_OFFSET, 8), "little")
    if not pointer:
        return
    version, _, start, length, abort = _CRITICAL.unpack(copy_in(space, pointer, _CRITICAL.size))
    if version or 0 <= abort - start < length:
        raise LinuxError(EINVAL, "the critical section's descriptor is not valid")
    inside = 0 <= task.context.pc - start < length
    if inside and int.from_bytes(copy_in(space, abort - 4, 4), "little") != signature:
        raise LinuxError(EINVAL, "the abort handler has another signature")
    copy_out(space, address + _POINTER_OFFSET, bytes(8))
    if inside:
        task.context.pc = abort
