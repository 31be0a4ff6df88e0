"""What an address space owns, from its first frame to its last; limits of the machine; fork's copy."""

from __future__ import annotations

import random
from errno import ENOMEM

import pytest

from loadstone.errors import LinuxError, OutOfFrames
from loadstone.machine.physical import PhysicalMemory
from loadstone.machine.shootdown import Shootdown
from loadstone.memory import fault
from loadstone.memory.accounting import Commitment, Limits
from loadstone.memory.address_space import AddressSpace
from loadstone.memory.page_cache import PageCache
from loadstone.memory.placement import Layout
from loadstone.memory.stack import create_stack, finish_stack, shift_stack
from loadstone.memory.vma import READ, WRITE

PAGE = 4096
MIB = 1 << 20
AREA = 0x7FFF_0000_0000


def make(
    memory_size: int = 16 * MIB, commitment: Commitment | None = None, rlimits: dict[int, tuple[int, int]] | None = None
) -> AddressSpace:
    memory = PhysicalMemory(memory_size)
    limits = Limits(commitment or Commitment(1 << 20), rlimits)
    return AddressSpace(memory, PageCache(memory), Shootdown(memory), Layout(), limits)


def touch(space: AddressSpace, address: int, value: int | None = None) -> int:
    assert fault.resolve(space, address, READ if value is None else WRITE, 0) is None
    page = space.memory.page((space.page_table.entry(address) & 0x000F_FFFF_FFFF_F000) >> 12)
    if value is not None:
        page[address % PAGE] = value
    return page[address % PAGE]


def test_a_new_space_owns_one_frame() -> None:
    space = make()
    before = space.memory.used
    other = AddressSpace(space.memory, space.cache, space.shootdown, space.layout, space.limits)
    assert space.memory.used == before + 1
    assert other.page_table.table_frames() == 1
    assert other.render_maps() == (
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    )
    other.release()
    assert space.memory.used == before


def test_release_gives_everything_back() -> None:
    space = make()
    before = space.memory.used - 1
    for n in range(20):
        start = space.map(0, (n + 1) * PAGE, 3, 0x21 if n % 3 else 0x22)
        touch(space, start, n)
    space.release()
    assert space.memory.used == before
    assert space.limits.commitment.promised == 0


def test_out_of_frames_while_moving_loses_nothing() -> None:
    space = make(64 * PAGE)
    start = space.map(AREA, 40 * PAGE, 3, 0x22)
    for n in range(40):
        touch(space, start + n * PAGE, n)
    while True:
        try:
            space.memory.allocate(1)
        except OutOfFrames:
            break
    with pytest.raises(OutOfFrames):
        space.remap(start, 40 * PAGE, 40 * PAGE, 3, 0x1000_0000_0000)
    assert sum(1 for _ in space.page_table.entries(start, start + 40 * PAGE)) == 40


@pytest.mark.parametrize(("mode", "pages", "fits"), [(0, 1000, True), (0, 1001, False), (1, 1 << 30, True)])
def test_overcommit(mode: int, pages: int, fits: bool) -> None:
    space = make(commitment=Commitment(1000, mode))
    if fits:
        space.map(AREA, pages * PAGE, 3, 0x22)
    else:
        with pytest.raises(LinuxError) as raised:
            space.map(AREA, pages * PAGE, 3, 0x22)
        assert raised.value.errno == ENOMEM
        space.map(AREA, pages * PAGE, 1, 0x22)  # read-only memory is no promise


def test_strict_overcommit_counts_promises() -> None:
    space = make(commitment=Commitment(100_000, 2, 50))
    space.map(AREA, 30_000 * PAGE, 3, 0x22)
    with pytest.raises(LinuxError):
        space.map(0, 30_000 * PAGE, 3, 0x22)
    space.unmap(AREA, 30_000 * PAGE)
    space.map(0, 30_000 * PAGE, 3, 0x22)


def test_too_many_mappings() -> None:
    space = make()
    space.limits.commitment.max_map_count = 4
    space.map(AREA, 8 * PAGE, 3, 0x22)
    space.protect(AREA + PAGE, PAGE, 1)
    with pytest.raises(LinuxError) as raised:
        space.protect(AREA + 4 * PAGE, PAGE, 1)
    assert raised.value.errno == ENOMEM


def test_stack_as_exec_makes_it() -> None:
    """A page for the strings, then 128 KiB more: 0x21000 bytes, as /proc/PID/maps of every program shows."""
    space = make(rlimits={3: (8 * MIB, 8 * MIB)})
    top = space.layout.stack_top
    vma = create_stack(space, top)
    touch(space, top - 8, 1)
    vma = finish_stack(space, vma, top - 100, False)
    assert (vma.start, vma.end, vma.perms) == (top - 0x21000, top, "rw-p")
    assert space.render_maps().splitlines()[0].endswith("[stack]")
    assert space.usage.stack == 0x21


def test_stack_bound_by_a_small_limit() -> None:
    space = make(rlimits={3: (64 * 1024, 64 * 1024)})
    vma = finish_stack(space, create_stack(space, space.layout.stack_top), 0, True)
    assert (vma.end - vma.start, vma.perms) == (64 * 1024, "rwxp")


def test_shifted_stack_keeps_its_pages() -> None:
    space = make(rlimits={3: (8 * MIB, 8 * MIB)})
    top = space.layout.stack_top
    vma = create_stack(space, top)
    touch(space, top - 8, 42)
    shift_stack(space, vma, 0x5000)
    assert (vma.start, vma.end) == (top - 0x6000, top - 0x5000)
    assert touch(space, top - 0x5000 - 8) == 42
    assert space.find(top - 8) is None


def test_fork_shares_until_written() -> None:
    parent = make()
    start = parent.map(AREA, 4 * PAGE, 3, 0x22)
    shared = parent.map(AREA + MIB, PAGE, 3, 0x21)
    touch(parent, start, 1)
    touch(parent, start + PAGE, 2)
    touch(parent, shared, 3)
    frames = parent.memory.usage()["anonymous"]
    child = parent.clone()
    assert child.render_maps() == parent.render_maps()
    assert parent.memory.usage()["anonymous"] == frames
    assert not parent.page_table.entry(start) & 2
    touch(child, start, 9)
    touch(parent, start + PAGE, 8)
    touch(child, shared, 7)
    assert (touch(parent, start), touch(child, start)) == (1, 9)
    assert (touch(parent, start + PAGE), touch(child, start + PAGE)) == (8, 2)
    assert touch(parent, shared) == 7
    child.release()
    assert parent.memory.usage()["anonymous"] == frames
    parent.release()
    assert parent.memory.usage()["anonymous"] == parent.memory.usage()["page cache"] == 0


def test_what_fork_leaves_out() -> None:
    parent = make()
    for page, advice in enumerate((10, 18)):  # MADV_DONTFORK, MADV_WIPEONFORK
        start = parent.map(AREA + page * PAGE, PAGE, 3, 0x22)
        touch(parent, start, 5)
        parent.advise(start, PAGE, advice)
    child = parent.clone()
    assert child.find(AREA) is None
    assert touch(child, AREA + PAGE) == 0


def test_relatives_that_share_vmas_do_not_see_each_others_changes() -> None:
    """The same calls in a family that shares VMAs after fork and in one that never does."""
    for seed in range(30):
        sharing, apart = [make()], [make()]
        for family in (sharing, apart):
            choose = random.Random(seed)
            family[0].map(AREA, 16 * PAGE, 3, 0x22)
            for _ in range(60):
                space = choose.choice(family)
                action, page, pages = choose.randrange(6), choose.randrange(20), choose.randrange(1, 5)
                start = AREA + page * PAGE
                if action == 0 and len(family) < 6:
                    family.append(space.clone())
                    if family is apart:
                        family[-1].vmas.own()
                        space.vmas.own()
                elif action == 1:
                    space.unmap(start, pages * PAGE)
                elif action == 2:
                    space.map(start, pages * PAGE, choose.choice((1, 3)), choose.choice((0x32, 0x31)))
                elif action == 3 and all(space.find(start + each * PAGE) for each in range(pages)):
                    space.protect(start, pages * PAGE, choose.choice((1, 3)))
                elif action == 4 and (vma := space.find(start)) and vma.flags & WRITE:
                    touch(space, start, choose.randrange(256))
                elif action == 5 and len(family) > 1:
                    family.remove(space)
                    space.release()
        assert [describe(space) for space in sharing] == [describe(space) for space in apart]
        for space in sharing + apart:
            space.release()
        for memory in (sharing[0].memory, apart[0].memory):
            assert memory.usage()["anonymous"] == memory.usage()["page cache"] == memory.usage()["page table"] == 0


def describe(space: AddressSpace) -> tuple[str, int, list[str]]:
    space.vmas.own()
    kinds = [type(vma.anon_vma).__name__ for vma in space.vmas]
    return space.render_maps(), space.resident_pages, kinds
