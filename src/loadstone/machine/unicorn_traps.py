"""From the way in which Unicorn stopped to the trap that a CPU would have taken.

Unicorn delivers most exceptions as a CPU does. Put right here are `int n`, what only ring 0 may do, addresses that 48
bits do not hold, and the error codes that it does not make.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int

from loadstone.errors import HostError
from loadstone.machine import native_code
from loadstone.machine import unicorn_library as uc
from loadstone.machine.code import code_at
from loadstone.machine.core import (
    ACCESS_EXECUTE,
    DEBUG,
    DEBUG_STEP,
    EXCEPTION,
    GENERAL_PROTECTION,
    INVALID_OPCODE,
    PAGE_FAULT,
    SLICE_END,
    STACK_FAULT,
    STOPPED_AT,
    SYSTEM_CALL,
    Trap,
)
from loadstone.machine.instruction import (
    LONGEST,
    ONE_BYTE,
    TWO_BYTE,
    decode,
    ending_jump,
    in_stack_segment,
    loaded_selector,
)
from loadstone.machine.physical import FRAME_SIZE, PhysicalMemory
from loadstone.machine.segments import GATES_OF_RING_3, gate_error
from loadstone.machine.unicorn_context import Contexts, UnicornContext
from loadstone.machine.unicorn_engine import RIP, Engine
from loadstone.machine.unicorn_tlb import NotCanonical, TlbFill
from loadstone.machine.unicorn_translations import Translations
from loadstone.machine.vex import refuse_vex

SYSTEM_CALL_TRAP = Trap(SYSTEM_CALL)
SLICE_END_TRAP = Trap(SLICE_END)
STOPPED_AT_TRAP = Trap(STOPPED_AT)

_CONTRIBUTORY = (0, 10, 11, 12, 13)
_PORT_STRINGS = tuple((ONE_BYTE, opcode) for opcode in range(0x6C, 0x70))  # INS and OUTS
_RING_0_CALLED_INVALID = (0x07, 0x33, 0x35)  # 0F xx: SYSRET, RDPMC, SYSEXIT, which Unicorn holds for no instructions
_INT, _INT1 = 0xCD, 0xF1
_TIME_STAMP = (b"\x0f\x31", b"\x0f\x01\xf9")  # RDTSC and RDTSCP, which load no selector


class Traps:
    """Makes traps of stops."""

    def __init__(
        self, engine: Engine, memory: PhysicalMemory, contexts: Contexts, translations: Translations, fill: TlbFill
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._contexts = contexts
        self._translations = translations
        self._fill = fill
        self._before_exceptions = engine.new_handle()
        self._scratch, self._refused_state = engine.new_handle(), engine.new_handle()
        self._exception_offset = -1
        engine.save(self._before_exceptions)

    def on_privileged(self, _uc: int) -> int:
        """IN, OUT, INS, OUTS and SYSENTER, which Unicorn executes in any ring."""
        control = self._engine.control
        if not control.refused:
            control.refused = True
            self._engine.save(self._refused_state)
            self._engine.stop()
        return 0

    def of_stop(self) -> Trap | None:
        """What the stop means that Control tells of; None to go on."""
        control = self._engine.control
        status, reason, vector, pc = control.status, control.reason, control.vector, control.pc
        if control.refused:
            return self._back_to_refused()
        if self._fill.failure is not None:
            return self._failed_access(pc)
        if status == uc.ERR_INSN_INVALID:
            return self._invalid(pc)
        if status == uc.ERR_EXCEPTION:
            return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc)
        if status != uc.ERR_OK:
            raise HostError(f"Unicorn stopped at {pc:#x}: {self._engine.library.uc_strerror(status).decode()}")
        if vector == DEBUG and reason == native_code.REASON_SYSCALL:
            return self._stepped_over_syscall(pc)
        if vector >= 0:
            return self._exception(vector, pc)
        if reason == native_code.REASON_BREAKPOINT:
            self._context().stopped_at = pc
            return STOPPED_AT_TRAP
        if reason == native_code.REASON_SYSCALL:
            return SYSTEM_CALL_TRAP
        if reason == native_code.REASON_SLICE:
            return SLICE_END_TRAP
        return None

    def _stepped_over_syscall(self, pc: int) -> Trap:
        """Unicorn makes a single step of SYSCALL. A CPU does not: it clears the trap flag, which is in R11 then."""
        self._engine.control.vector = -1
        context = self._context()
        context.write_registers({"rcx": pc, "r11": context.read("eflags")})
        return SYSTEM_CALL_TRAP

    def _failed_access(self, pc: int) -> Trap:
        """A page fault that the kernel did not resolve, or an address that there is not."""
        failure, self._fill.failure = self._fill.failure, None
        if self._instruction_at(pc) in _PORT_STRINGS:  # whether it may is asked before where
            return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc)
        if isinstance(failure, NotCanonical):
            return self._not_canonical(failure.access, pc)
        return Trap(EXCEPTION, PAGE_FAULT, failure, pc)

    def _exception(self, vector: int, pc: int) -> Trap:
        """The exception or software interrupt in which the engine stopped."""
        self._engine.control.vector = -1
        if vector in _CONTRIBUTORY:
            self._forget_exception(vector)
        if vector not in GATES_OF_RING_3 and self._code_at(pc - 2, 2) == bytes((_INT, vector)):
            self._engine.go_to(pc - 2)
            return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc - 2, error=gate_error(vector))
        error = DEBUG_STEP if vector == DEBUG else 0
        if vector == GENERAL_PROTECTION:
            code = self._code_at(pc, LONGEST)
            if not code.startswith(_TIME_STAMP):  # it names the selector, without its ring
                error = loaded_selector(code, self._context().read) & ~3
        return Trap(EXCEPTION, vector, None, pc, error=error)

    def _not_canonical(self, access: int, pc: int) -> Trap:
        """No page fault: the CPU refuses the address, of a jump before it jumps, of an operand by its segment."""
        if access != ACCESS_EXECUTE:
            vector = STACK_FAULT if in_stack_segment(self._code_at(pc, LONGEST)) else GENERAL_PROTECTION
            return Trap(EXCEPTION, vector, None, pc)
        block = self._engine.control.block
        jump = ending_jump(self._code_at(block, FRAME_SIZE))
        if jump is not None:
            pc = block + jump.start
            self._engine.go_to(pc)
            self._context().sp -= jump.stack
        return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc)

    def _invalid(self, pc: int) -> Trap:
        """What Unicorn holds for no instruction: most are none."""
        refuse_vex(self._memory, self._translations.space, pc)
        table, opcode = self._instruction_at(pc)
        if table == TWO_BYTE and opcode in _RING_0_CALLED_INVALID:
            return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc)
        if table == ONE_BYTE and opcode == _INT1:
            self._engine.go_to(pc + 1)
            return Trap(EXCEPTION, DEBUG, None, pc)
        if table == ONE_BYTE and opcode == _INT:  # int 6
            return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc, error=gate_error(INVALID_OPCODE))
        return Trap(EXCEPTION, INVALID_OPCODE, None, pc)

    def _back_to_refused(self) -> Trap:
        """Only ring 0 may do what the program did; the rest of its block ran, and is undone in the registers."""
        self._engine.control.refused = False
        self._fill.failure = None
        self._engine.control.vector = -1
        self._engine.restore(self._refused_state)
        pc = self._engine.control.pc = self._engine.read(RIP)
        return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc)

    def _forget_exception(self, vector: int) -> None:
        """Tell the engine that the exception was taken; it would make the next one a double fault.

        Unicorn keeps the number of the last contributory exception (SDM vol. 3, table 6-5) until its own delivery,
        which never happens here. Where it is in a saved context is found once, by comparing with one from before.
        """
        self._engine.save(self._scratch)
        if self._exception_offset < 0:
            self._exception_offset = self._find_exception(vector)
        if self._exception_offset:
            c_int.from_address((self._scratch.value or 0) + self._exception_offset).value = -1
            self._engine.restore(self._scratch)

    def _find_exception(self, vector: int) -> int:
        """The offset in a saved context of the last exception's number: it was none, and is `vector`. 0: not there."""
        size = int(self._engine.library.uc_context_size(self._engine.uc))
        before, after = (
            memoryview(ctypes.string_at(handle.value or 0, size)).cast("i")
            for handle in (self._before_exceptions, self._scratch)
        )
        pairs = list(zip(before, after, strict=True))
        return next((4 * i for i in range(uc.CONTEXT_HEAD // 4, size // 4) if pairs[i] == (-1, vector)), 0)

    def _context(self) -> UnicornContext:
        assert self._contexts.current is not None
        return self._contexts.current

    def _code_at(self, pc: int, size: int) -> bytes:
        return code_at(self._memory, self._translations.space.page_table, pc, size)

    def _instruction_at(self, pc: int) -> tuple[int, int]:
        """Opcode map and opcode of the instruction at `pc`; (-1, -1) where there is none."""
        found = decode(self._code_at(pc, LONGEST))
        return (found.map, found.opcode) if found is not None else (-1, -1)
