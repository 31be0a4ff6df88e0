"""Linux's segments and gates on x86-64 (arch/x86/include/asm/segment.h), which both cores give their CPU."""

from __future__ import annotations

DESCRIPTORS = (
    0,
    0x00CF9B000000FFFF,  # 0x08: kernel code, 32 bits
    0x00AF9B000000FFFF,  # 0x10: kernel code
    0x00CF93000000FFFF,  # 0x18: kernel data
    0x00CFFB000000FFFF,  # 0x20: user code, 32 bits
    0x00CFF3000000FFFF,  # 0x28: user data
    0x00AFFB000000FFFF,  # 0x30: user code
)
"""The first entries of the global descriptor table, by selector."""

KERNEL_CS, USER32_CS, USER_SS, USER_CS = 0x10, 0x23, 0x2B, 0x33
"""Selectors: of a descriptor above, with the ring that it is for."""

GATES_OF_RING_3 = (3, 4, 0x80)
"""What `int n` may name: INT3, INTO and the system calls of 32-bit programs. With any other n it is refused."""


def gate_error(vector: int) -> int:
    """The error code with which it is: it names a gate of the interrupt descriptor table (Intel SDM vol. 3, 6.13)."""
    return vector << 3 | 2
