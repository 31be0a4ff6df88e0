"""Hooks in machine code, for what happens too often for Python: TLB fills, system calls, ends of slices, CPUID.

Unicorn calls a hook as a C function; these are such functions, a few instructions each, that work on one `Control`
block which Python shares; their source is hooks.s, and a test assembles that again and compares. So is `enter`, the one
call from Python that sets the result of a system call, runs the program and reads the registers of the next call, and
the search for VEX prefixes of vex.py. Only for x86-64 hosts with the System V calling convention.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import CFUNCTYPE, c_int, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

from loadstone.machine.executable_page import ExecutablePage
from loadstone.machine.unicorn_library import REGISTERS

# What a hook leaves in Control.reason.
REASON_NONE, REASON_SYSCALL, REASON_SLICE, REASON_RING, REASON_BREAKPOINT = range(5)

# What the callback behind Control.resolve returns.
REFUSED, LOOK_AGAIN, ANSWERED = range(3)

RING_ENTRIES = 4096
_RING_SLACK = 64  # blocks that may still be translated between the request to stop and the stop

CALL_REGISTERS = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9", "rip", "eflags")
RESULT_REGISTERS = ("rax", "rcx", "r11")
_CPUID_REGISTERS = ("rax", "rcx", "rdx", "rbx")

FILL_CALLBACK = CFUNCTYPE(c_int, c_uint64, c_int, c_uint64)  # address, type, RIP -> REFUSED, LOOK_AGAIN, ANSWERED
_ENTER = CFUNCTYPE(c_int, c_void_p)


class Control(ctypes.Structure):
    """What the hooks and Python share. The offsets are those in the machine code below."""

    _fields_ = (
        # What `enter` takes, and what it leaves.
        ("budget", c_int64),  # +0: bytes of code left in this slice; negative ends it
        ("reason", c_uint64),  # +8: REASON_*
        ("skip", c_int64),  # +16: the address whose breakpoint does not count once more; -1 for none
        ("pc", c_uint64),  # +24: where to start, and where it stopped
        ("results", c_uint64),  # +32: how many RESULT_REGISTERS to set before the start; then 0
        ("result", c_uint64 * 3),  # +40: to what; after a system call RCX and R11 are set already
        ("ring_count", c_uint64),  # +64: new blocks written to the ring
        ("vector", c_int64),  # +72: of the exception that stopped the engine, for whoever sets it to -1 again
        ("registers", c_uint64 * 9),  # +80: CALL_REGISTERS, at the stop
        # Functions of Unicorn's, the engine, and arguments of the functions.
        ("stop", c_uint64),  # +152: uc_emu_stop
        ("start", c_uint64),  # +160: uc_emu_start
        ("read", c_uint64),  # +168: uc_reg_read
        ("read_batch", c_uint64),  # +176: uc_reg_read_batch
        ("write_batch", c_uint64),  # +184: uc_reg_write_batch
        ("uc", c_uint64),  # +192: the engine's handle
        ("call_numbers", c_uint64),  # +200: numbers of CALL_REGISTERS
        ("call_pointers", c_uint64),  # +208: addresses of `registers`
        ("result_numbers", c_uint64),  # +216: numbers of RESULT_REGISTERS
        ("result_pointers", c_uint64),  # +224: addresses of `result`
        # New blocks.
        ("ring_limit", c_uint64),  # +232: from here on the core is asked to stop
        ("ring", c_uint64),  # +240: address of (pc, size) pairs
        # TLB fills.
        ("memory", c_uint64),  # +248: host address of physical memory
        ("root", c_uint64),  # +256: physical address of the page directory
        ("executed", c_uint64),  # +264: host address of PhysicalMemory.executed
        ("written", c_uint64),  # +272: as that, 1 for a frame that may be writable in the TLB
        ("resolve", c_uint64),  # +280: a FILL_CALLBACK, for what the walk cannot answer
        ("fills", c_int64),  # +288: TLB fills left until Python is asked for a flush
        ("fault_pc", c_uint64),  # +296: RIP at the fill for which Python was asked
        ("answer_address", c_uint64),  # +304: what ANSWERED means: a physical address
        ("answer_permissions", c_uint64),  # +312: and what it may be used for
        ("block", c_uint64),  # +320: the address of the block that was begun last
        # CPUID.
        ("cpuid_numbers", c_uint64),  # +328: numbers of RAX, RCX, RDX, RBX
        ("cpuid_pointers", c_uint64),  # +336: addresses of `cpuid_values`
        ("cpuid_values", c_uint64 * 4),  # +344
        ("cpuid_rows", c_uint64),  # +376: six 32-bit words a row: leaf, part (-1: any), EAX, EBX, ECX, EDX
        ("cpuid_end", c_uint64),  # +384: the address past them
        # Changes of signal masks and actions (see unicorn_signals.py).
        ("signals_open", c_uint64),  # +392: whether they are made in the hook
        ("blocked", c_uint64),  # +400: the signals that the program blocks
        ("mask_calls", c_uint64),  # +408: how many changes of the mask were made
        ("action_calls", c_uint64),  # +416: and of actions
        ("actions", c_uint64),  # +424: address of the actions, four words for each signal
        # What more there is to a stop.
        ("status", c_uint64),  # +432: uc_emu_start's
        ("refused", c_uint64),  # +440: whether the program did what only ring 0 may, for whoever clears it
    )


# hooks.s, with what it includes, assembled.
_CODE = bytes.fromhex(
    """
    53415448 83ec0848 89fb8b4b 2085c974 23488bbb c0000000 488bb3d8 00000048
    8b93e000 0000ff93 b8000000 48c74320 00000000 48c74308 00000000 488bbbc0
    00000048 8b731831 d231c945 31c0ff93 a0000000 89c04889 83b00100 00488bbb
    c0000000 488bb3c8 00000048 8b93d000 0000b909 000000ff 93b00000 00488b83
    88000000 48894318 488b4b08 488b5348 48ffc948 ffc24809 d1480b8b b0010000
    480b8bb8 01000075 54488943 304c8ba3 90000000 4c896338 488bbbc0 00000048
    8bb3d800 0000488b 93e00000 004883c6 044883c2 08b90200 0000ff93 b8000000
    4181e400 0004004c 0b634075 10488b4b 504883e9 0d31c048 83f90177 05b80100
    00004883 c408415c 5bc3cccc cccccccc 4883be88 01000000 74324883 3e007e2c
    534889f3 be230000 00488d53 50ff93a8 00000048 8b435048 83e80d48 83f80176
    194889de 488bbbc0 0000005b 48c74608 01000000 ffa69800 00005541 54488bbb
    c0000000 488bb3c8 00000048 8b93d000 0000b909 000000ff 93b00000 00f78390
    00000000 0100000f 85850100 0048837b 70080f85 7a010000 4989d88b 7b58488b
    7360488b 6b684883 7b500d0f 84840000 0083ff02 0f875801 00004c8b a3900100
    004885f6 742eb908 000000ba 21000000 e8450100 000f8537 01000048 8b00ffcf
    780a750d 48f7d049 21c4eb08 4909c4eb 034989c4 4889ee48 85f6741f b9080000
    00ba6300 0000e80f 0100000f 85010100 00488b93 90010000 48891049 81e4fffe
    fbff4c89 a3900100 0048ff83 98010000 e9960000 0083ff09 0f84d400 000083ff
    130f84cb 000000ff cf83ff40 0f83c000 00006bff 204803bb a8010000 4989f448
    85f6741c b9200000 00ba2100 0000e8a7 0000000f 85990000 000f1000 0f104810
    4889ee48 85f6741f b9200000 00ba6300 0000e883 00000075 790f1017 0f105f10
    0f11100f 11581048 ff83a001 00004d85 e474180f 11070f11 4f10b807 0800dc48
    21470848 816718ff fefbff48 c7432800 00000048 8b838800 00004883 c0024889
    4330488b 83900000 00488943 38488bbb c0000000 488bb3d8 00000048 8b93e000
    0000b903 000000ff 93b80000 00415c5d 5bc3415c 5de927fe ffff89f0 25ff0f00
    0001c83d 00100000 7742e851 03000075 3b498b02 448d9200 04000041 21c24139
    d275294c 21d84989 c249c1ea 0c4d0390 08010000 41803a00 75124c01 c84189f2
    4181e2ff 0f00004c 01d039c0 c3cccccc 31c0c3cc cccccccc cccccccc cccccccc
    89f64889 7248ffa2 98000000 cccccccc 534889f3 488bb348 01000048 8b935001
    0000b902 000000ff 93b00000 008b8358 0100008b 8b600100 004531c0 4531c945
    31d24531 db488b93 78010000 483b9380 01000074 25390275 0b837a04 ff740b39
    4a047406 4883c218 ebe2448b 4208448b 4a0c448b 5210448b 5a144c89 83580100
    004c8993 60010000 4c899b68 0100004c 898b7001 0000488b bbc00000 00488bb3
    48010000 488b9350 010000b9 04000000 ff93b800 0000b801 0000005b c3cccccc
    4889b140 01000089 d0482901 7801c348 c7410802 000000ff a1980000 00cccccc
    4989c848 8b3e0fb7 4e0a4889 fee80e02 0000756a 498b024c 21d889fa 81e2ff0f
    0000448d 140a4181 fa001000 00774f4c 01c84801 d089ca49 89c385d2 7428440f
    b6104180 fac5741f 4180fac4 7511448a 50014180 e21f41fe ca4180fa 02760848
    ffc0ffca ebd4c357 5141504c 89df89ce e83b0200 00415859 5f4885c0 78e8498b
    4040498b 90f00000 004889c6 48c1e604 48893c32 48894c32 0849ff40 40493b80
    e8000000 72c049c7 40080300 0000498b b8c00000 0041ffa0 98000000 cccccccc
    483b7110 48c74110 ffffffff 740e48c7 41080400 0000ffa1 98000000 c3cccccc
    49ff8820 0100000f 88b60000 00e82e01 00000f85 ab000000 498b0249 21c34c89
    1949c1eb 0c4d8b88 08010000 470fb60c 1983fa11 740b83fa 12741c48 83c820eb
    46a80274 7e4883c8 604585c9 7439480f bae03f72 6eeb3048 0fbae03f 72654883
    c8204585 c975204d 8b881001 00004380 3c190075 4e4d8b88 08010000 43c60419
    0141b901 00000049 8902ba01 00000045 85c9740a 480fbae0 3f721f83 ca0483e0
    4283f842 751483ca 024585c9 750c4d8b 88100100 0043c604 19018951 08b80100
    0000c353 55415441 55574c89 c34889f5 4189d449 89cdbe29 00000048 8d932801
    0000ff93 a8000000 4889ef44 89e6488b 93280100 00ff9318 01000049 89d84889
    ee4489e2 4c89e95f 415d415c 5d5b83f8 010f84f6 feffff72 19498b80 30010000
    48890141 8b803801 00008941 08b80100 0000c3cc cccccccc cccccccc cccccccc
    4d8b88f8 00000049 bb00f0ff ffffff0f 004889f0 48c1e82f 756d4d8b 90000100
    004d01ca 4889f048 c1e82725 ff010000 4d8b14c2 4d21da74 4b4d01ca 4889f048
    c1e81e25 ff010000 4d8b14c2 4d21da74 334d01ca 4889f048 c1e81525 ff010000
    4d8b14c2 4d21da74 1b4d01ca 4889f048 c1e80c25 ff010000 4d8d14c2 418b02f7
    d0a801c3 83c801c3 cccccccc cccccccc 4989f84c 8d1c374c 8d0d0302 00004889
    fe31d24c 39df0f83 f7000000 0fb60748 ffc7450f b6140141 f6c21074 103c6675
    0383ca01 3c6775db 83ca02eb d641f6c2 400f85d4 00000041 f6c22074 1983e008
    09c24c39 df0f83b8 0000000f b60748ff c7450fb6 14013c0f 752c4c39 df0f83a0
    0000000f b60748ff c7450fb6 94010001 000041f6 c2107424 4c39df0f 83820000
    0048ffc7 eb1641f6 c2807410 4c39df73 72f60730 740641ba 01000000 41f6c201
    7405e811 01000041 d1ea4183 e207430f b6841100 02000041 83fa0575 0ff7c202
    00000074 32b80400 0000eb2b 418d4afd 83f90177 22f7c208 00000075 0ff7c201
    00000074 12b80200 0000eb0b 4183fa04 7505b808 00000048 01c74c39 df0f86fb
    feffff48 c7c0ffff ffffc34c 39df73f3 0fb60f48 ffc73cc5 7507b901 000000eb
    1248ffc7 3cc47505 83e11feb 0648ffc7 83e1074c 39df73cb 440fb617 48ffc731
    d23cc475 2683f903 741983f9 02751c41 80faf474 16418d82 0effffff 83f80577
    0aeb0641 80faf075 02ffc283 f901751d 4180fa77 742a470f b6941100 01000041
    83e21e41 83fa0241 0f94c2eb 0783f903 410f94c2 e81f0000 00450fb6 d24c01d7
    4c39df0f 875affff ff85d20f 854dfeff ff4889f0 4c29c0c3 4c39df73 3a0fb607
    48ffc789 c1c1e906 83f90374 2983e007 83f80475 0e4c39df 731d0fb6 0748ffc7
    83e00783 f901740b 83f90274 0f83f805 740ac348 ffc7c349 8d7b01c3 4883c704
    c3010101 01020600 00010101 01020600 00010101 01020600 00010101 01020600
    00010101 01020610 00010101 01020610 00010101 01020610 00010101 01020610
    00202020 20202020 20202020 20202020 20000000 00000000 00000000 00000000
    00000040 01101010 10060702 03000000 00020202 02020202 02020202 02020202
    02030700 03010101 01010101 01010101 01000000 00000000 00000000 00000000
    000a0a0a 0a000000 00020600 00000000 00020202 02020202 02080808 08080808
    08030304 00404003 070c0004 00000200 00010101 01000000 00010101 01010101
    01020202 02020202 020e0e00 02000000 00100010 10000083 87000000 00000001
    01010101 01010000 00000001 00010101 01010101 01010101 01010101 01010101
    01010101 01010101 01010101 01010101 01000000 00000000 00110113 01010101
    01010101 01010101 01010101 01010101 01010101 01010101 01010101 01010101
    01010101 01010101 01010101 01010101 01030303 03010101 00010101 01010101
    010e0e0e 0e0e0e0e 0e0e0e0e 0e0e0e0e 0e010101 01010101 01010101 01010101
    01000000 01030101 01000000 01030101 01010101 01010101 01010103 01010101
    01010103 01030303 01000000 00000000 00010101 01010101 01010101 01010101
    01010101 01010101 01010101 01010101 01010101 01010101 01010101 01010101
    01 00010204 04080304
    """
)
_OFFSETS = {
    "on_enter": 0x0,
    "on_nothing": 0x370,
    "on_syscall": 0x110,
    "on_interrupt": 0x380,
    "on_cpuid": 0x390,
    "on_block": 0x440,
    "on_edge": 0x460,
    "on_code": 0x520,
    "on_fill": 0x540,
    "find_vex": 0x710,
}


def supported() -> bool:
    """Whether this host's CPU and calling convention are those of the machine code."""
    return os.uname().machine == "x86_64"


class NativeHooks:
    """The machine code in a page of its own, and its Control block.

    Attributes:
        control: shared with the hooks; `address`, its address, is every hook's user data.
        ring: (pc, size) pairs of new blocks that hold a VEX prefix, or may.
        enter: the function, for Python.
        nothing, syscall, interrupt, cpuid, block, edge, code, fill: addresses to hand to `uc_hook_add`.
    """

    def __init__(self, functions: Sequence[int], cpuid_rows: Sequence[tuple[int, ...]] = ()) -> None:
        """`functions`: addresses of uc_emu_stop, uc_emu_start, uc_reg_read, uc_reg_read_batch, uc_reg_write_batch."""
        self.ring = (c_uint64 * (2 * RING_ENTRIES))()
        self._rows = (c_uint32 * (6 * len(cpuid_rows)))(*(word for row in cpuid_rows for word in row))
        rows = ctypes.addressof(self._rows)
        self.control = control = Control(
            vector=-1,
            ring=ctypes.addressof(self.ring),
            ring_limit=RING_ENTRIES - _RING_SLACK,
            fills=1 << 62,
            skip=-1,
            cpuid_rows=rows,
            cpuid_end=rows + ctypes.sizeof(self._rows),
        )
        control.stop, control.start, control.read, control.read_batch, control.write_batch = functions
        self.address = ctypes.addressof(control)
        self._kept: list[object] = []
        control.call_numbers, control.call_pointers = self._batch(CALL_REGISTERS, Control.registers.offset)
        control.result_numbers, control.result_pointers = self._batch(RESULT_REGISTERS, Control.result.offset)
        control.cpuid_numbers, control.cpuid_pointers = self._batch(_CPUID_REGISTERS, Control.cpuid_values.offset)
        self._page = ExecutablePage(_CODE, near=control.start)
        base = self._page.address
        self.nothing, self.syscall, self.interrupt, self.cpuid, self.block, self.edge, self.code, self.fill = (
            base + offset for name, offset in _OFFSETS.items() if name not in ("on_enter", "find_vex")
        )
        self.enter: Any = _ENTER(base + _OFFSETS["on_enter"])

    def _batch(self, names: Sequence[str], offset: int) -> tuple[int, int]:
        """Addresses of the first two arguments of a batch call that moves these registers from or to Control."""
        numbers = (c_int * len(names))(*(REGISTERS[name] for name in names))
        pointers = (c_void_p * len(names))(*range(self.address + offset, self.address + offset + 8 * len(names), 8))
        self._kept += [numbers, pointers]
        return ctypes.addressof(numbers), ctypes.addressof(pointers)

    def close(self) -> None:
        """Give the page back; no engine may hold one of the hooks any more."""
        self._page.close()
