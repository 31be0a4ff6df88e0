"""What cores are told of entries that have gone, and whose frames are free then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from loadstone.machine.paging import ACCESSED, COUNTED, PRESENT
from loadstone.machine.physical import ANONYMOUS, CACHE, FRAME_SIZE, FREE, PhysicalMemory
from loadstone.machine.shootdown import Shootdown

ROOT, START, END = 7, 0x400000, 0x402000


class Listener:
    """A core that takes notes."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self.memory = memory
        self.told: list[tuple[int, int, int, list[int]]] = []
        self.free: list[int] = []  # of what it was told, what was free already

    def invalidate(self, root: int, start: int, end: int, frames: Sequence[int]) -> None:
        self.told.append((root, start, end, list(frames)))
        self.free += [frame for frame in frames if self.memory.owner(frame) == FREE]


@pytest.fixture
def memory() -> Iterator[PhysicalMemory]:
    made = PhysicalMemory(64 * FRAME_SIZE)
    yield made
    made.close()


def test_a_core_is_told_before_the_frame_is_free(memory: PhysicalMemory) -> None:
    shootdown, core = Shootdown(memory), Listener(memory)
    shootdown.listen(core)
    frame = memory.allocate(ANONYMOUS)
    shootdown.retire(ROOT, START, END, [frame << 12 | PRESENT | ACCESSED | COUNTED])
    assert core.told == [(ROOT, START, END, [frame])]
    assert core.free == [] and memory.owner(frame) == FREE


def test_only_counted_entries_let_go_of_their_frames(memory: PhysicalMemory) -> None:
    shootdown = Shootdown(memory)
    shared, cached = memory.allocate(ANONYMOUS), memory.allocate(CACHE)
    memory.hold(shared)
    entries = [shared << 12 | PRESENT | COUNTED, cached << 12 | PRESENT | ACCESSED]
    shootdown.retire(ROOT, START, END, entries)
    assert (memory.references(shared), memory.references(cached)) == (1, 1)
    assert memory.is_exclusive(shared)


@pytest.mark.parametrize("cores", [1, 2])
def test_what_no_cpu_has_accessed_matters_only_to_others(memory: PhysicalMemory, cores: int) -> None:
    """The one core is not in the program while its entries are changed; another may be, and access it just then."""
    shootdown, listeners = Shootdown(memory), [Listener(memory) for _ in range(cores)]
    for core in listeners:
        shootdown.listen(core)
    frame = memory.allocate(ANONYMOUS)
    shootdown.retire(ROOT, START, END, [frame << 12 | PRESENT | COUNTED])
    assert [len(core.told) for core in listeners] == ([0] if cores == 1 else [1, 1])
    assert memory.owner(frame) == FREE
