"""The program break (mm/mmap.c: brk; mm/vma.c: do_brk_flags)."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.accounting import is_data
from loadstone.memory.flags import MAP_FIXED, RLIM_INFINITY, RLIMIT_DATA
from loadstone.memory.lock import check_lock_limit, populate
from loadstone.memory.mapping import page_align, unmap_range
from loadstone.memory.merge import Proposal, check_map_count, merge_new
from loadstone.memory.placement import gap_start, unmapped_area
from loadstone.memory.vma import (
    ACCOUNT,
    EXEC,
    LOCKED,
    MAYEXEC,
    MAYREAD,
    MAYWRITE,
    PAGE,
    PAGE_SHIFT,
    READ,
    WRITE,
    Vma,
)

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace


def set_brk(space: AddressSpace, brk: int) -> int:
    """Move the program break to `brk`, if that can be; the break as it is then. Never raises."""
    try:
        _move(space, brk)
    except LinuxError:
        return space.brk  # unmoved: that is how this call reports an error
    return brk


def extend(space: AddressSpace, start: int, length: int, flags: int = 0) -> None:
    """Anonymous memory in a range of whole pages that is free, as the break and `.bss` get it (do_brk_flags).

    Only the break's own neighbour below is merged with. Raises ENOMEM.
    """
    pages = length >> PAGE_SHIFT
    flags |= data_flags(space) | ACCOUNT | space.default_flags
    space.usage.check_growth(flags, pages, space.limits)
    check_map_count(space, 0)
    space.charge(pages)
    below = space.vmas.find_before(start)
    vma = None
    if below and below.end > space.start_brk:
        index = space.vmas.room(start, start + length)
        vma = merge_new(space, Proposal(start, start + length, flags, start), index, expand_only=True)
    if vma is None:
        vma = Vma(start, start + length, flags, None, start)
        space.vmas.insert(vma)
    space.usage.add(flags, pages)
    assert is_data(flags)
    space.emit("map", vma, start, start + length)


def data_flags(space: AddressSpace) -> int:
    """The flags of plain data (kernel: VM_DATA_DEFAULT_FLAGS)."""
    return READ | WRITE | MAYREAD | MAYWRITE | MAYEXEC | (EXEC if space.read_implies_exec else 0)


def _move(space: AddressSpace, brk: int) -> None:
    if brk < space.start_brk:
        raise LinuxError(ENOMEM, "below the start of the heap")
    limit = space.limits.soft(RLIMIT_DATA)
    if limit != RLIM_INFINITY and brk - space.start_brk + space.end_data - space.start_data > limit:
        raise LinuxError(ENOMEM, f"more than {limit} bytes of data (RLIMIT_DATA)")
    new, old = page_align(brk), page_align(space.brk)
    if brk > space.brk and new != old:
        _grow(space, old, new)
    elif new != old:
        first = space.vmas.find_after(new)
        if first is None or first.start >= old:
            raise LinuxError(ENOMEM, "no heap is mapped there")
        unmap_range(space, new, old)
    space.brk = brk
    if new > old and space.default_flags & LOCKED:
        populate(space, old, new)


def _grow(space: AddressSpace, old: int, new: int) -> None:
    if new < old:
        raise LinuxError(ENOMEM, "past the end of the address space")
    unmapped_area(space, old, new - old, MAP_FIXED)
    if space.default_flags & LOCKED:
        check_lock_limit(space, new - old, ENOMEM)
    above = space.vmas.find_after(old)
    if above and new + PAGE > gap_start(above, space.layout.stack_gap):
        raise LinuxError(ENOMEM, f"the mapping at {above.start:#x} is in the way")
    extend(space, old, new - old)
