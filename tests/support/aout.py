"""a.out programs for i386, built by man 5 a.out."""

from __future__ import annotations

import struct

OMAGIC, NMAGIC, ZMAGIC, QMAGIC = 0o407, 0o410, 0o413, 0o314
M_386 = 100


def aout(
    magic: int, text: bytes, data: bytes = b"", bss: int = 0, *, entry: int = 0, symbols: int = 0,
    relocations: tuple[int, int] = (0, 0), machine: int = M_386,
) -> bytes:  # fmt: skip
    """A file. For QMAGIC the header counts as the first 32 bytes of the text."""
    size = len(text) + (32 if magic == QMAGIC else 0)
    head = struct.pack("<8I", machine << 16 | magic, size, len(data), bss, symbols, entry, *relocations)
    if magic == ZMAGIC:
        head = head.ljust(1024, b"\0")
    return head + text + data + bytes(symbols)
