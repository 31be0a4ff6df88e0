"""What a vCPU finds in ring 0: descriptor tables and stubs that only halt, so that every exception leaves the guest.

One half of every address space, in the last slot of the page directory, out of a program's reach:

    +0x0000  stubs     SYSCALL's entry at +0, the stub of vector v at +0x100 + 4 v; each is one HLT
    +0x1000  GDT, TSS  Linux's selectors, so that CS and SS are what programs expect; no I/O permission map
    +0x2000  IDT       256 gates to the stubs; INT3 and INTO may be executed in ring 3, no other software interrupt
    +0x3000  stack     where the CPU pushes the interrupted state

The halt's address says which vector it was, the stack the rest (Intel SDM vol. 3, figure 6-9, from the bottom up):

    [error code], RIP, CS, RFLAGS, RSP, SS
"""

from __future__ import annotations

import struct

from loadstone.machine.kvm_api import segment
from loadstone.machine.paging import ACCESSED, DIRTY, NO_EXECUTE, PRESENT, WRITABLE
from loadstone.machine.physical import ENTRIES, FRAME_SIZE, RESERVED, PhysicalMemory
from loadstone.machine.segments import DESCRIPTORS

BASE = 0xFFFF_FF80_0000_0000
SYSCALL_ENTRY = BASE
_STUBS = BASE + 0x100
_GDT, _TSS, _IDT, _STACK = BASE + 0x1000, BASE + 0x1100, BASE + 0x2000, BASE + 0x3000
_HLT = b"\xf4\x90\x90\x90"
_STUB_SIZE = len(_HLT)
HALTED_IN_SYSCALL = SYSCALL_ENTRY + 1

KERNEL_CS, KERNEL_SS, USER32_CS, USER_SS, USER_CS, _TR = 0x10, 0x18, 0x23, 0x2B, 0x33, 0x40
_GATE_TYPE, _USER_GATES = 0x8E, (3, 4)
_TSS_LIMIT = 0x67
_DESCRIPTORS = (
    *DESCRIPTORS,
    0,
    _TSS_LIMIT | (_TSS & 0xFF_FFFF) << 16 | 0x8B << 40 | (_TSS >> 24 & 0xFF) << 56,  # 0x40: the TSS, 16 bytes
    _TSS >> 32,
)

# Vectors for which the CPU pushes an error code.
WITH_ERROR = frozenset((8, 10, 11, 12, 13, 14, 17, 21, 29, 30))

# Bits of CR0: PE MP ET NE WP AM PG. CR4: PAE OSFXSR OSXMMEXCPT FSGSBASE; OSXSAVE and PKE where the host has them.
_CR0 = 0x8005_0033
_CR4 = 0x20 | 0x200 | 0x400 | 0x1_0000
CR4_OSXSAVE, CR4_PKE = 1 << 18, 1 << 22
_EFER = 0xD01  # SCE LME LMA NXE
_MSR_STAR, _MSR_LSTAR, _MSR_FMASK = 0xC000_0081, 0xC000_0082, 0xC000_0084
_SYSCALL_FLAGS = 0x257FD5  # cleared by SYSCALL, as Linux has it
MSRS = {
    _MSR_STAR: USER32_CS << 48 | KERNEL_CS << 32,
    _MSR_LSTAR: SYSCALL_ENTRY,
    _MSR_FMASK: _SYSCALL_FLAGS,
}


def vector_of(pc: int) -> int:
    """Which exception's stub halted with this RIP; -1: none."""
    number, rest = divmod(pc - 1 - _STUBS, _STUB_SIZE)
    return number if rest == 0 and 0 <= number < 256 else -1


class KernelHalf:
    """The frames of one core's ring-0 half. `entry`: what goes into slot KERNEL_SLOT of a page directory."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._words = memory.words
        self._frames = [memory.allocate(RESERVED) for _ in range(7)]
        directory, middle, table, stubs, tables, gates, self._stack = self._frames
        plain = PRESENT | WRITABLE | ACCESSED | DIRTY
        words = memory.words
        self.entry = directory << 12 | plain
        words[directory * ENTRIES] = middle << 12 | plain
        words[middle * ENTRIES] = table << 12 | plain
        words[table * ENTRIES] = stubs << 12 | PRESENT | ACCESSED
        for number, frame in enumerate((tables, gates, self._stack), 1):
            words[table * ENTRIES + number] = frame << 12 | plain | NO_EXECUTE
        memory.page(stubs)[:] = _HLT * (FRAME_SIZE // _STUB_SIZE)
        page = memory.page(tables)
        struct.pack_into(f"<{len(_DESCRIPTORS)}Q", page, _GDT & 0xFFF, *_DESCRIPTORS)
        struct.pack_into("<Q", page, (_TSS & 0xFFF) + 4, _STACK + FRAME_SIZE - 16)  # RSP0
        struct.pack_into("<H", page, (_TSS & 0xFFF) + 0x66, _TSS_LIMIT + 1)  # no I/O permission map: no port is allowed
        page = memory.page(gates)
        for vector in range(256):
            stub = _STUBS + _STUB_SIZE * vector
            kind = _GATE_TYPE | (0x60 if vector in _USER_GATES else 0)
            struct.pack_into(
                "<HHBBHI", page, 16 * vector, stub & 0xFFFF, KERNEL_CS, 0, kind, stub >> 16 & 0xFFFF, stub >> 32
            )

    def release(self) -> None:
        """Give the frames back."""
        for frame in self._frames:
            self._memory.release(frame)

    def pushed(self, sp: int, count: int) -> list[int]:
        """The `count` words from stack pointer `sp` on."""
        start = self._stack * ENTRIES + ((sp & 0xFFF) >> 3)
        return self._words[start : start + count].tolist()


def system_registers(fresh: bytes, cr4: int) -> bytes:
    """`struct kvm_sregs` for a program in ring 3, made from a new vCPU's; CR3 is still to be set."""
    code, stack = user_segments()
    nothing = segment(0, 3, 3, big=1)
    state = bytearray(fresh)
    state[:144] = code + nothing * 4 + stack
    state[144:168] = segment(_TR, 11, 0, base=_TSS, limit=_TSS_LIMIT, system=1)
    state[168:192] = bytes(22) + b"\1" + bytes(1)  # no LDT: `unusable` set
    struct.pack_into("<QHxxxxxxQH", state, 192, _GDT, 8 * len(_DESCRIPTORS) - 1, _IDT, FRAME_SIZE - 1)
    struct.pack_into("<4Q", state, 224, _CR0, 0, 0, _CR4 | cr4)
    struct.pack_into("<Q", state, 264, _EFER)
    return bytes(state)


def user_segments() -> tuple[bytes, bytes]:
    """CS and SS of a 64-bit program, as `struct kvm_segment`."""
    return segment(USER_CS, 11, 3, long=1), segment(USER_SS, 3, 3, big=1)
