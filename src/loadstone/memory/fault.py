"""The page-fault path (arch/x86/mm/fault.c: do_user_addr_fault; mm/memory.c: handle_mm_fault).

A fault is: find the VMA; check what it allows; find the page, which is the zero frame, a page-cache frame, a copy of
one, or a new one; write the page-table entry. Faults that cannot be resolved come back as a value.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from loadstone.errors import OutOfFrames
from loadstone.events import Fault, publish
from loadstone.lean import NamedTuple
from loadstone.machine.paging import AHEAD, COUNTED, DIRTY, FRAME_MASK, PRESENT, PROTNONE, WRITABLE, ZERO_PAGE
from loadstone.machine.physical import ANONYMOUS, FRAME_SHIFT
from loadstone.memory.entries import anonymous_entry, file_entry, permitted, zero_entry
from loadstone.memory.merge import prepare_anon_vma
from loadstone.memory.neighbours import fill_block, fill_small, map_around, own_around
from loadstone.memory.vma import EXEC, GROWSDOWN, PAGE, PAGE_MASK, PAGE_SHIFT, PROTECTION, READ, SHARED, WRITE, Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.backing import Backing

USER, KERNEL = "user", "kernel"
SIGBUS, SIGSEGV = 7, 11
SEGV_MAPERR, SEGV_ACCERR, BUS_ADRERR = 1, 2, 2

_KEPT = FRAME_MASK | COUNTED | ZERO_PAGE | DIRTY  # of an entry, when what it permits is set anew
_MOST_NOTED = 16  # pages of its parent's that children wrote to
_ACCESS_NAMES = {READ: "read", WRITE: "write", EXEC: "execute"}
_SIGNAL_NAMES = {SIGBUS: "SIGBUS", SIGSEGV: "SIGSEGV"}


class BadAccess(NamedTuple):
    """A fault that ends in a signal: which, with which si_code, at which address, and why."""

    signal: int
    code: int
    address: int
    access: int  # READ, WRITE or EXEC
    why: str


class Missing(NamedTuple):
    """A page that a program itself brings: `file` is its userfaultfd, in which who touches the page waits."""

    address: int
    access: int
    file: Any


class PageWanted(Exception):  # noqa: N818 - not an error: the kernel's own access has to wait
    """The kernel, for a system call, touched a page that is `missing`. The call is made again when it is there."""

    def __init__(self, missing: Missing) -> None:
        super().__init__(missing)
        self.missing = missing


class _Resolved(NamedTuple):
    """How a fault was answered, for the event."""

    cause: str
    major: bool = False
    around: int = 0


_ANONYMOUS = _Resolved("anonymous")
_ZERO_PAGE = _Resolved("zero-page")
_COPIED = _Resolved("copy-on-write")
_SHARED = _Resolved("shared")
_PROTECTION = _Resolved("protection")


def resolve(space: AddressSpace, address: int, access: int, pc: int, mode: str = USER) -> BadAccess | Missing | None:
    """Answer one page fault: `access` (READ, WRITE or EXEC) to `address` by the instruction at `pc`.

    None: the entry is there and permits the access. Raises OutOfFrames, and in kernel mode PageWanted for Missing.
    """
    vma = space.vmas.find(address)
    cause = ""
    if vma is None:
        vma = _grow_stack(space, address)
        cause = "stack"
    if vma is None:
        return _refuse(
            space, BadAccess(SIGSEGV, SEGV_MAPERR, address, access, "nothing is mapped there"), None, pc, mode
        )
    if not _permits(space, vma, address, access):
        why = f"the mapping allows {vma.perms}"
        return _refuse(space, BadAccess(SIGSEGV, SEGV_ACCERR, address, access, why), vma, pc, mode)
    resolved = _handle(space, vma, address & PAGE_MASK, access)
    if isinstance(resolved, BadAccess):
        return _refuse(space, resolved._replace(address=address), vma, pc, mode)
    if isinstance(resolved, Missing):
        if not resolved.file.brings(by_user=mode == USER):
            why = "a page that userfaultfd has not brought"
            return _refuse(space, BadAccess(SIGBUS, BUS_ADRERR, address, access, why), vma, pc, mode)
        if mode == KERNEL:
            raise PageWanted(resolved)
        return resolved
    if resolved.major:
        space.major_faults += 1
    else:
        space.minor_faults += 1
    if space.events is not None and space.events.fault:
        _tell(space, vma, address, access, pc, mode, resolved._replace(cause=cause or resolved.cause))
    return None


def _permits(space: AddressSpace, vma: Vma, address: int, access: int) -> bool:
    """Kernel: access_error. A fetch from an absent page brings it in whatever the VMA says, and faults again."""
    if access == WRITE:
        return bool(vma.flags & WRITE)
    if access == EXEC and not vma.flags & EXEC and space.page_table.entry(address) & PRESENT:
        return False
    return bool(vma.flags & PROTECTION)


def populate_page(space: AddressSpace, address: int, access: int) -> BadAccess | None:
    """Bring a page in on the kernel's own behalf (get_user_pages): no fault is counted."""
    vma = space.vmas.find(address)
    if vma is None:
        return BadAccess(SIGSEGV, SEGV_MAPERR, address, access, "nothing is mapped there")
    entry = space.page_table.entry(address)
    if entry & PRESENT and (access != WRITE or entry & WRITABLE):
        return None
    resolved = _handle(space, vma, address & PAGE_MASK, access)
    if isinstance(resolved, Missing):
        return BadAccess(SIGBUS, BUS_ADRERR, address, access, "a page that userfaultfd is to bring")
    return resolved if isinstance(resolved, BadAccess) else None


def _grow_stack(space: AddressSpace, address: int) -> Vma | None:
    """The VMA above `address`, if it grows down and may grow that far (kernel: lock_mm_and_find_vma)."""
    above = space.vmas.find_after(address)
    if above is None or not above.flags & GROWSDOWN or not space.expand_stack(above, address):
        return None
    return above


def _handle(space: AddressSpace, vma: Vma, page: int, access: int) -> _Resolved | BadAccess | Missing:
    """Kernel: handle_pte_fault."""
    slot = space.page_table.slot(page)
    entry = space.memory.words[slot]
    if entry & (PRESENT | PROTNONE):
        if access == WRITE and not entry & WRITABLE:
            return _write_protected(space, vma, page, slot, entry)
        space.memory.words[slot] = entry & _KEPT | permitted(vma, bool(entry & WRITABLE))
        return _PROTECTION
    if page in space.guards:
        return BadAccess(SIGSEGV, SEGV_MAPERR, page, access, "a guard page (MADV_GUARD_INSTALL)")
    if vma.userfault is not None:
        return Missing(page, access, vma.userfault)
    if vma.backing is None:
        return _anonymous(space, vma, page, slot, access)
    return _file(space, vma, vma.backing, page, slot, access)


def _anonymous(space: AddressSpace, vma: Vma, page: int, slot: int, access: int) -> _Resolved:
    """Kernel: do_anonymous_page. Reads share the zero frame until the first write."""
    memory = space.memory
    ahead = space.fill_ahead
    early = AHEAD if access == READ and vma.flags & WRITE and ahead and ahead.will_be_written(space, page) else 0
    if access == WRITE or early:
        prepare_anon_vma(space, vma)
        pages = ahead.extent(space, vma, slot, page, WRITE) if ahead is not None else 1
        if pages > 1 and _fill(space, vma, slot, pages):
            return _ANONYMOUS._replace(around=pages - 1)
        _install(space, slot, anonymous_entry(vma, memory.allocate(ANONYMOUS)) | DIRTY | early)
        filled = fill_small(space, vma, page, slot) or fill_block(space, vma, page, slot, WRITE, bool(early))
        return _ANONYMOUS._replace(around=filled) if filled else _ANONYMOUS
    pages = ahead.extent(space, vma, slot, page, READ) if ahead is not None else 1
    entry = zero_entry(vma, memory.zero_frame)
    if pages == 1 or ahead is None:
        memory.words[slot] = entry
        fill_block(space, vma, page, slot, READ)
        return _ZERO_PAGE
    memory.words[slot : slot + pages] = memoryview(array("Q", (entry,)) * pages)
    ahead.count(memory, pages)
    return _ZERO_PAGE._replace(around=pages - 1)


def _fill(space: AddressSpace, vma: Vma, slot: int, pages: int) -> bool:
    """Give `pages` entries from `slot` on new frames, the first for a write; False, with nothing done, without them."""
    memory, ahead = space.memory, space.fill_ahead
    assert ahead is not None
    try:
        frames = memory.allocate_many(pages, ANONYMOUS)
    except OutOfFrames:
        return False
    bits = anonymous_entry(vma, 0) | DIRTY
    entries = array("Q", [frame << FRAME_SHIFT | bits | AHEAD for frame in frames])
    entries[0] &= ~AHEAD
    memory.words[slot : slot + pages] = memoryview(entries)
    space.resident_pages += pages
    ahead.count(memory, pages)
    return True


def _file(space: AddressSpace, vma: Vma, backing: Backing, page: int, slot: int, access: int) -> _Resolved | BadAccess:
    """Kernel: do_read_fault, do_cow_fault, do_shared_fault."""
    index = (vma.offset + page - vma.start) >> PAGE_SHIFT
    if index << PAGE_SHIFT >= backing.size:
        return BadAccess(SIGBUS, BUS_ADRERR, page, access, "the page is past the end of the file")
    cache = space.cache
    major = not cache.is_cached(backing, index) and backing.writeback
    if major:
        cache.read_ahead(backing, index)
    if access == WRITE:
        return _file_write(space, vma, backing, page, index, slot, major)
    around = 0
    if space.fault_around > PAGE and not vma.name:
        around = map_around(space, vma, backing, page, _maps_writable(vma, backing))
    else:
        frame = cache.bring(backing, index, index)[index]
        _map_shared(space, vma, slot, frame, _maps_writable(vma, backing))
    return _Resolved("file", major, around)


def _file_write(
    space: AddressSpace, vma: Vma, backing: Backing, page: int, index: int, slot: int, major: bool
) -> _Resolved:
    """The first access to a file page is a write: to the page itself, or to a private copy."""
    frame = space.cache.bring(backing, index, index)[index]
    if vma.flags & SHARED:
        _map_shared(space, vma, slot, frame, True)
        _mark_dirty(space, slot, backing, index)
        return _Resolved("shared", major)
    prepare_anon_vma(space, vma)
    [copy] = space.memory.duplicate([frame])
    _install(space, slot, anonymous_entry(vma, copy) | DIRTY)
    own_around(space, vma, page, slot)
    return _Resolved("copy-on-write", major)


def _write_protected(space: AddressSpace, vma: Vma, page: int, slot: int, entry: int) -> _Resolved:
    """A write to a page that is mapped read-only (kernel: do_wp_page)."""
    memory = space.memory
    frame = (entry & FRAME_MASK) >> FRAME_SHIFT
    if vma.flags & SHARED and vma.backing is not None:
        memory.words[slot] = file_entry(vma, frame, True)
        _mark_dirty(space, slot, vma.backing, (vma.offset + page - vma.start) >> PAGE_SHIFT)
        return _SHARED
    prepare_anon_vma(space, vma)
    if frame == memory.zero_frame and space.fill_ahead is not None and vma.backing is None:
        pages = space.fill_ahead.extent(space, vma, slot, page, WRITE)
        if pages > 1 and _fill(space, vma, slot, pages):
            space.shootdown.retire(space.page_table.root, page, page + pages * PAGE, [entry] * pages)
            return _COPIED._replace(around=pages - 1)
        fill_block(space, vma, page, slot, WRITE, True)
    if memory.is_exclusive(frame):
        memory.words[slot] = anonymous_entry(vma, frame) | DIRTY
        own_around(space, vma, page, slot)
        return _PROTECTION
    if frame == memory.zero_frame:
        copy = memory.allocate(ANONYMOUS)
        space.resident_pages += 1
    else:
        [copy] = memory.duplicate([frame])
        if space.note is not None and len(space.note) < _MOST_NOTED:
            space.note.add(page)
    memory.words[slot] = anonymous_entry(vma, copy) | DIRTY
    space.shootdown.retire(space.page_table.root, page, page + PAGE, [entry])
    own_around(space, vma, page, slot)
    return _COPIED


def _maps_writable(vma: Vma, backing: Backing) -> bool:
    """Whether a page of a shared mapping is writable from the start (not vma_wants_writenotify)."""
    return bool(vma.flags & SHARED) and not backing.writeback


def _map_shared(space: AddressSpace, vma: Vma, slot: int, frame: int, writable: bool) -> None:
    """Point an entry at a page-cache frame."""
    _install(space, slot, file_entry(vma, frame, writable))


def _install(space: AddressSpace, slot: int, entry: int) -> None:
    space.memory.words[slot] = entry
    space.resident_pages += 1


def _mark_dirty(space: AddressSpace, slot: int, backing: Backing, index: int) -> None:
    """A page of a shared mapping is being written: the file will have to be."""
    space.memory.words[slot] |= DIRTY
    if backing.pages is not None:
        backing.pages.dirty.add(index)


def _refuse(space: AddressSpace, bad: BadAccess, vma: Vma | None, pc: int, mode: str) -> BadAccess:
    """Count and announce a fault that ends in a signal (in kernel mode, in EFAULT)."""
    space.minor_faults += 1
    if space.events is not None and space.events.fault:
        signal = _SIGNAL_NAMES[bad.signal]
        _tell(space, vma, bad.address, bad.access, pc, mode, _PROTECTION, signal if mode == USER else None)
    return bad


def _tell(
    space: AddressSpace, vma: Vma | None, address: int, access: int, pc: int, mode: str, resolved: _Resolved,
    signal: str | None = None,
) -> None:  # fmt: skip
    """Emit the event."""
    pid, tid, cpu = space.owner_ids
    entry = space.page_table.entry(address)
    offset = vma.offset + (address & PAGE_MASK) - vma.start if vma is not None and vma.backing is not None else 0
    if vma is not None and vma.backing is None:
        offset = (address & PAGE_MASK) - vma.start
    assert space.events is not None
    publish(
        space.events.fault,
        Fault(
            pid, tid, cpu, address, pc, _ACCESS_NAMES[access], mode, resolved.cause, resolved.major, resolved.around,
            space.name_of(vma) if vma is not None else "", offset, (entry & FRAME_MASK) >> FRAME_SHIFT, signal,
        ),
    )  # fmt: skip
