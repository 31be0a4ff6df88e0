"""The classic BPF machine, for which seccomp filters are written (net/core/filter.c, networking/filter.rst).

It has an accumulator A, an index register X and 16 words of memory, all of 32 bits and 0 at first. A program is a
sequence of instructions; it can jump only forward, so it ends after as many steps as it has instructions. It is kept as
the bytes that the kernel has, an array of `struct sock_filter`: code, jt, jf, k.

    code    15..8  7..4       3        2..0
            0      operation  operand  class      of ALU and JMP; the operand is k (0) or X (1)
            0      7..5 mode, 4..3 size           of LD and LDX

What a filter loads from is `struct seccomp_data`, as 32-bit words.
"""

from __future__ import annotations

from errno import EINVAL
from operator import add, and_, eq, floordiv, ge, gt, mul, or_, sub, xor
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Instruction = tuple[int, int, int, int]

INSTRUCTION = Struct("<HBBI")
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
DATA_SIZE = 64  # bytes of struct seccomp_data

# include/uapi/linux/bpf_common.h
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
_CLASS, _OPERATION, _X, _A = 0x07, 0xF0, 0x08, 0x10
_LD_WORD, _LD_MEMORY, _LD_LENGTH = 0x20, 0x60, 0x80  # mode and size; 0: k itself
_JA, _NEG, _TXA = JMP, ALU | 0x80, MISC | 0x80
_DIV_X = ALU | 0x30 | _X
_RET_K, _RET_A = RET, RET | _A
_MEMORY_WORDS = 16
_WORD = 0xFFFF_FFFF

_ALU: Mapping[int, Callable[[int, int], int]] = {
    0x00: add, 0x10: sub, 0x20: mul, 0x30: floordiv, 0x40: or_, 0x50: and_,
    0x60: lambda a, count: a << (count & 31), 0x70: lambda a, count: a >> (count & 31), 0xA0: xor,
}  # fmt: skip
_TESTS: Mapping[int, Callable[[int, int], object]] = {0x10: eq, 0x20: gt, 0x30: ge, 0x40: and_}
_SHIFTS = (ALU | 0x60, ALU | 0x70)
_TURNED = frozenset(JMP | test | operand for test in (0x10, 0x20, 0x30) for operand in (0, _X))

_JUMPS = frozenset(JMP | test | operand for test in _TESTS for operand in (0, _X))
_READS_MEMORY, _WRITES_MEMORY = (LD | _LD_MEMORY, LDX | _LD_MEMORY), (ST, STX)
# What seccomp_check_filter accepts
_ALLOWED = _JUMPS.union(
    (ALU | operation | operand for operation in _ALU for operand in (0, _X)),
    (LD, LDX, LD | _LD_WORD, LD | _LD_LENGTH, LDX | _LD_LENGTH, _NEG, _JA, MISC, _TXA, _RET_K, _RET_A),
    _READS_MEMORY,
    _WRITES_MEMORY,
)


# ------------------------------------------------------------------------------------------------ what is a program


def check(code: bytes) -> None:
    """Raise LinuxError(EINVAL) for what is no seccomp filter (bpf_check_classic, seccomp_check_filter)."""
    program = list(INSTRUCTION.iter_unpack(code))
    if not 0 < len(program) <= MOST_INSTRUCTIONS:
        raise LinuxError(EINVAL, f"a filter of {len(program)} instructions")
    for place, instruction in enumerate(program):
        if not _is_sound(instruction, len(program) - place - 1):
            raise LinuxError(EINVAL, f"instruction {place} of the filter: {instruction}")
    if program[-1][0] not in (_RET_K, _RET_A):
        raise LinuxError(EINVAL, "the filter does not end with a return")
    _check_memory(program)


def _is_sound(instruction: Instruction, following: int) -> bool:
    """Whether an instruction that `following` others follow can be executed, wherever it is reached from."""
    code, jt, jf, k = instruction
    if code in _JUMPS:
        return max(jt, jf) < following
    if code == _JA:
        return k < following
    if code == LD | _LD_WORD:
        return k < DATA_SIZE and not k & 3
    if code in _READS_MEMORY or code in _WRITES_MEMORY:
        return k < _MEMORY_WORDS
    if code in _SHIFTS:
        return k < 32
    return code in _ALLOWED and not (code == _DIV_X & ~_X and not k)


def _check_memory(program: list[Instruction]) -> None:
    """No word of memory is read that was not written on every way there (check_load_and_stores)."""
    everything = (1 << _MEMORY_WORDS) - 1
    written_at = [everything] * len(program)  # by the jumps that lead there
    written = 0
    for place, (code, jt, jf, k) in enumerate(program):
        written &= written_at[place]
        if code in _WRITES_MEMORY:
            written |= 1 << k
        elif code in _READS_MEMORY and not written >> k & 1:
            raise LinuxError(EINVAL, f"instruction {place} of the filter reads word {k}, which may not be written")
        elif code & _CLASS == JMP:
            for target in (k,) if code == _JA else (jt, jf):
                written_at[place + 1 + target] &= written
            written = everything  # nothing falls through


def converted_length(code: bytes) -> int:
    """Instructions of the extended BPF that the kernel makes of it, which its limits count (bpf_convert_filter)."""
    return 3 + sum(map(_converted, INSTRUCTION.iter_unpack(code)))


def _converted(instruction: Instruction) -> int:
    code, jt, jf, k = instruction
    if code in _JUMPS:
        loads_constant = not code & _X and k >> 31
        return 1 + loads_constant + bool(jf and (jt or code not in _TURNED))
    return {_RET_K: 2, _DIV_X: 5}.get(code, 1)


# ------------------------------------------------------------------------------------------------ running one


def run(program: bytes, data: Sequence[int]) -> int:
    """What a program that was checked returns, an unsigned 32-bit number.

    `data`: the 32-bit words it loads from. IndexError where it loads one that is not given.
    """
    a = x = at = 0
    memory = [0] * _MEMORY_WORDS
    decode, size = INSTRUCTION.unpack_from, INSTRUCTION.size
    while True:
        code, jt, jf, k = decode(program, at)
        at += size
        kind = code & _CLASS
        if kind == JMP:
            at += size * (k if code == _JA else jt if _TESTS[code & _OPERATION](a, x if code & _X else k) else jf)
        elif kind == LD:
            a = _load(code, k, data, memory)
        elif kind == RET:
            return a if code & _A else k
        elif kind == ALU:
            if code == _DIV_X and not x:
                return 0
            a = -a & _WORD if code == _NEG else _ALU[code & _OPERATION](a, x if code & _X else k) & _WORD
        elif kind == LDX:
            x = _load(code - LDX, k, data, memory)
        elif kind == MISC:
            a, x = (x, x) if code == _TXA else (a, a)
        else:
            memory[k] = a if kind == ST else x


def _load(code: int, k: int, data: Sequence[int], memory: list[int]) -> int:
    if code == _LD_WORD:
        return data[k >> 2]
    if code == _LD_MEMORY:
        return memory[k]
    return DATA_SIZE if code == _LD_LENGTH else k
