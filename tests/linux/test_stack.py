"""The initial stack, against bytes put together by hand."""

from __future__ import annotations

import os
import struct

import pytest

from loadstone.errors import LinuxError
from loadstone.linux.exec.layout import Draws
from loadstone.linux.exec.stack import Arguments, lay_out

TOP = 0x7FFFFFFFF000
ORDER = (33, 16, 25, 31, 15, 99)


def random_bytes(count: int) -> bytes:
    return bytes(range(count))


def test_the_notes_example_by_hand() -> None:
    arguments = Arguments(b"/tmp/prog", [b"prog", b"123"], [b"HOME=/home/user", b"PATH=/usr/bin"], 8 << 20)
    stack = lay_out(arguments, TOP, {33: 0x1000, 16: 7}, ORDER, b"x86_64", random_bytes, None)
    strings = b"prog\x00123\0HOME=/home/user\0PATH=/usr/bin\0/tmp/prog\0" + bytes(8)
    start = TOP - len(strings)
    platform = (start & -16) - 7
    random = platform - 16
    execfn = TOP - 8 - 10
    auxv = struct.pack("<12Q", 33, 0x1000, 16, 7, 25, random, 31, execfn, 15, platform, 0, 0)
    table = struct.pack("<7Q", 2, start, start + 5, 0, start + 9, start + 25, 0)
    pointer = (random - len(auxv) - len(table)) & -16
    expected = table + auxv
    expected += bytes(random - pointer - len(expected)) + bytes(range(16)) + b"x86_64\0"
    expected += bytes(start - pointer - len(expected)) + strings
    assert stack.pointer == pointer
    assert stack.bytes == expected
    assert stack.auxv == ((33, 0x1000), (16, 7), (25, random), (31, execfn), (15, platform))
    assert (stack.argument_start, stack.environment_start, stack.environment_end) == (start, start + 9, start + 39)


def test_a_32_bit_program_by_hand() -> None:
    top = 0xFFFFE000
    arguments = Arguments(b"/a", [b"a"], [], 8 << 20)
    stack = lay_out(arguments, top, {16: 7}, (16, 25), b"i686", random_bytes, None, 4)
    start = top - 8 - 3 - 2
    random = (start & -16) - 5 - 16
    vector = struct.pack("<4I", 1, start, 0, 0) + struct.pack("<6I", 16, 7, 25, random, 0, 0)
    pointer = (random - len(vector)) & -16
    assert stack.pointer == pointer
    assert stack.bytes.startswith(vector)
    assert stack.bytes.endswith(b"a\0/a\0" + bytes(8))


@pytest.mark.parametrize("argv", [[], [b""], [b"a", b"", b"\xff"], [b"x" * 5000] * 3])
@pytest.mark.parametrize("draws", [None, Draws(3)])
def test_the_layout_covers_every_byte(argv: list[bytes], draws: Draws | None) -> None:
    arguments = Arguments(b"/bin/sh", argv, [b"A=1", b""], 8 << 20)
    stack = lay_out(arguments, TOP, {33: 1}, ORDER, b"x86_64", random_bytes, draws)
    address = stack.pointer
    for word in stack.layout():
        assert word.address == address
        data = stack.bytes[address - stack.pointer : address - stack.pointer + word.size]
        if word.what.endswith(" string"):
            assert data == os.fsencode(str(word.value)) + b"\0"
        elif isinstance(word.value, int):
            assert data == word.value.to_bytes(word.size, "little")
        address += word.size
    assert address == TOP
    assert stack.pointer % 16 == 0


def test_a_replaced_first_argument_leaves_its_bytes() -> None:
    arguments = Arguments(b"/s", [b"n" * 100, b"last"], [], 8 << 20)
    before = arguments.depth
    arguments.remove_first()
    assert arguments.depth == before - 101
    for string in (b"/s", b"/bin/sh"):
        arguments.push(string)
    assert arguments.strings() == [b"/bin/sh", b"/s", b"last"]
    assert arguments.low == before
    assert arguments.image.startswith(b"n" * (101 - 3 - 8) + b"/bin/sh\0/s\0last\0/s\0")
    arguments.push(b"m" * 200)
    assert arguments.low == arguments.depth == before - 101 + 3 + 8 + 201
    assert arguments.strings()[0] == b"m" * 200


def test_limits() -> None:
    Arguments(b"/x", [b"a" * 131071], [], 8 << 20)
    for argv, limit in (([b"a" * 131072], 8 << 20), ([b"a" * 100000] * 30, 8 << 20), ([b"a" * 100000] * 2, 0)):
        with pytest.raises(LinuxError) as error:
            Arguments(b"/x", argv, [], limit)
        assert error.value.name == "E2BIG"


def test_kernels_before_the_empty_argument_rule() -> None:
    assert Arguments(b"/x", [], [], 8 << 20, empty_argument=False).argument_count == 0
    assert Arguments(b"/x", [], [], 8 << 20).strings() == [b""]
