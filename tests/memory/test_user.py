"""The kernel's copies to and from user memory: order of faults, partial copies, EFAULT, what is handed out."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EFAULT, ENAMETOOLONG
from itertools import pairwise

import pytest

from loadstone.errors import LinuxError, OutOfFrames
from loadstone.machine.paging import ACCESSED, DIRTY, FRAME_MASK
from loadstone.memory.user import clear, copy_in, copy_out, gather, pieces, read_string, read_words
from loadstone.memory.vma import PAGE
from memory.spaces import AREA, File, R, W, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.anonymous(4)
    yield made
    made.memory.close()


def errno_of(call: object, *arguments: object) -> int:
    with pytest.raises(LinuxError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.errno


def test_what_is_copied_out_is_copied_in(world: World) -> None:
    data = bytes(range(256)) * 40
    copy_out(world.space, AREA + 100, data)
    assert copy_in(world.space, AREA + 100, len(data)) == data
    assert copy_in(world.space, AREA + 100 + 5000, 10) == data[5000:5010]
    clear(world.space, AREA + 200, 9000)
    assert copy_in(world.space, AREA + 100, len(data)) == data[:100] + bytes(9000) + data[9100:]


def test_pages_are_resolved_in_ascending_order_in_kernel_mode(world: World) -> None:
    copy_out(world.space, AREA + PAGE - 1, bytes(PAGE + 2))
    assert [(f.address, f.mode, f.pc, f.access) for f in world.faults] == [
        (AREA + PAGE - 1, "kernel", 0, "write"),
        (AREA + PAGE, "kernel", 0, "write"),
        (AREA + 2 * PAGE, "kernel", 0, "write"),
    ]


def test_a_page_that_is_there_is_no_fault(world: World) -> None:
    copy_out(world.space, AREA, b"x")
    world.faults.clear()
    copy_out(world.space, AREA + 8, b"y")
    copy_in(world.space, AREA, 16)
    assert world.faults == []


def test_nothing_is_touched_for_no_bytes(world: World) -> None:
    assert copy_in(world.space, 0, 0) == b""
    copy_out(world.space, 0, b"")
    assert pieces(world.space, 0, 0, True) == []
    assert world.faults == []


def test_accessed_and_dirty_bits(world: World) -> None:
    copy_in(world.space, AREA, 1)
    assert world.space.page_table.entry(AREA) & (ACCESSED | DIRTY) == ACCESSED
    copy_out(world.space, AREA, b"x")
    assert world.space.page_table.entry(AREA) & (ACCESSED | DIRTY) == ACCESSED | DIRTY


@pytest.mark.parametrize("address", [0, 0xFFF, AREA - 1, AREA + 4 * PAGE, 0x7FFF_FFFF_F000, 1 << 63, (1 << 64) - 1])
def test_bad_addresses(address: int, world: World) -> None:
    assert errno_of(copy_in, world.space, address, 8) == EFAULT
    assert errno_of(copy_out, world.space, address, b"12345678") == EFAULT
    assert errno_of(pieces, world.space, address, 8, False) == EFAULT
    assert errno_of(read_string, world.space, address) == EFAULT


def test_a_copy_that_runs_out_of_the_mapping(world: World) -> None:
    end = AREA + 4 * PAGE
    copy_out(world.space, end - 4, b"abcd")
    assert errno_of(copy_in, world.space, end - 4, 8) == EFAULT
    assert errno_of(copy_out, world.space, end - 2, b"xyz") == EFAULT
    assert copy_in(world.space, end - 4, 4) == b"abxy"  # what comes before the bad page is written
    found = pieces(world.space, end - 4, 100, False)
    assert [bytes(piece) for piece in found] == [b"abxy"]


def test_read_only_memory_is_not_written(world: World) -> None:
    copy_out(world.space, AREA, b"fixed")
    world.space.protect(AREA, PAGE, R)
    assert errno_of(copy_out, world.space, AREA, b"x") == EFAULT
    assert copy_in(world.space, AREA, 5) == b"fixed"
    world.space.protect(AREA, PAGE, 0)
    assert errno_of(copy_in, world.space, AREA, 1) == EFAULT


def test_a_private_file_page_is_copied_before_it_is_written(world: World) -> None:
    file = File(2 * PAGE)
    at = world.file(file, 2, R | W, at=AREA + (1 << 30))
    assert copy_in(world.space, at, 2 * PAGE) == file.page(0) + file.page(1)
    copy_out(world.space, at, b"mine")
    assert copy_in(world.space, at, 4) == b"mine"
    assert file.page(0)[:4] != b"mine" and file.pages is not None
    assert bytes(world.memory.page(file.pages.frames[0])) == file.page(0)


def test_past_the_end_of_a_file_is_efault(world: World) -> None:
    at = world.file(File(PAGE), 2, R | W, at=AREA + (1 << 30))
    assert errno_of(copy_in, world.space, at + PAGE, 1) == EFAULT
    assert len(pieces(world.space, at, 2 * PAGE, True)) == 1


def test_strings(world: World) -> None:
    copy_out(world.space, AREA + PAGE - 3, b"abcdef\0rest")
    assert read_string(world.space, AREA + PAGE - 3) == b"abcdef"
    assert read_string(world.space, AREA + PAGE + 3) == b""
    assert read_string(world.space, AREA + PAGE - 3, 7) == b"abcdef"
    assert errno_of(read_string, world.space, AREA + PAGE - 3, 6) == ENAMETOOLONG
    copy_out(world.space, AREA, b"x" * 2 * PAGE)
    assert errno_of(read_string, world.space, AREA) == ENAMETOOLONG
    assert len(read_string(world.space, AREA, 3 * PAGE)) == 2 * PAGE


def test_a_string_that_ends_before_a_bad_page(world: World) -> None:
    end = AREA + 4 * PAGE
    copy_out(world.space, end - 3, b"ab\0")
    assert read_string(world.space, end - 3) == b"ab"
    copy_out(world.space, end - 1, b"c")
    assert errno_of(read_string, world.space, end - 3) == EFAULT


def test_words(world: World) -> None:
    copy_out(world.space, AREA + PAGE - 8, b"\x01" + bytes(7) + b"\xff" * 8)
    assert read_words(world.space, AREA + PAGE - 8, 2) == (1, (1 << 64) - 1)
    assert read_words(world.space, AREA, 0) == ()
    assert errno_of(read_words, world.space, AREA + 4 * PAGE - 8, 2) == EFAULT


def test_frames_that_are_neighbours_are_one_piece(world: World) -> None:
    for page in range(4):
        copy_out(world.space, AREA + page * PAGE, b"x")
    frames = [(world.space.page_table.entry(AREA + page * PAGE) & FRAME_MASK) >> 12 for page in range(4)]
    runs = 1 + sum(b != a + 1 for a, b in pairwise(frames))
    found = pieces(world.space, AREA + 10, 4 * PAGE - 20, True)
    assert len(found) == runs
    assert sum(map(len, found)) == 4 * PAGE - 20
    for piece in found:
        piece[:] = b"y" * len(piece)
    assert copy_in(world.space, AREA, 4 * PAGE) == b"x" + bytes(9) + b"y" * (4 * PAGE - 20) + bytes(10)


def test_pieces_in_another_order_are_not_merged(world: World) -> None:
    for page in (3, 1, 0, 2):
        copy_out(world.space, AREA + page * PAGE, bytes([page]) * PAGE)
    found = pieces(world.space, AREA, 4 * PAGE, False)
    assert b"".join(found) == b"".join(bytes([page]) * PAGE for page in range(4))
    assert len(found) > 1


def test_gather_ends_at_the_first_bad_page(world: World) -> None:
    end = AREA + 4 * PAGE
    found = gather(world.space, [(AREA, 10), (AREA, 0), (end - 5, 10), (AREA, 10)], True)
    assert sum(map(len, found)) == 15
    assert errno_of(gather, world.space, [(0, 10), (AREA, 10)], True) == EFAULT
    assert sum(map(len, gather(world.space, [(AREA, 3), (0, 10)], False))) == 3


def test_writing_code_that_ran_is_reported(world: World) -> None:
    copy_out(world.space, AREA, b"\x90" * 8)
    frame = (world.space.page_table.entry(AREA) & FRAME_MASK) >> 12
    assert world.memory.rewritten == []
    world.memory.executed[frame] = 1
    copy_in(world.space, AREA, 8)
    assert world.memory.rewritten == []
    copy_out(world.space, AREA, b"\xc3")
    assert world.memory.rewritten == [frame]
    pieces(world.space, AREA, 8, True)
    assert world.memory.rewritten == [frame, frame]


def test_out_of_frames_is_no_efault() -> None:
    world = World(frames=16)
    world.anonymous(100)
    with pytest.raises(OutOfFrames):
        copy_out(world.space, AREA, bytes(100 * PAGE))
    assert copy_in(world.space, AREA, PAGE) == bytes(PAGE)
    world.memory.close()
