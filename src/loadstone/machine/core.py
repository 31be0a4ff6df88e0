"""What a CPU core is to the kernel: it runs a context in an address space until something needs a decision.

`run` returns a trap. No kernel code runs inside a core except the page-fault path, which the machine hands to the core
as a callback when it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadstone.lean import Protocol
from loadstone.machine.paging import PageTable

# Kinds of trap.
SYSTEM_CALL, EXCEPTION, SLICE_END, INTERRUPTED, STOPPED_AT = range(5)

# x86 exception vectors (Intel SDM vol. 3, table 6-1).
DIVIDE, DEBUG, BREAKPOINT, OVERFLOW, BOUND, INVALID_OPCODE = 0, 1, 3, 4, 5, 6
DEBUG_STEP = 1 << 14  # DR6.BS: a single step
STACK_FAULT, GENERAL_PROTECTION, PAGE_FAULT, X87, ALIGNMENT, SIMD = 12, 13, 14, 16, 17, 19

REGISTER_ORDER = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "rip", "cs",
    "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
"""As ptrace has them, in struct user_regs_struct; that has orig_rax, which is the kernel's, behind rdi."""
ALL_REGISTERS = (*REGISTER_ORDER, "fcw", "mxcsr")
"""What a context has."""

FXSAVE_SIZE = 512
"""Bytes of the x87 and SSE state as FXSAVE stores it (Intel SDM vol. 1, 10.5.1)."""
X87_SSE = 3
"""These two states, as in XCR0."""

# The access that a fault was, in the same bits as a VMA's flags.
ACCESS_READ, ACCESS_WRITE, ACCESS_EXECUTE = 1, 2, 4


class Trap:
    """Why a core stopped.

    For an exception: `vector`, and `error`, the error code that the CPU pushes (for DEBUG: DR6); for a page fault that
    could not be resolved also `failure`, what the resolver said. `instruction` is its address. `why` is a sentence
    where the core itself knows better than the vector.
    """

    __slots__ = ("error", "failure", "instruction", "kind", "vector", "why")

    def __init__(
        self,
        kind: int,
        vector: int = -1,
        failure: Any = None,
        instruction: int = 0,
        why: str = "",
        error: int = 0,
    ) -> None:
        self.kind = kind
        self.vector = vector
        self.failure = failure
        self.instruction = instruction
        self.why = why
        self.error = error


class Exits:
    """How often a core left the program for Python code, by cause. Leaving is what KVM pays dearly for.

    Attributes:
        page_faults: absent or forbidden pages. system_calls: SYSCALL instructions.
        exceptions: every other exception of the program. interrupts: ticks, ends of slices, stops from outside.
        translations: pages whose translation Unicorn had to ask Python for without a fault (first fetches, flushes).
    """

    __slots__ = ("exceptions", "interrupts", "page_faults", "system_calls", "translations")

    def __init__(self) -> None:
        self.page_faults = self.system_calls = self.exceptions = self.interrupts = self.translations = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.page_faults + self.system_calls + self.exceptions + self.interrupts + self.translations


class Context(Protocol):
    """The CPU state of one task.

    Registers go by ptrace's names, those of REGISTER_ORDER, and fcw, mxcsr. Values are unsigned.
    """

    @property
    def extended_size(self) -> int:
        """Bytes of the state that a signal frame saves: 512 without XSAVE, else the uncompacted XSAVE image."""

    @property
    def extended_features(self) -> int:
        """Its components, as in XCR0."""

    @property
    def pc(self) -> int:
        """The instruction pointer."""

    @pc.setter
    def pc(self, value: int) -> None: ...

    @property
    def sp(self) -> int:
        """The stack pointer."""

    @sp.setter
    def sp(self, value: int) -> None: ...

    def read(self, register: str) -> int:
        """A register's value."""

    def write(self, register: str, value: int) -> None:
        """Set a register."""

    def write_registers(self, values: Mapping[str, int]) -> None:
        """Set several registers at once."""

    def registers(self) -> dict[str, int]:
        """All of them: REGISTER_ORDER, then FCW and MXCSR."""

    def system_call(self) -> tuple[int, ...]:
        """The call's number and six arguments, unsigned, as the ABI of the machine passes them."""

    def set_result(self, value: int) -> None:
        """What the system call returns (negative for an error)."""

    def reset(self) -> None:
        """The state in which exec leaves a CPU: everything 0 but FCW 0x37f, MXCSR 0x1f80, flags and selectors."""

    def save_fpu(self) -> bytes:
        """The x87 and SSE state as the 512-byte FXSAVE image."""

    def load_fpu(self, image: bytes) -> None:
        """Set the x87 and SSE state from an FXSAVE image."""

    def save_extended(self) -> bytes:
        """The extended state, `extended_size` bytes: a FXSAVE or XSAVE image."""

    def load_extended(self, image: bytes) -> None:
        """Set it; an XSAVE image's header must be valid, and what it leaves out becomes initial."""

    def copy(self) -> Context:
        """Another context with the same state, for fork and clone."""

    def release(self) -> None:
        """The task is gone: free what the core keeps for it."""


class Space(Protocol):
    """What a core needs of an address space."""

    @property
    def page_table(self) -> PageTable:
        """The tables the core walks."""


# (space, address, access, pc) -> None when the entry is there now, else what went wrong.
Resolver = Callable[[Any, int, int, int], object | None]


class Core(Protocol):
    """A CPU core."""

    name: str
    number: int
    cpu: int
    """The number of the machine's CPU whose turn it is: what RDTSCP tells the program."""
    capabilities: frozenset[str]
    hwcap: int
    """AT_HWCAP of the CPU that it is: CPUID.1:EDX."""
    hwcap2: int
    """AT_HWCAP2."""
    minimum_signal_stack: int
    """AT_MINSIGSTKSZ: what the kernel needs at most to deliver a signal on this CPU, in bytes."""
    retired: int
    """Work done so far, in bytes of machine code; the same on every run of the same program."""
    exits: Exits
    exit_ns: int
    """What leaving the program and entering it again costs by itself, in ns; 0 where that is not worth telling."""

    def new_context(self) -> Context:
        """A context in the state in which exec leaves it."""

    def run(self, context: Any, space: Space, budget: int) -> Trap:
        """Run until a trap, at most about `budget` bytes of instructions (then SLICE_END)."""

    def interrupt(self) -> None:
        """Make `run` return INTERRUPTED soon. May be called from a signal handler or another thread."""

    def break_at(self, address: int) -> None:
        """Return STOPPED_AT before the instruction at `address` is executed, in whatever address space."""

    def unbreak(self, address: int) -> None:
        """Take a breakpoint back."""

    def invalidate(self, root: int, start: int, end: int, frames: Sequence[int]) -> None:
        """Forget cached translations (see Shootdown)."""

    def close(self) -> None:
        """Free what the core holds on the host."""
