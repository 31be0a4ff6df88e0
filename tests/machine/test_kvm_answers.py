"""The code that answers reads in the guest is what its source says; the host believes no more than it offered."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone.linux.signal.signals import SA_KNOWN
from loadstone.machine import assembling, kvm_answers, kvm_entry, kvm_foreseen, kvm_kick, native_code
from loadstone.machine.core import EXCEPTION, INTERRUPTED, PAGE_FAULT, SLICE_END, SYSTEM_CALL, Trap
from loadstone.machine.kvm_answers import ReadAnswers
from loadstone.machine.kvm_tables import DOOR, SYSCALL_ENTRY
from loadstone.machine.paging import KERNEL_BASE as BASE
from loadstone.machine.physical import ANONYMOUS, FRAME_SIZE
from machine.bare import CODE, DATA, STACK_TOP, Bare
from machine.engines import maker
from machine.signals import BLOCK, GIVEN, KEPT, SET, SIGKILL_AND_SIGSTOP, UNBLOCK, Signals

SOURCE = Path(kvm_entry.__file__).with_name("entry.s").read_text()
FILE = 5
READ = "1: xor eax, eax; syscall; cmp rax, rdx; je 1b; ud2"


@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objcopy")), reason="gcc or objcopy is not installed")
@pytest.mark.skipif(not native_code.supported(), reason="it is x86-64 code")
def test_the_bytes_are_entry_s_assembled() -> None:
    code, symbols = assembling.assemble("entry.s")
    assert code == kvm_entry.CODE
    assert symbols.items() >= kvm_entry.LABELS.items()


def test_flags_of_actions_are_those_that_linux_knows() -> None:
    assert f".set SA_KNOWN, {SA_KNOWN:#x}" in SOURCE


def test_the_pages_and_words_are_where_the_source_has_them() -> None:
    constants = dict(re.findall(r"\.set (\w+), (?:data \+ )?(\w+)", SOURCE))
    assert int(constants["PAGES"], 0) == BASE + kvm_entry.DATA_PAGE * FRAME_SIZE - SYSCALL_ENTRY
    assert int(constants["BUFFER_PAGE"], 0) == (kvm_entry.BUFFER_PAGE - kvm_entry.DATA_PAGE) * FRAME_SIZE
    words = {"made": kvm_foreseen.MADE, "rows": kvm_foreseen.ROWS, "notes": kvm_foreseen.NOTES}
    words |= {"rows_of": kvm_foreseen.ROWS_OF, "old_rax": kvm_entry.OLD_RAX, "old_r11": kvm_entry.OLD_R11}
    assert {name: int(constants[name], 0) // 8 for name in words} == words
    assert int(constants["MOST_MADE"]) == kvm_foreseen.MOST_MADE >= len(kvm_foreseen.FORMS)
    assert int(constants["CALLS"]) == kvm_foreseen.CALLS > max(form[0] for form in kvm_foreseen.FORMS)
    assert 8 << int(constants["ROW_SIZE_SHIFT"]) == 64 * kvm_foreseen.ROW_WORDS
    assert 8 << int(constants["NOTE_SIZE_SHIFT"]) == 64 * kvm_foreseen.NOTE_WORDS
    for name in (
        "END", "TAKEN", "ONE_READ", "USER_END", "OLD_RCX", "OLD_RSI", "OLD_RDI", "OLD_RSP", "SIGNALS_OPEN",
        "BLOCKED", "BLOCKABLE", "MASK_CALLS", "ACTION_CALLS", "ACTIONS_CHANGED", "ACTIONS",
    ):  # fmt: skip
        assert int(constants[name.lower()], 0) == 8 * getattr(kvm_entry, name)
    assert kvm_entry.DESCRIPTOR == 0
    assert len(kvm_entry.CODE) < FRAME_SIZE
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
        for _ in range(10):  # a tick may come between SYSCALL and its entry
            assert self.go("mov eax, 14; syscall").kind == SYSTEM_CALL  # of which more are expected then
            if self.core.machine.entry is not None:
                break
        if self.core.machine.entry is None:
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
    for place in (SYSCALL_ENTRY, SYSCALL_ENTRY + 0xFFF, BASE, BASE + 1, kvm_entry.LEAVE):
        trap = guest.go(f"mov rax, {place:#x}; mov ecx, {DATA:#x}; jmp rax")
        assert (trap.kind, trap.vector, guest.context.pc) == (EXCEPTION, PAGE_FAULT, place)


@pytest.mark.parametrize(
    "touch", ["mov bl, [rax]", "mov rbx, [rax + 8]", "movdqu xmm1, [rax]", "mov rbx, [rax - 4]", "mov [rax], bl",
              "mov [rax - 4], rbx", "add [rax], ebx"],
)  # fmt: skip
def test_the_way_out_is_a_fault_to_whoever_else_goes_there(guest: Answering, touch: str) -> None:
    """And then the program goes on, wherever the kernel has it go, with the registers that it had."""
    guest.go(READ)
    trap = guest.go(f"mov rax, {DOOR:#x}; mov ebx, 77; mov ecx, 88; movd xmm1, ecx; {touch}; ud2")
    assert (trap.kind, trap.vector) == (EXCEPTION, PAGE_FAULT)
    assert [guest.context.read(name) for name in ("rax", "rbx", "rcx", "rsp")] == [DOOR, 77, 88, STACK_TOP - 64]
    assert guest.go("movd ebx, xmm1; mov eax, 1; syscall").kind == SYSTEM_CALL
    assert guest.context.read("rbx") == 88


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


MASK_CALL = "mov eax, 14; mov r10d, 8; syscall; mov r12, rax; ud2"


def change(guest: Answering, how: int, new: int | None, *, old: int = DATA + 16, size: int = 8) -> Trap:
    if new is not None:
        guest.space.put(DATA, new.to_bytes(8, "little"))
    return guest.go(MASK_CALL.replace("r10d, 8", f"r10d, {size}"), rdi=how, rsi=DATA if new is not None else 0, rdx=old)


@pytest.mark.parametrize(
    ("how", "new", "mask"),
    [(BLOCK, 0b1100, 0b1110), (UNBLOCK, 0b0110, 0b1000), (SET, 1 << 63 | 1, 1 << 63 | 1), (BLOCK, None, 0b1010),
     (99, None, 0b1010), (SET, (1 << 64) - 1, (1 << 64) - 1 & ~SIGKILL_AND_SIGSTOP)],
)  # fmt: skip
def test_a_mask_is_changed_in_the_guest(guest: Answering, how: int, new: int | None, mask: int) -> None:
    masks = guest.core.signals = Signals(0b1010)
    trap = change(guest, how, new)
    if how > SET:  # left alone, for the kernel to say that there is nothing wrong with it
        assert (trap.kind, masks.mask_calls, masks.mask) == (SYSTEM_CALL, 0, mask)
        return
    assert trap.kind == EXCEPTION
    assert guest.context.read("r12") == 0
    assert (masks.mask_calls, masks.mask) == (1, mask)
    assert guest.space.bytes_at(DATA + 16, 8) == (0b1010).to_bytes(8, "little")
    assert [guest.context.read(name) for name in ("rdi", "rsi", "rdx")] == [
        how,
        DATA if new is not None else 0,
        DATA + 16,
    ]


@pytest.mark.parametrize("how", [3, 1 << 31, (1 << 32) - 1])
def test_a_strange_change_of_a_mask_leaves(guest: Answering, how: int) -> None:
    masks = guest.core.signals = Signals(0b1010)
    assert change(guest, how, 1).kind == SYSTEM_CALL
    assert guest.context.system_call()[:5] == (14, how, DATA, DATA + 16, 8)
    assert (masks.mask_calls, masks.mask) == (0, 0b1010)


@pytest.mark.parametrize("place", [0x10000, DATA + 2 * FRAME_SIZE - 4, BASE + 0x10000, (1 << 64) - 4])
def test_a_mask_that_cannot_be_read_or_written_leaves_as_the_call_was_made(guest: Answering, place: int) -> None:
    masks = guest.core.signals = Signals(0b1010)
    assert change(guest, SET, 1, old=place).kind == SYSTEM_CALL
    assert guest.context.system_call()[:5] == (14, SET, DATA, place, 8)
    assert guest.go(MASK_CALL, rdi=SET, rsi=place, rdx=DATA).kind == SYSTEM_CALL
    assert guest.context.system_call()[:5] == (14, SET, place, DATA, 8)
    assert guest.context.sp == STACK_TOP - 64
    assert (masks.mask_calls, masks.mask) == (0, 0b1010)


def test_a_mask_is_left_to_the_kernel_where_it_says_so(guest: Answering) -> None:
    masks = guest.core.signals = Signals(0)
    masks.open = False
    assert change(guest, SET, 1).kind == SYSTEM_CALL
    masks.open = True
    assert change(guest, SET, 1, size=4).kind == SYSTEM_CALL
    assert (masks.mask_calls, masks.mask) == (0, 0)


def test_ticks_change_no_mask_and_no_register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is answered once or made once, with the flags and registers that it was made with."""
    monkeypatch.setattr(kvm_kick, "TICK_NS", 200_000)
    guest = Answering()
    masks = guest.core.signals = Signals(0)
    guest.space.put(DATA, (1).to_bytes(8, "little"))
    rounds, left = 20_000, 0
    # Turn bit 0 on and off by turns; the old mask, the result, registers and flags say whether that went well.
    trap = guest.go(
        f"mov r15d, {rounds}; xor r14d, r14d; mov r10d, 8; "
        "1: mov edi, r14d; cmp r14d, 2; pushf; pop rbx; mov eax, 14; syscall; pushf; pop rcx; "
        "xor ecx, ebx; and ecx, 0xad5; jne 2f; test rax, rax; jne 2f; cmp [rdx], r14; jne 2f; cmp edi, r14d; jne 2f; "
        "xor r14d, 1; dec r15d; jne 1b; 2: ud2",
        rdx=DATA + 16, rdi=0,
    )  # fmt: skip
    while trap.kind in (SYSTEM_CALL, SLICE_END, INTERRUPTED):
        if trap.kind == SYSTEM_CALL:  # what the kernel does
            left += 1
            number, how, new, old, size, *_ = guest.context.system_call()
            assert (number, new, old, size) == (14, DATA, DATA + 16, 8)
            guest.space.put(old, masks.mask.to_bytes(8, "little"))
            masks.mask = masks.mask | 1 if how == BLOCK else masks.mask & ~1
            guest.context.set_result(0)
        trap = guest.run()
    assert guest.context.read("r15") == 0
    assert masks.mask_calls + left == rounds
    assert left > 10, "no tick came in time"
    guest.close()


ACTION_CALL = "mov eax, 13; mov r10d, 8; syscall; mov r12, rax; ud2"
ACT, OLD_ACT = DATA + 64, DATA + 128


def act(guest: Answering, number: int, *, new: int = ACT, old: int = OLD_ACT) -> Trap:
    guest.space.put(ACT, struct.pack("4Q", *GIVEN))
    guest.space.put(OLD_ACT, bytes(32))
    return guest.go(ACTION_CALL, rdi=number, rsi=new, rdx=old)


@pytest.mark.parametrize("number", [1, 2, 33, 64])
def test_an_action_is_set_and_asked_for_in_the_guest(guest: Answering, number: int) -> None:
    signals = guest.core.signals = Signals(0)
    signals.set(number, [1, 2, 3, 4])
    neighbours = [signals.action(other) for other in range(1, 65) if other != number]
    assert act(guest, number).kind == EXCEPTION
    assert [guest.context.read(name) for name in ("r12", "rdi", "rsi", "rdx")] == [0, number, ACT, OLD_ACT]
    assert guest.space.bytes_at(OLD_ACT, 32) == struct.pack("4Q", 1, 2, 3, 4)
    assert (signals.action(number), signals.action_calls) == (KEPT, 1)
    assert [signals.action(other) for other in range(1, 65) if other != number] == neighbours
    assert act(guest, number, new=0).kind == EXCEPTION
    assert guest.space.bytes_at(OLD_ACT, 32) == struct.pack("4Q", *KEPT)
    assert act(guest, number, new=OLD_ACT, old=OLD_ACT).kind == EXCEPTION  # zeros, at the same place
    assert guest.space.bytes_at(OLD_ACT, 32) == struct.pack("4Q", *KEPT)
    assert (signals.action(number), signals.action_calls) == ([0, 0, 0, 0], 3)


def test_an_action_that_the_kernel_has_changed_is_seen(guest: Answering) -> None:
    signals = guest.core.signals = Signals(0)
    assert act(guest, 5).kind == EXCEPTION
    signals.set(5, [7, 0, 0, 0])
    assert act(guest, 5, new=0).kind == EXCEPTION
    assert guest.space.bytes_at(OLD_ACT, 32) == struct.pack("4Q", 7, 0, 0, 0)


@pytest.mark.parametrize(
    ("number", "new", "old"),
    [(0, ACT, OLD_ACT), (65, ACT, OLD_ACT), (9, ACT, OLD_ACT), (19, 0, OLD_ACT), (1 << 31, ACT, 0), (5, 0x10000, 0),
     (5, DATA + 2 * FRAME_SIZE - 24, 0), (5, ACT, 0x10000), (5, ACT, DATA + 2 * FRAME_SIZE - 24), (5, ACT, BASE)],
)  # fmt: skip
def test_what_cannot_be_done_with_an_action_leaves_as_it_was_made(
    guest: Answering, number: int, new: int, old: int
) -> None:
    signals = guest.core.signals = Signals(0)
    signals.set(5, [1, 2, 3, 4])
    assert act(guest, number, new=new, old=old).kind == SYSTEM_CALL
    assert guest.context.system_call()[:5] == (13, number, new, old, 8)
    assert guest.context.sp == STACK_TOP - 64
    assert (signals.action(5), signals.action_calls) == ([1, 2, 3, 4], 0)


def test_ticks_lose_no_action(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signal 5 is given a handler that counts; each call says which one there was before."""
    monkeypatch.setattr(kvm_kick, "TICK_NS", 200_000)
    guest = Answering()
    signals = guest.core.signals = Signals(0)
    rounds, left = 20_000, 0
    trap = guest.go(
        f"mov r15d, {rounds}; xor r14d, r14d; mov r10d, 8; mov edi, 5; "
        "1: mov [rsi], r14; cmp r14d, 2; pushf; pop rbx; mov eax, 13; syscall; pushf; pop rcx; xor ecx, ebx; "
        "and ecx, 0xad5; jne 2f; test rax, rax; jne 2f; mov rax, r14; sub rax, 1; adc rax, 0; cmp [rdx], rax; jne 2f; "
        "inc r14d; dec r15d; jne 1b; 2: ud2",
        rsi=ACT, rdx=OLD_ACT,
    )  # fmt: skip
    while trap.kind in (SYSTEM_CALL, SLICE_END, INTERRUPTED):
        if trap.kind == SYSTEM_CALL:  # what the kernel does
            left += 1
            assert guest.context.system_call()[:5] == (13, 5, ACT, OLD_ACT, 8)
            guest.space.put(OLD_ACT, struct.pack("4Q", *signals.action(5)))
            signals.set(5, struct.unpack("4Q", guest.space.bytes_at(ACT, 32)))
            guest.context.set_result(0)
        trap = guest.run()
    assert guest.context.read("r15") == 0
    assert signals.action(5)[0] == rounds - 1
    assert signals.action_calls + left == rounds
    assert left > 10, "no tick came in time"
    guest.close()


class Calls:
    """A keeper of calls that are foreseen, which says yes and remembers."""

    def __init__(self, **answers: int) -> None:
        self.answers = [(getattr(kvm_foreseen, name), answer) for name, answer in answers.items()]
        self.may = True
        self.made: list[tuple[int, int, int]] = []

    def may_answer(self) -> bool:
        return self.may

    def foreseen(self) -> list[tuple[int, int]]:
        return self.answers

    def closes_quietly(self, descriptor: int) -> bool:
        return descriptor == 3

    def carry_out(self, number: int, first: int, second: int) -> None:
        self.made.append((number, first, second))


TWICE = "mov edi, 11; mov esi, 24; mov eax, {0}; syscall; mov r12, rax; mov eax, {0}; syscall; ud2"


@pytest.mark.parametrize(("name", "number"), [("GETPID", 39), ("SET_TID_ADDRESS", 218), ("SET_ROBUST_LIST", 273)])
def test_what_was_foreseen_is_answered_once(guest: Answering, name: str, number: int) -> None:
    calls = guest.core.calls = Calls(**{name: 4242})
    guest.context.is_new = True
    assert guest.go(TWICE.format(number)).kind == SYSTEM_CALL
    assert guest.context.read("r12") == 4242
    assert guest.context.system_call()[:3] == (number, 11, 24)
    assert calls.made == [(number, 11, 24)]


@pytest.mark.parametrize(
    ("name", "number"),
    [("BRK", 12), ("ARCH_PRCTL", 158), ("CLOSE", 3), ("GETTID", 39), ("GETPID", 336), ("GETPID", 39 | 1 << 32)],
)
def test_another_call_than_was_foreseen_leaves_as_it_was_made(guest: Answering, name: str, number: int) -> None:
    calls = guest.core.calls = Calls(**{name: 4242})
    guest.context.is_new = True
    assert guest.go(f"mov edi, 11; mov esi, 24; mov rax, {number}; syscall").kind == SYSTEM_CALL
    assert guest.context.system_call()[:3] == (number, 11, 24)
    assert calls.made == []


def test_a_file_just_opened_may_be_closed_in_the_guest(guest: Answering) -> None:
    """By the number it has, and until a call may have changed what that stands for."""
    calls = guest.core.calls = Calls(GETPID=1)
    guest.context.is_new = True
    text = "mov eax, 257; syscall; mov eax, r14d; syscall; mov edi, 3; mov eax, 3; syscall; ud2"
    for between, answered in ((5, True), (9, True), (33, False)):
        calls.made.clear()
        assert guest.go(text, r14=between, rsi=24).kind == SYSTEM_CALL
        guest.context.set_result(3)
        assert guest.run().kind == SYSTEM_CALL
        guest.context.set_result(0)
        assert (guest.run().kind == EXCEPTION, calls.made) == (answered, [(3, 3, 24)] if answered else [])


def test_ticks_lose_and_double_no_foreseen_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm_kick, "TICK_NS", 200_000)
    guest = Answering()
    calls = guest.core.calls = Calls(GETPID=4242)
    guest.context.is_new = True
    guest.go(TWICE.format(39))
    start, left = CODE, 0
    for _ in range(5000):
        calls.made.clear()
        guest.context.pc, guest.context.is_new = start, True
        trap = guest.run()
        while trap.kind in (SLICE_END, INTERRUPTED):
            trap = guest.run()
        assert guest.context.system_call()[:3] == (39, 11, 24)
        assert trap.kind == SYSTEM_CALL
        if calls.made:
            assert (calls.made, guest.context.read("r12")) == ([(39, 11, 24)], 4242)
        else:
            left += 1
    assert left < 1000
    guest.close()
