"""a.out programs as address spaces: what Linux 4.19 and 2.6.32 made of them, worked out by hand from their sources."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from errno import EINVAL, ENOMEM, EPERM
from pathlib import Path

import pytest

from loadstone.errors import LinuxError
from loadstone.linux.exec.new_image import ExecImage
from loadstone.linux.profile import RLIMIT_DATA, KernelProfile
from loadstone.memory.peek import peek
from support.aout import NMAGIC, OMAGIC, QMAGIC, ZMAGIC, aout
from support.exec_world import HostWorld
from support.run import loadstone

OLD = KernelProfile()._replace(has_aout=True, mmap_min_addr=0)
ARGUMENTS, ENVIRONMENT = [b"prog", b"123"], [b"HOME=/home/user", b"PATH=/usr/bin"]


@pytest.fixture
def world() -> Iterator[HostWorld]:
    here = HostWorld(OLD)
    yield here
    here.close()


@pytest.fixture
def program(tmp_path: Path) -> str:
    return str(tmp_path / "old")


def load(world: HostWorld, path: str, data: bytes) -> ExecImage:
    Path(path).write_bytes(data)
    os.chmod(path, 0o755)
    return world.exec(path, ARGUMENTS, ENVIRONMENT)


def areas(image: ExecImage) -> list[tuple[int, int, str, int]]:
    """(start, end, permissions, file offset or -1) of each VMA but the stack."""
    return [(vma.start, vma.end, vma.perms, vma.offset if vma.backing is not None else -1) for vma in image.space.vmas][
        :-1
    ]


def test_qmagic_is_mapped(world: HostWorld, program: str) -> None:
    file = aout(QMAGIC, b"T" * (8192 - 32), b"D" * 4096, 0x3001, entry=0x1020)
    image = load(world, program, file)
    assert areas(image) == [
        (0x1000, 0x3000, "r-xp", 0),
        (0x3000, 0x4000, "rwxp", 0x2000),
        (0x4000, 0x8000, "rw-p", -1),
    ]
    assert peek(image.space, 0x1000, 0x3000) == file
    assert (image.entry, image.brk, image.space.start_brk) == (0x1020, 0x7001, 0x4000)
    assert image.auxv == () and image.interpreter is None


@pytest.mark.parametrize("magic", [OMAGIC, NMAGIC, ZMAGIC])
def test_the_others_are_read_in_one_piece(world: HostWorld, program: str, magic: int) -> None:
    text, data = b"T" * 5000, b"D" * 3000
    image = load(world, program, aout(magic, text, data, 10000))
    start = 5000 if magic == OMAGIC else 8192  # N_DATADDR, of which only the break knows
    end = start + 3000 + 10000
    expected = [(0, 8192, "rw-p", -1)]
    first, last = -(-(start + 3000) // 4096) * 4096, -(-end // 4096) * 4096
    expected = [(0, last, "rw-p", -1)] if first == 8192 else [*expected, (first, last, "rw-p", -1)]
    assert areas(image) == expected
    assert peek(image.space, 0, 8192) == (text + data).ljust(8192, b"\0")
    assert (image.space.start_brk, image.brk) == (start + 3000, end)


def test_the_stack(world: HostWorld, program: str) -> None:
    image = load(world, program, aout(QMAGIC, bytes(4096 - 32), bytes(4096)))
    strings = b"".join(word + b"\0" for word in (*ARGUMENTS, *ENVIRONMENT, os.fsencode(program)))
    top = OLD.task_size_i386
    start = top - 8 - len(strings)
    places = [start + strings.index(word + b"\0") for word in (*ARGUMENTS, *ENVIRONMENT)]
    envp = (start & -4) - 4 * 3
    argv = envp - 4 * 3
    expected = struct.pack("<3I3I3I", 2, argv, envp, *places[:2], 0, *places[2:], 0)
    assert image.pointer == argv - 12
    assert peek(image.space, image.pointer, len(expected)) == expected
    assert peek(image.space, start, len(strings)) == strings
    assert image.stack.bytes[: len(expected)] == expected
    words = image.stack.layout()
    assert [word.what for word in words][:4] == ["argc", "address of argv", "address of envp", "argv[0]"]
    assert sum(word.size for word in words) == top - image.pointer
    stack = next(vma for vma in image.space.vmas if vma.end == top)
    assert stack.perms == "rw-p"
    assert image.registers["eip"] == 0 and image.registers["esp"] == image.pointer


def test_what_kills(world: HostWorld, program: str) -> None:
    for text, data, why in ((100, 4096, "no multiple"), (4096 - 32, 0, "empty")):
        with pytest.raises(LinuxError, match=why) as error:
            load(world, program, aout(QMAGIC, bytes(text), bytes(data)))
        assert (error.value.errno, error.value.fatal_signal) == (EINVAL, 11)


def test_the_limit_on_data(world: HostWorld, program: str) -> None:
    world.rlimits[RLIMIT_DATA] = (1 << 20, 1 << 20)
    load(world, program, aout(OMAGIC, bytes(100), bytes(5000), 900_000))
    with pytest.raises(LinuxError) as error:  # data and bss alone are one byte too many
        load(world, program, aout(OMAGIC, bytes(100), bytes(5000), (1 << 20) - 4999))
    assert (error.value.errno, error.value.fatal_signal) == (ENOMEM, None)


def test_the_lowest_address(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may map below mmap_min_addr")
    world = HostWorld(OLD._replace(mmap_min_addr=65536))
    with pytest.raises(LinuxError) as error:
        load(world, str(tmp_path / "old"), aout(OMAGIC, bytes(100)))
    assert (error.value.errno, error.value.fatal_signal) == (EPERM, 11)
    world.close()


def test_explain(program: str) -> None:
    Path(program).write_bytes(aout(ZMAGIC, bytes(5120), bytes(2048), 0x1800))
    os.chmod(program, 0o755)
    told = loadstone("explain", "--kernel", "4.19", program)
    assert told.status == 0, told.errors
    for expected in (
        "ZMAGIC (0o413)",
        "N_TXTOFF   1024",
        "N_DATADDR  0x2000",
        "N_BSSADDR  0x2800",
        "break      0x4000",
    ):
        assert expected in told.text
    told = loadstone("explain", "--kernel", "2.6.32-i386", program)
    assert "N_DATADDR  0x1400" in told.text
    told = loadstone("explain", "--why", "--kernel", "4.19", program)
    assert told.status == 0 and "create_aout_tables" in told.text, told.errors
    told = loadstone("explain", program)
    assert told.status == 1 and "ENOEXEC" in told.text
