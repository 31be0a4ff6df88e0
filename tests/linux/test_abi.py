"""The table of system-call names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loadstone.linux import abi
from support.speed import cost

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not installed")
def test_every_name_of_the_kernel_header_has_its_number() -> None:
    header = {name: int(n) for name, n in re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text())}
    table = abi.load()
    assert len(header) > 350
    assert {name: table.numbers.get(name) for name in header} == header


def test_no_number_and_no_name_is_there_twice() -> None:
    table = abi.load()
    assert len(table.names) == len(table.numbers) == 383
    assert table.names[0] == "read"
    assert table.names[469] == "file_setattr"


def test_a_number_without_a_name_shows_itself() -> None:
    assert abi.load().name(999) == "syscall_0x3e7"


def test_it_is_beside_the_module_so_that_a_wheel_has_it() -> None:
    assert (Path(abi.__file__).parent / "x86_64.tbl").exists()


def test_loading_is_fast() -> None:
    assert cost(abi.load) < 4
