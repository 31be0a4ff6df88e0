"""Where a mapping goes: the search for a free range, as x86-64 Linux does it.

Sources: arch/x86/kernel/sys_x86_64.c, mm/vma.c (unmapped_area, unmapped_area_topdown), mm/huge_memory.c
(__thp_get_unmapped_area), mm/shmem.c (shmem_get_unmapped_area). All addresses and lengths are in bytes.
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.memory.flags import MAP_32BIT, MAP_ABOVE4G, MAP_FIXED
from loadstone.memory.vma import GROWSDOWN, PAGE, PAGE_MASK, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.backing import Backing

HUGE = 1 << 21
"""Bytes that one entry of the third level maps: a transparent huge page."""

_LOW_BEGIN, _LOW_END = 0x4000_0000, 0x8000_0000  # MAP_32BIT


TASK_SIZE_MAX = 0x7FFF_FFFF_F000
"""Where user addresses end with four-level page tables (arch/x86/include/asm/page_64_types.h)."""


class Layout(NamedTuple):
    """The shape of an address space, chosen at exec (kernel: arch_pick_mmap_layout). Addresses and sizes in bytes.

    Without randomization and with a stack limit of 8 MiB the defaults are what Linux 6.18 uses.
    """

    task_size: int = TASK_SIZE_MAX
    mmap_base: int = 0x7FFFF7FFF000  # the top-down search starts here
    legacy_base: int = 0x2AAAAAAAB000  # the bottom-up search starts here (kernel: mmap_legacy_base)
    mmap_min_addr: int = 0x1000  # the lowest address that a search finds
    dac_mmap_min_addr: int = 0x1000  # what is below takes CAP_SYS_RAWIO: the sysctl vm.mmap_min_addr
    top_down: bool = True
    stack_top: int = TASK_SIZE_MAX
    stack_gap: int = 256 * PAGE  # kept free below a growing stack (kernel: stack_guard_gap)
    vsyscall: str = "--xp"  # how /proc/PID/maps shows the vsyscall page at its end; empty: there is none
    huge_alignment: bool = True  # file mappings may have transparent huge pages, and are placed so
    huge_anonymous: bool = True  # private anonymous mappings may have them
    huge_shared: bool = False  # shared anonymous memory may have them too (transparent_hugepage/shmem_enabled)


def unmapped_area(
    space: AddressSpace,
    hint: int,
    length: int,
    flags: int,
    backing: Backing | None = None,
    offset: int = 0,
    *,
    shared: bool = False,
) -> int:
    """The address for `length` bytes, a multiple of the page size (kernel: __get_unmapped_area).

    `flags` are mmap's; with MAP_FIXED the hint itself is checked and returned. `shared` says that an anonymous mapping
    will be a shared one. Raises ENOMEM (no room), EINVAL (unaligned), EPERM (below mmap_min_addr).
    """
    layout = space.layout
    if length > layout.task_size:
        raise LinuxError(ENOMEM, f"{length:#x} bytes are more than the address space has")
    if flags & MAP_FIXED:
        address = hint
    elif backing is None and shared:
        address = (_search_shared if layout.huge_shared else _search)(space, hint, length, flags)
    elif _wants_huge(layout, backing, hint, length):
        address = _search_huge(space, hint, length, flags, offset if backing is not None else 0)
    else:
        address = _search(space, hint, length, flags)
    if address > layout.task_size - length:
        raise LinuxError(ENOMEM, f"{address:#x} + {length:#x} is past the end of the address space")
    if address & (PAGE - 1):
        raise LinuxError(EINVAL, f"the address {address:#x} is not page-aligned")
    if address < layout.dac_mmap_min_addr and not space.limits.may_map_low:
        raise LinuxError(EPERM, f"{address:#x} is below vm.mmap_min_addr ({layout.dac_mmap_min_addr:#x})")
    return address


def _wants_huge(layout: Layout, backing: Backing | None, hint: int, length: int) -> bool:
    """Whether the place is to suit huge pages (kernel: __get_unmapped_area, and a file's own get_unmapped_area)."""
    if backing is not None:
        return layout.huge_alignment and backing.huge_aligned
    return layout.huge_anonymous and not hint and length % HUGE == 0


def gap_start(vma: Vma, stack_gap: int) -> int:
    """Where `vma` starts with its guard gap (kernel: vm_start_gap)."""
    return max(vma.start - stack_gap, 0) if vma.flags & GROWSDOWN else vma.start


def round_hint(hint: int, mmap_min_addr: int) -> int:
    """A hint as a page address that may be mapped (kernel: round_hint_to_min)."""
    hint &= PAGE_MASK
    if hint and hint < mmap_min_addr:
        return (mmap_min_addr + PAGE - 1) & PAGE_MASK
    return hint


def _search_huge(space: AddressSpace, hint: int, length: int, flags: int, offset: int) -> int:
    """A range in which file offset and address agree modulo 2 MiB, if the mapping has room for a huge page."""
    end = offset + length
    aligned = -(-offset // HUGE) * HUGE
    if end - aligned >= HUGE:
        try:
            address = _search(space, hint, length + HUGE, flags)
        except LinuxError:
            address = -1  # perhaps only the padding did not fit
        if address == hint and address > 0:
            return address
        if address > 0:
            distance = (offset - address) % HUGE
            if space.layout.top_down and not distance:
                return address + HUGE  # the padding belongs below, not above
            return address + distance
    return _search(space, hint, length, flags)


def _search_shared(space: AddressSpace, hint: int, length: int, flags: int) -> int:
    """Shared anonymous memory (tmpfs inside): on a 2 MiB boundary if it is that long and nobody chose the address."""
    address = _search(space, hint, length, flags)
    if (hint and hint == address) or length < HUGE or address % HUGE == 0:
        return address
    try:
        padded = _search(space, hint, length + HUGE - PAGE, flags)
    except LinuxError:
        return address
    padded = -(-padded // HUGE) * HUGE
    return address if padded > space.layout.task_size - length else padded


def _search(space: AddressSpace, hint: int, length: int, flags: int) -> int:
    """Kernel: arch_get_unmapped_area_topdown, or arch_get_unmapped_area with the legacy layout."""
    layout = space.layout
    if layout.top_down and not flags & MAP_32BIT:
        if hint and _fits(space, hint, length, layout.task_size):
            return hint
        low = 1 << 32 if flags & MAP_ABOVE4G else PAGE
        address = _highest(space, length, max(low, layout.mmap_min_addr), layout.mmap_base)
        if address >= 0:
            return address
    begin, end = (_LOW_BEGIN, _LOW_END) if flags & MAP_32BIT else (layout.legacy_base, layout.task_size)
    if hint and _fits(space, hint, length, end):
        return hint
    address = _lowest(space, length, max(begin, layout.mmap_min_addr), end)
    if address < 0:
        raise LinuxError(ENOMEM, f"no free range of {length:#x} bytes")
    return address


def _fits(space: AddressSpace, address: int, length: int, end: int) -> bool:
    """Whether a hint can be followed; the neighbour below is not asked, as in the kernel."""
    if end - length < address:
        return False
    above = space.vmas.find_after(address)
    return above is None or address + length <= gap_start(above, space.layout.stack_gap)


def _highest(space: AddressSpace, length: int, low: int, high: int) -> int:
    """The highest address of a free range in [low, high); -1 if there is none (kernel: unmapped_area_topdown).

    A guard gap is asked for only where a range would do without it, and then bounds the rest of the search.
    """
    vmas, stack_gap = space.vmas, space.layout.stack_gap
    areas = vmas.areas
    top = high
    known_length, floor, known_top = vmas.packed
    if known_top == top and length >= known_length:
        high = floor  # so that a mapping after the other does not search through them all
    limit = high
    index = vmas.index_after(high)
    end = min(areas[index].start, high) if index < len(areas) else high
    for neighbour in reversed(areas[:index]):  # most leave no room
        if end - neighbour.end >= length:
            break
        end = neighbour.start
        index -= 1
    while limit - low >= length:
        above = areas[index] if index < len(areas) else None
        below = areas[index - 1] if index else None
        end = above.start if above is not None and above.start < limit else limit
        start = below.end if below is not None and below.end > low else low
        if end - start >= length:
            bound = gap_start(above, stack_gap) if above is not None else end
            if bound >= end:
                if limit == high and (known_top != top or length <= known_length):
                    vmas.packed = (length, end, top)
                return end - length
            limit = bound
            continue
        if below is None:
            break
        index -= 1
    return -1


def _lowest(space: AddressSpace, length: int, low: int, high: int) -> int:
    """The lowest address of a free range in [low, high); -1 if there is none (kernel: unmapped_area)."""
    vmas, stack_gap = space.vmas, space.layout.stack_gap
    for vma in vmas.areas[vmas.index_after(low) :]:
        if low + length > high:
            break
        if gap_start(vma, stack_gap) - low >= length:
            return low
        low = max(low, vma.end)
    return low if low + length <= high else -1
