"""The page cache: each page is read once, in runs; what is dropped is really gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadstone.machine.physical import CACHE, FREE
from loadstone.memory.fault import resolve
from loadstone.memory.user import copy_out
from loadstone.memory.vma import PAGE
from memory.spaces import AREA, File, R, W, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.memory.close()


def contents(world: World, file: File, index: int) -> bytes:
    return bytes(world.memory.page(world.cache.lookup(file, index)))


def test_missing_pages_are_read_in_runs(world: World) -> None:
    file = File(10 * PAGE)
    assert world.cache.lookup(file, 0) == -1
    world.cache.bring(file, 4, 4)
    frames = world.cache.bring(file, 2, 7)
    assert file.reads == [(4, 1), (2, 2), (5, 3)]
    assert sorted(frames) == [2, 3, 4, 5, 6, 7]
    assert all(contents(world, file, index) == file.page(index) for index in frames)
    assert all(world.memory.owner(frame) == CACHE for frame in frames.values())
    world.cache.bring(file, 0, 9)
    world.cache.bring(file, 0, 9)
    assert file.reads[3:] == [(0, 2), (8, 2)]


def test_the_last_page_is_filled_with_zeros(world: World) -> None:
    file = File(PAGE + 5)
    world.cache.bring(file, 0, 1)
    assert contents(world, file, 1) == file.page(1)


def test_scattered_frames_do_as_well() -> None:
    world = World(frames=64)
    taken = [world.memory.allocate(1) for _ in range(64 - world.memory.used)]
    for frame in taken[::2]:
        world.memory.page(frame)[:] = b"\xaa" * PAGE
        world.memory.release(frame)
    file = File(6 * PAGE + 7)
    world.cache.bring(file, 0, 6)
    assert all(contents(world, file, index) == file.page(index) for index in range(7))
    world.memory.close()


def test_read_ahead_is_centred_and_within_the_file(world: World) -> None:
    file = File(100 * PAGE)
    world.cache.read_ahead(file, 50)
    world.cache.read_ahead(file, 3)
    world.cache.read_ahead(file, 99)
    assert file.reads == [(34, 32), (0, 32), (83, 17)]


def test_warm_is_for_files_only(world: World) -> None:
    assert world.cache.is_cached(File(PAGE), 0)
    assert not world.cache.is_cached(File(PAGE, writeback=False), 0)
    world.cache.warm = False
    file = File(PAGE)
    assert not world.cache.is_cached(file, 0)
    world.cache.bring(file, 0, 0)
    assert world.cache.is_cached(file, 0)


def test_dirty_pages_are_written_once_and_in_order(world: World) -> None:
    file = File(8 * PAGE)
    world.cache.bring(file, 0, 7)
    assert file.pages is not None
    file.pages.dirty |= {6, 1, 3}
    world.cache.write_back(file, 2, 6)
    assert (file.written, file.pages.dirty) == ([3, 6], {1})
    world.cache.write_back(file, 0, 7)
    world.cache.write_back(file, 0, 7)
    assert file.written == [3, 6, 1]


def test_truncation_drops_pages_and_zeroes_the_tail(world: World) -> None:
    file = File(6 * PAGE)
    world.cache.bring(file, 0, 5)
    assert file.pages is not None
    file.pages.dirty |= {1, 5}
    used = world.memory.used
    del file.data[PAGE + 7 :]
    world.cache.truncate(file, PAGE + 7)
    assert sorted(file.pages.frames) == [0, 1]
    assert file.pages.dirty == {1}
    assert contents(world, file, 1) == file.page(1)
    assert world.memory.used == used - 4
    world.cache.truncate(file, 0)
    assert file.pages.frames == {} and file.pages.dirty == set()


def test_punching_takes_pages_out_of_the_middle(world: World) -> None:
    file = File(6 * PAGE, writeback=False)
    world.file(file, 6, R | W, shared=True)
    for page in range(6):
        resolve(world.space, AREA + page * PAGE, W, 0)
    world.cache.punch(file, 2, 4)
    assert file.pages is not None and sorted(file.pages.frames) == [0, 1, 4, 5]
    entries = [address for address, _, _ in world.space.page_table.entries(AREA, AREA + 6 * PAGE)]
    assert entries == [AREA, AREA + PAGE, AREA + 4 * PAGE, AREA + 5 * PAGE]


def test_a_page_is_unmapped_from_every_address_space(world: World) -> None:
    file = File(4 * PAGE)
    first, second = world.space, world.new_space()
    world.file(file, 2, R, first=2)
    world.space = second
    world.file(file, 4, R | W, shared=True)
    resolve(first, AREA + PAGE, R, 0)
    resolve(second, AREA + 3 * PAGE, W, 0)
    frame = world.cache.lookup(file, 3)
    assert world.cache.map_counts(file, 3, 4) == {frame: 2}
    world.cache.truncate(file, 3 * PAGE)
    assert world.cache.map_counts(file, 3, 4) == {}
    assert world.memory.owner(frame) == FREE
    assert first.page_table.entry(AREA + PAGE) == second.page_table.entry(AREA + 3 * PAGE) == 0


def test_shared_memory_is_free_only_when_the_cores_know(world: World) -> None:
    """With the last mapping its frames go: no core may reach them then any more."""
    start = world.anonymous(3, shared=True)
    copy_out(world.space, start, bytes(3 * PAGE))
    seen: list[set[int]] = []
    world.listener.invalidate = lambda root, start, end, frames: seen.append(  # type: ignore[method-assign]
        {world.memory.owner(frame) for frame in frames}
    )
    world.space.unmap(start, 3 * PAGE)
    assert seen == [{CACHE}]
    assert world.memory.usage()["page cache"] == 0


def test_an_address_space_that_is_gone_is_not_looked_at(world: World) -> None:
    file = File(2 * PAGE)
    world.file(file, 2)
    resolve(world.space, AREA, R, 0)
    world.space.release()
    assert world.cache.spaces == []
    world.cache.truncate(file, 0)
    assert world.memory.usage() == {"reserved": 0, "page table": 0, "anonymous": 0, "page cache": 0, "zero": 1}


def test_forget_gives_the_frames_back(world: World) -> None:
    file = File(3 * PAGE)
    world.cache.forget(file)
    used = world.memory.used
    world.cache.bring(file, 0, 2)
    world.cache.forget(file)
    assert world.memory.used == used
    assert world.cache.lookup(file, 0) == -1


def test_a_file_that_cannot_be_read_leaks_no_frames(world: World) -> None:
    file = File(4 * PAGE)

    def fail(index: int, target: memoryview) -> None:
        raise OSError("the disk is gone")

    file.read_pages = fail  # type: ignore[method-assign]
    used = world.memory.used
    for last in (0, 3):
        with pytest.raises(OSError, match="the disk"):
            world.cache.bring(file, 0, last)
    assert world.memory.used == used
    assert world.cache.lookup(file, 0) == -1
