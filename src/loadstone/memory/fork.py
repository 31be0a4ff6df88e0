"""The copy of an address space that fork makes (kernel/fork.c: dup_mmap; mm/memory.c: copy_page_range).

Where nobody looks at faults (see memory.fill_ahead), fork also does what faults of both sides would do at once:

- The child of a small process gets copies of its page tables, pages of files included, of which a fault would bring
  back those of one table; unless there is a mapping whose pages are not for the child.
- What a process wrote since it forked last, it and its child will write again: the child gets copies of those pages,
  and the parent's stay writable. The dirty bits tell: fork takes the right to write from every other page.
- The child also gets copies of pages that only an earlier child wrote: between fork and exec all do the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.entry_loops import part, share
from loadstone.machine.paging import COUNTED, FRAME_MASK, WRITABLE, frames_of
from loadstone.machine.physical import FRAME_SHIFT
from loadstone.memory.accounting import pages_of
from loadstone.memory.entries import anonymous_entry
from loadstone.memory.flags import MIXEDMAP, PFNMAP
from loadstone.memory.guard import guarded
from loadstone.memory.vma import (
    DONTCOPY,
    LOCKED,
    LOCKONFAULT,
    SHARED,
    UFFD_MISSING,
    WIPEONFORK,
    WRITE,
    ForkedAnonVma,
    Vma,
)

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

_MOST_COPIED = 64  # pages that one fork copies
_MOST_GIVEN = 8192  # pages of a process whose page tables are given as they are: 32 MiB
_APART = DONTCOPY | WIPEONFORK | SHARED  # mappings whose entries a child does not get, or gets as they are
_NOT_INHERITED = LOCKED | LOCKONFAULT | UFFD_MISSING


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
        _copy_vmas(parent, child)
        _copy_pages(parent, child)
    except BaseException:
        child.release()
        raise
    return child


def _copy_vmas(parent: AddressSpace, child: AddressSpace) -> None:
    limits, mapped = parent.limits, parent.usage.total
    summary = parent.vmas.summary()
    if not summary.flags & (_NOT_INHERITED | DONTCOPY | WIPEONFORK):
        limits.commitment.charge(summary.promised, mapped, limits.privileged, summary.largest)
        child.vmas = parent.vmas.share()
        child.usage = parent.usage.copy()
        return
    vmas = [_copy_vma(vma) for vma in parent.vmas if not vma.flags & DONTCOPY]
    if not vmas:
        return
    child.vmas.insert_all(vmas)
    summary = child.vmas.summary()
    try:
        limits.commitment.charge(summary.promised, mapped, limits.privileged, summary.largest)
    except LinuxError:
        child.vmas.clear()  # nothing was promised that could be taken back
        raise
    for vma in vmas:
        child.usage.add(vma.flags, pages_of(vma))


def _copy_vma(vma: Vma) -> Vma:
    copy = vma.copy(vma.start, vma.end, vma.offset)
    if copy.flags & _NOT_INHERITED:
        copy.flags &= ~_NOT_INHERITED
        copy.userfault = None
    if vma.anon_vma is not None:
        copy.anon_vma = None if vma.flags & WIPEONFORK else ForkedAnonVma()
    return copy


def _copy_pages(parent: AddressSpace, child: AddressSpace) -> None:
    ahead = parent.fill_ahead
    favour = ahead is not None and ahead.unseen(parent) and ahead.has_room(_MOST_COPIED) and not parent.guards
    copies = _MOST_COPIED if favour and parent.children_wrote is not None else 0
    if favour and parent.resident_pages <= _MOST_GIVEN and not parent.vmas.summary().flags & _APART:
        _share(parent, child, 0, parent.layout.task_size, copies)
    else:
        for vma in parent.vmas:
            if vma.flags & (DONTCOPY | WIPEONFORK) or (vma.anon_vma is None and not vma.flags & (PFNMAP | MIXEDMAP)):
                continue
            child.guards.update(guarded(parent, vma.start, vma.end))
            copies -= _share(parent, child, vma.start, vma.end, copies)
    if favour:
        _copy_noted(parent, child)


def _copy_noted(parent: AddressSpace, child: AddressSpace) -> None:
    """Give the child copies of what earlier children wrote to, and have it note what it writes to itself."""
    if parent.children_wrote is None:
        parent.children_wrote = set()
    child.note = parent.children_wrote
    memory = child.memory
    found: list[tuple[int, Vma, int]] = []
    for page in child.note:
        vma, slot = child.find(page), child.page_table.find(page)
        if vma is None or slot < 0 or vma.flags & (WRITE | SHARED) != WRITE:
            continue
        entry = memory.words[slot]
        if entry & (COUNTED | WRITABLE) == COUNTED:
            found.append((slot, vma, (entry & FRAME_MASK) >> FRAME_SHIFT))
    frames = [frame for _, _, frame in found]
    for (slot, vma, _), copy in zip(found, memory.duplicate(frames), strict=True):
        memory.words[slot] = anonymous_entry(vma, copy)
    memory.release_all(frames)


def _share(parent: AddressSpace, child: AddressSpace, start: int, end: int, copies: int) -> int:
    """Give the child the parent's entries of private mappings; neither may write any more (copy_present_ptes).

    The child's are not marked as accessed. Of the parent's, a CPU remembers those as writable that it marked as dirty.
    As a favour up to `copies` pages are copied instead, and the parent's stay writable; how many were.
    """
    memory, table = parent.memory, parent.page_table
    slots: list[int] = []  # of entries that could be written and were: the parent's, the child's
    targets: list[int] = []
    for address, slot, count in table.spans(start, end):
        if memory.holds_zeros(slot, count):
            continue
        target = child.page_table.slot(address)
        numbers, resident = share(memory, slot, target, count)
        child.resident_pages += resident
        slots += [slot + number for number in numbers]
        targets += [target + number for number in numbers]
    if copies and slots:
        part(memory, slots[:copies], targets[:copies])
    if len(slots) > copies:
        changed = frames_of([memory.words[slot] for slot in slots[copies:]])
        parent.shootdown.changed(table.root, start, end, changed)
    return min(copies, len(slots))
