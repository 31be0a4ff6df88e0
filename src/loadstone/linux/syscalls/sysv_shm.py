"""System calls on System V shared memory (ipc/shm.c)."""

from __future__ import annotations

from errno import EINVAL, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_IPC_LOCK, capable_in
from loadstone.linux.ipc.ids import IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, MAY_READ, MAY_WRITE, PERMISSIONS
from loadstone.linux.ipc.objects import ipc_of
from loadstone.linux.ipc.shm import SHM_LOCKED, Segment
from loadstone.linux.of_task import pid_seen
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.memory.flags import MAP_FIXED, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE, RLIMIT_MEMLOCK
from loadstone.memory.mapping import FileAccess, page_align
from loadstone.memory.user import copy_in, copy_out
from loadstone.memory.vma import PAGE_MASK, Vma

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.syscalls.arguments import Address, Int, Size, UHex
    from loadstone.memory.address_space import AddressSpace

# include/uapi/linux/shm.h
SHM_RDONLY, SHM_RND, SHM_REMAP, SHM_EXEC = 0o10000, 0o20000, 0o40000, 0o100000
SHM_LOCK, SHM_UNLOCK, SHM_STAT, SHM_INFO, SHM_STAT_ANY = range(11, 16)

_MAY_EXECUTE = 0o111
_REST = Struct("<QqqqiiQ16x")  # of a struct shmid64_ds after the permissions: segsz to nattch
_LIMITS = Struct("<5Q32x")  # struct shminfo64
_USAGE = Struct("<i4x5Q")  # struct shm_info


@syscall(PARTIAL, "SHM_HUGETLB is ENOMEM: no huge pages are reserved")
def shmget(task: Task, key: Int, size: Size, flags: UHex) -> int:
    """shmget(2)."""
    return ipc_of(task).segments.named(task.process, key, size, flags).permissions.number


@syscall(FULL)
def shmat(task: Task, number: Int, address: Address, flags: UHex) -> Address:
    """shmat(2)."""
    map_flags = MAP_SHARED
    if number < 0:
        raise LinuxError(EINVAL)
    if address:
        map_flags |= MAP_FIXED
        address = _rounded(address, flags)
    elif flags & SHM_REMAP:
        raise LinuxError(EINVAL, "SHM_REMAP needs an address")
    segment = ipc_of(task).segments.find(number)
    prot, wanted = (PROT_READ, MAY_READ) if flags & SHM_RDONLY else (PROT_READ | PROT_WRITE, MAY_READ | MAY_WRITE)
    if flags & SHM_EXEC:
        prot, wanted = prot | PROT_EXEC, wanted | _MAY_EXECUTE
    segment.permissions.demand(task.process.credentials, wanted)
    space = task.process.space
    if address and not flags & SHM_REMAP and space.vmas.overlaps(address, address + segment.size):
        raise LinuxError(EINVAL, "something is mapped there, and SHM_REMAP is not set")
    at = space.map(
        address, segment.size, prot, map_flags, segment,
        path=segment.path, file=object(), access=FileAccess(write=not flags & SHM_RDONLY),
    )  # fmt: skip
    segment.used_by, segment.attached_s = task.process.pid, task.kernel.clock.realtime_ns() // 1_000_000_000
    return at


def _rounded(address: int, flags: int) -> int:
    """The address to attach at; EINVAL if it is no page's and SHM_RND is not set."""
    if address & ~PAGE_MASK:
        if not flags & SHM_RND:
            raise LinuxError(EINVAL, f"{address:#x} is not the start of a page")
        address &= PAGE_MASK
        if not address and flags & SHM_REMAP:
            raise LinuxError(EINVAL, "SHM_REMAP needs an address")
    return address


@syscall(FULL)
def shmdt(task: Task, address: Address) -> int:
    """shmdt(2): unmaps what is left of one attachment that began at `address`."""
    space = task.process.space
    if address & ~PAGE_MASK:
        raise LinuxError(EINVAL, f"{address:#x} is not the start of a page")
    parts = _attachment(space, address)
    if not parts:
        raise LinuxError(EINVAL, f"no shared memory was attached at {address:#x}")
    for vma in parts:
        space.unmap(vma.start, vma.end - vma.start)
    return 0


def _attachment(space: AddressSpace, address: int) -> list[Vma]:
    """The VMAs of the attachment at `address`, which mprotect and munmap may have cut."""
    parts: list[Vma] = []
    end = space.layout.task_size
    for vma in space.vmas.overlapping(address, end):
        if vma.end > end:
            break
        if (
            isinstance(vma.backing, Segment)
            and vma.start - vma.offset == address
            and (not parts or vma.file is parts[0].file)
        ):
            if not parts:
                end = address + page_align(vma.backing.size)
            parts.append(vma)
    return parts


@syscall(FULL)
def shmctl(task: Task, number: Int, command: Int, buffer: Address) -> int:
    """shmctl(2)."""
    if number < 0 or command < 0:
        raise LinuxError(EINVAL)
    segments, space = ipc_of(task).segments, task.process.space
    if command == IPC_INFO:
        copy_out(space, buffer, _LIMITS.pack(segments.max_bytes, 1, segments.most, segments.most, segments.max_pages))
        return segments.highest
    if command == SHM_INFO:
        copy_out(space, buffer, _USAGE.pack(len(segments), segments.pages, segments.resident_pages, 0, 0, 0))
        return segments.highest
    if command in (SHM_STAT, SHM_STAT_ANY, IPC_STAT):
        return _tell(task, number, command, buffer)
    if command in (IPC_RMID, IPC_SET):
        _change(task, number, command, buffer)
    elif command in (SHM_LOCK, SHM_UNLOCK):
        _lock(task, segments.find(number), command)
    else:
        raise LinuxError(EINVAL, f"no such command: {command}")
    return 0


def _tell(task: Task, number: int, command: int, buffer: int) -> int:
    """Give the struct shmid64_ds of a segment; the two that go by the index return its identifier."""
    segments = ipc_of(task).segments
    found = segments.find(number) if command == IPC_STAT else segments.at(number)
    if command != SHM_STAT_ANY:
        found.permissions.demand(task.process.credentials, MAY_READ)
    copy_out(task.process.space, buffer, _description(task.process, found))
    return 0 if command == IPC_STAT else found.permissions.number


def _description(process: Process, s: Segment) -> bytes:
    """The struct shmid64_ds as a process sees it."""
    made, used = pid_seen(process, s.created_by), pid_seen(process, s.used_by)
    return s.permissions.packed(process.credentials) + _REST.pack(
        s.size, s.attached_s, s.detached_s, s.changed_s, made, used, s.attachments
    )


def _change(task: Task, number: int, command: int, buffer: int) -> None:
    """IPC_SET and IPC_RMID: the owner's, the creator's and root's."""
    whole = PERMISSIONS.size + _REST.size
    given = copy_in(task.process.space, buffer, whole) if command == IPC_SET else b""
    segments = ipc_of(task).segments
    segment = segments.find(number)
    segment.permissions.demand_owner(task.process.credentials)
    if command == IPC_RMID:
        segment.remove()
        return
    segment.permissions.update(given, task.process.credentials)
    segment.changed_s = segments.now_s()


def _lock(task: Task, segment: Segment, command: int) -> None:
    """Nothing is ever swapped out: locking is only told in the mode."""
    process, permissions = task.process, segment.permissions
    who = process.credentials
    if not capable_in(who, permissions.users, CAP_IPC_LOCK):
        if who.euid not in (permissions.uid, permissions.cuid):
            raise LinuxError(EPERM)
        if command == SHM_LOCK and not process.space.limits.soft(RLIMIT_MEMLOCK):
            raise LinuxError(EPERM, "RLIMIT_MEMLOCK is 0")
    permissions.mode = permissions.mode | SHM_LOCKED if command == SHM_LOCK else permissions.mode & ~SHM_LOCKED
