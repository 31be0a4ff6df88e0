"""Two vCPUs over the same page tables: contexts go from one to the other, and both run at the same time.

That each sees the other's changes when they take turns is shown by test_invalidation.py, which runs on two as well.
"""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from loadstone.machine import kvm_kick
from loadstone.machine.core import EXCEPTION, INTERRUPTED, PAGE_FAULT, SLICE_END, SYSTEM_CALL, Trap
from loadstone.machine.kvm_core import KvmCore
from loadstone.machine.paging import FRAME_MASK
from loadstone.machine.physical import FRAME_SIZE
from loadstone.machine.shootdown import Shootdown
from machine.bare import CODE, DATA, Bare, R, W
from machine.engines import maker

LONG = 1 << 40  # nanoseconds: as long as it takes
PAGE = 0x4000_0000
POISON = 0xDEAD


class TwoVcpus(Bare):
    """A machine with a second core."""

    def __init__(self) -> None:
        super().__init__(make=maker("kvm"))
        self.second = KvmCore(self.memory, self.resolve, number=1, beside=self.core)
        self.shootdown = Shootdown(self.memory)
        for core in (self.core, self.second):
            self.shootdown.listen(core)

    def retarget(self, value: int) -> int:
        """Map a new frame that holds `value` at PAGE, and let the old one go, which is returned."""
        old = self.space.entry(PAGE)
        frame = self.space.map(PAGE, R | W)
        self.memory.words[frame * 512] = value
        self.shootdown.retire(self.space.page_table.root, PAGE, PAGE + FRAME_SIZE, [old])
        return (old & FRAME_MASK) >> 12

    def close(self) -> None:
        self.second.close()
        super().close()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoVcpus]:
    monkeypatch.setattr(kvm_kick, "TICK_NS", 300_000_000)  # a core stays in the guest, but for what the tests do
    made = TwoVcpus()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # threads that come out of the guest wait for Python no longer than that
    yield made
    sys.setswitchinterval(interval)
    made.close()


class InAThread:
    """A program on the second core, in a thread of its own, to its first trap that is no slice's end."""

    def __init__(self, two: TwoVcpus, text: str, **registers: int) -> None:
        two.load(text)
        context = two.second.new_context()
        context.pc = CODE
        for name, value in registers.items():
            context.write(name, value)
        self.context = context
        self.trap: Trap | None = None
        self._two = two
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while self.trap is None or self.trap.kind in (SLICE_END, INTERRUPTED):
            self.trap = self._two.second.run(self.context, self._two.space, LONG)

    def wait(self) -> Trap:
        """Its trap."""
        self._thread.join(30)
        assert not self._thread.is_alive(), "the second core does not come out of the guest"
        assert self.trap is not None
        return self.trap


def test_a_context_goes_from_core_to_core(two: TwoVcpus) -> None:
    """General registers, the base of FS, SSE state."""
    two.load(f"mov ebx, {DATA}; add eax, 1; add r15, 2; paddd xmm1, xmm2; movdqu [rbx], xmm1; rdfsbase r9; syscall")
    context, other = two.context, two.core.new_context()
    image = bytearray(context.save_fpu())
    image[192:208] = struct.pack("<4I", 1, 10, 100, 1000)
    context.load_fpu(bytes(image))
    context.write("fs_base", 0x1234000)
    for turn in range(1, 7):
        core = (two.core, two.second)[turn % 2]
        context.pc = other.pc = CODE
        assert core.run(context, two.space, LONG).kind == SYSTEM_CALL
        assert two.space.bytes_at(DATA, 16) == struct.pack("<4I", *(turn * n for n in (1, 10, 100, 1000)))
        assert (context.read("rax"), context.read("r15"), context.read("r9")) == (turn, 2 * turn, 0x1234000)
        if turn % 3 == 0:
            assert two.core.run(other, two.space, LONG).kind == SYSTEM_CALL
            assert other.read("r9") == 0


def test_both_run_at_once_and_share_memory(two: TwoVcpus) -> None:
    """Each waits for the other's word: neither comes to its end unless the other runs."""
    turns = 1000
    ping = (
        "1: mov rax, [rbx]; cmp rax, rcx; jne 1b; lea rax, [rcx + 1]; mov [rbx], rax; add rcx, 2; cmp rcx, rdx; jb 1b"
    )
    second = InAThread(two, ping + "; syscall", rbx=DATA, rcx=1, rdx=turns)
    two.context.pc = CODE
    for name, value in (("rbx", DATA), ("rcx", 0), ("rdx", turns)):
        two.context.write(name, value)
    trap = two.run(LONG)
    while trap.kind == SLICE_END:
        trap = two.run(LONG)
    assert (trap.kind, second.wait().kind) == (SYSTEM_CALL, SYSTEM_CALL)
    assert struct.unpack("<Q", two.space.bytes_at(DATA, 8)) == (turns,)


# Read a word again and again and copy it to another, until it is the last one or the poison.
SPIN = f"1: mov rax, [rbx]; mov [rdi], rax; cmp rax, rcx; je 2f; cmp rax, {POISON}; jne 1b; 2: syscall"


def watch_recycled_frames(two: TwoVcpus, turns: int = 100) -> int:
    """Retarget a page again and again while the other core reads it, and write into each frame that was let go.

    The value with which the other core ends: `turns`, the last, or POISON.
    """
    two.space.map(PAGE, R | W)
    seen = (two.space.entry(DATA) & FRAME_MASK) >> 3
    second = InAThread(two, SPIN, rbx=PAGE, rcx=turns, rdi=DATA)
    for turn in range(1, turns + 1):
        old = two.retarget(turn)
        two.memory.words[old * 512] = POISON
        while two.memory.words[seen] not in (turn, POISON):
            pass
    second.wait()
    return int(second.context.read("rax"))


def test_a_frame_is_let_go_only_when_the_running_core_has_forgotten_it(two: TwoVcpus) -> None:
    assert watch_recycled_frames(two) == 100


def test_the_test_sees_a_core_that_forgets_too_late(two: TwoVcpus) -> None:
    """As before, but what is reported waits until the core enters the guest the next time."""
    two.core.machine.invalidate = lambda _root, _start, _end, frames: two.core.stale.add(frames)  # type: ignore[method-assign]
    assert any(watch_recycled_frames(two) == POISON for _ in range(10))  # on a busy host not at the first try


@pytest.mark.parametrize("change", ["unmapped", "read-only"])
def test_a_right_that_is_taken_away_stops_the_running_core(two: TwoVcpus, change: str) -> None:
    frame = two.space.map(PAGE, R | W)
    second = InAThread(two, "1: mov [rbx], rcx; jmp 1b", rbx=PAGE, rcx=7)
    while two.memory.words[frame * 512] != 7:
        pass
    root = two.space.page_table.root
    if change == "unmapped":
        old = two.space.entry(PAGE)
        two.memory.words[two.space.page_table.find(PAGE)] = 0
        two.shootdown.retire(root, PAGE, PAGE + FRAME_SIZE, [old])
    else:
        two.space.map(PAGE, R, frame)
        two.shootdown.changed(root, PAGE, PAGE + FRAME_SIZE)
    two.memory.words[frame * 512] = 8
    trap = second.wait()
    assert (trap.kind, trap.vector, trap.failure.address) == (EXCEPTION, PAGE_FAULT, PAGE)
    assert two.memory.words[frame * 512] == 8, "it stored after the change"


def test_the_machine_lives_as_long_as_one_of_its_cores(two: TwoVcpus) -> None:
    before: Callable[[], dict[str, int]] = two.memory.usage
    two.core.close()
    two.load("mov eax, 5; syscall")
    context = two.second.new_context()
    context.pc = CODE
    assert two.second.run(context, two.space, LONG).kind == SYSTEM_CALL
    assert before()["reserved"] > 0
    two.second.close()
    assert before()["reserved"] == 0
    two.second.close = two.core.close = lambda: None  # type: ignore[method-assign]
