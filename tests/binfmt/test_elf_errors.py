"""Every way in which an ELF file can be wrong, asked of the planner and of the kernel this runs on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadstone.binfmt.plan import ElfPlan
from support import elfbuilder as eb
from support.elf_oracle import Planned, compare, native
from support.elfbuilder import Entry

BITS = [64, 32]


@pytest.fixture
def write(tmp_path: Path):
    def write(data: bytes, name: str = "program", mode: int = 0o755) -> str:
        path = tmp_path / name
        path.write_bytes(data)
        path.chmod(mode)
        return str(path)

    return write


@pytest.fixture(scope="module")
def ia32(tmp_path_factory: pytest.TempPathFactory) -> bool:
    path = tmp_path_factory.mktemp("ia32") / "program"
    path.write_bytes(eb.static(32))
    path.chmod(0o755)
    return native(str(path))[0] == "ok"


@pytest.fixture(params=BITS, ids=["elf64", "elf32"])
def bits(request: pytest.FixtureRequest, ia32: bool) -> int:
    if request.param == 32 and not ia32:
        pytest.skip("this kernel runs no i386 programs")
    return int(request.param)


def field(data: bytes, bits: int, name: str, value: int, entry: int | None = None) -> bytes:
    """`data` with a field of the ELF header, or of a program header, changed."""
    if entry is None:
        offset, size = (eb.HEADER_FIELDS_64 if bits == 64 else eb.HEADER_FIELDS_32)[name]
    else:
        offset, size = (eb.ENTRY_FIELDS_64 if bits == 64 else eb.ENTRY_FIELDS_32)[name]
        offset += eb.entry_offset(entry, bits)
    return eb.patch(data, offset, size, value)


def test_the_sound_ones_load(write, bits: int) -> None:
    loader = write(eb.loader(bits), "loader")
    assert compare(write(eb.static(bits))) == "ok"
    assert compare(loader) == "ok"
    assert compare(write(eb.dynamic(os.fsencode(loader), bits), "dynamic")) == "ok"


def test_truncated_at_every_byte_of_the_headers(write, bits: int) -> None:
    loader = write(eb.loader(bits), "loader")
    verdicts = set()
    for data in (eb.static(bits), eb.dynamic(os.fsencode(loader), bits)):
        for length in (*range(eb.entry_offset(4, bits) + 2), 0x8FF, 0x901, 0x900 + len(loader), 0x1000, 0x1001, 0x1233):
            verdicts.add(compare(write(data[:length])))
    assert {"ENOEXEC", "EIO", "ok"} <= verdicts


def test_an_interpreter_truncated_at_every_byte_of_its_headers(write, bits: int) -> None:
    data = eb.loader(bits)
    verdicts = set()
    for length in (*range(eb.entry_offset(2, bits) + 2), 0x801, 0x1000, 0x1101):
        loader = write(data[:length], "loader")
        verdicts.add(compare(write(eb.dynamic(os.fsencode(loader), bits))))
    assert {"EIO", "ELIBBAD", "ok"} <= verdicts


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("type", 0, "type NONE"),
        ("type", 1, "not linked yet"),
        ("type", 4, "core dump"),
        ("type", 0xFE00, "ET_0xfe00"),
        ("machine", 183, "AArch64"),
        ("machine", 243, "RISC-V"),
        ("machine", 9999, "9999"),
        ("phentsize", 0, "e_phentsize"),
        ("phentsize", 55, "e_phentsize"),
        ("phentsize", 0xFFFF, "e_phentsize"),
        ("phnum", 0, "e_phnum is 0"),
        ("phnum", 0xFFFF, "at most"),
        ("phnum", 2049, "at most"),
        ("phoff", 0x2FFF, "past the end"),
        ("phoff", 0x7FFFFFFF, "past the end"),
        ("phoff", -1, "offset|past the end"),
        ("class", 0, None),
        ("class", 77, None),
        ("data", 77, None),
        ("version", 9, None),
        ("ehsize", 0, None),
        ("flags", 0xFFFFFFFF, None),
    ],
)
def test_a_wrong_elf_header(write, bits: int, name: str, value: int, said: str | None) -> None:
    path = write(field(eb.static(bits), bits, name, value))
    verdict = compare(path)
    if said is None:
        assert verdict == "ok"
        return
    assert verdict == "ENOEXEC"
    assert any(words in str(Planned(path).error) for words in said.split("|"))


def test_the_most_program_headers(write, bits: int) -> None:
    most = 65536 // (56 if bits == 64 else 32)
    base = 0x400000 if bits == 64 else 0x8048000
    code = Entry(eb.LOAD, eb.R | eb.X, 0, base, 0x1000)
    note = Entry(4, eb.R, 0, 0, 0, 0, 4)
    for count, verdict in ((most, "ok"), (most + 1, "ENOEXEC")):
        data = eb.elf([code, *[note] * (count - 1)], bits=bits, entry=base + 0x10, size=0x20000)
        assert compare(write(data)) == verdict


def test_each_machine_names_itself(write) -> None:
    for machine, name in ((183, "AArch64"), (40, "ARM"), (243, "RISC-V"), (20, "PowerPC"), (22, "s390"), (8, "MIPS")):
        path = write(eb.elf([Entry()], machine=machine))
        assert name in str(Planned(path).error)
        assert native(path)[0] == "ENOEXEC"
    x32 = write(eb.elf([Entry(vaddr=0x400000)], bits=32, machine=eb.X86_64))
    assert "x32" in str(Planned(x32).error)
    assert compare(x32) == "ENOEXEC"


@pytest.mark.parametrize("size", [0, 1, 4097, 0xFFFFFFFF, -1])
def test_pt_interp_of_an_impossible_size(write, bits: int, size: int) -> None:
    data = field(eb.dynamic(b"/nowhere", bits), bits, "filesz", size, entry=0)
    path = write(data)
    assert compare(path) == "ENOEXEC"
    assert "PT_INTERP" in str(Planned(path).error)


def test_pt_interp_of_the_largest_size(write, bits: int) -> None:
    loader = write(eb.loader(bits), "loader")
    name = os.fsencode(loader)
    data = eb.dynamic(name, bits)
    data = data[:0x900] + name.ljust(4096, b"\0") + data[0x900 + 4096 :]
    data = field(data, bits, "filesz", 4096, entry=0)
    assert compare(write(data)) == "ok"


def test_pt_interp_without_its_nul(write, bits: int) -> None:
    loader = write(eb.loader(bits), "loader")
    path = write(field(eb.dynamic(os.fsencode(loader), bits), bits, "filesz", len(loader), entry=0))
    assert compare(path) == "ENOEXEC"
    assert "NUL" in str(Planned(path).error)


@pytest.mark.parametrize(
    ("offset", "verdict"),
    [(0x2FFF, "EIO"), (0x7FFFFFFF, "EIO"), (0x7FFFFFFFFFFFFFFF, "EINVAL"), (-(1 << 62), "EINVAL"), (-1, "EINVAL")],
)
def test_pt_interp_past_the_end_of_the_file(write, bits: int, offset: int, verdict: str) -> None:
    path = write(field(eb.dynamic(b"/nowhere", bits), bits, "offset", offset, entry=0))
    if bits == 32 and verdict == "EINVAL":  # no offset of 32 bits is too large for loff_t
        verdict = "EIO" if offset & 0xFFFFFFFF else "ENOENT"
    assert compare(path) == verdict


@pytest.mark.parametrize("name", [b"/nowhere/at/all", b"", b"/", b"/etc/passwd", b"/etc/passwd/x", b"relative"])
def test_an_interpreter_that_cannot_be_opened(write, bits: int, name: bytes) -> None:
    data = eb.dynamic(name or b"\0", bits)
    planned = Planned(write(data))
    assert planned.verdict == native(write(data))[0]
    assert planned.verdict in ("ENOENT", "EACCES", "ENOTDIR")


def test_only_the_first_pt_interp_counts(write, bits: int) -> None:
    loader = write(eb.loader(bits), "loader")
    name = os.fsencode(loader) + b"\0"
    entries = [
        Entry(eb.INTERP, eb.R, 0x900, 0, len(name)),
        Entry(eb.INTERP, eb.R, 0, 0, 0),
        Entry(eb.LOAD, eb.R | eb.X, 0, 0, 0x1000),
    ]
    data = eb.elf(entries, bits=bits, type=eb.DYN, entry=0x10, contents={0x900: name})
    assert compare(write(data)) == "ok"


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"", "EIO"),
        (b"#!/bin/sh\n", "EIO"),
        (b"#!/bin/sh\n".ljust(200, b"\n"), "ELIBBAD"),
        (b"\x7fELF".ljust(200, b"\0"), "ELIBBAD"),
    ],
)
def test_an_interpreter_that_is_no_elf_file(write, data: bytes, verdict: str) -> None:
    loader = write(data, "loader")
    assert compare(write(eb.dynamic(os.fsencode(loader)))) == verdict


def test_an_interpreter_for_another_machine(write, bits: int) -> None:
    loader = write(eb.loader(96 - bits), "loader")
    path = write(eb.dynamic(os.fsencode(loader), bits))
    assert compare(path) == "ELIBBAD"
    assert "program" in str(Planned(path).error)


@pytest.mark.parametrize(
    ("name", "value", "entry", "verdict"),
    [
        ("type", 1, None, "signal 11"),
        ("type", 4, None, "signal 11"),
        ("type", 2, None, None),
        ("phnum", 0, None, "ELIBBAD"),
        ("phentsize", 1, None, "ELIBBAD"),
        ("phoff", 0x2FFF, None, "ELIBBAD"),
        ("phoff", -1, None, "ELIBBAD"),
        ("entry", -1, None, None),
        ("entry", 0x7FFFFFFFF000, None, None),
        ("memsz", 0xFF, 1, "signal 11"),
        ("memsz", -1, 1, "signal 11"),
        ("offset", 0x1101, 1, "signal 11"),
        ("type", 0, 0, None),
        ("type", 0, 1, "ok"),
        ("vaddr", -0x1000, 0, None),
        ("flags", 0, 1, "ok"),
    ],
)
def test_an_interpreter_with_wrong_fields(
    write, bits: int, name: str, value: int, entry: int | None, verdict: str | None
) -> None:
    loader = write(field(eb.loader(bits), bits, name, value, entry), "loader")
    found = compare(write(eb.dynamic(os.fsencode(loader), bits)))
    assert verdict is None or found == verdict


def test_an_interpreter_with_nothing_to_map(write, bits: int) -> None:
    loader = write(eb.elf([Entry(4)], bits=bits, type=eb.DYN), "loader")
    path = write(eb.dynamic(os.fsencode(loader), bits))
    assert compare(path) == "signal 11"
    assert "nothing to map" in str(Planned(path).error)


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("filesz", 0x3211, "signal 11"),
        ("filesz", -1, "signal 11"),
        ("filesz", 0, "ok"),
        ("filesz", 0x3210, "ok"),
        ("memsz", 0x233, "signal 11"),
        ("memsz", 0x234, "ok"),
        ("memsz", 0, "signal 11"),
        ("memsz", -1, "signal 11"),
        ("memsz", 1 << 47, "signal 11"),
        ("offset", 0x1001, "signal 11"),
        ("offset", -1, "signal 11"),
        ("offset", 0, "ok"),
        ("offset", 0x2000, "ok"),
        ("offset", -0x1000, None),
        ("vaddr", -1, "signal 11"),
        ("vaddr", 1 << 47, "signal 11"),
        ("vaddr", -0x1000, "signal 11"),
        ("align", 0, "ok"),
        ("align", 3, "ok"),
        ("align", -1, "ok"),
        ("align", 1 << 31, "ok"),
        ("flags", 0, "ok"),
        ("flags", eb.R, "ok"),
        ("flags", eb.W, "ok"),
        ("flags", eb.X, "ok"),
        ("flags", -8, "ok"),
        ("flags", -1, "ok"),
        ("type", 0, "ok"),
        ("paddr", -1, "ok"),
    ],
)
def test_a_wrong_program_header(write, bits: int, name: str, value: int, verdict: str | None) -> None:
    if bits == 32 and value == 1 << 47:
        value = 0xFFFFE001
    path = write(field(eb.static(bits), bits, name, value, entry=1))
    found = compare(path)
    assert verdict is None or found == verdict
    if verdict == "signal 11":
        error = Planned(path).error
        assert error is not None
        assert error.why.startswith("segment 1: ")


@pytest.mark.parametrize("value", [0, 1, 0x2000, 0x10000, 0x200000, 3, 1 << 30, 1 << 47, 1 << 63, -1])
def test_alignment_of_a_position_independent_program(write, bits: int, value: int) -> None:
    loader = write(eb.loader(bits), "loader")
    for data in (eb.dynamic(os.fsencode(loader), bits), eb.loader(bits)):
        entry = 1 if data[:0x1000] != eb.loader(bits)[:0x1000] else 0
        path = write(field(data, bits, "align", value, entry=entry))
        compare(path)
        plan = Planned(path).program
        if isinstance(plan, ElfPlan):
            wide = value & ((1 << bits) - 1)
            assert plan.alignment == (max(wide, 0x1000) if wide and wide & (wide - 1) == 0 else 0x1000)


def test_segments_that_overlap_or_come_out_of_order(write, bits: int) -> None:
    base = 0x400000 if bits == 64 else 0x8048000
    code = Entry(eb.LOAD, eb.R | eb.X, 0, base, 0x1000)
    others = [
        [code, Entry(eb.LOAD, eb.R | eb.W, 0x1000, base, 0x1000)],
        [Entry(eb.LOAD, eb.R | eb.W, 0x1000, base + 0x1000, 0x100, 0x1800), code],
        [code, Entry(eb.LOAD, eb.R | eb.W, 0x234, base + 0x234, 0x1000, 0x2000)],
        [code, Entry(eb.LOAD, eb.R | eb.W, 0, base, 0, 0x2345)],
        [Entry(eb.LOAD, eb.R | eb.W, 0x1fff, base + 0xfff, 1, 2), code],
        [code, Entry(eb.LOAD, eb.R | eb.W, 0x1800, base + 0x1800, 0x800, 0x801)],
        [code, Entry(eb.LOAD, eb.R, 0x1800, base + 0x1800, 0x80, 0x3000)],
        [code, Entry(eb.LOAD, eb.R | eb.X, 0x1800, base + 0x1800, 0x80, 0x3000)],
        [code, Entry(eb.LOAD, eb.R | eb.W, 0x5000, base + 0x5000, 0x80, 0x80)],
    ]  # fmt: skip
    for entries in others:
        assert compare(write(eb.elf(entries, bits=bits, entry=base + 0x10))) == "ok", entries


def test_clearing_the_tail_past_the_end_of_the_file_kills(write, bits: int) -> None:
    base = 0x400000 if bits == 64 else 0x8048000
    code = Entry(eb.LOAD, eb.R | eb.X, 0, base, 0x1000)
    for flags, verdict in ((eb.R | eb.W, "signal 11"), (eb.R, "ok")):
        past = Entry(eb.LOAD, flags, 0x5000, base + 0x5000, 0x80, 0x100)
        assert compare(write(eb.elf([code, past], bits=bits, entry=base + 0x10))) == verdict


def test_a_program_without_anything_to_map(write, bits: int) -> None:
    note = Entry(4, eb.R, 0, 0, 0, 0, 4)
    for kind in (eb.EXEC, eb.DYN):
        assert compare(write(eb.elf([note], bits=bits, type=kind, entry=0x1234))) == "ok"
    empty = Entry(eb.LOAD, eb.R, 0, 0, 0, 0)
    path = write(eb.elf([empty], bits=bits, type=eb.DYN))
    assert compare(path) == "signal 11"


def test_the_entry_point_must_be_in_the_address_space(write, bits: int) -> None:
    limit = 0x7FFFFFFFF000 if bits == 64 else 0xFFFFE000
    for entry, verdict in ((limit - 1, "ok"), (limit, "signal 11"), (-1, "signal 11"), (0, "ok")):
        assert compare(write(field(eb.static(bits), bits, "entry", entry))) == verdict
    # With an interpreter nobody looks at the program's own.
    loader = write(eb.loader(bits), "loader")
    assert compare(write(field(eb.dynamic(os.fsencode(loader), bits), bits, "entry", limit))) == "ok"


@pytest.mark.parametrize("flags", [None, 0, eb.R | eb.W, eb.R | eb.W | eb.X, eb.X])
def test_the_stack_is_executable_as_pt_gnu_stack_says(write, bits: int, flags: int | None) -> None:
    data = eb.static(bits)
    data = field(data, bits, "type", 0, entry=2) if flags is None else field(data, bits, "flags", flags, entry=2)
    path = write(data)
    assert compare(path) == "ok"


def test_the_last_pt_gnu_stack_wins(write, bits: int) -> None:
    base = 0x400000 if bits == 64 else 0x8048000
    for last in (eb.R | eb.W, eb.R | eb.W | eb.X):
        entries = [Entry(vaddr=base)] + [
            Entry(eb.GNU_STACK, flags, 0, 0, 0, 0) for flags in (eb.R | eb.W | eb.X, eb.R | eb.W, last)
        ]
        path = write(eb.elf(entries, bits=bits, entry=base + 0x10))
        assert compare(path) == "ok"
        plan = Planned(path).program
        assert plan is not None
        assert plan.executable_stack == (2 if last & eb.X else 1)


def test_a_broken_gnu_property_is_nothing_to_this_kernel(write, bits: int) -> None:
    data = field(eb.static(bits), bits, "type", eb.GNU_PROPERTY, entry=2)
    for size in (0, 1, 1024, 1025, 0x7FFFFFFF):
        assert compare(write(field(data, bits, "filesz", size, entry=2))) == "ok"


def test_program_headers_that_no_segment_covers(write, bits: int) -> None:
    base = 0x400000 if bits == 64 else 0x8048000
    code = Entry(eb.LOAD, eb.R | eb.X, 0x1000, base, 0x1000)
    assert compare(write(eb.elf([code], bits=bits, entry=base))) == "ok"
    bare = [Entry(eb.LOAD, eb.R | eb.X, 0x1000, 0, 0x1000)]
    assert compare(write(eb.elf(bare, bits=bits, type=eb.DYN))) == "ok"
    # Two segments cover them: the last one gives AT_PHDR.
    both = [Entry(eb.LOAD, eb.R | eb.X, 0, base, 0x1000), Entry(eb.LOAD, eb.R, 0, base + 0x8000, 0x1000)]
    path = write(eb.elf(both, bits=bits, entry=base))
    assert compare(path) == "ok"
    plan = Planned(path).program
    assert plan is not None
    assert plan.phdr_address == base + 0x8000 + plan.header.phoff


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "an empty file"),
        (b"echo hello\n", "text without"),
        (b"\0" * 300, "no known"),
        (b"MZ".ljust(0x3C, b"\0") + b"\x40\0\0\0PE\0\0".ljust(200, b"\0"), "PE"),
        (b"MZ".ljust(300, b"\0"), "MZ"),
        (b"\xcf\xfa\xed\xfe".ljust(300, b"\0"), "Mach-O"),
        (b"\xca\xfe\xba\xbe\0\0\0\x02".ljust(300, b"\0"), "Mach-O fat"),
        (b"\xca\xfe\xba\xbe\0\0\0\x34".ljust(300, b"\0"), "Java"),
        (b"\x0b\x01\x64\0".ljust(300, b"\0"), "a.out"),
        (b"\x07\x01\x64\0".ljust(300, b"\0"), "a.out"),
        (b"\x7fELF", "cut off"),
        (b"\x7fELF\x02\x02".ljust(16, b"\0") + b"\0\x02\0\x15".ljust(300, b"\0"), "PowerPC64"),
    ],
)
def test_files_that_nobody_takes(write, data: bytes, said: str) -> None:
    path = write(data)
    assert compare(path) == "ENOEXEC"
    assert said in str(Planned(path).error)


def test_a_directory_and_files_nobody_may_execute(write, tmp_path: Path) -> None:
    assert Planned(str(tmp_path)).verdict == native(str(tmp_path))[0] == "EACCES"
    closed = write(eb.static(), mode=0o644)
    assert Planned(closed).verdict == native(closed)[0] == "EACCES"
    assert Planned("/nowhere").verdict == native("/nowhere")[0] == "ENOENT"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o755)
    assert Planned(str(fifo)).verdict == native(str(fifo))[0] == "EACCES"
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert Planned(str(loop)).verdict == native(str(loop))[0] == "ELOOP"


def test_a_first_segment_without_bytes_in_the_file(write, bits: int) -> None:
    """No place is looked for then: with an interpreter the usual base serves, without one address 0."""
    loader = write(eb.loader(bits), "loader")
    name = os.fsencode(loader) + b"\0"
    more = Entry(eb.LOAD, eb.R | eb.W, 0x1100, 0x2100, 0x234, 0x3210)
    for vaddr in (0, 0x100):
        first = Entry(eb.LOAD, eb.R | eb.X, vaddr, vaddr, 0, 0x800)
        entries = [Entry(eb.INTERP, eb.R, 0x900, 0, len(name)), first, more]
        with_interpreter = eb.elf(entries, bits=bits, type=eb.DYN, entry=0x800, contents={0x900: name})
        assert compare(write(with_interpreter)) == "ok"
    path = write(eb.elf([first, more], bits=bits, type=eb.DYN, entry=0x800))
    assert compare(path) == "signal 11"
    assert "below address 0" in str(Planned(path).error)
