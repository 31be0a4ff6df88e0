"""Guard pages: pages of a mapping that nobody may touch, without a mapping of their own (mm/madvise.c: MADV_GUARD_*).

The kernel keeps them as markers in the page tables. Here they are a set of page addresses beside the tables, where an
absent entry is looked up before it is filled; so nothing that walks the tables meets an entry without a frame.
"""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.merge import SPECIAL, prepare_anon_vma
from loadstone.memory.vma import HUGETLB, LOCKED, PAGE, Vma
from loadstone.memory.zap import zap

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace


def install(space: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """Guard [start, end) of `vma`; what was there is gone. EINVAL for special and locked mappings."""
    if vma.flags & (SPECIAL | HUGETLB | LOCKED):
        raise LinuxError(EINVAL, "no guard pages in a special or locked mapping")
    prepare_anon_vma(space, vma)  # so that fork copies the markers
    zap(space, vma, start, end)
    space.guards.update(range(start, end, PAGE))


def remove(space: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """Guard [start, end) of `vma` no more. EINVAL for special mappings."""
    if vma.flags & (SPECIAL | HUGETLB):
        raise LinuxError(EINVAL, "no guard pages in a special mapping")
    forget(space, start, end)


def forget(space: AddressSpace, start: int, end: int) -> list[int]:
    """Drop the guards in [start, end), whatever is mapped there; their addresses."""
    dropped = guarded(space, start, end)
    space.guards.difference_update(dropped)
    return dropped


def guarded(space: AddressSpace, start: int, end: int) -> list[int]:
    """The guarded pages in [start, end); as fast as the smaller of the two is small."""
    guards = space.guards
    if not guards:
        return []
    if (end - start) // PAGE < len(guards):
        return [page for page in range(start, end, PAGE) if page in guards]
    return [page for page in guards if start <= page < end]


def move(space: AddressSpace, start: int, end: int, distance: int) -> None:
    """The pages of [start, end) are now `distance` bytes from there, guards and all."""
    if space.guards:
        space.guards.update([page + distance for page in forget(space, start, end)])
