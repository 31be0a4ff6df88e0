"""What a user may write for a place, and whom a frame belongs to, on address spaces made by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadstone.machine.paging import PRESENT, USER, PageTable, permissions
from loadstone.machine.physical import ANONYMOUS, CACHE, PhysicalMemory
from loadstone.observe.maps import Mapping
from loadstone.observe.symbols import Symbolizer
from loadstone.observe.where import NotFound, Query, Situation, Spot, bits, follow, locate, parse

PATHS = ["/usr/bin/prog", "", "/usr/lib/libc.so.6", "[stack]"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("0x401136", (0x401136, None, None, 0)),
        ("4198710", (4198710, None, None, 0)),
        ("0x1000+0x10", (0x1010, None, None, 0)),
        ("main", (None, None, "main", 0)),
        ("main+0x10", (None, None, "main", 16)),
        ("libc.so.6+0x1000", (None, "/usr/lib/libc.so.6", None, 4096)),
        ("/usr/bin/prog+7", (None, "/usr/bin/prog", None, 7)),
        ("operator+", (None, None, "operator+", 0)),
    ],
)
def test_places(text: str, query: tuple[object, ...]) -> None:
    if text.endswith("+"):
        with pytest.raises(NotFound):
            parse(text, PATHS)
        return
    assert parse(text, PATHS) == Query(text, *query)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["main+", "main+q", "/etc/passwd+1"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(NotFound):
        parse(text, PATHS)


@pytest.fixture
def memory() -> Iterator[PhysicalMemory]:
    made = PhysicalMemory(4 << 20)
    yield made
    made.close()


def test_a_file_page_at_two_addresses_and_in_two_processes(memory: PhysicalMemory) -> None:
    """One frame behind three entries of two page tables: each sees the two others."""
    path = "/nonexistent/prog"
    maps = [Mapping(0x400000, 0x401000, "r-xp", 0, path), Mapping(0x601000, 0x602000, "rw-p", 0, path)]
    first, second = PageTable(memory), PageTable(memory)
    frame = memory.allocate(CACHE)
    memory.page(frame)[0x40] = 0xAB
    for table, address in ((first, 0x400000), (first, 0x601000), (second, 0x400000)):
        memory.words[table.slot(address)] = frame << 12 | permissions(5)
        memory.hold(frame)
    symbols = Symbolizer(maps)
    situation = Situation(1, symbols, first, memory, [(1, maps, first), (2, maps[:1], second)])
    spots = locate(parse(f"{path}+0x40", [path]), symbols, path)
    assert [spot.address for spot in spots] == [0x400040, 0x601040]
    answer = follow("x", spots[0], situation)
    assert (answer.frame, answer.owner, answer.references, answer.byte) == (frame, "page cache", 4, 0xAB)
    assert [(other.pid, other.address) for other in answer.others] == [(1, 0x601000), (2, 0x400000)]
    assert [level.slot for level in answer.levels] == [0, 0, 2, 0]
    # The write splits it: a frame of its own for one of them.
    copy = memory.allocate(ANONYMOUS)
    memory.words[first.slot(0x601000)] = copy << 12 | permissions(3)
    answer = follow("x", spots[1], situation)
    assert (answer.frame, answer.owner, answer.others) == (copy, "anonymous", ())


def test_bits_and_what_is_not_mapped(memory: PhysicalMemory) -> None:
    assert [name for name, on in bits(PRESENT | USER | 1 << 63) if on] == ["P", "US", "NX"]
    table = PageTable(memory)
    situation = Situation(1, Symbolizer([]), table, memory, [])
    answer = follow("x", Spot(0x5000, "", None), situation)
    assert (answer.mapping, answer.frame, len(answer.levels)) == (None, -1, 1)
