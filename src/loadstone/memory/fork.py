"""The copy of an address space that fork makes (kernel/fork.c: dup_mmap; mm/memory.c: copy_page_range)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.machine.paging import FRAME_MASK, WRITABLE
from loadstone.memory.accounting import pages_of
from loadstone.memory.flags import MIXEDMAP, PFNMAP
from loadstone.memory.guard import guarded
from loadstone.memory.merge import ForkedAnonVma
from loadstone.memory.vma import ACCOUNT, DONTCOPY, LOCKED, LOCKONFAULT, SHARED, WIPEONFORK, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace


def clone(parent: AddressSpace) -> AddressSpace:
    """A new space with the parent's mappings. Private pages are shared until one side writes; what a file can give
    again is left to faults. Raises LinuxError(ENOMEM) when overcommit refuses, with nothing left behind.
    """
    child = type(parent)(
        parent.memory, parent.cache, parent.shootdown, parent.layout, parent.limits, parent.events,
        fault_around=parent.fault_around, fill_ahead=parent.fill_ahead,
    )  # fmt: skip
    child.read_implies_exec = parent.read_implies_exec
    child.start_brk, child.brk, child.start_stack = parent.start_brk, parent.brk, parent.start_stack
    child.start_code, child.end_code = parent.start_code, parent.end_code
    child.start_data, child.end_data = parent.start_data, parent.end_data
    child.owner_ids = parent.owner_ids
    if parent.executable is not None:
        child.execute(parent.executable)
    try:
        for vma in list(parent.vmas):
            if not vma.flags & DONTCOPY:
                _copy_vma(parent, child, vma)
    except BaseException:
        child.release()
        raise
    return child


def _copy_vma(parent: AddressSpace, child: AddressSpace, vma: Vma) -> None:
    pages = pages_of(vma)
    if vma.flags & ACCOUNT:
        child.charge(pages)
    copy = vma.copy(vma.start, vma.end, vma.offset)
    copy.flags &= ~(LOCKED | LOCKONFAULT)
    wiped = vma.flags & WIPEONFORK
    copy.anon_vma = ForkedAnonVma() if vma.anon_vma is not None and not wiped else None
    child.vmas.insert(copy)
    child.usage.add(copy.flags, pages)
    if not wiped and (vma.anon_vma is not None or vma.flags & (PFNMAP | MIXEDMAP)):
        _share_pages(parent, child, vma)


def _share_pages(parent: AddressSpace, child: AddressSpace, vma: Vma) -> None:
    """Give the child the parent's entries; in private mappings neither may write any more."""
    memory = parent.memory
    words = memory.words
    narrowed = False
    child.guards.update(guarded(parent, vma.start, vma.end))
    for address, slot, entry in parent.page_table.entries(vma.start, vma.end):
        if entry & WRITABLE and not vma.flags & SHARED:
            entry &= ~WRITABLE
            words[slot] = entry
            narrowed = True
        target = child.page_table.slot(address)
        frame = (entry & FRAME_MASK) >> 12
        memory.hold(frame)
        words[target] = entry
        child.resident_pages += frame != memory.zero_frame
    if narrowed:
        parent.shootdown.changed(parent.page_table.root, vma.start, vma.end)
