"""mprotect against the kernel: splits, merges, what pages keep, errors."""

from __future__ import annotations

import itertools

import pytest

from memory.conftest import Twin

RW, RO, NONE, RX = 3, 1, 0, 5
PRIVATE, SHARED, FIXED, ANON = 2, 1, 0x10, 0x20
PA = PRIVATE | ANON
PAGE = 4096
AREA = 0x7FFF_0000_0000


@pytest.mark.parametrize("touched", [False, True])
def test_split_and_merge_back(twin: Twin, touched: bool) -> None:
    touches = [("write", AREA + n * PAGE, n) for n in range(10) if touched]
    twin(
        [
            ("mmap", AREA, 10 * PAGE, RW, PA),
            *touches,
            ("mprotect", AREA + 3 * PAGE, 2 * PAGE, RO),
            ("mprotect", AREA + 5 * PAGE, PAGE, RO),  # joins its left neighbour
            ("mprotect", AREA + 2 * PAGE, PAGE, RO),  # its right one
            ("mprotect", AREA + 3 * PAGE, PAGE, NONE),
            ("mprotect", AREA, 10 * PAGE, RW),  # all the same again
            ("mprotect", AREA, 10 * PAGE, RO),
            ("mprotect", AREA + PAGE, PAGE, RW),
            ("mprotect", AREA, 3 * PAGE, RW),
        ]
    )


def test_areas_that_were_never_written_forget_their_promise(twin: Twin) -> None:
    """VM_ACCOUNT stays with a mapping that has pages of its own, and keeps it from merging with one that never had."""
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RO, PA),
            ("mprotect", AREA + PAGE, PAGE, RW),
            ("mprotect", AREA + PAGE, PAGE, RO),
            ("mprotect", AREA + PAGE, PAGE, RW),
            ("write", AREA + PAGE, 1),
            ("mprotect", AREA + PAGE, PAGE, RO),
        ]
    )


def test_private_file_keeps_its_promise(twin: Twin, data_file: str) -> None:
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RO, PRIVATE, 3, 0),
            ("mprotect", AREA + PAGE, PAGE, RW),
            ("mprotect", AREA + PAGE, PAGE, RO),
        ],
        (data_file,),
    )


def test_later_touch_takes_the_neighbours_origin(twin: Twin) -> None:
    """find_mergeable_anon_vma: areas that mprotect has cut apart get one anon_vma, so that they can merge again."""
    twin(
        [
            ("mmap", AREA, 3 * PAGE, RW, PA),
            ("mprotect", AREA + PAGE, PAGE, RX),
            ("write", AREA, 1),
            ("write", AREA + 2 * PAGE, 1),
            ("mprotect", AREA + PAGE, PAGE, RW),
            ("munmap", AREA + PAGE, PAGE),
            ("mmap", AREA + PAGE, PAGE, RW, PA),
        ]
    )


@pytest.mark.parametrize("flags", [PA, SHARED | ANON, PRIVATE, SHARED])
def test_what_every_change_allows(twin: Twin, data_file: str, flags: int) -> None:
    steps: list[tuple[object, ...]] = [("mmap", AREA, 2 * PAGE, RW, flags, -1 if flags & ANON else 3, 0)]
    for before, after in itertools.product((NONE, RO, RW, RX, 7, 2, 4 | 1), repeat=2):
        for prot in (before, after):
            steps += [("mprotect", AREA, PAGE, prot), ("write", AREA, prot), ("read", AREA)]
    twin([*steps, ("pagemap", AREA, 2 * PAGE)], (data_file,))


@pytest.mark.parametrize(
    "call",
    [
        ("mprotect", AREA + 1, PAGE, RW),
        ("mprotect", AREA, 0, RW),
        ("mprotect", AREA + 1, 0, RW),
        ("mprotect", AREA, PAGE, 0x10),
        ("mprotect", AREA, PAGE, 8),
        ("mprotect", AREA, (1 << 64) - 1, RW),
        ("mprotect", AREA, 12 * PAGE, RO),
        ("mprotect", AREA - PAGE, 2 * PAGE, RO),
        ("mprotect", AREA, 5 * PAGE, RO),
        ("mprotect", AREA + 20 * PAGE, PAGE, RO),
        ("mprotect", AREA, PAGE, RW | 0x01000000),
        ("mprotect", AREA, PAGE, RW | 0x02000000),
        ("mprotect", AREA, PAGE, RW | 0x03000000),
        ("mprotect", AREA + 31 * PAGE, PAGE, RO | 0x01000000),
        ("mprotect", AREA - 5 * PAGE, 6 * PAGE, RO | 0x01000000),
    ],
    ids=str,
)
def test_errors(twin: Twin, call: tuple[object, ...]) -> None:
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RW, PA),
            ("mmap", AREA + 4 * PAGE, PAGE, RX, PA),
            ("mmap", AREA + 8 * PAGE, 4 * PAGE, RW, PA),
            ("mmap", AREA + 30 * PAGE, 4 * PAGE, RW, PA | 0x100 | FIXED),
            call,
        ]
    )


def test_none_keeps_the_pages(twin: Twin) -> None:
    space = twin(
        [
            ("mmap", AREA, 4 * PAGE, RW, PA),
            ("write", AREA, 77),
            ("write", AREA + PAGE, 78),
            ("mprotect", AREA, 4 * PAGE, NONE),
            ("read", AREA),
            ("mprotect", AREA, 4 * PAGE, RO),
            ("read", AREA),
            ("write", AREA, 1),
            ("mincore", AREA, 4 * PAGE),
        ]
    )
    assert space.memory.usage()["anonymous"] == 2


def test_own_pages_become_writable_without_a_fault(twin: Twin) -> None:
    """can_change_pte_writable: a page that is the process's alone need not fault again; the zero frame must."""
    space = twin(
        [
            ("mmap", AREA, 2 * PAGE, RW, PA),
            ("write", AREA, 1),
            ("read", AREA + PAGE),
            ("mprotect", AREA, 2 * PAGE, RO),
            ("mprotect", AREA, 2 * PAGE, RW),
        ]
    )
    assert space.page_table.entry(AREA) & 3 == 3
    assert space.page_table.entry(AREA + PAGE) & 3 == 1
