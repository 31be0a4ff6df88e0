"""A CPU core of Unicorn's: one engine for every address space of the machine, walking our page tables.

Unicorn's memory management is replaced by its virtual TLB, which asks a hook for each translation: the hook in machine
code (hooks.s) walks the tables; what it cannot answer, `_fill` below gives to the kernel's page-fault path. The engine
runs in ring 3; nothing but that path runs inside a hook. A system call, an exception or the end of a slice stops the
engine, and `run` returns.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable, Sequence
from ctypes import byref, c_int, c_uint64, c_void_p
from typing import Any

from loadstone.errors import HostError
from loadstone.lean import NamedTuple
from loadstone.machine import native_code
from loadstone.machine import unicorn_library as uc
from loadstone.machine.core import (
    ACCESS_EXECUTE,
    ACCESS_READ,
    ACCESS_WRITE,
    BREAKPOINT,
    DEBUG,
    DEBUG_STEP,
    EXCEPTION,
    GENERAL_PROTECTION,
    INTERRUPTED,
    INVALID_OPCODE,
    OVERFLOW,
    PAGE_FAULT,
    SLICE_END,
    STACK_FAULT,
    STOPPED_AT,
    SYSTEM_CALL,
    Exits,
    Resolver,
    Space,
    Trap,
)
from loadstone.machine.cpuid import HWCAP, HWCAP2, MINIMUM_SIGNAL_STACK, cpuid
from loadstone.machine.instruction import (
    LEGACY,
    LONGEST,
    ONE_BYTE,
    TWO_BYTE,
    decode,
    ending_jump,
    in_stack_segment,
    loaded_selector,
    modifies_memory,
    touched,
)
from loadstone.machine.paging import ACCESSED, DIRTY, FRAME_MASK, NO_EXECUTE, PRESENT, WRITABLE
from loadstone.machine.physical import FRAME_SIZE, RESERVED, PhysicalMemory
from loadstone.machine.segments import DESCRIPTORS
from loadstone.machine.vex import find_vex, find_vex_in_block

_USER_TOP = 1 << 47
_KERNEL_HALF = (1 << 64) - (1 << 47)
_ALIGNMENT_CHECK = 1 << 18  # AC, in RFLAGS

_GENERAL = [
    "r15",
    "r14",
    "r13",
    "r12",
    "rbp",
    "rbx",
    "r11",
    "r10",
    "r9",
    "r8",
    "rax",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rip",
    "cs",
    "eflags",
    "rsp",
    "ss",
    "fs_base",
    "gs_base",
    "ds",
    "es",
    "fs",
    "gs",
]
_CALL = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9", "rip", "eflags")
_CONTRIBUTORY = (0, 10, 11, 12, 13)
_NINE_WORDS = struct.Struct("9Q").unpack_from
_RIP, _EFLAGS = 41, 25
_GATES_OF_RING_3 = (BREAKPOINT, OVERFLOW, 0x80)  # what `int n` may name; with any other n it is refused
_PORT_STRINGS = tuple((ONE_BYTE, opcode) for opcode in range(0x6C, 0x70))  # INS and OUTS
_RING_0_CALLED_INVALID = (0x07, 0x33, 0x35)  # 0F xx: SYSRET, RDPMC, SYSEXIT, which Unicorn holds for no instructions
_INT, _INT1 = 0xCD, 0xF1
_MASK64 = (1 << 64) - 1
_LINUX_CS, _LINUX_SS = 0x33, 0x2B

# The stub that takes the core from ring 0 to ring 3, and the GDT with Linux's selectors; one reserved frame, which the
# program cannot name: it sits in the last slot of the page directory.
_KERNEL_BASE = 0xFFFF_FF80_0000_0000
_GDT, _IRETQ, _STACK = 0x000, 0x100, 0x200
_CR4_TSD = 4  # RDTSC outside ring 0 is a general-protection exception, which the kernel answers from its clock
_CR0_NE = 0x20  # x87 errors are exceptions, not interrupts of the PC's old wiring
_CR4_OSFXSR, _CR4_OSXMMEXCPT = 0x200, 0x400
_RFLAGS_AT_ENTRY = 0x202

# Where the frames are all executable to the core itself, and only while it drops the translations of one.
_FRAMES_BASE = 0xFFFF_8000_0000_0000

_TLB_ENTRIES = 256  # Unicorn's TLB at the start; it grows only when flushed
_FEW_FRAMES = 256  # of code that were rewritten; for more it is cheaper to drop all translations
_QUARANTINE_LIMIT = 4096

_ACCESS = {uc.MEM_READ: ACCESS_READ, uc.MEM_WRITE: ACCESS_WRITE, uc.MEM_FETCH: ACCESS_EXECUTE}
_SYSTEM_CALL_TRAP = Trap(SYSTEM_CALL)
_SLICE_END_TRAP = Trap(SLICE_END)
_INTERRUPTED_TRAP = Trap(INTERRUPTED)
_STOPPED_AT_TRAP = Trap(STOPPED_AT)


class _NotCanonical(NamedTuple):
    """An access to an address that 48 bits do not hold."""

    address: int
    access: int


class UnicornContext:
    """The CPU state of one task: in the engine while it runs there, else in a saved context of Unicorn's."""

    __slots__ = ("_core", "handle", "return_to", "stopped_at")

    extended_size = 512  # no XSAVE: the FXSAVE image is all there is
    extended_features = 3

    def __init__(self, core: UnicornCore, handle: c_void_p) -> None:
        self._core = core
        self.handle = handle
        self.return_to: tuple[int, int] | None = None  # RIP and RFLAGS at the last system call
        self.stopped_at = -1  # the breakpoint it stopped at and has not gone past

    @property
    def pc(self) -> int:
        """RIP."""
        return self.read("rip")

    @pc.setter
    def pc(self, value: int) -> None:
        self.write("rip", value)

    @property
    def sp(self) -> int:
        """RSP."""
        return self.read("rsp")

    @sp.setter
    def sp(self, value: int) -> None:
        self.write("rsp", value)

    def read(self, register: str) -> int:
        """A register's value, unsigned."""
        return self._core.read_register(self, uc.REGISTERS[register])

    def write(self, register: str, value: int) -> None:
        """Set a register. Writing a selector of ring 3 leaves the descriptor as it is."""
        self._core.write_register(self, uc.REGISTERS[register], value)

    def registers(self) -> dict[str, int]:
        """All of them, in ptrace's order, then FCW and MXCSR."""
        return {name: self.read(name) for name in (*_GENERAL, "fcw", "mxcsr")}

    def system_call(self) -> tuple[int, ...]:
        """RAX and RDI RSI RDX R10 R8 R9 at the SYSCALL instruction."""
        return self._core.read_call(self)

    def set_result(self, value: int) -> None:
        """RAX; RCX and R11 become the return address and the flags, as SYSCALL leaves them."""
        self._core.write_result(self, value)

    def reset(self) -> None:
        """The state in which exec leaves a CPU."""
        self._core.reset_context(self)

    def save_fpu(self) -> bytes:
        """The 512-byte FXSAVE image (Intel SDM vol. 1, 10.5.1)."""
        read = self._core.read_wide
        tags = self.read("ftw")
        abridged = sum(1 << i for i in range(8) if tags >> (2 * i) & 3 != 3)
        head = struct.pack(
            "<HHBxHQQII", self.read("fcw"), self.read("fsw"), abridged, 0, 0, 0, self.read("mxcsr"), 0xFFFF
        )
        x87 = b"".join(read(self, uc.REG_ST0 + i, 10).ljust(16, b"\0") for i in range(8))
        sse = b"".join(read(self, uc.REG_XMM0 + i, 16) for i in range(16))
        return (head + x87 + sse).ljust(512, b"\0")

    def load_fpu(self, image: bytes) -> None:
        """Set x87 and SSE state from an FXSAVE image."""
        write = self._core.write_wide
        fcw, fsw, abridged, _, _, _, mxcsr = struct.unpack_from("<HHBxHQQI", image)
        self.write("fcw", fcw)
        self.write("fsw", fsw)
        for i in range(8):
            write(self, uc.REG_ST0 + i, image[32 + 16 * i : 42 + 16 * i])
        self.write("ftw", sum(0 if abridged >> i & 1 else 3 << (2 * i) for i in range(8)))
        for i in range(16):
            write(self, uc.REG_XMM0 + i, image[160 + 16 * i : 176 + 16 * i])
        self.write("mxcsr", mxcsr)

    save_extended = save_fpu
    load_extended = load_fpu

    def copy(self) -> UnicornContext:
        """Another context with the same state."""
        return self._core.copy_context(self)

    def release(self) -> None:
        """The saved context is used again for another task."""
        self._core.release_context(self)


class UnicornCore:
    """One CPU core.

    `resolve` is the page-fault path: (space, address, access, pc) -> None or what went wrong. The address is that of
    the page unless `wants_address()`: to find the exact one the instruction is decoded, which only a listener pays for.
    """

    name = "unicorn"
    exit_ns = 0
    capabilities = frozenset({"x86_64", "deterministic", "breakpoints"})
    hwcap = HWCAP
    hwcap2 = HWCAP2
    minimum_signal_stack = MINIMUM_SIGNAL_STACK

    def __init__(
        self,
        memory: PhysicalMemory,
        resolve: Resolver,
        wants_address: Callable[[], bool] = lambda: True,
        number: int = 0,
    ) -> None:
        if not native_code.supported():
            raise HostError("the Unicorn core needs an x86-64 host: its hooks are machine code")
        self.number = number
        self.retired = 0
        self.flushes = 0
        self.blocks_checked = 0
        self.exits = Exits()
        self._memory = memory
        self._resolve = resolve
        self._wants_address = wants_address
        library = uc.load()
        self._library: Any = library
        self._uc = c_void_p()
        self._open(library)
        self._hooks = native_code.NativeHooks(ctypes.cast(library.uc_emu_stop, c_void_p).value or 0)
        self._control = self._hooks.control
        self._control.memory = memory.base
        self._written = mmap.mmap(-1, memory.frames)  # a byte a frame, 1 if it may be writable in the TLB
        self._pins = [ctypes.c_char.from_buffer(marks) for marks in (memory.executed, self._written)]
        self._control.executed, self._control.written = map(ctypes.addressof, self._pins)
        self._control.uc = self._uc.value
        self._handles: list[c_void_p] = []
        self._spare_handles: list[c_void_p] = []  # of tasks that are gone
        self._context: UnicornContext | None = None
        self._space: Any = None
        self._in_hook = False
        self._filling = -1  # the page whose translation is being made
        self._dropping = False  # translations of code, by frame
        self._booting = True
        self._stale_tlb = False
        self._stale_code = False
        self._interrupted = False
        self._vector = -1
        self._refused = False
        self._failure: Any = None
        self._error: BaseException | None = None
        self._tlb_limit = _TLB_ENTRIES
        self._quarantine_limit = min(_QUARANTINE_LIMIT, memory.frames // 16)  # little of a small memory waits
        self._modifying: dict[int, bool] = {}  # by address of instructions that faulted
        self._checked: set[int] = set()  # addresses in the space of now whose first block was looked at
        self._checked_places: set[int] = set()  # the same as physical addresses: true for every space
        self._breakpoints: dict[int, c_void_p] = {}
        self._next_pc = -1  # where the context in the engine goes on, where that is known
        self._exception_offset = -1
        self._make_buffers()
        self._add_hooks()
        self._boot_frame = memory.allocate(RESERVED)
        self._enter_ring_3()

    # -- what the kernel calls ----------------------------------------------------------------------------------------

    def new_context(self) -> UnicornContext:
        """A context in the state in which exec leaves it."""
        return self.copy_context(self._pristine)

    def run(self, context: UnicornContext, space: Space, budget: int) -> Trap:
        """Run until a trap, at most about `budget` bytes of instructions."""
        if context is not self._context or space is not self._space:
            self._switch(context, space)
        control = self._control
        control.budget = budget
        pc = self._next_pc if self._next_pc >= 0 else self.read_register(context, _RIP)
        self._next_pc = -1
        control.skip = pc if pc == context.stopped_at else -1
        while True:
            if self._interrupted:
                self._interrupted = False
                return _INTERRUPTED_TRAP
            self._drop_stale()
            control.reason = 0
            status = self._emu_start(self._uc, pc, 0, 0, 0)
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if pc not in self._checked:
                self._check_first_block(pc)
            if control.ring_count:
                self._check_blocks()
            trap = self._trap(status, control.reason)
            self._count(trap)
            if trap is not None:
                if trap is not _SYSTEM_CALL_TRAP and self.read_register(context, _EFLAGS) & _ALIGNMENT_CHECK:
                    raise _no_alignment_checks()
                if control.skip < 0 and trap is not _STOPPED_AT_TRAP:
                    context.stopped_at = -1
                self.retired += budget - control.budget
                return trap
            pc = self.read_register(context, _RIP)

    def interrupt(self) -> None:
        """Make `run` return INTERRUPTED at the end of the slice at the latest."""
        self._interrupted = True

    def break_at(self, address: int) -> None:
        """Return STOPPED_AT before the instruction at `address` is executed."""
        if address not in self._breakpoints:
            self._breakpoints[address] = self._hook(uc.HOOK_CODE, self._hooks.code, address, address)
            self._stale_code = True

    def unbreak(self, address: int) -> None:
        """Take a breakpoint back."""
        handle = self._breakpoints.pop(address, None)
        if handle is not None:
            uc.check(self._library, self._library.uc_hook_del(self._uc, handle), "removing a hook")
            self._stale_code = True

    def invalidate(self, root: int, start: int, end: int, frames: Sequence[int]) -> None:
        """Forget cached translations: all of them, at once when a hook is running, else before the next start."""
        if self._space is None or root != self._space.page_table.root:
            return  # switching to that address space flushes
        if self._in_hook and start == self._filling and end == start + FRAME_SIZE:
            executed = self._memory.executed
            for frame in frames:
                if executed[frame]:
                    break
            else:
                return  # the fill that is under way replaces this very translation
        self._stale_tlb = True

    def forget_code(self, frame: int) -> None:
        """Drop the translations of the code in `frame` before the next start."""
        self._memory.rewritten.append(frame)

    def close(self) -> None:
        """Close the engine; its contexts go with it."""
        if self._uc:
            for handle in self._handles:
                self._library.uc_context_free(handle)
            self._library.uc_close(self._uc)
            self._uc = c_void_p()
            self._hooks.close()
            self._pins.clear()
            self._library = _Closed()
            self._emu_start = self._reg_read = self._reg_write = _refuse_closed
            self._reg_read_batch = self._reg_write_batch = _refuse_closed

    # -- contexts -----------------------------------------------------------------------------------------------------

    def read_register(self, context: UnicornContext, number: int) -> int:
        """One register of a context, unsigned."""
        cell = self._cell
        cell.value = 0
        if context is self._context:
            self._reg_read(self._uc, number, self._cell_address)
        else:
            self._library.uc_context_reg_read(context.handle, number, self._cell_address)
        return cell.value

    def write_register(self, context: UnicornContext, number: int, value: int) -> None:
        """Set one register of a context."""
        if number in (11, 49):  # CS, SS: loading a selector would need the GDT; ring 3's are the only ones
            return
        if number == _RIP:
            self._next_pc = -1
        self._cell.value = value & _MASK64
        if context is self._context:
            self._reg_write(self._uc, number, self._cell_address)
        else:
            self._library.uc_context_reg_write(context.handle, number, self._cell_address)

    def read_wide(self, context: UnicornContext, number: int, size: int) -> bytes:
        """A register of more than 64 bits."""
        self._load(context)
        buffer = ctypes.create_string_buffer(16)
        self._reg_read(self._uc, number, ctypes.addressof(buffer))
        return buffer.raw[:size]

    def write_wide(self, context: UnicornContext, number: int, value: bytes) -> None:
        """Set a register of more than 64 bits."""
        self._load(context)
        self._reg_write(self._uc, number, ctypes.addressof(ctypes.create_string_buffer(value, 16)))

    def read_call(self, context: UnicornContext) -> tuple[int, ...]:
        """The registers of a system call."""
        self._load(context)
        self._reg_read_batch(self._uc, self._call_ids, self._call_pointers, 9)
        *registers, pc, flags = _NINE_WORDS(self._call_values)
        if flags & _ALIGNMENT_CHECK:
            raise _no_alignment_checks()
        self._next_pc = pc
        context.return_to = (pc, flags)
        return tuple(registers)

    def write_result(self, context: UnicornContext, value: int) -> None:
        """RAX, and RCX and R11 as SYSCALL leaves them; after exec, which does not return to its caller, RAX alone."""
        values = self._result_values
        values[0] = value & _MASK64
        if context is not self._context:
            self._write_saved_result(context)
        elif context.return_to is None:
            self._reg_write(self._uc, uc.REGISTERS["rax"], ctypes.addressof(values))
        else:
            values[1], values[2] = context.return_to
            self._reg_write_batch(self._uc, self._result_ids, self._result_pointers, 3)

    def _write_saved_result(self, context: UnicornContext) -> None:
        """The same for a context that is not in the engine: of fork's child, or of a task whose wait is over."""
        write = self._library.uc_context_reg_write
        base = ctypes.addressof(self._result_values)
        write(context.handle, self._result_ids[0], base)
        if context.return_to is not None:
            self._result_values[1], self._result_values[2] = context.return_to
            write(context.handle, self._result_ids[1], base + 8)
            write(context.handle, self._result_ids[2], base + 16)

    def reset_context(self, context: UnicornContext) -> None:
        """The state in which exec leaves a CPU."""
        if self._context is not None and self._context is not context:
            self._save()
        self._library.uc_context_restore(self._uc, self._pristine.handle)
        self._context = context
        context.return_to = None
        self._next_pc = -1
        self._stale_tlb = True

    def copy_context(self, context: UnicornContext) -> UnicornContext:
        """Another context with the same state."""
        self._load(context)
        handle = self._new_handle()
        self._library.uc_context_save(self._uc, handle)
        copy = UnicornContext(self, handle)
        copy.return_to = context.return_to
        return copy

    def release_context(self, context: UnicornContext) -> None:
        """Its task has ended."""
        if context is self._context:
            self._context = None
        if context.handle:
            self._spare_handles.append(context.handle)
            context.handle = c_void_p()

    def _new_handle(self) -> c_void_p:
        """A saved context of Unicorn's, freed with the engine."""
        if self._spare_handles:
            return self._spare_handles.pop()
        handle = c_void_p()
        uc.check(self._library, self._library.uc_context_alloc(self._uc, byref(handle)), "context")
        self._handles.append(handle)
        return handle

    def _load(self, context: UnicornContext) -> None:
        """Bring a context into the engine."""
        if context is self._context:
            return
        self._save()
        self._library.uc_context_restore(self._uc, context.handle)
        self._context = context
        self._next_pc = -1
        self._stale_tlb = True

    def _save(self) -> None:
        if self._context is not None:
            self._library.uc_context_save(self._uc, self._context.handle)

    def _switch(self, context: UnicornContext, space: Space) -> None:
        self._load(context)
        if space is not self._space:
            self._space = space
            self._checked.clear()
            self._modifying.clear()
            self._stale_tlb = True
        self._control.root = space.page_table.root * FRAME_SIZE

    # -- running ------------------------------------------------------------------------------------------------------

    def _trap(self, status: int, reason: int) -> Trap | None:
        """What the engine's stop means; None to go on."""
        if self._refused:
            return self._back_to_refused()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            if self._instruction_at(self._pc()) in _PORT_STRINGS:  # whether it may is asked before where
                return Trap(EXCEPTION, GENERAL_PROTECTION, None, self._pc())
            if isinstance(failure, _NotCanonical):
                return self._not_canonical(failure.access)
            return Trap(EXCEPTION, PAGE_FAULT, failure, self._pc())
        if status == uc.ERR_INSN_INVALID:
            return self._invalid()
        if status == uc.ERR_EXCEPTION:
            return Trap(EXCEPTION, GENERAL_PROTECTION, None, self._pc())
        if status != uc.ERR_OK:
            raise HostError(f"Unicorn stopped at {self._pc():#x}: {self._library.uc_strerror(status).decode()}")
        if self._vector >= 0:
            return self._exception()
        if reason == native_code.REASON_SYSCALL:
            return _SYSTEM_CALL_TRAP
        if reason == native_code.REASON_BREAKPOINT:
            assert self._context is not None
            self._context.stopped_at = self._pc()
            return _STOPPED_AT_TRAP
        if reason == native_code.REASON_SLICE:
            return _SLICE_END_TRAP
        return None

    def _count(self, trap: Trap | None) -> None:
        """Count a stop of the engine. Page faults are counted where they are resolved, which is inside a hook."""
        if trap is _SYSTEM_CALL_TRAP:
            self.exits.system_calls += 1
        elif trap is None or trap.kind != EXCEPTION:
            self.exits.interrupts += 1
        elif trap.vector != PAGE_FAULT:
            self.exits.exceptions += 1

    def _exception(self) -> Trap:
        """The exception or software interrupt in which the engine stopped."""
        vector, self._vector = self._vector, -1
        if vector in _CONTRIBUTORY:
            self._forget_exception(vector)
        pc = self._pc()
        if vector not in _GATES_OF_RING_3 and self._code_at(pc - 2, 2) == bytes((_INT, vector)):
            self._set_pc(pc - 2)
            return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc - 2, error=_gate_error(vector))
        error = DEBUG_STEP if vector == DEBUG else 0
        if vector == GENERAL_PROTECTION and self._context is not None:  # it names the selector, without its ring
            error = loaded_selector(self._code_at(pc, LONGEST), self._context.read) & ~3
        return Trap(EXCEPTION, vector, None, pc, error=error)

    def _not_canonical(self, access: int) -> Trap:
        """No page fault: the CPU refuses the address, of a jump before it jumps, of an operand by its segment."""
        if access != ACCESS_EXECUTE:
            vector = STACK_FAULT if in_stack_segment(self._code_at(self._pc(), LONGEST)) else GENERAL_PROTECTION
            return Trap(EXCEPTION, vector, None, self._pc())
        block = self._control.block
        jump = ending_jump(self._code_at(block, FRAME_SIZE))
        if jump is not None:
            context = self._context
            assert context is not None
            self._set_pc(block + jump.start)
            context.sp -= jump.stack
        return Trap(EXCEPTION, GENERAL_PROTECTION, None, self._pc())

    def _invalid(self) -> Trap:
        """What Unicorn holds for no instruction: most are none."""
        pc = self._pc()
        self._refuse_vex(pc)
        table, opcode = self._instruction_at(pc)
        if table == TWO_BYTE and opcode in _RING_0_CALLED_INVALID:
            return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc)
        if table == ONE_BYTE and opcode == _INT1:
            self._set_pc(pc + 1)
            return Trap(EXCEPTION, DEBUG, None, pc)
        if table == ONE_BYTE and opcode == _INT:  # int 6
            return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc, error=_gate_error(INVALID_OPCODE))
        return Trap(EXCEPTION, INVALID_OPCODE, None, pc)

    def _back_to_refused(self) -> Trap:
        """Only ring 0 may do what the program did; the rest of its block ran, and is undone in the registers."""
        self._refused = False
        self._failure = None
        self._vector = -1
        self._library.uc_context_restore(self._uc, self._refused_state)
        self._stale_tlb = True
        return Trap(EXCEPTION, GENERAL_PROTECTION, None, self._pc())

    def _instruction_at(self, pc: int) -> tuple[int, int]:
        """Opcode map and opcode of the instruction at `pc`; (-1, -1) where there is none."""
        found = decode(self._code_at(pc, LONGEST))
        return (found.map, found.opcode) if found is not None else (-1, -1)

    def _forget_exception(self, vector: int) -> None:
        """Tell the engine that the exception was taken; it would make the next one a double fault.

        Unicorn keeps the number of the last contributory exception (SDM vol. 3, table 6-5) until its own delivery,
        which never happens here. Where it is in a saved context is found once, by comparing with one from before.
        """
        size = int(self._library.uc_context_size(self._uc))
        self._library.uc_context_save(self._uc, self._scratch)
        if self._exception_offset < 0:
            before = memoryview(ctypes.string_at(self._pristine.handle.value or 0, size)).cast("i")
            after = memoryview(ctypes.string_at(self._scratch.value or 0, size)).cast("i")
            pairs = enumerate(zip(before, after, strict=True))
            self._exception_offset = next((4 * i for i, pair in pairs if pair == (-1, vector)), 0)
        if self._exception_offset:
            c_int.from_address((self._scratch.value or 0) + self._exception_offset).value = -1
            self._library.uc_context_restore(self._uc, self._scratch)
            self._stale_tlb = True

    def _drop_stale(self) -> None:
        memory = self._memory
        if len(memory.quarantine) > self._quarantine_limit or len(memory.rewritten) > _FEW_FRAMES:
            self._stale_code = True
        if self._stale_code:
            self._stale_code = False
            self._stale_tlb = True
            self._library.uc_ctl(self._uc, c_int(uc.CTL_TB_FLUSH))
            self._checked.clear()
            self._checked_places.clear()
            memory.rewritten.clear()
            memory.end_quarantine()
        elif memory.rewritten:
            for frame in set(memory.rewritten):
                self._drop_translations(frame)
            memory.rewritten.clear()
        if self._stale_tlb:
            self._flush_tlb()

    def _drop_translations(self, frame: int) -> None:
        """Forget what was translated of the code in a frame; until the TLB is flushed nothing may run.

        Unicorn finds translations by the frame but takes a virtual address, so each frame has one for this.
        """
        address = _FRAMES_BASE + frame * FRAME_SIZE
        self._dropping = True
        self._library.uc_ctl(self._uc, c_int(uc.CTL_TB_REMOVE_CACHE), c_uint64(address), c_uint64(address + FRAME_SIZE))
        self._dropping = False
        self._memory.executed[frame] = 0
        self._checked.clear()
        self._checked_places.clear()
        self._stale_tlb = True

    def _flush_tlb(self) -> None:
        self._stale_tlb = False
        self.flushes += 1
        self._library.uc_ctl(self._uc, c_int(uc.CTL_TLB_FLUSH))
        self._control.fills = self._tlb_limit

    def _pc(self) -> int:
        self._reg_read(self._uc, 41, self._cell_address)
        return self._cell.value

    def _set_pc(self, pc: int) -> None:
        self._cell.value = pc
        self._reg_write(self._uc, _RIP, self._cell_address)

    def _fill(self, _uc: int, address: int, kind: int, result: Any, _data: int) -> bool:
        """What the walk in machine code could not answer: a page fault, a first fetch, a flush that is due."""
        if self._dropping:
            result.contents.paddr = address - _FRAMES_BASE
            result.contents.perms = uc.PROT_EXEC
            return True
        self._in_hook = True
        try:
            return self._translate(address, kind, result)
        except BaseException as error:  # an exception would be lost in the C code between here and run()
            self._error = error
            self._library.uc_emu_stop(self._uc)
            return False
        finally:
            self._in_hook = False

    def _translate(self, address: int, kind: int, result: Any) -> bool:
        if address >= _USER_TOP and self._machine_page(address, kind, result):
            return True
        if _USER_TOP <= address < _KERNEL_HALF:
            self._failure = _NotCanonical(address, _ACCESS[kind])
            return False
        words = self._memory.words
        table = self._space.page_table
        slot = table.find(address) if address < _USER_TOP else -1
        entry = words[slot] if slot >= 0 else 0
        if _allows(entry, kind):
            self.exits.translations += 1
        while not _allows(entry, kind):
            self.exits.page_faults += 1
            self._filling = address & -FRAME_SIZE
            access = _ACCESS[kind]
            if kind == uc.MEM_READ and not entry & PRESENT and self._modifies(self._pc()):
                access = ACCESS_WRITE
            if self._wants_address():
                pc = self._pc()
                self._failure = self._resolve(self._space, self._exact(address, kind, pc), access, pc)
            else:
                self._failure = self._resolve(self._space, address, access, 0)
            if self._failure is not None:
                self._failure = self._failure._replace(address=self._exact(address, kind, self._pc()))
                return False
            slot = table.find(address)
            entry = words[slot]
        entry |= ACCESSED | DIRTY if kind == uc.MEM_WRITE else ACCESSED
        words[slot] = entry
        frame = (entry & FRAME_MASK) >> 12
        self._guard_code(frame, kind, bool(entry & NO_EXECUTE))
        if self._stale_tlb:
            self._flush_tlb()
        elif self._control.fills < 0:
            self._tlb_limit *= 2
            self._flush_tlb()
        answer = result.contents
        answer.paddr = entry & FRAME_MASK
        answer.perms = self._permissions(entry, frame)
        return True

    def _guard_code(self, frame: int, kind: int, no_execute: bool) -> None:
        """Keep a frame from being code and writable at a time, but through a translation that executes too.

        Unicorn checks the stores of such a translation one by one; of any other it checks the first only.
        """
        executed, written = self._memory.executed, self._written
        if kind == uc.MEM_WRITE and no_execute and executed[frame]:
            self._drop_translations(frame)
        elif kind == uc.MEM_FETCH and not executed[frame]:
            executed[frame] = 1
            if written[frame]:
                written[frame] = 0
                if self._memory.references(frame) > 1:  # else it can be written nowhere else
                    self._stale_tlb = True

    def _permissions(self, entry: int, frame: int) -> int:
        """What the TLB may allow by itself. The first write and the first fetch are always seen (see hooks.s)."""
        permissions = uc.PROT_READ
        code = self._memory.executed[frame]
        if code:
            if entry & NO_EXECUTE:
                return permissions
            permissions |= uc.PROT_EXEC
        if entry & (WRITABLE | DIRTY) == WRITABLE | DIRTY:
            permissions |= uc.PROT_WRITE
            if not code:
                self._written[frame] = 1
        return permissions

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
        context = self._context
        assert context is not None
        return touched(self._code_at(pc, LONGEST), pc, page, context.read)

    def _machine_page(self, address: int, kind: int, result: Any) -> bool:
        """The reserved frame: all of it while booting; later the GDT, for instructions that load a selector."""
        if address & -FRAME_SIZE != _KERNEL_BASE:
            return False
        if not self._booting and (kind != uc.MEM_READ or not self._loads_selector(self._pc())):
            return False
        result.contents.paddr = self._boot_frame * FRAME_SIZE
        result.contents.perms = uc.PROT_ALL if self._booting else uc.PROT_READ
        return True

    def _loads_selector(self, pc: int) -> bool:
        """Whether the instruction at `pc` reads the GDT: MOV/POP to a segment register, far RET, IRET, LSL and LAR."""
        code = self._code_at(pc, 4).lstrip(b"\x66\x48\x41\x44\x4c")
        return code[:1] in (b"\x8e", b"\xcf", b"\xcb", b"\xca", b"\xff") or code[:2] in (
            b"\x0f\xa1", b"\x0f\xa9", b"\x0f\xb2", b"\x0f\xb4", b"\x0f\xb5", b"\x0f\x02", b"\x0f\x03", b"\x0f\x00",
        )  # fmt: skip

    def _cpuid(self, _uc: int, _data: int) -> int:
        """CPUID shows the CPU of cpuid.py; non-zero: the instruction is done."""
        context = self._context
        assert context is not None
        answer = cpuid(context.read("rax") & 0xFFFF_FFFF, context.read("rcx") & 0xFFFF_FFFF)
        for register, value in zip(("rax", "rbx", "rcx", "rdx"), answer, strict=True):
            context.write(register, value)
        return 1

    def _interrupt(self, _uc: int, vector: int, _data: int) -> None:
        """An exception or software interrupt of the program."""
        self._vector = vector
        self._library.uc_emu_stop(self._uc)

    def _privileged(self, _uc: int) -> int:
        """IN, OUT, INS, OUTS and SYSENTER, which Unicorn executes in any ring."""
        if not self._refused:
            self._refused = True
            self._library.uc_context_save(self._uc, self._refused_state)
            self._library.uc_emu_stop(self._uc)
        return 0

    # -- VEX ----------------------------------------------------------------------------------------------------------

    def _check_blocks(self) -> None:
        """Look at the new blocks that may hold a VEX instruction, before anything they did leaves the machine."""
        ring = self._hooks.ring
        count = self._control.ring_count
        self._control.ring_count = 0
        for i in range(count):
            self._check_block(ring[2 * i], ring[2 * i + 1])

    def _check_first_block(self, pc: int) -> None:
        """The block at which the engine starts has no edge into it: look at what follows up to the page's end."""
        assert self._space is not None
        self._checked.add(pc)
        place = self._space.page_table.entry(pc) & FRAME_MASK | pc % FRAME_SIZE
        if place in self._checked_places:
            return
        self._checked_places.add(place)
        code = self._code_at(pc, min(64, FRAME_SIZE - pc % FRAME_SIZE))
        if b"\xc4" in code or b"\xc5" in code:
            self._judge(pc, code, find_vex_in_block(code))

    def _check_block(self, pc: int, size: int) -> None:
        self.blocks_checked += 1
        code = self._code_at(pc, size)
        self._judge(pc, code, find_vex(code))

    def _judge(self, pc: int, code: bytes, at: int) -> None:
        if at >= 0:
            self._refuse(pc + at, code[at:])

    def _refuse_vex(self, pc: int) -> None:
        """An instruction that Unicorn itself refuses may be AVX as well: some VEX encodings, and all of EVEX."""
        code = self._code_at(pc, LONGEST)
        found = decode(code)
        if found is not None and found.encoding != LEGACY:
            self._refuse(pc, code)

    def _refuse(self, pc: int, code: bytes) -> None:
        raise HostError(
            f"the program uses AVX ({_disassemble(code, pc)} at {pc:#x}), which the Unicorn core would run wrongly: "
            "it needs --engine kvm"
        )

    def _code_at(self, pc: int, size: int) -> bytes:
        """The bytes of code at `pc`, as far as they are mapped."""
        parts = []
        while size > 0 and 0 <= pc < _USER_TOP and self._space is not None:
            entry = self._space.page_table.entry(pc)
            if not entry & PRESENT:
                break
            offset = pc % FRAME_SIZE
            length = min(size, FRAME_SIZE - offset)
            parts.append(bytes(self._memory.view((entry & FRAME_MASK) >> 12, offset, length)))
            pc += length
            size -= length
        return b"".join(parts)

    # -- making the engine --------------------------------------------------------------------------------------------

    def _open(self, library: ctypes.CDLL) -> None:
        uc.check(library, library.uc_open(uc.ARCH_X86, uc.MODE_64, byref(self._uc)), "open")
        uc.check(library, library.uc_ctl(self._uc, c_int(uc.CTL_TLB_TYPE), c_int(uc.TLB_VIRTUAL)), "virtual TLB")
        memory = self._memory
        uc.check(library, library.uc_mem_map_ptr(self._uc, 0, memory.size, uc.PROT_ALL, memory.base), "memory")
        self._emu_start = library.uc_emu_start
        self._reg_read = library.uc_reg_read
        self._reg_write = library.uc_reg_write
        self._reg_read_batch = library.uc_reg_read_batch
        self._reg_write_batch = library.uc_reg_write_batch

    def _make_buffers(self) -> None:
        """Arguments of the batch calls, made once."""
        self._cell = c_uint64()
        self._cell_address = ctypes.addressof(self._cell)

        def batch(names: tuple[str, ...], values: Any) -> tuple[Any, Any]:
            ids = (c_int * len(names))(*(uc.REGISTERS[name] for name in names))
            base = ctypes.addressof(values)
            return ids, (c_void_p * len(names))(*(base + 8 * i for i in range(len(names))))

        self._call_values = (c_uint64 * len(_CALL))()
        self._call_ids, self._call_pointers = batch(_CALL, self._call_values)
        self._result_values = (c_uint64 * 3)()
        self._result_ids, self._result_pointers = batch(("rax", "rcx", "r11"), self._result_values)

    def _add_hooks(self) -> None:
        self._callbacks = (
            uc.TLB_CALLBACK(self._fill),
            uc.INTERRUPT_CALLBACK(self._interrupt),
            uc.CPUID_CALLBACK(self._cpuid),
            uc.PRIVILEGED_CALLBACK(self._privileged),
        )
        fill, interrupt, identify, privileged = (ctypes.cast(callback, c_void_p) for callback in self._callbacks)
        self._control.resolve = fill.value
        hooks = self._hooks
        self._hook(uc.HOOK_TLB_FILL, hooks.fill)
        self._hook(uc.HOOK_INSN, hooks.syscall, 1, 0, c_int(uc.INSN_SYSCALL))
        self._hook(uc.HOOK_INSN, identify.value or 0, 1, 0, c_int(uc.INSN_CPUID))
        for instruction in (uc.INSN_IN, uc.INSN_OUT, uc.INSN_SYSENTER):
            self._hook(uc.HOOK_INSN, privileged.value or 0, 1, 0, c_int(instruction))
        self._hook(uc.HOOK_BLOCK, hooks.block)
        self._hook(uc.HOOK_EDGE_GENERATED, hooks.edge)
        self._hook(uc.HOOK_INTR, interrupt.value or 0)

    def _hook(self, kind: int, function: int, begin: int = 1, end: int = 0, *extra: c_int) -> c_void_p:
        """Add a hook on [begin, end], by default on everything."""
        handle = c_void_p()
        status = self._library.uc_hook_add(
            self._uc,
            byref(handle),
            c_int(kind),
            c_void_p(function),
            c_void_p(self._hooks.address),
            c_uint64(begin),
            c_uint64(end),
            *extra,
        )
        uc.check(self._library, status, "hook")
        return handle

    def _enter_ring_3(self) -> None:
        """Load the GDT and go through one IRETQ: from then on the program cannot do what only a kernel may."""
        page = self._memory.page(self._boot_frame)
        struct.pack_into(f"<{len(DESCRIPTORS)}Q", page, _GDT, *DESCRIPTORS)
        page[_IRETQ : _IRETQ + 2] = b"\x48\xcf"
        target = _KERNEL_BASE + _IRETQ + 2
        struct.pack_into("<5Q", page, _STACK, target, _LINUX_CS, _RFLAGS_AT_ENTRY, 0, _LINUX_SS)
        gdtr = uc.DescriptorTable(0, _KERNEL_BASE + _GDT, 8 * len(DESCRIPTORS) - 1, 0)
        self._library.uc_reg_write(self._uc, uc.REG_GDTR, byref(gdtr))
        no_task_state = uc.DescriptorTable(0, 0, 0, 0)  # no I/O permission map: IN and OUT are never allowed
        self._library.uc_reg_write(self._uc, uc.REG_TR, byref(no_task_state))
        self._control.fills = -1  # the walk in machine code has no tables yet
        self._control.budget = FRAME_SIZE
        bare = self._context = UnicornContext(self, c_void_p())
        cr0 = self.read_register(bare, uc.REGISTERS["cr0"])
        self.write_register(bare, uc.REGISTERS["cr0"], cr0 | _CR0_NE)
        cr4 = self.read_register(bare, uc.REGISTERS["cr4"])
        self.write_register(bare, uc.REGISTERS["cr4"], cr4 | _CR4_TSD | _CR4_OSFXSR | _CR4_OSXMMEXCPT)
        self.write_register(bare, uc.REGISTERS["rsp"], _KERNEL_BASE + _STACK)
        status = self._emu_start(self._uc, _KERNEL_BASE + _IRETQ, target, 0, 0)
        if self._error is not None:
            raise self._error
        uc.check(self._library, status, "entering ring 3")
        self._booting = False
        for name in _GENERAL:
            if name not in ("cs", "ss"):
                self.write_register(bare, uc.REGISTERS[name], 0)
        bare.write("eflags", _RFLAGS_AT_ENTRY)
        bare.write("fcw", 0x37F)
        bare.write("mxcsr", 0x1F80)
        bare.write("ftw", 0xFFFF)
        bare.handle = self._new_handle()
        self._library.uc_context_save(self._uc, bare.handle)
        self._pristine = bare
        self._scratch, self._refused_state = self._new_handle(), self._new_handle()
        self._stale_tlb = True


def _no_alignment_checks() -> HostError:
    return HostError(
        "the program has alignment checked (flag AC), which the Unicorn core does not do: it needs --engine kvm"
    )


def _refuse_closed(*_: object) -> int:
    raise HostError("the machine is closed")


class _Closed:
    """What stands for the library once the engine is gone."""

    def __getattr__(self, name: str) -> object:
        return _refuse_closed


def _allows(entry: int, kind: int) -> bool:
    """Whether a leaf entry permits the access."""
    if not entry & PRESENT:
        return False
    if kind == uc.MEM_WRITE:
        return bool(entry & WRITABLE)
    return kind != uc.MEM_FETCH or not entry & NO_EXECUTE


def _gate_error(vector: int) -> int:
    """The error code that names a gate of the interrupt descriptor table (Intel SDM vol. 3, 6.13)."""
    return vector << 3 | 2


def _disassemble(code: bytes, pc: int) -> str:
    """The first instruction of `code` as text, where the disassembler is installed."""
    try:
        import capstone
    except ImportError:
        return f"bytes {code[:8].hex(' ')}"
    for instruction in capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(code, pc, 1):
        return f"{instruction.mnemonic} {instruction.op_str}".strip()
    return f"bytes {code[:8].hex(' ')}"
