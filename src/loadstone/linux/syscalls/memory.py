"""System calls on the address space: mmap(2) and its family. The work is done in the room `memory`."""

from __future__ import annotations

from errno import EINVAL, ENODEV, ENOMEM, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.state import process_state
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.memory.flags import (
    MADV_GUARD_INSTALL,
    MADV_GUARD_REMOVE,
    MAP_ANONYMOUS,
    MAP_HUGETLB,
    MAP_SHARED,
    PROT_WRITE,
)
from loadstone.memory.mapping import FileAccess
from loadstone.memory.user import copy_out
from loadstone.memory.vma import PAGE, PAGE_MASK, PAGE_SHIFT
from loadstone.vfs.flags import S_IFCHR, S_IFMT
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import (
        Address,
        Advice,
        Fd,
        Hex,
        Int,
        LockFlags,
        MapFlags,
        MembarrierCommand,
        Prot,
        RemapFlags,
        Size,
        SyncFlags,
        UInt,
    )

_DEV_ZERO = 0x105  # 1:5
_MLOCK_ONFAULT = 1


@syscall(PARTIAL, "MAP_HUGETLB finds no huge pages reserved, as on a machine where vm.nr_hugepages is 0")
def mmap(task: Task, address: Address, length: Size, prot: Prot, flags: MapFlags, fd: Fd, offset: Hex) -> Address:
    """mmap(2); the offset is in bytes and must be whole pages."""
    if offset & ~PAGE_MASK:
        raise LinuxError(EINVAL, f"the offset {offset:#x} is not a multiple of the page size")
    space = task.process.space
    if flags & MAP_ANONYMOUS:
        # whatever the offset says, anonymous memory begins at 0 of nothing
        return space.map(address, length, prot, flags)
    file = task.process.files.get(fd)
    if flags & MAP_HUGETLB:
        raise LinuxError(EINVAL, "MAP_HUGETLB on a file that is not on hugetlbfs")
    inode = file.mapped or file.inode
    execute = file.location is None or not file.location.noexec
    if not isinstance(inode, RegularFile):
        if inode.rdev == _DEV_ZERO and inode.mode & S_IFMT == S_IFCHR:
            access = FileAccess(file.readable, file.writable, execute)
            return space.map(address, length, prot, flags | MAP_ANONYMOUS, path=file.path, access=access)
        raise LinuxError(ENODEV, f"{file.path} cannot be mapped")
    sealed = bool(flags & MAP_SHARED) and inode.write_sealed
    if sealed and prot & PROT_WRITE:
        raise LinuxError(EPERM, "the file is sealed")
    access = FileAccess(file.readable, file.writable and not sealed, execute)
    placed = space.map(address, length, prot, flags, inode, offset, path=file.path, file=file, access=access)
    file.accessed()
    return placed


@syscall(FULL)
def munmap(task: Task, address: Address, length: Size) -> int:
    """munmap(2)."""
    task.process.space.unmap(address, length)
    return 0


@syscall(FULL)
def mprotect(task: Task, address: Address, length: Size, prot: Prot) -> int:
    """mprotect(2)."""
    task.process.space.protect(address, length, prot)
    return 0


@syscall(FULL)
def mremap(
    task: Task, old_address: Address, old_size: Size, new_size: Size, flags: RemapFlags, new_address: Address
) -> Address:
    """mremap(2)."""
    return task.process.space.remap(old_address, old_size, new_size, flags, new_address)


@syscall(FULL, "as kernels since 4.0 do it: by other mappings")
def remap_file_pages(task: Task, address: Address, size: Size, prot: Prot, page_offset: Size, flags: MapFlags) -> int:
    """remap_file_pages(2)."""
    from loadstone.memory.nonlinear import remap_pages  # a call that hardly any program makes

    remap_pages(task.process.space, address, size, prot, page_offset, flags)
    return 0


@syscall(FULL)
def brk(task: Task, address: Address) -> Address:
    """brk(2) of the kernel: the break as it is afterwards, moved or not."""
    return task.process.space.set_brk(address)


@syscall(PARTIAL, "advice about read-ahead and huge pages is accepted and changes nothing")
def madvise(task: Task, address: Address, length: Size, advice: Advice) -> int:
    """madvise(2)."""
    if advice in (MADV_GUARD_INSTALL, MADV_GUARD_REMOVE) and not task.kernel.profile.guard_pages:
        raise LinuxError(EINVAL, "this kernel has no guard pages")
    task.process.space.advise(address, length, advice)
    return 0


@syscall(FULL)
def mincore(task: Task, address: Address, length: Size, vector: Address) -> int:
    """mincore(2)."""
    if address & ~PAGE_MASK:
        raise LinuxError(EINVAL, f"{address:#x} is not the start of a page")
    if address + length > task.process.space.layout.task_size:
        raise LinuxError(ENOMEM, "the range reaches past the address space")
    # the answer is copied a page at a time, as the kernel does, so that a bad vector keeps what came before
    pages = (length + PAGE - 1) >> PAGE_SHIFT
    for first in range(0, pages, PAGE):
        count = min(PAGE, pages - first)
        start = address + (first << PAGE_SHIFT)
        copy_out(task.process.space, vector + first, task.process.space.resident(start, count << PAGE_SHIFT))
    return 0


@syscall(FULL)
def msync(task: Task, address: Address, length: Size, flags: SyncFlags) -> int:
    """msync(2)."""
    task.process.space.sync(address, length, flags)
    return 0


@syscall(FULL)
def mlock(task: Task, address: Address, length: Size) -> int:
    """mlock(2)."""
    task.process.space.lock(address, length)
    return 0


@syscall(FULL)
def mlock2(task: Task, address: Address, length: Size, flags: LockFlags) -> int:
    """mlock2(2)."""
    if flags & ~_MLOCK_ONFAULT:
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}")
    task.process.space.lock(address, length, on_fault=bool(flags & _MLOCK_ONFAULT))
    return 0


@syscall(FULL)
def munlock(task: Task, address: Address, length: Size) -> int:
    """munlock(2)."""
    task.process.space.unlock(address, length)
    return 0


@syscall(FULL)
def mlockall(task: Task, flags: Int) -> int:
    """mlockall(2)."""
    task.process.space.lock_all(flags)
    return 0


@syscall(FULL)
def munlockall(task: Task) -> int:
    """munlockall(2)."""
    task.process.space.unlock_all()
    return 0


# include/uapi/linux/membarrier.h
_MEMBARRIER_GLOBAL, _MEMBARRIER_GLOBAL_EXPEDITED, _MEMBARRIER_REGISTER_GLOBAL_EXPEDITED = 1, 2, 4
_MEMBARRIER_PRIVATE_EXPEDITED, _MEMBARRIER_REGISTER_PRIVATE_EXPEDITED = 8, 16
_MEMBARRIER_PRIVATE_SYNC_CORE, _MEMBARRIER_REGISTER_PRIVATE_SYNC_CORE = 32, 64
_MEMBARRIER_PRIVATE_RSEQ, _MEMBARRIER_REGISTER_PRIVATE_RSEQ = 128, 256
_MEMBARRIER_GET_REGISTRATIONS = 512
_MEMBARRIER_COMMANDS = 0x3FF
_NEEDS_REGISTRATION = {
    _MEMBARRIER_PRIVATE_EXPEDITED: _MEMBARRIER_REGISTER_PRIVATE_EXPEDITED,
    _MEMBARRIER_PRIVATE_SYNC_CORE: _MEMBARRIER_REGISTER_PRIVATE_SYNC_CORE,
    _MEMBARRIER_PRIVATE_RSEQ: _MEMBARRIER_REGISTER_PRIVATE_RSEQ,
}


@syscall(FULL, "tasks take turns on one host thread, so every barrier holds already")
def membarrier(task: Task, command: MembarrierCommand, flags: UInt, cpu: Int) -> int:
    """membarrier(2)."""
    rseq_on_cpu = command == _MEMBARRIER_PRIVATE_RSEQ and flags == 1
    if flags and not rseq_on_cpu:
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}")
    if command == 0:
        return _MEMBARRIER_COMMANDS
    state = process_state(task.process)
    if command == _MEMBARRIER_GET_REGISTRATIONS:
        return state.membarrier
    if command not in (1 << shift for shift in range(9)):
        raise LinuxError(EINVAL, f"no membarrier command {command:#x}")
    if command in _NEEDS_REGISTRATION and not state.membarrier & _NEEDS_REGISTRATION[command]:
        raise LinuxError(EPERM, "the process has not registered for this membarrier command")
    if command in (*_NEEDS_REGISTRATION.values(), _MEMBARRIER_REGISTER_GLOBAL_EXPEDITED):
        state.membarrier |= command
    return 0


@syscall(FULL)
def mseal(task: Task, address: Address, length: Size, flags: Hex) -> int:
    """mseal(2)."""
    if flags:
        raise LinuxError(EINVAL)
    from loadstone.memory.seal import seal

    seal(task.process.space, address, length)
    return 0
