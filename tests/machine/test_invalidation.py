"""No stale translation survives a change of the page tables, on every core.

Each test first lets the program use a translation, then changes the entry as the memory system does and reports it; it
fails if the program still sees the page as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from loadstone.machine import kvm_api
from loadstone.machine.core import EXCEPTION, INTERRUPTED, PAGE_FAULT, SLICE_END, SYSTEM_CALL
from loadstone.machine.paging import ACCESSED, DIRTY, FRAME_MASK, WRITABLE, permissions
from loadstone.machine.physical import ANONYMOUS, FRAME_SIZE
from loadstone.machine.shootdown import Shootdown
from machine.bare import CODE, DATA, Bad, Bare, Fault, R, Space, W
from machine.engines import NAMES, maker

READ = "mov rax, [rbx]; syscall"
WRITE = "mov [rbx], rcx; syscall"
WRITE_CODE = CODE + 0x800
FAR = 0x4000_0000


class Changing(Bare):
    """A machine whose entries change: `shared` are pages whose first write gets a copy, as copy-on-write does it."""

    def __init__(self, name: str) -> None:
        super().__init__(frames=16384, make=maker(name))
        self.shootdown = Shootdown(self.memory)
        self.shootdown.listen(self.core)
        self.shared: set[tuple[int, int]] = set()
        for text, at in ((READ, CODE), (WRITE, WRITE_CODE)):
            self.load(text, at)

    def another(self) -> Space:
        """A second address space with the same code."""
        space = self.new_space()
        self.load(READ, CODE, space)
        self.load(WRITE, WRITE_CODE, space)
        return space

    def resolve(self, space: Space, address: int, access: int, pc: int) -> Bad | None:
        page = address & -FRAME_SIZE
        if access == W and (space.page_table.root, page) in self.shared:
            self.faults.append(Fault(address, access, pc))
            self.copy_on_write(space, page)
            return None
        return super().resolve(space, address, access, pc)

    def copy_on_write(self, space: Space, page: int) -> int:
        """Give the space its own copy of a page; the frame."""
        self.shared.discard((space.page_table.root, page))
        old = space.entry(page)
        [new] = self.memory.duplicate([(old & FRAME_MASK) >> 12])
        space.map(page, R | W, new)
        self.shootdown.retire(space.page_table.root, page, page + FRAME_SIZE, [old])
        return new

    def unmap(self, space: Space, page: int) -> None:
        """Take the entry of a page away."""
        slot = space.page_table.find(page)
        old, self.memory.words[slot] = self.memory.words[slot], 0
        self.shootdown.retire(space.page_table.root, page, page + FRAME_SIZE, [old])

    def fill(self, frame: int, value: int) -> None:
        """Write a word into every eighth of a frame."""
        for at in range(frame * 512, frame * 512 + 512, 64):
            self.memory.words[at] = value

    def page(self, space: Space, page: int, value: int, prot: int = R | W) -> int:
        """Map a new page that holds `value`; its frame."""
        frame = space.map(page, prot)
        self.fill(frame, value)
        return frame

    def read(self, address: int, space: Space | None = None) -> int | None:
        """What the program reads at an address; None: a fault that was refused."""
        return self._do(CODE, address, 0, space)

    def write(self, address: int, value: int, space: Space | None = None) -> int | None:
        """Let the program write; None: a fault that was refused."""
        return self._do(WRITE_CODE, address, value, space)

    def _do(self, code: int, address: int, value: int, space: Space | None) -> int | None:
        context = self.context
        context.pc = code
        context.write("rbx", address)
        context.write("rcx", value)
        context.write("rax", value)
        trap = self.run(space=space)
        while trap.kind in (SLICE_END, INTERRUPTED):
            trap = self.run(space=space)
        if trap.kind == EXCEPTION and trap.vector == PAGE_FAULT:
            assert address <= trap.failure.address < address + 8
            return None
        assert trap.kind == SYSTEM_CALL
        return int(context.read("rax"))


class OnTwoCores(Changing):
    """Everything is done on both of two vCPUs, one after the other, so that what either remembers is found."""

    def __init__(self) -> None:
        super().__init__("kvm")
        first = self.core
        second = type(first)(self.memory, self.resolve, number=1, beside=first)
        self.shootdown.listen(second)
        self.cores = [first, second]

    def _do(self, code: int, address: int, value: int, space: Space | None) -> int | None:
        results = []
        for core in self.cores:
            self.core = core
            results.append(super()._do(code, address, value, space))
        self.cores.reverse()
        assert results[0] == results[1], "the cores see different things"
        return results[0]

    def close(self) -> None:
        self.cores.pop().close()
        self.core = self.cores[0]
        super().close()


@pytest.fixture(params=[*NAMES, "two-vcpus"])
def bare(request: pytest.FixtureRequest) -> Iterator[Changing]:
    made = OnTwoCores() if request.param == "two-vcpus" else Changing(request.param)
    yield made
    made.close()


def test_retargeted_page(bare: Changing) -> None:
    space = bare.space
    bare.page(space, FAR, 1)
    assert bare.read(FAR) == 1
    old = space.entry(FAR)
    new = bare.page(space, FAR, 2)
    assert new != (old & FRAME_MASK) >> 12
    bare.shootdown.retire(space.page_table.root, FAR, FAR + FRAME_SIZE, [old])
    assert bare.read(FAR) == 2
    assert bare.write(FAR, 3) == 3
    assert bare.memory.words[new * 512] == 3


def test_page_that_became_read_only(bare: Changing) -> None:
    space = bare.space
    frame = bare.page(space, FAR, 1)
    assert bare.write(FAR, 2) == 2
    space.map(FAR, R, frame)
    bare.shootdown.changed(space.page_table.root, FAR, FAR + FRAME_SIZE)
    assert bare.write(FAR, 3) is None
    assert bare.read(FAR) == 2
    space.map(FAR, R | W, frame)  # an entry that allows more needs no report
    assert bare.write(FAR, 4) == 4


def test_page_that_nobody_may_touch_any_more(bare: Changing) -> None:
    space = bare.space
    frame = bare.page(space, FAR, 1)
    assert bare.read(FAR) == 1
    space.map(FAR, 0, frame)
    bare.shootdown.changed(space.page_table.root, FAR, FAR + FRAME_SIZE)
    assert bare.read(FAR) is None


def test_unmapped_page(bare: Changing) -> None:
    space = bare.space
    bare.page(space, FAR, 1)
    assert bare.read(FAR) == 1
    bare.unmap(space, FAR)
    assert bare.read(FAR) is None


def test_moved_page(bare: Changing) -> None:
    space = bare.space
    frame = bare.page(space, FAR, 1)
    assert bare.read(FAR) == 1
    table = space.page_table
    target = table.slot(FAR + (1 << 30))
    bare.memory.words[target], bare.memory.words[table.slot(FAR)] = bare.memory.words[table.slot(FAR)], 0
    bare.shootdown.changed(table.root, FAR, FAR + FRAME_SIZE, [frame])
    assert bare.read(FAR) is None
    assert bare.read(FAR + (1 << 30)) == 1


def share(bare: Changing) -> tuple[Space, int]:
    """Another space that shares the page at FAR read-only, as fork leaves it; its frame."""
    frame = bare.page(bare.space, FAR, 1)
    assert bare.write(FAR, 1) == 1
    other = bare.another()
    for space in (bare.space, other):
        space.map(FAR, R, frame)
        bare.shared.add((space.page_table.root, FAR))
    bare.memory.hold(frame)
    bare.shootdown.changed(bare.space.page_table.root, FAR, FAR + FRAME_SIZE)
    return other, frame


def test_copy_on_write_after_sharing(bare: Changing) -> None:
    other, frame = share(bare)
    assert bare.read(FAR) == 1
    assert bare.read(FAR, other) == 1
    assert bare.write(FAR, 5) == 5
    assert [fault.address for fault in bare.faults[-1:]] == [FAR]
    assert (bare.read(FAR), bare.read(FAR, other)) == (5, 1)
    assert bare.memory.words[frame * 512] == 1
    assert bare.write(FAR, 6, other) == 6
    assert (bare.read(FAR), bare.read(FAR, other)) == (5, 6)


def test_copy_on_write_by_the_kernel(bare: Changing) -> None:
    """A system call writes: no instruction of the program faults, so nothing heals by itself."""
    other, _ = share(bare)
    assert bare.read(FAR) == 1
    new = bare.copy_on_write(bare.space, FAR)
    bare.fill(new, 7)
    assert bare.read(FAR) == 7
    assert bare.read(FAR, other) == 1


def test_copy_on_write_by_an_instruction_that_is_put_off(bare: Changing) -> None:
    """A signal comes between the fault and the store, and its handler reads the page before it is stored to."""
    share(bare)
    assert bare.read(FAR) == 1

    def copy_and_interrupt(space: Space, page: int) -> int:
        new = Changing.copy_on_write(bare, space, page)
        bare.fill(new, 8)
        bare.core.interrupt()
        return new

    bare.copy_on_write = copy_and_interrupt  # type: ignore[method-assign]
    bare.context.pc = WRITE_CODE
    bare.context.write("rbx", FAR)
    bare.context.write("rcx", 8)
    assert bare.run().kind in (INTERRUPTED, SYSTEM_CALL)  # a core may finish the store first
    assert bare.read(FAR) == 8


def test_recycled_frame(bare: Changing) -> None:
    space = bare.space
    bare.page(space, FAR, 1)
    assert bare.write(FAR, 1) == 1
    bare.unmap(space, FAR)
    other = bare.another()
    again = [bare.page(other, FAR + n * FRAME_SIZE, 9) for n in range(4)]
    assert bare.read(FAR) is None
    assert bare.read(FAR, other) == 9
    assert bare.write(FAR, 5) is None
    assert all(bare.memory.words[each * 512] == 9 for each in again)


def dismiss(bare: Changing, space: Space) -> None:
    """The end of an address space, as the memory system does it."""
    table = space.page_table
    entries = []
    for _, slot, entry in list(table.entries(0, 1 << 47)):
        bare.memory.words[slot] = 0
        entries.append(entry)
    bare.shootdown.retire(table.root, 0, 1 << 47, entries)
    table.release()


def test_recycled_page_table_frames(bare: Changing) -> None:
    """One short-lived address space after another, until frames of page tables are used again."""
    seen: set[int] = set()
    recycled = False
    for turn in range(120):
        space = bare.another()
        table = space.page_table
        recycled |= table.root in seen
        bare.page(space, FAR, 1000 + turn)
        steps = table.walk(FAR)
        recycled |= any(step.table in seen for step in steps)
        seen |= {step.table for step in steps}
        assert bare.read(FAR, space) == 1000 + turn
        assert bare.read(FAR + FRAME_SIZE, space) is None
        dismiss(bare, space)
    assert recycled, "no frame of a page table was used again: the test shows nothing"


def test_recycled_page_table_frame_of_another_region(bare: Changing) -> None:
    """The frames of a dead process's page directory and page table come back with the roles of two regions exchanged.

    A core that kept what the old directory's frame said would find the page of one region at the other.
    """
    regions = (FAR, FAR + (1 << 21))  # two page tables of one directory
    used: list[set[int]] = [set(), set()]  # the frames of page tables, by region
    for turn in range(160):
        space = bare.another()
        order = (0, 1) if turn // 2 % 2 else (1, 0)  # every other turn a frame has its old role
        for region in order:
            bare.page(space, regions[region], 1000 + region)
        for region in order:
            assert bare.read(regions[region], space) == 1000 + region, f"turn {turn}"
            used[region].add(space.page_table.walk(regions[region])[-1].table)
        dismiss(bare, space)
    assert used[0] & used[1], "no page table came back for the other region: the test shows nothing"


def test_page_table_that_went_and_came_back(bare: Changing) -> None:
    table = bare.space.page_table
    for turn in range(5):
        bare.page(bare.space, FAR, turn)
        assert bare.read(FAR) == turn
        bare.unmap(bare.space, FAR)
        table.prune(FAR, FAR + FRAME_SIZE)
        assert table.find(FAR) < 0
        assert bare.read(FAR) is None


def test_cleared_accessed_and_dirty_bits(bare: Changing) -> None:
    space = bare.space
    bare.page(space, FAR, 1)
    assert bare.write(FAR, 2) == 2
    assert space.entry(FAR) & (ACCESSED | DIRTY) == ACCESSED | DIRTY

    def clear() -> None:
        bare.memory.words[space.page_table.find(FAR)] &= ~(ACCESSED | DIRTY)
        bare.shootdown.changed(space.page_table.root, FAR, FAR + FRAME_SIZE)

    clear()
    assert bare.read(FAR) == 2
    assert space.entry(FAR) & (ACCESSED | DIRTY) == ACCESSED
    assert bare.write(FAR, 3) == 3
    assert space.entry(FAR) & DIRTY
    clear()
    assert bare.write(FAR, 4) == 4
    assert space.entry(FAR) & (ACCESSED | DIRTY) == ACCESSED | DIRTY


@pytest.mark.parametrize("step", [0, 1], ids=["in-one-run", "scattered"])
def test_many_pages_at_once(bare: Changing, step: int) -> None:
    """As fork does it: hundreds of entries lose a right, and the program is not told page by page."""
    space, pages = bare.space, 300
    addresses = [FAR + (1 + step) * n * FRAME_SIZE for n in range(pages)]
    for n, address in enumerate(addresses):
        bare.page(space, address, n)
        bare.memory.allocate_run(step, ANONYMOUS)  # with one between them the frames are scattered as well
        assert bare.write(address, n) == n
    for address in addresses:
        slot = space.page_table.find(address)
        bare.memory.words[slot] &= ~WRITABLE
    bare.shootdown.changed(space.page_table.root, FAR, addresses[-1] + FRAME_SIZE)
    assert [bare.write(address, 0) for address in addresses[::7]] == [None] * len(addresses[::7])
    assert [bare.read(address) for address in addresses] == list(range(pages))


def test_two_addresses_of_one_frame(bare: Changing) -> None:
    space = bare.space
    frame = bare.page(space, FAR, 1)
    space.map(FAR + FRAME_SIZE, R | W, frame)
    assert bare.write(FAR, 1) == bare.write(FAR + FRAME_SIZE, 1) == 1
    bare.memory.words[space.page_table.find(FAR)] = frame << 12 | permissions(R)
    bare.shootdown.changed(space.page_table.root, FAR, FAR + FRAME_SIZE)
    assert bare.write(FAR, 2) is None
    assert bare.write(FAR + FRAME_SIZE, 3) == 3
    assert bare.read(FAR) == 3


def test_page_of_another_address_space_is_not_seen_after_a_switch(bare: Changing) -> None:
    other = bare.another()
    for n, space in enumerate((bare.space, other)):
        bare.page(space, FAR, 100 + n)
    for _ in range(3):
        assert (bare.read(FAR), bare.read(FAR, other)) == (100, 101)
    assert bare.read(DATA) == 0


# -- that these tests see what they are there for: each fails on a core that forgets nothing ---------------------------


def forget_nothing(bare: Changing, _: pytest.MonkeyPatch) -> None:
    """What is reported comes to nothing."""
    if bare.core.name == "unicorn":
        bare.core._translations.flush_tlb = lambda: None
    else:
        bare.core.machine.invalidate = lambda *_: None


def recycle_tables_at_once(bare: Changing, _: pytest.MonkeyPatch) -> None:
    """Frames of page tables are used again like any other."""
    if bare.core.name == "unicorn":
        pytest.skip("Unicorn keeps no copies of page tables")
    bare.memory.old_tables = None


def never_drop_everything(bare: Changing, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much to be dropped frame by frame is not dropped at all."""
    if bare.core.name == "unicorn":
        pytest.skip("Unicorn has one way to forget")
    monkeypatch.setattr(kvm_api.VirtualMachine, "flush", lambda _: None)


def let_all_heal(bare: Changing, _: pytest.MonkeyPatch) -> None:
    """A copy-on-write is left to the instruction that stores, though something comes in between."""
    if bare.core.name == "unicorn":
        pytest.skip("Unicorn finishes the store before it stops")
    if isinstance(bare, OnTwoCores):
        pytest.skip("nothing is left to heal where another core may look")
    bare.core._heal_now = lambda: None


GUARDS = [
    (test_retargeted_page, forget_nothing),
    (test_page_that_became_read_only, forget_nothing),
    (test_page_that_nobody_may_touch_any_more, forget_nothing),
    (test_unmapped_page, forget_nothing),
    (test_moved_page, forget_nothing),
    (test_copy_on_write_after_sharing, forget_nothing),
    (test_copy_on_write_by_the_kernel, forget_nothing),
    (test_copy_on_write_by_an_instruction_that_is_put_off, let_all_heal),
    (test_recycled_frame, forget_nothing),
    (test_recycled_page_table_frame_of_another_region, recycle_tables_at_once),
    (test_page_table_that_went_and_came_back, forget_nothing),
    (test_cleared_accessed_and_dirty_bits, forget_nothing),
    (test_many_pages_at_once, forget_nothing),
    (test_many_pages_at_once, never_drop_everything),
    (test_two_addresses_of_one_frame, forget_nothing),
]


@pytest.mark.parametrize(("test", "disable"), GUARDS, ids=lambda f: f.__name__.removeprefix("test_"))
def test_fails_without_the_invalidation_that_it_guards(
    test: Callable[..., None], disable: Callable[..., None], bare: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    disable(bare, monkeypatch)
    arguments = (1,) if test is test_many_pages_at_once else ()
    with pytest.raises(AssertionError):
        test(bare, *arguments)
