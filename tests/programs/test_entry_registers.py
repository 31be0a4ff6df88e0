"""What a program finds in its registers: at the first instruction, at its own entry point, and at main.

RDX is 0 from the kernel and `_dl_fini` from the dynamic linker: the ABI reserves it for a function to register with
atexit.
"""

from __future__ import annotations

import re

import pytest

from loadstone import Machine, explain
from loadstone.observe.maps import parse_maps
from loadstone.verify.native import native_image
from support.compilers import Compiler
from support.run import loadstone, same

ENVIRONMENT = ["HOME=/home/user", "PATH=/usr/bin"]


@pytest.mark.parametrize("variant", ["pie", "no-pie"])
def test_rdx_at_the_programs_entry_is_dl_fini(variant: str, compiled: Compiler) -> None:
    """A program without start code prints its registers and calls RDX, which runs its destructors: on both kernels."""
    program = compiled("entry", variant, "-nostartfiles")
    printed = same(program, "123", fixed_addresses=True).text
    assert printed.endswith("destructor\n")
    rdx = int(re.match(r"rdx ([0-9a-f]+) ", printed)[1], 16)  # type: ignore[index]
    with Machine() as machine:
        process = machine.spawn(program, [program, "123"], ENVIRONMENT)
        assert process.registers["rip"] == process.image.entry != process.image.program_entry
        assert process.registers["rdx"] == 0  # at the dynamic linker's entry
        assert process.run_until(process.image.program_entry)
        assert process.registers["rdx"] == rdx
        place = next(m for m in parse_maps(process.maps) if m.start <= rdx < m.end)
    assert "ld-linux" in place.path
    assert place.perms == "r-xp"


@pytest.mark.parametrize("variant", ["static", "static-pie", "musl-static"])
def test_without_a_dynamic_linker_it_stays_0(variant: str, compiled: Compiler) -> None:
    program = compiled("hello", variant)
    assert native_image(program, [program], ENVIRONMENT).registers["rdx"] == 0
    with Machine() as machine:
        process = machine.spawn(program, [program], ENVIRONMENT)
        assert process.image.entry == process.image.program_entry
        assert process.registers["rdx"] == 0
    assert "sees RDX 0" in loadstone("explain", program).text


def test_explain_tells_both(compiled: Compiler) -> None:
    text = " ".join(loadstone("explain", compiled("hello", "pie")).text.split())
    assert "RDX, which the ABI reserves for a function to register with atexit" in text
    assert "RDX holds its _dl_fini" in text
    assert re.search(r"rdx +0x0 ", text)


@pytest.mark.parametrize("program", ["pie", "no-pie", "static", "static-pie", "musl", "musl-static", "/bin/ls"])
def test_main_gets_what_explain_showed(program: str, compiled: Compiler) -> None:
    """RDI, RSI and RDX are argc, argv and envp, also in a stripped program, whose main is found by its start code."""
    path = program if program.startswith("/") else compiled("hello", program)
    image = explain(path, [path, "one", "2"], ENVIRONMENT)
    with Machine() as machine:
        process = machine.spawn(path, [path, "one", "2"], ENVIRONMENT)
        assert process.run_until("main")
        registers = process.registers
        assert (registers["rdi"], registers["rsi"], registers["rdx"]) == (image.argc, image.argv, image.envp)
        words = {word.address: word.value for word in image.layout if word.what.startswith(("argv[", "envp["))}
        pointers = {at: int.from_bytes(process.memory.read(at, 8), "little") for at in words if at < image.stack.top}
        strings = {at: value for at, value in words.items() if isinstance(value, int)}
        assert {at: pointers[at] for at in strings} == strings
    told = " ".join(loadstone("explain", path, "one", "2").text.split())
    assert "RDI 3, RSI 0x7ff" in told
