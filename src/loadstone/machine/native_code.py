"""Hooks in machine code, for what happens too often for Python: TLB fills, time slices, the SYSCALL stop, new blocks.

Unicorn calls a hook as a C function; these are such functions, a few instructions each, that work on one `Control`
block which Python shares; their source is hooks.s, and a test assembles that again and compares. Only for x86-64 hosts
with the System V calling convention.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from ctypes import c_int64, c_uint64

# What a hook leaves in Control.reason.
REASON_NONE, REASON_SYSCALL, REASON_SLICE, REASON_RING, REASON_BREAKPOINT = range(5)

RING_ENTRIES = 4096
_RING_SLACK = 64  # blocks that may still be translated between the request to stop and the stop


class Control(ctypes.Structure):
    """What the hooks and Python share. The offsets are those in the machine code below."""

    _fields_ = (
        ("budget", c_int64),  # +0: bytes of code left in this slice; negative ends it
        ("reason", c_uint64),  # +8: REASON_*
        ("stop", c_uint64),  # +16: address of uc_emu_stop
        ("ring_count", c_uint64),  # +24: new blocks written to the ring
        ("ring_limit", c_uint64),  # +32: from here on the core is asked to stop
        ("ring", c_uint64),  # +40: address of (pc, size) pairs
        ("memory", c_uint64),  # +48: host address of physical memory
        ("root", c_uint64),  # +56: physical address of the page directory
        ("resolve", c_uint64),  # +64: the Python TLB-fill callback, for what the walk cannot answer
        ("fills", c_int64),  # +72: TLB fills left until Python is asked for a flush
        ("uc", c_uint64),  # +80: the engine's handle
        ("skip", c_int64),  # +88: the address whose breakpoint does not count once more; -1 for none
        ("block", c_uint64),  # +96: the address of the block that was begun last
        ("executed", c_uint64),  # +104: host address of PhysicalMemory.executed
        ("written", c_uint64),  # +112: as that, 1 for a frame that may be writable in the TLB
    )


# hooks.s, assembled.
_CODE = bytes.fromhex(
    """
    48c74608 01000000 ff6610cc cccccccc 48897160 89d04829 017801c3 48c74108
    02000000 ff6110cc cccccccc cccccccc 4989c848 8b3e0fb7 4e0a4889 fee86e01
    00007550 498b024c 21d889fa 81e2ff0f 0000448d 140a4181 fa001000 0077354c
    01c84801 d089ca85 d2742844 0fb61041 80fac574 1f4180fa c4751144 8a500141
    80e21f41 feca4180 fa027608 48ffc0ff caebd4c3 498b4018 498b5028 4889c648
    c1e60448 893c3248 894c3208 49ff4018 493b4020 72dd49c7 40080300 0000498b
    785041ff 6010cccc cccccccc cccccccc 483b7158 48c74158 ffffffff 740b48c7
    41080400 0000ff61 10c3cccc cccccccc 49ff4848 0f88aa00 0000e8b1 0000000f
    859f0000 00498b02 4921c34c 891949c1 eb0c4d8b 4868470f b60c1983 fa11740b
    83fa1274 1c4883c8 20eb40a8 02747548 83c86045 85c97433 480fbae0 3f7265eb
    2a480fba e03f725c 4883c820 4585c975 1a4d8b48 7043803c 19007548 4d8b4868
    43c60419 0141b901 00000049 8902ba01 00000045 85c9740a 480fbae0 3f721c83
    ca0483e0 4283f842 751183ca 024585c9 75094d8b 487043c6 04190189 5108b801
    000000c3 41ff6040 cccccccc cccccccc 4d8b4830 49bb00f0 ffffffff 0f004889
    f048c1e8 2f756a4d 8b50384d 01ca4889 f048c1e8 2725ff01 00004d8b 14c24d21
    da744b4d 01ca4889 f048c1e8 1e25ff01 00004d8b 14c24d21 da74334d 01ca4889
    f048c1e8 1525ff01 00004d8b 14c24d21 da741b4d 01ca4889 f048c1e8 0c25ff01
    0000 4d8d14c2 418b02f7 d0a801c3 83c801c3
    """
)
_OFFSETS = {"syscall": 0x0, "block": 0x10, "edge": 0x30, "code": 0xD0, "fill": 0xF0}


def supported() -> bool:
    """Whether this host's CPU and calling convention are those of the machine code."""
    return os.uname().machine == "x86_64"


class NativeHooks:
    """The machine code in an executable mapping of its own, and its Control block.

    Attributes:
        control: shared with the hooks; `address`, its address, is every hook's user data.
        ring: (pc, size) pairs of new blocks that may hold a VEX prefix.
        syscall, block, edge, code, fill: addresses to hand to `uc_hook_add`.
    """

    def __init__(self, emu_stop: int) -> None:
        self.ring = (c_uint64 * (2 * RING_ENTRIES))()
        self.control = Control(
            stop=emu_stop,
            ring=ctypes.addressof(self.ring),
            ring_limit=RING_ENTRIES - _RING_SLACK,
            fills=1 << 62,
            skip=-1,
        )
        self.address = ctypes.addressof(self.control)
        self._map = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._map.write(_CODE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.syscall, self.block, self.edge, self.code, self.fill = (base + offset for offset in _OFFSETS.values())

    def close(self) -> None:
        """Give the mapping back; no engine may hold one of the hooks any more."""
        self._map.close()


def assemble() -> tuple[bytes, dict[str, int]]:
    """hooks.s as machine code and its entry points, by the host's compiler; for developers and the test."""
    import subprocess
    import tempfile

    source = os.path.join(os.path.dirname(__file__), "hooks.s")
    with tempfile.TemporaryDirectory() as folder:
        objects, binary = os.path.join(folder, "hooks.o"), os.path.join(folder, "hooks.bin")
        subprocess.run(["gcc", "-x", "assembler", "-c", source, "-o", objects], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", objects, binary], check=True)
        symbols = subprocess.run(["nm", objects], check=True, capture_output=True, text=True).stdout.split("\n")
        offsets = {s.split()[2][3:]: int(s.split()[0], 16) for s in symbols if " t on_" in s}
        with open(binary, "rb") as file:
            return file.read(), {name: offsets[name] for name in _OFFSETS}


if __name__ == "__main__":
    code, offsets = assemble()
    for start in range(0, len(code), 32):
        print("    " + code[start : start + 32].hex(" ", 4))
    print({name: hex(offset) for name, offset in offsets.items()})
