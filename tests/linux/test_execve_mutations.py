"""Damaged programs: the verdict, and for those that load the whole image, must be the kernel's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone.errors import LinuxError
from loadstone.verify.native import native_image
from loadstone.verify.native_exec import NativeFailure
from support.compilers import Compiler
from support.exec_world import HostWorld

PROGRAM = (
    "#include <stdio.h>\nchar zeros[300000]; int ones[2000] = {1}; int main(void) { return zeros[5] + ones[1]; }\n"
)
BARE = "char zeros[30000]; int ones[2000] = {1};\nvoid _start(void) { for (;;) ones[1] += zeros[2]; }\n"
KINDS = [("pie", PROGRAM), ("no-pie", PROGRAM), ("noseparate-code", PROGRAM), ("static", BARE), ("static-pie", BARE)]
FIELDS = [(0, 4), (4, 4), (8, 8), (16, 8), (32, 8), (40, 8), (48, 8)]  # of Elf64_Phdr, but for p_paddr
# fmt: off
VALUES = [
    0, 1, 2, 3, 4, 5, 6, 7, 0xFFF, 0x1000, 0x1001, 0x2000, 0x10000, 0x200000, 0x400000, 0x7FFFFFFF, 0x80000000,
    0xFFFFFFFF, 1 << 32, 1 << 34, 1 << 40, 0x555555554000, 0x7FFFFFFFEFFF, 0x7FFFFFFFF000, 1 << 47, (1 << 63) - 1,
    1 << 63, (1 << 64) - 4096, (1 << 64) - 1,
]
# fmt: on


def damage(data: bytes, choose: random.Random) -> tuple[bytes, str]:
    """One to three fields of the headers changed; and which."""
    result, said = bytearray(data), []
    table, count = int.from_bytes(data[32:40], "little"), int.from_bytes(data[56:58], "little")
    loads = [n for n in range(count) if data[table + 56 * n] == 1]
    for _ in range(choose.choice((1, 1, 1, 2, 3))):
        if choose.random() < 0.15:
            offset, size = choose.randrange(64), 1
        else:
            at, size = choose.choice(FIELDS)
            offset = table + 56 * choose.choice(loads if choose.random() < 0.8 else range(count)) + at
        old = int.from_bytes(result[offset : offset + size], "little")
        near = old + choose.choice((-4096, 4096, 1, -1, 16, 1 << 20, 1 << 24))
        flipped = old ^ 1 << choose.randrange(8 * size)
        drawn = choose.getrandbits(choose.choice((20, 32, 64)))
        new = choose.choice((choose.choice(VALUES), near, flipped, drawn)) & (1 << 8 * size) - 1
        result[offset : offset + size] = new.to_bytes(size, "little")
        said.append(f"byte {offset}: {old:#x} -> {new:#x}")
    return bytes(result), ", ".join(said)


def compare(world: HostWorld, path: str, what: str) -> None:
    try:
        native = native_image(path, [b"x"], [b"A=1"])
        verdict = "ok"
    except NativeFailure as failure:
        native, verdict = None, failure.name
    try:
        image = world.exec(path, [b"x"], [b"A=1"])
    except LinuxError as error:
        assert (what, f"signal {error.fatal_signal}" if error.fatal_signal else error.name) == (what, verdict)
        return
    assert (what, "ok") == (what, verdict)
    assert native is not None
    assert (what, image.space.render_maps()) == (what, native.maps)
    assert (what, image.auxv) == (what, native.auxiliary_vector)
    assert (what, image.brk, image.pointer) == (what, native.stat["start_brk"], native.stack_pointer)
    for key in ("start_code", "end_code", "start_data", "end_data"):
        assert (what, key, getattr(image, key)) == (what, key, native.stat[key])
    assert (what, image.registers) == (what, {key: native.registers[key] for key in image.registers})
    image.space.release()


@pytest.fixture
def world() -> Iterator[HostWorld]:
    here = HostWorld()
    yield here
    here.close()


def sweep(world: HostWorld, compiled: Compiler, directory: Path, seed: int, count: int) -> None:
    choose = random.Random(seed)
    programs = []
    for variant, text in KINDS:
        programs.append(Path(compiled(text, variant, *(["-nostdlib"] if text is BARE else []))).read_bytes())
    for number in range(count):
        path = directory / f"damaged{number}"
        data, what = damage(choose.choice(programs), choose)
        path.write_bytes(data)
        path.chmod(0o755)
        compare(world, str(path), what)
        path.unlink()
    usage = world.memory.usage()
    assert (usage["page table"], usage["anonymous"]) == (0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_headers(world: HostWorld, compiled: Compiler, tmp_path: Path, seed: int) -> None:
    sweep(world, compiled, tmp_path, seed, 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_damaged_headers(world: HostWorld, compiled: Compiler, tmp_path: Path, seed: int) -> None:
    sweep(world, compiled, tmp_path, seed, 1000)
