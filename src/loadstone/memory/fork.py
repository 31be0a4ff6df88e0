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
from loadstone.machine.columns import (
    FLAGS,
    MARK_COUNTED,
    TAGS,
    clearing,
    frames_of,
    marked,
    marking,
    positions,
    resident,
)
from loadstone.machine.paging import ACCESSED, COUNTED, DIRTY, FRAME_MASK, WRITABLE
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
    from loadstone.machine.physical import PhysicalMemory
    from loadstone.memory.address_space import AddressSpace

_MOST_COPIED = 64  # pages that one fork copies
_MOST_GIVEN = 8192  # pages of a process whose page tables are given as they are: 32 MiB
_APART = DONTCOPY | WIPEONFORK | SHARED  # mappings whose entries a child does not get, or gets as they are
_NOT_INHERITED = LOCKED | LOCKONFAULT | UFFD_MISSING
_MARK_WRITTEN = marking(WRITABLE | DIRTY)
_PROTECT, _AGE = clearing(WRITABLE), clearing(ACCESSED)


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
    for page in child.note:
        vma, slot = child.find(page), child.page_table.find(page)
        if vma is None or slot < 0 or vma.flags & (WRITE | SHARED) != WRITE:
            continue
        entry = memory.words[slot]
        if entry & (COUNTED | WRITABLE) == COUNTED:
            frame = (entry & FRAME_MASK) >> FRAME_SHIFT
            memory.words[slot] = anonymous_entry(vma, *memory.duplicate([frame]))
            memory.release(frame)


def _share(parent: AddressSpace, child: AddressSpace, start: int, end: int, copies: int) -> int:
    """Give the child the parent's entries of private mappings; neither may write any more (copy_present_ptes).

    The child's are not marked as accessed. Of the parent's, a CPU remembers those as writable that it marked as dirty.
    As a favour up to `copies` pages are copied instead, and the parent's stay writable; how many were.
    """
    memory = parent.memory
    written: list[int] = []
    left = copies
    for address, slot, count in parent.page_table.spans(start, end):
        flags = memory.column(slot, count, FLAGS)
        if flags.count(0) == count:
            continue
        target = child.page_table.slot(address)
        _share_run(child, slot, target, flags)
        marks = flags.translate(_MARK_WRITTEN)
        apart = positions(marks, left)
        if apart:
            left -= len(apart)
            marks = _copy_apart(memory, slot, target, marks, apart)
        written += frames_of(marked(memory, slot, marks))
    if written:
        parent.shootdown.changed(parent.page_table.root, start, end, written)
    return copies - left


def _share_run(child: AddressSpace, slot: int, target: int, flags: bytes) -> None:
    """Give the child the entries from `slot` on, which have these `flags`, in slots from `target` on."""
    memory, count = child.memory, len(flags)
    words, tags = memory.words, memory.column(slot, count, TAGS)
    memory.hold_all(frames_of(marked(memory, slot, tags.translate(MARK_COUNTED))))
    words[target : target + count] = words[slot : slot + count]
    protected = flags.translate(_PROTECT)
    memory.set_column(slot, FLAGS, protected)
    memory.set_column(target, FLAGS, protected.translate(_AGE))
    child.resident_pages += resident(flags, tags)


def _copy_apart(memory: PhysicalMemory, slot: int, target: int, marks: bytes, apart: list[int]) -> bytes:
    """Undo the sharing of those entries that are numbered in `apart`: both sides have a page of their own, and may
    write. Their `marks` are taken away.
    """
    words, left = memory.words, bytearray(marks)
    entries = [words[slot + index] | WRITABLE for index in apart]
    frames = frames_of(entries)
    for index, entry, copy in zip(apart, entries, memory.duplicate(frames), strict=True):
        words[slot + index] = entry
        words[target + index] = entry & ~(FRAME_MASK | ACCESSED) | copy << FRAME_SHIFT
        left[index] = 0
    memory.release_all(frames)
    return bytes(left)
