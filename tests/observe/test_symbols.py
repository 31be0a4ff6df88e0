"""Symbols and sections against pyelftools and readelf's numbers; hostile files end in an error, quickly."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from loadstone.observe.maps import find_mapping, format_maps, parse_maps
from loadstone.observe.object_file import BytesSource, NotAnObject, ObjectFile, read_object
from loadstone.observe.symbols import Symbolizer

SOURCE = r"""
#include <stdio.h>
int zeroed[5000]; int counted = 7; const char text[] = "read only";
static int helper(int a) { return a * counted; }
int work(int a) { return helper(a) + zeroed[a]; }
int main(int argc, char **argv) { printf("%p %p %p %s", (void *)work, (void *)zeroed, (void *)&counted, text);
  FILE *f = fopen("/proc/self/maps", "r"); int c; while ((c = fgetc(f)) != EOF) putchar(c); return work(argc) - 7; }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    directory = tmp_path_factory.mktemp("symbols")
    (directory / "a.c").write_text(SOURCE)
    subprocess.run(["gcc", "-O1", "-fPIE", "-pie", "-o", directory / "a", directory / "a.c"], check=True)
    return directory / "a"


@pytest.mark.parametrize("path", ["/bin/ls", "/lib64/ld-linux-x86-64.so.2", "/bin/busybox"])
def test_sections_and_symbols_are_those_of_pyelftools(path: str) -> None:
    found = read_object(path)
    if found is None:
        pytest.skip(f"{path} is not on this host")
    with open(path, "rb") as file:
        elf = ELFFile(file)
        sections = [(s.name, s["sh_addr"], s["sh_offset"], s["sh_size"]) for s in elf.iter_sections()]
        wanted = {
            (s["st_value"], s.name)
            for table in elf.iter_sections()
            if table["sh_type"] in ("SHT_SYMTAB", "SHT_DYNSYM")
            for s in table.iter_symbols()
            if s.name
            and s["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT", "STT_NOTYPE", "STT_LOOS")
            and isinstance(s["st_shndx"], int)
        }
    assert [(s.name, s.address, s.offset, s.size) for s in found.sections] == sections
    assert {(s.address, s.name) for s in found.symbols} == wanted


def test_addresses_of_a_running_process(program: Path) -> None:
    """The process prints its own addresses and maps: the symbolizer must find the same."""
    text = subprocess.run([program], capture_output=True, check=True, text=True).stdout
    head, _, maps = text.partition("read only")
    work, zeroed, counted = (int(word, 16) for word in head.split())
    symbols = Symbolizer(parse_maps(maps))
    path = str(program)
    assert symbols.address_of("work") == work
    assert symbols.address_of("zeroed", path) == zeroed
    assert symbols.address_of("counted") == counted
    assert symbols.describe(work + 2) == "work+0x2 in a"
    assert symbols.describe(zeroed + 16384) == "zeroed+0x4000 in a"  # in .bss, beyond the file's last page
    assert symbols.place(counted).bias % 4096 == 0
    libc = next(m for m in parse_maps(maps) if "libc" in m.path and "x" in m.perms)
    printf = symbols.address_of("printf", libc.path)
    assert printf is not None
    assert libc.start <= printf < libc.end
    assert symbols.describe(printf).startswith("printf in libc")


def test_offsets_and_addresses_are_inverse(program: Path) -> None:
    found = read_object(str(program))
    assert found is not None
    main = found.symbol_named("main")
    assert main is not None
    offset = found.offset_of(main.address)
    assert offset is not None
    assert found.address_of(offset) == main.address
    section = found.section_at(main.address)
    assert section is not None
    assert section.name == ".text"
    assert found.section_at_offset(offset) == section
    zeroed = found.symbol_named("zeroed")
    assert zeroed is not None
    assert found.offset_of(zeroed.address + 8192) is None


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x09\x01" + bytes(60), b"\x7fELF\x02\x01"])
def test_what_is_no_object_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(NotAnObject):
        ObjectFile(BytesSource(data))


def test_devices_and_missing_files_are_no_objects(tmp_path: Path) -> None:
    assert read_object("/dev/zero") is None
    assert read_object(str(tmp_path)) is None
    assert read_object(str(tmp_path / "missing")) is None


def test_hostile_files_end_quickly(program: Path) -> None:
    data = program.read_bytes()
    chance = random.Random(4)
    start = time.process_time()
    for _ in range(400):
        mutated = bytearray(data)
        for _ in range(chance.randrange(1, 12)):
            header = chance.random() < 0.5
            at = chance.randrange(64) if header else len(data) - 1 - chance.randrange(2000)  # header, section headers
            mutated[at] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        try:
            found = ObjectFile(BytesSource(bytes(mutated[: chance.randrange(1, len(data) + 1)])))
        except NotAnObject:
            continue
        found.symbol_at(0x1139)
        found.symbol_named("main")
        found.section_at_offset(0x1000)
        found.address_of(2**63)
    assert time.process_time() - start < 20


def test_maps_survive_a_round_trip() -> None:
    text = (
        "555555554000-555555555000 r--p 00001000 00:00 0                          /tmp/with blank\n"
        "7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]\n"
        "7ffffffff000-800000000000 ---p 00000000 00:00 0 \n"
    )
    maps = parse_maps(text + "nonsense\n\nxx-yy r--p 0 0 0\n")
    assert [m.path for m in maps] == ["/tmp/with blank", "[stack]", ""]
    assert (maps[0].offset, maps[0].size, maps[0].perms) == (0x1000, 0x1000, "r--p")
    assert format_maps(maps) == text
    assert find_mapping(maps, 0x555555554FFF) is maps[0]
    assert find_mapping(maps, 0x555555555000) is None
