"""One page of a file, mapped twice: as code and as data (`-z noseparate-code`).

Both page-table entries point at the frame of the page cache until the first write splits it. Asked of our page tables,
and of the kernel's through /proc/PID/pagemap of the same program run natively.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone import Machine
from support.compilers import Compiler
from support.run import ENVIRONMENT

PAGE = 4096
FRAME = ((1 << 52) - 1) & ~0xFFF
WRITABLE, DIRTY = 2, 0x40
PRESENT = 1 << 63  # of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst)
FILE_PAGE = 1 << 61


@pytest.fixture(scope="module")
def program(compiled: Compiler) -> str:
    options = "-static -nostdlib -fno-stack-protector -fcf-protection=none -Wl,--build-id=none"
    return compiled("twice", "noseparate-code", *options.split(), "-Wl,-Tdata=0x401800")


class Native:
    """The program on the host's kernel; stands still while it waits for a byte."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=dict(ENVIRONMENT)
        )

    def read(self, length: int) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read(length)

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"x")

    def pagemap(self, address: int) -> int:
        with open(f"/proc/{self.process.pid}/pagemap", "rb") as file:
            return int(struct.unpack("<Q", os.pread(file.fileno(), 8, address // PAGE * 8))[0])


@pytest.fixture
def native(program: str) -> Iterator[Native]:
    made = Native(program)
    yield made
    made.process.kill()
    made.process.communicate()


def test_the_kernel_has_one_page_until_the_first_write(native: Native) -> None:
    code, data = struct.unpack("<QQ", native.read(16))
    assert (code, data) == (0x400000, 0x401800)
    first, second = native.pagemap(code), native.pagemap(data)
    assert first & PRESENT and second & PRESENT
    assert first & FILE_PAGE and second & FILE_PAGE
    frames = (first & (1 << 55) - 1, second & (1 << 55) - 1)
    if frames[0]:  # numbers are shown to root only
        assert frames[0] == frames[1]
    native.go_on()
    assert native.read(1) == b"T"
    second = native.pagemap(data)
    assert second & PRESENT and not second & FILE_PAGE  # its own, anonymous now
    exclusive = 1 << 56  # mapped once only: that has become true
    assert native.pagemap(code) == first | exclusive


def map_counts(machine: Machine) -> dict[int, int]:
    """How often each frame of the program's file is mapped."""
    [space] = machine.kernel.page_cache.spaces
    vma = space.find(0x400000)
    assert vma is not None and vma.backing is not None
    return machine.kernel.page_cache.map_counts(vma.backing, 0, 1)


def test_ours_has_one_frame_until_the_first_write(program: str) -> None:
    with Machine(fault_around=PAGE) as machine:
        faults: list = []
        machine.events.subscribe(faults.append, ["fault"])
        process = machine.spawn(program, [program], {})
        process.run_until("before_write")
        code, data = (process.page_table.entry(address) for address in (0x400000, 0x401000))
        assert code & 1 and data & 1
        assert code & FRAME == data & FRAME
        assert not data & WRITABLE
        frame = (code & FRAME) >> 12
        assert map_counts(machine) == {frame: 2}
        assert bytes(machine.physical.page(frame))[: os.path.getsize(program)] == Path(program).read_bytes()[:PAGE]

        before = len(faults)
        process.run_until("after_write")
        new = process.page_table.entry(0x401000)
        assert process.page_table.entry(0x400000) & FRAME == code & FRAME
        assert new & FRAME != code & FRAME
        assert new & WRITABLE and new & DIRTY
        assert map_counts(machine) == {frame: 1}
        assert [(f.address & ~0xFFF, f.cause) for f in faults[before:] if f.address < 0x402000] == [
            (0x401000, "copy-on-write")
        ]
        assert process.memory.read(0x401800, 4) == b"The "
        assert process.memory.read(0x400800, 4) == b"the "


def test_both_pages_go_back_when_the_process_ends(program: str) -> None:
    with Machine(fault_around=PAGE) as machine:
        process = machine.spawn(program, [program], {})
        process.run()
        usage = machine.physical.usage()
        assert usage.get("anonymous", 0) == 0
        assert usage.get("page table", 0) == 0
