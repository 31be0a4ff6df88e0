"""The program break against the kernel."""

from __future__ import annotations

import pytest

from memory.conftest import Twin
from memory.twin import Op, build_space, run_native

PAGE = 4096
MIB = 1 << 20


@pytest.fixture
def heap(mapper: str) -> tuple[int, int]:
    """Where the native program's heap starts and ends."""
    native = run_native(mapper, [Op("maps"), Op("stat"), Op("brk", (0,))])
    return build_space(native[0], native[1]).start_brk, int(native[2])


def test_grow_and_shrink(twin: Twin, heap: tuple[int, int]) -> None:
    start, end = heap
    twin(
        [
            ("brk", 0),
            ("brk", end + 1),
            ("brk", end + 100),
            ("brk", end + PAGE),
            ("brk", end + 10 * PAGE),
            ("write", end + 9 * PAGE, 3),
            ("brk", end + 5 * PAGE + 1),
            ("read", end + 9 * PAGE),
            ("brk", end + 12 * PAGE),
            ("read", end + 9 * PAGE),
            ("brk", end + PAGE - 1),
            ("brk", start - 1),
            ("brk", 1),
            ("brk", end),
            ("brk", end + 3 * PAGE),
        ]
    )


def test_what_is_in_the_way(twin: Twin, heap: tuple[int, int]) -> None:
    _, end = heap
    end = (end + PAGE - 1) & -PAGE
    twin(
        [
            ("mmap", end + 16 * PAGE, PAGE, 1, 0x32),
            ("brk", end + 16 * PAGE),
            ("brk", end + 15 * PAGE + 1),
            ("brk", end + 15 * PAGE),
            ("brk", end + 14 * PAGE),
            ("munmap", end + 16 * PAGE, PAGE),
            ("mmap", end + 600 * PAGE, PAGE, 3, 0x132),
            ("brk", end + 344 * PAGE),
            ("brk", end + 343 * PAGE),
            ("brk", end + 342 * PAGE),
        ]
    )


def test_heap_that_was_changed(twin: Twin, heap: tuple[int, int]) -> None:
    _, end = heap
    end = (end + PAGE - 1) & -PAGE
    twin(
        [
            ("brk", end + 8 * PAGE),
            ("mprotect", end + 6 * PAGE, 2 * PAGE, 1),
            ("brk", end + 12 * PAGE),
            ("munmap", end + 2 * PAGE, PAGE),
            ("brk", end + PAGE),
            ("munmap", end - PAGE, 2 * PAGE),
            ("brk", end - PAGE // 2),
            ("brk", end - 2 * PAGE),
            ("brk", end + 4 * PAGE),
        ]
    )


def test_data_limit(twin: Twin, heap: tuple[int, int]) -> None:
    _, end = heap
    twin(
        [
            ("rlimit", 2, 4 * MIB, 4 * MIB),
            ("brk", end + 2 * MIB),
            ("brk", end + 5 * MIB),
            ("brk", end + 4 * MIB - 64 * PAGE),
            ("mmap", 0, 2 * MIB, 3, 0x22),
            ("brk", end + 2 * MIB + PAGE),
        ]
    )


def test_the_end_of_the_address_space(twin: Twin) -> None:
    twin([("brk", (1 << 64) - 1), ("brk", 1 << 47), ("brk", 0x7FFFFFFFE000), ("brk", 1 << 46)])
