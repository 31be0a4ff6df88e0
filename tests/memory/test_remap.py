"""mremap against the kernel."""

from __future__ import annotations

import pytest

from memory.conftest import Twin

RW, RO, NONE = 3, 1, 0
PRIVATE, SHARED, FIXED, ANON = 2, 1, 0x10, 0x20
PA = PRIVATE | ANON
MAYMOVE, TO, DONTUNMAP = 1, 2, 4
PAGE = 4096
MIB = 1 << 20
AREA = 0x7FFF_0000_0000
ELSEWHERE = 0x7FFE_0000_0000


@pytest.mark.parametrize("flags", [PA, SHARED | ANON, PRIVATE, SHARED], ids=["anon", "shmem", "private", "shared"])
@pytest.mark.parametrize("touched", [False, True])
def test_grow_shrink_move(twin: Twin, data_file: str, flags: int, touched: bool) -> None:
    touches = [("write", AREA + n * PAGE, n + 1) for n in range(4) if touched]
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RW, flags, -1 if flags & ANON else 3, 0),
            *touches,
            ("mremap", AREA, 4 * PAGE, 8 * PAGE, 0, 0),
            ("mremap", AREA, 8 * PAGE, 3 * PAGE, 0, 0),
            ("mremap", AREA, 3 * PAGE, 3 * PAGE, MAYMOVE | TO, ELSEWHERE),
            ("read", ELSEWHERE + PAGE),
            ("read", AREA),
            ("mremap", ELSEWHERE + PAGE, PAGE, 5 * PAGE, MAYMOVE, 0),
            ("mremap", ELSEWHERE, PAGE, PAGE, MAYMOVE | TO, ELSEWHERE + PAGE),
            ("pagemap", ELSEWHERE, 4 * PAGE),
        ],
        (data_file,),
    )


@pytest.mark.parametrize("touched", [False, True])
def test_a_moved_area_merges_only_if_it_has_no_pages(twin: Twin, touched: bool) -> None:
    twin(
        [
            ("mmap", AREA, 2 * PAGE, RW, PA),
            ("mmap", ELSEWHERE, 2 * PAGE, RW, PA),
            *([("write", ELSEWHERE, 1)] if touched else []),
            ("mremap", ELSEWHERE, 2 * PAGE, 2 * PAGE, MAYMOVE | TO, AREA + 2 * PAGE),
            ("mmap", AREA + 4 * PAGE, PAGE, RW, PA),
            ("write", AREA, 1),
            ("mprotect", AREA, 2 * PAGE, RO),
            ("mprotect", AREA, 2 * PAGE, RW),
        ]
    )


def test_move_within_one_area_and_back(twin: Twin) -> None:
    twin(
        [
            ("mmap", AREA, 8 * PAGE, RW, PA),
            *[("write", AREA + n * PAGE, n) for n in range(8)],
            ("mremap", AREA, 2 * PAGE, 2 * PAGE, MAYMOVE | TO, AREA + 4 * PAGE),
            ("mremap", AREA + 4 * PAGE, 2 * PAGE, 2 * PAGE, MAYMOVE | TO, AREA),
            ("read", AREA + PAGE),
            ("read", AREA + 4 * PAGE),
        ]
    )


def test_move_of_many_areas_at_once(twin: Twin) -> None:
    twin(
        [
            ("mmap", AREA, 2 * PAGE, RW, PA),
            ("mmap", AREA + 2 * PAGE, 2 * PAGE, RO, PA),
            ("mmap", AREA + 6 * PAGE, 2 * PAGE, RW, PA),
            ("write", AREA + 6 * PAGE, 6),
            ("mremap", AREA + PAGE, 6 * PAGE, 6 * PAGE, MAYMOVE | TO, ELSEWHERE),
            ("read", ELSEWHERE + 5 * PAGE),
            ("mremap", ELSEWHERE - PAGE, 6 * PAGE, 6 * PAGE, MAYMOVE | TO, AREA),
            ("mremap", ELSEWHERE, 64 * PAGE, 64 * PAGE, MAYMOVE | TO, AREA + 128 * PAGE),
        ]
    )


def test_leave_the_old_mapping_behind(twin: Twin, data_file: str) -> None:
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RW, PA),
            ("write", AREA, 9),
            ("mremap", AREA, 4 * PAGE, 4 * PAGE, MAYMOVE | DONTUNMAP, 0),
            ("read", AREA),
            ("mremap", AREA, 2 * PAGE, 2 * PAGE, MAYMOVE | DONTUNMAP | TO, ELSEWHERE),
            ("mremap", AREA, 2 * PAGE, 2 * PAGE, MAYMOVE | DONTUNMAP, ELSEWHERE + 64 * PAGE),
            ("mmap", AREA + MIB, 2 * PAGE, RW, SHARED, 3, 0),
            ("mremap", AREA + MIB, PAGE, PAGE, MAYMOVE | DONTUNMAP, 0),
            ("pagemap", AREA, 4 * PAGE),
        ],
        (data_file,),
    )


def test_duplicate_a_shared_mapping(twin: Twin, data_file: str) -> None:
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RW, SHARED | ANON),
            ("write", AREA + PAGE, 5),
            ("mremap", AREA, 0, 4 * PAGE, MAYMOVE, 0),
            ("mremap", AREA + PAGE, 0, 2 * PAGE, MAYMOVE | TO, ELSEWHERE),
            ("read", ELSEWHERE),
            ("write", ELSEWHERE, 6),
            ("read", AREA + PAGE),
            ("mmap", AREA + MIB, PAGE, RW, PA),
            ("mremap", AREA + MIB, 0, PAGE, MAYMOVE, 0),
            ("mremap", AREA + MIB, 0, PAGE, MAYMOVE | TO, ELSEWHERE + MIB),
            ("mremap", AREA + MIB, 0, 0, MAYMOVE, 0),
        ],
        (data_file,),
    )


@pytest.mark.parametrize("length", [2 * MIB, 3 * MIB, 4 * MIB])
@pytest.mark.parametrize("fd", [-1, 3])
def test_placement_of_what_moves(twin: Twin, data_file: str, length: int, fd: int) -> None:
    twin(
        [
            ("mmap", AREA, PAGE, RW, PRIVATE | (ANON if fd < 0 else 0), fd, 0),
            ("mmap", AREA + PAGE, PAGE, RO, PA),
            ("mremap", AREA, PAGE, length, MAYMOVE, 0),
            ("mmap", AREA, PAGE, RW, SHARED | (ANON if fd < 0 else 0), fd, PAGE if fd > 0 else 0),
            ("mremap", AREA, PAGE, length, MAYMOVE, 0),
        ],
        (data_file,),
    )


def test_growing_into_a_neighbour(twin: Twin, data_file: str) -> None:
    """vma_merge_extend: the mapping grows over the gap and joins what lies behind it."""
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RW, PRIVATE, 3, 0),
            ("mmap", AREA + 8 * PAGE, 4 * PAGE, RW, PRIVATE, 3, 8 * PAGE),
            ("mremap", AREA, 4 * PAGE, 8 * PAGE, 0, 0),
            ("mmap", ELSEWHERE, 4 * PAGE, RW, PA),
            ("mmap", ELSEWHERE + 8 * PAGE, 4 * PAGE, RW, PA),
            ("mremap", ELSEWHERE, 4 * PAGE, 9 * PAGE, 0, 0),
            ("mremap", ELSEWHERE, 4 * PAGE, 8 * PAGE, 0, 0),
            ("mremap", ELSEWHERE, 4 * PAGE, 9 * PAGE, 0, 0),
        ],
        (data_file,),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (AREA + 1, PAGE, PAGE, 0, 0),
        (AREA, PAGE, 0, 0, 0),
        (AREA, PAGE, PAGE, 8, 0),
        (AREA, PAGE, PAGE, TO, ELSEWHERE),
        (AREA, PAGE, PAGE, DONTUNMAP, 0),
        (AREA, PAGE, 2 * PAGE, MAYMOVE | DONTUNMAP, 0),
        (AREA, PAGE, PAGE, MAYMOVE | TO, ELSEWHERE + 1),
        (AREA, 2 * PAGE, 2 * PAGE, MAYMOVE | TO, AREA + PAGE),
        (AREA, 2 * PAGE, 2 * PAGE, MAYMOVE | TO, AREA - PAGE),
        (AREA, PAGE, PAGE, MAYMOVE | TO, 1 << 47),
        (AREA, PAGE, 1 << 48, MAYMOVE, 0),
        (AREA, PAGE, 1 << 46, MAYMOVE, 0),
        (AREA, 5 * PAGE, 6 * PAGE, MAYMOVE, 0),
        (AREA, 5 * PAGE, 4 * PAGE, MAYMOVE, 0),
        (AREA, 100 * PAGE, PAGE, MAYMOVE, 0),
        (AREA, 100 * PAGE, PAGE, MAYMOVE | TO, ELSEWHERE),
        (AREA, 5 * PAGE, 5 * PAGE, MAYMOVE, 0),
        (AREA + 64 * PAGE, PAGE, PAGE, MAYMOVE, 0),
        (AREA + 64 * PAGE, PAGE, 2 * PAGE, MAYMOVE, 0),
        (AREA + 64 * PAGE, PAGE, PAGE, MAYMOVE | TO, ELSEWHERE),
        (AREA, PAGE, 2 * PAGE, 0, 0),
        (AREA + 4 * PAGE, PAGE, 2 * PAGE, 0, 0),
        (0x7FFFF7FFD000, 2 * PAGE, 3 * PAGE, MAYMOVE, 0),
        (0x7FFFF7FFD000, 2 * PAGE, 2 * PAGE, MAYMOVE | DONTUNMAP, 0),
    ],
    ids=str,
)
def test_errors(twin: Twin, arguments: tuple[int, ...]) -> None:
    twin([("mmap", AREA, 4 * PAGE, RW, PA), ("mmap", AREA + 4 * PAGE, PAGE, RO, PA), ("mremap", *arguments)])
