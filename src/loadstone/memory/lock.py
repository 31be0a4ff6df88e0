"""Filling ranges in advance (MAP_POPULATE, mlock) and the mlock family (mm/gup.c: __mm_populate; mm/mlock.c)."""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.flags import DROPPABLE, MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, RLIMIT_MEMLOCK
from loadstone.memory.merge import SPECIAL, modify
from loadstone.memory.vma import (
    EXEC,
    LOCKED,
    LOCKONFAULT,
    PAGE,
    PAGE_MASK,
    PAGE_SHIFT,
    PROTECTION,
    READ,
    SHARED,
    WRITE,
    Vma,
)

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

_LOCK_FLAGS = LOCKED | LOCKONFAULT


def populate(space: AddressSpace, start: int, end: int) -> None:
    """Bring in the pages of [start, end) as far as that goes; errors end it quietly (kernel: mm_populate)."""
    for vma in space.vmas.overlapping(start, end):
        if not vma.flags & SPECIAL:
            populate_vma(space, vma, max(start, vma.start), min(end, vma.end))


def populate_vma(space: AddressSpace, vma: Vma, start: int, end: int) -> bool:
    """Fault the range in, private writable memory for writing; False at the first page that cannot be had."""
    from loadstone.memory.fault import populate_page

    if vma.flags & LOCKONFAULT or not vma.flags & PROTECTION:
        return True
    if vma.flags & (WRITE | SHARED) == WRITE:
        access = WRITE
    else:
        access = READ if vma.flags & READ else EXEC if vma.flags & EXEC else WRITE
    return all(populate_page(space, address, access) is None for address in range(start, end, PAGE))


def may_lock(space: AddressSpace) -> bool:
    """Kernel: can_do_mlock."""
    return space.limits.privileged or space.limits.soft(RLIMIT_MEMLOCK) != 0


def check_lock_limit(space: AddressSpace, length: int, errno: int) -> None:
    """Raise `errno` when `length` more locked bytes are over RLIMIT_MEMLOCK (kernel: mlock_future_ok)."""
    limit = space.limits.soft(RLIMIT_MEMLOCK)
    if not space.limits.privileged and (length >> PAGE_SHIFT) + space.usage.locked > limit >> PAGE_SHIFT:
        raise LinuxError(errno, f"more than {limit} bytes would be locked (RLIMIT_MEMLOCK)")


def lock(space: AddressSpace, start: int, length: int, *, on_fault: bool = False) -> None:
    """mlock and mlock2: keep the pages of the range, and unless `on_fault`, bring them in."""
    if not may_lock(space):
        raise LinuxError(EPERM, "RLIMIT_MEMLOCK is 0")
    start, end = _whole_pages(start, length)
    already = sum(
        (min(end, vma.end) - max(start, vma.start)) for vma in space.vmas.overlapping(start, end) if vma.flags & LOCKED
    )
    check_lock_limit(space, end - start - already, ENOMEM)
    _apply(space, start, end, _LOCK_FLAGS if on_fault else LOCKED)
    for vma in space.vmas.overlapping(start, end):
        accessible = vma.flags & (READ | WRITE | EXEC)
        if not accessible or not populate_vma(space, vma, max(start, vma.start), min(end, vma.end)):
            raise LinuxError(ENOMEM, "a page of the range cannot be had")


def unlock(space: AddressSpace, start: int, length: int) -> None:
    """munlock."""
    _apply(space, *_whole_pages(start, length), 0)


def lock_all(space: AddressSpace, flags: int) -> None:
    """mlockall: what is mapped (MCL_CURRENT), what will be (MCL_FUTURE), only once touched (MCL_ONFAULT)."""
    if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        raise LinuxError(EINVAL, f"mlockall knows no such combination of flags ({flags:#x})")
    if not may_lock(space):
        raise LinuxError(EPERM, "RLIMIT_MEMLOCK is 0")
    if flags & MCL_CURRENT and not space.limits.privileged:
        limit = space.limits.soft(RLIMIT_MEMLOCK) >> PAGE_SHIFT
        if space.usage.total > limit:
            raise LinuxError(ENOMEM, f"the process maps {space.usage.total} pages, RLIMIT_MEMLOCK allows {limit}")
    lock_flags = _LOCK_FLAGS if flags & MCL_ONFAULT else LOCKED
    space.default_flags = space.default_flags & ~_LOCK_FLAGS | (lock_flags if flags & MCL_FUTURE else 0)
    if flags & MCL_CURRENT:
        _apply_to_all(space, lock_flags)
        populate(space, 0, space.layout.task_size)


def unlock_all(space: AddressSpace) -> None:
    """munlockall."""
    space.default_flags &= ~_LOCK_FLAGS
    _apply_to_all(space, 0)


def _whole_pages(start: int, length: int) -> tuple[int, int]:
    """The pages that [start, start + length) touches; EINVAL if they wrap around."""
    end = (start & PAGE_MASK) + (length + start % PAGE + PAGE - 1 & PAGE_MASK & (1 << 64) - 1)
    if end >= 1 << 64:
        raise LinuxError(EINVAL, "the range wraps around")
    return start & PAGE_MASK, end


def _apply(space: AddressSpace, start: int, end: int, lock_flags: int) -> None:
    """Set the lock flags of the range; ENOMEM at a hole (kernel: apply_vma_lock_flags)."""
    for vma, first, last in space.vmas.gapless(start, end):
        _fix(space, vma, first, last, lock_flags)


def _apply_to_all(space: AddressSpace, lock_flags: int) -> None:
    """The same for every VMA, holes or not (kernel: apply_mlockall_flags)."""
    for vma, first, last in space.vmas.parts(0, space.layout.task_size):
        _fix(space, vma, first, last, lock_flags)


def _fix(space: AddressSpace, vma: Vma, start: int, end: int, lock_flags: int) -> None:
    """Kernel: mlock_fixup. Special and droppable mappings are left as they are, without an error."""
    flags = vma.flags & ~_LOCK_FLAGS | lock_flags
    if flags == vma.flags or vma.flags & (SPECIAL | DROPPABLE):
        return
    before = vma.flags
    try:
        modify(space, vma, start, end, flags)
    except LinuxError as error:
        raise LinuxError(EAGAIN if error.errno == ENOMEM else error.errno, error.why) from None
    pages = (end - start) >> PAGE_SHIFT
    space.usage.locked += pages * (bool(flags & LOCKED) - bool(before & LOCKED))
