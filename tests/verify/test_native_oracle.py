"""The oracle itself: it reads what the kernel's documentation says must be there, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from loadstone.verify.native import NativeImage, native_image, native_process, parse_maps
from loadstone.verify.native_exec import NativeFailure
from support import elfbuilder as eb

AT_PHDR, AT_PAGESZ, AT_ENTRY, AT_EXECFN, AT_RANDOM = 3, 6, 9, 31, 25


@pytest.fixture(scope="module")
def image() -> NativeImage:
    return native_image("/bin/true", [b"true", b"", b"\xff \n"], [b"HOME=/home/user", b"odd", b""])


def verdict(path: str, argv: list[str]) -> str:
    """How the kernel decides: `ok`, an errno's name, or `signal N`."""
    try:
        with native_process(path, argv, ()):
            return "ok"
    except NativeFailure as failure:
        return failure.name


def words(image: NativeImage) -> list[int]:
    return [word for (word,) in struct.iter_unpack("<Q", image.stack[: len(image.stack) & -8])]


def test_the_stack_is_laid_out_as_the_abi_says(image: NativeImage) -> None:
    stack = words(image)
    assert image.stack_pointer % 16 == 0
    assert stack[0] == 3
    assert stack[4] == 0
    assert stack[8] == 0
    pairs = list(zip(stack[9::2], stack[10::2], strict=False))
    assert tuple(pairs[: len(image.auxiliary_vector)]) == image.auxiliary_vector
    for pointer, text in zip(stack[1:4], (b"true", b"", b"\xff \n"), strict=True):
        offset = pointer - image.stack_pointer
        assert image.stack[offset : offset + len(text) + 1] == text + b"\0"
    assert image.argv() == [b"true", b"", b"\xff \n"]
    assert image.envp() == [b"HOME=/home/user", b"odd", b""]
    name = dict(image.auxiliary_vector)[AT_EXECFN] - image.stack_pointer
    assert image.stack[name:].startswith(b"/bin/true\0")
    assert image.stack[-8:] == bytes(8)


def test_registers_at_the_first_instruction(image: NativeImage) -> None:
    registers = dict(image.registers)
    assert registers.pop("rsp") == image.stack_pointer
    assert registers.pop("rip") == image.pc
    assert (registers.pop("fcw"), registers.pop("mxcsr")) == (0x37F, 0x1F80)
    assert (registers.pop("cs"), registers.pop("ss")) == (0x33, 0x2B)
    assert registers.pop("eflags") & ~0x100 == 0x202
    assert registers.pop("orig_rax") in (59, 322)
    assert set(registers.values()) == {0}


def test_maps_and_stat_agree(image: NativeImage) -> None:
    stack = next(m for m in image.mappings if m.path == "[stack]")
    assert stack.end == image.stack_top == 0x7FFFFFFFF000
    assert stack.start <= image.stack_pointer < stack.end
    assert image.stack_pointer == image.stat["start_stack"]
    code = next(m for m in image.mappings if m.start <= image.stat["start_code"] < m.end)
    assert "x" in code.perms
    assert code.inode == os.stat("/bin/true").st_ino
    assert image.name == "true"
    assert dict(image.auxiliary_vector)[AT_PAGESZ] == 4096
    assert parse_maps(image.maps) == image.mappings


def test_the_same_every_time_but_for_the_random_bytes() -> None:
    one, two = (native_image("/bin/true", ["true"]) for _ in range(2))
    assert one.maps == two.maps
    assert one.registers == two.registers
    place = dict(one.auxiliary_vector)[AT_RANDOM] - one.stack_pointer
    assert one.stack[:place] == two.stack[:place]
    assert one.stack[place : place + 16] != two.stack[place : place + 16]
    assert one.stack[place + 16 :] == two.stack[place + 16 :]


def test_no_arguments_at_all() -> None:
    """Since 5.18 the kernel makes one empty argument of none."""
    found = native_image("/bin/true", [])
    assert found.argv() in ([], [b""])
    assert found.envp() == []


def test_memory_of_the_process() -> None:
    with native_process("/bin/true", ["true"]) as process:
        image = process.image()
        header = dict(image.auxiliary_vector)[AT_PHDR] - 64
        with open("/bin/true", "rb") as file:
            assert process.memory(header, 4096) == file.read(4096)
        assert process.memory(0, 16) == b""
        assert process.memory(0xFFFFFFFFFF600000, 16) == b""
        assert process.memory(image.stack_top - 8, 4096) == bytes(8)
        entries = process.resident(image.stack_top - 4096, image.stack_top)
        assert entries[0] >> 63 == 1
        pid = process.pid
        assert os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(f"/proc/{pid}")


def test_failures_are_typed(tmp_path: Path) -> None:
    for path, number in (("/nowhere", errno.ENOENT), ("/", errno.EACCES), ("/etc/passwd/x", errno.ENOTDIR)):
        with pytest.raises(NativeFailure) as caught:
            native_image(path, ["x"])
        assert (caught.value.errno, caught.value.signal) == (number, 0)
    broken = tmp_path / "broken"
    broken.write_bytes(eb.patch(eb.static(), eb.entry_offset(1, 64) + 32, 8, 0x9999))
    broken.chmod(0o755)
    with pytest.raises(NativeFailure) as caught:
        native_image(str(broken), ["x"])
    assert (caught.value.errno, caught.value.signal) == (0, signal.SIGSEGV)
    assert verdict(str(broken), ["x"]) == "signal 11"
    with pytest.raises(NativeFailure) as caught:
        native_image("/bin/true", ["x" * 131072])
    assert caught.value.name == "E2BIG"


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        native_image("/bin/true", [b"a\0b"])


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    def children() -> str:
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text()

    before, descriptors = children(), len(os.listdir("/proc/self/fd"))
    for path in ("/bin/true", "/nowhere", str(tmp_path)) * 5:
        verdict(path, ["x"])
    with pytest.raises(ZeroDivisionError), native_process("/bin/true", ["x"]):
        _ = 1 // 0
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_program_does_not_run(tmp_path: Path) -> None:
    """Not even where SIGTRAP is blocked in the caller."""
    witness = tmp_path / "witness"
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTRAP})
    try:
        assert verdict("/bin/sh", ["sh", "-c", f"echo ran > {witness}"]) == "ok"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    assert not witness.exists()


def test_cwd_and_stack_limit(tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(eb.static())
    (tmp_path / "here").chmod(0o755)
    assert native_image("./here", ["x"], cwd=tmp_path.as_posix()).pc == 0x400800
    with pytest.raises(NativeFailure):
        native_image("./here", ["x"], cwd="/")
    usual = native_image("/bin/true", ["x"], stack_limit=8 << 20)
    vdso = max(m.end for m in usual.mappings if m.start < 0x7FFFFF000000)
    assert vdso == 0x7FFFF7FFF000
    large = native_image("/bin/true", ["x"], stack_limit=256 << 20)
    assert max(m.end for m in large.mappings if m.start < 0x7FFFE0000000) < vdso


def test_another_user() -> None:
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    vector = dict(native_image("/bin/true", ["x"], uid=65534).auxiliary_vector)
    assert [vector[kind] for kind in (11, 12, 13, 14)] == [65534] * 4


def test_a_32_bit_program(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(eb.static(32))
    program.chmod(0o755)
    try:
        found = native_image(str(program), ["a", "b"], {"C": "d"})
    except NativeFailure:
        pytest.skip("this kernel runs no i386 programs")
    assert found.bits == 32
    assert found.pc == 0x8048800
    assert found.stack_top == 0xFFFFE000
    assert dict(found.auxiliary_vector)[AT_ENTRY] == 0x8048800
    assert found.argv() == [b"a", b"b"]
    assert found.envp() == [b"C=d"]
    assert found.registers["cs"] == 0x23
    assert (found.registers["fcw"], found.registers["mxcsr"]) == (0x37F, 0x1F80)


def test_the_import_is_cheap() -> None:
    """Nothing heavy comes along: no ctypes, subprocess, tempfile, resource."""
    code = "import sys; before = set(sys.modules); import loadstone.verify.native; print(*set(sys.modules) - before)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ctypes", "subprocess", "tempfile", "resource", "platform", "dataclasses", "inspect"} & set(found)
