"""Cases as text: what is printed can be read back, and what is written is the ELF file that was described."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from loadstone.verify.case import Case, ElfFile, Folder, Link, TextFile, remove, write
from loadstone.verify.case_text import CaseError, parse, parse_all, quoted, render, unquoted
from loadstone.verify.conformance import conformance_cases
from loadstone.verify.mutate import mutant
from loadstone.verify.seeds import seeds

EVERYTHING = r"""case all that there is
exec path="./prog" stack-limit=-1 uid=7 busy="prog" busy="s" noexec=1 argv "" "a b" "\xff\"" envp "A=\x00B"
elf64 "prog" mode=0711 size=0x3000 table=0x40
  header ident="\x7fELF" type=0xfe00 machine=183 entry=0x1 phoff=0x1000 flags=0x7 phentsize=55 phnum=3
  LOAD flags=0x80000005 offset=0x1 vaddr=0x2 paddr=0x3 filesz=0x4 memsz=0x5 align=0x6
  NULL --- offset=0x0 vaddr=0x0 filesz=0x0 memsz=0x0 align=0x0
  0x12345 r-x offset=0x0 vaddr=0x0 filesz=0x0 memsz=0x0 align=0x0
  at 0x900 "ld\x00"
elf32 "small" size=0x34
  header type=EXEC machine=386 entry=0x0 phoff=0x34 phentsize=32 phnum=0
text "s" mode=0644 "#!/bin/sh\n"
link "l" "s"
folder "d" mode=0700
expect signal 11
expect map 0x400000-0x401000 r-xp prog
"""


def test_what_is_printed_can_be_read_back() -> None:
    case = parse(EVERYTHING)
    assert parse(render(case)) == case
    assert render(case).splitlines()[0] == "case all that there is"
    assert case.argv == (b"", b"a b", b'\xff"') and case.envp == (b"A=\0B",)
    assert case.busy == ("prog", "s") and case.noexec and case.uid == 7 and case.stack_limit == -1
    assert [type(file) for file in case.files] == [ElfFile, ElfFile, TextFile, Link, Folder]
    starts = seeds()
    for other in (*starts, *conformance_cases(), *(mutant(starts, 3, number) for number in range(300))):
        assert parse_all(render(other)) == [other]


def test_every_byte_can_be_quoted() -> None:
    data = bytes(range(256))
    assert unquoted(quoted(data)) == data and quoted(data).isascii() and "\n" not in quoted(data)


@pytest.mark.parametrize(
    "text",
    [
        "case nothing",
        'case x\nelf65 "p" size=1',
        'case x\nelf64 "p"',
        'case x\ntext "p" ""\n  LOAD r-x offset=0x0',
        'case x\nelf64 "p" size=0x10\n  LOAD r-x offset=zero',
        'case x\nexec colour=red\ntext "p" ""',
        "case x\n  LOAD r-x offset=0x0",
    ],
)
def test_what_cannot_be_understood_is_told(text: str) -> None:
    with pytest.raises(CaseError):
        parse(text)


def test_the_file_is_what_was_described(tmp_path: Path) -> None:
    case = parse(
        """case x
elf64 "prog" size=0x5000
  header type=DYN entry=0x1234 phoff=0x1000
  LOAD rw- offset=0x2000 vaddr=0x3000 filesz=0x2800 memsz=0x6000 align=0x200000
  at 0x3000 "here"
"""
    )
    write(case, str(tmp_path))
    data = (tmp_path / "prog").read_bytes()
    assert len(data) == 0x5000 and (tmp_path / "prog").stat().st_mode & 0o7777 == 0o755
    header = struct.unpack_from("<16sHHIQQQIHHHHHH", data)
    assert (header[1], header[2], header[4], header[5], header[9], header[10]) == (3, 62, 0x1234, 0x1000, 56, 1)
    assert struct.unpack_from("<IIQQQQQQ", data, 0x1000) == (1, 6, 0x2000, 0x3000, 0, 0x2800, 0x6000, 0x200000)
    assert data[0x3000:0x3004] == b"here" and all(data[0x4800:0x5000])  # a pattern where the segment ends
    remove(case, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_i386_file_has_its_flags_last(tmp_path: Path) -> None:
    case = parse(
        'case x\nelf32 "prog" size=0x1000\n  LOAD r-x offset=0x1 vaddr=0x2 paddr=0x3 filesz=0x4 memsz=0x5 align=0x6\n'
    )
    write(case, str(tmp_path))
    assert struct.unpack_from("<8I", (tmp_path / "prog").read_bytes(), 0x34) == (1, 1, 2, 3, 4, 5, 5, 6)


def test_a_case_is_plain_data() -> None:
    starts = seeds()
    first, second = (mutant(starts, 9, 17) for _ in range(2))
    assert first == second and isinstance(first, Case)
    assert mutant(starts, 9, 18) != first
