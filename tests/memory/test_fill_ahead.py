"""Filling ahead in an address space: which faults fill what, and nothing that could be told apart by its contents."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from loadstone.machine.paging import AHEAD, FRAME_MASK, PRESENT
from loadstone.memory.address_space import AddressSpace
from loadstone.memory.fault import KERNEL, resolve
from loadstone.memory.fill_ahead import FillAhead
from loadstone.memory.flags import MADV_DONTNEED, MADV_RANDOM
from loadstone.memory.user import copy_in, copy_out, pieces
from loadstone.memory.vma import PAGE
from memory.spaces import AREA, R, W, World

ALIGNED = AREA & -(1 << 21)


@pytest.fixture
def world() -> Iterator[World]:
    made = filling(World())
    yield made
    made.memory.close()


def filling(world: World, limit: int = 512) -> World:
    world.space.fill_ahead = FillAhead(world.cache, limit, always=True)
    return world


def walk(world: World, start: int, pages: int, access: int = W) -> list[int]:
    """Touch pages in order as a CPU would; the numbers of those that faulted."""
    faulted = []
    for number in range(pages):
        if touch(world.space, start + number * PAGE, access):
            faulted.append(number)
    return faulted


def touch(space: AddressSpace, address: int, access: int) -> bool:
    """Access one page; whether it faulted."""
    entry = space.page_table.entry(address)
    if entry & PRESENT and (access == R or entry & 2):
        return False
    assert resolve(space, address, access, 0) is None
    return True


def present(world: World) -> int:
    return sum(1 for _ in world.space.page_table.entries(0, world.space.layout.task_size))


def test_a_walk_doubles_what_it_fills(world: World) -> None:
    world.anonymous(512, at=ALIGNED)
    assert walk(world, ALIGNED, 100) == [0, 1, 3, 7, 15, 31, 63]
    assert world.kinds() == [("write", "anonymous", n) for n in (0, 1, 3, 7, 15, 31, 63)]
    assert (world.space.resident_pages, present(world)) == (127, 127)
    assert world.space.minor_faults == 7


def test_reads_share_the_zero_frame_and_writes_after_them_fill(world: World) -> None:
    world.anonymous(64, at=ALIGNED)
    assert walk(world, ALIGNED, 31, R) == [0, 1, 3, 7, 15]
    assert (world.space.resident_pages, world.memory.usage()["anonymous"]) == (0, 0)
    assert walk(world, ALIGNED, 31) == [0, 1, 3, 7, 15]
    assert world.space.resident_pages == 31
    assert world.memory.references(world.memory.zero_frame) == 1
    assert walk(world, ALIGNED + 31 * PAGE, 1) == [0]  # the walk goes on in what was never read
    assert [kind for _, kind, _ in world.kinds()][-2:] == ["copy-on-write", "anonymous"]


def test_it_stays_in_the_mapping_the_table_and_the_hole(world: World) -> None:
    world.anonymous(10, at=ALIGNED + 508 * PAGE)
    walk(world, ALIGNED + 508 * PAGE, 10)
    assert present(world) == 10
    assert [around for _, _, around in world.kinds()] == [0, 1, 0, 5]  # 508, 509-510, 511 | 512-517
    world.anonymous(64, at=ALIGNED + (4 << 21))
    touch(world.space, ALIGNED + (4 << 21) + 5 * PAGE, W)
    walk(world, ALIGNED + (4 << 21), 5)
    assert [around for _, _, around in world.kinds()] == [0, 0, 1, 1]  # 5 | 0, 1-2, 3-4


def test_what_does_not_walk_fills_nothing(world: World) -> None:
    world.anonymous(512, at=ALIGNED)
    for number in (9, 7, 5, 300, 2, 100):
        touch(world.space, ALIGNED + number * PAGE, W)
    assert present(world) == 6
    world.space.advise(ALIGNED, 512 * PAGE, MADV_RANDOM)
    walk(world, ALIGNED + 400 * PAGE, 20)
    assert present(world) == 26


def test_several_walks_at_once_and_no_more_than_can_be_remembered(world: World) -> None:
    starts = [ALIGNED + (n << 21) for n in range(8)]
    for start in starts:
        world.anonymous(64, at=start)
    for number in range(31):
        for start in starts:
            touch(world.space, start + number * PAGE, W)
    assert len(world.kinds()) == 8 * 5
    for number in range(200):
        world.anonymous(1, at=ALIGNED + (9 << 21) + 2 * number * PAGE)
        touch(world.space, ALIGNED + (9 << 21) + 2 * number * PAGE, W)
    assert len(world.space.walks) <= 8


def test_off_while_somebody_listens_unless_always(world: World) -> None:
    world.space.fill_ahead = FillAhead(world.cache)
    world.anonymous(64, at=ALIGNED)
    assert walk(world, ALIGNED, 16) == list(range(16))
    world.events.unsubscribe(world.faults.append)
    assert walk(world, ALIGNED + 16 * PAGE, 16) == [0, 1, 3, 7, 15]


def in_no_order(pages: int, seed: int = 1) -> list[int]:
    """The addresses of the pages of one table in an order that no walk has."""
    return [ALIGNED + number * PAGE for number in random.Random(seed).sample(range(pages), pages)]


def test_a_table_that_is_used_in_no_order_is_filled_in_blocks(world: World) -> None:
    world.anonymous(512, at=ALIGNED)
    faults = 0
    for number, page in enumerate(in_no_order(512), 1):
        faults += touch(world.space, page, W)
        assert present(world) <= 5 * number  # that much is filled in vain, at most
        if number == 15:
            assert (faults, present(world)) == (15, 15)
    assert faults < 130
    assert present(world) == world.space.resident_pages == 512
    assert max(around for _, _, around in world.kinds()) < 32


def test_blocks_stay_in_the_mapping_and_leave_what_is_there(world: World) -> None:
    world.anonymous(100, at=ALIGNED + 7 * PAGE)
    copy_out(world.space, ALIGNED + 50 * PAGE, b"mine")
    pages = [ALIGNED + (7 + number) * PAGE for number in random.Random(2).sample(range(100), 100)]
    for page in pages:
        touch(world.space, page, W)
    assert present(world) == 100
    assert copy_in(world.space, ALIGNED + 50 * PAGE, 4) == b"mine"
    assert world.memory.usage()["anonymous"] == 100


def test_a_table_that_is_read_before_it_is_written_gets_frames_for_reads(world: World) -> None:
    """As hash tables are used. Where nobody writes, reads go on sharing the zero frame."""
    world.anonymous(512, at=ALIGNED)
    faults = sum(touch(world.space, page, access) for page in in_no_order(512) for access in (R, W))
    assert faults < 160
    world.anonymous(512, at=ALIGNED + (2 << 21))
    used = world.memory.usage()["anonymous"]
    assert sum(touch(world.space, page + (2 << 21), R) for page in in_no_order(512)) > 500
    assert world.memory.usage()["anonymous"] == used


def test_a_walk_goes_on_behind_a_block(world: World) -> None:
    world.anonymous(1024, at=ALIGNED)
    for page in in_no_order(64):
        touch(world.space, page, W)
    assert len(walk(world, ALIGNED + 64 * PAGE, 400)) < 20


def test_no_blocks_after_madv_random(world: World) -> None:
    world.anonymous(512, at=ALIGNED)
    world.space.advise(ALIGNED, 512 * PAGE, MADV_RANDOM)
    assert sum(touch(world.space, page, W) for page in in_no_order(512)) == 512


def test_what_a_call_has_in_its_hands_is_not_taken_back() -> None:
    """A read of zeros into new memory, the end of which does not fit: the pages it started with stay its own."""
    world = filling(World(frames=1024))
    world.anonymous(512, at=ALIGNED)
    walk(world, ALIGNED, 64)
    assert world.space.resident_pages == 127
    lent = pieces(world.space, ALIGNED + 100 * PAGE, 10 * PAGE, True)
    world.space.fill_ahead.take_back()  # type: ignore[union-attr]
    for piece in lent:
        piece[:] = b"x" * len(piece)
    assert copy_in(world.space, ALIGNED + 100 * PAGE, 10 * PAGE) == b"x" * 10 * PAGE
    assert copy_in(world.space, ALIGNED + 110 * PAGE, PAGE) == bytes(PAGE)
    # Of the 127, the walk's seven own and the ten lent ones stayed; one was read again.
    assert world.space.resident_pages == 17
    assert world.space.fill_ahead.taken_back == 110  # type: ignore[union-attr]
    world.memory.close()


def test_memory_that_runs_short_takes_back_and_fills_no_more() -> None:
    world = filling(World(frames=1024))
    for number in range(9):
        world.anonymous(256, at=ALIGNED + (number << 21))
        walk(world, ALIGNED + (number << 21), 65)  # fills 127
    assert world.space.fill_ahead.taken_back > 0  # type: ignore[union-attr]
    assert world.space.fill_ahead.limit == 0  # type: ignore[union-attr]
    assert world.memory.used < 1024
    world.memory.close()


@pytest.mark.parametrize("seed", range(6))
def test_no_program_can_tell(seed: int) -> None:
    """Random work in two spaces, one of which fills ahead: the same contents, whatever happened to the mappings."""
    draw = random.Random(seed)
    plain, ahead = World(frames=3000), filling(World(frames=3000 if seed % 2 else 1500), 64)
    worlds = (plain, ahead)
    before = [world.memory.used for world in worlds]
    for world in worlds:
        world.anonymous(600, at=ALIGNED + 100 * PAGE)
    for step in range(300):
        start = ALIGNED + (100 + draw.randrange(500)) * PAGE
        pages = draw.randrange(1, 40)
        kind = draw.choice(("write", "write", "read", "call", "zero", "protect", "drop", "peek"))
        for world in worlds:
            work(world.space, kind, start, pages, step)
        if kind == "peek":
            spans = [copy_in(world.space, start, pages * PAGE) for world in worlds]
            assert spans[0] == spans[1]
        assert_sound(ahead)
    whole = [copy_in(world.space, ALIGNED + 100 * PAGE, 600 * PAGE) for world in worlds]
    assert whole[0] == whole[1]
    assert ahead.space.fill_ahead is not None
    assert ahead.space.fill_ahead.pages > 0
    assert ahead.space.minor_faults < plain.space.minor_faults
    for world, used in zip(worlds, before, strict=True):
        world.space.release()
        assert world.memory.used == used - 1  # the page directory was there before
        assert world.memory.references(world.memory.zero_frame) == 1
        world.memory.close()


def work(space: AddressSpace, kind: str, start: int, pages: int, step: int) -> None:
    """One step of a program, page by page."""
    for address in range(start, start + pages * PAGE, PAGE):
        if kind == "write":
            touch(space, address, W)
            copy_out(space, address + step, step.to_bytes(4, "little"))
        elif kind == "read":
            touch(space, address, R)
        elif kind == "call":
            assert resolve(space, address, W, 0, KERNEL) is None
    if kind == "zero":
        copy_out(space, start, bytes(pages * PAGE))
    elif kind == "protect":
        space.protect(start, pages * PAGE, R)
        space.protect(start, pages * PAGE, R | W)
    elif kind == "drop":
        space.advise(start, pages * PAGE, MADV_DONTNEED)


def assert_sound(world: World) -> None:
    """Every page is in a mapping, what is resident is counted, and what nobody touched holds zeros."""
    space, memory = world.space, world.memory
    resident = 0
    for address, _, entry in space.page_table.entries(0, space.layout.task_size):
        frame = (entry & FRAME_MASK) >> 12
        assert space.find(address) is not None
        resident += frame != memory.zero_frame
        if entry & AHEAD:
            assert memory.references(frame) == 1
    assert resident == space.resident_pages == sum(space.resident_by_kind())
