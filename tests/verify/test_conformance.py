"""The conformance list, case by case; and what a loaded program then sees of its odd pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadstone.verify.case import Case, write
from loadstone.verify.case_text import parse
from loadstone.verify.conformance import EXPECTED_OF, check_all, conformance_cases, met
from loadstone.verify.verdict import Verdict
from support.run import same

CASES = conformance_cases()


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_as_on_the_kernel(case: Case) -> None:
    (checked,) = check_all([case])
    if checked.skipped:
        pytest.skip(checked.skipped)
    assert checked.judged is not None
    assert not checked.judged.differences
    assert not checked.unmet


def test_the_list_is_whole() -> None:
    """What issue 4 asks for by name."""
    assert len({case.what for case in CASES}) == len(CASES) >= 60
    assert all(case.expected for case in CASES)
    text = " | ".join(case.what for case in CASES)
    for word in (
        "missing text", "p_filesz > p_memsz", "data only", "anonymous-only", "past a page", "unaligned offset",
        "overlapping", "directly overlapping", "out of order", "out of bounds", "missing program headers",
        "missing header", "starts above 0", "wraps around", "static (ET_EXEC)", "missing", "relative", "another ISA",
        "not executable", "not readable", "a directory", "size 1", "size 4096", "size 4097",
        "past the end of the file", "e_phnum 0", "e_phnum 0xffff", "spaces and tabs", "without a newline",
        "255", "256", "257", "NUL",
        "in a row", "loop", "in place of a directory", "high segment", "cleared in a file-backed page",
        "open for writing", "noexec",
    ):  # fmt: skip
        assert word in text


def test_expectations_can_fail() -> None:
    maps = "00400000-00401000 r-xp 00000000 08:01 5      /tmp/a b/prog\n00401000-00402000 rw-p 00000000 00:00 0 \n"
    facts = {"maps": maps, "start_brk": "0x402000", "page 0x401000": "11" * 0x234 + "00" * 0xDCC}
    verdict = Verdict("image", facts)
    for line in (
        "image", "map 0x400000-0x401000 r-xp prog", "map 0x401000-0x402000 rw-p", "start_brk 0x402000",
        "zeros 0x401234-0x402000", "no zeros 0x401233-0x402000",
    ):  # fmt: skip
        assert met(line, verdict), line
    for line in (
        "ENOEXEC", "signal 11", "map 0x400000-0x401000 r--p prog", "map 0x400000-0x401000 r-xp",
        "map 0x400000-0x402000 r-xp prog", "start_brk 0x402001", "zeros 0x401233-0x402000",
        "no zeros 0x401234-0x402000", "zeros 0x501234-0x502000",
    ):  # fmt: skip
        assert not met(line, verdict), line
    assert EXPECTED_OF == (6, 18)


# One segment over a file of 0x1800 bytes; the code is at 0x400800.
PAST_THE_END = r"""case x
elf64 "prog" size=0x1800
  header entry=0x400800
  LOAD r-x offset=0x0 vaddr=0x400000 filesz=0x4000 memsz=0x4000 align=0x1000
  at 0x800 "%s"
"""
LOAD_AND_EXIT = r"\x0f\xb6\x3c\x25%s\xb8\x3c\x00\x00\x00\x0f\x05"  # movzx edi, byte [N]; mov eax, 60; syscall


@pytest.mark.parametrize(
    ("address", "status"),
    [(r"\x00\x18\x40\x00", 0), (r"\xff\x1f\x40\x00", 0), (r"\x00\x20\x40\x00", 135), (r"\x00\x30\x40\x00", 135)],
    ids=["the end", "the end of its page", "the next page", "the last page"],
)
def test_reading_past_the_end_of_the_file(tmp_path: Path, address: str, status: int) -> None:
    """Zeros to the end of the page, SIGBUS behind it."""
    write(parse(PAST_THE_END % (LOAD_AND_EXIT % address)), str(tmp_path))
    assert same(str(tmp_path / "prog")).status == status


def test_a_break_after_a_high_segment_can_be_moved(tmp_path: Path) -> None:
    """brk(0); brk(that + 4096); the exit status is how many pages it moved."""
    code = (
        r"\x31\xff\xb8\x0c\x00\x00\x00\x0f\x05\x49\x89\xc4\x48\x8d\xb8\x00\x10\x00\x00\xb8\x0c\x00\x00\x00\x0f\x05"
        r"\x4c\x29\xe0\x48\xc1\xe8\x0c\x89\xc7\xb8\x3c\x00\x00\x00\x0f\x05"
    )
    case = parse(
        rf"""case x
elf64 "prog" size=0x2000
  header entry=0x400800
  LOAD r-x offset=0x0 vaddr=0x400000 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1000 vaddr=0x7fff00000000 filesz=0x100 memsz=0x1234 align=0x1000
  at 0x800 "{code}"
"""
    )
    write(case, str(tmp_path))
    assert same(str(tmp_path / "prog"), fixed_addresses=True).status == 1
