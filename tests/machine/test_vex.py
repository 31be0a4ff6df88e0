"""The search for instructions that the Unicorn core would run wrongly: no VEX or EVEX is missed, BMI may pass."""

from __future__ import annotations

import ctypes
import random

import pytest

from loadstone.machine import native_code
from loadstone.machine.executable_page import ExecutablePage
from loadstone.machine.vex import find_vex
from machine.code import assemble, find, lengths, text_of

pytest.importorskip("capstone")

BMI = {"andn", "bextr", "blsi", "blsmsk", "blsr", "bzhi", "mulx", "pdep", "pext", "rorx", "sarx", "shlx", "shrx"}


def is_wrong(code: bytes, mnemonic: str) -> bool:
    """By capstone's name: AVX and AVX-512 instructions begin with v or k; VERR, VERW and VM* are none."""
    if mnemonic in BMI or (mnemonic.startswith(("verr", "verw", "vm")) and code[:1] == b"\x0f"):
        return False
    return mnemonic[0] in "vk" and any(byte in (0xC4, 0xC5, 0x62) for byte in code[:3])


def check(code: bytes) -> tuple[int, int]:
    """Compare every instruction by itself; how many there were of each kind."""
    wrong = right = 0
    for at, size, mnemonic in lengths(code):
        here = code[at : at + size]
        expected = 0 if is_wrong(here, mnemonic) else -1
        assert find_vex(here) == expected, f"{mnemonic} ({here.hex(' ')})"
        wrong += expected == 0
        right += expected == -1
    return wrong, right


def test_instructions_of_libcs_string_functions() -> None:
    code = text_of(find("libc.so.6"))[1][-300_000:]
    start = next(at for at, _, _ in lengths(code) if at >= 64)
    wrong, right = check(code[start:])
    assert wrong > 5000 and right > 20_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["libc.so.6", "libm.so.6", "bash", "python3"])
def test_instructions_of_whole_files(name: str) -> None:
    check(text_of(find(name))[1])


@pytest.mark.parametrize("text", [
    "vaddps xmm0, xmm1, xmm2", "vaddps ymm0, ymm1, ymm2", "vpaddd zmm0, zmm1, zmm2", "vzeroupper",
    "vmovdqu ymm8, [rsi]",
    "vpbroadcastb xmm0, xmm1", "vpshufd xmm0, xmm1, 3", "kmovd k1, eax", "vmovdqu8 ymm16{k1}, [rsi]",
    "vextracti128 xmm0, ymm1, 1",
    "vgatherdps xmm0, [rax + xmm1 * 4], xmm2", "vfmadd213sd xmm0, xmm1, xmm2", "vpinsrb xmm0, xmm1, [rax], 1",
])  # fmt: skip
def test_avx_is_found_behind_other_instructions(text: str) -> None:
    before = assemble("push rbp; mov rbp, rsp; mov eax, 0xc5c4c5c4; movdqu xmm0, [rdi + 0xc5]")
    assert find_vex(before + assemble(text) + b"\xc3") == len(before)
    assert find_vex(before) == -1


@pytest.mark.parametrize("text", [
    "andn eax, ebx, ecx", "blsr rax, rbx", "blsi eax, [rbx]", "blsmsk eax, ebx", "bzhi eax, ebx, ecx",
    "pext rax, rbx, rcx", "pdep rax, rbx, rcx", "mulx rax, rbx, rcx", "bextr eax, ebx, ecx",
    "shlx eax, ebx, ecx", "sarx eax, [rbx], ecx",
    "shrx rax, rbx, rcx", "rorx eax, ebx, 5",
])  # fmt: skip
def test_bmi_is_allowed(text: str) -> None:
    assert find_vex(assemble(text)) == -1


def test_an_instruction_that_is_cut_off_is_not_judged() -> None:
    code = assemble("vpaddd ymm0, ymm1, [rip + 0x11223344]")
    assert find_vex(code) == 0
    assert find_vex(code[:-1]) == -1


def some_code(choose: random.Random) -> bytes:
    """Up to forty bytes, of which many are prefixes, parts of opcodes or ModRM bytes with a SIB byte."""
    frequent = bytes.fromhex("c4 c5 62 0f 38 3a 66 67 f2 f3 48 40 41 f6 f7 44 84 04 05 25 8d e2 e3 77 f0 f5")
    return bytes(choose.choice(frequent) if choose.random() < 0.5 else choose.randrange(256) for _ in range(40))


@pytest.mark.skipif(not native_code.supported(), reason="the search is x86-64 code")
def test_the_machine_code_finds_what_the_python_code_does() -> None:
    choose = random.Random(1)
    page = ExecutablePage(native_code._CODE, near=0)
    address = page.address + native_code._OFFSETS["find_vex"]
    search = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_char_p, ctypes.c_long)(address)
    libc = text_of(find("libc.so.6"))[1]
    boundaries = [at for at, _, _ in lengths(libc[:50_000])]
    blocks = [libc[at : at + choose.randrange(1, 60)] for at in choose.choices(boundaries, k=2_000)]
    blocks += [some_code(choose)[: choose.randrange(41)] for _ in range(20_000)]
    # every opcode of both tables, with REX and without, and long enough for anything to follow it
    for start in (b"", b"\x0f", b"\x48", b"\x48\x0f", b"\x66", b"\x67", b"\x66\x48", b"\xc5\xf8", b"\xc4\xe3\x79"):
        blocks += [start + bytes((opcode, modrm)) + b"\x01" * 10 + b"\xc5\xf8\x28\xc1" * 9
                   for opcode in range(256) for modrm in (0x00, 0x05, 0x0C, 0x44, 0x80, 0xC1, 0xF0)]  # fmt: skip
    found = {"something": 0, "nothing": 0}
    for code in blocks:
        expected = find_vex(code)
        assert search(code, len(code)) == expected, code.hex(" ")
        found["nothing" if expected < 0 else "something"] += 1
    assert min(found.values()) > 3_000
    page.close()
