"""The loops over entries in machine code are what their source says, and do what those in Python do."""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path

import pytest

from loadstone.machine import assembling, entry_loops, paging
from loadstone.machine.paging import ACCESSED, COUNTED, DIRTY, PRESENT, WRITABLE, ZERO_PAGE
from loadstone.machine.physical import ANONYMOUS, ENTRIES, FRAME_SIZE, FREE, TABLE, PhysicalMemory

SOURCE = Path(entry_loops.__file__).with_name("entries.s").read_text()
CONSTANTS = {name: int(value, 0) for name, value in re.findall(r"\.set (\w+), (\w+)", SOURCE)}

on_x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the loops are x86-64 code")


@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objcopy")), reason="gcc or objcopy is not installed")
@on_x86
def test_the_bytes_are_entries_s_assembled() -> None:
    code, symbols = assembling.assemble("entries.s")
    assert code == entry_loops._CODE
    assert symbols.items() >= entry_loops._OFFSETS.items()


def test_the_loops_use_the_page_tables_bits() -> None:
    for name in ("WRITABLE", "ACCESSED", "DIRTY"):
        assert CONSTANTS[name] == getattr(paging, name)
    for name in ("COUNTED", "ZERO_PAGE"):
        assert 1 << CONSTANTS[name] == getattr(paging, name)
    assert (CONSTANTS["FREE"], CONSTANTS["ANONYMOUS"], CONSTANTS["WORDS"]) == (FREE, ANONYMOUS, ENTRIES)


class Tables:
    """A memory with a page table of random entries, and an empty one; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        choose = random.Random(seed)
        self.memory = memory = PhysicalMemory(200 * FRAME_SIZE)
        self.source, self.target = (memory.allocate(TABLE) * ENTRIES for _ in range(2))
        frames = [memory.allocate(ANONYMOUS) for _ in range(100)]
        self.first = choose.choice((0, 0, choose.randrange(ENTRIES)))
        self.count = choose.randrange(ENTRIES - self.first + 1) if self.first else ENTRIES
        for number in range(ENTRIES):
            if choose.random() < choose.choice((0.1, 0.9)):
                frame = choose.choice(frames)
                bits = sum(bit for bit in (WRITABLE, ACCESSED, DIRTY, COUNTED, 1 << 63) if choose.random() < 0.5)
                if bits & COUNTED:
                    memory.hold(frame)
                elif choose.random() < 0.3:
                    bits |= ZERO_PAGE
                memory.words[self.source + number] = frame << 12 | bits | PRESENT
        for frame in frames:
            memory.executed[frame] = choose.random() < 0.2
            memory.release(frame)

    def state(self) -> tuple[bytes, list[int]]:
        return bytes(self.memory.bytes[: self.memory.in_use_end]), [self.memory.references(n) for n in range(103)]


@on_x86
@pytest.mark.parametrize("seed", range(50))
def test_both_share_alike(seed: int) -> None:
    results = []
    for share in (entry_loops.share, entry_loops.share_in_python):
        tables = Tables(seed)
        found = share(tables.memory, tables.source + tables.first, tables.target + tables.first, tables.count)
        results.append((found, tables.state()))
        tables.memory.close()
    assert results[0] == results[1]


@on_x86
@pytest.mark.parametrize("seed", range(50))
def test_both_part_alike(seed: int) -> None:
    results = []
    for machine_code in (True, False):
        tables = Tables(seed)
        written, _ = entry_loops.share(tables.memory, tables.source, tables.target, ENTRIES)
        own = [number for number in written if tables.memory.words[tables.source + number] & COUNTED][:50]
        slots, targets = ([table + number for number in own] for table in (tables.source, tables.target))
        before = [tables.memory.words[slot] for slot in slots]
        if machine_code:
            entry_loops.part(tables.memory, slots, targets)
        else:
            copies = tables.memory.allocate_old(len(slots))
            entry_loops.part_in_python(tables.memory, slots, targets, copies)
        assert [tables.memory.words[slot] for slot in slots] == [entry | WRITABLE for entry in before]
        results.append(tables.state())
        tables.memory.close()
    assert results[0] == results[1]


@on_x86
@pytest.mark.parametrize("seed", range(50))
def test_both_drop_alike(seed: int) -> None:
    results = []
    for machine_code in (True, False):
        tables = Tables(seed)
        memory, where = tables.memory, (tables.memory, tables.source + tables.first, tables.count)
        if machine_code:
            own = entry_loops.drop(*where)
        else:
            own, others = entry_loops.drop_in_python(*where)
            memory.free_all(others[::-1])
        assert all(memory.owner(frame) == FREE and not memory.references(frame) for frame in own)
        memory.take_back(own)
        results.append((own, memory.quarantine, memory.usage(), tables.state()))
        tables.memory.close()
    assert results[0] == results[1]
