"""TLB fills of the Unicorn core: what the walk in machine code (hooks.s) could not answer.

That is a page fault, which goes to the kernel; a page that becomes code or ceases to be; a flush that is due; and the
pages of the core's own above what a program can name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadstone.lean import NamedTuple
from loadstone.machine import unicorn_library as uc
from loadstone.machine.code import code_at
from loadstone.machine.core import ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, Exits, Resolver
from loadstone.machine.instruction import LONGEST, modifies_memory, touched
from loadstone.machine.native_code import ANSWERED, LOOK_AGAIN, REFUSED
from loadstone.machine.paging import FRAME_MASK, KERNEL_BASE, NO_EXECUTE, PRESENT, USER_END, WRITABLE
from loadstone.machine.physical import FRAME_SIZE, RESERVED, PhysicalMemory
from loadstone.machine.unicorn_context import Contexts
from loadstone.machine.unicorn_engine import Engine
from loadstone.machine.unicorn_translations import FRAMES_BASE, Translations

_KERNEL_HALF = (1 << 64) - (1 << 47)
# Of a leaf entry: the bits that matter, what they must be, and the access, by the kind of fill.
_NEEDED = {
    uc.MEM_READ: (PRESENT, PRESENT, ACCESS_READ),
    uc.MEM_WRITE: (PRESENT | WRITABLE, PRESENT | WRITABLE, ACCESS_WRITE),
    uc.MEM_FETCH: (PRESENT | NO_EXECUTE, PRESENT, ACCESS_EXECUTE),
}

# Instructions that read the GDT: MOV and POP to a segment register, far RET, IRET, far JMP and CALL; LSS LFS LGS, LAR,
# LSL, SLDT and its like.
_LOADS_SELECTOR = (b"\x8e", b"\xcf", b"\xcb", b"\xca", b"\xff")
_LOADS_SELECTOR_0F = tuple(bytes((0x0F, opcode)) for opcode in (0xA1, 0xA9, 0xB2, 0xB4, 0xB5, 0x02, 0x03, 0x00))


class NotCanonical(NamedTuple):
    """An access to an address that 48 bits do not hold."""

    address: int
    access: int


class TlbFill:
    """The hook, and what came of it.

    Attributes:
        contexts: set once they are there; before that the engine starts, and may have its own page whole.
        frame: the core's own page.
        failure: why the access was refused: what the resolver said, or NotCanonical. Whoever takes it clears it.
        error: what was raised in the hook, where it would be lost. Whoever takes it clears it.
        filling: the page that a page fault is being resolved for, -1 outside of that.
    """

    def __init__(
        self,
        engine: Engine,
        memory: PhysicalMemory,
        translations: Translations,
        resolve: Resolver,
        wants_address: Callable[[], bool],
        exits: Exits,
    ) -> None:
        self.contexts: Contexts | None = None
        self.frame = memory.allocate(RESERVED)
        self.failure: Any = None
        self.error: BaseException | None = None
        self.filling = -1
        self.resolve = resolve
        self._wants_address = wants_address
        self._exits = exits
        self._engine = engine
        self._memory = memory
        self._translations = translations
        self._modifying: dict[int, bool] = {}  # by address, in the space of now, of instructions that faulted

    def forget_instructions(self) -> None:
        """Another program is at the same addresses."""
        self._modifying.clear()

    def __call__(self, address: int, kind: int, pc: int) -> int:
        """The hook's resolver (see hooks.s); `kind`: MEM_READ, MEM_WRITE or MEM_FETCH."""
        translations = self._translations
        if translations.dropping:
            return self._answer(address - FRAMES_BASE, uc.PROT_EXEC)
        try:
            if address >= USER_END:
                return self._beyond_user(address, kind, pc)
            table = translations.space.page_table
            slot = table.find(address)
            entry = self._memory.words[slot] if slot >= 0 else 0
            bits, needed, access = _NEEDED[kind]
            if entry & bits != needed:
                if not self._fault(address, kind, access, pc, bool(entry & PRESENT)):
                    return REFUSED
            else:
                self._exits.translations += 1
                writes_elsewhere = kind == uc.MEM_WRITE and bool(entry & NO_EXECUTE)
                translations.guard((entry & FRAME_MASK) >> 12, kind == uc.MEM_FETCH, writes_elsewhere)
            translations.flush_if_due()
            return LOOK_AGAIN
        except BaseException as error:  # an exception would be lost in the C code between here and the core
            self.error = error
            self._engine.stop()
            return REFUSED

    def _fault(self, address: int, kind: int, access: int, pc: int, present: bool) -> bool:
        """Have the kernel resolve a page fault; whether it did."""
        self._exits.page_faults += 1
        if kind == uc.MEM_READ and not present and self._modifies(pc):
            access = ACCESS_WRITE
        self.filling = address & -FRAME_SIZE
        try:
            space = self._translations.space
            if self._wants_address():
                failure: Any = self.resolve(space, self._exact(address, kind, pc), access, pc)
            else:
                failure = self.resolve(space, address, access, 0)
        finally:
            self.filling = -1
        if failure is not None:
            self.failure = failure._replace(address=self._exact(address, kind, pc))
        return failure is None

    def _beyond_user(self, address: int, kind: int, pc: int) -> int:
        """What lies above user addresses: nothing for the program, but for the core's own page."""
        if self._may_have_machine_page(address, kind, pc):
            return self._answer(self.frame * FRAME_SIZE, uc.PROT_READ if self.contexts else uc.PROT_ALL)
        if address < _KERNEL_HALF:
            self.failure = NotCanonical(address, _NEEDED[kind][2])
        else:
            self._fault(address, kind, _NEEDED[kind][2], pc, False)
        return REFUSED

    def _answer(self, physical: int, permissions: int) -> int:
        """Translate this once to what no page table says."""
        control = self._engine.control
        control.answer_address, control.answer_permissions = physical, permissions
        return ANSWERED

    def _modifies(self, pc: int) -> bool:
        """Whether the instruction reads memory in order to write it: to a CPU that is a write from the start.

        Unicorn reads first, and would fault twice.
        """
        known = self._modifying.get(pc)
        if known is None:
            known = self._modifying[pc] = modifies_memory(self._code_at(pc, LONGEST))
        return known

    def _exact(self, page: int, kind: int, pc: int) -> int:
        """The very address of an access. Unicorn tells a TLB fill the page only."""
        if kind == uc.MEM_FETCH:
            return pc if pc & -FRAME_SIZE == page else page
        assert self.contexts is not None and self.contexts.current is not None
        return touched(self._code_at(pc, LONGEST), pc, page, self.contexts.current.read)

    def _may_have_machine_page(self, address: int, kind: int, pc: int) -> bool:
        """All of it while the engine starts; later the GDT, for instructions that load a selector."""
        if address & -FRAME_SIZE != KERNEL_BASE:
            return False
        if self.contexts is None:
            return True
        if kind != uc.MEM_READ:
            return False
        code = self._code_at(pc, 4).lstrip(b"\x66\x48\x41\x44\x4c")
        return code[:1] in _LOADS_SELECTOR or code[:2] in _LOADS_SELECTOR_0F

    def _code_at(self, pc: int, size: int) -> bytes:
        return code_at(self._memory, self._translations.space.page_table, pc, size)
