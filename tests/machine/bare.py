"""A core with frames, a page table and nothing else: no kernel decides what a fault means but the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from loadstone.machine.core import EXCEPTION, Resolver, Trap
from loadstone.machine.paging import COUNTED, FRAME_MASK, PageTable, permissions
from loadstone.machine.physical import ANONYMOUS, FRAME_SIZE, PhysicalMemory
from loadstone.machine.unicorn_core import UnicornCore
from machine.code import assemble

CODE, DATA, STACK_TOP = 0x401000, 0x600000, 0x7FFFF000
R, W, X = 1, 2, 4
BUDGET = 1 << 20


class Bad(NamedTuple):
    """The fake page-fault path's refusal."""

    address: int
    access: int


class Fault(NamedTuple):
    """A call of the page-fault path."""

    address: int
    access: int
    pc: int


class Space:
    """A page table, and what the fault path may map: page -> protection."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self.memory = memory
        self.page_table = PageTable(memory)
        self.allowed: dict[int, int] = {}

    def allow(self, start: int, pages: int, prot: int) -> None:
        """A fault in these pages maps a frame of zeros."""
        for page in range(start, start + pages * FRAME_SIZE, FRAME_SIZE):
            self.allowed[page] = prot

    def map(self, page: int, prot: int, frame: int | None = None) -> int:
        """Map a page now; the frame."""
        if frame is None:
            frame = self.memory.allocate(ANONYMOUS)
        self.memory.words[self.page_table.slot(page)] = frame << 12 | COUNTED | permissions(prot)
        return frame

    def entry(self, address: int) -> int:
        return self.page_table.entry(address)

    def bytes_at(self, address: int, length: int) -> bytes:
        """What is in memory (within one page)."""
        frame = (self.entry(address) & FRAME_MASK) >> 12
        return bytes(self.memory.view(frame, address % FRAME_SIZE, length))

    def put(self, address: int, data: bytes) -> None:
        """Write to mapped memory, as a kernel would, page by page."""
        while data:
            room = FRAME_SIZE - address % FRAME_SIZE
            frame = (self.entry(address) & FRAME_MASK) >> 12
            self.memory.view(frame, address % FRAME_SIZE, len(data[:room]))[:] = data[:room]
            self.memory.written(frame)
            address, data = address + room, data[room:]


class Bare:
    """Memory, a core, one space with code at CODE, two pages of data at DATA and a stack that faults in."""

    def __init__(self, frames: int = 4096, make: Callable[[PhysicalMemory, Resolver], Any] = UnicornCore) -> None:
        self.memory = PhysicalMemory(frames * FRAME_SIZE)
        self.faults: list[Fault] = []
        self.core = make(self.memory, self.resolve)
        self.space = self.new_space()
        self.context = self.core.new_context()

    def new_space(self) -> Space:
        space = Space(self.memory)
        space.allow(STACK_TOP - 16 * FRAME_SIZE, 16, R | W)
        space.map(DATA, R | W)
        space.map(DATA + FRAME_SIZE, R | W)
        return space

    def resolve(self, space: Space, address: int, access: int, pc: int) -> Bad | None:
        self.faults.append(Fault(address, access, pc))
        page = address & -FRAME_SIZE
        if not space.allowed.get(page, 0) & access:
            return Bad(address, access)
        space.map(page, space.allowed[page])
        return None

    def load(self, text: str | bytes, at: int = CODE, space: Space | None = None) -> bytes:
        """Put code (assembly or bytes) into executable pages at `at`."""
        space = space or self.space
        code = assemble(text, at) if isinstance(text, str) else text
        for page in range(at & -FRAME_SIZE, at + len(code), FRAME_SIZE):
            if not space.entry(page):
                space.map(page, R | X)
        space.put(at, code)
        return code

    def start(self, text: str | bytes, budget: int = BUDGET, at: int = CODE) -> Trap:
        """Load code and run it from its first byte."""
        self.load(text, at)
        self.context.pc = at
        self.context.sp = STACK_TOP - 64
        return self.run(budget)

    def run(self, budget: int = BUDGET, context: Any = None, space: Space | None = None) -> Trap:
        return self.core.run(context or self.context, space or self.space, budget)

    def exception(self, text: str | bytes) -> tuple[int, int]:
        """(vector, RIP - CODE) of the exception in which the code ends."""
        trap = self.start(text)
        assert trap.kind == EXCEPTION, f"trap of kind {trap.kind}, rip {self.context.pc:#x}"
        return trap.vector, self.context.pc - CODE

    def close(self) -> None:
        self.core.close()
        self.memory.close()
