"""mremap (mm/mremap.c): a mapping grows, shrinks or moves, its pages with it."""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.paging import FRAME_MASK
from loadstone.memory import guard
from loadstone.memory.accounting import pages_of
from loadstone.memory.flags import MAP_FIXED, MAP_SHARED, MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, PFNMAP
from loadstone.memory.lock import check_lock_limit, populate
from loadstone.memory.mapping import page_align, unmap_range
from loadstone.memory.merge import Proposal, check_map_count, merge_new
from loadstone.memory.placement import unmapped_area
from loadstone.memory.vma import (
    ACCOUNT,
    DONTEXPAND,
    LOCKED,
    LOCKONFAULT,
    MAYSHARE,
    PAGE,
    PAGE_SHIFT,
    SHARED,
    UFFD_MISSING,
    Vma,
    check_not_sealed,
)

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

_KNOWN = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP


class _Request:
    """One move or resize of (part of) one VMA: lengths in whole pages (kernel: vma_remap_struct)."""

    __slots__ = ("address", "flags", "new_address", "new_length", "old_length")

    def __init__(self, address: int, old_length: int, new_length: int, flags: int, new_address: int) -> None:
        self.address = address
        self.old_length = old_length
        self.new_length = new_length
        self.flags = flags
        self.new_address = new_address

    @property
    def places(self) -> bool:
        """Whether the caller has a say in the new address."""
        return bool(self.flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))


def remap(space: AddressSpace, address: int, old_length: int, new_length: int, flags: int, new_address: int) -> int:
    """Resize or move the mapping at `address`; its address then.

    Raises EINVAL (arguments), EFAULT (nothing mapped there, or not in one mapping), ENOMEM, EAGAIN (locked memory).
    """
    request = _Request(address, page_align(old_length), page_align(new_length), flags, new_address)
    _check_arguments(space, request)
    check_map_count(space, 4)
    if flags & MREMAP_FIXED and request.old_length == request.new_length:
        return _move_range(space, request)
    vma = space.vmas.find(address)
    _check_vma(space, request, vma)
    assert vma is not None
    if request.places:
        result = _move_to(space, request)
    elif request.new_length > request.old_length:
        result = _expand(space, request, vma)
    else:
        if request.new_length < request.old_length:
            unmap_range(space, address + request.new_length, address + request.old_length)
        result = address
    if vma.flags & LOCKED and request.new_length > request.old_length:
        populate(space, result + request.old_length, result + request.new_length)
    return result


def _check_arguments(space: AddressSpace, request: _Request) -> None:
    """Kernel: check_mremap_params."""
    limit = space.layout.task_size
    if request.flags & ~_KNOWN:
        raise LinuxError(EINVAL, f"mremap knows no flags {request.flags & ~_KNOWN:#x}")
    if request.address & (PAGE - 1):
        raise LinuxError(EINVAL, f"{request.address:#x} is not page-aligned")
    if not 0 < request.new_length <= limit:
        raise LinuxError(EINVAL, f"a new length of {request.new_length:#x} bytes")
    if not request.places:
        return
    new = request.new_address
    if new > limit - request.new_length or new & (PAGE - 1):
        raise LinuxError(EINVAL, f"the new address {new:#x} does not fit")
    if not request.flags & MREMAP_MAYMOVE:
        raise LinuxError(EINVAL, "a new address needs MREMAP_MAYMOVE")
    if request.flags & MREMAP_DONTUNMAP and request.old_length != request.new_length:
        raise LinuxError(EINVAL, "MREMAP_DONTUNMAP does not resize")
    if request.address + request.old_length > new and new + request.new_length > request.address:
        raise LinuxError(EINVAL, "the old and the new range overlap")


def _check_vma(space: AddressSpace, request: _Request, vma: Vma | None) -> None:
    """Kernel: check_prep_vma."""
    if vma is None:
        raise LinuxError(EFAULT, f"nothing is mapped at {request.address:#x}")
    check_not_sealed(vma)
    old, new = request.old_length, request.new_length
    if new <= old and not request.places:
        return
    if not old and not vma.flags & (SHARED | MAYSHARE):
        raise LinuxError(EINVAL, "a private mapping cannot be duplicated")
    if request.flags & MREMAP_DONTUNMAP and vma.flags & (DONTEXPAND | PFNMAP):
        raise LinuxError(EINVAL, "a special mapping cannot be left behind")
    if min(old, new) > vma.end - request.address:
        raise LinuxError(EFAULT, "the old range reaches past its mapping")
    if new <= old:
        return
    if vma.flags & (DONTEXPAND | PFNMAP):
        raise LinuxError(EFAULT, "a special mapping cannot grow")
    if vma.flags & LOCKED:
        check_lock_limit(space, new - old, EAGAIN)
    space.usage.check_growth(vma.flags, (new - old) >> PAGE_SHIFT, space.limits)


def _expand(space: AddressSpace, request: _Request, vma: Vma) -> int:
    """Grow in place if the range above is free, else move (kernel: expand_vma)."""
    delta = request.new_length - request.old_length
    if vma.end - request.address == request.old_length and _is_room_above(space, vma, delta):
        if vma.flags & ACCOUNT:
            space.charge(delta >> PAGE_SHIFT)
        flags, start = vma.flags, vma.end
        grown = Proposal(start, start + delta, flags, vma.offset + start - vma.start, like=vma)
        merged = merge_new(space, grown, space.vmas.room(grown.start, grown.end))
        if merged is None:
            raise LinuxError(ENOMEM, "the mapping cannot grow")
        space.usage.add(flags, delta >> PAGE_SHIFT)
        space.emit("map", merged, start, start + delta)
        return request.address
    if not request.flags & MREMAP_MAYMOVE:
        raise LinuxError(ENOMEM, "no room to grow in place, and MREMAP_MAYMOVE is not set")
    request.new_address = _find_place(space, request, vma)
    return _move(space, request, vma)


def _is_room_above(space: AddressSpace, vma: Vma, delta: int) -> bool:
    """Kernel: vma_expandable."""
    if space.vmas.overlaps(vma.end, vma.end + delta):
        return False
    try:
        unmapped_area(space, vma.start, vma.end + delta - vma.start, MAP_FIXED)
    except LinuxError:
        return False
    return True


def _move_range(space: AddressSpace, request: _Request) -> int:
    """A move without a change of size: every VMA of the range goes, gaps and all (kernel: remap_move)."""
    start, end = request.address, request.address + request.old_length
    target, result = request.new_address, -1
    last_end = position = start
    while position < end:
        vma = space.vmas.find_after(position)
        if vma is None or vma.start >= end:
            break
        if result < 0 and vma.start > start:
            break
        address = max(vma.start, start)
        target += vma.start - last_end if result >= 0 else 0
        last_end = position = vma.end
        length = min(end, vma.end) - address
        part = _Request(address, length, length, request.flags, target)
        _check_vma(space, part, vma)
        moved = _move_to(space, part)
        if result < 0:
            result = moved
        target = moved + length
    if result < 0:
        raise LinuxError(EFAULT, f"nothing is mapped at {start:#x}")
    return result


def _move_to(space: AddressSpace, request: _Request) -> int:
    """Move to a chosen place, clearing it first (kernel: mremap_to)."""
    if request.flags & MREMAP_FIXED:
        unmap_range(space, request.new_address, request.new_address + request.new_length)
    if request.new_length < request.old_length:
        unmap_range(space, request.address + request.new_length, request.address + request.old_length)
        request.old_length = request.new_length
    vma = space.vmas.find(request.address)
    if vma is None:
        raise LinuxError(EFAULT, f"nothing is mapped at {request.address:#x}")
    if request.flags & MREMAP_DONTUNMAP:
        space.usage.check_growth(vma.flags, request.old_length >> PAGE_SHIFT, space.limits)
    request.new_address = _find_place(space, request, vma)
    return _move(space, request, vma)


def _find_place(space: AddressSpace, request: _Request, vma: Vma) -> int:
    """Kernel: vrm_set_new_addr."""
    flags = (MAP_FIXED if request.flags & MREMAP_FIXED else 0) | (MAP_SHARED if vma.flags & MAYSHARE else 0)
    hint = request.new_address if request.places else 0
    offset = vma.offset + request.address - vma.start
    return unmapped_area(space, hint, request.new_length, flags, vma.backing, offset)


def _move(space: AddressSpace, request: _Request, vma: Vma) -> int:
    """Copy the VMA, move its page-table entries, and take the old range away (kernel: move_vma)."""
    check_map_count(space, 2)
    stays = request.flags & MREMAP_DONTUNMAP
    new_pages, old_pages = request.new_length >> PAGE_SHIFT, request.old_length >> PAGE_SHIFT
    if vma.flags & ACCOUNT:
        # Unmapping the old range takes its promise back; what is promised here is the whole new range.
        space.charge(new_pages if stays else new_pages - old_pages)
        if not stays:
            space.limits.commitment.promised += old_pages
    start, end = request.address, request.address + request.old_length
    new = _copy_vma(space, vma, request)
    move_entries(space, start, end, request.new_address - start)
    space.usage.add(new.flags, new_pages)
    space.emit("map", new, request.new_address, request.new_address + request.new_length)
    if not stays:
        if end > start:
            unmap_range(space, start, end)
        return request.new_address
    space.vmas.own()
    old = space.vmas.find(start)
    if old is not None:
        if old.flags & LOCKED:
            space.usage.locked -= pages_of(old)
        old.flags &= ~(LOCKED | LOCKONFAULT)  # of all of it, even if only a part has moved
        if old is not new and old.start == start and old.end == end:
            old.anon_vma = None  # all its anonymous pages have left
    return request.new_address


def _copy_vma(space: AddressSpace, vma: Vma, request: _Request) -> Vma:
    """The VMA at the new place, merged with a neighbour there if it can be (kernel: copy_vma)."""
    start, end = request.new_address, request.new_address + request.new_length
    offset = vma.offset + request.address - vma.start
    if vma.backing is None and vma.anon_vma is None:
        offset = start  # no page remembers the old place, so the new one can be merged with its neighbours
    proposal = Proposal(start, end, vma.flags & ~UFFD_MISSING, offset, like=vma)
    proposal.userfault = None
    merged = merge_new(space, proposal, space.vmas.room(proposal.start, proposal.end))
    if merged:
        return merged
    copy = vma.copy(start, end, offset)
    copy.forget_userfault()
    space.vmas.insert(copy)
    return copy


def move_entries(space: AddressSpace, start: int, end: int, distance: int) -> None:
    """Take the entries of [start, end) to `distance` bytes from where they are (kernel: move_page_tables)."""
    guard.move(space, start, end, distance)
    words = space.memory.words
    table = space.page_table
    moved = list(table.entries(start, end))
    for address, slot, entry in moved:
        target = table.slot(address + distance)  # may raise, with nothing lost
        words[slot] = 0
        words[target] = entry
    if moved:
        frames = [(entry & FRAME_MASK) >> 12 for _, _, entry in moved]
        space.shootdown.changed(table.root, start, end, frames)
