"""System calls on System V shared memory (ipc/shm.c)."""

from __future__ import annotations

from errno import EACCES, EFAULT, EINVAL, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.namespaces import namespaces_of
from loadstone.linux.shm import SHM_LOCKED, SHMALL, SHMMAX, SHMMNI, Segment, Segments
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.memory.flags import MAP_FIXED, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE, RLIMIT_MEMLOCK
from loadstone.memory.mapping import FileAccess, page_align
from loadstone.memory.user import copy_in, copy_out
from loadstone.memory.vma import PAGE_MASK, Vma

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Int, Size, UHex
    from loadstone.memory.address_space import AddressSpace

# include/uapi/linux/shm.h, ipc.h
SHM_HUGETLB, SHM_RDONLY, SHM_RND, SHM_REMAP, SHM_EXEC = 0o4000, 0o10000, 0o20000, 0o40000, 0o100000
IPC_RMID, IPC_SET, IPC_STAT, IPC_INFO = range(4)
SHM_LOCK, SHM_UNLOCK, SHM_STAT, SHM_INFO, SHM_STAT_ANY = range(11, 16)

_READ, _WRITE, _EXECUTE = 0o444, 0o222, 0o111
# struct shmid64_ds: ipc64_perm (key, uid, gid, cuid, cgid, mode, seq), segsz, atime, dtime, ctime, cpid, lpid, nattch
_DESCRIPTION = Struct("<i4IIH2x4x16xQqqqiiQ16x")
_PERMISSIONS = Struct("<4xII8xI")  # of a struct ipc64_perm: what IPC_SET takes
_LIMITS = Struct("<5Q32x")  # struct shminfo64
_USAGE = Struct("<i4x5Q")  # struct shm_info


def segments_of(task: Task) -> Segments:
    """The segments of the caller's IPC namespace."""
    ipc = namespaces_of(task).ipc
    if ipc.segments is None:
        ipc.segments = Segments(task.kernel)
    return ipc.segments


@syscall(PARTIAL, "SHM_HUGETLB finds no huge pages reserved")
def shmget(task: Task, key: Int, size: Size, flags: UHex) -> int:
    """shmget(2)."""
    if flags & SHM_HUGETLB:
        raise LinuxError(EINVAL, "no huge pages are reserved (vm.nr_hugepages)")
    return segments_of(task).get(task.process, key, size, flags).number


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
    segment = segments_of(task).find(number)
    prot, wanted = (PROT_READ, _READ) if flags & SHM_RDONLY else (PROT_READ | PROT_WRITE, _READ | _WRITE)
    if flags & SHM_EXEC:
        prot, wanted = prot | PROT_EXEC, wanted | _EXECUTE
    if not segment.may(task.process.credentials, wanted):
        raise LinuxError(EACCES)
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
    segments, space = segments_of(task), task.process.space
    if command in (IPC_INFO, SHM_INFO):
        used, highest, pages, resident = segments.usage()
        limits = _LIMITS.pack(SHMMAX, 1, SHMMNI, SHMMNI, SHMALL)
        copy_out(space, buffer, limits if command == IPC_INFO else _USAGE.pack(used, pages, resident, 0, 0, 0))
        return highest
    if command in (SHM_STAT, SHM_STAT_ANY):
        found = segments.at(number)
        if found is None:
            raise LinuxError(EINVAL, f"no shared memory has the index {number}")
        if command == SHM_STAT:
            _demand_readable(task, found)
        copy_out(space, buffer, _description(found))
        return found.number
    if command == IPC_STAT:
        segment = segments.find(number)
        _demand_readable(task, segment)
        copy_out(space, buffer, _description(segment))
    elif command in (IPC_RMID, IPC_SET):
        _change(task, segments, number, command, buffer)
    elif command in (SHM_LOCK, SHM_UNLOCK):
        _lock(task, segments.find(number), command)
    else:
        raise LinuxError(EINVAL, f"no such command: {command}")
    return 0


def _demand_readable(task: Task, segment: Segment) -> None:
    if not segment.may(task.process.credentials, _READ):
        raise LinuxError(EACCES)


def _description(s: Segment) -> bytes:
    """The struct shmid64_ds."""
    return _DESCRIPTION.pack(
        s.key, s.uid, s.gid, s.cuid, s.cgid, s.mode, s.number >> 15, s.size, s.attached_s, s.detached_s, s.changed_s,
        s.created_by, s.used_by, s.attachments,
    )  # fmt: skip


def _change(task: Task, segments: Segments, number: int, command: int, buffer: int) -> None:
    """IPC_SET and IPC_RMID: the owner's, the creator's and root's."""
    given = copy_in(task.process.space, buffer, _DESCRIPTION.size) if command == IPC_SET else b""
    segment = segments.find(number)
    if not segment.is_owner(task.process.credentials):
        raise LinuxError(EPERM)
    if command == IPC_RMID:
        segment.remove()
        return
    if len(given) < _DESCRIPTION.size:
        raise LinuxError(EFAULT)
    segment.uid, segment.gid, mode = _PERMISSIONS.unpack_from(given)
    segment.mode = segment.mode & ~0o777 | mode & 0o777
    segment.changed_s = segments.now_s()


def _lock(task: Task, segment: Segment, command: int) -> None:
    """Nothing is ever swapped out: locking is only told in the mode."""
    process = task.process
    if process.credentials.euid:
        if process.credentials.euid not in (segment.uid, segment.cuid):
            raise LinuxError(EPERM)
        if command == SHM_LOCK and not process.space.limits.soft(RLIMIT_MEMLOCK):
            raise LinuxError(EPERM, "RLIMIT_MEMLOCK is 0")
    segment.mode = segment.mode | SHM_LOCKED if command == SHM_LOCK else segment.mode & ~SHM_LOCKED
