"""`prog 123` with HOME=/home/user and PATH=/usr/bin: the picture of the initial stack, word by word.

Three witnesses: what `explain --json` says, what the kernel puts there, and what the program itself finds in main.
"""

from __future__ import annotations

import json
import struct

import pytest

from loadstone.verify.native import NativeImage, native_image
from support.compilers import Compiler
from support.run import loadstone, native

ENVIRONMENT = {"HOME": "/home/user", "PATH": "/usr/bin"}
STRINGS = ["HOME=/home/user", "PATH=/usr/bin"]
# Auxiliary vector entries whose value the kernel draws, or that describe the CPU core that runs.
RANDOM, SYSINFO_EHDR, HWCAP, HWCAP2, MINSIGSTKSZ = (
    "AT_RANDOM",
    "AT_SYSINFO_EHDR",
    "AT_HWCAP",
    "AT_HWCAP2",
    "AT_MINSIGSTKSZ",
)


@pytest.fixture(scope="module", params=["pie", "static", "musl"])
def program(request: pytest.FixtureRequest, compiled: Compiler) -> str:
    return compiled("pictures", request.param)


@pytest.fixture(scope="module")
def kernels(program: str) -> NativeImage:
    return native_image(program, [program, "123"], STRINGS)


@pytest.fixture(scope="module")
def explained(program: str) -> dict:
    done = loadstone("explain", "--json", program, "123", env=ENVIRONMENT)
    assert done.status == 0, done.errors
    return json.loads(done.stdout)


def test_schema(explained: dict) -> None:
    assert explained["schema"] == "loadstone/image/1"
    wanted = {"path", "format", "isa", "interpreter", "entry", "start", "brk", "maps", "auxv", "stack", "registers"}
    assert wanted | {"segments", "sections", "stages"} <= set(explained)
    assert {"pointer", "top", "bytes", "layout"} <= set(explained["stack"])


def test_every_word_of_the_stack_is_the_kernels(explained: dict, kernels: NativeImage) -> None:
    stack = explained["stack"]
    assert (stack["pointer"], stack["top"]) == (kernels.stack_pointer, kernels.stack_top)
    ours, theirs = bytearray.fromhex(stack["bytes"]), bytearray(kernels.stack)
    assert len(ours) == len(theirs)
    random = {name: value for name, _, value in explained["auxv"]}[RANDOM] - stack["pointer"]
    ours[random : random + 16] = theirs[random : random + 16] = bytes(16)
    different = [
        hex(stack["pointer"] + at) for at in range(0, len(ours), 8) if ours[at : at + 8] != theirs[at : at + 8]
    ]
    assert not different


def test_layout_names_every_byte_once(explained: dict) -> None:
    """From the stack pointer to the top, without a gap and without an overlap."""
    stack = explained["stack"]
    at = stack["pointer"]
    for part in stack["layout"]:
        assert part["address"] == at, part
        assert part["size"] > 0 and part["what"]
        at += part["size"]
    assert at == stack["top"]


def test_words_are_what_the_layout_says(explained: dict, program: str) -> None:
    """argc, argv, NULL, envp, NULL, auxv, in this order, each pointing at its string."""
    stack = explained["stack"]
    data, base = bytes.fromhex(stack["bytes"]), stack["pointer"]

    def word(index: int) -> int:
        return struct.unpack_from("<Q", data, 8 * index)[0]

    def string(address: int) -> str:
        return data[address - base :].split(b"\0")[0].decode()

    assert base % 16 == 0
    assert word(0) == 2
    assert [string(word(1)), string(word(2)), word(3)] == [program, "123", 0]
    assert [string(word(4)), string(word(5)), word(6)] == [*STRINGS, 0]
    pairs = [(word(i), word(i + 1)) for i in range(7, 7 + 2 * len(explained["auxv"]), 2)]
    assert pairs == [(kind, value) for _, kind, value in explained["auxv"]]
    assert pairs[-1] == (0, 0)
    by_name = {name: value for name, _, value in explained["auxv"]}
    assert string(by_name["AT_EXECFN"]) == program
    assert string(by_name["AT_PLATFORM"]) == "x86_64"


def test_auxiliary_vector_maps_and_registers(explained: dict, kernels: NativeImage) -> None:
    ours = [(kind, value) for _, kind, value in explained["auxv"] if kind]
    assert ours == list(kernels.auxiliary_vector)
    assert [(m["start"], m["end"], m["perms"], m["offset"], m["path"]) for m in explained["maps"]] == [
        (m.start, m.end, m.perms, m.offset, m.path) for m in kernels.mappings
    ]
    theirs = {name: value for name, value in kernels.registers.items() if name in explained["registers"]}
    assert explained["registers"] == theirs
    assert explained["registers"]["rdx"] == 0  # nothing for atexit from the kernel


def pictured(text: str) -> tuple[list[int], dict[int, int], dict[int, str]]:
    """What the program printed: argc, argv, envp; its words; its strings."""
    head, *lines = text.splitlines()
    words: dict[int, int] = {}
    strings: dict[int, str] = {}
    argc, argv, envp = head.split()
    count = (int(envp, 16) - int(argv, 16)) // 8 + 1
    for line in lines:
        address, _, value = line.partition(" ")
        at = int(address, 16)
        if at in words or at in strings or (len(words) > count and at < max(words)) or not _is_hex(value):
            strings[at] = value
        elif not words or at == max(words) + 8:
            words[at] = int(value, 16)
        else:
            strings[at] = value
    return [int(argc), int(argv, 16), int(envp, 16)], words, strings


def _is_hex(text: str) -> bool:
    return bool(text) and all(c in "0123456789abcdef" for c in text)


def test_main_sees_what_explain_showed(program: str, explained: dict) -> None:
    """At main, RDI, RSI and RDX are argc and the addresses that the picture has."""
    ran = loadstone("run", program, "123", env=ENVIRONMENT)
    assert ran.status == 0, ran.errors
    (argc, argv, envp), words, strings = pictured(ran.text)
    base, data = explained["stack"]["pointer"], bytes.fromhex(explained["stack"]["bytes"])
    assert (argc, argv, envp) == (2, base + 8, base + 32)
    assert list(strings.values()) == [program, "123", *STRINGS]
    own_cpu = {kind for name, kind, _ in explained["auxv"] if name in (HWCAP, HWCAP2, MINSIGSTKSZ)}
    previous = 0
    for address, value in words.items():
        if address > base + 56 and previous in own_cpu:
            previous = 0
            continue  # the core that runs may differ from the host's CPU: FORMATS, "Image"
        assert value == struct.unpack_from("<Q", data, address - base)[0], hex(address)
        previous = value if address >= base + 56 and (address - base - 56) % 16 == 0 else 0


def test_the_native_program_prints_the_same_picture(program: str, explained: dict) -> None:
    wanted = native(program, "123", env=ENVIRONMENT, fixed_addresses=True)
    (argc, argv, envp), words, strings = pictured(wanted.text)
    base, data = explained["stack"]["pointer"], bytes.fromhex(explained["stack"]["bytes"])
    assert (argc, argv, envp) == (2, base + 8, base + 32)
    assert list(strings.values()) == [program, "123", *STRINGS]
    for address, value in words.items():
        assert value == struct.unpack_from("<Q", data, address - base)[0], hex(address)
