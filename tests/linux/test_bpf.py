"""The machine that seccomp filters are for, against the kernel's: which programs it takes, and what they return."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from pathlib import Path

from loadstone.errors import LinuxError
from loadstone.linux.seccomp import bpf
from support.compilers import Compiler
from support.run import native

SOURCE = Path(__file__).parent / "programs" / "bpf.c"
SYNC_FILE_RANGE = 277
ARGUMENTS = (1 << 32 | 2, 3, 0x8000_0000, 5)
# struct seccomp_data of the call that the C program makes; its address is not looked at
DATA = memoryview(struct.pack("<IIQ6Q", SYNC_FILE_RANGE, 0xC000_003E, 0, *ARGUMENTS, 0, 0)).cast("I")
KNOWN_WORDS = [offset for offset in range(0, 48, 4) if offset not in (8, 12)]
ERRNO, MOST_ERRNO = 0x0005_0000, 4095
ARITHMETIC = [0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0xA4]
TESTS = [0x15, 0x25, 0x35, 0x45]
VALUES = [0, 1, 2, 3, 5, 31, 32, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, SYNC_FILE_RANGE]

Program = list[tuple[int, int, int, int]]


def code_of(program: Iterable[tuple[int, int, int, int]]) -> bytes:
    """As an array of `struct sock_filter`."""
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def ask_kernel(program: str, filters: list[Program]) -> list[tuple[int, int]]:
    """(errno of attaching it or 0, errno of the call under it) of each."""
    feed = b"".join(struct.pack("<H", len(one)) + code_of(one) for one in filters)
    lines = native(program, stdin=feed).text.splitlines()
    return [(int(first), int(second)) for first, second in map(str.split, lines)]


def verdict(program: Program) -> int:
    """The errno with which ours refuses a program; 0: it is taken."""
    try:
        bpf.check(code_of(program))
    except LinuxError as error:
        return error.errno
    return 0


def any_program(source: random.Random) -> Program:
    """One that is mostly sound, with some instructions that are not."""
    codes = [0x20, 0x00, 0x01, 0x02, 0x03, 0x05, 0x07, 0x60, 0x61, 0x80, 0x81, 0x84, 0x87, 0x06, 0x16]
    codes += [code | operand for code in ARITHMETIC + TESTS for operand in (0, 8)]
    body: Program = []
    for _ in range(source.randrange(6)):
        code = source.choice(codes) if source.random() < 0.93 else source.randrange(0x200)
        k = source.choice([0, 1, 4, 15, 16, 31, 32, 60, 64]) if source.random() < 0.9 else source.getrandbits(32)
        body.append((code, source.randrange(4), source.randrange(4), k))
    last = (source.choice([0x06, 0x16]), 0, 0, 0x7FFF_0000) if source.random() < 0.95 else (0x00, 0, 0, 0)
    return [*body, last]


def computing_program(source: random.Random) -> Program:
    """One that is taken: it computes with the call's words, and returns twelve bits of the result as an errno."""
    body: Program = [(0x02, 0, 0, word) for word in range(4)]
    for _ in range(source.randrange(1, 12)):
        kind = source.randrange(8)
        if kind == 0:
            body.append((0x20, 0, 0, source.choice(KNOWN_WORDS)))
        elif kind == 1:
            body.append((source.choice([0x00, 0x01]), 0, 0, source.choice(VALUES)))
        elif kind == 2:
            body.append((source.choice([0x02, 0x03, 0x60, 0x61]), 0, 0, source.randrange(4)))
        elif kind == 3:
            body.append((source.choice([0x07, 0x87, 0x80, 0x81, 0x84]), 0, 0, 0))
        elif kind == 4:
            body.append((source.choice(TESTS) | source.choice([0, 8]), source.randrange(3), source.randrange(3),
                         source.choice(VALUES)))  # fmt: skip
        elif kind == 5:
            body.append((0x05, 0, 0, source.randrange(3)))
        else:
            code, operand = source.choice(ARITHMETIC), source.choice([0, 8])
            least, most = (0, 31) if code in (0x64, 0x74) else (1, 1 << 32)
            body.append((code | operand, 0, 0, min(max(source.choice(VALUES), least), most - 1)))
    folded = [
        (0x07, 0, 0, 0),
        (0x74, 0, 0, 12),
        (0xAC, 0, 0, 0),
        (0x54, 0, 0, 0xFFF),
        (0x44, 0, 0, ERRNO),
        (0x16, 0, 0, 0),
    ]
    return body + folded


def test_it_takes_what_the_kernel_takes(compiled: Compiler) -> None:
    source = random.Random(1)
    filters = [any_program(source) for _ in range(1200)]
    filters += [[(0x06, 0, 0, 0x7FFF_0000)] * count for count in (0, 1, 4096, 4097)]
    refused = [found for found, _ in ask_kernel(compiled(SOURCE.read_text(), "pie"), filters)]
    assert [verdict(program) for program in filters] == refused
    assert 200 < refused.count(0) < 1000


def test_programs_compute_what_they_compute_in_the_kernel(compiled: Compiler) -> None:
    source = random.Random(2)
    filters = [computing_program(source) for _ in range(1200)]
    answers = ask_kernel(compiled(SOURCE.read_text(), "pie"), filters)
    taken = [(program, errno) for program, (refused, errno) in zip(filters, answers, strict=True) if not refused]
    assert len(taken) > 1000
    for program, errno in taken:
        returned = bpf.run(code_of(program), DATA)
        if returned & 0xFFFF_0000 == ERRNO:  # a division by zero returns 0, which kills
            assert (returned & 0xFFFF) % (MOST_ERRNO + 1) == errno, program
        else:
            assert (returned, errno) == (0, -1), program
    assert len({errno for _, errno in taken}) > 40


def test_a_word_that_is_not_given_is_an_error() -> None:
    program = code_of([(0x20, 0, 0, 16), (0x16, 0, 0, 0)])
    assert bpf.run(program, DATA) == 2
    try:
        bpf.run(program, (SYNC_FILE_RANGE, 0))
    except IndexError:
        return
    raise AssertionError("it was loaded")


def test_lengths_are_those_of_the_kernels_own_programs() -> None:
    """By the rules of bpf_convert_filter: three instructions in front, two for each RET k, more for some jumps."""
    lengths = {
        ((0x06, 0, 0, 0),): 5,
        ((0x00, 0, 0, 0), (0x16, 0, 0, 0)): 5,
        ((0x15, 0, 1, 7), (0x06, 0, 0, 0), (0x06, 0, 0, 0)): 3 + 1 + 2 + 2,
        ((0x15, 1, 0, 0x8000_0000), (0x06, 0, 0, 0), (0x06, 0, 0, 0)): 3 + 2 + 2 + 2,
        ((0x45, 0, 1, 7), (0x06, 0, 0, 0), (0x06, 0, 0, 0)): 3 + 2 + 2 + 2,
        ((0x25, 1, 1, 7), (0x06, 0, 0, 0), (0x16, 0, 0, 0)): 3 + 2 + 2 + 1,
        ((0x3C, 0, 0, 0), (0x16, 0, 0, 0)): 3 + 5 + 1,
    }
    assert {program: bpf.converted_length(code_of(program)) for program in lengths} == lengths
