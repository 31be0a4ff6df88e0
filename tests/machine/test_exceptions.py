"""The signal in which each instruction that a program must not execute ends, compared with the kernel."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from loadstone.machine.core import SYSTEM_CALL
from loadstone.machine.unicorn_core import UnicornCore
from machine.bare import Bare
from machine.code import assemble
from machine.engines import NAMES, maker
from support.compilers import Compiler
from support.run import loadstone, native

PRIVILEGED = """cli|sti|hlt|in al, 0x10|in eax, dx|out 0x10, al|out dx, eax|insb|rep insb|outsb|rep outsd|wrmsr|rdmsr
mov cr3, rax|mov rax, cr0|mov dr0, rax|lgdt [rsp]|lidt [rsp]|lldt ax|ltr ax|invlpg [rsp]|wbinvd|clts|swapgs|sysretq
rdpmc|mov ebx, [rsp]; in al, dx; mov ebx, 5; ret|xsetbv|invd|monitor|mwait|vmrun|getsec|rsm|clac|stac
mov rax, cr8|mov rcx, dr7|sti; nop|rep insb|outsb"""
TRAPS = """int3|int1|ud2|xor ecx, ecx; div ecx|mov eax, 0x80000000; cdq; mov ecx, -1; idiv ecx|.byte 0xcd, 3
.byte 0xcd, 4|.byte 0x06|.byte 0xea|.byte 0x0f, 0xff|.byte 0xf0, 0x90
pushfq; or dword ptr [rsp], 0x100; popfq; nop; nop|pushfq; or dword ptr [rsp], 0x4000; popfq; nop
pushfq; or dword ptr [rsp], 0x3000; popfq; pushfq; pop rax; and eax, 0x3000; ret|ud1 eax, eax|ud0 eax, eax
pushfq; and dword ptr [rsp], ~0x200; popfq; pushfq; pop rax; and eax, 0x200; ret|endbr64|enter 8, 0; leave
mov eax, 39; stc; std; syscall; pushfq; pop rax; cld; and eax, 0xcd5; ret
mov eax, 1000; stc; std; syscall; pushfq; pop rax; cld; and eax, 0xcd5; ret
mov eax, 1000; xor ecx, ecx; syscall; pushfq; pop rax; and eax, 0xcd5; ret
push 0x302; popfq; mov eax, 39; syscall; nop|push 0x302; popfq; mov eax, 1000; syscall; nop"""
ALIGNMENT_CHECK = """pushfq; or dword ptr [rsp], 0x40000; popfq; mov eax, [rsp + 1]
pushfq; or dword ptr [rsp], 0x40000; popfq; mov [rsp - 63], rax
pushfq; or dword ptr [rsp], 0x40000; popfq; mov al, [rsp + 1]; pushfq; and dword ptr [rsp], ~0x40000; popfq"""
SOFTWARE_INTERRUPTS = "|".join(
    f"int {n}" for n in (0, 1, 2, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 0x21, 255)
)
SELECTORS = (
    "mov ecx, 0; mov ss, ecx|mov ecx, 0x2b; mov ds, ecx; mov es, ecx|mov ecx, 0x33; mov ds, ecx|lsl eax, ecx|verr ax"
    "|mov eax, 7; mov ds, eax|mov eax, 0x10; mov ds, eax|mov eax, 0x40; mov es, eax|mov eax, 0x44; mov es, eax"
    "|mov eax, 0x2b; mov gs, eax|mov r9d, 0x18; mov ss, r9d"
)
ADDRESSES = """mov rax, 0x800000000000; mov al, [rax]|mov rax, 0x8000000000000000; mov [rax], al
mov rax, 0xffffffff81000000; mov al, [rax]|mov rax, 0xffffff8000000000; mov al, [rax]
mov rax, 0xffffff8000000000; mov [rax], al|mov rax, 0x1000000000; jmp rax|xor eax, eax; mov al, [rax]
mov eax, 8; cmpxchg [rax], ecx|xor esi, esi; mov ecx, 3; mov rdi, rsp; rep movsb
mov rax, 0xffffffffff600000; mov al, [rax]|mov rax, 0xffffffffffffffff; mov ax, [rax]
mov rsp, 0x800000000000; push rax|mov rsp, 0x800000000008; pop rax|mov rbp, 0x800000000000; mov al, [rbp]
mov r13, 0x800000000000; mov al, [r13]|mov rbp, 0x800000000000; mov al, fs:[rbp]
mov rsp, 0x900000000000; mov eax, [rsp + 2 * rcx]"""
JUMPS = """mov rax, 0x800000000000; jmp rax|mov rax, 0x8000000000000000; call rax
mov rax, 0x1234567812345678; push rax; ret
mov rax, 0x8000000000000000; push rax; ret 16|mov rax, 0x800000000000; mov [rsp - 64], rax; jmp [rsp - 64]
mov rax, 0xffffffff81000000; jmp rax|mov rax, 0xffffff8000000000; call rax|mov rax, 0xffffff8000000000; jmp rax
mov rax, 0xffffff800000f000; xor ecx, ecx; jmp rax
mov rax, 0xffffff8000000104; jmp rax|mov rax, 0xffffff8000000001; jmp rax|mov rax, 0x7fffffffffff; jmp rax
mov rax, 0x7ffffffff000; jmp rax|xor eax, eax; call rax|mov rax, 0xffffffff00000000; push rax; ret"""


@pytest.fixture(scope="module")
def program(compiled: Compiler) -> str:
    return compiled(Path(__file__).with_name("exceptions.c").read_text(), "pie")


GROUPS = {
    "privileged": PRIVILEGED, "traps": TRAPS, "software-interrupts": SOFTWARE_INTERRUPTS, "selectors": SELECTORS,
    "addresses": ADDRESSES, "jumps": JUMPS, "alignment-check": ALIGNMENT_CHECK,
}  # fmt: skip


@pytest.mark.parametrize("engine", NAMES)
@pytest.mark.parametrize("group", GROUPS)
def test_signals_of_instructions(group: str, engine: str, program: str) -> None:
    """Signal, si_code, si_addr, RIP, trap number and error code, as the kernel's, on both cores."""
    maker(engine)
    if (group, engine) == ("alignment-check", "unicorn"):
        pytest.skip("Unicorn does not check alignment, and says so: see the next test")
    group = GROUPS[group]
    texts = [text.strip() for line in group.split("\n") for text in line.split("|")]
    codes = [assemble(text).hex() for text in texts]
    wanted = native(program, *codes).text.splitlines()
    assert len(wanted) == len(codes), "the native program did not come to its end"
    got = loadstone("run", "--engine", engine, program, *codes)
    assert dict(zip(texts, got.text.splitlines(), strict=False)) == dict(zip(texts, wanted, strict=True)), got.errors


@pytest.mark.parametrize("engine", NAMES)
def test_a_program_that_steps_over_system_calls(engine: str, compiled: Compiler) -> None:
    """SYSCALL clears the trap flag: there is no trap behind it, and the call is made."""
    maker(engine)
    program = compiled(Path(__file__).with_name("steps.c").read_text(), "pie")
    wanted, got = native(program), loadstone("run", "--engine", engine, program)
    assert "hello\n6 -38 behind" in wanted.text
    assert (got.text, got.status) == (wanted.text, wanted.status), got.errors


def test_unicorn_says_that_it_does_not_check_alignment(program: str) -> None:
    got = loadstone("run", "--engine", "unicorn", program, assemble(ALIGNMENT_CHECK.splitlines()[0]).hex())
    assert (got.status, "signal" in got.text) == (125, False)
    assert "alignment checked (flag AC)" in got.errors
    assert "--engine kvm" in got.errors


def test_reserved_bits_of_mxcsr(program: str) -> None:
    """A general protection at the instruction. (Unicorn takes them.)"""
    maker("kvm")
    store = "sub rsp, 8; mov dword ptr [rsp], 0xffffffff; "
    codes = [
        assemble(store + load).hex()
        for load in ("ldmxcsr [rsp]", "vldmxcsr [rsp]", ".byte 0xf0, 0x0f, 0xae, 0x14, 0x24")
    ]
    wanted, got = native(program, *codes), loadstone("run", "--engine", "kvm", program, *codes)
    assert got.text == wanted.text
    assert wanted.text.count("signal 11 code 128") > 0 and wanted.text.count("signal 4 code 2") == 1


@pytest.mark.parametrize("engine", NAMES)
def test_what_has_no_answer_of_its_own(engine: str, program: str) -> None:
    """The 32-bit gates: `int 0x80` is refused with ENOSYS and counted, SYSENTER is SIGSEGV at the instruction.

    The kernel may run the first; it comes back from the second at an address cut to 32 bits, which is SIGSEGV as well.
    """
    maker(engine)
    codes = [assemble(text).hex() for text in ("mov eax, 20; int 0x80; neg eax; ret", "mov eax, 39; sysenter")]
    got = loadstone("run", "--engine", engine, program, *codes)
    first, second = (line.split(":", 1)[1] for line in got.text.splitlines())
    assert first == " returned 38"
    assert second == " signal 11 code 128 addr=0 rip=code+5 trap 13 error 0"
    assert "int 0x80 (i386 call 20)" in got.errors


def test_sysenter_does_not_execute(bare: Bare) -> None:
    """In a 64-bit program the kernel comes back at an address that is cut to 32 bits: SIGSEGV, as from here."""
    assert bare.exception("mov eax, 39; sysenter; ud2") == (13, 5)


def test_int_80_is_the_kernels_to_answer(bare: Bare) -> None:
    assert bare.exception("nop; int 0x80; ud2") == (0x80, 3)


def test_what_ran_behind_a_port_access_is_undone_in_the_registers(bare: Bare) -> None:
    assert bare.exception("mov ebx, 1; mov ecx, 2; in al, dx; mov ebx, 3; pop rcx; add rsp, 64") == (13, 10)
    assert (bare.context.read("rbx"), bare.context.read("rcx")) == (1, 2)
    assert bare.context.sp % 4096 == 4096 - 64


def test_the_tsc_is_the_kernels_to_answer(bare: Bare) -> None:
    assert bare.exception("nop; rdtsc") == (13, 1)
    assert bare.exception("nop; rdtscp") == (13, 1)


def test_the_tsc_may_be_the_hosts() -> None:
    bare = Bare(make=partial(UnicornCore, time_stamps=True))
    bare.core.cpu = 3
    assert "host-time-stamps" in bare.core.capabilities
    code = "rdtsc; mov ebx, eax; mov ebp, edx; rdtscp; mov esi, ecx; syscall"
    assert bare.start(code).kind == SYSTEM_CALL
    low, high, later, top = (bare.context.read(name) for name in ("rbx", "rbp", "rax", "rdx"))
    assert 0 < high << 32 | low < top << 32 | later
    assert bare.context.read("rsi") == 3, "RDTSCP names the CPU"
    bare.context.reset()
    assert bare.start(code).kind == SYSTEM_CALL
    assert bare.context.read("rsi") == 3, "after exec too"
    bare.core.cpu = 0
    assert bare.start(code).kind == SYSTEM_CALL
    assert bare.context.read("rsi") == 0
    bare.close()


def test_many_exceptions_after_one_another(bare: Bare) -> None:
    """Unicorn makes a double fault of a contributory exception that follows one which was never delivered."""
    pieces = [("xor ecx, ecx; div ecx", (0, 2)), ("hlt", (13, 0)), ("mov eax, 0x40; mov ds, eax", (13, 5)),
              ("cli", (13, 0)), ("in al, dx", (13, 0)), ("ud2", (6, 0)), ("int3", (3, 1)),
              ("int 13", (13, 0))]  # fmt: skip
    for _ in range(3):
        for text, expected in pieces:
            assert bare.exception(text) == expected, text


def test_iretq_and_far_return_to_the_same_ring(bare: Bare) -> None:
    frame = "lea rcx, [rip + 1f]; push 0x2b; push rsp; pushfq; push 0x33; push rcx; iretq; 1: ud2"
    assert bare.exception(frame)[0] == 6
    assert bare.exception("lea rcx, [rip + 1f]; push 0x33; push rcx; retfq; 1: ud2")[0] == 6
    assert bare.exception("push 0; push 0; push 0; push 0; push 0; iretq")[0] == 13
    assert bare.exception("lea rcx, [rip]; push 0x10; push rcx; retfq")[0] == 13
