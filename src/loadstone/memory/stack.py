"""The stack: made at exec, grown by faults (fs/exec.c: bprm_mm_init, setup_arg_pages; mm/vma.c: expand_downwards)."""

from __future__ import annotations

from errno import EFAULT, ENOMEM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.paging import DIRTY
from loadstone.machine.physical import ANONYMOUS, FRAME_SHIFT
from loadstone.memory.entries import anonymous_entry
from loadstone.memory.flags import RLIMIT_STACK
from loadstone.memory.lock import check_lock_limit
from loadstone.memory.merge import prepare_anon_vma
from loadstone.memory.protect import protect_vma
from loadstone.memory.vma import (
    ACCOUNT,
    EXEC,
    GROWSDOWN,
    LOCKED,
    MAYEXEC,
    MAYREAD,
    MAYWRITE,
    PAGE,
    PAGE_MASK,
    PAGE_SHIFT,
    PROTECTION,
    READ,
    WRITE,
    Vma,
)

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

STACK_EXPAND = 128 * 1024
"""Bytes by which exec grows the stack beyond the arguments, in all but very old kernels."""


def create_stack(space: AddressSpace, top: int) -> Vma:
    """One page of stack that ends at `top`; the arguments' strings go there (kernel: bprm_mm_init)."""
    flags = READ | WRITE | MAYREAD | MAYWRITE | MAYEXEC | GROWSDOWN | ACCOUNT
    space.charge(1)
    vma = Vma(top - PAGE, top, flags, None, top - PAGE)
    space.vmas.insert(vma)
    space.usage.add(flags, 1)
    return vma


def put_on_stack(space: AddressSpace, vma: Vma, data: bytes) -> None:
    """Have `data` end where the new stack ends, in pages that the kernel gets for itself: no fault is counted.

    Source: fs/exec.c (copy_strings, get_arg_page).
    """
    memory = space.memory
    prepare_anon_vma(space, vma)
    pages = (len(data) + PAGE - 1) >> PAGE_SHIFT
    whole = data.rjust(pages << PAGE_SHIFT, b"\0")
    start, bits = vma.end - len(whole), anonymous_entry(vma, 0) | DIRTY
    for offset, frame in zip(range(0, len(whole), PAGE), memory.allocate_many(pages, ANONYMOUS), strict=True):
        memory.words[space.page_table.slot(start + offset)] = frame << FRAME_SHIFT | bits
        memory.page(frame)[:] = whole[offset : offset + PAGE]
    space.resident_pages += pages


def finish_stack(space: AddressSpace, vma: Vma, pointer: int, executable: bool, expand: int = STACK_EXPAND) -> Vma:
    """Settle the stack's permissions and grow it by `expand` bytes, at most to RLIMIT_STACK (kernel: setup_arg_pages).

    `pointer` becomes the address that /proc/PID/stat calls startstack; `executable` is the program's PT_GNU_STACK.
    Raises LinuxError(EFAULT) as the kernel does when there is no room.
    """
    flags = vma.flags | space.default_flags
    flags = flags | EXEC if executable else flags & ~EXEC
    vma = protect_vma(space, vma, vma.start, vma.end, flags)
    limit = space.limits.soft(RLIMIT_STACK) & PAGE_MASK
    size = min(limit, vma.end - vma.start + expand)
    space.start_stack = pointer
    if vma.end - size < vma.start and not expand_stack(space, vma, vma.end - size):
        raise LinuxError(EFAULT, "there is no room for the stack")
    space.emit("map", vma, vma.start, vma.end)
    return vma


def shift_stack(space: AddressSpace, vma: Vma, shift: int) -> None:
    """Move the young stack down by `shift` bytes with its pages (kernel: relocate_vma_down).

    Its offset stays: a randomized stack does not merge as its address would tell.
    """
    from loadstone.memory.remap import move_entries

    start, end = vma.start, vma.end
    if start < shift or space.vmas.overlaps(start - shift, start):
        raise LinuxError(ENOMEM, "the stack cannot be moved there")
    move_entries(space, start, end, -shift)
    space.vmas.resize(vma, start - shift, end - shift, vma.offset)


def expand_stack(space: AddressSpace, vma: Vma, address: int) -> bool:
    """Grow `vma` down so that it contains `address`; False if it must not (kernel: expand_downwards).

    A guard gap to the mapping below is kept, unless that one grows down too or nobody may access it.
    """
    if not vma.flags & GROWSDOWN:
        return False
    address &= PAGE_MASK
    if address < space.layout.mmap_min_addr:
        return False
    if address >= vma.start:
        return True
    below = space.vmas.find_before(vma.start)
    if (
        below
        and not below.flags & GROWSDOWN
        and below.flags & PROTECTION
        and address - below.end < space.layout.stack_gap
    ):
        return False
    if below and address < below.end:
        return False
    prepare_anon_vma(space, vma)
    pages = (vma.start - address) >> PAGE_SHIFT
    if vma.start - address > vma.offset or not _may_grow(space, vma, address, pages):
        return False
    space.vmas.resize(vma, address, vma.end, vma.offset - (vma.start - address))
    space.usage.add(vma.flags, pages)
    return True


def _may_grow(space: AddressSpace, vma: Vma, address: int, pages: int) -> bool:
    """Kernel: acct_stack_growth."""
    limits = space.limits
    if not space.usage.may_grow(vma.flags, pages, limits) or vma.end - address > limits.soft(RLIMIT_STACK):
        return False
    try:
        if vma.flags & LOCKED:
            check_lock_limit(space, pages << PAGE_SHIFT, ENOMEM)
        space.charge(pages)
    except LinuxError:
        return False
    return True
