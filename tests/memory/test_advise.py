"""madvise, mincore, msync and the mlock family against the kernel."""

from __future__ import annotations

import os

import pytest

from memory.conftest import Twin
from memory.twin import HostFile

RW, RO, NONE, RX = 3, 1, 0, 5
PRIVATE, SHARED, FIXED, ANON = 2, 1, 0x10, 0x20
PA = PRIVATE | ANON
PAGE = 4096
AREA = 0x7FFF_0000_0000


@pytest.mark.parametrize("advice", [*range(26), 100, 104, 200, 1 << 30])
@pytest.mark.parametrize("flags", [PA, SHARED | ANON, PRIVATE, SHARED], ids=["anon", "shmem", "private", "shared"])
def test_every_advice(twin: Twin, data_file: str, advice: int, flags: int) -> None:
    if advice in (9, 25, 21):  # REMOVE changes the file; COLLAPSE and PAGEOUT depend on the state of the host
        pytest.skip("depends on the host")
    fd = -1 if flags & ANON else 3
    twin(
        [
            ("mmap", AREA, 8 * PAGE, RW, flags, fd, 0),
            ("write", AREA, 7),
            ("write", AREA + 3 * PAGE, 8),
            ("madvise", AREA + 2 * PAGE, 3 * PAGE, advice),
            ("read", AREA),
            ("read", AREA + 3 * PAGE),
            ("mmap", AREA + 9 * PAGE, PAGE, RO, flags, fd, 0),
            ("madvise", AREA, 12 * PAGE, advice),
            ("madvise", AREA + 1, PAGE, advice),
            ("madvise", AREA, 0, advice),
            ("madvise", AREA, (1 << 64) - 1, advice),
            ("madvise", AREA + 20 * PAGE, PAGE, advice),
            ("madvise", AREA, 8 * PAGE, 0),
        ],
        (data_file,),
    )


def test_dont_need_gives_pages_back(twin: Twin, data_file: str) -> None:
    show = ("pagemap", AREA, 8 * PAGE)
    space = twin(
        [
            ("mmap", AREA, 8 * PAGE, RW, PA),
            *[("write", AREA + n * PAGE, n + 1) for n in range(8)],
            show,
            ("madvise", AREA + PAGE, 3 * PAGE, 4),
            show,
            ("read", AREA + 2 * PAGE),
            ("read", AREA + 4 * PAGE),
            show,
        ]
    )
    assert space.resident_pages == 5
    assert space.memory.usage()["anonymous"] == 5
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RW, PRIVATE, 3, PAGE),
            ("write", AREA + 5, 99),
            ("read", AREA + 5),
            ("madvise", AREA, PAGE, 4),
            ("read", AREA + 5),
        ],
        (data_file,),
    )


def test_advice_by_flags_splits_and_merges(twin: Twin) -> None:
    def steps(advice: int, back: int) -> list[tuple[object, ...]]:
        return [("madvise", AREA + 2 * PAGE, 2 * PAGE, advice), ("madvise", AREA, 8 * PAGE, back)]

    pairs = ((1, 0), (2, 0), (2, 1), (1, 0), (10, 11), (16, 17), (18, 19), (14, 15), (15, 15), (12, 13))
    twin([("mmap", AREA, 8 * PAGE, RW, PA), *[step for pair in pairs for step in steps(*pair)]])


@pytest.mark.parametrize("advice", [22, 23])
def test_populate(twin: Twin, data_file: str, advice: int) -> None:
    show = ("pagemap", AREA, 8 * PAGE)
    for prot in (RW, RO, NONE, RX):
        for flags, fd in ((PA, -1), (SHARED | ANON, -1), (PRIVATE, 3), (SHARED, 3)):
            steps = [("mmap", AREA, 8 * PAGE, prot, flags, fd, 0), ("madvise", AREA, 4 * PAGE, advice)]
            if fd < 0 or advice == 23:  # a read brings neighbours in, as many as the host's cache has
                steps.append(show)
            twin([*steps, ("madvise", AREA + 4 * PAGE, 8 * PAGE, advice)], (data_file,))


def test_past_the_end_of_the_file(twin: Twin, data_file: str) -> None:
    size = os.path.getsize(data_file)
    last = size & -PAGE
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RW, PRIVATE, 3, last),
            ("madvise", AREA, 4 * PAGE, 22),
            ("madvise", AREA, 4 * PAGE, 23),
            ("read", AREA + 99),
            ("read", AREA + 100),
            ("read", AREA + PAGE),
            ("write", AREA + PAGE, 1),
            ("write", AREA + PAGE - 1, 1),
        ],
        (data_file,),
    )


def test_mincore(twin: Twin) -> None:
    twin(
        [
            ("mmap", AREA, 8 * PAGE, RW, PA),
            ("write", AREA + PAGE, 1),
            ("read", AREA + 3 * PAGE),
            ("mincore", AREA, 8 * PAGE),
            ("mprotect", AREA, 8 * PAGE, NONE),
            ("mincore", AREA, 7 * PAGE + 1),
            ("mincore", AREA + 1, PAGE),
            ("mincore", AREA, 9 * PAGE),
            ("mincore", AREA, 0),
            ("mincore", AREA + 64 * PAGE, PAGE),
            ("mmap", AREA + PAGE * 8, 8 * PAGE, RW, SHARED | ANON),
            ("write", AREA + 9 * PAGE, 1),
            ("madvise", AREA + 8 * PAGE, 8 * PAGE, 4),
            ("mincore", AREA + 8 * PAGE, 8 * PAGE),
            ("pagemap", AREA + 8 * PAGE, 8 * PAGE),
            ("mincore", 0x7FFFF7FF7000, 8 * PAGE),
        ]
    )


def test_remove_makes_a_hole(twin: Twin) -> None:
    space = twin(
        [
            ("mmap", AREA, 8 * PAGE, RW, SHARED | ANON),
            *[("write", AREA + n * PAGE, n + 1) for n in range(8)],
            ("madvise", AREA + 2 * PAGE, 3 * PAGE, 9),
            ("read", AREA + PAGE),
            ("mincore", AREA, 8 * PAGE),
            ("read", AREA + 2 * PAGE),
            ("read", AREA + 5 * PAGE),
        ]
    )
    space.unmap(AREA, 8 * PAGE)
    assert space.memory.usage()["page cache"] == 0


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 5, 6, 7, 8])
def test_msync(twin: Twin, data_file: str, flags: int) -> None:
    twin(
        [
            ("mmap", AREA, 4 * PAGE, RW, SHARED, 3, 0),
            ("write", AREA + 1, 200),
            ("msync", AREA, 4 * PAGE, flags),
            ("write", AREA + 2, 201),
            ("msync", AREA, 8 * PAGE, flags),
            ("msync", AREA + 1, PAGE, flags),
            ("msync", AREA, 0, flags),
            ("msync", AREA, (1 << 64) - 1, flags),
            ("msync", AREA - PAGE, 2 * PAGE, flags),
            ("mlock", AREA, PAGE),
            ("msync", AREA, 4 * PAGE, flags),
        ],
        (data_file,),
    )


def test_synchronous_msync_reaches_the_file(twin: Twin, tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "small")
    with open(path, "wb") as file:
        file.write(b"x" * 5000)
    space = twin(
        [
            ("mmap", AREA, 2 * PAGE, RW, SHARED, 3, 0),
            ("read", AREA),
            ("write", AREA + 4999, 65),
            ("write", AREA + 5001, 66),
            ("msync", AREA, 2 * PAGE, 4),
        ],
        (path,),
    )
    vma = space.find(AREA)
    assert vma is not None and isinstance(vma.backing, HostFile)
    with open(path, "rb") as file:
        assert vma.backing.data == file.read() == b"x" * 4999 + b"A"
    assert vma.backing.written == [1]  # the other page was only read
    assert not space.page_table.entry(AREA + PAGE) & 0x42  # clean, and the next write faults


def test_lock(twin: Twin) -> None:
    show = ("pagemap", AREA, 8 * PAGE)
    space = twin(
        [
            ("mmap", AREA, 8 * PAGE, RW, PA),
            ("mlock", AREA + PAGE + 5, PAGE),
            show,
            ("munlock", AREA, 8 * PAGE),
            ("mlock2", AREA, 2 * PAGE, 1),
            show,
            ("mlock", AREA, 9 * PAGE),
            ("madvise", AREA, PAGE, 4),
            ("madvise", AREA, PAGE, 24),
            ("mmap", AREA + 16 * PAGE, 2 * PAGE, RW, PA | 0x2000),
            ("pagemap", AREA + 16 * PAGE, 2 * PAGE),
            ("mmap", AREA + 18 * PAGE, 2 * PAGE, RW, PA),
            ("munlock", AREA + 16 * PAGE, 2 * PAGE),
            ("mlock", AREA, 0),
            ("mlock", AREA, (1 << 64) - 1),
            ("mmap", AREA + 32 * PAGE, PAGE, NONE, PA),
            ("mlock", AREA + 32 * PAGE, PAGE),
            ("mlockall", 0),
            ("mlockall", 4),
            ("mlockall", 8),
            ("mlockall", 2),
            ("mmap", AREA + 64 * PAGE, PAGE, RW, PA),
            ("pagemap", AREA + 64 * PAGE, PAGE),
            ("mremap", AREA + 64 * PAGE, PAGE, 2 * PAGE, 0, 0),
            ("pagemap", AREA + 64 * PAGE, 2 * PAGE),
            ("munlockall",),
            ("mmap", AREA + 96 * PAGE, PAGE, RW, PA),
            ("pagemap", AREA + 96 * PAGE, PAGE),
        ]
    )
    assert space.usage.locked == 0
