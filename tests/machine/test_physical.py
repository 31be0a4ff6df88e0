"""Frames: who gets them, what is in them, and what the host gets back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from loadstone.errors import OutOfFrames
from loadstone.machine import physical
from loadstone.machine.physical import ANONYMOUS, CACHE, FRAME_SIZE, FREE, TABLE, ZERO, PhysicalMemory


@pytest.fixture
def memory() -> Iterator[PhysicalMemory]:
    made = PhysicalMemory(64 * FRAME_SIZE)
    yield made
    made.close()


def host_pages(memory: PhysicalMemory) -> int:
    """How many 4 KiB pages of the memory the host holds."""
    return os.fstat(memory._fd).st_blocks * 512 // FRAME_SIZE


def take_all(memory: PhysicalMemory) -> list[int]:
    taken = []
    while True:
        try:
            taken.append(memory.allocate(ANONYMOUS))
        except OutOfFrames:
            return taken


def test_sizes_are_whole_frames() -> None:
    memory = PhysicalMemory(10 * FRAME_SIZE + 100)
    assert (memory.size, memory.frames) == (10 * FRAME_SIZE, 10)
    assert len(memory.words) == 10 * 512
    memory.close()


def test_a_new_memory_has_the_zero_frame_and_nothing_else(memory: PhysicalMemory) -> None:
    assert memory.usage() == {"reserved": 0, "page table": 0, "anonymous": 0, "page cache": 0, "zero": 1}
    assert memory.owner(memory.zero_frame) == ZERO
    assert memory.page(memory.zero_frame) == bytes(FRAME_SIZE)
    assert memory.used == memory.peak == 1
    assert memory.owner(40) == FREE


def test_every_frame_is_handed_out_once(memory: PhysicalMemory) -> None:
    taken = take_all(memory)
    assert sorted([memory.zero_frame, *taken]) == list(range(64))
    assert memory.used == memory.peak == 64


def test_out_of_frames_says_how_many_there_are(memory: PhysicalMemory) -> None:
    take_all(memory)
    with pytest.raises(OutOfFrames, match="all 64 frames"):
        memory.allocate(TABLE)
    assert memory.used == 64
    memory.release(5)
    assert memory.allocate(TABLE) == 5


def test_the_views_are_the_same_memory(memory: PhysicalMemory) -> None:
    frame = memory.allocate(ANONYMOUS)
    memory.words[frame * 512 + 3] = 0x1122334455667788
    assert bytes(memory.view(frame, 24, 8)) == bytes.fromhex("8877665544332211")
    assert bytes(memory.page(frame)[24:32]) == bytes.fromhex("8877665544332211")
    import ctypes

    assert ctypes.string_at(memory.base + frame * FRAME_SIZE + 24, 8) == bytes.fromhex("8877665544332211")


def test_a_frame_is_zeroed_when_it_is_used_again(memory: PhysicalMemory) -> None:
    frame = memory.allocate(ANONYMOUS)
    memory.page(frame)[:] = b"\xaa" * FRAME_SIZE
    memory.release(frame)
    assert memory.allocate(TABLE) == frame
    assert memory.page(frame) == bytes(FRAME_SIZE)
    assert memory.owner(frame) == TABLE


def test_references_keep_a_frame(memory: PhysicalMemory) -> None:
    frame = memory.allocate(CACHE)
    memory.hold(frame)
    memory.release(frame)
    assert memory.references(frame) == 1
    assert memory.owner(frame) == CACHE
    memory.release(frame)
    assert memory.references(frame) == 0
    assert memory.owner(frame) == FREE


def test_releasing_a_free_frame_is_an_error(memory: PhysicalMemory) -> None:
    frame = memory.allocate(CACHE)
    memory.release(frame)
    with pytest.raises(OverflowError):
        memory.release(frame)


def test_usage_and_peak_follow(memory: PhysicalMemory) -> None:
    frames = [memory.allocate(ANONYMOUS) for _ in range(5)]
    cached = memory.allocate(CACHE)
    assert memory.usage()["anonymous"] == 5
    assert memory.usage()["page cache"] == 1
    for frame in [*frames, cached]:
        memory.release(frame)
    assert memory.usage() == {"reserved": 0, "page table": 0, "anonymous": 0, "page cache": 0, "zero": 1}
    assert (memory.used, memory.peak) == (1, 7)


def test_duplicates_have_the_contents_and_are_new(memory: PhysicalMemory) -> None:
    sources = [memory.allocate(CACHE) for _ in range(4)]
    used_before = memory.allocate(ANONYMOUS)
    for frame in [*sources, used_before]:
        memory.page(frame)[:] = os.urandom(FRAME_SIZE)
    memory.release(used_before)
    copies = memory.duplicate(sources)
    assert len({*sources, *copies}) == 8 and used_before in copies
    assert [bytes(memory.page(frame)) for frame in copies] == [bytes(memory.page(frame)) for frame in sources]
    assert {(memory.owner(frame), memory.references(frame)) for frame in copies} == {(ANONYMOUS, 1)}
    assert memory.duplicate([]) == []


def test_duplicates_that_there_is_no_room_for(memory: PhysicalMemory) -> None:
    taken = take_all(memory)
    memory.release(taken[3])
    used = memory.used
    with pytest.raises(OutOfFrames):
        memory.duplicate(taken[:2])
    assert memory.used == used
    assert memory.duplicate([taken[0]]) == [taken[3]]


def test_only_anonymous_memory_with_one_reference_is_exclusive(memory: PhysicalMemory) -> None:
    own, cached = memory.allocate(ANONYMOUS), memory.allocate(CACHE)
    assert memory.is_exclusive(own) and not memory.is_exclusive(cached) and not memory.is_exclusive(memory.zero_frame)
    memory.hold(own)
    assert not memory.is_exclusive(own)


def test_a_run_is_consecutive_and_zero(memory: PhysicalMemory) -> None:
    dirty = memory.allocate(ANONYMOUS)
    memory.page(dirty)[:] = b"\xaa" * FRAME_SIZE
    memory.release(dirty)
    first = memory.allocate_run(8, CACHE)
    assert all(memory.owner(frame) == CACHE for frame in range(first, first + 8))
    assert all(memory.references(frame) == 1 for frame in range(first, first + 8))
    assert memory.view(first, 0, 8 * FRAME_SIZE) == bytes(8 * FRAME_SIZE)
    assert memory.usage()["page cache"] == 8


def test_a_run_of_one_takes_a_free_frame(memory: PhysicalMemory) -> None:
    frame = memory.allocate(ANONYMOUS)
    memory.release(frame)
    assert memory.allocate_run(1, CACHE) == frame


def test_no_run_is_left_when_only_scattered_frames_are(memory: PhysicalMemory) -> None:
    taken = take_all(memory)
    for frame in taken[::2]:
        memory.release(frame)
    used = memory.used
    with pytest.raises(OutOfFrames, match="no 4 consecutive frames"):
        memory.allocate_run(4, CACHE)
    assert memory.used == used
    assert memory.owner(memory.allocate(CACHE)) == CACHE  # one by one there are enough


def test_executed_frames_wait_in_quarantine(memory: PhysicalMemory) -> None:
    frame = memory.allocate(CACHE)
    memory.executed[frame] = 1
    memory.page(frame)[:] = b"\x90" * FRAME_SIZE
    memory.release(frame)
    assert memory.owner(frame) == FREE
    assert memory.quarantine == [frame]
    assert memory.allocate(ANONYMOUS) != frame
    memory.end_quarantine()
    assert memory.quarantine == []
    assert memory.executed[frame] == 0
    assert memory.allocate(ANONYMOUS) == frame
    assert memory.page(frame) == bytes(FRAME_SIZE)


def test_free_frames_go_back_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physical, "_GIVE_BACK", 32)
    memory = PhysicalMemory(256 * FRAME_SIZE)
    frames = [memory.allocate(ANONYMOUS) for _ in range(100)]
    for frame in frames:
        memory.page(frame)[:] = b"\xaa" * FRAME_SIZE
    assert host_pages(memory) >= 100
    kept = frames[10]
    for frame in frames:
        if frame != kept:
            memory.release(frame)
    assert host_pages(memory) < 100 - 3 * 32 + 2
    assert memory.page(kept) == b"\xaa" * FRAME_SIZE
    again = [memory.allocate(ANONYMOUS) for _ in range(99)]
    assert sorted([*again, kept]) == frames
    assert all(memory.page(frame) == bytes(FRAME_SIZE) for frame in again)
    memory.close()


def test_memory_that_nobody_touches_costs_the_host_nothing() -> None:
    memory = PhysicalMemory(1 << 40)
    memory.allocate_run(1000, CACHE)
    assert host_pages(memory) == 0
    memory.close()


def test_closing_gives_the_host_its_descriptors_and_the_mapping_back() -> None:
    before = set(os.listdir("/proc/self/fd"))
    memory = PhysicalMemory(16 << 20)
    name = os.readlink(f"/proc/self/fd/{memory._fd}")
    assert name in _maps()
    memory.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert f"{memory.base:x}-" not in _maps()
    memory.close()  # once more does no harm


def _maps() -> str:
    with open("/proc/self/maps") as file:
        return file.read()
