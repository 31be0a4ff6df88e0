"""madvise (mm/madvise.c)."""

from __future__ import annotations

from errno import EACCES, EAGAIN, EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory import guard
from loadstone.memory.flags import (
    DROPPABLE,
    MADV_COLD,
    MADV_COLLAPSE,
    MADV_DODUMP,
    MADV_DOFORK,
    MADV_DONTDUMP,
    MADV_DONTFORK,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MADV_GUARD_INSTALL,
    MADV_GUARD_REMOVE,
    MADV_HUGEPAGE,
    MADV_KEEPONFORK,
    MADV_MERGEABLE,
    MADV_NOHUGEPAGE,
    MADV_NORMAL,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_RANDOM,
    MADV_REMOVE,
    MADV_SEQUENTIAL,
    MADV_UNMERGEABLE,
    MADV_WILLNEED,
    MADV_WIPEONFORK,
    MERGEABLE,
    PFNMAP,
    RAND_READ,
    SEQ_READ,
)
from loadstone.memory.mapping import end_of_pages
from loadstone.memory.merge import SPECIAL, modify
from loadstone.memory.shared import SharedMemory
from loadstone.memory.vma import (
    DONTCOPY,
    DONTDUMP,
    EXEC,
    HUGEPAGE,
    HUGETLB,
    IO,
    LOCKED,
    MAYSHARE,
    MAYWRITE,
    NOHUGEPAGE,
    PAGE,
    PAGE_SHIFT,
    READ,
    SHARED,
    WIPEONFORK,
    WRITE,
    Vma,
    check_not_sealed,
)
from loadstone.memory.zap import zap

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

# Advice that is only a change of flags: the ones to clear, then the ones to set.
_FLAG_CHANGES = {
    MADV_NORMAL: (RAND_READ | SEQ_READ, 0),
    MADV_SEQUENTIAL: (RAND_READ, SEQ_READ),
    MADV_RANDOM: (SEQ_READ, RAND_READ),
    MADV_DONTFORK: (0, DONTCOPY),
    MADV_DOFORK: (DONTCOPY, 0),
    MADV_WIPEONFORK: (0, WIPEONFORK),
    MADV_KEEPONFORK: (WIPEONFORK, 0),
    MADV_DONTDUMP: (0, DONTDUMP),
    MADV_DODUMP: (DONTDUMP, 0),
    MADV_MERGEABLE: (0, MERGEABLE),
    MADV_UNMERGEABLE: (MERGEABLE, 0),
    MADV_HUGEPAGE: (NOHUGEPAGE, HUGEPAGE),
    MADV_NOHUGEPAGE: (HUGEPAGE, NOHUGEPAGE),
}
_NOT_MERGED_BY_KSM = SHARED | MAYSHARE | HUGETLB | DROPPABLE | SPECIAL  # kernel: vma_ksm_compatible
# What loses contents, for this process or a child: not of sealed memory that cannot be written (can_madvise_modify).
_DISCARDS = (
    MADV_FREE, MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_REMOVE, MADV_DONTFORK, MADV_WIPEONFORK, MADV_GUARD_INSTALL,
)  # fmt: skip
_KNOWN = {
    *_FLAG_CHANGES,
    MADV_WILLNEED,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MADV_REMOVE,
    MADV_COLD,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_COLLAPSE,
    MADV_GUARD_INSTALL,
    MADV_GUARD_REMOVE,
}


def advise(space: AddressSpace, start: int, length: int, advice: int) -> None:
    """Follow `advice` for the range; holes are skipped and reported at the end as ENOMEM (kernel: do_madvise).

    Huge pages, same-page merging and reclaim are not modelled: their advice changes flags or nothing. The pages of
    MADV_FREE stay too: the kernel takes them under memory pressure only.
    Raises EINVAL for advice that is unknown or does not fit the mapping.
    """
    if advice not in _KNOWN:
        raise LinuxError(EINVAL, f"no such advice: {advice}")
    end = end_of_pages(start, length)
    if advice in (MADV_POPULATE_READ, MADV_POPULATE_WRITE):
        _populate(space, start, end, WRITE if advice == MADV_POPULATE_WRITE else READ)
        return
    mapped = 0
    for vma, first, last in space.vmas.parts(start, end):
        _advise_vma(space, vma, first, last, advice)
        mapped += last - first
    if mapped < end - start:
        raise LinuxError(ENOMEM, "part of the range is not mapped")


def _advise_vma(space: AddressSpace, vma: Vma, start: int, end: int, advice: int) -> None:
    """Follow the advice for [start, end), in `vma` (kernel: madvise_vma_behavior)."""
    if advice in _DISCARDS and vma.backing is None and not vma.flags & (WRITE | SHARED):
        check_not_sealed(vma)
    if advice in _FLAG_CHANGES:
        _change_flags(space, vma, start, end, advice)
    elif advice in (MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE):
        if vma.flags & (PFNMAP | (0 if advice == MADV_DONTNEED_LOCKED else LOCKED)):
            raise LinuxError(EINVAL, "the pages of a special or locked mapping stay")
        if advice == MADV_FREE and vma.backing is not None:
            raise LinuxError(EINVAL, "MADV_FREE is for private anonymous memory")
        if advice != MADV_FREE:
            zap(space, vma, start, end)
    elif advice == MADV_REMOVE:
        _remove(space, vma, start, end)
    elif advice in (MADV_COLD, MADV_PAGEOUT) and vma.flags & (LOCKED | PFNMAP | HUGETLB):
        raise LinuxError(EINVAL, "the pages of a special or locked mapping stay")
    elif advice == MADV_GUARD_INSTALL:
        guard.install(space, vma, start, end)
    elif advice == MADV_GUARD_REMOVE:
        guard.remove(space, vma, start, end)
    elif advice == MADV_COLLAPSE:
        raise LinuxError(EINVAL, "there are no huge pages to collapse into")


def _change_flags(space: AddressSpace, vma: Vma, start: int, end: int, advice: int) -> None:
    flags = vma.flags
    if (
        (advice == MADV_DOFORK and flags & IO)
        or (advice == MADV_WIPEONFORK and (vma.backing is not None or flags & SHARED))
        or (advice == MADV_KEEPONFORK and flags & DROPPABLE)
        or (advice == MADV_DODUMP and flags & (SPECIAL | DROPPABLE))
    ):
        raise LinuxError(EINVAL, "the advice does not fit the mapping")
    if advice == MADV_MERGEABLE and flags & _NOT_MERGED_BY_KSM:
        return
    clear, add = _FLAG_CHANGES[advice]
    wanted = flags & ~clear | add
    if wanted == flags:
        return
    try:
        modify(space, vma, start, end, wanted)
    except LinuxError as error:
        raise LinuxError(EAGAIN, error.why) from None


def _remove(space: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """MADV_REMOVE: a hole in the file behind a shared mapping; its pages read as zeros again (madvise_remove)."""
    if vma.flags & LOCKED or vma.backing is None:
        raise LinuxError(EINVAL, "MADV_REMOVE is for unlocked mappings of a file")
    if vma.flags & (SHARED | MAYWRITE) != SHARED | MAYWRITE:
        raise LinuxError(EACCES, "MADV_REMOVE needs a shared mapping that may be written")
    if not isinstance(vma.backing, SharedMemory):
        raise LinuxError(EINVAL, "holes in files of a file system are not supported")
    first = (vma.offset + start - vma.start) >> PAGE_SHIFT
    last = (vma.offset + end - vma.start) >> PAGE_SHIFT
    space.cache.punch(vma.backing, first, last)


def _populate(space: AddressSpace, start: int, end: int, access: int) -> None:
    """MADV_POPULATE_*: fault the range in and say why if that fails (kernel: madvise_populate)."""
    from loadstone.memory.fault import populate_page

    for vma, first, last in space.vmas.gapless(start, end):
        allowed = vma.flags & WRITE if access == WRITE else vma.flags & (READ | EXEC)
        if not allowed or vma.flags & (IO | PFNMAP):
            raise LinuxError(EINVAL, f"the mapping at {vma.start:#x} does not allow the access")
        for address in range(first, last, PAGE):
            if populate_page(space, address, access) is not None:
                raise LinuxError(EFAULT, f"the page at {address:#x} cannot be had")
