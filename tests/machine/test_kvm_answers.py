"""The code that answers reads in the guest is what its source says; the host believes no more than it offered."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone.machine import kvm_answers, kvm_entry, kvm_kick, native_code
from loadstone.machine.core import EXCEPTION, INTERRUPTED, PAGE_FAULT, SLICE_END, SYSTEM_CALL, Trap
from loadstone.machine.kvm_answers import ReadAnswers
from loadstone.machine.kvm_tables import BASE
from loadstone.machine.physical import ANONYMOUS, FRAME_SIZE
from machine.bare import DATA, Bare
from machine.engines import maker

SOURCE = Path(kvm_entry.__file__).with_name("entry.s").read_text()
FILE = 5
READ = "1: xor eax, eax; syscall; cmp rax, rdx; je 1b; ud2"


@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objcopy")), reason="gcc or objcopy is not installed")
@pytest.mark.skipif(not native_code.supported(), reason="it is x86-64 code")
def test_the_bytes_are_entry_s_assembled() -> None:
    assert kvm_entry.assemble() == (kvm_entry.CODE, kvm_entry.LABELS)


def test_the_pages_and_words_are_where_the_source_has_them() -> None:
    constants = dict(re.findall(r"\.set (\w+), (?:data \+ )?(\w+)", SOURCE))
    assert int(constants["PAGES"], 0) == kvm_entry.DATA_PAGE * FRAME_SIZE
    assert int(constants["BUFFER_PAGE"], 0) == (kvm_entry.BUFFER_PAGE - kvm_entry.DATA_PAGE) * FRAME_SIZE
    for name in ("END", "TAKEN", "ONE_READ", "USER_END", "OLD_RCX", "OLD_RSI", "OLD_RDI", "OLD_RSP"):
        assert int(constants[name.lower()], 0) == 8 * getattr(kvm_entry, name)
    assert kvm_entry.DESCRIPTOR == 0
    assert len(kvm_entry.CODE) < 0x100  # the stubs follow
    assert kvm_entry.BUFFER_PAGE + kvm_answers.BUFFER_PAGES <= 512


class Kept:
    """A keeper that says yes, and remembers."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.over = 0
        self.next: list[int] = []  # lengths of what is offered when an offer is used up

    def taken(self, reads: int, length: int) -> None:
        self.reads.append((reads, length))

    def holds(self) -> bool:
        return True

    def more(self, buffer: memoryview, count: int) -> int:
        length = self.next.pop() if self.next else 0
        buffer[:length] = pattern(7, 7 + length)
        return length

    def withdrawn(self) -> None:
        self.over += 1


class Answering(Bare):
    """A machine whose program makes system calls."""

    def __init__(self) -> None:
        super().__init__(frames=16384, make=maker("kvm"))
        self.kept = Kept()
        assert self.start("mov eax, 99; syscall").kind == SYSTEM_CALL
        if not self.core.syscall_stays:
            self.close()
            pytest.skip("SYSCALL does not arrive in ring 3 on this host's KVM")
        answers = self.core.answers_for(self.space)
        assert isinstance(answers, ReadAnswers)
        self.answers = answers

    def offer(self, length: int) -> None:
        self.answers.buffer[:length] = pattern(0, length)
        self.answers.offer(FILE, length, self.kept)

    def go(self, text: str, **registers: int) -> Trap:
        """Run until a trap that no tick made."""
        for name, value in {"rdi": FILE, "rsi": DATA, "rdx": 100, **registers}.items():
            self.context.write(name, value)
        trap = self.start(text)
        while trap.kind in (SLICE_END, INTERRUPTED):
            trap = self.run()
        return trap


@pytest.fixture
def guest() -> Iterator[Answering]:
    made = Answering()
    yield made
    made.close()


def test_reads_are_answered_in_order_until_the_offer_is_used_up(guest: Answering) -> None:
    guest.offer(1050)
    assert guest.go(READ).kind == SYSTEM_CALL
    assert guest.kept.reads == [(10, 1000)]
    assert guest.space.bytes_at(DATA, 100) == pattern(900, 1000)
    assert guest.context.system_call()[:4] == (0, FILE, DATA, 100)


@pytest.mark.parametrize(
    "registers",
    [{"rdi": FILE + 1}, {"rdx": 1051}, {"rdx": 0}, {"rdx": 1 << 63}, {"rsi": BASE + 0x10000}, {"rsi": (1 << 64) - 50},
     {"rsi": 0x10000}, {"rsi": DATA + 2 * FRAME_SIZE - 50}, {"rsi": (1 << 47) - 4096}],
)  # fmt: skip
def test_what_is_not_answered_leaves_as_it_was_made(guest: Answering, registers: dict[str, int]) -> None:
    guest.offer(1050)
    assert guest.go(READ, **registers).kind == SYSTEM_CALL
    assert guest.kept.reads == []
    wanted = {"rdi": FILE, "rsi": DATA, "rdx": 100} | registers
    assert guest.context.system_call()[:4] == (0, wanted["rdi"], wanted["rsi"], wanted["rdx"])
    assert guest.context.read("eflags") & 0x200


def test_an_offer_that_is_used_up_goes_on_with_the_next_one(guest: Answering) -> None:
    """The call that found too little is made anew, with what is there now."""
    guest.kept.next = [300]
    guest.offer(1050)
    assert guest.go(READ).kind == SYSTEM_CALL
    assert guest.kept.reads == [(10, 1000), (3, 300)]
    assert guest.space.bytes_at(DATA, 100) == pattern(207, 307)
    assert guest.context.system_call()[:4] == (0, FILE, DATA, 100)


@pytest.mark.parametrize("registers", [{"rdx": 400}, {"rdi": FILE + 1}, {"rdx": 1 << 63}, {"rsi": 0x10000}])
def test_what_the_next_offer_cannot_answer_leaves_once(guest: Answering, registers: dict[str, int]) -> None:
    guest.kept.next = [300]
    guest.offer(50)
    assert guest.go(READ, **registers).kind == SYSTEM_CALL
    assert guest.kept.reads == []
    wanted = {"rdi": FILE, "rsi": DATA, "rdx": 100} | registers
    assert guest.context.system_call()[:4] == (0, wanted["rdi"], wanted["rsi"], wanted["rdx"])


def test_other_calls_leave(guest: Answering) -> None:
    guest.offer(1050)
    assert guest.go("mov eax, 1; syscall").kind == SYSTEM_CALL
    assert guest.context.system_call()[0] == 1
    assert guest.go("mov rax, 0x100000000; syscall").kind == SYSTEM_CALL  # the kernel looks at the lower half
    assert guest.context.system_call()[0] == 1 << 32
    assert guest.kept.reads == []


def test_a_jump_to_the_code_is_a_fault_where_it_leads(guest: Answering) -> None:
    guest.offer(1050)
    guest.go(READ)
    trap = guest.go(f"mov rax, {BASE:#x}; mov ecx, {DATA:#x}; jmp rax")
    assert (trap.kind, trap.vector, guest.context.pc) == (EXCEPTION, PAGE_FAULT, BASE)


@pytest.mark.parametrize("value", [0, 1, 1 << 32, 11 << 32 | 1051, (1 << 64) - 1, 1 << 63])
def test_what_the_program_writes_there_is_not_believed(guest: Answering, value: int) -> None:
    """It ends the offer; at most what was offered counts as read."""
    guest.offer(1050)
    guest.go(READ)
    guest.offer(1050)
    place = BASE + kvm_entry.DATA_PAGE * FRAME_SIZE + 8 * kvm_entry.TAKEN
    guest.go(f"mov rax, {place:#x}; mov rcx, {value:#x}; mov [rax], rcx; mov eax, 7; syscall")
    assert sum(length for _, length in guest.kept.reads) <= 2 * 1050
    assert guest.kept.over == (value != 0)


def test_without_room_for_the_buffer_in_one_piece_there_are_no_answers(guest: Answering) -> None:
    memory = guest.memory
    guest.core.forget_answers(guest.space)
    guest.core.machine.half.spare_buffers.clear()
    first = memory.allocate_run(memory.frames - memory.in_use_end // FRAME_SIZE - 10, ANONYMOUS)
    memory.release_all(list(range(first, memory.in_use_end // FRAME_SIZE)))
    used = memory.used
    assert guest.core.answers_for(guest.space) is None
    assert memory.used == used


def test_a_withdrawn_offer_answers_nothing(guest: Answering) -> None:
    guest.offer(1050)
    guest.answers.withdraw()
    assert guest.go(READ).kind == SYSTEM_CALL
    assert (guest.kept.reads, guest.kept.over) == ([], 1)


def test_ticks_lose_and_double_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kick may come at any instruction of the code: a read that leaves because of one has not been done.

    It may have begun: the kernel's own read is going to overwrite that.
    """
    monkeypatch.setattr(kvm_kick, "TICK_NS", 200_000)
    guest = Answering()
    size, length, ends = 1000, len(guest.answers.buffer), 0
    for _ in range(200):
        guest.offer(length)
        guest.kept.reads.clear()
        assert guest.go(READ, rdx=size).kind == SYSTEM_CALL
        done = sum(taken for _, taken in guest.kept.reads)
        assert done == size * sum(reads for reads, _ in guest.kept.reads)
        assert guest.context.system_call()[:4] == (0, FILE, DATA, size)
        ends += done + size <= length
        if done:
            last, begun = pattern(done - size, done), pattern(done, min(done + size, length))
            there = guest.space.bytes_at(DATA, size)
            copied = next((at for at, (one, two) in enumerate(zip(there, begun, strict=False)) if one != two), size)
            assert there[copied:] == last[copied:]
    assert ends > 10, "no tick came in time"
    guest.close()


def pattern(start: int, end: int) -> bytes:
    """What is on offer."""
    return (bytes(range(251)) * (end // 251 + 1))[start:end]
