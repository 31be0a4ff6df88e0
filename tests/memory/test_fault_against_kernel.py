"""Which pages a fault maps, and how many faults a sequence of touches takes, as the kernel of this machine does it."""

from __future__ import annotations

import random

import pytest

from memory.conftest import Twin

PAGE = 4096
AREA = 0x7FFF_0000_0000
READ, WRITE, EXEC = 1, 2, 4
PRIVATE, SHARED, FIXED, ANONYMOUS, GROWSDOWN = 2, 1, 0x10, 0x20, 0x100


@pytest.fixture(autouse=True)
def in_the_page_cache(data_file: str) -> None:
    """The kernel maps around a fault only what is in memory already."""
    with open(data_file, "rb") as file:
        file.read()


def map_file(start: int, pages: int, first: int = 0, prot: int = READ, kind: int = PRIVATE) -> tuple[object, ...]:
    return ("mmap", start, pages * PAGE, prot, kind | FIXED, 3, first * PAGE)


@pytest.mark.parametrize("page", [0, 1, 15, 16, 17, 31, 40, 47])
def test_window_of_a_read(page: int, twin: Twin, data_file: str) -> None:
    twin([map_file(AREA, 48), ("read", AREA + page * PAGE), ("pagemap", AREA, 48 * PAGE)], (data_file,))


@pytest.mark.parametrize("start", [1, 5, 15, 16 + 7])
@pytest.mark.parametrize("touched", [0, 9, 20])
def test_window_when_the_mapping_is_not_aligned(start: int, touched: int, twin: Twin, data_file: str) -> None:
    area = AREA + start * PAGE
    twin([map_file(area, 24, 3), ("read", area + touched * PAGE), ("pagemap", area, 24 * PAGE)], (data_file,))


def test_window_at_the_end_of_a_page_table(twin: Twin, data_file: str) -> None:
    area = AREA + (512 - 10) * PAGE
    show = ("pagemap", area, 40 * PAGE)
    twin([map_file(area, 40), ("read", area + 9 * PAGE), show, ("read", area + 10 * PAGE), show], (data_file,))


def test_window_at_the_end_of_the_file(twin: Twin, data_file: str) -> None:
    first = 1536 - 5  # the file has 1,536 whole pages and 100 bytes
    operations = [map_file(AREA, 16, first), ("read", AREA + 2 * PAGE), ("pagemap", AREA, 16 * PAGE)]
    operations += [("read", AREA + 5 * PAGE + 99), ("read", AREA + 6 * PAGE), ("write", AREA + 9 * PAGE, 1)]
    twin(operations, (data_file,))


def test_window_in_a_small_mapping(twin: Twin, data_file: str) -> None:
    twin(
        [map_file(AREA + 14 * PAGE, 4, 2), ("read", AREA + 15 * PAGE), ("pagemap", AREA + 14 * PAGE, 4 * PAGE)],
        (data_file,),
    )


def test_private_writes_and_reads_around_them(twin: Twin, data_file: str) -> None:
    show = ("pagemap", AREA, 32 * PAGE)
    both = READ | WRITE
    twin(
        [
            map_file(AREA, 32, prot=both),
            ("write", AREA + 3 * PAGE, 7), show,  # a private copy; nothing is mapped around it
            ("read", AREA + 5 * PAGE), show,
            ("read", AREA + 3 * PAGE),
            ("write", AREA + 5 * PAGE, 8), ("write", AREA + 5 * PAGE + 1, 9),
            ("mprotect", AREA, 8 * PAGE, READ), ("write", AREA + 5 * PAGE, 1),
            ("mprotect", AREA, 8 * PAGE, both), ("write", AREA + 5 * PAGE, 2), ("write", AREA + 6 * PAGE, 3), show,
        ],
        (data_file,),
    )  # fmt: skip


def test_shared_writes(twin: Twin, data_file: str) -> None:
    show = ("pagemap", AREA, 32 * PAGE)
    twin(
        [
            map_file(AREA, 32, prot=READ | WRITE, kind=SHARED),
            ("read", AREA + 4 * PAGE), show,
            ("write", AREA + 4 * PAGE, 7), ("write", AREA + 4 * PAGE, 8),
            ("write", AREA + 20 * PAGE, 9), show,
            ("read", AREA + 21 * PAGE), show,
        ],
        (data_file,),
    )  # fmt: skip


def test_shared_anonymous_memory(twin: Twin) -> None:
    show = ("pagemap", AREA, 32 * PAGE)
    twin(
        [
            ("mmap", AREA, 32 * PAGE, READ | WRITE, SHARED | ANONYMOUS | FIXED, -1, 0),
            ("read", AREA + 4 * PAGE), show,
            ("write", AREA + 4 * PAGE, 7),
            ("write", AREA + 9 * PAGE, 7), show,
            ("read", AREA + 8 * PAGE), show,
        ]
    )  # fmt: skip


def test_anonymous_memory(twin: Twin) -> None:
    twin(
        [
            ("mmap", AREA, 8 * PAGE, READ | WRITE, PRIVATE | ANONYMOUS | FIXED, -1, 0),
            ("read", AREA), ("read", AREA + 1), ("write", AREA, 1), ("write", AREA, 2), ("read", AREA),
            ("write", AREA + PAGE, 1), ("read", AREA + PAGE),
            ("mprotect", AREA, 2 * PAGE, 0), ("read", AREA), ("write", AREA, 1),
            ("mprotect", AREA, 2 * PAGE, READ), ("read", AREA), ("write", AREA, 1),
            ("mprotect", AREA, 2 * PAGE, READ | WRITE), ("write", AREA, 1), ("read", AREA + PAGE),
            ("mprotect", AREA, PAGE, WRITE), ("read", AREA), ("write", AREA, 3),
            ("pagemap", AREA, 8 * PAGE),
        ]
    )  # fmt: skip


# PROT_EXEC alone is left out: a CPU with protection keys refuses reads then (execute_only_pkey), ours has none.


def test_an_untouched_page_behind_protections(twin: Twin, data_file: str) -> None:
    operations: list[tuple[object, ...]] = [("mmap", AREA, 8 * PAGE, 0, PRIVATE | ANONYMOUS | FIXED, -1, 0)]
    operations.append(("mmap", AREA + 8 * PAGE, 4 * PAGE, WRITE, PRIVATE | FIXED, 3, 0))
    operations += [("read", AREA + 8 * PAGE), ("write", AREA + 8 * PAGE, 1), ("pagemap", AREA + 8 * PAGE, 4 * PAGE)]
    for page, prot in enumerate((0, READ, WRITE, READ | WRITE, READ | EXEC, WRITE | EXEC)):
        place = AREA + page * PAGE
        operations += [("mprotect", place, PAGE, prot), ("read", place), ("write", place, 1), ("read", place)]
    twin(operations, (data_file,))


def test_a_stack_that_grows(twin: Twin) -> None:
    operations: list[tuple[object, ...]] = [
        ("mmap", AREA, 4 * PAGE, READ | WRITE, PRIVATE | ANONYMOUS | FIXED | GROWSDOWN, -1, 0),
        ("write", AREA - 8, 1), ("read", AREA - 3 * PAGE), ("write", AREA - 300 * PAGE, 2), ("read", AREA - 200 * PAGE),
        ("write", AREA - (8 << 20), 3), ("write", AREA + 4 * PAGE, 4),
        ("mmap", AREA - 600 * PAGE, PAGE, READ, PRIVATE | ANONYMOUS | FIXED, -1, 0),
        ("write", AREA - 343 * PAGE, 5), ("write", AREA - 342 * PAGE, 5), ("write", AREA - 350 * PAGE, 5),
        ("mprotect", AREA - 600 * PAGE, PAGE, 0), ("write", AREA - 400 * PAGE, 6), ("write", AREA - 599 * PAGE, 6),
    ]  # fmt: skip
    twin(operations)


def test_the_limit_of_the_stack(twin: Twin) -> None:
    twin(
        [
            ("rlimit", 3, 64 * PAGE, 8 << 20),
            ("mmap", AREA, 4 * PAGE, READ | WRITE, PRIVATE | ANONYMOUS | FIXED | GROWSDOWN, -1, 0),
            ("write", AREA - 61 * PAGE, 1), ("write", AREA - 60 * PAGE, 1), ("write", AREA - 61 * PAGE + 8, 1),
        ]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_random_touches_of_files(seed: int, twin: Twin, data_file: str) -> None:
    chance = random.Random(seed)
    operations: list[tuple[object, ...]] = []
    pages = 0
    for _ in range(3):
        length = chance.randrange(1, 60)
        kind = chance.choice((PRIVATE, PRIVATE, SHARED))
        operations.append(map_file(AREA + pages * PAGE, length, chance.randrange(1500), READ | WRITE, kind))
        pages += length
    for _ in range(30):
        place = AREA + chance.randrange(pages) * PAGE
        step = chance.random()
        if step < 0.6:
            operations.append(("read", place + chance.randrange(PAGE)))
        elif step < 0.85:
            operations.append(("write", place + chance.randrange(PAGE), chance.randrange(256)))
        else:
            length = min(chance.randrange(1, 8) * PAGE, AREA + pages * PAGE - place)
            operations.append(chance.choice([("madvise", place, length, 4), ("mprotect", place, length, READ)]))
        operations.append(("pagemap", AREA, pages * PAGE))
    twin(operations, (data_file,))
