"""Breakpoints where the host's KVM has no debug registers to lend: INT3 in the code while, and only while, it runs.

The byte is put into the frame that the address maps to just before the guest is entered, and taken out when it is left:
nobody outside the guest ever sees it, and a page that comes in later is patched at the next entry. A program that reads
its own code can see it, as under any debugger.
"""

from __future__ import annotations

from loadstone.machine.paging import FRAME_MASK, PRESENT, PageTable
from loadstone.machine.physical import PhysicalMemory

_INT3 = 0xCC


class Breakpoints:
    """`addresses`: where to stop, in whatever address space."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._bytes = memory.bytes
        self.addresses: set[int] = set()
        self._replaced: list[tuple[int, int]] = []  # (physical address, the program's own byte)

    def put(self, table: PageTable) -> None:
        """Patch those that are mapped in this address space."""
        for address in self.addresses:
            entry = table.entry(address)
            if entry & PRESENT:
                where = entry & FRAME_MASK | address & 0xFFF
                self._replaced.append((where, self._bytes[where]))
                self._bytes[where] = _INT3

    def take_out(self) -> None:
        """Put the program's own bytes back."""
        for where, own in reversed(self._replaced):
            if self._bytes[where] == _INT3:  # else the program has overwritten it
                self._bytes[where] = own
        self._replaced.clear()

    def is_ours(self, table: PageTable, address: int) -> bool:
        """Whether the INT3 at `address` is one that `put` put there, perhaps for another address of the same frame."""
        entry = table.entry(address)
        where = entry & FRAME_MASK | address & 0xFFF
        return bool(entry & PRESENT) and self._bytes[where] != _INT3
