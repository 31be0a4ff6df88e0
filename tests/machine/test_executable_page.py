"""Machine code near the code that calls it."""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, c_int, c_void_p

from loadstone.machine import unicorn_library
from loadstone.machine.executable_page import ExecutablePage

RETURN_7 = b"\xb8\x07\x00\x00\x00\xc3"  # mov eax, 7; ret
REACH = 1 << 31


def address_of(function: object) -> int:
    return ctypes.cast(function, c_void_p).value or 0  # type: ignore[arg-type]


def test_code_runs_within_reach_of_a_library() -> None:
    near = address_of(unicorn_library.load().uc_emu_start)
    pages = [ExecutablePage(RETURN_7, near) for _ in range(3)]
    for page in pages:
        assert CFUNCTYPE(c_int)(page.address)() == 7
        assert 0 < near - page.address < REACH
        page.close()
        page.close()


def test_code_runs_where_there_is_no_room() -> None:
    page = ExecutablePage(RETURN_7, near=1 << 16)
    assert CFUNCTYPE(c_int)(page.address)() == 7


def test_a_page_that_nobody_keeps_is_given_back() -> None:
    where = ExecutablePage(RETURN_7, near=address_of(unicorn_library.load().uc_emu_start)).address
    with open("/proc/self/maps") as file:
        assert not any(line.startswith(f"{where:x}-") for line in file)
