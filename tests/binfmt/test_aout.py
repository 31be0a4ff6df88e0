"""Plans for a.out programs: numbers worked out by hand from <linux/a.out.h>, verdicts from load_aout_binary."""

from __future__ import annotations

import shutil
import struct
import subprocess
from errno import ENOEXEC
from pathlib import Path

import pytest

from loadstone.binfmt.aout import MAGIC_NAMES, plan_aout
from loadstone.binfmt.plan import AoutPlan
from loadstone.binfmt.registry import handlers_of, prepare_binprm, search_binary_handler
from loadstone.binfmt.rules import DEFAULT_RULES, FormatRules
from loadstone.binfmt.source import BytesSource
from loadstone.errors import LinuxError
from support.aout import NMAGIC, OMAGIC, QMAGIC, ZMAGIC, aout

OLD = DEFAULT_RULES._replace(aout=True, buffer_size=128)
OLD_I386 = OLD._replace(x86_64=False)


def plan(data: bytes, rules: FormatRules = OLD) -> AoutPlan:
    source = BytesSource(data)
    made = search_binary_handler(source, rules)
    assert isinstance(made, AoutPlan)
    return made


# magic, text, data, bss -> N_TXTOFF, N_TXTADDR, N_DATADDR (64-bit kernel), N_DATADDR (32-bit kernel), is it mapped?
NUMBERS = [
    (OMAGIC, 100, 50, 16, 32, 0, 100, 100, False),
    (NMAGIC, 4200, 50, 16, 32, 0, 8192, 5120, False),
    (ZMAGIC, 5120, 2048, 5000, 1024, 0, 8192, 5120, False),
    (ZMAGIC, 4096, 4096, 0, 1024, 0, 4096, 4096, False),
    (QMAGIC, 8192 - 32, 4096, 12289, 0, 4096, 12288, 12288, True),
    (QMAGIC, 1024 - 32, 100, 0, 0, 4096, 8192, 5120, True),
]


@pytest.mark.parametrize(("magic", "text", "data", "bss", "offset", "start", "wide", "narrow", "mapped"), NUMBERS)
def test_numbers(
    magic: int, text: int, data: int, bss: int, offset: int, start: int, wide: int, narrow: int, mapped: bool
) -> None:
    file = aout(magic, bytes(text), bytes(data), bss, entry=0x1234)
    for rules, data_address in ((OLD, wide), (OLD_I386, narrow)):
        made = plan(file, rules)
        assert (made.text_offset, made.text_address, made.data_address) == (offset, start, data_address)
        assert (made.bss_address, made.brk) == (data_address + data, data_address + data + bss)
        assert made.mapped == mapped
        assert made.header.entry == 0x1234


def test_the_machine_and_the_flags_are_not_looked_at() -> None:
    assert plan(aout(QMAGIC, bytes(64), machine=0)).magic == QMAGIC
    assert plan(aout(OMAGIC, bytes(64), machine=0xFF03)).magic == OMAGIC


@pytest.mark.parametrize(
    "data",
    [
        aout(ZMAGIC, bytes(100), bytes(100))[:-1],
        aout(OMAGIC, bytes(100), symbols=12)[:-1],
        aout(QMAGIC, bytes(100), relocations=(8, 0)),
        aout(OMAGIC, bytes(100), relocations=(0, 8)),
        aout(0o411, bytes(100)),
        aout(OMAGIC, b"")[:31],
    ],
    ids=["short", "symbols missing", "relocations", "data relocations", "magic", "half a header"],
)
def test_what_is_no_program(data: bytes) -> None:
    with pytest.raises(LinuxError) as error:
        plan(data)
    assert error.value.errno == ENOEXEC


def test_sizes_are_added_with_32_bits() -> None:
    file = struct.pack("<8I", 100 << 16 | OMAGIC, 0xFFFF_FFF0, 0x20, 0, 0, 0, 0, 0) + bytes(16)
    made = plan(file)  # 0x10 bytes are asked for, and they are there
    assert made.data_address == 0xFFFF_FFF0


def test_only_old_kernels_have_the_handler_and_where() -> None:
    names = [name for name, _ in handlers_of(OLD)]
    assert names == ["load_script", "load_elf_binary", "compat load_elf_binary", "load_aout_binary"]
    assert handlers_of(OLD_I386)[0][0] == "load_aout_binary"
    with pytest.raises(LinuxError) as error:
        search_binary_handler(BytesSource(aout(QMAGIC, bytes(64))))
    assert error.value.errno == ENOEXEC
    assert "a.out program (QMAGIC)" in error.value.why


@pytest.mark.parametrize("magic", [OMAGIC, NMAGIC, ZMAGIC, QMAGIC])
def test_file_calls_it_the_same(tmp_path: Path, magic: int) -> None:
    if shutil.which("file") is None:
        pytest.skip("file is not installed")
    path = tmp_path / "old"
    path.write_bytes(aout(magic, bytes(4096), bytes(4096)))
    said = subprocess.run(["file", "-b", str(path)], capture_output=True, text=True, check=True).stdout
    assert f"({MAGIC_NAMES[magic]})" in said and "i386" in said


def test_any_bytes_give_a_plan_or_an_error() -> None:
    for first in range(0, 1 << 16, 3):
        head = struct.pack("<H", first).ljust(200, b"\x81")
        source = BytesSource(head)
        try:
            plan_aout(prepare_binprm(source, OLD), source, OLD)
        except LinuxError as error:
            assert error.errno == ENOEXEC
