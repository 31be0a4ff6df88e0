"""PT_GNU_PROPERTY: notes packed by hand, and what a kernel that looks at them (not on x86) would refuse."""

from __future__ import annotations

import struct

import pytest

from loadstone.binfmt.elf import gnu_properties
from loadstone.binfmt.plan import ElfPlan
from loadstone.binfmt.registry import search_binary_handler
from loadstone.binfmt.rules import FormatRules
from loadstone.binfmt.source import BytesSource
from loadstone.errors import LinuxError
from support import elfbuilder as eb
from support.elfbuilder import Entry

STRICT = FormatRules(gnu_property=True)
IBT_AND_SHSTK = struct.pack("<III4x", 0xC0000002, 4, 3)
ISA = struct.pack("<III4x", 0xC0008002, 4, 1)


def note(descriptor: bytes, *, size: int | None = None, kind: int = 5, name: bytes = b"GNU\0") -> bytes:
    return struct.pack("<III", 4, len(descriptor) if size is None else size, kind) + name + descriptor


def program(
    data: bytes, bits: int = 64, filesz: int | None = None, offset: int = 0x900, size: int = 0x3000
) -> BytesSource:
    length = len(data) if filesz is None else filesz
    entries = [Entry(vaddr=0x400000), Entry(eb.GNU_PROPERTY, eb.R, offset, 0x400900, length)]
    return BytesSource(eb.elf(entries, bits=bits, contents={0x900: data}, size=size))


def properties(source: BytesSource) -> list[tuple[int, bytes]]:
    plan = search_binary_handler(source, STRICT)
    assert isinstance(plan, ElfPlan)
    return [tuple(item) for item in gnu_properties(source, plan)]


def test_sound_notes() -> None:
    assert properties(program(note(IBT_AND_SHSTK))) == [(0xC0000002, b"\3\0\0\0")]
    assert properties(program(note(IBT_AND_SHSTK + ISA))) == [(0xC0000002, b"\3\0\0\0"), (0xC0008002, b"\1\0\0\0")]
    assert properties(program(note(b""))) == []
    assert properties(program(note(IBT_AND_SHSTK), filesz=1024)) == [(0xC0000002, b"\3\0\0\0")]
    # 32-bit notes align to four bytes
    short = struct.pack("<III", 0xC0000002, 4, 3) + struct.pack("<III", 0xC0008002, 4, 1)
    assert len(properties(program(note(short), bits=32))) == 2


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (program(note(IBT_AND_SHSTK), filesz=1025), "ENOEXEC"),
        (program(note(IBT_AND_SHSTK), filesz=15), "EIO"),
        (program(note(IBT_AND_SHSTK), filesz=0), "EIO"),
        (program(note(IBT_AND_SHSTK), offset=0x2FF8), "EIO"),
        (program(note(IBT_AND_SHSTK), offset=1 << 63), "EIO"),
        (program(note(IBT_AND_SHSTK, kind=4)), "ENOEXEC"),
        (program(note(IBT_AND_SHSTK, name=b"GNV\0")), "ENOEXEC"),
        (program(note(IBT_AND_SHSTK, size=17)), "ENOEXEC"),
        (program(note(IBT_AND_SHSTK, size=0xFFFFFFFF)), "ENOEXEC"),
        (program(note(IBT_AND_SHSTK, size=12)), "ENOEXEC"),
        (program(note(IBT_AND_SHSTK[:7])), "ENOEXEC"),
        (program(note(struct.pack("<II", 1, 0xFFFFFFFF))), "ENOEXEC"),
        (program(note(ISA + IBT_AND_SHSTK)), "ENOEXEC"),
        (program(note(ISA + ISA)), "ENOEXEC"),
    ],
)
def test_what_a_kernel_that_looks_would_refuse(source: BytesSource, name: str) -> None:
    with pytest.raises(LinuxError) as caught:
        search_binary_handler(source, STRICT)
    assert caught.value.name == name
    assert caught.value.why
    assert isinstance(search_binary_handler(source), ElfPlan)
