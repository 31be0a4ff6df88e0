"""Page tables: the hardware's bits, and a model of what they map."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from loadstone.errors import OutOfFrames
from loadstone.machine import paging
from loadstone.machine.paging import (
    ACCESSED,
    DIRTY,
    NO_EXECUTE,
    PRESENT,
    PROTNONE,
    USER,
    WRITABLE,
    PageTable,
    permissions,
)
from loadstone.machine.physical import ANONYMOUS, FRAME_SIZE, TABLE, PhysicalMemory

TOP = 1 << 47


@pytest.fixture
def memory() -> Iterator[PhysicalMemory]:
    made = PhysicalMemory(4096 * FRAME_SIZE)
    yield made
    made.close()


def entry_in(memory: PhysicalMemory, table: int, index: int) -> int:
    """An entry as the CPU reads it: eight little-endian bytes at table + 8 * index."""
    return int(struct.unpack_from("<Q", memory.page(table), 8 * index)[0])


def test_a_new_address_space_owns_one_frame(memory: PhysicalMemory) -> None:
    before = memory.usage()["page table"]
    table = PageTable(memory)
    assert memory.usage()["page table"] - before == 1 == table.table_frames()
    assert memory.owner(table.root) == TABLE
    assert memory.page(table.root) == bytes(FRAME_SIZE)


def test_looking_makes_no_tables(memory: PhysicalMemory) -> None:
    table = PageTable(memory)
    assert table.find(0x401000) == -1
    assert table.entry(0x401000) == 0
    assert list(table.entries(0, TOP)) == []
    assert table.table_frames() == 1


def test_the_layout_is_the_hardwares(memory: PhysicalMemory) -> None:
    # 0x7fff_f7fd_3abc = PML4 255, PDPT 511, PD 447, PT 467, offset 0xabc (SDM vol. 3, figure 4-8)
    table = PageTable(memory)
    frame = memory.allocate(ANONYMOUS)
    memory.words[table.slot(0x7FFF_F7FD_3ABC)] = frame << 12 | permissions(5)
    pdpt = entry_in(memory, table.root, 255)
    directory = entry_in(memory, pdpt >> 12, 511)
    leaves = entry_in(memory, directory >> 12, 447)
    # _PAGE_TABLE: present, writable, user, accessed, dirty
    assert [e & 0xFFF for e in (pdpt, directory, leaves)] == [0x67] * 3
    assert entry_in(memory, leaves >> 12, 467) == frame << 12 | 0x5  # present, user; executable: bit 63 is clear
    assert [(s.level, s.number, s.entry) for s in table.walk(0x7FFF_F7FD_3ABC)] == [
        ("PML4", 255, pdpt),
        ("PDPT", 511, directory),
        ("PD", 447, leaves),
        ("PT", 467, frame << 12 | 0x5),
    ]
    assert [s.table for s in table.walk(0x7FFF_F7FD_3ABC)] == [table.root, pdpt >> 12, directory >> 12, leaves >> 12]


def test_a_walk_ends_where_nothing_is_mapped(memory: PhysicalMemory) -> None:
    table = PageTable(memory)
    table.slot(0x401000)
    assert [(s.level, bool(s.entry)) for s in table.walk(0x40000000)] == [("PML4", True), ("PDPT", False)]


@pytest.mark.parametrize(
    ("prot", "bits"),
    [
        (0, 0x104),  # not present: the bit of _PAGE_PROTNONE, which is G's
        (1, 1 << 63 | 0x5),
        (2, 1 << 63 | 0x7),
        (3, 1 << 63 | 0x7),
        (4, 0x5),
        (5, 0x5),
        (6, 0x7),
        (7, 0x7),
    ],
)
def test_permissions(prot: int, bits: int) -> None:
    assert permissions(prot) == bits


def test_bits_are_the_hardwares() -> None:
    # Intel SDM vol. 3, table 4-20; PROTNONE: arch/x86/include/asm/pgtable_types.h
    assert (PRESENT, WRITABLE, USER, ACCESSED, DIRTY, PROTNONE) == (1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 8)
    assert NO_EXECUTE == 1 << 63
    assert sum(1 << bit for bit in range(12, 52)) == paging.FRAME_MASK


def test_the_machines_half_is_shared_and_not_counted(memory: PhysicalMemory) -> None:
    shared = memory.allocate(TABLE)
    table = PageTable(memory, kernel_entry=shared << 12 | 7)
    assert entry_in(memory, table.root, 511) == shared << 12 | 7
    assert table.table_frames() == 1
    table.release()
    assert memory.references(shared) == 1


def test_tables_that_hold_nothing_are_pruned(memory: PhysicalMemory) -> None:
    table = PageTable(memory)
    addresses = (0x400000, 0x7FFF_F7FD_3000, 0x7FFF_F7DD_3000)
    for address in addresses:
        memory.words[table.slot(address)] = 1
    assert table.table_frames() == 1 + 3 + 2 + 2  # directory; PDPT, PD, PT; PDPT, PD; two PTs
    memory.words[table.slot(addresses[1])] = 0
    table.prune(addresses[1], addresses[1] + FRAME_SIZE)
    assert table.find(addresses[1]) == -1
    assert table.table_frames() == 7
    assert table.entry(addresses[0]) == table.entry(addresses[2]) == 1
    for address in (addresses[0], addresses[2]):
        memory.words[table.find(address)] = 0
    table.prune(0, TOP)
    assert table.table_frames() == 1
    assert memory.page(table.root) == bytes(FRAME_SIZE)
    assert memory.usage()["page table"] == 1


def test_release_gives_every_table_back(memory: PhysicalMemory) -> None:
    before = memory.used
    table = PageTable(memory)
    for address in range(0, TOP, TOP // 50):
        table.slot(address)
    table.release()
    assert memory.used == before


def test_out_of_frames_in_the_middle_of_a_walk_leaves_a_table_that_can_be_released() -> None:
    memory = PhysicalMemory(4 * FRAME_SIZE)  # the zero frame, the directory, a PDPT and a PD
    table = PageTable(memory)
    with pytest.raises(OutOfFrames):
        table.slot(0x401000)
    assert table.find(0x401000) == -1
    assert table.entry(0x401000) == 0
    table.prune(0, TOP)
    assert table.table_frames() == 1
    table.release()
    assert memory.used == 1


# Addresses that share tables at every level, and some that do not.
PAGES = st.builds(
    lambda a, b, c, d: a << 39 | b << 30 | c << 21 | d << 12,
    st.sampled_from((0, 1, 255)),
    st.sampled_from((0, 5, 511)),
    st.sampled_from((0, 1, 511)),
    st.sampled_from((0, 1, 2, 510, 511)),
)
ENTRIES = st.integers(1, (1 << 64) - 1)


class Model(RuleBasedStateMachine):
    """A page table against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = PhysicalMemory(2048 * FRAME_SIZE)
        self.before = self.memory.used
        self.table = PageTable(self.memory)
        self.model: dict[int, int] = {}

    @rule(page=PAGES, entry=ENTRIES, offset=st.integers(0, 4095))
    def write(self, page: int, entry: int, offset: int) -> None:
        self.memory.words[self.table.slot(page + offset)] = entry
        self.model[page] = entry

    @rule(page=PAGES)
    def remove(self, page: int) -> None:
        slot = self.table.find(page)
        assert (slot >= 0) or page not in self.model
        if slot >= 0:
            self.memory.words[slot] = 0
        self.model.pop(page, None)

    @rule(first=PAGES, second=PAGES)
    def prune(self, first: int, second: int) -> None:
        low, high = sorted((first, second))
        self.table.prune(low, high + FRAME_SIZE)

    @rule()
    def prune_all(self) -> None:
        self.table.prune(0, TOP)
        tables = {(level, page >> shift) for page in self.model for level, shift in ((1, 39), (2, 30), (3, 21))}
        assert self.table.table_frames() == 1 + len(tables)

    @rule(page=PAGES, offset=st.integers(0, 4095))
    def look(self, page: int, offset: int) -> None:
        assert self.table.entry(page + offset) == self.model.get(page, 0)
        walk = self.table.walk(page + offset)
        assert (walk[-1].entry if len(walk) == 4 else 0) == self.model.get(page, 0)

    @rule(first=PAGES, second=PAGES)
    def walk_range(self, first: int, second: int) -> None:
        low, high = sorted((first, second))
        found = [(address, entry) for address, _, entry in self.table.entries(low, high)]
        assert found == sorted((a, e) for a, e in self.model.items() if low <= a < high)

    @invariant()
    def frames_are_counted(self) -> None:
        assert self.memory.usage()["page table"] == self.table.table_frames()

    def teardown(self) -> None:
        for page in self.model:
            self.memory.words[self.table.find(page)] = 0
        self.table.release()
        assert self.memory.used == self.before
        self.memory.close()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
