"""Linux's segments on x86-64 (arch/x86/include/asm/segment.h), which both cores give their CPU."""

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
