"""The copy of an address space that fork makes (kernel/fork.c: dup_mmap; mm/memory.c: copy_page_range)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.machine.paging import ACCESSED, DIRTY, FRAME_MASK, WRITABLE
from loadstone.machine.physical import FRAME_SHIFT
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
    """Give the child the parent's entries; in private mappings neither may write any more (copy_present_ptes).

    The child's are not marked as accessed. Of the parent's, a CPU remembers those as writable that it marked as dirty.
    """
    memory = parent.memory
    words, hold = memory.words, memory.hold
    kept = ~ACCESSED if vma.flags & SHARED else ~(ACCESSED | WRITABLE)
    written, shared, zeros = [], 0, memory.zero_frame
    child.guards.update(guarded(parent, vma.start, vma.end))
    for address, slot, entries in parent.page_table.runs(vma.start, vma.end):
        if not any(entries):
            continue
        target = child.page_table.slot(address)
        for index, entry in enumerate(entries):
            if not entry:
                continue
            frame = (entry & FRAME_MASK) >> FRAME_SHIFT
            hold(frame)
            words[target + index] = entry & kept
            shared += frame != zeros
            if entry & WRITABLE & ~kept:
                words[slot + index] = entry & ~WRITABLE
                if entry & DIRTY:
                    written.append(frame)
    child.resident_pages += shared
    if written:
        parent.shootdown.changed(parent.page_table.root, vma.start, vma.end, written)
