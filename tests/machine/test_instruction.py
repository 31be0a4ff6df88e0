"""Lengths and memory operands of instructions, compared with capstone over real programs and over the opcode maps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from loadstone.machine.instruction import (
    LEGACY,
    LONGEST,
    VEX,
    decode,
    ending_jump,
    in_stack_segment,
    instructions,
    loaded_selector,
    loads_mxcsr,
    touched,
)
from machine.code import assemble, find, lengths, text_of

capstone = pytest.importorskip("capstone")

PAGE = 4096

# Where capstone says other than Intel's manual does in 64-bit mode: AMD's 3DNow! and SSE4a; the operand-size prefix on
# near branches (SDM vol. 2, Jcc: "operand size is forced to 64 bits"); the ModRM byte of UD0 and UD1; MOV to and from
# control registers, where only ring 0 cares.
NOT_INTEL = {"femms", "extrq", "insertq", "ud0", "ud1"}


def wrong_lengths(code: bytes) -> dict[str, tuple[str, int, int | None]]:
    """mnemonic -> the first instruction for which capstone gives another length, its length, ours."""
    wrong: dict[str, tuple[str, int, int | None]] = {}
    for at, size, mnemonic in lengths(code):
        found = decode(code, at)
        ours = found.end - at if found else None
        if ours != size:
            wrong.setdefault(mnemonic, (code[at : at + LONGEST].hex(" "), size, ours))
    return wrong


@pytest.mark.parametrize("name", ["ls", "cat", "ld-linux-x86-64.so.2"])
def test_lengths_in_programs(name: str) -> None:
    assert wrong_lengths(text_of(find(name))[1]) == {}


def test_lengths_in_a_part_of_libc() -> None:
    """From the middle on are the string functions, with VEX and EVEX encodings."""
    code = text_of(find("libc.so.6"))[1]
    part = code[-500_000:]
    start = next(at for at, _, _ in lengths(code[-500_064:]) if at >= 64) - 64  # an instruction's first byte
    assert wrong_lengths(part[start:]) == {}
    encodings = Counter(found.encoding for found in instructions(part[start : start + 400_000]))
    assert encodings[VEX] > 1000, "no AVX2 string functions here: the test would say nothing about VEX"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bash", "libc.so.6", "libm.so.6", "libstdc++.so.6", "python3", "gcc", "libncursesw.so.6"]
)
def test_lengths_in_large_programs(name: str) -> None:
    assert wrong_lengths(text_of(find(name))[1]) == {}


TAIL = bytes.fromhex("1122334455667788990a0b0c0d0e")
MODRM = bytes.fromhex("00 04 05 44 80 84 c1 08 10 18 20 28 30 38 d8 f9")
PREFIXES = [bytes.fromhex(text) for text in ("", "66", "f2", "f3", "67", "48", "66 48", "64", "f0")]


def legacy_opcodes() -> Iterator[bytes]:
    prefixes_and_escapes = {
        0x0F,
        0x62,
        0xC4,
        0xC5,
        *b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3",
        *range(0x40, 0x50),
    }
    for opcode in range(256):
        if opcode not in prefixes_and_escapes:
            yield bytes([opcode])
        if opcode not in (0x0F, 0x38, 0x3A, *range(0x20, 0x24)):
            yield bytes([0x0F, opcode])
        yield bytes([0x0F, 0x38, opcode])
        yield bytes([0x0F, 0x3A, opcode])


def vex_opcodes() -> Iterator[bytes]:
    for opcode in range(256):
        for second in (0x78, 0x79, 0x7A, 0x7B, 0xFC, 0xFD, 0xFE, 0xFF):
            yield bytes([0xC5, second, opcode])
            for table in (1, 2, 3):
                yield bytes([0xC4, 0xE0 | table, second, opcode])
        for second in (0x7C, 0x7D, 0x7E, 0x7F, 0xFC, 0xFD, 0xFE, 0xFF):
            for table in (1, 2, 3, 5, 6):
                yield bytes([0x62, 0xF0 | table, second, 0x28, opcode])


def _compare(codes: Iterator[bytes]) -> int:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    known = 0
    for code in codes:
        for _, size, mnemonic, _ in engine.disasm_lite(code, 0, 1):
            near = code[0] == 0x66 and (mnemonic[0] == "j" or mnemonic in ("ret", "call"))
            if mnemonic in NOT_INTEL or near:
                continue
            known += 1
            found = decode(code)
            assert found is not None and found.end == size, f"{code[:size].hex(' ')} is {mnemonic} of {size} bytes"
    return known


def test_lengths_of_every_legacy_opcode() -> None:
    known = _compare(p + code + bytes([m]) + TAIL for code in legacy_opcodes() for p in PREFIXES for m in MODRM[::3])
    assert known > 20_000


def test_lengths_of_every_vex_and_evex_opcode() -> None:
    assert _compare(code + bytes([m]) + TAIL for code in vex_opcodes() for m in b"\xc1\x04\x44") > 4_000


def test_an_instruction_that_is_cut_off_is_none() -> None:
    code = assemble("mov rax, 0x1122334455667788")
    assert all(decode(code[:n]) is None or decode(code[:n]).end > n for n in range(10))  # type: ignore[union-attr]
    assert [found.end for found in instructions(code + b"\x48\xb8\x00")] == [10]
    assert decode(b"") is None
    assert decode(b"\x66" * 20) is None


def test_transfers_of_control() -> None:
    ends = "jmp rax; call rax; ret; je .; call .; jmp .; loop .; int3; syscall; ret 8; hlt; jrcxz ."
    goes_on = "mov eax, ebx; push rax; lea rax, [rip]; cmovz eax, ebx; nop; cpuid; setz al"
    assert all(found.transfers_control for found in instructions(assemble(ends)))
    assert not any(found.transfers_control for found in instructions(assemble(goes_on)))


# -- memory operands --------------------------------------------------------------------------------------------------

REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
NARROW = {f"e{name[1:]}": name for name in REGISTERS[:8]} | {f"r{n}d": f"r{n}" for n in range(8, 16)}


def _operand_address(instruction: object, memory: object, values: dict[str, int]) -> int:
    """What capstone's base, index, scale, displacement and segment come to."""

    def value(register: int) -> int:
        if not register:
            return 0
        name = instruction.reg_name(register)  # type: ignore[attr-defined]
        if name in ("rip", "eip"):
            return int(instruction.address + instruction.size)  # type: ignore[attr-defined]
        if name in ("riz", "eiz"):
            return 0
        return values[NARROW.get(name, name)]

    address = value(memory.base) + value(memory.index) * memory.scale + memory.disp  # type: ignore[attr-defined]
    address &= (1 << 32) - 1 if instruction.addr_size == 4 else (1 << 64) - 1  # type: ignore[attr-defined]
    segment = memory.segment  # type: ignore[attr-defined]
    if segment in (capstone.x86.X86_REG_FS, capstone.x86.X86_REG_GS):
        address += values["fs_base" if segment == capstone.x86.X86_REG_FS else "gs_base"]
    return address & (1 << 64) - 1


def _check_operands(code: bytes, base: int, every: int) -> Counter[str]:
    """Compare the memory operands of each `every`-th instruction, with random registers."""
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    randoms = random.Random(1)
    seen: Counter[str] = Counter()
    for number, (at, size, _) in enumerate(lengths(code)):
        if number % every:
            continue
        found = decode(code, at)
        assert found is not None
        if found.encoding != LEGACY:
            continue
        here = code[at : at + size]
        (instruction,) = engine.disasm(here, base + at, 1)
        values = {name: randoms.getrandbits(47) for name in (*REGISTERS, "fs_base", "gs_base")}
        for operand in instruction.operands:
            if operand.type != capstone.x86.X86_OP_MEM:
                continue
            address = _operand_address(instruction, operand.mem, values)
            ours = touched(here, base + at, address & -PAGE, values.__getitem__)
            assert ours == address, f"{instruction.mnemonic} {instruction.op_str} ({here.hex(' ')}): {ours:#x}"
            seen[instruction.mnemonic] += 1
    return seen


@pytest.mark.parametrize("name", ["ls", "ld-linux-x86-64.so.2"])
def test_memory_operands_in_programs(name: str) -> None:
    base, code = text_of(find(name))
    seen = _check_operands(code, base, every=5)
    assert sum(seen.values()) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bash", "libc.so.6", "libm.so.6"])
def test_memory_operands_in_large_programs(name: str) -> None:
    base, code = text_of(find(name))
    assert sum(_check_operands(code, base, every=1).values()) > 10_000


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("push rbx", "rsp - 8"),
        ("pushw 1", "rsp - 2"),
        ("push 0x1234567", "rsp - 8"),
        ("pushfq", "rsp - 8"),
        ("call .", "rsp - 8"),
        ("call rbx", "rsp - 8"),
        ("push fs", "rsp - 8"),
        ("enter 16, 0", "rsp - 8"),
        ("pop rbx", "rsp"),
        ("popfq", "rsp"),
        ("pop gs", "rsp"),
        ("ret", "rsp"),
        ("ret 8", "rsp"),
        ("leave", "rbp"),
        ("xlatb", "rbx + (rax & 255)"),
        ("lodsq", "rsi"),
        ("lodsb fs:[rsi]", "rsi + fs_base"),
        ("stosb", "rdi"),
        ("rep stosq", "rdi"),
        ("scasb", "rdi"),
        ("maskmovdqu xmm0, xmm1", "rdi"),
        ("movabs al, [0x1122334455667788]", "0x1122334455667788"),
        ("movabs [0x1122334455667788], rax", "0x1122334455667788"),
        ("mov eax, fs:[0x28]", "fs_base + 0x28"),
        ("mov eax, gs:[rbx + rcx * 8 - 4]", "gs_base + rbx + rcx * 8 - 4"),
        ("mov eax, [ebx + ecx]", "(rbx + rcx) & 0xffffffff"),
        ("mov eax, [r13 + r12 * 2]", "r13 + r12 * 2"),
        ("mov eax, [r12]", "r12"),
        ("mov eax, [0x7654321]", "0x7654321"),
        ("mov eax, [rip + 0x100]", "0x401000 + 6 + 0x100"),
        ("movb [rip + 0x100], 1", "0x401000 + 7 + 0x100"),
    ],
)
def test_memory_that_an_instruction_touches(text: str, address: str) -> None:
    randoms = random.Random(text)
    values = {name: randoms.getrandbits(40) << 3 for name in (*REGISTERS, "fs_base", "gs_base")}
    expected = eval(address, {}, values) & (1 << 64) - 1
    assert touched(assemble(text), 0x401000, expected & -PAGE, values.__getitem__) == expected


def test_a_movs_names_both_of_its_operands() -> None:
    values = {"rsi": 0x7000123, "rdi": 0x8000456}
    code = assemble("rep movsb")
    assert touched(code, 0, 0x7000000, values.__getitem__) == 0x7000123
    assert touched(code, 0, 0x8000000, values.__getitem__) == 0x8000456


def test_an_access_that_runs_into_the_page_is_the_pages_start() -> None:
    assert touched(assemble("mov rax, [rbx]"), 0, 0x8000, {"rbx": 0x7FFC}.__getitem__) == 0x8000


@pytest.mark.parametrize(
    ("text", "jump"),
    [("ret", (0, 8)), ("nop; ret 16", (1, 24)), ("call rax", (0, -8)), ("jmp [rsp - 64]", (0, 0)),
     ("inc qword ptr [rax]; call [rax + 8]", (3, -8)), ("jmp .", None), ("je .; ret", None), ("syscall; ret", None),
     ("push [rax]; add eax, 5; jmp r15", (5, 0))],
)  # fmt: skip
def test_the_jump_that_ends_a_block(text: str, jump: tuple[int, int] | None) -> None:
    assert ending_jump(assemble(text)) == jump


@pytest.mark.parametrize(
    ("text", "in_stack"),
    [("mov al, [rbp]", True), ("mov al, [rsp + 8]", True), ("mov al, [rax + rbp]", False), ("mov al, [r13]", False),
     ("mov al, [r12 + 8]", False), ("mov al, fs:[rbp]", False), ("push rax", True), ("pop rax", True), ("ret", True),
     ("call .", True), ("mov al, [rip + 8]", False), ("lodsb", False), ("leave", True), ("mov al, [8]", False)],
)  # fmt: skip
def test_whether_memory_is_in_the_stack_segment(text: str, in_stack: bool) -> None:
    """Intel SDM vol. 1, 3.4.2: SS for what is addressed by RSP or RBP as base, and for the stack itself."""
    assert in_stack_segment(assemble(text)) is in_stack


def test_the_selector_that_a_mov_loads() -> None:
    registers = {"rax": 0x1_0010, "r9": 0x44}
    assert loaded_selector(assemble("mov ds, eax"), registers.__getitem__) == 0x10
    assert loaded_selector(assemble("mov es, r9d"), registers.__getitem__) == 0x44
    assert loaded_selector(assemble("mov ds, [rax]"), registers.__getitem__) == 0


@pytest.mark.parametrize(
    ("text", "loads"),
    [("ldmxcsr [rsp]", True), ("vldmxcsr [rsp]", True), ("ldmxcsr fs:[r8d + 4]", True), ("stmxcsr [rsp]", False),
     ("fxsave [rsp]", False), ("wrfsbase rax", False), (".byte 0xf0, 0x0f, 0xae, 0x14, 0x24", False),
     (".byte 0x66, 0x0f, 0xae, 0x14, 0x24", False)],
)  # fmt: skip
def test_whether_mxcsr_is_loaded(text: str, loads: bool) -> None:
    assert loads_mxcsr(assemble(text)) is loads
