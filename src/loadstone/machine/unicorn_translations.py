"""What the Unicorn core keeps of the page tables and of code, and when it has to forget it.

The TLB is the address space's that ran last; a flush forgets all of it. Translated code is found by frame and address,
and stays for every address space until the frame is written or used for something else. Unicorn checks every store of a
TLB entry that executes, and only the first store of any other, so a frame must not be code and writable at a time but
through an entry that is both: `guard` and the walk in hooks.s see to that, by a byte a frame each in
`PhysicalMemory.executed` and in `written`.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

from loadstone.machine.physical import FRAME_SIZE, PhysicalMemory
from loadstone.machine.unicorn_engine import Engine

# Where the frames are all executable to the core itself, and only while it drops the translations of one.
FRAMES_BASE = 0xFFFF_8000_0000_0000

_TLB_ENTRIES = 256  # Unicorn's TLB at the start; it grows only when flushed
_QUARANTINE_LIMIT = 4096
_FEW_PAGES = 32  # that must be forgotten; for more it is cheaper to flush the TLB
_FEW_FRAMES = 256  # of code that were rewritten; for more it is cheaper to drop all translations


class Translations:
    """The TLB and the translated code of one engine.

    Attributes:
        space: the address space that the TLB is of.
        stale_tlb: all of the TLB must be forgotten before the program goes on.
        stale_pages: the addresses of pages that must be, otherwise.
        dropping: the code of a frame is being dropped, and asked for at FRAMES_BASE.
        written: a byte a frame, 1 if it may be writable in the TLB.
        flushes: of all of the TLB, so far.
    """

    def __init__(self, engine: Engine, memory: PhysicalMemory) -> None:
        self.space: Any = None
        self.stale_tlb = True
        self.stale_pages: list[int] = []
        self.dropping = False
        self.written = mmap.mmap(-1, memory.frames)
        self.flushes = 0
        self._engine = engine
        self._control = engine.control
        self._memory = memory
        self._tlb_limit = _TLB_ENTRIES
        self._quarantine_limit = min(_QUARANTINE_LIMIT, memory.frames // 16)  # little of a small memory waits
        self._stale_code = False
        self._pin: ctypes.c_char | None = ctypes.c_char.from_buffer(self.written)
        self._control.executed, self._control.written = memory.executed_address, ctypes.addressof(self._pin)

    def switch(self, space: Any) -> None:
        """The program of another address space runs from now on."""
        self.space = space
        self.stale_tlb = True
        self._control.root = space.page_table.root * FRAME_SIZE

    def invalidate(self, root: int, start: int, end: int, frames: Sequence[int], being_filled: bool) -> None:
        """Entries of [start, end) under page directory `root` have changed, which pointed at `frames`.

        `being_filled`: they are the one that the fill under way replaces, so that only code behind it is stale.
        """
        if self.space is None or root != self.space.page_table.root:
            return  # switching to that address space flushes
        executed = self._memory.executed
        if being_filled and not any(executed[frame] for frame in frames):
            return
        pages = self.stale_pages
        if self._engine.flush_page is None or len(pages) + (end - start) // FRAME_SIZE > _FEW_PAGES:
            self.stale_tlb = True
        else:
            pages += range(start, end, FRAME_SIZE)

    def forget_all_code(self) -> None:
        """Translate all code anew from the next start on."""
        self._stale_code = self.stale_tlb = True

    def forget_stale(self) -> None:
        """Forget what must not be seen any more, before a start: of the TLB, or because frames were rewritten.

        Frames come into quarantine only when entries go, which makes something of the TLB stale.
        """
        memory = self._memory
        if len(memory.quarantine) > self._quarantine_limit or len(memory.rewritten) > _FEW_FRAMES:
            self._stale_code = True
        if self._stale_code:
            self._stale_code = False
            self.stale_tlb = True
            self._engine.flush_code()
            memory.rewritten.clear()
            memory.end_quarantine()
        elif memory.rewritten:
            for frame in set(memory.rewritten):
                self.drop_code(frame)
            memory.rewritten.clear()
        if self.stale_tlb:
            self.flush_tlb()
        else:
            self._flush_pages()

    def flush_if_due(self) -> None:
        """Flush the TLB if it is stale, or if it was filled so often that it is too small: it grows when flushed."""
        if self.stale_tlb:
            self.flush_tlb()
        elif self._control.fills < 0:
            self._tlb_limit *= 2
            self.flush_tlb()
        elif self.stale_pages:
            self._flush_pages()

    def flush_tlb(self) -> None:
        """Forget all of the TLB."""
        self.stale_tlb = False
        self.stale_pages.clear()
        self.flushes += 1
        self._engine.flush_tlb()
        self._control.fills = self._tlb_limit

    def _flush_pages(self) -> None:
        """Forget the stale pages."""
        flush = self._engine.flush_page
        assert flush is not None
        for page in self.stale_pages:
            flush(page)
        self.stale_pages.clear()

    def drop_code(self, frame: int) -> None:
        """Forget what was translated of the code in a frame; until the TLB is flushed nothing may run.

        Unicorn finds translations by the frame but takes a virtual address, so each frame has one for this.
        """
        self.dropping = True
        self._engine.drop_code(FRAMES_BASE + frame * FRAME_SIZE)
        self.dropping = False
        self._memory.executed[frame] = 0
        self.stale_tlb = True

    def guard(self, frame: int, fetched: bool, writes_elsewhere: bool) -> None:
        """Make a frame code that is `fetched`; make one that is written through a page that does not execute none."""
        executed, written = self._memory.executed, self.written
        if writes_elsewhere:
            if executed[frame]:
                self.drop_code(frame)
        elif fetched and not executed[frame]:
            executed[frame] = 1
            if written[frame]:
                written[frame] = 0
                if not self._memory.is_exclusive(frame):  # else it can be written nowhere else
                    self.stale_tlb = True

    def close(self) -> None:
        """Let go of what the engine read."""
        self._pin = None
