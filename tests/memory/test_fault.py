"""The page-fault path: each kind of fault by its cause, what it costs, and what cannot be answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadstone.errors import OutOfFrames
from loadstone.machine.paging import DIRTY, FRAME_MASK, PRESENT, WRITABLE
from loadstone.machine.physical import ANONYMOUS, CACHE
from loadstone.memory.fault import KERNEL, BadAccess, populate_page, resolve
from loadstone.memory.flags import MADV_DONTNEED
from loadstone.memory.vma import PAGE
from memory.spaces import AREA, File, R, W, World, X

SIGBUS, SIGSEGV, MAPERR, ACCERR, ADRERR = 7, 11, 1, 2, 2


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.memory.close()


def touch(world: World, address: int, access: int) -> BadAccess | None:
    return resolve(world.space, address, access, 0x401000)


def entry(world: World, address: int) -> int:
    return world.space.page_table.entry(address)


def frame(world: World, address: int) -> int:
    return (entry(world, address) & FRAME_MASK) >> 12


def test_anonymous_memory_is_zeros_and_the_first_write_a_page(world: World) -> None:
    world.anonymous(4)
    used = world.memory.usage()["anonymous"]
    assert touch(world, AREA + 8, R) is None
    assert frame(world, AREA) == world.memory.zero_frame
    assert not entry(world, AREA) & WRITABLE
    assert (world.space.resident_pages, world.memory.usage()["anonymous"]) == (0, used)
    assert touch(world, AREA + 9, W) is None
    assert touch(world, AREA + PAGE, W) is None
    assert entry(world, AREA) & (PRESENT | WRITABLE | DIRTY) == PRESENT | WRITABLE | DIRTY
    assert bytes(world.memory.page(frame(world, AREA))) == bytes(PAGE)
    assert (world.space.resident_pages, world.memory.usage()["anonymous"]) == (2, used + 2)
    assert world.kinds() == [("read", "zero-page", 0), ("write", "copy-on-write", 0), ("write", "anonymous", 0)]
    assert world.memory.references(world.memory.zero_frame) == 1


def test_the_event_says_what_happened(world: World) -> None:
    file = File(40 * PAGE)
    world.file(file, 8, R, first=2)
    world.space.owner_ids = (1000, 1001, 3)
    touch(world, AREA + PAGE + 123, R)
    (fault,) = world.faults
    assert fault == (
        1000, 1001, 3, AREA + PAGE + 123, 0x401000, "read", "user", "file", False, 7, "/file", 3 * PAGE,
        file.pages.frames[3] if file.pages else -1, None,
    )  # fmt: skip


def test_a_file_page_and_its_private_copy(world: World) -> None:
    file = File(4 * PAGE)
    world.file(file, 4, R | W)
    touch(world, AREA, R)
    shared = frame(world, AREA)
    assert world.memory.owner(shared) == CACHE
    touch(world, AREA, W)
    copy = frame(world, AREA)
    assert world.memory.owner(copy) == ANONYMOUS
    assert bytes(world.memory.page(copy)) == file.page(0)
    assert world.memory.references(shared) == 1  # the cache's
    world.memory.page(copy)[0] = 0
    touch(world, AREA + PAGE, W)
    assert world.kinds() == [("read", "file", 3), ("write", "copy-on-write", 0), ("write", "copy-on-write", 0)]
    assert file.written == [] and file.page(0)[0] != 0
    assert (AREA, AREA + PAGE) in world.listener.invalidated


def test_a_shared_page_is_dirty_once_written_and_goes_to_the_file(world: World) -> None:
    file = File(3 * PAGE + 10)
    world.file(file, 4, R | W, shared=True)
    touch(world, AREA, R)
    assert not entry(world, AREA) & WRITABLE
    touch(world, AREA, W)
    touch(world, AREA + 3 * PAGE, W)
    assert world.kinds() == [("read", "file", 3), ("write", "shared", 0), ("write", "shared", 0)]
    assert file.pages is not None and file.pages.dirty == {0, 3}
    world.memory.page(frame(world, AREA))[:5] = b"HELLO"
    world.memory.page(frame(world, AREA + 3 * PAGE))[:20] = b"x" * 20
    world.cache.write_back(file, 0, 100)
    assert file.written == [0, 3] and file.pages.dirty == set()
    assert file.page(0)[:5] == b"HELLO"
    assert len(file.data) == 3 * PAGE + 10 and file.data[-10:] == b"x" * 10


def test_two_mappings_of_a_file_are_one_page(world: World) -> None:
    file = File(4 * PAGE)
    world.file(file, 4, R | W, shared=True)
    world.file(file, 4, R, at=AREA + (1 << 30))
    touch(world, AREA, W)
    touch(world, AREA + (1 << 30), R)
    assert frame(world, AREA) == frame(world, AREA + (1 << 30))
    assert sorted(file.reads) == [(0, 1), (1, 3)]  # each page once


@pytest.mark.parametrize(
    ("prot", "access", "code"),
    [(R, W, ACCERR), (0, R, ACCERR), (0, W, ACCERR), (R | X, W, ACCERR), (W, W, 0), (W, R, 0), (X, X, 0), (X, R, 0)],
)
def test_what_a_mapping_allows(prot: int, access: int, code: int, world: World) -> None:
    world.anonymous(1, prot)
    bad = touch(world, AREA + 5, access)
    assert (bad is None) == (code == 0)
    if bad is not None:
        assert bad[:4] == (SIGSEGV, ACCERR, AREA + 5, access)
        assert world.faults[-1].signal == "SIGSEGV"
        assert world.faults[-1].cause == "protection"
        assert entry(world, AREA) == 0
    else:
        assert entry(world, AREA) & PRESENT


def test_a_fetch_from_a_page_that_is_there_and_not_executable(world: World) -> None:
    world.anonymous(1, R | W)
    touch(world, AREA, W)
    bad = touch(world, AREA, X)
    assert bad is not None and bad[:4] == (SIGSEGV, ACCERR, AREA, X)


def test_nothing_is_mapped(world: World) -> None:
    world.anonymous(1)
    for address in (0, AREA - 1, AREA + PAGE, 0x7FFF_FFFF_EFFF):
        bad = touch(world, address, R)
        assert bad is not None and bad[:3] == (SIGSEGV, MAPERR, address)
    assert [fault.signal for fault in world.faults] == ["SIGSEGV"] * 4


def test_in_kernel_mode_no_signal_is_announced(world: World) -> None:
    assert resolve(world.space, AREA, R, 0, KERNEL) is not None
    assert (world.faults[0].mode, world.faults[0].signal) == ("kernel", None)


def test_past_the_end_of_a_file(world: World) -> None:
    file = File(PAGE + 10)
    world.file(file, 4, R | W)
    assert touch(world, AREA + PAGE + 4000, R) is None  # the rest of the last page is there, as zeros
    assert bytes(world.memory.page(frame(world, AREA + PAGE)))[10:] == bytes(PAGE - 10)
    for access in (R, W):
        bad = touch(world, AREA + 2 * PAGE + 7, access)
        assert bad is not None and bad[:3] == (SIGBUS, ADRERR, AREA + 2 * PAGE + 7)
    assert world.faults[-1].signal == "SIGBUS"
    file.data += bytes(2 * PAGE)
    assert touch(world, AREA + 2 * PAGE, R) is None  # the file has grown


def test_truncation_takes_mapped_pages_away(world: World) -> None:
    file = File(4 * PAGE)
    world.file(file, 4, R | W)
    world.file(file, 4, R, at=AREA + (1 << 30))
    touch(world, AREA + 3 * PAGE, W)  # a private copy
    touch(world, AREA + PAGE, W)  # one on the last page that stays, cut in the middle
    touch(world, AREA + (1 << 30), R)
    del file.data[PAGE + 100 :]
    world.cache.truncate(file, PAGE + 100)
    for place in (AREA + 3 * PAGE, AREA + 2 * PAGE, AREA + (1 << 30) + 2 * PAGE):
        assert entry(world, place) == 0
        bad = touch(world, place, R)
        assert bad is not None and bad.signal == SIGBUS
    assert entry(world, AREA + PAGE) & PRESENT
    cut = world.memory.page(frame(world, AREA + (1 << 30) + PAGE))
    assert bytes(cut) == file.page(1)
    assert world.space.resident_pages == 1 + 2


def test_warm_and_cold(world: World) -> None:
    file = File(100 * PAGE)
    world.file(file, 100)
    touch(world, AREA + 50 * PAGE, R)
    assert (world.space.major_faults, world.space.minor_faults) == (0, 1)
    cold = World(warm=False)
    file = File(100 * PAGE)
    cold.file(file, 100)
    for page in (50, 51, 70, 5):
        resolve(cold.space, AREA + page * PAGE, R, 0)
    assert [fault.major for fault in cold.faults] == [True, False, True, True]
    assert (cold.space.major_faults, cold.space.minor_faults) == (3, 1)
    assert file.reads[0] == (34, 32)  # 32 pages, the missing one in the middle
    cold.memory.close()


def test_memory_without_a_file_is_never_major() -> None:
    cold = World(warm=False)
    cold.anonymous(4, shared=True)
    resolve(cold.space, AREA, R, 0)
    resolve(cold.space, AREA + PAGE, W, 0)
    assert cold.space.major_faults == 0
    assert entry(cold, AREA) & WRITABLE  # there is no file system to tell
    cold.memory.close()


def test_pure_demand_paging_maps_one_page_a_fault() -> None:
    world = World(fault_around=PAGE)
    world.file(File(100 * PAGE), 100)
    for page in range(20):
        resolve(world.space, AREA + page * PAGE, R, 0)
    assert world.kinds() == [("read", "file", 0)] * 20
    world.memory.close()


def test_protection_away_and_back(world: World) -> None:
    world.anonymous(1)
    touch(world, AREA, W)
    world.memory.page(frame(world, AREA))[:4] = b"keep"
    kept = frame(world, AREA)
    world.space.protect(AREA, PAGE, 0)
    assert not entry(world, AREA) & PRESENT and frame(world, AREA) == kept
    bad = touch(world, AREA, R)
    assert bad is not None and bad.code == ACCERR
    world.space.protect(AREA, PAGE, R | W)
    assert entry(world, AREA) & PRESENT and frame(world, AREA) == kept
    assert bytes(world.memory.page(kept)[:4]) == b"keep"


def test_what_is_thrown_away_comes_back_as_zeros(world: World) -> None:
    world.anonymous(1)
    touch(world, AREA, W)
    world.memory.page(frame(world, AREA))[:4] = b"gone"
    world.space.advise(AREA, PAGE, MADV_DONTNEED)
    assert entry(world, AREA) == 0
    touch(world, AREA, W)
    assert bytes(world.memory.page(frame(world, AREA))) == bytes(PAGE)


def test_populating_counts_no_fault(world: World) -> None:
    world.anonymous(2, R)
    assert populate_page(world.space, AREA, R) is None
    assert populate_page(world.space, AREA, W) is None
    assert entry(world, AREA) & PRESENT and not entry(world, AREA) & WRITABLE
    assert populate_page(world.space, AREA + 2 * PAGE, R) is not None
    assert (world.space.minor_faults, world.faults) == (0, [])


@pytest.mark.parametrize("access", [R, W])
@pytest.mark.parametrize("kind", ["anonymous", "file", "shared"])
def test_out_of_frames_loses_nothing(kind: str, access: int) -> None:
    world = World(frames=64, fault_around=PAGE)
    file = File(200 * PAGE)
    if kind == "anonymous":
        world.anonymous(200)
    else:
        world.file(file, 200, R | W, shared=kind == "shared")
    done = 0
    with pytest.raises(OutOfFrames):
        while True:
            resolve(world.space, AREA + done * PAGE, access, 0)
            done += 1
            if kind == "anonymous" and access == R and done == 200:
                raise OutOfFrames  # reads of zeros need none
    assert done >= 28
    resident = sum(1 for _ in world.space.page_table.entries(AREA, AREA + 200 * PAGE))
    assert resident == done
    assert world.memory.used <= 64
    world.space.unmap(AREA, 200 * PAGE)
    assert world.space.resident_pages == 0
    world.cache.forget(file)
    assert world.memory.usage()["anonymous"] == world.memory.usage()["page cache"] == 0
    assert world.memory.usage()["page table"] == 1
    world.memory.close()
