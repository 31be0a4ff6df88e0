"""The KVM core: registers, extended state, slices and kicks, breakpoints, and what it says when there is no KVM."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone.api import Machine
from loadstone.errors import HostError
from loadstone.machine import kvm_api, kvm_kick
from loadstone.machine.core import EXCEPTION, INTERRUPTED, SLICE_END, STOPPED_AT, SYSTEM_CALL
from loadstone.machine.kvm_kick import KICK
from loadstone.machine.kvm_tables import SYSCALL_ENTRY
from loadstone.machine.physical import RESERVED, PhysicalMemory
from machine.bare import CODE, DATA, Bare
from machine.code import assemble
from machine.engines import maker
from support.compilers import Compiler
from support.run import loadstone, native

LONG = 1 << 40  # nanoseconds: as long as it takes
VEX_LOAD = f"mov ebx, {DATA}; vmovdqu ymm3, [rbx]; syscall"


@pytest.fixture
def bare() -> Iterator[Bare]:
    made = Bare(make=maker("kvm"))
    yield made
    made.close()


def run_on(bare: Bare) -> int:
    """Go on to the next trap that is no slice's end; its kind."""
    trap = bare.run(LONG)
    while trap.kind == SLICE_END:
        trap = bare.run(LONG)
    return trap.kind


# -- registers --------------------------------------------------------------------------------------------------------


def test_a_system_call_stops_behind_the_instruction(bare: Bare) -> None:
    text = "mov eax, 1; mov edi, 2; mov esi, 3; mov edx, 4; mov r10d, 5; mov r8d, 6; mov r9, -1; syscall; nop; syscall"
    code = assemble(text, CODE)
    assert bare.start(text, LONG).kind == SYSTEM_CALL
    assert bare.context.system_call() == (1, 2, 3, 4, 5, 6, (1 << 64) - 1)
    assert bare.context.pc == CODE + code.index(b"\x0f\x05") + 2
    bare.context.set_result(-2)
    read = bare.context.read
    assert (read("rax"), read("rcx"), read("r11")) == ((1 << 64) - 2, bare.context.pc, read("eflags"))
    assert run_on(bare) == SYSTEM_CALL
    assert bare.context.pc == CODE + len(code)


def test_jumping_to_where_system_calls_arrive_is_none(bare: Bare) -> None:
    trap = bare.start(f"mov rax, {SYSCALL_ENTRY:#x}; xor ecx, ecx; jmp rax", LONG)
    assert (trap.kind, trap.failure.address) == (EXCEPTION, SYSCALL_ENTRY)


def test_jumping_there_right_after_a_system_call_is_none(bare: Bare) -> None:
    """RCX and R11 are as a system call leaves them; only that interrupts are on tells the jump apart.

    What is entered there goes on to where calls leave, so that this may be the address it is told with.
    """
    assert bare.start(f"syscall; mov rax, {SYSCALL_ENTRY:#x}; jmp rax", LONG).kind == SYSTEM_CALL
    trap = bare.run(LONG)
    while trap.kind == SLICE_END:
        trap = bare.run(LONG)
    assert (trap.kind, trap.failure.address & -4096) == (EXCEPTION, SYSCALL_ENTRY)


def test_a_triple_fault_ends_the_machine_with_a_sentence(bare: Bare) -> None:
    """No program can bring it about: the descriptor tables are out of its reach. Here they are wiped."""
    half = bare.core.machine.half
    idt = bare.memory.words[half.table * 512 + 1] >> 12 & 0xFFFFF
    bare.memory.page(idt)[:] = bytes(4096)
    with pytest.raises(HostError, match=r"KVM stopped at .*(triple fault|internal error)"):
        bare.start("ud2", LONG)


def test_bases_of_fs_and_gs_go_with_the_context(bare: Bare) -> None:
    bare.context.write("fs_base", DATA)
    other = bare.context.copy()
    other.write("fs_base", DATA + 0x1000)
    bare.load("mov rax, fs:[0]; rdfsbase rbx; mov ecx, 0x1234; wrgsbase rcx; syscall")
    bare.space.put(DATA, struct.pack("<Q", 1))
    bare.space.put(DATA + 0x1000, struct.pack("<Q", 2))
    for context, value in ((bare.context, 1), (other, 2), (bare.context, 1)):
        context.pc = CODE
        bare.run(LONG, context)
        assert context.read("rax") == value
        assert context.read("rbx") == context.read("fs_base") == DATA + 0x1000 * (value - 1)
        assert context.read("gs_base") == 0x1234


def test_exec_starts_with_nothing_in_any_register(bare: Bare) -> None:
    bare.load("mov eax, 5; wrgsbase rax; fld1; pcmpeqd xmm7, xmm7; syscall; vmovdqu [rbx], ymm3; fnstcw [rbx + 32]; "
              "stmxcsr [rbx + 36]; movdqu [rbx + 40], xmm7; fnstenv [rbx + 64]; syscall")  # fmt: skip
    bare.context.pc = CODE
    run_on(bare)
    at = bare.context.pc
    bare.context.reset()
    assert {name: value for name, value in bare.context.registers().items() if value} == {
        "cs": 0x33, "ss": 0x2B, "eflags": 0x202, "fcw": 0x37F, "mxcsr": 0x1F80,
    }  # fmt: skip
    bare.context.pc = at
    bare.context.write("rbx", DATA)
    run_on(bare)
    found = bare.space.bytes_at(DATA, 96)
    assert found[:32] == bytes(32) == found[40:56] + bytes(16)
    assert struct.unpack_from("<HxxI", found, 32) == (0x37F, 0x1F80)
    assert struct.unpack_from("<H", found, 72) == (0xFFFF,)  # the tag word: every x87 register is empty


def test_upper_halves_survive_a_switch_and_a_copy(bare: Bare) -> None:
    if bare.core.extended_size <= 512:
        pytest.skip("this CPU has no XSAVE")
    one, two = bytes(range(32)), bytes(range(100, 132))
    first, second = bare.context, bare.core.new_context()
    bare.load(VEX_LOAD + "; vmovdqu [rbx + 64], ymm3; syscall")
    for context, value in ((first, one), (second, two)):
        bare.space.put(DATA, value)
        context.pc = CODE
        bare.run(LONG, context)
    third = first.copy()
    for context, value in ((first, one), (second, two), (third, one)):
        bare.run(LONG, context)
        assert bare.space.bytes_at(DATA + 64, 32) == value


def test_sse_state_can_be_read_and_changed(bare: Bare) -> None:
    bare.start(
        f"mov ebx, {DATA}; pcmpeqd xmm1, xmm1; fld1; syscall; movdqu [rbx], xmm1; movdqu [rbx + 16], xmm2; syscall",
        LONG,
    )
    image = bytearray(bare.context.save_fpu())
    assert image[176:192] == b"\xff" * 16
    assert image[32:42] == struct.pack("<QH", 1 << 63, 0x3FFF)
    image[192:208] = bytes(range(16))
    bare.context.load_fpu(bytes(image))
    run_on(bare)
    assert bare.space.bytes_at(DATA, 32) == b"\xff" * 16 + bytes(range(16))


# -- slices and kicks -------------------------------------------------------------------------------------------------


@pytest.fixture
def not_for_ever() -> Iterator[None]:
    """A program that nothing ends would run on; the alarm gets the thread out of it."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("not_for_ever")
def test_an_endless_loop_ends_with_its_slice(bare: Bare) -> None:
    bare.load("1: inc rax; jmp 1b")
    bare.context.pc = CODE
    for _ in range(3):
        before, started, worked = bare.context.read("rax"), time.monotonic(), time.thread_time()
        assert bare.run(10_000_000).kind == SLICE_END
        assert time.monotonic() - started > 0.009
        assert time.thread_time() - worked < 1
        assert bare.context.read("rax") > before


@pytest.mark.usefixtures("not_for_ever")
@pytest.mark.parametrize("ticks", [True, False])
def test_interrupt_from_another_thread_ends_a_loop_at_once(
    bare: Bare, ticks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no tick comes to its help: the kick is enough."""
    if not ticks:
        monkeypatch.setattr(kvm_kick.Kicks, "pace", lambda kicks, budget: None)
    bare.load("jmp .")
    bare.context.pc = CODE
    timer = threading.Timer(0.05, bare.core.interrupt)
    timer.start()
    assert bare.run(LONG).kind == INTERRUPTED
    timer.join()


@pytest.mark.usefixtures("not_for_ever")
def test_an_interrupt_before_the_run_is_not_lost(bare: Bare) -> None:
    bare.load("jmp .")
    bare.context.pc = CODE
    bare.core.interrupt()
    assert bare.run(LONG).kind == INTERRUPTED
    assert bare.run(1_000_000).kind == SLICE_END


def test_a_core_runs_in_any_thread_and_leaves_the_signal_mask_alone(bare: Bare) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    kinds = []
    bare.load("jmp .")
    bare.context.pc = CODE

    def run() -> None:
        kinds.append(bare.run(5_000_000).kind)

    for _ in range(2):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(20)
        run()
    assert kinds == [SLICE_END] * 4
    bare.core.close()
    assert KICK not in signal.sigpending()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


TWO_IN_ONE_THREAD = """
import signal, time
from loadstone.machine.kvm_kick import KICK, Kicks
one, two = Kicks(), Kicks()
one.attach()
two.attach()
one.close()
end = time.thread_time() + 0.1
while time.thread_time() < end:
    pass
two.close()
print(KICK in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def test_the_timer_of_one_core_outlives_another_core_of_its_thread() -> None:
    done = subprocess.run([sys.executable, "-c", TWO_IN_ONE_THREAD], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n")


@pytest.mark.parametrize(("text", "vector"), [("int3; inc rax", 3), ("ud2", 6), (".byte 0xcd, 4; inc rax", 4)])
def test_no_exception_is_lost_to_a_kick(text: str, vector: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks every 0.15 ms hit every moment between an exception and its stub. KVM forgets an INT3 that is put off."""
    monkeypatch.setattr(kvm_kick, "TICK_NS", 150_000)
    monkeypatch.setattr(kvm_kick, "TICK_CLOCK", time.CLOCK_MONOTONIC)  # the kernel looks at CPU time each 4 ms only
    bare = Bare(make=maker("kvm"))
    bare.load(f"1: {text}; jmp 1b")
    bare.context.pc = CODE
    for count in range(2000):
        trap = bare.run(LONG)
        assert (trap.kind, trap.vector, bare.context.read("rax")) == (EXCEPTION, vector, count if vector != 6 else 0)
    bare.close()


def test_a_kick_never_stops_a_program_between_syscall_and_its_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a signal's frame would get the stub's address, and the program be killed on its return."""
    monkeypatch.setattr(kvm_kick, "TICK_NS", 150_000)
    bare = Bare(make=maker("kvm"))
    bare.load("1: inc rbx; syscall; jmp 1b")
    bare.context.pc = CODE
    calls = 0
    for _ in range(6000):
        calls += bare.run(0).kind == SYSTEM_CALL
        assert bare.context.pc < SYSCALL_ENTRY
    assert calls - 1 <= bare.context.read("rbx") <= calls + 1
    bare.close()


# -- breakpoints ------------------------------------------------------------------------------------------------------


def test_breakpoints_stop_before_the_instruction_each_time(bare: Bare) -> None:
    text = "mov ecx, 3; 1: nop; inc eax; dec ecx; jnz 1b; syscall"
    code = bare.load(text)
    here = CODE + code.index(b"\x90")
    bare.core.break_at(here)
    bare.context.pc = CODE
    for n in range(3):
        assert run_on(bare) == STOPPED_AT
        assert (bare.context.pc, bare.context.read("rax")) == (here, n)
        assert bare.space.bytes_at(CODE, len(code)) == code, "the breakpoint is seen outside"
    assert run_on(bare) == SYSTEM_CALL
    assert not bare.context.read("eflags") & 0x100
    bare.context.pc = CODE
    bare.core.unbreak(here)
    assert run_on(bare) == SYSTEM_CALL


@pytest.mark.parametrize("text", ["syscall", "pushfq; pop rax; syscall", "push 0x302; popfq; nop; syscall", "int3"])
def test_going_on_from_a_breakpoint_shows_the_program_no_trap_flag(bare: Bare, text: str) -> None:
    bare.core.break_at(CODE)
    assert bare.start(text, LONG).kind == STOPPED_AT
    trap = bare.run(LONG)
    if text == "int3":
        assert (trap.kind, trap.vector, bare.context.pc) == (EXCEPTION, 3, CODE + 1)
    elif "popfq" in text:  # its own trap flag is its own
        bare.core.unbreak(CODE)
        while trap.kind == SLICE_END:
            trap = bare.run(LONG)
        assert (trap.kind, trap.vector) == (EXCEPTION, 1)
    else:
        assert trap.kind == SYSTEM_CALL
        assert not (bare.context.read("rax") | bare.context.read("r11")) & 0x100


def test_a_frame_at_two_addresses_stops_at_one_of_them(bare: Bare) -> None:
    bare.load("nop; inc eax; syscall")
    alias = CODE + (1 << 30)
    entry = bare.space.entry(CODE)
    bare.memory.words[bare.space.page_table.slot(alias)] = entry
    bare.core.break_at(CODE)
    bare.context.pc = alias
    assert run_on(bare) == SYSTEM_CALL
    assert bare.context.read("rax") == 1
    bare.context.pc = CODE
    assert run_on(bare) == STOPPED_AT


def test_run_until_and_hooks(compiled: Compiler) -> None:
    program = compiled(
        "#include <stdio.h>\nint calls; __attribute__((noinline)) int work(int n) { return calls += n; }\n"
        "int main(void) { for (int n = 0; n < 5; n++) work(n); printf(\"%d\\n\", calls); return calls; }", "static"
    )  # fmt: skip
    maker("kvm")
    seen: list[int] = []
    with Machine(engine="kvm", memory=64 << 20) as machine:
        machine.hook("work", lambda process: seen.append(process.registers["rdi"]))
        process = machine.spawn(program)
        assert process.run_until("main")
        assert process.registers["rip"] == process.symbol("main")
        assert seen == []
        assert process.run().code == 10
    assert seen == [0, 1, 2, 3, 4]


# -- memory, structures, hosts without KVM ----------------------------------------------------------------------------


def test_memory_past_the_first_slot_is_reached(bare: Bare) -> None:
    with_more = Bare(frames=1 << 16, make=maker("kvm"))
    with_more.memory.allocate_run(50_000, RESERVED)  # 195 MiB
    with_more.space.allow(0x5000_0000, 4, 3)
    assert with_more.start("mov ebx, 0x50000000; mov [rbx], rbx; mov rax, [rbx]; syscall", LONG).kind == SYSTEM_CALL
    assert with_more.context.read("rax") == 0x5000_0000
    with_more.close()


def test_frames_of_the_core_come_back(bare: Bare) -> None:
    memory = PhysicalMemory(1 << 20)
    before = memory.usage()
    core = maker("kvm")(memory, lambda *_: None)
    assert 1_000 < core.exit_cost() < 50_000_000
    core.close()
    core.close()
    assert memory.usage() == before
    memory.close()


LAYOUT = r"""
#include <linux/kvm.h>
#include <stddef.h>
#include <stdio.h>
#define P(x) printf("%lu\n", (unsigned long)(x))
int main(void) {
    P(KVM_GET_API_VERSION); P(KVM_CREATE_VM); P(KVM_CHECK_EXTENSION); P(KVM_GET_VCPU_MMAP_SIZE);
    P(KVM_GET_SUPPORTED_CPUID); P(KVM_CREATE_VCPU); P(KVM_SET_USER_MEMORY_REGION); P(KVM_RUN); P(KVM_SET_MSRS);
    P(KVM_SET_CPUID2); P(KVM_SET_SIGNAL_MASK); P(KVM_GET_SREGS); P(KVM_GET_XSAVE); P(KVM_SET_XSAVE);
    P(KVM_GET_XCRS); P(KVM_SET_XCRS); P(KVM_ENABLE_CAP);
    P(offsetof(struct kvm_run, exit_reason)); P(offsetof(struct kvm_run, io));
    P(offsetof(struct kvm_run, kvm_valid_regs)); P(offsetof(struct kvm_run, kvm_dirty_regs));
    P(offsetof(struct kvm_run, s.regs.regs)); P(offsetof(struct kvm_run, s.regs.sregs));
    P(offsetof(struct kvm_run, s.regs.events)); P(sizeof(struct kvm_regs)); P(sizeof(struct kvm_sregs));
    P(KVM_CAP_SYNC_REGS); P(KVM_CAP_DISABLE_QUIRKS);
    return 0;
}
"""


def test_numbers_are_those_of_the_headers(tmp_path: Path) -> None:
    if not os.path.exists("/usr/include/linux/kvm.h"):
        pytest.skip("the kernel's headers are not installed")
    Path(tmp_path, "layout.c").write_text(LAYOUT)
    subprocess.run(["gcc", "-o", tmp_path / "layout", tmp_path / "layout.c"], check=True)
    wanted = [int(line) for line in subprocess.check_output([tmp_path / "layout"]).split()]
    k = kvm_api
    assert wanted == [
        k.GET_API_VERSION, k.CREATE_VM, k.CHECK_EXTENSION, k.GET_VCPU_MMAP_SIZE, k.GET_SUPPORTED_CPUID, k.CREATE_VCPU,
        k.SET_USER_MEMORY_REGION, k.RUN, k.SET_MSRS, k.SET_CPUID2, k.SET_SIGNAL_MASK, k.GET_SREGS, k.GET_XSAVE,
        k.SET_XSAVE, k.GET_XCRS, k.SET_XCRS, k.ENABLE_CAP, k.RUN_EXIT_REASON, k.RUN_DETAIL, k.RUN_VALID_REGS,
        k.RUN_DIRTY_REGS, k.RUN_REGS, k.RUN_SREGS, k.RUN_EVENTS, k.REGS_SIZE, k.SREGS_SIZE, k.CAP_SYNC_REGS,
        k.CAP_DISABLE_QUIRKS,
    ]  # fmt: skip


# -- programs ---------------------------------------------------------------------------------------------------------


def test_avx_state_across_a_signal(compiled: Compiler) -> None:
    maker("kvm")
    program = compiled("extended")
    wanted = native(program)
    if wanted.status == 77:
        pytest.skip("this CPU has no AVX2")
    got = loadstone("run", "--engine", "kvm", program)
    assert (got.text, got.status) == (wanted.text, wanted.status)
