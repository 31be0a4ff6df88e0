"""The Unicorn library through ctypes: the dozen C functions a core needs, without the package's own binding.

The stock binding costs 40 ms to import and 2-28 us a call; the same functions called directly cost 0.4-1.5 us. Numbers
are those of `unicorn/unicorn.h` and `unicorn/x86.h`; a test compares them with the installed package.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p
from functools import partial

from loadstone.errors import HostError

ARCH_X86, MODE_64 = 4, 8
PROT_READ, PROT_WRITE, PROT_EXEC, PROT_ALL = 1, 2, 4, 7
HOOK_INTR, HOOK_INSN, HOOK_CODE, HOOK_BLOCK, HOOK_EDGE_GENERATED, HOOK_TLB_FILL = 1, 2, 4, 8, 32768, 131072
HOOK_MEM_FETCH_UNMAPPED = 64
INSN_CPUID, INSN_IN, INSN_OUT, INSN_SYSCALL, INSN_SYSENTER = 113, 218, 500, 699, 700
MEM_READ, MEM_WRITE, MEM_FETCH = 16, 17, 18
ERR_OK, ERR_INSN_INVALID, ERR_EXCEPTION = 0, 10, 21
TLB_VIRTUAL = 1

_CTL_WRITE = 1 << 30
CTL_TB_REMOVE_CACHE = 9 | 2 << 26 | _CTL_WRITE
CTL_TB_FLUSH = 10 | _CTL_WRITE
CTL_TLB_FLUSH = 11 | _CTL_WRITE
CTL_TLB_TYPE = 12 | 1 << 26 | _CTL_WRITE

REGISTERS = {
    "rax": 35, "rbx": 37, "rcx": 38, "rdx": 40, "rsi": 43, "rdi": 39, "rbp": 36, "rsp": 44,
    "r8": 106, "r9": 107, "r10": 108, "r11": 109, "r12": 110, "r13": 111, "r14": 112, "r15": 113,
    "rip": 41, "eflags": 25, "cs": 11, "ss": 49, "ds": 17, "es": 28, "fs": 32, "gs": 33,
    "fs_base": 250, "gs_base": 251, "fcw": 246, "mxcsr": 249,
    "fsw": 31, "ftw": 247, "cr0": 50, "cr2": 52, "cr4": 54,
}  # fmt: skip

# Unicorn 2.1.4, as uc_version() has it; and its `uc_struct` from `context_content` on: that, the size of the registers
# in a saved context, padding, next_pc, hook_insert, first_tb, no_exit_request, init_done.
_KNOWN_VERSION = 0x020104FF
CONTEXT_HEAD = 40
"""Bytes in front of the registers in a saved context. Of those, `uc_context_save` leaves some as they were."""
_STRUCT_PART = struct.Struct("<iii8x4B")
_STRUCT_HEAD = 4096  # bytes of uc_struct that are looked through; it has 14 KiB

_LOAD_CPU = b"\x48\x8b\xbf"  # mov rdi, [rdi + offset of 32 bits]

REG_ST0, REG_XMM0, REG_GDTR, REG_TR, REG_MSR = 114, 122, 243, 245, 248


class DescriptorTable(ctypes.Structure):
    """`uc_x86_mmr`: GDTR and its like."""

    _fields_ = (("selector", c_uint16), ("base", c_uint64), ("limit", c_uint32), ("flags", c_uint32))


class ModelSpecific(ctypes.Structure):
    """`uc_x86_msr`: the number of a model-specific register, and its value."""

    _fields_ = (("number", c_uint32), ("value", c_uint64))


PRIVILEGED_CALLBACK = CFUNCTYPE(c_uint32, c_void_p)  # IN, OUT, SYSENTER, whose further arguments do not matter

_PROTOTYPES: dict[str, tuple[object, ...]] = {
    "uc_open": (c_int, c_int, POINTER(c_void_p)),
    "uc_close": (c_void_p,),
    "uc_version": (c_void_p, c_void_p),
    "uc_mem_map_ptr": (c_void_p, c_uint64, c_size_t, c_uint32, c_void_p),
    "uc_hook_del": (c_void_p, c_void_p),
    "uc_emu_start": (c_void_p, c_uint64, c_uint64, c_uint64, c_size_t),
    "uc_emu_stop": (c_void_p,),
    "uc_reg_read": (c_void_p, c_int, c_void_p),
    "uc_reg_write": (c_void_p, c_int, c_void_p),
    "uc_reg_read_batch": (c_void_p, c_void_p, c_void_p, c_int),
    "uc_reg_write_batch": (c_void_p, c_void_p, c_void_p, c_int),
    "uc_context_alloc": (c_void_p, POINTER(c_void_p)),
    "uc_context_free": (c_void_p,),
    "uc_context_size": (c_void_p,),
    "uc_context_save": (c_void_p, c_void_p),
    "uc_context_restore": (c_void_p, c_void_p),
    "uc_context_reg_read": (c_void_p, c_int, c_void_p),
    "uc_context_reg_write": (c_void_p, c_int, c_void_p),
}


def library_path() -> str:
    """Where the shared library of the installed `unicorn` package is; the package itself is not imported."""
    for folder in (os.environ.get("LIBUNICORN_PATH"), *(os.path.join(p, "unicorn", "lib") for p in sys.path)):
        if folder:
            path = os.path.join(folder, "libunicorn.so.2")
            if os.path.exists(path):
                return path
    raise HostError("the Unicorn CPU core is not installed: `pip install unicorn`")


def load() -> ctypes.CDLL:
    """The library, its functions typed."""
    library = ctypes.CDLL(library_path())
    for name, arguments in _PROTOTYPES.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = c_int
    library.uc_hook_add.restype = c_int  # variadic: arguments are converted at the call
    library.uc_ctl.restype = c_int
    library.uc_strerror.restype = c_char_p
    return library


def check(library: ctypes.CDLL, status: int, what: str) -> None:
    """Raise HostError unless `status` is UC_ERR_OK."""
    if status != ERR_OK:
        raise HostError(f"Unicorn: {what}: {library.uc_strerror(status).decode()}")


def find_page_flush(library: ctypes.CDLL, engine: c_void_p) -> Callable[[int], None] | None:
    """The function that makes an engine forget one page of its TLB; None where it cannot be found.

    Unicorn has no call for that, but exports QEMU's own tlb_flush_page(cpu, address). Where an engine keeps its `cpu`
    is told by the first instruction of the function that forgets the whole TLB.
    """
    try:
        flush, flush_page = library.tcg_flush_softmmu_tlb_x86_64, library.tlb_flush_page_x86_64
    except AttributeError:
        return None
    code = ctypes.string_at(ctypes.cast(flush, c_void_p).value or 0, len(_LOAD_CPU) + 4)
    if not code.startswith(_LOAD_CPU):
        return None
    offset = int.from_bytes(code[len(_LOAD_CPU) :], "little")
    cpu = c_void_p.from_address((engine.value or 0) + offset)
    flush_page.argtypes = (c_void_p, c_uint64)
    flush_page.restype = None
    return partial(flush_page, c_void_p(cpu.value))


def find_no_exit_request(library: ctypes.CDLL, engine: c_void_p) -> int:
    """The address of the engine's `no_exit_request`, a flag; 0 if this is not the library whose layout is known.

    The engine must have run, so that what lies around the flag has the values by which it is recognised.
    """
    base = engine.value or 0
    if library.uc_version(None, None) != _KNOWN_VERSION:
        return 0
    head = ctypes.string_at(base, _STRUCT_HEAD)
    at = head.find(struct.pack("<iii", 1, library.uc_context_size(engine) - CONTEXT_HEAD, 0))
    if at < 0 or _STRUCT_PART.unpack_from(head, at)[3:] != (0, 1, 0, 1):
        return 0
    return base + at + _STRUCT_PART.size - 2
