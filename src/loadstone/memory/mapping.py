"""mmap and munmap (mm/mmap.c: do_mmap; mm/vma.c: __mmap_region, do_vmi_munmap)."""

from __future__ import annotations

from errno import EACCES, EAGAIN, EEXIST, EINVAL, ENOMEM, EOPNOTSUPP, EOVERFLOW, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.machine.entry_loops import drop
from loadstone.machine.paging import USER_END
from loadstone.memory import guard
from loadstone.memory.accounting import OVERCOMMIT_NEVER, is_accountable, pages_of
from loadstone.memory.flags import (
    DROPPABLE,
    LEGACY_MAP_MASK,
    MAP_DROPPABLE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_STACK,
    MAP_TYPE,
    MAX_FILE_SIZE,
)
from loadstone.memory.lock import check_lock_limit, may_lock, populate
from loadstone.memory.merge import Proposal, check_map_count, joins_around, merge_new
from loadstone.memory.neighbours import is_image, map_ahead, map_small
from loadstone.memory.placement import round_hint, unmapped_area
from loadstone.memory.shared import SharedMemory
from loadstone.memory.vma import (
    ACCOUNT,
    DONTDUMP,
    EXEC,
    GROWSDOWN,
    LOCKED,
    MAYEXEC,
    MAYREAD,
    MAYSHARE,
    MAYWRITE,
    NOHUGEPAGE,
    NORESERVE,
    PAGE,
    PAGE_MASK,
    PAGE_SHIFT,
    PROTECTION,
    READ,
    SEALED,
    SHARED,
    WIPEONFORK,
    WRITE,
    Vma,
    check_not_sealed,
)
from loadstone.memory.zap import clear, pass_all_dirty_on, zap

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.backing import Backing

_ALL_BITS = (1 << 64) - 1


class FileAccess(NamedTuple):
    """What the open file behind a mapping allows: its open mode, and whether its mount is noexec."""

    read: bool = True
    write: bool = True
    execute: bool = True


_ANY_ACCESS = FileAccess()


def page_align(length: int) -> int:
    """`length` rounded up to whole pages, as C does it: what is next to 2^64 becomes 0 (kernel: PAGE_ALIGN)."""
    return (length + PAGE - 1) & PAGE_MASK & _ALL_BITS


def end_of_pages(start: int, length: int) -> int:
    """The end of a range of whole pages; EINVAL where it begins inside of one or wraps around (madvise, mseal)."""
    end = start + page_align(length)
    if start & (PAGE - 1) or end >= 1 << 64 or (length and end == start):
        raise LinuxError(EINVAL, f"{start:#x} + {length:#x} is no range of whole pages")
    return end


def map_area(
    space: AddressSpace,
    address: int,
    length: int,
    prot: int,
    flags: int,
    backing: Backing | None,
    offset: int,
    *,
    path: str = "",
    vm_flags: int = 0,
    file: object | None = None,
    access: FileAccess | None = None,
) -> int:
    """Map `length` bytes and return their address (kernel: do_mmap, then mm_populate).

    `access` without a backing: the file is /dev/zero, whose pages are anonymous ones.
    """
    if access is None and backing is not None:
        access = _ANY_ACCESS
    length = _checked_length(space, length, offset, flags, backing)
    if prot & READ and space.read_implies_exec and (access is None or access.execute):
        prot |= EXEC
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    if not flags & MAP_FIXED:
        address = round_hint(address, space.layout.mmap_min_addr)
    shared = flags & MAP_TYPE in (MAP_SHARED, MAP_SHARED_VALIDATE)
    address = unmapped_area(space, address, length, flags, backing, offset, shared=shared)
    if flags & MAP_FIXED_NOREPLACE and space.vmas.overlaps(address, address + length):
        raise LinuxError(EEXIST, f"something is mapped in {address:#x}-{address + length:#x} (MAP_FIXED_NOREPLACE)")
    vm_flags |= _flags_of(prot, flags) | space.default_flags | MAYREAD | MAYWRITE | MAYEXEC
    if flags & MAP_LOCKED and not may_lock(space):
        raise LinuxError(EPERM, "RLIMIT_MEMLOCK is 0")
    if vm_flags & LOCKED:
        check_lock_limit(space, length, EAGAIN)
    if access is not None:
        vm_flags = _file_flags(vm_flags, prot, flags, access)
        if length > MAX_FILE_SIZE or offset > MAX_FILE_SIZE - length:
            raise LinuxError(EOVERFLOW, "past the largest file offset")
    else:
        vm_flags, offset = _anonymous_flags(vm_flags, flags, address)
    if flags & MAP_NORESERVE and space.limits.commitment.mode != OVERCOMMIT_NEVER:
        vm_flags |= NORESERVE
    new = Proposal(address, address + length, vm_flags, offset)
    new.backing, new.file, new.path = backing, backing if file is None else file, path
    _place_and_fill(space, new, flags)
    return address


def _checked_length(space: AddressSpace, length: int, offset: int, flags: int, backing: Backing | None) -> int:
    """The length in whole pages; EINVAL, ENOMEM or EOVERFLOW for a mapping that is refused wherever it would go."""
    if not length:
        raise LinuxError(EINVAL, "a mapping of no bytes")
    if offset & (PAGE - 1):
        raise LinuxError(EINVAL, f"the file offset {offset:#x} is not a multiple of the page size")
    length = page_align(length)
    if not length:
        raise LinuxError(ENOMEM, "the length wraps around")
    if offset + length >= 1 << 64:
        raise LinuxError(EOVERFLOW, "the file offset wraps around")
    check_map_count(space, 0)
    if flags & MAP_HUGETLB and backing is None:
        raise LinuxError(ENOMEM, "no huge pages are reserved (vm.nr_hugepages)")
    return length


def _place_and_fill(space: AddressSpace, new: Proposal, flags: int) -> None:
    """Put a checked area in, with the pages that mmap's flags want there, and those that may come ahead of faults."""
    start, end, backing = new.start, new.end, new.backing
    fixed_file = flags & MAP_FIXED and backing is not None
    former = space.vmas.find(start) if fixed_file else None
    vma = _place(space, new)
    if fixed_file:
        _map_segment_ahead(space, vma, start, end, former)
    elif backing is not None:
        map_small(space, vma)
    elif flags & MAP_FIXED and _is_behind_data(space, vma, start):
        map_ahead(space, vma, vma.start, vma.end)
    if new.flags & LOCKED or flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE:
        populate(space, start, end)


def _map_segment_ahead(space: AddressSpace, vma: Vma, start: int, end: int, former: Vma | None) -> None:
    """A file was mapped to just [start, end), as loaders put segments over their first mapping of all of the file.

    `former` was there before. Where it was cut, what is left of it below is the first segment.
    """
    if former is not None and former.backing is vma.backing and former is space.vmas.before(vma):
        map_ahead(space, former, former.start, former.end)
    map_ahead(space, vma, start, end)


def _is_behind_data(space: AddressSpace, vma: Vma, address: int) -> bool:
    """Whether anonymous memory at `address` goes on where a program's or library's data ends: its .bss."""
    below = space.vmas.before(vma)
    return below is not None and below.end == vma.start == address and is_image(space, below)


def unmap(space: AddressSpace, start: int, length: int) -> None:
    """Unmap whatever is in the range; nothing there is no error (kernel: do_vmi_munmap)."""
    limit = space.layout.task_size
    if start & (PAGE - 1) or start > limit or length > limit - start:
        raise LinuxError(EINVAL, f"{start:#x} + {length:#x} is no range of whole pages in the address space")
    end = start + page_align(length)
    if end == start:
        raise LinuxError(EINVAL, "a range of no bytes")
    unmap_range(space, start, end)


def unmap_range(space: AddressSpace, start: int, end: int) -> None:
    """Unmap [start, end), which is page-aligned and checked."""
    remove(space, gather(space, start, end))


def gather(space: AddressSpace, start: int, end: int) -> list[Vma]:
    """The VMAs of exactly [start, end), split off from what reaches out of it (kernel: vms_gather_munmap_vmas)."""
    vmas = space.vmas
    first = vmas.find_after(start)
    if first is None or first.start >= end:
        return []
    if first.start < start:
        if end < first.end:
            check_map_count(space)
        check_not_sealed(first)
        vmas.split(first, start)
    found = vmas.overlapping(start, end)
    for vma in found:
        check_not_sealed(vma)
    if found[-1].end > end:
        vmas.split(found[-1], end)
    return found


def remove(space: AddressSpace, gone: list[Vma]) -> None:
    """Take away the VMAs of a range, their pages and page tables (kernel: vms_complete_munmap_vmas)."""
    if not gone:
        return
    space.note_resident_peak()
    entries: list[int] = []
    for vma in gone:
        entries += clear(space, vma, vma.start, vma.end)
        pages = pages_of(vma)
        space.usage.add(vma.flags, -pages)
        if vma.flags & ACCOUNT:
            space.limits.commitment.uncharge(pages)
    start, end = gone[0].start, gone[-1].end
    space.shootdown.retire(space.page_table.root, start, end, entries)
    for vma in gone:  # only now: with the last mapping of shared memory its frames go
        space.vmas.remove(vma)
    space.page_table.prune(start, end)
    if space.guards:
        guard.forget(space, start, end)
    for vma in gone:
        space.emit("unmap", vma, vma.start, vma.end)


def remove_all(space: AddressSpace) -> None:
    """The end of an address space: as `remove` of all its VMAs, in one pass over tables that go anyway.

    No core will enter it again, so what one still knows of it is of no use to anybody and need not be reported; the
    frames of its tables wait for that by themselves (see `PhysicalMemory.old_tables`).
    """
    space.note_resident_peak()
    memory, summary = space.memory, space.vmas.summary()
    if summary.flags & SHARED:
        for vma in space.vmas:
            if vma.flags & SHARED:
                pass_all_dirty_on(space, vma, vma.start, vma.end)
    space.limits.commitment.uncharge(summary.promised)
    gone: list[int] = []
    for _, slot, count in space.page_table.spans(0, USER_END):
        gone += drop(memory, slot, count)
    memory.take_back(gone)
    space.page_table.release()
    space.vmas.clear()
    space.resident_pages = 0
    space.guards.clear()


def _place(space: AddressSpace, new: Proposal) -> Vma:
    """Put the new area in, in place of what was there; the VMA that has it (kernel: __mmap_region)."""
    vmas = space.vmas
    pages = (new.end - new.start) >> PAGE_SHIFT
    index = vmas.room(new.start, new.end)
    if index < 0 and (vma := _replace(space, new)) is not None:
        return vma
    old = gather(space, new.start, new.end) if index < 0 else []
    space.usage.check_growth(new.flags, pages - sum(map(pages_of, old)), space.limits)
    if is_accountable(new.flags):
        kept = sum(pages_of(vma) for vma in old if vma.flags & ACCOUNT)
        space.charge(pages - kept)
        space.limits.commitment.promised += kept  # what `remove` takes back was promised to the new area
        new.flags |= ACCOUNT
    if index < 0:
        remove(space, old)
        index = vmas.room(new.start, new.end)
    vma = merge_new(space, new, index)
    if vma is None:
        if new.flags & SHARED and new.backing is None:
            new.backing = SharedMemory(space.cache, new.end - new.start, space.limits.commitment.new_inode())
            new.file, new.path = new.backing, "/dev/zero"
        vma = Vma(
            new.start, new.end, new.flags, new.backing, new.offset, path=new.path, file=new.file, anon_vma=new.anon_vma
        )
        vmas.insert_at(index, vma)
    space.usage.add(vma.flags, pages)
    space.emit("map", vma, new.start, new.end)
    return vma


def _replace(space: AddressSpace, new: Proposal) -> Vma | None:
    """As `_place`, in place of part or all of one private mapping: so loaders put segments over the first mapping of a
    file. None, with nothing done, where more than that mapping may change, or somebody hears of it.
    """
    vmas, usage, limits = space.vmas, space.usage, space.limits
    old = vmas.find(new.start)
    if old is None or new.end > old.end or (old.flags | new.flags) & (SHARED | LOCKED | SEALED) or space.guards:
        return None
    if (space.events is not None and space.events.map) or len(vmas.areas) + 2 > limits.max_map_count:
        return None
    pages = (new.end - new.start) >> PAGE_SHIFT
    promised = pages if old.flags & ACCOUNT else 0
    if is_accountable(new.flags):
        new.flags |= ACCOUNT
    joins = joins_around(space, old, new)
    if joins and not (joins is old and old.anon_vma is None):
        return None
    usage.check_growth(new.flags, 0, limits)
    if new.flags & ACCOUNT:
        space.charge(pages - promised)
    else:
        limits.commitment.uncharge(promised)
    if zap(space, old, new.start, new.end):
        space.page_table.prune(new.start, new.end)
    if joins is old:
        return old  # the same part of the same file: only its pages were new
    vma = Vma(new.start, new.end, new.flags, new.backing, new.offset, path=new.path, file=new.file)
    usage.add(old.flags, -pages)
    usage.add(new.flags, pages)
    vmas.cut_in(vma)
    return vma


def _flags_of(prot: int, flags: int) -> int:
    """Kernel: calc_vm_prot_bits and calc_vm_flag_bits."""
    return (
        prot & PROTECTION
        | (GROWSDOWN if flags & MAP_GROWSDOWN else 0)
        | (LOCKED if flags & MAP_LOCKED else 0)
        | (NOHUGEPAGE if flags & MAP_STACK else 0)
    )


def _file_flags(vm_flags: int, prot: int, flags: int, access: FileAccess) -> int:
    """The VMA flags of a file mapping; EACCES, EPERM, EINVAL or EOPNOTSUPP where the file does not allow it."""
    kind = flags & MAP_TYPE
    if kind == MAP_SHARED_VALIDATE and flags & ~LEGACY_MAP_MASK:
        raise LinuxError(EOPNOTSUPP, f"the file system does not know the flags {flags & ~LEGACY_MAP_MASK:#x}")
    if kind in (MAP_SHARED, MAP_SHARED_VALIDATE):
        if prot & WRITE and not access.write:
            raise LinuxError(EACCES, "a shared writable mapping of a file that is not open for writing")
        vm_flags |= SHARED | MAYSHARE
        if not access.write:
            vm_flags &= ~(MAYWRITE | SHARED)
    elif kind != MAP_PRIVATE:
        raise LinuxError(EINVAL, "neither MAP_SHARED nor MAP_PRIVATE")
    if not access.read:
        raise LinuxError(EACCES, "the file is not open for reading")
    if not access.execute:
        if vm_flags & EXEC:
            raise LinuxError(EPERM, "the file is on a noexec mount")
        vm_flags &= ~MAYEXEC
    if vm_flags & GROWSDOWN:
        raise LinuxError(EINVAL, "MAP_GROWSDOWN is for anonymous memory")
    return vm_flags


def _anonymous_flags(vm_flags: int, flags: int, address: int) -> tuple[int, int]:
    """The VMA flags and the offset of an anonymous mapping."""
    kind = flags & MAP_TYPE
    if kind == MAP_SHARED:
        if vm_flags & GROWSDOWN:
            raise LinuxError(EINVAL, "a shared mapping cannot grow down")
        return vm_flags | SHARED | MAYSHARE, 0
    if kind == MAP_DROPPABLE:
        if flags & (MAP_LOCKED | MAP_HUGETLB) or vm_flags & GROWSDOWN:
            raise LinuxError(EINVAL, "MAP_DROPPABLE is for plain memory")
        return vm_flags | DROPPABLE | NORESERVE | WIPEONFORK | DONTDUMP, address
    if kind != MAP_PRIVATE:
        raise LinuxError(EINVAL, "neither MAP_SHARED nor MAP_PRIVATE")
    return vm_flags, address
