"""Signal masks and actions that the Unicorn core changes in its hook: as the calls say, or not at all."""

from __future__ import annotations

import struct

import pytest

from loadstone.machine.core import EXCEPTION, SYSTEM_CALL, Trap
from loadstone.machine.paging import ACCESSED, AHEAD, DIRTY
from loadstone.machine.physical import FRAME_SIZE
from machine.bare import BUDGET, CODE, DATA, STACK_TOP, Bare
from machine.signals import BLOCK, GIVEN, KEPT, SET, SIGKILL_AND_SIGSTOP, UNBLOCK, Signals

NEW, OLD = DATA + 64, DATA + 128
MASK, ACTION = 14, 13
USED = ACCESSED | DIRTY
CALL = "mov r10d, {size}; syscall; mov r12, rax; mov r13, rcx; mov r14, r11; ud2"


@pytest.fixture
def signals(bare: Bare) -> Signals:
    """The keeper of the bare core, which the core is about to ask."""
    keeper = bare.core.signals = Signals(0b1010)
    use(bare, DATA, USED)
    use(bare, DATA + FRAME_SIZE, USED)
    return keeper


def use(bare: Bare, page: int, bits: int) -> None:
    """Have a page be as if the program had used it, or not."""
    bare.memory.words[bare.space.page_table.slot(page)] &= ~(USED | AHEAD)
    bare.memory.words[bare.space.page_table.slot(page)] |= bits


def call(bare: Bare, number: int, *arguments: int, size: int = 8, budget: int = BUDGET) -> Trap:
    """Make a system call in code that goes on to an exception; the registers are then as the call left them."""
    bare.core._signals.expect()
    bare.load(CALL.format(size=size))
    bare.context.write_registers(dict(zip(("rax", "rdi", "rsi", "rdx"), (number, *arguments), strict=True)))
    bare.context.pc, bare.context.sp = CODE, STACK_TOP - 64
    return bare.run(budget)


def change(bare: Bare, how: int, new: int | None, old: int = OLD, *, size: int = 8, budget: int = BUDGET) -> Trap:
    if new is not None:
        bare.space.put(NEW, new.to_bytes(8, "little"))
    return call(bare, MASK, how, NEW if new is not None else 0, old, size=size, budget=budget)


def act(bare: Bare, number: int, *, new: int = NEW, old: int = OLD) -> Trap:
    bare.space.put(NEW, struct.pack("4Q", *GIVEN))
    bare.space.put(OLD, bytes(32))
    return call(bare, ACTION, number, new, old)


@pytest.mark.parametrize(
    ("how", "new", "mask"),
    [(BLOCK, 0b1100, 0b1110), (UNBLOCK, 0b0110, 0b1000), (SET, 1 << 63 | 1, 1 << 63 | 1), (BLOCK, None, 0b1010),
     (SET, (1 << 64) - 1, (1 << 64) - 1 & ~SIGKILL_AND_SIGSTOP)],
)  # fmt: skip
def test_a_mask_is_changed(bare: Bare, signals: Signals, how: int, new: int | None, mask: int) -> None:
    assert change(bare, how, new).kind == EXCEPTION
    assert (signals.mask, signals.mask_calls, signals.action_calls) == (mask, 1, 0)
    assert bare.space.bytes_at(OLD, 8) == (0b1010).to_bytes(8, "little")
    kept = [bare.context.read(name) for name in ("rdi", "rsi", "rdx", "r10", "rsp")]
    assert kept == [how, NEW if new is not None else 0, OLD, 8, STACK_TOP - 64]
    result, behind, flags = (bare.context.read(name) for name in ("r12", "r13", "r14"))
    assert (result, behind) == (0, CODE + 8)
    assert flags & 0x202 == 0x202
    assert bare.core.exits.system_calls == 0


def test_the_old_mask_need_not_be_asked_for(bare: Bare, signals: Signals) -> None:
    assert change(bare, SET, 5, old=0).kind == EXCEPTION
    assert (signals.mask, signals.mask_calls) == (5, 1)


@pytest.mark.parametrize(("how", "size"), [(3, 8), (1 << 31, 8), ((1 << 32) - 1, 8), (SET, 4), (SET, 16)])
def test_a_strange_change_is_for_the_kernel(bare: Bare, signals: Signals, how: int, size: int) -> None:
    assert change(bare, how, 1, size=size).kind == SYSTEM_CALL
    assert bare.context.system_call()[:5] == (MASK, how, NEW, OLD, size)
    assert (signals.mask_calls, signals.mask) == (0, 0b1010)


@pytest.mark.parametrize("place", [0x10000, DATA + FRAME_SIZE - 4, CODE, 1 << 47, (1 << 64) - 4])
def test_an_operand_that_cannot_be_had_is_for_the_kernel(bare: Bare, signals: Signals, place: int) -> None:
    assert change(bare, SET, 1, old=place).kind == SYSTEM_CALL
    assert bare.context.system_call()[:5] == (MASK, SET, NEW, place, 8)
    assert call(bare, MASK, SET, place, 0).kind == SYSTEM_CALL
    assert act(bare, 5, old=place).kind == SYSTEM_CALL
    assert act(bare, 5, new=place).kind == SYSTEM_CALL
    assert (signals.mask_calls, signals.action_calls, signals.mask) == (0, 0, 0b1010)


@pytest.mark.parametrize(
    ("bits", "written"), [(0, False), (ACCESSED, False), (DIRTY, False), (USED | AHEAD, False), (USED, True)]
)
def test_a_page_that_was_not_used_so_yet_is_for_the_kernel(
    bare: Bare, signals: Signals, bits: int, written: bool
) -> None:
    """Its accessed and dirty bits would change, which others look at."""
    use(bare, DATA + FRAME_SIZE, bits)
    assert (change(bare, SET, 1, old=DATA + FRAME_SIZE).kind == EXCEPTION) is written
    assert signals.mask_calls == written
    assert bare.space.entry(DATA + FRAME_SIZE) & (USED | AHEAD) == bits


def test_an_action_is_set_and_asked_for(bare: Bare, signals: Signals) -> None:
    for number in (1, 2, 33, 64):
        signals.action_calls = 0
        signals.set(number, [1, 2, 3, 4])
        neighbours = [signals.action(other) for other in range(1, 65) if other != number]
        assert act(bare, number).kind == EXCEPTION
        assert bare.space.bytes_at(OLD, 32) == struct.pack("4Q", 1, 2, 3, 4)
        assert (signals.action(number), signals.action_calls, signals.mask_calls) == (KEPT, 1, 0)
        assert [signals.action(other) for other in range(1, 65) if other != number] == neighbours
        assert act(bare, number, new=0).kind == EXCEPTION
        assert bare.space.bytes_at(OLD, 32) == struct.pack("4Q", *KEPT)
        assert act(bare, number, new=OLD, old=OLD).kind == EXCEPTION  # zeros, at the same place
        assert bare.space.bytes_at(OLD, 32) == struct.pack("4Q", *KEPT)
        assert (signals.action(number), signals.action_calls) == ([0, 0, 0, 0], 3)


@pytest.mark.parametrize("number", [0, 9, 19, 65, 1 << 31, (1 << 32) - 1])
def test_an_action_that_cannot_be_set_is_for_the_kernel(bare: Bare, signals: Signals, number: int) -> None:
    before = bytes(signals.table)
    assert act(bare, number).kind == SYSTEM_CALL
    assert bare.context.system_call()[:5] == (ACTION, number, NEW, OLD, 8)
    assert (bytes(signals.table), signals.action_calls) == (before, 0)


def test_the_kernel_has_it_where_it_says_so(bare: Bare, signals: Signals) -> None:
    signals.open = False
    assert change(bare, SET, 1).kind == SYSTEM_CALL
    assert (signals.mask_calls, signals.mask) == (0, 0b1010)
    signals.open = True
    assert change(bare, SET, 1).kind == EXCEPTION


def test_the_call_that_ends_a_slice_is_for_the_kernel(bare: Bare, signals: Signals) -> None:
    """The block, `mov` and `syscall`, has eight bytes."""
    assert change(bare, SET, 1, budget=8).kind == SYSTEM_CALL
    assert change(bare, SET, 1, budget=9).kind != SYSTEM_CALL
    assert signals.mask_calls == 1


def test_other_calls_are_for_the_kernel(bare: Bare, signals: Signals) -> None:
    for number in (0, 12, 15, 1 << 32 | MASK):
        assert call(bare, number, SET, NEW, OLD).kind == SYSTEM_CALL
        assert bare.context.system_call()[0] == number
    assert signals.mask_calls == signals.action_calls == 0
