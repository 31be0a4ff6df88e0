"""The only doors to user memory (arch/x86/lib/usercopy.c): copy in, copy out, or lend the frames themselves.

Pages are resolved in ascending order and in kernel mode, as the kernel's own copies do, so that faults are counted in
the same order. An address that cannot be resolved is EFAULT, never a crash.
"""

from __future__ import annotations

from errno import EFAULT, ENAMETOOLONG
from struct import unpack_from
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.paging import ACCESSED, AHEAD, DIRTY, FRAME_MASK, PRESENT, WRITABLE
from loadstone.memory.fault import KERNEL, resolve
from loadstone.memory.vma import PAGE, READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadstone.memory.address_space import AddressSpace

_OFFSET = PAGE - 1
_ENTRIES = 512  # in a page table
_READ = PRESENT | ACCESSED
_WRITTEN = PRESENT | WRITABLE | ACCESSED | DIRTY
PATH_MAX = 4096


def copy_in(space: AddressSpace, address: int, length: int) -> bytes:
    """`length` bytes of user memory; EFAULT unless all of them can be read."""
    offset = address & _OFFSET
    if offset + length <= PAGE:
        start = _physical(space, address, READ) + offset if length else 0
        return bytes(space.memory.bytes[start : start + length])
    found = pieces(space, address, length, False)
    data = b"".join(found)
    if len(data) < length:
        raise LinuxError(EFAULT)
    return data


def copy_out(space: AddressSpace, address: int, data: bytes | memoryview) -> None:
    """Write `data` to user memory; EFAULT if not all of it can be written (what comes before is written)."""
    length = len(data)
    offset = address & _OFFSET
    if offset + length <= PAGE:
        if length:
            start = _physical(space, address, WRITE) + offset
            space.memory.bytes[start : start + length] = data
        return
    done = 0
    for piece in pieces(space, address, length, True):
        piece[:] = data[done : done + len(piece)]
        done += len(piece)
    if done < length:
        raise LinuxError(EFAULT)


def clear(space: AddressSpace, address: int, length: int) -> None:
    """Write zeros to user memory (kernel: clear_user); EFAULT as for `copy_out`."""
    copy_out(space, address, bytes(length))


def read_string(space: AddressSpace, address: int, limit: int = PATH_MAX) -> bytes:
    """A NUL-terminated string without its NUL; ENAMETOOLONG if `limit` bytes, the NUL included, do not hold it."""
    parts = []
    left = limit
    while left > 0:
        offset = address & _OFFSET
        start = _physical(space, address, READ) + offset
        chunk = bytes(space.memory.bytes[start : start + min(PAGE - offset, left)])
        end = chunk.find(0)
        if end >= 0:
            parts.append(chunk[:end])
            return b"".join(parts)
        parts.append(chunk)
        address += len(chunk)
        left -= len(chunk)
    raise LinuxError(ENAMETOOLONG)


def read_words(space: AddressSpace, address: int, count: int) -> tuple[int, ...]:
    """`count` unsigned 64-bit words."""
    return unpack_from(f"<{count}Q", copy_in(space, address, 8 * count))


def pieces(space: AddressSpace, address: int, length: int, write: bool) -> list[memoryview]:
    """The user's memory itself, as slices of frames in order; neighbours in physical memory are one slice.

    Ends at the first page that cannot be had; EFAULT when that is the first. The slices are writable; they may be used
    until the handler yields, not longer.
    """
    memory = space.memory.bytes
    runs: list[memoryview] = []
    start = end = -1
    while length > 0:
        try:
            pages = _physical_pages(space, address, length, WRITE if write else READ)
        except LinuxError:
            if end < 0:
                raise
            break
        for page in pages:
            here = page | address & _OFFSET
            if here != end:
                if end >= 0:
                    runs.append(memory[start:end])
                start = here
            end = page + PAGE
            address += end - here
            length -= end - here
    if length < 0:
        end += length  # the last page is not used to its end
    if end >= 0:
        runs.append(memory[start:end])
    return runs


def gather(space: AddressSpace, vectors: Iterable[tuple[int, int]], write: bool) -> list[memoryview]:
    """`pieces` of several (address, length) ranges after one another; ends at the first page that cannot be had."""
    runs: list[memoryview] = []
    for address, length in vectors:
        try:
            found = pieces(space, address, length, write)
        except LinuxError:
            if not runs:
                raise
            break
        runs += found
        if sum(map(len, found)) < length:
            break
    return runs


def _physical_pages(space: AddressSpace, address: int, length: int, access: int) -> list[int]:
    """The physical addresses of the pages of a range from its start on: at least one, at most one page table of them.

    A run of pages that were accessed (written) before is read off its page table at once; any other page is by itself.
    """
    slot = space.page_table.find(address) if 0 <= address < space.layout.task_size else -1
    if slot >= 0:
        in_table = _ENTRIES - (slot & _ENTRIES - 1)
        wanted = (length + (address & _OFFSET) + PAGE - 1) // PAGE
        needed = _WRITTEN if access == WRITE else _READ
        executed = space.memory.executed
        found = []
        for entry in space.memory.words[slot : slot + min(in_table, wanted)].tolist():
            page = entry & FRAME_MASK
            if entry & (needed | AHEAD) != needed or (access == WRITE and executed[page >> 12]):
                break
            found.append(page)
        if found:
            return found
    return [_physical(space, address, access)]


def _physical(space: AddressSpace, address: int, access: int) -> int:
    """The physical address of the page of `address`, faulted in as the kernel would for its own access.

    It is not AHEAD any more: it must stay as long as whoever asked works with it.
    """
    memory = space.memory
    words = memory.words
    if not 0 <= address < space.layout.task_size:
        raise LinuxError(EFAULT)
    table = space.page_table
    slot = table.find(address)
    entry = words[slot] if slot >= 0 else 0
    needed = PRESENT | WRITABLE if access == WRITE else PRESENT
    if entry & needed != needed:
        if resolve(space, address, access, 0, KERNEL) is not None:
            raise LinuxError(EFAULT)
        slot = table.find(address)
        entry = words[slot]
    physical = entry & FRAME_MASK
    if access == WRITE:
        words[slot] = entry & ~AHEAD | ACCESSED | DIRTY
        if memory.executed[physical >> 12]:
            space.shootdown.code_written(physical >> 12)
    else:
        words[slot] = entry & ~AHEAD | ACCESSED
    return physical
