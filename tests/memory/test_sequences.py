"""Long random sequences of mapping operations, compared with the kernel after every step."""

from __future__ import annotations

import random

import pytest

from memory.conftest import Twin

PAGE = 4096
AREA = 0x7FFF_0000_0000
TOP = 0x7FFFF7FF7000  # below [vvar]
PAGES = 40  # small, so that operations hit each other
PROTS = (0, 1, 3, 3, 3, 5, 7)
ADVICE = (0, 1, 2, 4, 4, 4, 10, 11, 16, 17, 12, 13, 14, 15, 22, 23)


def _range(chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(PAGES)
    return AREA + start * PAGE, min(1 + int(chance.expovariate(0.25)), PAGES - start) * PAGE


def _map(chance: random.Random) -> tuple[object, ...]:
    start, length = _range(chance)
    prot = chance.choice(PROTS)
    kind = chance.random()
    fixed = 0x10 if chance.random() < 0.8 else 0x100000
    extra = chance.choice((0, 0, 0, 0, 0x4000, 0x20000, 0x8000))
    if kind < 0.65:
        return ("mmap", start, length, prot, 0x22 | fixed | extra)
    if kind < 0.75:
        return ("mmap", start, length, prot, 0x21 | fixed | extra)
    offset = chance.choice((start - AREA, start - AREA, chance.randrange(8) * PAGE))
    extra &= ~0x8000  # what the host's fault-around brings in is not compared
    return ("mmap", start, length, prot, chance.choice((1, 2, 2)) | fixed | extra, chance.choice((3, 3, 4)), offset)


def _remap(chance: random.Random) -> tuple[object, ...]:
    start, length = _range(chance)
    target, _ = _range(chance)
    kind = chance.random()
    if kind < 0.25:
        return ("mremap", start, length, length + chance.randrange(-3, 4) * PAGE, chance.choice((0, 1)), 0)
    if kind < 0.85:
        new = length if chance.random() < 0.7 else length + chance.randrange(-2, 3) * PAGE
        return ("mremap", start, length, new, 3, target)
    return ("mremap", start, length, length, chance.choice((5, 7)), target)


def _touch(chance: random.Random) -> tuple[object, ...]:
    page, _ = _range(chance)
    if chance.random() < 0.3:
        return ("read", page + 8)
    return ("write", page + 8, chance.randrange(256))


def _step(chance: random.Random) -> tuple[object, ...]:
    start, length = _range(chance)
    kind = chance.random()
    if kind < 0.26:
        return _map(chance)
    if kind < 0.34:
        return ("munmap", start, length)
    if kind < 0.54:
        return ("mprotect", start, length, chance.choice(PROTS))
    if kind < 0.68:
        return _remap(chance)
    if kind < 0.9:
        return _touch(chance)
    if kind < 0.96:
        return ("madvise", start, length, chance.choice(ADVICE))
    if kind < 0.98:
        return (chance.choice(("mlock", "munlock")), start, length)
    return ("mmap", 0, chance.choice((1, 3, 512, 513, 700)) * PAGE, chance.choice(PROTS), 0x22)


def _sequence(seed: int, steps: int) -> list[tuple[object, ...]]:
    chance = random.Random(seed)
    return [_step(chance) for _ in range(steps)]


@pytest.mark.parametrize("seed", range(12))
def test_random_sequence(twin: Twin, two_files: tuple[str, str], seed: int) -> None:
    _run(twin, two_files, _sequence(seed, 150))


def _placement_step(chance: random.Random) -> tuple[object, ...]:
    """Maps where the kernel likes, and takes random ranges away below the highest mapping."""
    pages = chance.choice((1, 2, 5, 64, 300, 512, 512, 513, 1024, 1500))
    if chance.random() < 0.35:
        start = TOP - chance.randrange(16384) * PAGE
        return ("munmap", start, min(pages * PAGE, TOP - start) or PAGE)
    hint = 0 if chance.random() < 0.8 else TOP - chance.randrange(16384) * PAGE
    if chance.random() < 0.2:
        return ("mmap", hint, pages * PAGE, 1, chance.choice((1, 2)), 3, chance.choice((0, 0, 1, 512, 700)) * PAGE)
    flags = chance.choice((0x22, 0x22, 0x22, 0x21, 0x122, 0x62))
    return ("mmap", hint, pages * PAGE, chance.choice((1, 3)), flags)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_placement(twin: Twin, data_file: str, seed: int, legacy: bool) -> None:
    chance = random.Random(seed)
    twin([_placement_step(chance) for _ in range(250)], (data_file,), legacy=legacy)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_long_random_placement(twin: Twin, data_file: str, seed: int) -> None:
    chance = random.Random(seed)
    twin([_placement_step(chance) for _ in range(600)], (data_file,), legacy=seed % 4 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 500))
def test_long_random_sequence(twin: Twin, two_files: tuple[str, str], seed: int) -> None:
    _run(twin, two_files, _sequence(seed, 500))


@pytest.fixture
def two_files(data_file: str) -> tuple[str, str]:
    """One file, opened twice."""
    return data_file, data_file


def _run(twin: Twin, files: tuple[str, str], steps: list[tuple[object, ...]]) -> None:
    space = twin([*steps, ("pagemap", AREA, 0)], files)
    anonymous, cached, shared = space.resident_by_kind()
    assert space.resident_pages == anonymous + cached + shared
    assert space.memory.usage()["anonymous"] == anonymous
    total = sum((vma.end - vma.start) // PAGE for vma in space.vmas)
    assert space.usage.total == total
    assert space.usage.data == sum((v.end - v.start) // PAGE for v in space.vmas if v.flags & 0x10A == 2)
    promised = sum((v.end - v.start) // PAGE for v in space.vmas if v.flags & 0x100000)
    assert space.limits.commitment.promised == promised
    starts = [vma.start for vma in space.vmas]
    assert starts == sorted(starts)
    for vma in list(space.vmas):
        space.unmap(vma.start, vma.end - vma.start)
    assert space.resident_pages == 0
    assert space.usage.total == space.usage.data == space.usage.stack == space.usage.locked == 0
    assert space.limits.commitment.promised == 0
    assert space.memory.usage()["anonymous"] == 0
    assert space.page_table.table_frames() == 1
