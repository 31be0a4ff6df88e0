"""Registrations of binfmt_misc: verdict, name and text against the real `register` file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone.binfmt.misc import MiscFormats, unescape
from loadstone.errors import LinuxError
from support.misc_kernel import MiscKernel


@pytest.fixture(scope="module")
def kernel() -> Iterator[MiscKernel]:
    made = MiscKernel()
    yield made
    made.close()


def nothing_to_open(path: bytes) -> object:
    return path


def register(text: bytes) -> tuple[str, bytes, bytes]:
    """What we make of a registration, in the words of MiscKernel.register."""
    formats = MiscFormats(256)
    try:
        formats.register(text, nothing_to_open)
    except LinuxError as error:
        return error.name, b"", b""
    return "ok", formats.formats[0].name, formats.formats[0].text()


def same(kernel: MiscKernel, text: bytes) -> str:
    """Ask both; the verdict."""
    native = kernel.register(text)
    if native[1]:
        assert kernel.write(native[1], b"-1") == "ok"
    assert register(text) == native, text
    return native[0]


ACCEPTED = [
    b":py:E::py::/usr/bin/python3:",
    b":py:E::py::/usr/bin/python3:\n",
    b":class:M::\\xca\\xfe\\xba\\xbe::/usr/bin/java:",
    b":jar:E::jar::/usr/bin/jexec:POC",
    b":qemu-i386:M:0:\\x7fELF\\x01\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\x03\\x00:"
    b"\\xff\\xff\\xff\\xff\\xff\\xfe\\xfe\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:"
    b"/usr/bin/qemu-i386:OC",
    b",a,M,4,x,,/i,",
    b"\0a\0M\0\0m\0\0/int\0",
    b":a:M:+7:x::/int:",
    b":a:M:-0:x::/int:",
    b":a:M:7\n:x::/int:",
    b":a:M::a\\\\x41::/int:",
    b":a:M::a\\n::/int:",
    b":a:M:255:x::/int:",
    b":a b\\x20:E::c::/int:CCPP",
    b":a:E:anything:c:anything:/int:",
    b":a:M:::x:/int:".replace(b":::", b":0:\\x00:").replace(b":x:", b":\\x01:"),
]

REFUSED = [
    b":a:M::x::/i",
    b":a:M:256:x::/int:",
    b":a:M:-1:x::/int:",
    b":a:M:0x1:x::/int:",
    b":a:M:99999999999:x::/int:",
    b":a:M:::/int/int:",
    b":a:M::xy:x:/int:",
    b":a:M::\\x4::/int:",
    b":a:M::\\xzz::/int:",
    b":a:X::x::/int:",
    b":a:ME::x::/int:",
    b":a/b:E::x::/int:",
    b":..:E::x::/int:",
    b"::E::x::/int::",
    b":a:E::x/y::/int:",
    b":a:E::::/int/int:",
    b":a:E::x:::::::",
    b":a:E::x::/int:X",
    b":a:E::x::/int:P ",
    b":a:E::x::/int:P\n\n",
    b":a:E::x::/in\0t:",
    b"PaPEPPxPP/intP",
    b":status:E::x::/int:",
    b":register:E::x::/int:",
    b":" + b"n" * 256 + b":E::x::/int:",
    b":a:E::x::/" + b"i" * 1910 + b":",
    b"short",
    b"",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_the_kernel_takes(kernel: MiscKernel, text: bytes) -> None:
    assert same(kernel, text) == "ok"


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_kernel_refuses(kernel: MiscKernel, text: bytes) -> None:
    assert same(kernel, text) != "ok"


def test_random_registrations(kernel: MiscKernel) -> None:
    rng = random.Random(20261122)
    verdicts = [same(kernel, mutated(rng)) for _ in range(4000)]
    assert verdicts.count("ok") > 400
    assert verdicts.count("EINVAL") > 400


def mutated(rng: random.Random) -> bytes:
    """A good registration with a few bytes changed, or fields put together at random."""
    if rng.random() < 0.5:
        text = bytearray(rng.choice(ACCEPTED + REFUSED[:22]))
        for _ in range(rng.randint(0, 3)):
            at = rng.randrange(len(text) + 1)
            what = rng.choice(
                [b"", b":", b"\\x41", b"\\", b"\0", b"\n", b"P", b"F"[:0], b"7", bytes([rng.randrange(256)])]
            )
            text[at : at + rng.randint(0, 1)] = what
        data = bytes(text)
    else:
        delimiter = rng.choice([b":", b":", b":", b",", b"\0", b"\n", b"|", b" ", b"\xff"])
        fields = [
            rng.choice([b"n", b"name", b"", b"a.b", b"\xe4"]),
            rng.choice([b"M", b"M", b"E", b"", b"m"]),
            rng.choice([b"", b"0", b"4", b"250", b"256", b"-0", b"+1", b" 1", b"1 ", b"1\n", b"01", b"-1"]),
            rng.choice([b"x", b"\\x00\\x01", b"ab\\x7f", b"", b"\\", b"\\\\", b"a\0b", b"e.x"]),
            rng.choice([b"", b"", b"\\xff\\x0f", b"abc", b"\\x00", b"x"]),
            rng.choice([b"/bin/sh", b"i", b"", b"/usr/bin/env"]),
            rng.choice([b"", b"P", b"O", b"C", b"PO", b"COP", b"p", b"\n", b"P\n"]),
        ]
        data = delimiter + delimiter.join(fields)
    # F opens the interpreter, which is another test's business; a delimiter that escapes can hide lets the kernel read
    # past its buffer.
    if data[:1] in b"\\x0123456789abcdefABCDEF":
        data = b":" + data[1:]
    return data.replace(b"F", b"f")


def test_commands(kernel: MiscKernel) -> None:
    text = b":one:E::one::/usr/bin/one:"
    for data in (b"0", b"1", b"0\n", b"1\n", b"", b"\n", b"2", b"-1\n", b"-1", b"-1 ", b"1 ", b"00", b"-1\n\n", b"x"):
        formats = MiscFormats(256)
        formats.register(text, nothing_to_open)
        assert kernel.register(text)[0] == "ok"
        assert answer(lambda data=data, formats=formats: formats.control_one(formats.formats[0], data)) == kernel.write(
            b"one", data
        )
        shown = [one.text() for one in formats.formats]
        assert shown == [kernel.read(name) for name in kernel.names() if name == b"one"]
        assert answer(lambda data=data, formats=formats: formats.control(data)) == kernel.write(b"status", data)
        assert (b"enabled\n" if formats.enabled else b"disabled\n") == kernel.read(b"status")
        assert [one.name for one in formats.formats] == [n for n in kernel.names() if n not in (b"status", b"register")]
        kernel.write(b"status", b"1")
        kernel.write(b"status", b"-1")


def answer(function) -> str:  # type: ignore[no-untyped-def]
    try:
        function()
    except LinuxError as error:
        return error.name
    return "ok"


def test_a_name_twice(kernel: MiscKernel, tmp_path: Path) -> None:
    formats = MiscFormats(256)
    for text in (b":one:E::one::/usr/bin/one:", b":one:E::two::/usr/bin/two:"):
        ours = answer(lambda text=text: formats.register(text, nothing_to_open))
        assert ours == kernel.register(text)[0]
    assert kernel.write(b"status", b"-1") == "ok"
    assert len(formats.formats) == 1


def test_escapes() -> None:
    assert unescape(b"\\x41\\x4\\x") == b"A\x04\\x"
    assert unescape(b"a\\\\x41\0rest") == b"a\\\\x41"
