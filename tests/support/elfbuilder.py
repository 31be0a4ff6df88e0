"""ELF files made by hand, field by field, so that any of them can be wrong."""

from __future__ import annotations

import struct
from typing import NamedTuple

EXEC, DYN = 2, 3
X86_64, I386 = 62, 3
LOAD, INTERP, GNU_STACK, GNU_PROPERTY = 1, 3, 0x6474E551, 0x6474E553
R, W, X = 4, 2, 1

# x86, both sizes: hang about in one place, should it ever run (ud2).
CODE = b"\x0f\x0b"

# offset and size of each field in the two headers, for mutations
HEADER_FIELDS_64 = {
    "class": (4, 1), "data": (5, 1), "type": (16, 2), "machine": (18, 2), "version": (20, 4), "entry": (24, 8),
    "phoff": (32, 8), "flags": (48, 4), "ehsize": (52, 2), "phentsize": (54, 2), "phnum": (56, 2),
}  # fmt: skip
HEADER_FIELDS_32 = {
    "class": (4, 1), "data": (5, 1), "type": (16, 2), "machine": (18, 2), "version": (20, 4), "entry": (24, 4),
    "phoff": (28, 4), "flags": (36, 4), "ehsize": (40, 2), "phentsize": (42, 2), "phnum": (44, 2),
}  # fmt: skip
ENTRY_FIELDS_64 = {
    "type": (0, 4), "flags": (4, 4), "offset": (8, 8), "vaddr": (16, 8), "paddr": (24, 8), "filesz": (32, 8),
    "memsz": (40, 8), "align": (48, 8),
}  # fmt: skip
ENTRY_FIELDS_32 = {
    "type": (0, 4), "offset": (4, 4), "vaddr": (8, 4), "paddr": (12, 4), "filesz": (16, 4), "memsz": (20, 4),
    "flags": (24, 4), "align": (28, 4),
}  # fmt: skip


class Entry(NamedTuple):
    """A program header with defaults that work."""

    type: int = LOAD
    flags: int = R | X
    offset: int = 0
    vaddr: int = 0
    filesz: int = 0x1000
    memsz: int | None = None  # None: as filesz
    align: int = 0x1000
    paddr: int = 0


def elf(
    entries: list[Entry],
    *,
    bits: int = 64,
    type: int = EXEC,
    machine: int | None = None,
    entry: int = 0,
    phoff: int | None = None,
    phentsize: int | None = None,
    phnum: int | None = None,
    contents: dict[int, bytes] | None = None,
    size: int = 0x3000,
) -> bytes:
    """An ELF file of `size` bytes; `contents` are bytes at offsets; what nobody fills is a pattern, not zero."""
    header_size, entry_size = (64, 56) if bits == 64 else (52, 32)
    phoff = header_size if phoff is None else phoff
    fields = (
        bytes([0x7F, 0x45, 0x4C, 0x46, 2 if bits == 64 else 1, 1, 1]).ljust(16, b"\0"),
        type,
        (X86_64 if bits == 64 else I386) if machine is None else machine,
        1,
        entry,
        phoff,
        0,
        0,
        header_size,
        entry_size if phentsize is None else phentsize,
        len(entries) if phnum is None else phnum,
        0,
        0,
        0,
    )
    data = bytearray((bytes(range(1, 256)) * (size // 255 + 1))[:size])
    data[:header_size] = struct.pack("<16sHHIQQQIHHHHHH" if bits == 64 else "<16sHHIIIIIHHHHHH", *fields)
    table = b"".join(_entry(item, bits) for item in entries)
    place = phoff if phoff + len(table) <= size else header_size
    data[place : place + len(table)] = table
    for offset, piece in (contents or {}).items():
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def _entry(item: Entry, bits: int) -> bytes:
    memsz = item.filesz if item.memsz is None else item.memsz
    if bits == 64:
        return struct.pack(
            "<IIQQQQQQ", item.type, item.flags, item.offset, item.vaddr, item.paddr, item.filesz, memsz, item.align
        )
    return struct.pack(
        "<IIIIIIII", item.type, item.offset, item.vaddr, item.paddr, item.filesz, memsz, item.flags, item.align
    )


def static(bits: int = 64) -> bytes:
    """A small ET_EXEC: code, data, and a `.bss` that ends beyond the data's page."""
    base = 0x400000 if bits == 64 else 0x8048000
    entries = [
        Entry(LOAD, R | X, 0, base, 0x1000),
        Entry(LOAD, R | W, 0x1000, base + 0x1000, 0x234, 0x3210),
        Entry(GNU_STACK, R | W, 0, 0, 0, 0, 16),
    ]
    return elf(entries, bits=bits, entry=base + 0x800, contents={0x800: CODE})


def dynamic(interpreter: bytes, bits: int = 64) -> bytes:
    """A small position-independent program (ET_DYN) that names `interpreter`."""
    path = interpreter + b"\0"
    entries = [
        Entry(INTERP, R, 0x900, 0x900, len(path), None, 1),
        Entry(LOAD, R | X, 0, 0, 0x1000),
        Entry(LOAD, R | W, 0x1100, 0x2100, 0x234, 0x3210),
        Entry(GNU_STACK, R | W, 0, 0, 0, 0, 16),
    ]
    return elf(entries, bits=bits, type=DYN, entry=0x800, contents={0x800: CODE, 0x900: path})


def loader(bits: int = 64) -> bytes:
    """A small position-independent program without an interpreter: a program interpreter itself, or a static PIE."""
    entries = [Entry(LOAD, R | X, 0, 0, 0x1000), Entry(LOAD, R | W, 0x1100, 0x2100, 0x100, 0x2000)]
    return elf(entries, bits=bits, type=DYN, entry=0x800, contents={0x800: CODE})


def patch(data: bytes, offset: int, size: int, value: int) -> bytes:
    """`data` with one little-endian field changed."""
    return data[:offset] + (value & ((1 << 8 * size) - 1)).to_bytes(size, "little") + data[offset + size :]


def entry_offset(number: int, bits: int) -> int:
    """Where program header `number` starts in what `elf` builds."""
    return 64 + 56 * number if bits == 64 else 52 + 32 * number
