"""mmap and munmap against the kernel: placement, hints, errors, splits and merges."""

from __future__ import annotations

import pytest

from memory.conftest import Twin

RW, RO, NONE, RX = 3, 1, 0, 5
PRIVATE, SHARED, FIXED, ANON, GROWSDOWN, NOREPLACE = 2, 1, 0x10, 0x20, 0x100, 0x100000
PA = PRIVATE | ANON
KIB, MIB = 1 << 10, 1 << 20
AREA = 0x7FFF_0000_0000  # far from everything
ZONE = 0x7FFFF7FF7000  # where the search starts: below [vvar]


@pytest.mark.parametrize("length", [1, 4096, 4097, 2 * MIB, 3 * MIB, 4 * MIB, 4 * MIB + 4096, 64 * MIB])
@pytest.mark.parametrize("flags", [PA, SHARED | ANON], ids=["private", "shared"])
def test_placement_of_anonymous_memory(twin: Twin, length: int, flags: int) -> None:
    twin([("mmap", 0, length, RW, flags)] * 3 + [("mmap", 0, 4096, RO, flags), ("mmap", 0, length, RO, flags)])


@pytest.mark.parametrize("length", [4096, 0x1D5000, 2 * MIB, 0x47C000, 4 * MIB, 5 * MIB])
@pytest.mark.parametrize("offset", [0, 0x1000, 0x200000, 0x3FF000])
def test_placement_of_files(twin: Twin, data_file: str, length: int, offset: int) -> None:
    call = ("mmap", 0, length, RO, PRIVATE, 3, offset)
    twin([call, call, ("mmap", 0, 4096, RW, PA), ("mmap", 0, length, RW, SHARED, 3, offset), call], (data_file,))


@pytest.mark.parametrize("length", [4096, 2 * MIB, 3 * MIB])
def test_legacy_layout(twin: Twin, data_file: str, length: int) -> None:
    calls = [("mmap", 0, length, RW, PA), ("mmap", 0, length, RO, PRIVATE, 3, 0), ("mmap", AREA, length, RW, PA)]
    twin(calls * 2 + [("mmap", AREA, length, RW, PA)], (data_file,), legacy=True)


def test_hints(twin: Twin) -> None:
    twin(
        [
            ("mmap", AREA, 4096, RW, PA),
            ("mmap", AREA, 4096, RO, PA),
            ("mmap", AREA + 1234, 8192, RO, PA),
            ("mmap", AREA - 4096, 4096, RO, PA),
            ("mmap", AREA - 8192, 8192, RO, PA),
            ("mmap", 1, 4096, RW, PA),
            ("mmap", 1, 4096, RO, PA),
            ("mmap", 0x7FFFFFFFF000, 4096, RW, PA),
            ("mmap", 0x7FFFFFFFE000, 4096, RW, PA),
            ("mmap", 1 << 62, 4096, RW, PA),
            ("mmap", AREA + (2 * MIB), 2 * MIB, RW, PA),
            ("mmap", AREA + (2 * MIB), 2 * MIB, RO, PA),
        ]
    )


def test_32_bit_and_above_4_gib(twin: Twin) -> None:
    twin([("mmap", 0, n, RW, PA | flag) for flag in (0x40, 0x80) for n in (4096, 4096, 2 * MIB, 2 * MIB, 3 * MIB)])


@pytest.mark.parametrize(
    "call",
    [
        ("mmap", 0, 0, RW, PA),
        ("mmap", 0, 4096, RW, ANON),
        ("mmap", 0, 4096, RW, 3 | ANON),
        ("mmap", 0, 1 << 47, RW, PA),
        ("mmap", 0, (1 << 64) - 1, RW, PA),
        ("mmap", 0, 1 << 46, RW, PA),
        ("mmap", 0, 1 << 46, RW, PA | 0x4000),
        ("mmap", 0, 1 << 46, RO, PA),
        ("mmap", AREA + 1, 4096, RW, PA | FIXED),
        ("mmap", 0x7FFFFFFFF000, 4096, RW, PA | FIXED),
        ("mmap", 1 << 63, 4096, RW, PA | FIXED),
        ("mmap", 0, 4096, RW, SHARED | ANON | GROWSDOWN),
        ("mmap", 0, 4096, RW, PRIVATE, 3, 1),
        ("mmap", 0, 4096, RW, PRIVATE, 3, (1 << 64) - 4096),
        ("mmap", 0, 4096, RW, PRIVATE, 3, (1 << 63) - 4096),
        ("mmap", 0, 8192, RW, PRIVATE, 3, (1 << 63) - 8192),
        ("mmap", 0, 4096, RW, PRIVATE | GROWSDOWN, 3, 0),
        ("mmap", 0, 4096, RW, 3 | NOREPLACE, 3, 0),
        ("mmap", 0, 4096, RW, 0, 3, 0),
        ("mmap", 0, 4096, RW, 8 | ANON),
        ("mmap", 0, 4096, RW, 8 | ANON | 0x2000),
        ("mmap", 0, 4096, 0xFF00, PA),
        ("munmap", AREA + 1, 4096),
        ("munmap", AREA, 0),
        ("munmap", AREA, 1 << 47),
        ("munmap", 0, 1 << 48),
        ("munmap", AREA, 4096),
        ("munmap", 0x7FFFFFFFF000, 4096),
    ],
    ids=str,
)
def test_errors(twin: Twin, data_file: str, call: tuple[object, ...]) -> None:
    twin([call], (data_file,))


def test_fixed_no_replace(twin: Twin) -> None:
    calls = [(at, size) for at in (-1, 0, 1, 2, 3) for size in (1, 2, 5)]
    twin(
        [("mmap", AREA, 8192, RW, PA)]
        + [("mmap", AREA + at * 4096, size * 4096, RO, PA | NOREPLACE) for at, size in calls]
    )


def test_fixed_replaces_what_is_there(twin: Twin, data_file: str) -> None:
    twin(
        [
            ("mmap", AREA, 16 * 4096, RW, PA),
            ("write", AREA + 4 * 4096, 1),
            ("mmap", AREA + 4 * 4096, 2 * 4096, RO, PRIVATE | FIXED, 3, 0x3000),
            ("mmap", AREA + 5 * 4096, 2 * 4096, RW, PA | FIXED),
            ("read", AREA + 4 * 4096),
            ("mmap", AREA + 4 * 4096, 4096, RW, PA | FIXED),
            ("read", AREA + 4 * 4096),
            ("mmap", AREA - 4096, 40 * 4096, NONE, PA | FIXED),
        ],
        (data_file,),
    )


def test_merge_of_neighbours(twin: Twin) -> None:
    page = 4096
    twin(
        [
            ("mmap", AREA, page, RW, PA),
            ("mmap", AREA + 2 * page, page, RW, PA),
            ("mmap", AREA + page, page, RW, PA),  # fills the gap: one VMA
            ("mmap", AREA + 3 * page, page, RW, PA | 0x4000),  # NORESERVE: other flags
            ("mmap", AREA + 4 * page, page, RW, PA | 0x20000),  # MAP_STACK: not for huge pages
            ("mmap", AREA + 5 * page, page, RW, PA),
            ("mmap", AREA + 6 * page, page, RW, PA | GROWSDOWN),
            ("mmap", AREA - page, page, RW, PA),
        ]
    )


def test_touched_areas_merge_only_with_one_origin(twin: Twin) -> None:
    page = 4096
    twin(
        [
            ("mmap", AREA, page, RW, PA),
            ("write", AREA, 1),
            ("mmap", AREA + 2 * page, page, RW, PA),
            ("write", AREA + 2 * page, 2),
            ("mmap", AREA + page, page, RW, PA),  # both neighbours have pages of their own: merges with one only
            ("write", AREA + page, 3),
            ("munmap", AREA + page, page),
            ("mmap", AREA + page, page, RW, PA),
        ]
    )


def test_a_hole_filled_again_is_one_area(twin: Twin) -> None:
    page = 4096
    twin(
        [
            ("mmap", AREA, 8 * page, RW, PA),
            ("write", AREA, 1),
            ("write", AREA + 7 * page, 1),
            ("munmap", AREA + 3 * page, page),
            ("mmap", AREA + 3 * page, page, RW, PA),
        ]
    )


def test_partial_unmap_of_files(twin: Twin, data_file: str) -> None:
    page = 4096
    twin(
        [
            ("mmap", AREA, 10 * page, RO, PRIVATE, 3, 2 * page),
            ("munmap", AREA, page),
            ("munmap", AREA + 9 * page, page),
            ("munmap", AREA + 4 * page, page),
            ("mmap", AREA + 4 * page, page, RO, PRIVATE, 3, 6 * page),  # the part that was missing
            ("mmap", AREA + 9 * page, page, RO, PRIVATE, 3, 7 * page),  # another part: no merge
            ("mmap", AREA, page, RO, PRIVATE, 4, 2 * page),  # the right part, from another open of the file
        ],
        (data_file, data_file),
    )


def test_unmap_across_many(twin: Twin, data_file: str) -> None:
    page = 4096
    twin(
        [("mmap", AREA + n * 3 * page, 2 * page, (RW, RO, NONE)[n % 3], PA) for n in range(8)]
        + [("mmap", AREA + 40 * page, 4 * page, RW, SHARED, 3, 0), ("munmap", AREA + page, 41 * page)],
        (data_file,),
    )


def test_guard_gap_below_a_growing_mapping(twin: Twin) -> None:
    page = 4096
    twin(
        [
            ("mmap", ZONE - 4 * page, 4 * page, RW, PA | FIXED | GROWSDOWN),
            ("mmap", 0, page, RW, PA),
            ("mmap", ZONE - 10 * page, page, RW, PA),  # a hint inside the gap is not followed
            ("mmap", ZONE - 600 * page, 100 * page, RW, PA | FIXED),
            ("mmap", 0, 300 * page, RO, PA),
            ("mmap", 0, 200 * page, RO, PA),
        ]
    )


def test_growth_of_a_stack(twin: Twin) -> None:
    page = 4096
    top = AREA + 1024 * page
    twin(
        [
            ("mmap", top, 4 * page, RW, PA | GROWSDOWN | FIXED),
            ("write", top - 1, 1),
            ("write", top - 20 * page, 1),
            ("mmap", top - 500 * page, page, RW, PA | FIXED),
            ("write", top - 243 * page, 1),  # 255 pages of gap left: too few
            ("write", top - 242 * page - 1, 1),
            ("write", top - 242 * page, 1),
            ("mprotect", top - 500 * page, page, NONE),
            ("write", top - 400 * page, 1),  # nobody may access the neighbour: no gap needed
            ("write", top - 499 * page, 1),
            ("write", top - 499 * page - 1, 1),
        ]
    )


def test_growth_is_bound_by_the_stack_limit(twin: Twin) -> None:
    top = AREA + (64 * MIB)
    twin(
        [
            ("mmap", top - 4096, 4096, RW, PA | GROWSDOWN | FIXED),
            ("write", top - 4 * MIB, 1),
            ("write", top - 8 * MIB - 1, 1),
            ("write", top - 8 * MIB, 1),
        ]
    )


def test_limits(twin: Twin) -> None:
    twin(
        [
            ("mmap", AREA, MIB, RW, PA),
            ("rlimit", 9, 8 * MIB, 8 * MIB),
            ("mmap", 0, 3 * MIB, RO, PA),
            ("mmap", 0, 3 * MIB, RO, PA),
            ("mmap", AREA, MIB, RO, PA | FIXED),
            ("mremap", AREA, MIB, 4 * MIB, 1, 0),
        ]
    )


def test_data_limit(twin: Twin) -> None:
    space = twin([("mmap", AREA, MIB, RW, PA)])
    used = space.usage.data * 4096
    twin(
        [
            ("mmap", AREA, MIB, RW, PA),
            ("rlimit", 2, used + MIB, used + MIB),
            ("mmap", AREA + 4 * MIB, 2 * MIB, RO, PA),
            ("mprotect", AREA + 4 * MIB, 2 * MIB, RW),
            ("mprotect", AREA + 4 * MIB, MIB, RW),
            ("mmap", 0, 4096, RW, PA),
            ("mmap", 0, 4096, RW, SHARED | ANON),
            ("mremap", AREA, MIB, 2 * MIB, 1, 0),
        ]
    )


def test_populate(twin: Twin, data_file: str) -> None:
    show = ("pagemap", AREA, 8 * 4096)
    for prot, flags, fd in (
        (RW, PA, -1),
        (RO, PA, -1),
        (NONE, PA, -1),
        (RW, PRIVATE, 3),
        (RO, SHARED, 3),
        (RW, 0x21, -1),
    ):
        twin([("mmap", AREA, 8 * 4096, prot, flags | 0x8000, fd, 0), show], (data_file,))


def test_pages_of_a_sparse_gibibyte_cost_what_is_touched(twin: Twin) -> None:
    gib = 1 << 30
    space = twin(
        [("mmap", AREA, gib, RW, PA | 0x4000)]
        + [("write", AREA + n * (gib // 10), n) for n in range(10)]
        + [("read", AREA + n * (gib // 10)) for n in range(10)]
    )
    assert space.resident_pages == 10
    assert space.memory.usage()["anonymous"] == 10
    assert space.page_table.table_frames() <= 1 + 1 + 2 + 10
    space.unmap(AREA, gib)
    assert space.resident_pages == 0
    assert space.page_table.table_frames() == 1
    assert space.memory.usage()["anonymous"] == 0
