"""When two VMAs become one: Linux's merge rules (mm/vma.c), and the split that precedes a change of part of a VMA.

Two areas merge when they touch and agree in flags, open file and offset, and when their anonymous pages may have a
common owner: the same `anon_vma`, or at most one of them has any. An area that a fork copied is left alone, because
its pages may belong to the parent.
"""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.flags import MIXEDMAP, PFNMAP
from loadstone.memory.vma import DONTEXPAND, IO, PROTECTION, AnonVma, ForkedAnonVma, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

SPECIAL = IO | DONTEXPAND | PFNMAP | MIXEDMAP
"""VM_SPECIAL: mappings that never merge."""


class Proposal:
    """An area that is to be: a new one, or part of an old one with new attributes (kernel: vma_merge_struct)."""

    __slots__ = ("anon_vma", "backing", "end", "file", "flags", "offset", "path", "start", "userfault")

    def __init__(self, start: int, end: int, flags: int, offset: int, like: Vma | None = None) -> None:
        self.start = start
        self.end = end
        self.flags = flags
        self.offset = offset
        self.backing = like.backing if like else None
        self.file = like.file if like else None
        self.path = like.path if like else ""
        self.anon_vma = like.anon_vma if like else None
        self.userfault = like.userfault if like else None


def merge_new(space: AddressSpace, new: Proposal, index: int, *, expand_only: bool = False) -> Vma | None:
    """Let a neighbour of the empty range take `new` in; the grown VMA, or None (kernel: vma_merge_new_range).

    `index` is where there is room for it. With `expand_only` the neighbour above is left out, as the program break does
    it.
    """
    if new.flags & SPECIAL:
        return None
    vmas = space.vmas
    vmas.own()
    areas = vmas.areas
    left = areas[index - 1] if index else None
    if left is not None and not (left.end == new.start and _joins_left(left, new)):
        left = None
    right = areas[index] if index < len(areas) and not expand_only else None
    if right is not None and not (right.start == new.end and _joins_right(right, new, left)):
        right = None
    if left:
        end = new.end
        if right:
            end = right.end
            _take_anon_vma(left, right.anon_vma)
            vmas.remove(right)
        _take_anon_vma(left, new.anon_vma)
        vmas.resize(left, left.start, end, left.offset)
        return left
    if right:
        _take_anon_vma(right, new.anon_vma)
        vmas.resize(right, new.start, right.end, new.offset)
    return right


def joins_around(space: AddressSpace, old: Vma, new: Proposal) -> Vma | None:
    """What `new` would merge with if it took the place of part or all of `old`: the rest of that, or a neighbour."""
    vmas = space.vmas
    vmas.own()
    offset = old.offset + new.start - old.start
    alike = old.flags == new.flags and offset == new.offset and _alike(old, new) and _anon_mergeable(old, new)
    if alike and (old.start < new.start or new.end < old.end):
        return old
    left = vmas.before(old) if old.start == new.start else None
    if left is not None and left.end == new.start and _joins_left(left, new):
        return left
    right = vmas.after(old) if old.end == new.end else None
    if right is not None and right.start == new.end and _joins_right(right, new, None):
        return right
    return None


def modify(space: AddressSpace, vma: Vma, start: int, end: int, flags: int) -> Vma:
    """Give [start, end), part or all of `vma`, other flags; returns the VMA that has it now (kernel: vma_modify).

    It merges with a neighbour where it can and is split off where it must. Raises ENOMEM past `max_map_count`.
    """
    space.vmas.own()
    merged = _merge_existing(space, vma, start, end, flags)
    if merged:
        return merged
    if vma.start < start:
        check_map_count(space)
        vma = space.vmas.split(vma, start)
    if vma.end > end:
        check_map_count(space)
        space.vmas.split(vma, end)
    vma.flags = flags
    return vma


def check_map_count(space: AddressSpace, more: int = 1) -> None:
    """Raise ENOMEM when the address space may not have `more` VMAs more (kernel: split_vma, and whoever maps)."""
    if len(space.vmas.areas) + more > space.limits.max_map_count:
        raise LinuxError(ENOMEM, f"the process has {len(space.vmas)} mappings (vm.max_map_count)")


def prepare_anon_vma(space: AddressSpace, vma: Vma) -> None:
    """Make sure `vma` has an anon_vma before its first anonymous page (kernel: __anon_vma_prepare).

    A neighbour's is taken when the two areas differ in nothing that mprotect cannot change, so that they can merge
    later; the one above is asked first.
    """
    if vma.anon_vma is not None:
        return
    space.vmas.own()
    above = space.vmas.after(vma)
    below = space.vmas.before(vma)
    if above and _anon_compatible(vma, above) and _is_singular(above.anon_vma):
        vma.anon_vma = above.anon_vma
    elif below and _anon_compatible(below, vma) and _is_singular(below.anon_vma):
        vma.anon_vma = below.anon_vma
    else:
        vma.anon_vma = AnonVma()


def _merge_existing(space: AddressSpace, vma: Vma, start: int, end: int, flags: int) -> Vma | None:
    """The neighbour that took [start, end) of `vma` over, or None (kernel: vma_merge_existing_range)."""
    if flags & SPECIAL:
        return None
    new = Proposal(start, end, flags, vma.offset + start - vma.start, like=vma)
    whole = start == vma.start and end == vma.end
    left = _left(space, new) if start == vma.start else None
    right = _right(space, new, left) if end == vma.end else None
    vmas = space.vmas
    if left and right:
        _take_anon_vma(left, right.anon_vma or vma.anon_vma)
        vmas.remove(vma)
        vmas.remove(right)
        vmas.resize(left, left.start, right.end, left.offset)
        return left
    if left:
        _take_anon_vma(left, vma.anon_vma)
        if whole:
            vmas.remove(vma)
        else:
            vmas.resize(vma, end, vma.end, vma.offset + end - vma.start)
        vmas.resize(left, left.start, end, left.offset)
        return left
    if right:
        _take_anon_vma(right, vma.anon_vma)
        if whole:
            vmas.remove(vma)
        else:
            vmas.resize(vma, vma.start, start, vma.offset)
        vmas.resize(right, start, right.end, right.offset - (right.start - start))
    return right


def _left(space: AddressSpace, new: Proposal) -> Vma | None:
    """The VMA that ends where `new` starts, if the two may merge."""
    below = space.vmas.find_before(new.start)
    return below if below and below.end == new.start and _joins_left(below, new) else None


def _right(space: AddressSpace, new: Proposal, left: Vma | None) -> Vma | None:
    """The VMA that starts where `new` ends, if it may merge with `new`, and with `left` too."""
    above = space.vmas.find_after(new.end)
    return above if above and above.start == new.end and _joins_right(above, new, left) else None


def _joins_left(below: Vma, new: Proposal) -> bool:
    """Whether `new` may merge with the VMA that ends where it starts (kernel: can_vma_merge_left)."""
    return (
        below.flags == new.flags
        and below.offset + below.end - below.start == new.offset
        and _alike(below, new)
        and _anon_mergeable(below, new)
    )


def _joins_right(above: Vma, new: Proposal, left: Vma | None) -> bool:
    """Whether `new` may merge with the VMA that starts where it ends, and that with `left` (can_vma_merge_right)."""
    return (
        above.flags == new.flags
        and above.offset == new.offset + new.end - new.start
        and _alike(above, new)
        and _anon_mergeable(above, new)
        and (not left or not left.anon_vma or not above.anon_vma or left.anon_vma is above.anon_vma)
    )


def _alike(vma: Vma, new: Proposal) -> bool:
    """Kernel: is_mergeable_vma, but for the flags. The file is compared, not the inode: two opens do not merge."""
    return vma.backing is new.backing and vma.file is new.file and vma.userfault is new.userfault and not vma.name


def _anon_mergeable(vma: Vma, new: Proposal) -> bool:
    """Kernel: is_mergeable_anon_vma."""
    if vma.anon_vma is new.anon_vma:
        return True
    if vma.anon_vma is None:
        return _is_singular(new.anon_vma)
    return new.anon_vma is None and _is_singular(vma.anon_vma)


def _is_singular(anon_vma: AnonVma | None) -> bool:
    """Whether there is an anon_vma and no fork's history hangs on it (kernel: list_is_singular(anon_vma_chain))."""
    return anon_vma is not None and not isinstance(anon_vma, ForkedAnonVma)


def _anon_compatible(below: Vma, above: Vma) -> bool:
    """Kernel: anon_vma_compatible."""
    return (
        below.end == above.start
        and below.backing is above.backing
        and below.file is above.file
        and not (below.flags ^ above.flags) & ~PROTECTION
        and above.offset == below.offset + above.start - below.start
    )


def _take_anon_vma(target: Vma, anon_vma: AnonVma | None) -> None:
    """Kernel: dup_anon_vma."""
    if target.anon_vma is None:
        target.anon_vma = anon_vma
