"""The copy of an address space that fork makes (kernel/fork.c: dup_mmap; mm/memory.c: copy_page_range).

Where nobody looks at faults (see memory.fill_ahead), fork also does what faults of both sides would do at once:

- The child of a small process gets copies of its page tables, pages of files included, of which a fault would bring
  back those of one table; unless there is a mapping whose pages are not for the child.
- What a process wrote since it forked last, it and its child will write again: the child gets copies of those pages,
  and the parent's stay writable. The dirty bits tell: fork takes the right to write from every other page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.machine.paging import ACCESSED, DIRTY, FRAME_MASK, WRITABLE
from loadstone.machine.physical import ANONYMOUS, FRAME_SHIFT
from loadstone.memory.accounting import pages_of
from loadstone.memory.flags import MIXEDMAP, PFNMAP
from loadstone.memory.guard import guarded
from loadstone.memory.merge import ForkedAnonVma
from loadstone.memory.vma import ACCOUNT, DONTCOPY, LOCKED, LOCKONFAULT, SHARED, WIPEONFORK, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

_MOST_COPIED = 64  # pages that one fork copies
_MOST_GIVEN = 8192  # pages of a process whose page tables are given as they are: 32 MiB
_WRITTEN = WRITABLE | DIRTY
_APART = DONTCOPY | WIPEONFORK | SHARED  # mappings whose entries a child does not get, or gets as they are


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
    ahead = parent.fill_ahead
    favour = ahead is not None and ahead.unseen(parent) and ahead.has_room(_MOST_COPIED) and not parent.guards
    copies = _MOST_COPIED if favour and parent.has_forked else 0
    vmas = list(parent.vmas)
    whole = favour and parent.resident_pages <= _MOST_GIVEN and not any(vma.flags & _APART for vma in vmas)
    try:
        if whole:
            _give_tables(parent, child)
        for vma in vmas:
            if vma.flags & DONTCOPY:
                continue
            _copy_vma(child, vma)
            if vma.flags & WIPEONFORK:
                continue
            if vma.anon_vma is not None or (vma.flags & (PFNMAP | MIXEDMAP) and not whole):
                copies -= _share_pages(parent, child, vma, copies, given=whole)
    except BaseException:
        child.release()
        raise
    parent.has_forked = True
    return child


def _copy_vma(child: AddressSpace, vma: Vma) -> None:
    pages = pages_of(vma)
    if vma.flags & ACCOUNT:
        child.charge(pages)
    copy = vma.copy(vma.start, vma.end, vma.offset)
    copy.flags &= ~(LOCKED | LOCKONFAULT)
    copy.forget_userfault()
    copy.anon_vma = ForkedAnonVma() if vma.anon_vma is not None and not vma.flags & WIPEONFORK else None
    child.vmas.insert(copy)
    child.usage.add(copy.flags, pages)


def _give_tables(parent: AddressSpace, child: AddressSpace) -> None:
    """Give the child copies of the parent's page tables, with a reference to every frame in them."""
    memory = parent.memory
    words, zeros = memory.words, memory.zero_frame
    for address, slot, entries in parent.page_table.runs(0, parent.layout.task_size):
        frames = [(entry & FRAME_MASK) >> FRAME_SHIFT for entry in filter(None, entries)]
        if frames:
            target = child.page_table.slot(address)
            words[target : target + len(entries)] = words[slot : slot + len(entries)]
            memory.hold_all(frames)
            child.resident_pages += len(frames) - frames.count(zeros)


def _share_pages(parent: AddressSpace, child: AddressSpace, vma: Vma, copies: int, *, given: bool) -> int:
    """Give the child the parent's entries; in private mappings neither may write any more (copy_present_ptes).

    The child's are not marked as accessed. Of the parent's, a CPU remembers those as writable that it marked as dirty.
    As a favour up to `copies` pages are copied instead; how many were. `given`: `_give_tables` was here.
    """
    memory = parent.memory
    words, hold = memory.words, memory.hold
    kept = ~ACCESSED if vma.flags & SHARED else ~(ACCESSED | WRITABLE)
    written, shared, copied, zeros = [], 0, 0, memory.zero_frame
    child.guards.update(guarded(parent, vma.start, vma.end))
    for address, slot, entries in parent.page_table.runs(vma.start, vma.end):
        if not any(entries):
            continue
        target = child.page_table.slot(address)
        if copied < copies and not vma.flags & SHARED:
            copied += _copy_written(child, target, entries, copies - copied, given=given)
        for index, entry in enumerate(entries):
            if not entry:
                continue
            frame = (entry & FRAME_MASK) >> FRAME_SHIFT
            if not given:
                hold(frame)
                shared += frame != zeros
            words[target + index] = entry & kept
            if entry & WRITABLE & ~kept:
                words[slot + index] = entry & ~WRITABLE
                if entry & DIRTY:
                    written.append(frame)
    child.resident_pages += shared
    if written:
        parent.shootdown.changed(parent.page_table.root, vma.start, vma.end, written)
    return copied


def _copy_written(child: AddressSpace, target: int, entries: list[int], most: int, *, given: bool) -> int:
    """Give the child copies of pages that were written, `most` at most, in slots from `target` on; how many.

    They are taken out of `entries`, the parent's.
    """
    memory = child.memory
    written = [index for index, entry in enumerate(entries) if entry & _WRITTEN == _WRITTEN][:most]
    for index in written:
        entry, entries[index] = entries[index], 0
        frame = (entry & FRAME_MASK) >> FRAME_SHIFT
        copy = memory.allocate(ANONYMOUS)
        memory.copy(frame, copy)
        memory.words[target + index] = entry & ~(FRAME_MASK | ACCESSED) | copy << FRAME_SHIFT
        if given:
            memory.release(frame)
    child.resident_pages += 0 if given else len(written)
    return len(written)
