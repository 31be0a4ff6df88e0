"""Reads that are answered in the guest: what one address space has for it, beside what kvm_entry.py has for all.

The kernel fills the buffer with what the program will read next, and offers it. Whenever the program is out of the
guest, what it has taken meanwhile is settled: the kernel hears of it before it does anything else. Everything the
program can reach here is its own (its buffer holds data it has asked to read, in pages that no other process has), so
all it can do by writing to it is to read wrong data; the host believes nothing that exceeds what it offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.lean import Protocol
from loadstone.machine import kvm_entry as entry
from loadstone.machine.kvm_context import INTERRUPTS_ON, RAX, RDI, RDX, RFLAGS, RIP
from loadstone.machine.kvm_tables import SYSCALL_ENTRY
from loadstone.machine.paging import ACCESSED, DIRTY, NO_EXECUTE, PRESENT, USER, WRITABLE
from loadstone.machine.physical import ENTRIES, FRAME_SHIFT, FRAME_SIZE, RESERVED, TABLE

if TYPE_CHECKING:
    from loadstone.machine.kvm_tables import KernelHalf

BUFFER_PAGES = 480
PAGES = 3 + BUFFER_PAGES  # frames that it takes: three page tables, the buffer
_LOW_WORD = (1 << 32) - 1
_TABLE_BITS = PRESENT | WRITABLE | USER | ACCESSED | DIRTY
_BUFFER_BITS = PRESENT | USER | ACCESSED | DIRTY | NO_EXECUTE


class Keeper(Protocol):
    """Whoever offers data to be read."""

    def taken(self, reads: int, length: int) -> None:
        """The program has read `length` bytes more of what was offered, in `reads` calls."""

    def holds(self) -> bool:
        """Whether what is left of the offer is still what the program would read."""

    def more(self, buffer: memoryview, count: int) -> int:
        """The program asks for `count` bytes, and not so many are left of an offer that holds.

        How many there are in `buffer` now, of those that follow what it has taken; 0: the call is for the kernel.
        """

    def withdrawn(self) -> None:
        """The offer is over."""


class ReadAnswers:
    """The answering half of one address space: page tables and a buffer of its own. Raises OutOfFrames.

    Attributes:
        entry: what goes into slot KERNEL_SLOT of its page directory.
        buffer: the memory to be filled with what is offered next.
        keeper: who made the offer that there is; None: there is none.
    """

    __slots__ = (
        "_descriptor", "_end", "_half", "_page", "_pages", "_settled", "_tables", "_used", "buffer", "entry", "keeper",
    )  # fmt: skip

    def __init__(self, half: KernelHalf, page: entry.EntryPage) -> None:
        memory = half.memory
        self._half = half
        self._page = page
        self._pages = half.spare_buffers.pop() if half.spare_buffers else -1
        if self._pages < 0:
            self._pages = memory.allocate_run(BUFFER_PAGES, RESERVED)
        self._used = 0  # bytes of the buffer that were ever offered
        self._tables = [memory.allocate(TABLE) for _ in range(3)]
        self.buffer = memory.view(self._pages, 0, BUFFER_PAGES * FRAME_SIZE)
        words = memory.words
        directory, middle, table = (frame * ENTRIES for frame in self._tables)
        self.entry = self._tables[0] << FRAME_SHIFT | _TABLE_BITS
        words[directory] = self._tables[1] << FRAME_SHIFT | _TABLE_BITS
        words[middle] = self._tables[2] << FRAME_SHIFT | _TABLE_BITS
        words[table : table + ENTRIES] = words[half.table * ENTRIES : (half.table + 1) * ENTRIES]
        for number in range(BUFFER_PAGES):
            words[table + entry.BUFFER_PAGE + number] = self._pages + number << FRAME_SHIFT | _BUFFER_BITS
        self.keeper: Keeper | None = None
        self._descriptor = 0
        self._end = 0  # bytes that are offered
        self._settled = 0  # TAKEN, when it was last looked at

    def offer(self, descriptor: int, length: int, keeper: Keeper) -> None:
        """Answer reads of `descriptor` with the first `length` bytes of the buffer, in order, from now on."""
        self.keeper = keeper
        self._set(descriptor, length)

    def refill(self, window: Any) -> bool:
        """A call has come out of the guest: whether it can be answered there after all, for more is on offer now.

        It then goes on where SYSCALL enters. (That spares the rest of the kernel's way, 0.1 ms with cold caches.)
        """
        if self.keeper is None or window[RAX] or window[RDI] & _LOW_WORD != self._descriptor:
            return False
        self.check()
        count = window[RDX]
        if self.keeper is None or count <= self._end - (self._settled & entry.BYTES_TAKEN):
            return False
        got = self.keeper.more(self.buffer, count)
        if got < count:
            return False
        self._set(self._descriptor, got)
        window[RIP] = SYSCALL_ENTRY
        window[RFLAGS] &= ~INTERRUPTS_ON  # as SYSCALL leaves them
        return True

    def check(self) -> None:
        """The program is about to go on: is the offer still good?"""
        if self.keeper is not None:
            self.settle()
        if self.keeper is not None and not self.keeper.holds():
            self._end_offer()

    def settle(self) -> None:
        """The program does not run: tell the keeper what it has taken."""
        if self.keeper is None or self._page.reader is not self:
            return
        taken = self._page.words[entry.TAKEN]
        if taken == self._settled:
            return
        more = taken - self._settled
        reads, length = more >> entry.READ_SHIFT, more & entry.BYTES_TAKEN
        if more < 0 or taken & entry.BYTES_TAKEN > self._end or not 0 < reads <= length:
            self._end_offer()  # the program has written here
            return
        self._settled = taken
        self.keeper.taken(reads, length)

    def withdraw(self) -> None:
        """Nothing is on offer any more."""
        self.settle()
        self._end_offer()

    def release(self) -> None:
        """The address space has ended, and no core will enter it again."""
        self.withdraw()
        if self._page.reader is self:
            self._page.reader = None
        self.buffer[: self._used] = bytes(self._used)  # it will be another process's
        self.buffer.release()
        self._half.memory.release_all(self._tables)
        self._half.spare_buffers.append(self._pages)

    def _end_offer(self) -> None:
        keeper, self.keeper = self.keeper, None
        self._set(0, 0)
        if keeper is not None:
            keeper.withdrawn()

    def load(self) -> None:
        """The address space is entered: its offer goes to where the code looks for it."""
        words = self._page.words
        words[entry.DESCRIPTOR], words[entry.END], words[entry.TAKEN] = self._descriptor, self._end, self._settled

    def _set(self, descriptor: int, end: int) -> None:
        self._descriptor, self._end, self._settled = descriptor, end, 0
        self._used = max(self._used, end)
        if self._page.reader is self:
            self.load()
