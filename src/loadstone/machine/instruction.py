"""Just enough of x86-64 machine code: how long an instruction is, and which memory it touches.

The layout (Intel SDM vol. 2, 2.1 and appendix A, 64-bit mode):

    legacy prefixes | REX | opcode (1 byte, 0F xx, 0F 38 xx, 0F 3A xx) | ModRM | SIB | displacement | immediate
                    | VEX C5 xx or C4 xx xx, EVEX 62 xx xx xx in place of REX and escape bytes |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loadstone.lean import NamedTuple

ONE_BYTE, TWO_BYTE, MAP_38, MAP_3A = 0, 1, 2, 3
LEGACY, VEX, EVEX = 0, 1, 2
LONGEST = 15

_PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
_FS, _GS, _OPERAND_SIZE, _ADDRESS_SIZE = 0x64, 0x65, 0x66, 0x67
_OTHER_OPERATION = frozenset((0x66, 0xF0, 0xF2, 0xF3))  # prefixes by which an opcode may become another instruction

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
    *(*("b",) * 8, "d", "d", "", "b", "", "", "", ""),
    *(*("",) * 6, "M", "M", *("",) * 6, "M", "M"),
)
_TWO_BYTE_PLAIN = frozenset(
    (5, 6, 7, 8, 9, 11, *range(0x30, 0x38), 0x77, 0xA0, 0xA1, 0xA2, 0xA8, 0xA9, 0xAA, *range(0xC8, 0xD0))
)
_TWO_BYTE_IMMEDIATE = frozenset((0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6))

# Jcc, RET, CALL, JMP, LOOP, INT, HLT, indirect CALL and JMP: no instruction after these is in the same block.
_TRANSFERS = frozenset(
    (*range(0x70, 0x80), 0xC2, 0xC3, 0xCA, 0xCB, 0xCC, 0xCD, 0xCF, *range(0xE0, 0xE4), 0xE8, 0xE9, 0xEB, 0xF4, 0xFF)
)


class Instruction(NamedTuple):
    """One decoded instruction. Offsets are into the bytes it was decoded from; -1 for a part that it has not."""

    start: int
    end: int
    prefixes: bytes
    rex: int
    encoding: int  # LEGACY, VEX or EVEX
    map: int  # ONE_BYTE, TWO_BYTE, MAP_38, MAP_3A
    opcode: int
    modrm: int

    @property
    def transfers_control(self) -> bool:
        """Whether the instruction after it belongs to another block."""
        if self.map == TWO_BYTE:
            return self.opcode & 0xF0 == 0x80 or self.opcode in (0x05, 0x34)
        return self.map == ONE_BYTE and self.opcode in _TRANSFERS


def decode(code: bytes, start: int = 0) -> Instruction | None:
    """The instruction at `start`, or None where `code` ends before it does."""
    try:
        return _decode(code, start)
    except IndexError:
        return None


def instructions(code: bytes) -> Iterator[Instruction]:
    """One instruction after the other, as far as they are whole."""
    at = 0
    while (found := decode(code, at)) is not None and found.end <= len(code):
        yield found
        at = found.end


def _decode(code: bytes, start: int) -> Instruction:
    at = start
    while code[at] in _PREFIXES:
        at += 1
    prefixes = code[start:at]
    first = code[at]
    if first in (0xC4, 0xC5, 0x62):
        return _decode_vex(code, start, at, prefixes)
    rex = 0
    if first & 0xF0 == 0x40:
        rex = first
        at += 1
    opcode = code[at]
    at += 1
    if opcode == 0x0F:
        return _decode_two_byte(code, start, at, prefixes, rex)
    follows = _FOLLOWS[opcode]
    modrm = -1
    if follows[:1] == "M":
        modrm = at
        at = _after_modrm(code, at)
        follows = follows[1:]
        if opcode in (0xF6, 0xF7) and code[modrm] >> 3 & 7 < 2:
            follows = "b" if opcode == 0xF6 else "z"
    for item in follows:
        at += _immediate(item, prefixes, rex)
    return Instruction(start, at, prefixes, rex, LEGACY, ONE_BYTE, opcode, modrm)


def _immediate(item: str, prefixes: bytes, rex: int) -> int:
    """Bytes of one item of _FOLLOWS."""
    if item == "b":
        return 1
    if item == "w":
        return 2
    if item == "d":
        return 4
    if item == "o":
        return 4 if _ADDRESS_SIZE in prefixes else 8
    if item == "v" and rex & 8:
        return 8
    return 2 if _OPERAND_SIZE in prefixes and not rex & 8 else 4


def _decode_two_byte(code: bytes, start: int, at: int, prefixes: bytes, rex: int) -> Instruction:
    opcode = code[at]
    at += 1
    if opcode in (0x38, 0x3A):
        end = _after_modrm(code, at + 1) + (opcode == 0x3A)
        return Instruction(start, end, prefixes, rex, LEGACY, MAP_3A if opcode == 0x3A else MAP_38, code[at], at + 1)
    if opcode & 0xF0 == 0x80:  # Jcc rel32
        return Instruction(start, at + 4, prefixes, rex, LEGACY, TWO_BYTE, opcode, -1)
    if opcode in _TWO_BYTE_PLAIN:
        return Instruction(start, at, prefixes, rex, LEGACY, TWO_BYTE, opcode, -1)
    end = _after_modrm(code, at) + (opcode in _TWO_BYTE_IMMEDIATE)
    return Instruction(start, end, prefixes, rex, LEGACY, TWO_BYTE, opcode, at)


def _decode_vex(code: bytes, start: int, at: int, prefixes: bytes) -> Instruction:
    """VEX and EVEX: the inverted R, X, B bits are in the second byte; W and the map follow."""
    first, second = code[at], code[at + 1]
    rex = 0x40 | (second >> 5 & 7 ^ 7)
    if first == 0xC5:
        rex, table, opcode_at = 0x40 | (second >> 7 ^ 1) << 2, TWO_BYTE, at + 2
    elif first == 0xC4:
        table, opcode_at = second & 31, at + 3
    else:
        table, opcode_at = second & 7, at + 4
    opcode, modrm = code[opcode_at], opcode_at + 1
    immediate = table == MAP_3A or (table == TWO_BYTE and opcode in _TWO_BYTE_IMMEDIATE)
    end = modrm if table == TWO_BYTE and opcode == 0x77 else _after_modrm(code, modrm, first == 0x62) + immediate
    return Instruction(start, end, prefixes, rex, EVEX if first == 0x62 else VEX, table, opcode, modrm)


def _after_modrm(code: bytes, at: int, short: bool = False) -> int:
    """The offset behind the ModRM byte at `at`, its SIB byte and displacement (`short`: EVEX, where it is scaled)."""
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


# Instructions that read their memory operand and write it back. By opcode, with the ModRM /digits that do (None: all).
_SHIFTS = dict.fromkeys((0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3))
_MODIFY_ONE: dict[int, tuple[int, ...] | None] = {
    **dict.fromkeys(op + low for op in (0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30) for low in (0, 1)),  # ADD … XOR
    **dict.fromkeys((0x80, 0x81, 0x83), tuple(range(7))),  # the same with an immediate; /7 is CMP
    **dict.fromkeys((0x86, 0x87)),  # XCHG
    **_SHIFTS,
    **dict.fromkeys((0xF6, 0xF7), (2, 3)),  # NOT, NEG
    **dict.fromkeys((0xFE, 0xFF), (0, 1)),  # INC, DEC
}
_CALL_DIGIT, _JUMP_DIGIT = 2, 4  # of FF, CALL and JMP through ModRM
_MODIFY_TWO: dict[int, tuple[int, ...] | None] = {
    **dict.fromkeys((0xAB, 0xB3, 0xBB)),  # BTS, BTR, BTC
    0xBA: (5, 6, 7),
    **dict.fromkeys((0xA4, 0xA5, 0xAC, 0xAD)),  # SHLD, SHRD
    **dict.fromkeys((0xB0, 0xB1, 0xC0, 0xC1)),  # CMPXCHG, XADD
    0xC7: (1,),  # CMPXCHG8B, CMPXCHG16B
}


def modifies_memory(code: bytes) -> bool:
    """Whether the instruction reads a memory operand and writes it back, as `add %eax,(%rdi)` does."""
    found = decode(code)
    if found is None or found.encoding != LEGACY or found.modrm < 0 or code[found.modrm] >> 6 == 3:
        return False
    table = _MODIFY_ONE if found.map == ONE_BYTE else _MODIFY_TWO if found.map == TWO_BYTE else {}
    if found.opcode not in table:
        return False
    digits = table[found.opcode]
    return digits is None or code[found.modrm] >> 3 & 7 in digits


def loads_mxcsr(code: bytes) -> bool:
    """Whether the instruction is LDMXCSR or VLDMXCSR; some prefixes make another one of it (SDM vol. 2, table A-6)."""
    found = decode(code)
    if found is None or (found.map, found.opcode) != (TWO_BYTE, 0xAE) or found.encoding == EVEX:
        return False
    mode, digit = code[found.modrm] >> 6, code[found.modrm] >> 3 & 7
    return mode != 3 and digit == 2 and not _OTHER_OPERATION & set(found.prefixes)


class Jump(NamedTuple):
    """A jump to a computed address: the offset of its instruction, and what it has added to RSP."""

    start: int
    stack: int


def ending_jump(code: bytes) -> Jump | None:
    """The near RET, CALL or JMP to a computed address in which the block that `code` begins with ends, if it does."""
    for found in instructions(code):
        if found.map == ONE_BYTE and found.opcode in (0xC2, 0xC3):
            popped = int.from_bytes(code[found.end - 2 : found.end], "little") if found.opcode == 0xC2 else 0
            return Jump(found.start, 8 + popped)
        if found.map == ONE_BYTE and found.opcode == 0xFF:
            digit = code[found.modrm] >> 3 & 7
            if digit in (_CALL_DIGIT, _JUMP_DIGIT):
                return Jump(found.start, -8 if digit == _CALL_DIGIT else 0)
        elif found.transfers_control:
            break
    return None


# -- the memory that an instruction touches ---------------------------------------------------------------------------

ReadRegister = Callable[[str], int]
_REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
_MASK64 = (1 << 64) - 1

# Memory named by the opcode alone: through which register it is reached. PUSH and CALL write below RSP.
_IMPLICIT: dict[int, tuple[str, ...]] = {
    **dict.fromkeys((0xA4, 0xA5, 0xA6, 0xA7), ("rsi", "rdi")),  # MOVS, CMPS
    **dict.fromkeys((0xAA, 0xAB, 0xAE, 0xAF, 0x6C, 0x6D), ("rdi",)),  # STOS, SCAS, INS
    **dict.fromkeys((0xAC, 0xAD, 0x6E, 0x6F), ("rsi",)),  # LODS, OUTS
    **dict.fromkeys((*range(0x58, 0x60), 0x9D, 0xC2, 0xC3, 0xCA, 0xCB, 0xCF), ("rsp",)),  # POP, POPF, RET, IRET
    **dict.fromkeys((*range(0x50, 0x58), 0x68, 0x6A, 0x9C, 0xE8, 0xC8), ("push",)),  # PUSH, PUSHF, CALL, ENTER
    0xC9: ("rbp",),  # LEAVE
    0xD7: ("rbx",),  # XLAT, plus AL
}
_BIT_STRINGS = (0xA3, 0xAB, 0xB3, 0xBB)  # 0F xx: BT, BTS, BTR, BTC with the number of the bit in a register


def touched(code: bytes, pc: int, page: int, read: ReadRegister, page_size: int = 4096) -> int:
    """The address in `page` that the instruction at `pc` accesses first, as the CPU reports it in CR2.

    Args:
        code: the instruction's bytes, at most 15.
        page: the page that faulted; its own address is the answer for what runs into it from the page before, and
            where no operand fits.
        read: gives a register's value by name.
    """
    found = decode(code)
    if found is None:
        return page
    for address in _operands(found, code, pc, read):
        if address & -page_size == page:
            return address
    return page


def in_stack_segment(code: bytes) -> bool:
    """Whether the instruction's memory is in SS: addressed by RSP or RBP, or the stack itself (SDM vol. 1, 3.4.2)."""
    found = decode(code)
    if found is None or _FS in found.prefixes or _GS in found.prefixes:
        return False
    if found.modrm >= 0 and code[found.modrm] >> 6 != 3:
        mode, base = code[found.modrm] >> 6, code[found.modrm] & 7
        if base == 4:
            base = code[found.modrm + 1] & 7
        return not found.rex & 1 and (base == 4 or (base == 5 and mode != 0))
    if found.map == TWO_BYTE:
        return found.opcode in (0xA0, 0xA1, 0xA8, 0xA9)
    registers = _IMPLICIT.get(found.opcode, ()) if found.map == ONE_BYTE else ()
    return found.opcode == 0xFF or any(register in ("rsp", "push", "rbp") for register in registers)


def loaded_selector(code: bytes, read: ReadRegister) -> int:
    """The selector that a MOV from a general register to a segment register loads; 0 for any other instruction."""
    found = decode(code)
    if found is None or (found.map, found.opcode) != (ONE_BYTE, 0x8E) or code[found.modrm] >> 6 != 3:
        return 0
    return read(_REGISTERS[code[found.modrm] & 7 | (found.rex & 1) << 3]) & 0xFFFF


def _operands(found: Instruction, code: bytes, pc: int, read: ReadRegister) -> Iterator[int]:
    """The addresses of the memory operands."""
    base = read("fs_base") if _FS in found.prefixes else read("gs_base") if _GS in found.prefixes else 0
    mask = 0xFFFF_FFFF if _ADDRESS_SIZE in found.prefixes else _MASK64
    if found.modrm >= 0 and code[found.modrm] >> 6 != 3:
        effective = _effective(found, code, pc, read)
        if found.map == TWO_BYTE and found.opcode in _BIT_STRINGS:
            effective += _bit_offset(found, code, read)
        yield (base + (effective & mask)) & _MASK64
    width = 2 if _OPERAND_SIZE in found.prefixes else 8
    if found.map == ONE_BYTE:
        for register in _IMPLICIT.get(found.opcode, ()):
            yield _implicit(register, found.opcode, width, base, read)
        if 0xA0 <= found.opcode <= 0xA3:  # MOV with an absolute address
            yield base + int.from_bytes(code[found.end - (4 if mask != _MASK64 else 8) : found.end], "little")
        if found.opcode == 0xFF and code[found.modrm] >> 3 & 7 in (2, 3, 6):  # CALL, PUSH through ModRM
            yield (read("rsp") - width) & _MASK64
        if found.opcode == 0x8F:  # POP
            yield read("rsp")
    elif found.map == TWO_BYTE and found.opcode in (0xA0, 0xA8):  # PUSH FS, GS
        yield (read("rsp") - width) & _MASK64
    elif found.map == TWO_BYTE and found.opcode in (0xA1, 0xA9):  # POP FS, GS
        yield read("rsp")
    elif found.map == TWO_BYTE and found.opcode == 0xF7:  # MASKMOVDQU
        yield (base + read("rdi")) & _MASK64


def _bit_offset(found: Instruction, code: bytes, read: ReadRegister) -> int:
    """Where in the bit string of BT and its like the word with the bit is, in bytes (SDM vol. 1, figure 4-6)."""
    value = read(_REGISTERS[code[found.modrm] >> 3 & 7 | (found.rex & 4) << 1])
    bits = 64 if found.rex & 8 else 16 if _OPERAND_SIZE in found.prefixes else 32
    value = (value & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1)
    return value // bits * bits // 8


def _implicit(register: str, opcode: int, width: int, base: int, read: ReadRegister) -> int:
    if register == "push":
        return (read("rsp") - width) & _MASK64
    if opcode == 0xD7:
        return (base + read("rbx") + (read("rax") & 0xFF)) & _MASK64
    return (read(register) + (base if register == "rsi" else 0)) & _MASK64


def _effective(found: Instruction, code: bytes, pc: int, read: ReadRegister) -> int:
    """ModRM, SIB and displacement as an address (SDM vol. 2, tables 2-2 and 2-3)."""
    rex = found.rex
    modrm = code[found.modrm]
    mode, low = modrm >> 6, modrm & 7
    at = found.modrm + 1
    address = 0
    if low == 4:
        sib = code[at]
        at += 1
        index = (sib >> 3 & 7) | (rex & 2) << 2
        if index != 4:
            address = read(_REGISTERS[index]) << (sib >> 6)
        low = sib & 7
        absolute = low == 5 and mode == 0
    elif low == 5 and mode == 0:  # RIP-relative
        return pc + found.end + int.from_bytes(code[at : at + 4], "little", signed=True)
    else:
        absolute = False
    if not absolute:
        address += read(_REGISTERS[low | (rex & 1) << 3])
    size = 1 if mode == 1 else 4 if mode == 2 or absolute else 0
    return address + int.from_bytes(code[at : at + size], "little", signed=True)
