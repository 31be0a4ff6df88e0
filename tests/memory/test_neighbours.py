"""What a fault does for the pages beside its own: how far it goes, and that nothing but the number of faults tells."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from loadstone.machine.paging import ACCESSED, AHEAD, PRESENT, WRITABLE
from loadstone.memory.address_space import AddressSpace
from loadstone.memory.fill_ahead import FillAhead
from loadstone.memory.flags import MAP_PRIVATE
from loadstone.memory.user import copy_in, copy_out
from loadstone.memory.vma import PAGE
from memory.spaces import AREA, File, R, W, World, X

ALIGNED = AREA & -(1 << 21)


@pytest.fixture
def world() -> Iterator[World]:
    """A world in which nobody looks at faults, but who subscribes."""
    made = World()
    made.space.events = None
    made.space.fill_ahead = FillAhead(made.cache)
    yield made
    made.memory.close()


def entries(space: AddressSpace, start: int, pages: int) -> list[int]:
    return [space.page_table.entry(start + number * PAGE) for number in range(pages)]


def present(space: AddressSpace, start: int, pages: int) -> int:
    return sum(entry & PRESENT for entry in entries(space, start, pages))


def writable(space: AddressSpace, start: int, pages: int) -> list[int]:
    return [number for number, entry in enumerate(entries(space, start, pages)) if entry & WRITABLE]


def test_what_is_cached_is_mapped_in_one_fault(world: World) -> None:
    file = File(200 * PAGE)
    world.file(file, 200, at=ALIGNED)
    world.cache.bring(file, 0, 150)
    copy_in(world.space, ALIGNED + 100 * PAGE, 1)
    assert (present(world.space, ALIGNED, 200), world.space.minor_faults) == (151, 1)
    assert len(file.pages.frames if file.pages else ()) == 151  # nothing was read for it
    assert world.space.resident_pages == 151


def test_a_segment_is_mapped_when_its_loader_puts_it_in_its_place(world: World) -> None:
    file = File(600 * PAGE)
    world.cache.bring(file, 0, 3)
    world.cache.bring(file, 8, 520)
    world.file(file, 600, at=ALIGNED)  # the head, and room for the rest
    text = world.file(file, 590, R | X, at=ALIGNED + 4 * PAGE, first=4)
    assert present(world.space, ALIGNED, 600) == 4 + 513
    assert [entry & PRESENT for entry in entries(world.space, text, 5)] == [0, 0, 0, 0, 1]  # the others nobody has read
    assert (world.space.minor_faults, world.space.resident_pages) == (0, 517)
    for number in (0, 3, 4, 10, 507, 508, 519, 593, 599):
        assert copy_in(world.space, ALIGNED + number * PAGE, PAGE) == file.page(number)
    world.space.unmap(ALIGNED, 600 * PAGE)
    assert world.cache.map_counts(file, 0, 600) == {}


def test_what_nobody_may_read_and_what_is_data_is_not_mapped_ahead(world: World) -> None:
    file = File(8 * PAGE)
    world.cache.bring(file, 0, 7)
    world.file(file, 4, 0, at=ALIGNED)
    world.file(file, 4, R | W, at=ALIGNED + 4 * PAGE, first=4)
    assert present(world.space, ALIGNED, 8) == 0


@pytest.mark.parametrize(("pages", "prot", "mapped"), [(16, R, 9), (17, R, 0), (16, 0, 0), (16, R | W, 0)])
def test_a_small_file_is_mapped_for_reading_at_once(world: World, pages: int, prot: int, mapped: int) -> None:
    file = File(20 * PAGE)
    world.cache.bring(file, 0, 8)
    start = world.space.map(0, pages * PAGE, prot, MAP_PRIVATE, file)
    assert present(world.space, start, pages) == world.space.resident_pages == mapped
    if mapped:
        assert copy_in(world.space, start, 9 * PAGE) == bytes(file.data[: 9 * PAGE])
        assert world.space.minor_faults == 0


def test_a_little_data_and_what_is_behind_it_gets_frames_of_its_own(world: World) -> None:
    file = File(16 * PAGE)
    world.cache.bring(file, 0, 14)
    world.file(file, 8, R | X, at=ALIGNED)
    data = world.file(file, 8, R | W, at=ALIGNED + 8 * PAGE, first=8)
    assert writable(world.space, data, 8) == list(range(7))  # the last is not cached
    world.anonymous(6, at=data + 6 * PAGE)
    assert writable(world.space, data, 12) == list(range(12))
    assert (world.space.minor_faults, world.memory.usage()["anonymous"]) == (0, 12)
    for number in range(6):
        assert copy_in(world.space, data + number * PAGE, PAGE) == file.page(8 + number)
    assert copy_in(world.space, data + 6 * PAGE, 6 * PAGE) == bytes(6 * PAGE)
    copy_out(world.space, data, b"mine")
    assert file.written == [] and file.page(8)[:4] != b"mine"


@pytest.mark.parametrize("why", ["too large", "no program", "shared", "behind no data", "somebody looks"])
def test_other_data_waits_for_its_faults(world: World, why: str) -> None:
    file = File(40 * PAGE)
    world.cache.bring(file, 0, 39)
    if why != "no program":
        world.file(file, 8, R | X, at=ALIGNED)
    if why == "somebody looks":
        world.space.events = world.events
    data = ALIGNED + 8 * PAGE
    if why == "behind no data":
        world.anonymous(4, at=data + PAGE)
    else:
        world.file(file, 17 if why == "too large" else 4, R | W, at=data, first=8, shared=why == "shared")
    assert present(world.space, data, 17) == 0


def test_a_page_that_leaves_the_cache_is_not_mapped_from_memory(world: World) -> None:
    file = File(8 * PAGE)
    world.cache.bring(file, 0, 7)
    world.file(file, 8, R | X, at=ALIGNED)
    del file.data[4 * PAGE :]
    world.cache.truncate(file, 4 * PAGE)
    world.cache.bring(file, 0, 3)
    world.file(file, 8, R | X, at=ALIGNED)
    assert present(world.space, ALIGNED, 8) == 4


def test_a_small_anonymous_mapping_is_filled_as_a_whole(world: World) -> None:
    start = world.anonymous(16, at=ALIGNED)
    copy_out(world.space, start + 5 * PAGE, b"x")
    assert writable(world.space, start, 16) == list(range(16))
    assert [n for n, entry in enumerate(entries(world.space, start, 16)) if entry & AHEAD] == [*range(5), *range(6, 16)]
    assert (world.space.resident_pages, world.space.minor_faults) == (16, 1)
    assert copy_in(world.space, start, 16 * PAGE) == bytes(5 * PAGE) + b"x" + bytes(11 * PAGE - 1)


@pytest.mark.parametrize(("pages", "first"), [(17, 0), (4, 510)])  # too large; in two page tables
def test_another_anonymous_mapping_is_not(world: World, pages: int, first: int) -> None:
    start = world.anonymous(pages, at=ALIGNED + first * PAGE)
    copy_out(world.space, start + PAGE, b"x")
    assert writable(world.space, start, pages) == [1]


def test_who_looks_at_faults_sees_the_window_of_the_kernel(world: World) -> None:
    file = File(200 * PAGE)
    world.cache.bring(file, 0, 199)
    world.space.events = world.events
    world.file(file, 200, at=ALIGNED)
    copy_in(world.space, ALIGNED + 100 * PAGE, 1)
    assert world.kinds() == [("read", "file", 15)]
    assert present(world.space, ALIGNED, 200) == 16


def test_data_of_a_program_is_copied_around_the_page_that_is_written(world: World) -> None:
    file = File(80 * PAGE)
    world.cache.bring(file, 0, 79)
    world.file(file, 8, R | X, at=ALIGNED)
    data = world.file(file, 72, R | W, at=ALIGNED + 8 * PAGE, first=8)
    copy_in(world.space, data, 1)
    copy_out(world.space, data + 30 * PAGE, b"mine")
    assert writable(world.space, data, 72) == list(range(24, 56))  # 32 to 63 of the table
    for number in range(72):
        wanted = file.page(8 + number)
        assert copy_in(world.space, data + number * PAGE, PAGE) == (b"mine" + wanted[4:] if number == 30 else wanted)


def test_another_file_is_not_copied_ahead(world: World) -> None:
    file = File(8 * PAGE)
    data = world.file(file, 8, R | W, at=ALIGNED)
    copy_in(world.space, data, 1)
    copy_out(world.space, data, b"mine")
    assert writable(world.space, data, 8) == [0]


def test_a_child_is_given_entries_that_no_cpu_has_used(world: World) -> None:
    start = world.anonymous(8, at=ALIGNED)
    copy_out(world.space, start, bytes(8 * PAGE))
    child = world.space.clone()
    assert not any(entry & (ACCESSED | WRITABLE) for entry in entries(child, start, 8))
    world.listener.invalidated.clear()
    copy_out(child, start, b"its own")
    assert writable(child, start, 8) == list(range(8))
    assert writable(world.space, start, 8) == []
    child.release()
    copy_out(world.space, start + PAGE, b"mine again")
    assert writable(world.space, start, 8) == list(range(8))


def test_fork_copies_what_was_written_since_the_last_one(world: World) -> None:
    start = world.anonymous(8, at=ALIGNED)
    copy_out(world.space, start, b"old." * 2 * PAGE)
    world.space.clone().release()  # the first fork does not know yet what is written over and over
    copy_out(world.space, start + 3 * PAGE, b"new")
    assert writable(world.space, start, 8) == list(range(8))
    child = world.space.clone()
    assert writable(child, start, 8) == writable(world.space, start, 8) == [3]
    copy_out(world.space, start + 3 * PAGE, b"the parent's")
    copy_out(child, start + 3 * PAGE, b"the child's")
    before = world.space.minor_faults + child.minor_faults
    assert copy_in(world.space, start + 3 * PAGE, 12) == b"the parent's"
    assert copy_in(child, start + 3 * PAGE, 11) == b"the child's"
    assert copy_in(child, start, 3) == b"old"
    assert world.space.minor_faults + child.minor_faults == before
    child.release()
    assert world.memory.references(world.space.page_table.entry(start + 3 * PAGE) >> 12 & 0xFFFFF) == 1


def test_a_child_has_copies_of_what_an_earlier_one_wrote(world: World) -> None:
    start = world.anonymous(100, at=ALIGNED)
    copy_out(world.space, start, b"o" * (100 * PAGE))
    world.space.clone().release()
    first = world.space.clone()
    copy_out(first, start + 90 * PAGE, b"first")
    assert first.minor_faults == 1
    first.release()
    second = world.space.clone()
    copy_out(second, start + 90 * PAGE, b"second")
    assert second.minor_faults == 0
    assert copy_in(world.space, start + 90 * PAGE, 6) == b"o" * 6
    world.space.protect(start, 100 * PAGE, R)
    third = world.space.clone()
    assert writable(third, start, 100) == []
    second.release()
    third.release()
    world.space.release()
    assert world.memory.usage()["anonymous"] == 0


def test_a_fork_copies_no_more_than_it_may(world: World) -> None:
    start = world.anonymous(200, at=ALIGNED)
    world.space.clone().release()
    copy_out(world.space, start, bytes(200 * PAGE))
    child = world.space.clone()
    assert len(writable(child, start, 200)) == len(writable(world.space, start, 200)) == 64
    child.release()


def test_a_child_has_the_file_pages_of_its_parent(world: World) -> None:
    file = File(20 * PAGE)
    world.cache.bring(file, 0, 9)
    text = world.file(file, 20, R | X, at=ALIGNED)
    copy_in(world.space, text, 1)
    child = world.space.clone()
    assert entries(child, text, 20) == [entry & ~ACCESSED for entry in entries(world.space, text, 20)]
    assert child.resident_pages == world.space.resident_pages == 10
    assert file.pages is not None
    pages = {file.pages.frames[index] for index in range(10)}
    assert world.cache.map_counts(file, 0, 20) == dict.fromkeys(pages, 2)
    child.release()
    assert world.cache.map_counts(file, 0, 20) == dict.fromkeys(pages, 1)


@pytest.mark.parametrize("advice", [10, 18])  # MADV_DONTFORK, MADV_WIPEONFORK
def test_a_child_gets_no_page_that_is_not_for_it(world: World, advice: int) -> None:
    file = File(4 * PAGE)
    world.cache.bring(file, 0, 3)
    text = world.file(file, 4, R | X, at=ALIGNED)
    secret = world.anonymous(4, at=ALIGNED + 8 * PAGE)
    start = world.anonymous(4, at=ALIGNED + 16 * PAGE)
    for area in (secret, start):
        copy_out(world.space, area, b"mine" * PAGE)
    world.space.advise(secret, 4 * PAGE, advice)
    child = world.space.clone()
    assert present(child, secret, 4) == present(child, text, 4) == 0
    assert (present(child, start, 4), child.resident_pages) == (4, 4)
    assert copy_in(child, text, PAGE) == file.page(0)
    assert copy_in(child, start, 4) == b"mine"
    child.release()


def test_who_looks_at_faults_forks_as_the_kernel_does(world: World) -> None:
    file = File(20 * PAGE)
    text = world.file(file, 20, R | X, at=ALIGNED)
    start = world.anonymous(8, at=ALIGNED + (1 << 21))
    copy_in(world.space, text, 1)
    world.space.clone().release()
    copy_out(world.space, start, bytes(8 * PAGE))
    world.space.events = world.events
    child = world.space.clone()
    assert present(child, text, 20) == 0
    assert writable(child, start, 8) == writable(world.space, start, 8) == []
    child.release()


def test_the_end_of_a_space_is_not_reported(world: World) -> None:
    start = world.anonymous(4, at=ALIGNED)
    copy_out(world.space, start, bytes(4 * PAGE))
    child = world.space.clone()
    world.listener.invalidated.clear()
    child.release()
    assert world.listener.invalidated == []
    assert [world.memory.references(entry >> 12 & 0xFFFFF) for entry in entries(world.space, start, 4)] == [1] * 4


@pytest.mark.parametrize("seed", range(20))
def test_generations_of_processes_never_see_each_other(world: World, seed: int) -> None:
    """Forks, writes and ends in any order, against dictionaries of what each process wrote."""
    dice = random.Random(seed)
    start = world.anonymous(80, at=ALIGNED + 490 * PAGE)  # across two page tables
    family: list[tuple[AddressSpace, dict[int, int]]] = [(world.space, {})]
    for _ in range(300):
        space, wrote = dice.choice(family)
        page = dice.randrange(80)
        action = dice.random()
        if action < 0.1 and len(family) < 6:
            family.append((space.clone(), dict(wrote)))
        elif action < 0.18 and len(family) > 1:
            family.remove((space, wrote))
            space.release()
        elif action < 0.6:
            wrote[page] = dice.randrange(1, 256)
            copy_out(space, start + page * PAGE, bytes((wrote[page],)))
        else:
            assert copy_in(space, start + page * PAGE, 1)[0] == wrote.get(page, 0)
    for space, wrote in family:
        assert [copy_in(space, start + page * PAGE, 1)[0] for page in range(80)] == [wrote.get(p, 0) for p in range(80)]
        space.release()
    assert world.memory.usage()["anonymous"] == world.memory.usage()["page table"] == 0
