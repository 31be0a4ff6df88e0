"""What a vCPU finds in ring 0: descriptor tables and stubs that only halt, so that every exception leaves the guest.

One half of every address space, in the last slot of the page directory, out of a program's reach:

    +0x0000  stubs     that of vector v at +0x100 + 4 v; each is one HLT
    +0x1000  IDT       256 gates to the stubs; ring 3 may call those that Linux lets it call (segments.py)

    +0xf000  entry     of SYSCALL: HLT; or, for ring 3, the code of kvm_entry.py
    ...
    +0x1ff000  door    for that code: a page that no memory is behind, a store to which leaves the guest

and for each core of the machine, one behind the other:

    +0x2000  GDT, TSS  Linux's selectors, so that CS and SS are what programs expect; no I/O permission map
    +0x3000  stack     where the CPU pushes the interrupted state

The halt's address says which vector it was, the stack the rest (Intel SDM vol. 3, figure 6-9, from the bottom up):

    [error code], RIP, CS, RFLAGS, RSP, SS
"""

from __future__ import annotations

import struct

from loadstone.machine.kvm_api import segment
from loadstone.machine.paging import ACCESSED, DIRTY, KERNEL_BASE, NO_EXECUTE, PRESENT, USER, WRITABLE
from loadstone.machine.physical import ENTRIES, FRAME_SIZE, RESERVED, PhysicalMemory
from loadstone.machine.segments import DESCRIPTORS, GATES_OF_RING_3, KERNEL_CS, USER32_CS, USER_CS, USER_SS

SYSCALL_ENTRY = KERNEL_BASE + 0xF000
_ENTRY_PAGE = 15
_DOOR_PAGE = 511
DOOR = KERNEL_BASE + _DOOR_PAGE * FRAME_SIZE
_NO_MEMORY = 1 << 44  # a physical address far behind all memory
_STUBS = KERNEL_BASE + 0x100
_IDT, _FIRST_CORE = KERNEL_BASE + 0x1000, KERNEL_BASE + 0x2000
_PAGES_OF_A_CORE = 2
_TSS_OFFSET = 0x100
_HLT = b"\xf4\x90\x90\x90"
_STUB_SIZE = len(_HLT)
HALTED_IN_SYSCALL = SYSCALL_ENTRY + 1

_TR = 0x40  # the selector of the task state, behind Linux's
_GATE_TYPE, _OF_RING_3 = 0x8E, 0x60
_TSS_LIMIT = 0x67
_STACK_TOP, _PUSHED_WORDS = FRAME_SIZE - 16, 6  # the error code is the first of them; without one there are five

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
_PLAIN = PRESENT | WRITABLE | ACCESSED | DIRTY
_UPPER = _PLAIN | USER  # of entries above the last: that says whose a page is


def vector_of(pc: int) -> int:
    """Which exception's stub halted with this RIP; -1: none."""
    number, rest = divmod(pc - 1 - _STUBS, _STUB_SIZE)
    return number if rest == 0 and 0 <= number < 256 else -1


class KernelHalf:
    """The frames of a machine's ring-0 half.

    Attributes:
        entry: what goes into slot KERNEL_SLOT of every page directory, but of those that have a half of their own.
        table: the frame of its page table.
        spare_buffers: the first frames of buffers that no address space has any more (see kvm_answers.py).
    """

    def __init__(self, memory: PhysicalMemory) -> None:
        self.memory = memory
        self.spare_buffers: list[int] = []
        self._frames: list[int] = []
        self._cores = 0
        directory, middle, self.table = (self._allocate() for _ in range(3))
        words = memory.words
        self.entry = directory << 12 | _UPPER
        words[directory * ENTRIES] = middle << 12 | _UPPER
        words[middle * ENTRIES] = self.table << 12 | _UPPER
        stubs = self._allocate()
        words[self.table * ENTRIES] = words[self.table * ENTRIES + _ENTRY_PAGE] = stubs << 12 | PRESENT | ACCESSED
        memory.page(stubs)[:] = _HLT * (FRAME_SIZE // _STUB_SIZE)
        page = memory.page(self.map_page(_IDT))
        for vector in range(256):
            stub = _STUBS + _STUB_SIZE * vector
            kind = _GATE_TYPE | (_OF_RING_3 if vector in GATES_OF_RING_3 else 0)
            struct.pack_into(
                "<HHBBHI", page, 16 * vector, stub & 0xFFFF, KERNEL_CS, 0, kind, stub >> 16 & 0xFFFF, stub >> 32
            )

    def new_core(self) -> CoreTables:
        """The pages of one more core."""
        self._cores += 1
        return CoreTables(self, _FIRST_CORE + (self._cores - 1) * _PAGES_OF_A_CORE * FRAME_SIZE)

    def map_page(self, address: int) -> int:
        """A new frame of the half, at `address`."""
        frame = self._allocate()
        slot = self.table * ENTRIES + (address - KERNEL_BASE) // FRAME_SIZE
        self.memory.words[slot] = frame << 12 | _PLAIN | NO_EXECUTE
        return frame

    def open_entry(self, code: bytes, data_page: int) -> int:
        """Put `code` where SYSCALL enters, for programs to execute in ring 3, and HLT, which they may not, behind it.

        The frame of a page for its data, which programs may write to. The door is there from now on, too.
        """
        entry, data = self._allocate(), self._allocate()
        self.memory.page(entry)[:] = code.ljust(FRAME_SIZE, _HLT[:1])
        first = self.table * ENTRIES
        self.memory.words[first + _ENTRY_PAGE] = entry << 12 | PRESENT | USER | ACCESSED
        self.memory.words[first + data_page] = data << 12 | _UPPER | NO_EXECUTE
        self.memory.words[first + _DOOR_PAGE] = _NO_MEMORY | _UPPER | NO_EXECUTE
        return data

    def release(self) -> None:
        """Give the frames back."""
        for frame in self._frames:
            self.memory.release(frame)

    def _allocate(self) -> int:
        self._frames.append(self.memory.allocate(RESERVED))
        return self._frames[-1]


class CoreTables:
    """One core's descriptor table, task state and ring-0 stack.

    Attributes:
        pushed_at: the physical address of the error code that an exception in ring 3 pushes, if it has one; RIP, CS,
            RFLAGS, RSP and SS follow. (Always there: the stack is empty when a program runs.)
    """

    def __init__(self, half: KernelHalf, start: int) -> None:
        self._gdt, self._tss = start, start + _TSS_OFFSET
        page = half.memory.page(half.map_page(start))
        stack = start + FRAME_SIZE
        self.pushed_at = (half.map_page(stack) << 12) + _STACK_TOP - 8 * _PUSHED_WORDS
        descriptors = (*DESCRIPTORS, 0, *_task_state_descriptor(self._tss))
        struct.pack_into(f"<{len(descriptors)}Q", page, 0, *descriptors)
        self._limit = 8 * len(descriptors) - 1
        struct.pack_into("<Q", page, _TSS_OFFSET + 4, stack + _STACK_TOP)  # RSP0
        struct.pack_into("<H", page, _TSS_OFFSET + 0x66, _TSS_LIMIT + 1)  # no I/O permission map: no port is allowed

    def system_registers(self, fresh: bytes, cr4: int) -> bytes:
        """`struct kvm_sregs` for a program in ring 3, made from a new vCPU's; CR3 is still to be set."""
        code, stack = user_segments()
        nothing = segment(0, 3, 3, big=1)
        state = bytearray(fresh)
        state[:144] = code + nothing * 4 + stack
        state[144:168] = segment(_TR, 11, 0, base=self._tss, limit=_TSS_LIMIT, system=1)
        state[168:192] = bytes(22) + b"\1" + bytes(1)  # no LDT: `unusable` set
        struct.pack_into("<QHxxxxxxQH", state, 192, self._gdt, self._limit, _IDT, FRAME_SIZE - 1)
        struct.pack_into("<4Q", state, 224, _CR0, 0, 0, _CR4 | cr4)
        struct.pack_into("<Q", state, 264, _EFER)
        return bytes(state)


def _task_state_descriptor(address: int) -> tuple[int, int]:
    """The 16-byte descriptor of a busy TSS (Intel SDM vol. 3, figure 8-4)."""
    low = _TSS_LIMIT | (address & 0xFF_FFFF) << 16 | 0x8B << 40 | (address >> 24 & 0xFF) << 56
    return low, address >> 32


def user_segments() -> tuple[bytes, bytes]:
    """CS and SS of a 64-bit program, as `struct kvm_segment`."""
    return segment(USER_CS, 11, 3, long=1), segment(USER_SS, 3, 3, big=1)
