"""Looking changes nothing; changing does what a debugger's write does."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EFAULT

import pytest

from loadstone.errors import LinuxError
from loadstone.machine.paging import FRAME_MASK, PRESENT, WRITABLE
from loadstone.memory.fault import resolve
from loadstone.memory.peek import peek, poke
from loadstone.memory.user import copy_in, copy_out
from loadstone.memory.vma import PAGE
from memory.spaces import AREA, File, R, W, World, X


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.memory.close()


def state(world: World) -> object:
    entries = list(world.space.page_table.entries(0, 1 << 47))
    return entries, world.memory.usage(), world.space.minor_faults, world.space.resident_pages, world.faults[:]


def test_looking_changes_nothing(world: World) -> None:
    file = File(3 * PAGE + 10)
    world.anonymous(2)
    world.file(file, 5, R | X, at=AREA + 2 * PAGE)
    before = state(world)
    assert peek(world.space, AREA + PAGE - 5, 10) == bytes(10)
    assert peek(world.space, AREA + 2 * PAGE, 5 * PAGE) == bytes(file.data).ljust(5 * PAGE, b"\0")
    assert state(world) == before
    assert file.pages is None


def test_looking_sees_what_the_program_sees(world: World) -> None:
    file = File(2 * PAGE)
    world.file(file, 2, R | W)
    copy_out(world.space, AREA + PAGE - 2, b"mine")
    assert peek(world.space, AREA, 2 * PAGE) == copy_in(world.space, AREA, 2 * PAGE)
    world.space.protect(AREA, 2 * PAGE, 0)
    assert peek(world.space, AREA + PAGE - 2, 4) == b"mine"  # PROT_NONE hides nothing from an observer


def test_looking_at_a_page_that_another_mapping_changed(world: World) -> None:
    file = File(PAGE)
    world.file(file, 1, R)
    world.file(file, 1, R | W, at=AREA + (1 << 30), shared=True)
    copy_out(world.space, AREA + (1 << 30), b"new")
    assert peek(world.space, AREA, 3) == b"new"


def test_nothing_is_mapped(world: World) -> None:
    world.anonymous(1)
    for call in (lambda: peek(world.space, AREA + PAGE - 1, 2), lambda: poke(world.space, AREA + PAGE, b"x")):
        with pytest.raises(LinuxError) as caught:
            call()
        assert caught.value.errno == EFAULT


def test_changing_read_only_memory_makes_it_the_processes_own(world: World) -> None:
    file = File(2 * PAGE)
    world.file(file, 2, R | X)
    resolve(world.space, AREA, X, 0)
    world.faults.clear()
    faults = world.space.minor_faults
    poke(world.space, AREA + PAGE - 2, b"\xcc\xcc\xcc\xcc")
    assert peek(world.space, AREA + PAGE - 2, 4) == b"\xcc\xcc\xcc\xcc"
    assert (world.space.minor_faults, world.faults) == (faults, [])
    entry = world.space.page_table.entry(AREA)
    assert entry & PRESENT and not entry & WRITABLE
    assert file.pages is not None and bytes(world.memory.page(file.pages.frames[0])) == file.page(0)
    world.memory.executed[(entry & FRAME_MASK) >> 12] = 1
    poke(world.space, AREA, b"again")
    assert (world.space.page_table.entry(AREA) & FRAME_MASK) == entry & FRAME_MASK
    assert world.memory.rewritten == [(entry & FRAME_MASK) >> 12]  # a core has translated it


def test_changing_memory_that_nobody_may_access(world: World) -> None:
    world.anonymous(1, 0)
    poke(world.space, AREA + 3, b"secret")
    assert peek(world.space, AREA, 10) == b"\0\0\0secret\0"
    assert not world.space.page_table.entry(AREA) & PRESENT


def test_changing_a_shared_mapping_changes_the_file(world: World) -> None:
    file = File(PAGE)
    world.file(file, 1, R | W, shared=True)
    poke(world.space, AREA, b"shared")
    assert file.pages is not None and file.pages.dirty == {0}


def test_a_file_that_was_mapped_for_reading_only_is_not_changed(world: World) -> None:
    """As for ptrace: only what is private may be forced (mm/gup.c: check_vma_flags)."""
    file = File(PAGE)
    world.file(file, 1, R, shared=True)
    with pytest.raises(LinuxError) as caught:
        poke(world.space, AREA, b"forced")
    assert caught.value.errno == EFAULT
    assert file.pages is None or file.pages.dirty == set()
    assert peek(world.space, AREA, 6) == file.page(0)[:6]


def test_past_the_end_of_a_file_cannot_be_changed(world: World) -> None:
    world.file(File(PAGE), 2, R | W)
    with pytest.raises(LinuxError) as caught:
        poke(world.space, AREA + PAGE - 1, b"xy")
    assert caught.value.errno == EFAULT
    assert peek(world.space, AREA + PAGE - 1, 1) == b"x"
