"""Run a static program without a C library on bare Unicorn, everything mapped at once; print the seconds it took.

The lower bound for any machine built on Unicorn: no page tables, no faults, no kernel.
"""

from __future__ import annotations

import struct
import sys
import time

import unicorn
from unicorn import x86_const


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        image = file.read()
    entry, offset = struct.unpack_from("<QQ", image, 24)
    count = struct.unpack_from("<H", image, 56)[0]
    machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    for number in range(count):
        kind, _, at, address, _, size, memory, _ = struct.unpack_from("<IIQQQQQQ", image, offset + 56 * number)
        if kind == 1:  # PT_LOAD
            start, end = address & ~0xFFF, (address + memory + 0xFFF) & ~0xFFF
            machine.mem_map(start, end - start)
            machine.mem_write(address, image[at : at + size])
    machine.mem_map(0x7FFF_0000, 0x10000)
    machine.reg_write(x86_const.UC_X86_REG_RSP, 0x7FFF_F000)
    machine.hook_add(
        unicorn.UC_HOOK_INSN, lambda uc, _: uc.emu_stop(), aux1=x86_const.UC_X86_INS_SYSCALL, begin=1, end=0
    )
    start = time.perf_counter()
    machine.emu_start(entry, 0)
    print(time.perf_counter() - start)


main()
