"""The code that SYSCALL enters where reads are answered in the guest, and what it shares with the host.

A paravirtual KVM that emulates SYSCALL stays in ring 3 and goes on at LSTAR (see kvm_core.py). Where that page is the
program's to execute, the call can be answered there: 7 us in the place of 30 to leave the guest, and no Python. The
code (entry.s) answers one call, `read` of one descriptor from a buffer that the kernel has filled, and leaves the guest
for all others as if it were not there.

In the last slot of the page directory, beside what kvm_tables.py has there:

    +0x00000  the code, in the page of the stubs
    +0x10000  data page: what is on offer, what was taken
    +0x11000  buffer
"""

from __future__ import annotations

from loadstone.machine.kvm_tables import SYSCALL_ENTRY

# entry.s, assembled.
CODE = bytes.fromhex(
    """
    668179fe 0f050f85 d6000000 4885c00f 85cc0000 0041f7c3 00010000 0f85bf00
    00003b3d d8ff0000 0f85b300 00008b05 d4ff0000 2b05d6ff 00004839 c20f879c
    00000048 85d20f84 93000000 4889f048 01d00f82 87000000 483b05c1 ff000077
    7e48890d c0ff0000 488935c1 ff000048 893dc2ff 00004889 25c3ff00 004181cb
    00020000 4889f78b 0583ff00 00488d35 6c0f0100 4801c648 89d1f3a4 488b0d85
    ff000048 8b3586ff 0000488b 3d87ff00 00488b05 58ff0000 4801d048 030556ff
    0000488d 25b7ff00 0041539d 488b256d ff000048 890536ff 00004889 d0ffe131
    c0f4f4
    """
)
LABELS = {"measure": 0x2E, "saved": 0x7D, "done": 0xDA, "refuse": 0xDF, "leave": 0xE1, "jumped": 0xE2}

MEASURE, SAVED, DONE, REFUSE, LEAVE, JUMPED = (SYSCALL_ENTRY + offset for offset in LABELS.values())
DATA_PAGE, BUFFER_PAGE = 16, 17  # numbers of pages

# Words of the data page. The host writes the first five, the code the others, and TAKEN.
DESCRIPTOR, END, TAKEN, ONE_READ, USER_END, OLD_RCX, OLD_RSI, OLD_RDI, OLD_RSP = range(9)
BYTES_TAKEN = (1 << 32) - 1  # of TAKEN: bytes of the buffer that were read; above them, by how many reads
READ_SHIFT = 32


def assemble() -> tuple[bytes, dict[str, int]]:
    """entry.s as machine code, and where its parts begin, by the host's compiler; for developers and the test."""
    from loadstone.machine import assembling

    code, symbols = assembling.assemble("entry.s")
    return code, {name: symbols[name] for name in LABELS}


if __name__ == "__main__":
    from loadstone.machine.assembling import print_code

    print_code(*assemble())
