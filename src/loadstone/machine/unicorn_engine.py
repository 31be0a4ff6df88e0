"""One engine of the Unicorn library over the machine's memory: its handle, its hooks, its live registers.

Unicorn's memory management is replaced by its virtual TLB, which asks a hook for each translation. The engine is made
in ring 0; `enter_ring_3` takes it to where programs run, for good.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from ctypes import byref, c_int, c_uint64, c_void_p
from typing import Any

from loadstone.errors import HostError
from loadstone.machine import native_code
from loadstone.machine import unicorn_library as uc
from loadstone.machine.cpuid import INDEXED, table
from loadstone.machine.paging import KERNEL_BASE
from loadstone.machine.physical import FRAME_SIZE, PhysicalMemory
from loadstone.machine.segments import DESCRIPTORS, USER_CS, USER_SS

# The stub that takes the core from ring 0 to ring 3, and the GDT with Linux's selectors: one reserved frame, which the
# program cannot name, for it is at KERNEL_BASE.
_GDT, _IRETQ, _STACK = 0x000, 0x100, 0x200
_RFLAGS_AT_ENTRY = 0x202

_CR4_TSD = 4  # RDTSC outside ring 0 is a general-protection exception
_MSR_TSC_AUX = 0xC000_0103  # what RDTSCP has in RCX: to Linux the number of the CPU
_CR0_NE = 0x20  # x87 errors are exceptions, not interrupts of the PC's old wiring
_CR4_OSFXSR, _CR4_OSXMMEXCPT = 0x200, 0x400

RIP = 41


class Engine:
    """A `uc_engine` with all of `memory` mapped at physical address 0.

    Attributes:
        library: the C functions. uc: the engine's handle, their first argument.
        hooks, control: the hooks in machine code and what they share with Python; `shared` is that as bytes.
        read_register, write_register, read_batch, write_batch: C functions that are called often.
        flush_page: forgets the page of an address in the TLB; None where Unicorn only forgets all of it.
    """

    def __init__(self, memory: PhysicalMemory) -> None:
        if not native_code.supported():
            raise HostError("the Unicorn core needs an x86-64 host: its hooks are machine code")
        library: Any = uc.load()
        self.library = library
        self.uc = c_void_p()
        uc.check(library, library.uc_open(uc.ARCH_X86, uc.MODE_64, byref(self.uc)), "open")
        uc.check(library, library.uc_ctl(self.uc, c_int(uc.CTL_TLB_TYPE), c_int(uc.TLB_VIRTUAL)), "virtual TLB")
        uc.check(library, library.uc_mem_map_ptr(self.uc, 0, memory.size, uc.PROT_ALL, memory.base), "memory")
        called = ("uc_emu_stop", "uc_emu_start", "uc_reg_read", "uc_reg_read_batch", "uc_reg_write_batch")
        functions = [ctypes.cast(getattr(library, name), c_void_p).value or 0 for name in called]
        self.hooks = native_code.NativeHooks(functions, cpuid_rows())
        self.control = self.hooks.control
        self.control.memory = memory.base
        self.control.uc = self.uc.value
        self.shared = memoryview(self.control).cast("B")
        self.read_register = library.uc_reg_read
        self.write_register = library.uc_reg_write
        self.read_batch = library.uc_reg_read_batch
        self.write_batch = library.uc_reg_write_batch
        self.flush_page = uc.find_page_flush(library, self.uc)
        self._cell = c_uint64()
        self._cell_address = ctypes.addressof(self._cell)
        self._handles: list[c_void_p] = []
        self._no_exit_request = -1  # its address; 0: not known

    def read(self, number: int) -> int:
        """A live register, unsigned."""
        self._cell.value = 0
        self.read_register(self.uc, number, self._cell_address)
        return self._cell.value

    def write(self, number: int, value: int) -> None:
        """Set a live register; `value` fits into 64 bits."""
        self._cell.value = value
        self.write_register(self.uc, number, self._cell_address)

    def go_to(self, pc: int) -> None:
        """Have the program go on at `pc`."""
        self.write(RIP, pc)
        self.control.pc = pc

    def set_cpu(self, number: int) -> None:
        """The number of the CPU that RDTSCP tells from now on."""
        self.write_register(self.uc, uc.REG_MSR, byref(uc.ModelSpecific(_MSR_TSC_AUX, number)))

    def read_saved(self, handle: c_void_p, number: int) -> int:
        """A register of a saved context."""
        self._cell.value = 0
        self.library.uc_context_reg_read(handle, number, self._cell_address)
        return self._cell.value

    def write_saved(self, handle: c_void_p, number: int, value: int) -> None:
        """Set a register of a saved context."""
        self._cell.value = value
        self.library.uc_context_reg_write(handle, number, self._cell_address)

    def stop(self) -> None:
        """Have the engine stop when its block has ended."""
        self.library.uc_emu_stop(self.uc)

    def new_handle(self) -> c_void_p:
        """Room for a saved context; freed with the engine."""
        handle = c_void_p()
        uc.check(self.library, self.library.uc_context_alloc(self.uc, byref(handle)), "context")
        self._handles.append(handle)
        return handle

    def save(self, handle: c_void_p) -> None:
        """Copy the live registers to a saved context."""
        self.library.uc_context_save(self.uc, handle)

    def restore(self, handle: c_void_p) -> None:
        """Make a saved context the live registers."""
        self.library.uc_context_restore(self.uc, handle)

    def hook(self, kind: int, function: int, begin: int = 1, end: int = 0, *extra: c_int) -> c_void_p:
        """Add a hook on [begin, end], by default on everything."""
        handle = c_void_p()
        status = self.library.uc_hook_add(
            self.uc,
            byref(handle),
            c_int(kind),
            c_void_p(function),
            c_void_p(self.hooks.address),
            c_uint64(begin),
            c_uint64(end),
            *extra,
        )
        uc.check(self.library, status, "hook")
        return handle

    def unhook(self, handle: c_void_p) -> None:
        """Take a hook back."""
        uc.check(self.library, self.library.uc_hook_del(self.uc, handle), "removing a hook")

    def flush_tlb(self) -> None:
        """Forget all of the TLB."""
        self.library.uc_ctl(self.uc, c_int(uc.CTL_TLB_FLUSH))

    def flush_code(self) -> None:
        """Forget all translated code."""
        self.library.uc_ctl(self.uc, c_int(uc.CTL_TB_FLUSH))

    def drop_code(self, address: int) -> None:
        """Forget the code translated from the frame that is at `address`, whatever address it was translated for."""
        self.library.uc_ctl(self.uc, c_int(uc.CTL_TB_REMOVE_CACHE), c_uint64(address), c_uint64(address + FRAME_SIZE))

    def check_exits(self, everywhere: bool) -> None:
        """Whether code translated from now on can be stopped anywhere, or only where a block begins.

        By default Unicorn calls a function after each load and store, which asks whether to stop. That is a sixth to a
        third of what programs take, and only a breakpoint needs it: all else that stops the engine does so at the end
        of a block, or leaves it by itself. Inside Unicorn there is a flag for this, but no function to set it.
        """
        if self._no_exit_request < 0:
            self._no_exit_request = uc.find_no_exit_request(self.library, self.uc)
        if self._no_exit_request:
            ctypes.c_bool.from_address(self._no_exit_request).value = not everywhere

    def close(self) -> None:
        """Close it; its saved contexts go with it."""
        if not self.uc:
            return
        for handle in self._handles:
            self.library.uc_context_free(handle)
        self.library.uc_close(self.uc)
        self.uc = c_void_p()
        self.hooks.close()
        self.library = _Closed()
        self.flush_page = None
        self.read_register = self.write_register = self.read_batch = self.write_batch = _refuse_closed
        self.hooks.enter = _refuse_closed


class Batch:
    """Some live registers that are read or set in one call; their values are `values`, `size` bytes each.

    What a smaller register does not fill of them is zero, and must be when they are set.
    """

    def __init__(self, engine: Engine, numbers: Sequence[int], size: int) -> None:
        count = len(numbers)
        self.values = bytearray(count * size)
        self._engine = engine
        self._pin = ctypes.c_char.from_buffer(self.values)
        first = ctypes.addressof(self._pin)
        self._numbers = (c_int * count)(*numbers)
        self._pointers = (c_void_p * count)(*range(first, first + count * size, size))
        self._arguments = ctypes.addressof(self._numbers), ctypes.addressof(self._pointers), count

    def read(self) -> bytearray:
        """The values, until the next call."""
        engine = self._engine
        engine.read_batch(engine.uc, *self._arguments)
        return self.values

    def write(self, values: bytes) -> None:
        """Set the registers."""
        self.values[:] = values
        engine = self._engine
        engine.write_batch(engine.uc, *self._arguments)


def enter_ring_3(engine: Engine, memory: PhysicalMemory, frame: int, time_stamps: bool) -> None:
    """Load the GDT and go through one IRETQ: from then on the program cannot do what only a kernel may.

    `frame` is where the GDT and the stub are put; the TLB-fill hook has it at KERNEL_BASE. It leaves the registers as
    exec does, but for the instruction pointer. `time_stamps`: whether ring 3 may execute RDTSC.
    """
    page = memory.page(frame)
    struct.pack_into(f"<{len(DESCRIPTORS)}Q", page, _GDT, *DESCRIPTORS)
    page[_IRETQ : _IRETQ + 2] = b"\x48\xcf"
    target = KERNEL_BASE + _IRETQ + 2
    struct.pack_into("<5Q", page, _STACK, target, USER_CS, _RFLAGS_AT_ENTRY, 0, USER_SS)
    gdtr = uc.DescriptorTable(0, KERNEL_BASE + _GDT, 8 * len(DESCRIPTORS) - 1, 0)
    engine.write_register(engine.uc, uc.REG_GDTR, byref(gdtr))
    no_task_state = uc.DescriptorTable(0, 0, 0, 0)  # no I/O permission map: IN and OUT are never allowed
    engine.write_register(engine.uc, uc.REG_TR, byref(no_task_state))
    numbers = uc.REGISTERS
    engine.write(numbers["cr0"], engine.read(numbers["cr0"]) | _CR0_NE)
    features = _CR4_OSFXSR | _CR4_OSXMMEXCPT | (0 if time_stamps else _CR4_TSD)
    engine.write(numbers["cr4"], engine.read(numbers["cr4"]) | features)
    engine.write(numbers["rsp"], KERNEL_BASE + _STACK)
    engine.control.fills = -1  # the walk in machine code has no tables yet
    engine.control.budget = FRAME_SIZE
    status = engine.library.uc_emu_start(engine.uc, KERNEL_BASE + _IRETQ, target, 0, 0)
    uc.check(engine.library, status, "entering ring 3")
    at_exec = {"eflags": _RFLAGS_AT_ENTRY, "fcw": 0x37F, "mxcsr": 0x1F80, "ftw": 0xFFFF}
    for name, number in numbers.items():
        if name not in ("cs", "ss", "cr0", "cr2", "cr4", "fsw"):
            engine.write(number, at_exec.get(name, 0))


def cpuid_rows() -> list[tuple[int, ...]]:
    """What CPUID answers, as the hook in machine code wants it."""
    any_part = 0xFFFF_FFFF
    return [(leaf, part if leaf in INDEXED else any_part, *answer) for leaf, part, answer in table()]


def _refuse_closed(*_: object) -> int:
    raise HostError("the machine is closed")


class _Closed:
    """What stands for the library once the engine is gone."""

    def __getattr__(self, name: str) -> object:
        return _refuse_closed
