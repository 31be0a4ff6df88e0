"""Finds instructions that the Unicorn core would run wrongly: VEX and EVEX encodings other than BMI.

Unicorn 2 executes `vaddps` as the legacy `addps`, without a fault. So blocks of code that contain a byte C4 or C5 are
walked instruction by instruction; that needs only their lengths (Intel SDM vol. 2, appendix A, 64-bit mode).
"""

from __future__ import annotations

from collections.abc import Iterator

_VEX3, _VEX2, _EVEX = 0xC4, 0xC5, 0x62
_PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))

# One-byte opcodes: what follows. M = ModRM, b = 1 byte, w = 2 bytes, z = 4 bytes (2 with prefix 66), v = z or 8 with
# REX.W, o = an address of 8 bytes (4 with prefix 67), "" = nothing. Group 3 (F6, F7) has its immediate only for TEST.
_ALU = ("M", "M", "M", "M", "b", "z", "", "")
_FOLLOWS: tuple[str, ...] = (
    *(_ALU * 8),
    *("",) * 32,  # 40-5F: REX, PUSH, POP
    *("", "", "", "M", "", "", "", "", "z", "Mz", "b", "Mb", "", "", "", ""),
    *("b",) * 16,  # 70-7F: Jcc
    *("Mb", "Mz", "", "Mb", *("M",) * 12),
    *("",) * 16,  # 90-9F
    *("o", "o", "o", "o", "", "", "", "", "b", "z", "", "", "", "", "", ""),
    *(*("b",) * 8, *("v",) * 8),
    *("Mb", "Mb", "w", "", "", "", "Mb", "Mz", "wb", "", "w", "", "", "b", "", ""),
    *("M", "M", "M", "M", "", "", "", "", *("M",) * 8),
    *(*("b",) * 8, "z", "z", "", "b", "", "", "", ""),
    *(*("",) * 6, "M", "M", *("",) * 6, "M", "M"),
)
_TWO_BYTE_PLAIN = frozenset(
    (5, 6, 7, 8, 9, 11, *range(0x30, 0x38), 0x77, 0xA0, 0xA1, 0xA2, 0xA8, 0xA9, 0xAA, *range(0xC8, 0xD0))
)
_TWO_BYTE_IMMEDIATE = frozenset((0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6))

# VEX instructions that Unicorn runs right, by (map, opcode): BMI1 and BMI2 (ANDN, BLS*, BZHI/PEXT/PDEP, MULX, BEXTR/SHLX/.., RORX).
_BMI = frozenset(((2, 0xF2), (2, 0xF3), (2, 0xF5), (2, 0xF6), (2, 0xF7), (3, 0xF0)))


# Opcodes that end a translated block: Jcc, RET, CALL, JMP, LOOP, INT, HLT, indirect CALL and JMP.
_ENDS_BLOCK = frozenset(
    (*range(0x70, 0x80), 0xC2, 0xC3, 0xCA, 0xCB, 0xCC, 0xCD, 0xCF, *range(0xE0, 0xE4), 0xE8, 0xE9, 0xEB, 0xF4, 0xFF)
)


def find_vex(code: bytes) -> int:
    """The offset of the first VEX or EVEX instruction in `code` that is not BMI, or -1.

    `code` begins at an instruction; a last one that is cut off is not looked at.
    """
    for start, opcode_at in _instructions(code):
        if code[opcode_at] in (_VEX3, _VEX2, _EVEX) and not _is_bmi(code, opcode_at):
            return start
    return -1


def first_block(code: bytes) -> bytes:
    """`code` up to the first instruction that transfers control; that one need not be whole."""
    for _, opcode_at in _instructions(code):
        rex = code[opcode_at] & 0xF0 == 0x40
        if code[opcode_at + rex] in _ENDS_BLOCK:
            return code[: opcode_at + 2]
    return code


def _instructions(code: bytes) -> Iterator[tuple[int, int]]:
    """(offset, offset of what follows the legacy prefixes) of each instruction."""
    at = 0
    try:
        while at < len(code):
            start = at
            while code[at] in _PREFIXES:
                at += 1
            yield start, at
            at = _after_vex(code, at) if code[at] in (_VEX3, _VEX2, _EVEX) else _length(code, start, at)
    except IndexError:
        return


def _after_vex(code: bytes, at: int) -> int:
    """The offset behind a BMI instruction; those of map 3 have an immediate byte."""
    return _after_modrm(code, at + 4) + (code[at + 1] & 31 == 3)


def _is_bmi(code: bytes, at: int) -> bool:
    return code[at] == _VEX3 and (code[at + 1] & 31, code[at + 3]) in _BMI


def _length(code: bytes, start: int, at: int) -> int:
    """The offset behind the instruction whose legacy prefixes are code[start:at]."""
    wide = code[at] & 0xF8 == 0x48
    if code[at] & 0xF0 == 0x40:  # REX
        at += 1
    opcode = code[at]
    at += 1
    if opcode == 0x0F:
        return _two_byte(code, at)
    group_register = code[at] >> 3 & 7 if opcode in (0xF6, 0xF7) else -1
    for item in _FOLLOWS[opcode]:
        if item == "M":
            at = _after_modrm(code, at)
        elif item == "b":
            at += 1
        elif item == "w":
            at += 2
        elif item == "o":
            at += 4 if 0x67 in code[start:at] else 8
        elif item == "v" and wide:
            at += 8
        else:
            at += 2 if 0x66 in code[start : at - 1] else 4
    if 0 <= group_register < 2:
        at += 1 if opcode == 0xF6 else (2 if 0x66 in code[start:at] else 4)
    return at


def _two_byte(code: bytes, at: int) -> int:
    opcode = code[at]
    at += 1
    if opcode == 0x38:
        return _after_modrm(code, at + 1)
    if opcode == 0x3A:
        return _after_modrm(code, at + 1) + 1
    if opcode & 0xF0 == 0x80:  # Jcc rel32
        return at + 4
    if opcode in _TWO_BYTE_PLAIN:
        return at
    return _after_modrm(code, at) + (opcode in _TWO_BYTE_IMMEDIATE)


def _after_modrm(code: bytes, at: int) -> int:
    """The offset behind a ModRM byte at `at`, its SIB byte and displacement."""
    modrm = code[at]
    at += 1
    mode, base = modrm >> 6, modrm & 7
    if mode == 3:
        return at
    if base == 4:
        base = code[at] & 7
        at += 1
    if mode == 1:
        return at + 1
    return at + 4 if mode == 2 or base == 5 else at
