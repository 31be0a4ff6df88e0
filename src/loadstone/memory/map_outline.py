"""Mapping all of a program at once.

What an exec maps follows from the file alone, but for where it goes. So everything but the addresses is worked out once
for a file; and an address space that cannot refuse any of it gets all of it, as one mmap after the other would have
left it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.accounting import OVERCOMMIT_NEVER
from loadstone.memory.flags import MAP_FIXED, MAP_FIXED_NOREPLACE, RLIMIT_AS, RLIMIT_DATA
from loadstone.memory.neighbours import map_ahead
from loadstone.memory.placement import round_hint, unmapped_area
from loadstone.memory.vma import PAGE_SHIFT, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.backing import Backing
    from loadstone.memory.outline import Outline


def map_outline(
    space: AddressSpace,
    outline: Outline,
    hint: int,
    flags: int,
    reserve: int,
    backing: Backing,
    path: str,
    file: object,
) -> int | None:
    """Map all of `outline`; where it starts. None: some of it might be refused or told, and nothing was done.

    Args:
        space: the address space, in which the range has to be free.
        outline: what is to be mapped.
        hint: where its start is asked for, as for mmap.
        flags: mmap's, of the first mapping.
        reserve: bytes, in whole pages, that the first mapping takes before it gives back all that is not its own; 0 if
            it takes no more.
        backing: the file.
        path: its name, as the guest sees it.
        file: the open file.
    """
    most = max(outline.total, reserve >> PAGE_SHIFT)
    if not _sure(space, outline, most):
        return None
    first = outline.areas[0]
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    if not flags & MAP_FIXED:
        hint = round_hint(hint, space.layout.mmap_min_addr)
    try:
        start = unmapped_area(space, hint, reserve or first.end - first.start, flags, backing, first.offset)
    except LinuxError:
        return None
    bias = start - outline.start
    end = outline.end + bias
    if end > space.layout.task_size or space.vmas.overlaps(start, max(end, start + reserve)):
        return None
    placed = [
        Vma(low + bias, high + bias, vm_flags, None, low + bias)
        if anonymous
        else Vma(low + bias, high + bias, vm_flags, backing, offset, path=path, file=file)
        for low, high, vm_flags, offset, anonymous in outline.areas
    ]
    space.charge(outline.promised)
    space.vmas.insert_all(placed)
    space.usage.add_counted(outline.total, outline.data, outline.executable, most)
    for vma in placed:
        map_ahead(space, vma)
    return start


def _sure(space: AddressSpace, outline: Outline, most: int) -> bool:
    """Whether no limit can be in the way, in whatever order they are asked, and nobody listens.

    `most`: pages that there will be for a moment.
    """
    limits, usage = space.limits, space.usage
    return (
        not (space.events is not None and space.events.map)
        and not (space.default_flags or space.read_implies_exec)
        and len(space.vmas) + len(outline.areas) < limits.max_map_count
        and usage.total + most <= limits.soft(RLIMIT_AS) >> PAGE_SHIFT
        and usage.data + outline.data <= limits.soft(RLIMIT_DATA) >> PAGE_SHIFT
        and limits.commitment.mode != OVERCOMMIT_NEVER
        and outline.promised <= limits.commitment.total
    )
