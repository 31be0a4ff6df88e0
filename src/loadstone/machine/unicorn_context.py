"""The CPU state of tasks on the Unicorn core: one of them is in the engine, the others in contexts that it saved."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ctypes import c_void_p

from loadstone.errors import HostError
from loadstone.machine import unicorn_library as uc
from loadstone.machine.core import ALL_REGISTERS, FXSAVE_SIZE, X87_SSE
from loadstone.machine.native_code import Control
from loadstone.machine.unicorn_engine import RIP, Batch, Engine

_unpack_call = struct.Struct("7Q").unpack_from  # Control.registers, but for RIP and RFLAGS
_pack_result = struct.Struct("2Q").pack_into  # Control.results, and the first of Control.result
_CALL_AT, _RESULTS_AT = Control.registers.offset, Control.results.offset
ALIGNMENT_CHECK = 1 << 18  # AC, in RFLAGS
_unpack_all = struct.Struct(f"{len(ALL_REGISTERS)}Q").unpack

# The x87 and SSE registers, 16 bytes each, in the order in which they must be set: the status word says which x87
# register is ST0.
_FLOATING = struct.Struct("<H14xH14x128sH14x256sI12x")  # FCW, FSW, ST0 to ST7, the tag word, XMM0 to XMM15, MXCSR
_FLOATING_NUMBERS = (
    *(uc.REGISTERS[name] for name in ("fcw", "fsw")),
    *range(uc.REG_ST0, uc.REG_ST0 + 8),
    uc.REGISTERS["ftw"],
    *range(uc.REG_XMM0, uc.REG_XMM0 + 16),
    uc.REGISTERS["mxcsr"],
)
_NO_TAGS = 0xFFFF  # of the x87 registers: all are empty
_SELECTORS = ("cs", "ss")  # loading one would need the GDT; ring 3's are the only ones
_SELECTOR_NUMBERS = tuple(uc.REGISTERS[name] for name in _SELECTORS)
_RAX = uc.REGISTERS["rax"]
_MASK64 = (1 << 64) - 1


class UnicornContext:
    """The CPU state of one task.

    Attributes:
        cpu: the number of the CPU that RDTSCP tells; it is part of the state.
        handle: the saved context; what it holds is old while the state is in the engine.
        stopped_at: the breakpoint it stopped at and has not gone past; -1 for none.
    """

    __slots__ = ("_contexts", "cpu", "handle", "stopped_at")

    extended_size = FXSAVE_SIZE  # no XSAVE: that image is all there is
    extended_features = X87_SSE

    def __init__(self, contexts: Contexts, handle: c_void_p) -> None:
        self._contexts = contexts
        self.cpu = 0
        self.handle = handle
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

    def write_registers(self, values: Mapping[str, int]) -> None:
        """Set several registers, by one call; CS and SS stay what they are."""
        self._contexts.write_several(self, values)

    def registers(self) -> dict[str, int]:
        """All of them: REGISTER_ORDER, then FCW and MXCSR."""
        return self._contexts.read_all(self)

    def system_call(self) -> tuple[int, ...]:
        """RAX and RDI RSI RDX R10 R8 R9 at the SYSCALL instruction."""
        return _unpack_call(self._contexts.shared, _CALL_AT)

    def set_result(self, value: int) -> None:
        """RAX; RCX and R11 are the return address and the flags already, as SYSCALL leaves them."""
        contexts = self._contexts
        if contexts.current is self:
            _pack_result(contexts.shared, _RESULTS_AT, 1, value & _MASK64)
        else:  # fork's child, or a task whose wait is over
            contexts.write(self, _RAX, value)

    def reset(self) -> None:
        """The state in which exec leaves a CPU."""
        self._contexts.reset(self)

    def save_fpu(self) -> bytes:
        """The 512-byte FXSAVE image (Intel SDM vol. 1, 10.5.1)."""
        fcw, fsw, x87, tags, sse, mxcsr = _FLOATING.unpack(self._contexts.read_floating(self))
        abridged = 0 if tags == _NO_TAGS else sum(1 << i for i in range(8) if tags >> (2 * i) & 3 != 3)
        head = struct.pack("<HHBxHQQII", fcw, fsw, abridged, 0, 0, 0, mxcsr, 0xFFFF)
        image: bytes = head + x87 + sse
        return image.ljust(FXSAVE_SIZE, b"\0")

    def load_fpu(self, image: bytes) -> None:
        """Set x87 and SSE state from an FXSAVE image."""
        fcw, fsw, abridged, _, _, _, mxcsr = struct.unpack_from("<HHBxHQQI", image)
        tags = sum(0 if abridged >> i & 1 else 3 << (2 * i) for i in range(8)) if abridged else _NO_TAGS
        self._contexts.write_floating(self, _FLOATING.pack(fcw, fsw, image[32:160], tags, image[160:416], mxcsr))

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
        shared: Control, as bytes. The current context goes on at Control.pc; the result of its system call waits there
            until the engine is entered, or asked for a register.
    """

    def __init__(self, engine: Engine) -> None:
        """The engine's registers are those in which exec leaves a CPU."""
        self.current: UnicornContext | None = None
        self.shared = engine.shared
        self._engine = engine
        self._spare_handles: list[c_void_p] = []  # of tasks that are gone
        self._control = engine.control
        self._all = Batch(engine, [uc.REGISTERS[name] for name in ALL_REGISTERS], 8)
        self._floating = Batch(engine, _FLOATING_NUMBERS, 16)
        self._some: dict[tuple[str, ...], Batch] = {}  # the few combinations that are set together
        self._pristine = UnicornContext(self, engine.new_handle())
        engine.save(self._pristine.handle)
        self.current = self._pristine

    def new(self) -> UnicornContext:
        """A context in the state in which exec leaves it."""
        return self.copy(self._pristine)

    def read(self, context: UnicornContext, number: int) -> int:
        """One register of a context, unsigned."""
        if context is not self.current:
            return self._engine.read_saved(context.handle, number)
        self._settle()
        return self._engine.read(number)

    def write(self, context: UnicornContext, number: int, value: int) -> None:
        """Set one register of a context."""
        if number in _SELECTOR_NUMBERS:
            return
        if context is not self.current:
            self._engine.write_saved(context.handle, number, value & _MASK64)
            return
        if number == RIP:
            self._control.pc = value
        self._settle()
        self._engine.write(number, value & _MASK64)

    def write_several(self, context: UnicornContext, values: Mapping[str, int]) -> None:
        """Set registers of 64 bits or less, by ptrace's names."""
        self.load(context)
        self._settle()
        self._control.pc = values.get("rip", self._control.pc)
        names = tuple([name for name in values if name not in _SELECTORS])
        batch = self._some.get(names)
        if batch is None:
            batch = self._some[names] = Batch(self._engine, [uc.REGISTERS[name] for name in names], 8)
        batch.write(struct.pack(f"{len(names)}Q", *[values[name] & _MASK64 for name in names]))

    def read_all(self, context: UnicornContext) -> dict[str, int]:
        """All registers of 64 bits or less, by ptrace's names."""
        self.load(context)
        self._settle()
        return dict(zip(ALL_REGISTERS, _unpack_all(self._all.read()), strict=True))

    def read_floating(self, context: UnicornContext) -> bytes:
        """The x87 and SSE registers, laid out as _FLOATING."""
        self.load(context)
        self._settle()
        return bytes(self._floating.read())

    def write_floating(self, context: UnicornContext, image: bytes) -> None:
        """Set the x87 and SSE registers, laid out as _FLOATING."""
        self.load(context)
        self._settle()
        self._floating.write(image)

    def reset(self, context: UnicornContext) -> None:
        """The state in which exec leaves a CPU."""
        if self.current is not context:
            self._save()
        self._control.results = 0
        self._engine.restore(self._pristine.handle)
        self._go_on_with(context)
        context.cpu = 0

    def copy(self, context: UnicornContext) -> UnicornContext:
        """Another context with the same state."""
        self.load(context)
        self._settle()
        copy = UnicornContext(self, self._spare_handles.pop() if self._spare_handles else self._engine.new_handle())
        self._engine.save(copy.handle)
        copy.cpu = context.cpu
        return copy

    def release(self, context: UnicornContext) -> None:
        """Its task has ended."""
        if context is self.current:
            self.current = None
            self._control.results = 0
        if context.handle:
            self._spare_handles.append(context.handle)
            context.handle = c_void_p()

    def load(self, context: UnicornContext) -> None:
        """Bring a context into the engine."""
        if context is self.current:
            return
        self._save()
        self._engine.restore(context.handle)
        self._go_on_with(context)

    def _go_on_with(self, context: UnicornContext) -> None:
        self.current = context
        self._control.pc = self._engine.read(RIP)

    def move(self, context: UnicornContext, cpu: int) -> None:
        """The context that is in the engine goes on on another CPU."""
        context.cpu = cpu
        self._engine.set_cpu(cpu)

    def _settle(self) -> None:
        """Give the engine the result of a system call that it has not got yet."""
        control = self._control
        if control.results:
            engine = self._engine
            engine.write_batch(engine.uc, control.result_numbers, control.result_pointers, control.results)
            control.results = 0

    def _save(self) -> None:
        if self.current is not None:
            self._settle()
            self._engine.save(self.current.handle)


def no_alignment_checks() -> HostError:
    """The flag AC is set."""
    return HostError(
        "the program has alignment checked (flag AC), which the Unicorn core does not do: it needs --engine kvm"
    )
