"""The CPU state of tasks on the Unicorn core: one of them is in the engine, the others in contexts that it saved."""

from __future__ import annotations

import ctypes
import struct
from ctypes import c_int, c_uint64, c_void_p
from typing import Any

from loadstone.errors import HostError
from loadstone.machine import unicorn_library as uc
from loadstone.machine.unicorn_engine import EFLAGS, RIP, Engine

_GENERAL = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "rip", "cs",
    "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_CALL = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9", "rip", "eflags")
_RESULT = ("rax", "rcx", "r11")
_NINE_WORDS = struct.Struct("9Q").unpack_from
_ALIGNMENT_CHECK = 1 << 18  # AC, in RFLAGS
_CS, _SS = uc.REGISTERS["cs"], uc.REGISTERS["ss"]
_RAX = uc.REGISTERS["rax"]
_MASK64 = (1 << 64) - 1


class UnicornContext:
    """The CPU state of one task.

    Attributes:
        handle: the saved context; what it holds is old while the state is in the engine.
        return_to: RIP and RFLAGS at the last system call; None after exec, which does not return to its caller.
        stopped_at: the breakpoint it stopped at and has not gone past; -1 for none.
    """

    __slots__ = ("_contexts", "handle", "return_to", "stopped_at")

    extended_size = 512  # no XSAVE: the FXSAVE image is all there is
    extended_features = 3

    def __init__(self, contexts: Contexts, handle: c_void_p) -> None:
        self._contexts = contexts
        self.handle = handle
        self.return_to: tuple[int, int] | None = None
        self.stopped_at = -1

    @property
    def pc(self) -> int:
        """RIP."""
        return self._contexts.read(self, RIP)

    @pc.setter
    def pc(self, value: int) -> None:
        self._contexts.write(self, RIP, value)

    @property
    def sp(self) -> int:
        """RSP."""
        return self.read("rsp")

    @sp.setter
    def sp(self, value: int) -> None:
        self.write("rsp", value)

    def read(self, register: str) -> int:
        """A register's value, unsigned."""
        return self._contexts.read(self, uc.REGISTERS[register])

    def write(self, register: str, value: int) -> None:
        """Set a register. Writing a selector of ring 3 leaves the descriptor as it is."""
        self._contexts.write(self, uc.REGISTERS[register], value)

    def registers(self) -> dict[str, int]:
        """All of them, in ptrace's order, then FCW and MXCSR."""
        return {name: self.read(name) for name in (*_GENERAL, "fcw", "mxcsr")}

    def system_call(self) -> tuple[int, ...]:
        """RAX and RDI RSI RDX R10 R8 R9 at the SYSCALL instruction."""
        return self._contexts.read_call(self)

    def set_result(self, value: int) -> None:
        """RAX; RCX and R11 become the return address and the flags, as SYSCALL leaves them."""
        self._contexts.write_result(self, value)

    def reset(self) -> None:
        """The state in which exec leaves a CPU."""
        self._contexts.reset(self)

    def save_fpu(self) -> bytes:
        """The 512-byte FXSAVE image (Intel SDM vol. 1, 10.5.1)."""
        read = self._contexts.read_wide
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
        write = self._contexts.write_wide
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
        return self._contexts.copy(self)

    def release(self) -> None:
        """The saved context is used again for another task."""
        self._contexts.release(self)


class Contexts:
    """All contexts of an engine, and which of them is in it.

    Attributes:
        current: the context in the engine.
        next_pc: where it goes on, as far as that is known without asking; else -1.
    """

    def __init__(self, engine: Engine) -> None:
        """The engine's registers are those in which exec leaves a CPU."""
        self.current: UnicornContext | None = None
        self.next_pc = -1
        self._engine = engine
        self._spare_handles: list[c_void_p] = []  # of tasks that are gone
        self._call_values = (c_uint64 * len(_CALL))()
        self._call_batch = _batch(_CALL, self._call_values)
        self._result_values = (c_uint64 * len(_RESULT))()
        self._result_batch = _batch(_RESULT, self._result_values)
        self._pristine = UnicornContext(self, engine.new_handle())
        engine.save(self._pristine.handle)
        self.current = self._pristine

    def new(self) -> UnicornContext:
        """A context in the state in which exec leaves it."""
        return self.copy(self._pristine)

    def read(self, context: UnicornContext, number: int) -> int:
        """One register of a context, unsigned."""
        if context is self.current:
            return self._engine.read(number)
        return self._engine.read_saved(context.handle, number)

    def write(self, context: UnicornContext, number: int, value: int) -> None:
        """Set one register of a context."""
        if number in (_CS, _SS):  # loading a selector would need the GDT; ring 3's are the only ones
            return
        if context is not self.current:
            self._engine.write_saved(context.handle, number, value & _MASK64)
            return
        if number == RIP:
            self.next_pc = -1
        self._engine.write(number, value & _MASK64)

    def read_wide(self, context: UnicornContext, number: int, size: int) -> bytes:
        """A register of more than 64 bits."""
        self.load(context)
        buffer = ctypes.create_string_buffer(16)
        self._engine.read_register(self._engine.uc, number, ctypes.addressof(buffer))
        return buffer.raw[:size]

    def write_wide(self, context: UnicornContext, number: int, value: bytes) -> None:
        """Set a register of more than 64 bits."""
        self.load(context)
        buffer = ctypes.create_string_buffer(value, 16)
        self._engine.write_register(self._engine.uc, number, ctypes.addressof(buffer))

    def read_call(self, context: UnicornContext) -> tuple[int, ...]:
        """The registers of a system call."""
        self.load(context)
        self._engine.read_batch(self._engine.uc, *self._call_batch)
        *registers, pc, flags = _NINE_WORDS(self._call_values)
        if flags & _ALIGNMENT_CHECK:
            raise no_alignment_checks()
        self.next_pc = pc
        context.return_to = (pc, flags)
        return tuple(registers)

    def write_result(self, context: UnicornContext, value: int) -> None:
        """RAX, and RCX and R11 as SYSCALL leaves them; after exec RAX alone."""
        values = self._result_values
        values[0] = value & _MASK64
        if context is not self.current:
            self._write_saved_result(context)
        elif context.return_to is None:
            self._engine.write_register(self._engine.uc, _RAX, ctypes.addressof(values))
        else:
            values[1], values[2] = context.return_to
            self._engine.write_batch(self._engine.uc, *self._result_batch)

    def _write_saved_result(self, context: UnicornContext) -> None:
        """The same for a context that is not in the engine: of fork's child, or of a task whose wait is over."""
        count = 1
        if context.return_to is not None:
            self._result_values[1], self._result_values[2] = context.return_to
            count = len(_RESULT)
        for name, value in zip(_RESULT[:count], self._result_values, strict=False):
            self._engine.write_saved(context.handle, uc.REGISTERS[name], value)

    def reset(self, context: UnicornContext) -> None:
        """The state in which exec leaves a CPU."""
        if self.current is not context:
            self._save()
        self._engine.restore(self._pristine.handle)
        self.current = context
        self.next_pc = -1
        context.return_to = None

    def copy(self, context: UnicornContext) -> UnicornContext:
        """Another context with the same state."""
        self.load(context)
        copy = UnicornContext(self, self._spare_handles.pop() if self._spare_handles else self._engine.new_handle())
        self._engine.save(copy.handle)
        copy.return_to = context.return_to
        return copy

    def release(self, context: UnicornContext) -> None:
        """Its task has ended."""
        if context is self.current:
            self.current = None
        if context.handle:
            self._spare_handles.append(context.handle)
            context.handle = c_void_p()

    def load(self, context: UnicornContext) -> None:
        """Bring a context into the engine."""
        if context is self.current:
            return
        self._save()
        self._engine.restore(context.handle)
        self.current = context
        self.next_pc = -1

    def refuse_alignment_checks(self) -> None:
        """Raise HostError if the context in the engine has the flag AC set."""
        if self._engine.read(EFLAGS) & _ALIGNMENT_CHECK:
            raise no_alignment_checks()

    def _save(self) -> None:
        if self.current is not None:
            self._engine.save(self.current.handle)


def no_alignment_checks() -> HostError:
    """The flag AC is set."""
    return HostError(
        "the program has alignment checked (flag AC), which the Unicorn core does not do: it needs --engine kvm"
    )


def _batch(names: tuple[str, ...], values: Any) -> tuple[Any, Any, int]:
    """The arguments of a batch call that moves these registers from or to `values`, made once."""
    count = len(names)
    base = ctypes.addressof(values)
    numbers = (c_int * count)(*(uc.REGISTERS[name] for name in names))
    return numbers, (c_void_p * count)(*(base + 8 * i for i in range(count))), count
