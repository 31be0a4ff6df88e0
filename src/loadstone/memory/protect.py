"""mprotect (mm/mprotect.c): other permissions for a range, in the VMAs and in the entries of pages that are there."""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.paging import ACCESSED, COUNTED, DIRTY, FRAME_MASK, ZERO_PAGE, frames_of, permissions
from loadstone.memory.accounting import is_accountable
from loadstone.memory.flags import PROT_EXEC, PROT_GROWSDOWN, PROT_GROWSUP, PROT_READ, PROT_SEM, PROT_WRITE
from loadstone.memory.lock import populate_vma
from loadstone.memory.mapping import page_align
from loadstone.memory.merge import modify
from loadstone.memory.vma import (
    ACCOUNT,
    GROWSDOWN,
    HUGETLB,
    LOCKED,
    MAYEXEC,
    NORESERVE,
    PAGE,
    PAGE_SHIFT,
    PROTECTION,
    SHARED,
    WRITE,
    Vma,
    check_not_sealed,
)

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

# Of an entry, whatever the permissions (kernel: _PAGE_CHG_MASK).
_KEPT = FRAME_MASK | COUNTED | ZERO_PAGE | ACCESSED | DIRTY


def protect(space: AddressSpace, start: int, length: int, prot: int) -> None:
    """Give the range the protection `prot` (kernel: do_mprotect_pkey).

    Raises EINVAL, ENOMEM (a hole; what lies before it has changed), EACCES (the mapping may never allow it).
    """
    grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
    prot &= ~grows
    if grows == PROT_GROWSDOWN | PROT_GROWSUP:
        raise LinuxError(EINVAL, "PROT_GROWSDOWN and PROT_GROWSUP exclude each other")
    if start & (PAGE - 1):
        raise LinuxError(EINVAL, f"{start:#x} is not page-aligned")
    if not length:
        return
    end = start + page_align(length)
    if not start < end < 1 << 64:
        raise LinuxError(ENOMEM, "the range wraps around")
    if prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM):
        raise LinuxError(EINVAL, f"no such protection: {prot:#x}")
    vma = space.vmas.find_after(start)
    if vma is None or vma.start >= end:
        raise LinuxError(ENOMEM, f"nothing is mapped at {start:#x}")
    if grows & PROT_GROWSDOWN:
        start = vma.start
        if not vma.flags & GROWSDOWN:
            raise LinuxError(EINVAL, "PROT_GROWSDOWN of a mapping that does not grow down")
    elif vma.start <= start and grows:
        raise LinuxError(EINVAL, "PROT_GROWSUP of a mapping that does not grow up")
    while start < end:
        vma = space.vmas.find(start)
        if vma is None:
            raise LinuxError(ENOMEM, f"nothing is mapped at {start:#x}")
        wanted = prot
        if space.read_implies_exec and prot & PROT_READ and vma.flags & MAYEXEC:
            wanted |= PROT_EXEC
        flags = vma.flags & ~PROTECTION | wanted & PROTECTION
        if flags & ~(flags >> 4) & PROTECTION:
            raise LinuxError(EACCES, f"the mapping at {vma.start:#x} may not have this protection")
        start = protect_vma(space, vma, start, min(end, vma.end), flags).end


def protect_vma(space: AddressSpace, vma: Vma, start: int, end: int, flags: int) -> Vma:
    """Give [start, end), in `vma`, other flags; the VMA that has it now (kernel: mprotect_fixup)."""
    before = vma.flags
    check_not_sealed(vma)
    if flags == before:
        return vma
    pages = (end - start) >> PAGE_SHIFT
    limits = space.limits
    charged = 0
    if flags & WRITE:
        if space.usage.may_grow(before, pages, limits):
            space.usage.check_growth(flags, pages, limits)
        if not before & (ACCOUNT | WRITE | HUGETLB | SHARED | NORESERVE) and is_accountable(flags):
            charged = pages
            space.charge(charged)
            flags |= ACCOUNT
    elif before & ACCOUNT and vma.backing is None and vma.anon_vma is None:
        flags &= ~ACCOUNT
    try:
        vma = modify(space, vma, start, end, flags)
    except LinuxError:
        limits.commitment.uncharge(charged)
        raise
    _change_entries(space, vma, start, end)
    if before & ACCOUNT and not flags & ACCOUNT:
        limits.commitment.uncharge(pages)
    if before & (WRITE | SHARED | LOCKED) == LOCKED and flags & WRITE:
        populate_vma(space, vma, start, end)  # copied now, so that a write costs no major fault later
    space.usage.add(before, -pages)
    space.usage.add(flags, pages)
    space.emit("protect", vma, start, end)
    return vma


def page_bits(vma: Vma) -> int:
    """The PTE bits of a page of `vma` before anything is known of it (kernel: vm_page_prot).

    Writable only in a shared mapping that no file system needs to be told of: a private page may have to be copied.
    """
    flags = vma.flags
    if flags & (SHARED | WRITE) == SHARED | WRITE and not wants_write_fault(vma):
        return permissions(flags & PROTECTION)
    if flags & PROTECTION == WRITE:
        return permissions(PROT_READ)
    return permissions(flags & PROTECTION & ~WRITE)


def wants_write_fault(vma: Vma) -> bool:
    """Whether the first write to a page of a shared mapping has to fault (kernel: vma_wants_writenotify)."""
    return vma.flags & (SHARED | WRITE) == SHARED | WRITE and vma.backing is not None and vma.backing.writeback


def _change_entries(space: AddressSpace, vma: Vma, start: int, end: int) -> None:
    """Kernel: change_protection with can_change_pte_writable.

    A page that is the process's own, or that was written through this very mapping, becomes writable at once.
    """
    memory = space.memory
    words = memory.words
    bits = page_bits(vma)
    writable = permissions(vma.flags & PROTECTION)
    changed: list[int] = []
    for _, slot, entry in space.page_table.entries(start, end):
        new = entry & _KEPT | bits
        if vma.flags & WRITE:
            if vma.flags & SHARED:
                free = entry & DIRTY != 0
            else:
                free = memory.is_exclusive((entry & FRAME_MASK) >> 12)
            if free:
                new = entry & _KEPT | writable
        if new != entry:
            words[slot] = new
            changed.append(entry)
    if changed:
        space.shootdown.changed(space.page_table.root, start, end, frames_of(changed))
