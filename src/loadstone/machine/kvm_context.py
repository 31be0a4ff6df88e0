"""The CPU state of a task on the KVM core.

General and system registers are 57 words in the layout that `struct kvm_run` shares (kvm_regs, then kvm_sregs): a
window on that very structure while the context is in the vCPU, a copy of its own else. The extended state (x87, SSE,
AVX…) is an XSAVE image in the uncompacted format, fetched from the vCPU and put back only when somebody wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from loadstone.errors import HostError
from loadstone.machine.core import ALL_REGISTERS, FXSAVE_SIZE, X87_SSE
from loadstone.machine.kvm_api import REGISTERS, XSAVE_SIZE
from loadstone.machine.segments import USER_CS, USER_SS

if TYPE_CHECKING:
    from loadstone.machine.kvm_core import KvmCore

WORDS = 57
_SREGS = len(REGISTERS)
# A segment is three words: base; limit, selector << 32, type << 48…; flags.
CS, DS, ES, FS, GS, SS = (_SREGS + 3 * number for number in range(6))
OF_CORE = slice(_SREGS + 18, _SREGS + 28)  # TR, LDT, GDT, IDT: where this core's ring 0 is
CR2, CR3 = _SREGS + 29, _SREGS + 30
INDEX = {name: number for number, name in enumerate(REGISTERS)} | {"fs_base": FS, "gs_base": GS}
RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8, R9, R10, R11, R12, R13, R14, R15, RIP, RFLAGS = range(_SREGS)
_SELECTORS = {"ds": DS, "es": ES, "fs": FS, "gs": GS}
_FIXED = {"cs": USER_CS, "ss": USER_SS}
_IN_IMAGE = {"fcw": (0, 2), "fsw": (2, 4), "mxcsr": (24, 28)}
_MASK64 = (1 << 64) - 1
TRAP_FLAG, INTERRUPTS_ON = 0x100, 0x200  # of RFLAGS; the latter is always set in a program
SYSRET_FLAGS = 0x3C7FD7  # what SYSRET takes over from R11; bit 1 is always set

# Where the extended state of the context is current.
IN_VCPU, FETCHED, CHANGED = range(3)

_XSTATE_BV = FXSAVE_SIZE  # the header's first word: which components are not in their initial state
_INITIAL_PKRU = 0x5555_5554  # access through key 0 only, as Linux starts programs
_PKRU_BIT, _PKRU_OFFSET = 1 << 9, 0xA80


def initial_state(xcr0: int) -> bytearray:
    """The XSAVE image with which a program starts."""
    image = bytearray(XSAVE_SIZE)
    image[0:2] = b"\x7f\x03"
    image[24:32] = b"\x80\x1f\0\0\xff\xff\0\0"
    present = X87_SSE
    if xcr0 & _PKRU_BIT:
        image[_PKRU_OFFSET : _PKRU_OFFSET + 4] = _INITIAL_PKRU.to_bytes(4, "little")
        present |= _PKRU_BIT
    image[_XSTATE_BV : _XSTATE_BV + 8] = present.to_bytes(8, "little")
    return image


class Closed:
    """In the place of the registers of a context that was in a vCPU which is no more."""

    def __getitem__(self, *_: object) -> NoReturn:
        raise HostError("the machine is closed")

    __setitem__ = __getitem__


class KvmContext:
    """One task's registers. `words` and `image` with `image_state` are the core's to move."""

    __slots__ = ("core", "image", "image_state", "is_new", "stopped_at", "words")

    def __init__(self, core: KvmCore, words: memoryview, image: bytearray) -> None:
        self.core = core
        self.words: Any = words  # of memoryview, or Closed
        self.image = image
        self.image_state = CHANGED
        self.is_new = True  # a thread or an image that has not run yet
        self.stopped_at = -1  # the breakpoint it was stopped at and has not gone on from

    @property
    def pc(self) -> int:
        """RIP."""
        return int(self.words[RIP])

    @pc.setter
    def pc(self, value: int) -> None:
        self.words[RIP] = value & _MASK64

    @property
    def sp(self) -> int:
        """RSP."""
        return int(self.words[RSP])

    @sp.setter
    def sp(self, value: int) -> None:
        self.words[RSP] = value & _MASK64

    def read(self, register: str) -> int:
        """A register's value, unsigned."""
        index = INDEX.get(register)
        if index is not None:
            return int(self.words[index])
        if register in _SELECTORS:
            return int(self.words[_SELECTORS[register] + 1] >> 32 & 0xFFFF)
        if register in _FIXED:
            return _FIXED[register]
        first, end = _IN_IMAGE[register]
        return int.from_bytes(self._fetched()[first:end], "little")

    def write(self, register: str, value: int) -> None:
        """Set a register. Writing a selector of ring 3 leaves the descriptor as it is."""
        index = INDEX.get(register)
        if index is not None:
            self.words[index] = value & _MASK64
        elif register in _SELECTORS:
            word = _SELECTORS[register] + 1
            self.words[word] = self.words[word] & ~(0xFFFF << 32) | (value & 0xFFFF) << 32
        elif register not in _FIXED:
            first, end = _IN_IMAGE[register]
            self._changing()[first:end] = value.to_bytes(end - first, "little")

    def write_registers(self, values: Mapping[str, int]) -> None:
        """Set several registers."""
        for register, value in values.items():
            self.write(register, value)

    def registers(self) -> dict[str, int]:
        """All of them: REGISTER_ORDER, then FCW and MXCSR."""
        return {name: self.read(name) for name in ALL_REGISTERS}

    def system_call(self) -> tuple[int, ...]:
        """RAX and RDI RSI RDX R10 R8 R9 at the SYSCALL instruction."""
        words = self.words
        return words[RAX], words[RDI], words[RSI], words[RDX], words[R10], words[R8], words[R9]

    def set_result(self, value: int) -> None:
        """RAX; RCX and R11 are as SYSCALL left them."""
        self.words[RAX] = value & _MASK64

    def reset(self) -> None:
        """The state in which exec leaves a CPU."""
        self.words[:] = memoryview(self.core.pristine).cast("Q")
        self.image[:] = initial_state(self.core.xcr0)
        self.image_state = CHANGED
        self.is_new = True

    def save_fpu(self) -> bytes:
        """The 512-byte FXSAVE image."""
        return bytes(self._fetched()[:FXSAVE_SIZE])

    def load_fpu(self, image: bytes) -> None:
        """Set x87 and SSE state from an FXSAVE image; the other components become initial (as XRSTOR of two does)."""
        target = self._changing()
        target[:FXSAVE_SIZE] = image[:FXSAVE_SIZE]
        present = int.from_bytes(target[_XSTATE_BV : _XSTATE_BV + 8], "little") & _PKRU_BIT | X87_SSE
        target[_XSTATE_BV : _XSTATE_BV + 8] = present.to_bytes(8, "little")

    @property
    def extended_size(self) -> int:
        """Bytes of the XSAVE image with all the components that a program may use."""
        return self.core.extended_size

    @property
    def extended_features(self) -> int:
        """XCR0, but for what needs a permission first."""
        return self.core.xcr0

    def save_extended(self) -> bytes:
        """The XSAVE image in the uncompacted format."""
        return bytes(self._fetched()[: self.core.extended_size])

    def load_extended(self, image: bytes) -> None:
        """Set the extended state from an XSAVE image whose header is valid."""
        self._changing()[: len(image)] = image

    def copy(self) -> KvmContext:
        """Another context with the same state."""
        return KvmContext(self.core, memoryview(bytearray(self.words)).cast("Q"), bytearray(self._fetched()))

    def release(self) -> None:
        """The core keeps nothing for it."""

    def _fetched(self) -> bytearray:
        if self.image_state == IN_VCPU:
            self.core.fetch_extended_state(self.image)
            self.image_state = FETCHED
        return self.image

    def _changing(self) -> bytearray:
        image = self._fetched()
        self.image_state = CHANGED
        return image
