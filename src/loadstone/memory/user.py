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
from loadstone.memory.placement import TASK_SIZE_MAX
from loadstone.memory.vma import PAGE, PAGE_SHIFT, READ, WRITE

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
    access = WRITE if write else READ
    found: list[memoryview] = []
    offset = address & _OFFSET
    page = address - offset
    left = length + offset if length else 0  # from the start of `page` on
    start = end = -1
    while left > 0:
        try:
            runs = _present(space, page, left, access) or [(_physical(space, page + offset, access), PAGE)]
        except LinuxError:
            if end < 0:
                raise
            break
        for first, size in runs:
            if first != end:
                if end >= 0:
                    found.append(memory[start:end])
                start = first + offset
                offset = 0
            end = first + size
            page += size
            left -= size
    if end >= 0:
        found.append(memory[start : min(end, end + left)])  # the last page need not be used to its end
    return found


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


def _present(space: AddressSpace, page: int, length: int, access: int) -> list[tuple[int, int]]:
    """(physical address, length) of pages from `page` on that were accessed (written) before, neighbours as one.

    Ends at the first page that must be looked at by itself, and at the end of the page table.
    """
    slot = space.page_table.find(page) if 0 <= page < space.layout.task_size else -1
    if slot < 0:
        return []
    most = min(_ENTRIES - (slot & _ENTRIES - 1), (length + _OFFSET) // PAGE)
    needed = _WRITTEN if access == WRITE else _READ
    runs: list[tuple[int, int]] = []
    first = size = 0
    neighbour = -1  # the entry that goes on the run: the next frame, the same bits
    for entry in space.memory.words[slot : slot + most].tolist():
        if entry == neighbour:
            size += PAGE
        elif entry & (needed | AHEAD) == needed:
            if size:
                runs.append((first, size))
            first, size = entry & FRAME_MASK, PAGE
        else:
            break
        neighbour = entry + PAGE
    if size:
        runs.append((first, size))
    return _without_code(space, runs) if access == WRITE else runs


def _without_code(space: AddressSpace, runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The runs up to the first frame that instructions were fetched from: writing there must be reported."""
    executed = space.memory.executed
    for number, (first, size) in enumerate(runs):
        frame = executed.find(b"\1", first >> PAGE_SHIFT, (first + size) >> PAGE_SHIFT)
        if frame >= 0:
            clean = (frame << PAGE_SHIFT) - first
            return runs[:number] + ([(first, clean)] if clean else [])
    return runs


def _physical(space: AddressSpace, address: int, access: int) -> int:
    """The physical address of the page of `address`, faulted in as the kernel would for its own access."""
    slot = space.page_table.find(address) if 0 <= address < TASK_SIZE_MAX else -1
    if slot >= 0:  # most pages were accessed, or written, before
        memory = space.memory
        entry = memory.words[slot]
        if access == READ:
            if entry & (_READ | AHEAD) == _READ:
                return entry & FRAME_MASK
        elif entry & (_WRITTEN | AHEAD) == _WRITTEN and not memory.executed[(entry & FRAME_MASK) >> PAGE_SHIFT]:
            return entry & FRAME_MASK
    return _accessed(space, address, access)


def _accessed(space: AddressSpace, address: int, access: int) -> int:
    """The same for a page that may be absent, untouched, or one of code.

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
        memory.written(physical >> 12)
    else:
        words[slot] = entry & ~AHEAD | ACCESSED
    return physical
