"""Files that are not programs: a typed error with the kernel's errno, quickly and in little memory."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import loadstone as package
from loadstone.errors import LinuxError
from loadstone.verify.native import native_image
from loadstone.verify.native_exec import NativeFailure
from support.compilers import Compiler
from support.run import loadstone

SECONDS = 0.5  # of CPU time for one file: a few milliseconds, and room for a garbage collection
BYTES = 8 << 20  # at most allocated for one file
EHDR, PHDR = 64, 56

Write = Callable[[bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write bytes to an executable file; its path."""

    def make(content: bytes) -> str:
        path = tmp_path / "program"
        path.write_bytes(content)
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture(scope="module")
def sound(compiled: Compiler) -> bytes:
    """A valid static program, and where its fields are."""
    return Path(compiled("hello", "musl-static")).read_bytes()


@pytest.fixture(scope="module")
def dynamic(compiled: Compiler) -> bytes:
    return Path(compiled("hello", "pie")).read_bytes()


def natively(path: str) -> str:
    """The kernel's verdict: ok, an errno's name, or the signal that killed it."""
    try:
        native_image(path, [path], [])
    except NativeFailure as failure:
        return failure.name
    return "ok"


def verdict(path: str) -> str:
    """Ours, within the bound of time; the CPU's, since other tests run beside this one."""
    start = time.process_time()
    try:
        package.explain(path, [path], [])
        answer = "ok"
    except LinuxError as error:
        answer = f"signal {int(error.fatal_signal)}" if error.fatal_signal else error.name
    spent = time.process_time() - start
    assert spent < SECONDS, f"{path}: {spent:.3f} s"
    return answer


def memory_of(path: str) -> int:
    """Bytes of Python's memory that one explanation needs at most."""
    tracemalloc.start()
    try:
        with contextlib.suppress(LinuxError):
            package.explain(path, [path], [])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_sound_program_is_fine(sound: bytes, dynamic: bytes, write: Write) -> None:
    for content in (sound, dynamic):
        assert verdict(write(content)) == natively(write(content)) == "ok"


def header_end(content: bytes) -> int:
    """Where the program headers end."""
    offset, count = struct.unpack_from("<Q", content, 32)[0], struct.unpack_from("<H", content, 56)[0]
    return int(offset + count * PHDR)


@pytest.mark.parametrize("kind", ["sound", "dynamic"])
def test_truncations_at_every_header_byte(kind: str, write: Write, request: pytest.FixtureRequest) -> None:
    content: bytes = request.getfixturevalue(kind)
    wrong = []
    for length in range(header_end(content) + 1):
        path = write(content[:length])
        ours, kernels = verdict(path), natively(path)
        if ours != kernels:
            wrong.append((length, ours, kernels))
    assert not wrong


def test_truncations_of_the_segments(sound: bytes, write: Write) -> None:
    """Inside the contents: a program whose pages are missing is loaded, and dies of SIGBUS when it touches them."""
    for length in range(header_end(sound), len(sound), max(1, len(sound) // 40)):
        path = write(sound[:length])
        assert verdict(path) == natively(path), length


FIELDS = {  # name: (offset in the ELF header, size)
    "class": (4, 1), "data": (5, 1), "version": (6, 1), "osabi": (7, 1), "e_type": (16, 2), "e_machine": (18, 2),
    "e_version": (20, 4), "e_entry": (24, 8), "e_phoff": (32, 8), "e_shoff": (40, 8), "e_flags": (48, 4),
    "e_ehsize": (52, 2), "e_phentsize": (54, 2), "e_phnum": (56, 2), "e_shnum": (60, 2), "e_shstrndx": (62, 2),
    "p_type": (EHDR, 4), "p_flags": (EHDR + 4, 4), "p_offset": (EHDR + 8, 8), "p_vaddr": (EHDR + 16, 8),
    "p_paddr": (EHDR + 24, 8), "p_filesz": (EHDR + 32, 8), "p_memsz": (EHDR + 40, 8), "p_align": (EHDR + 48, 8),
}  # fmt: skip
ABSURD = [0, 1, 2, 3, 0x7F, 0xFF, 0xFFF, 0x1000, 0x7FFF, 0xFFFF, 0xFFFF_FFFF, 1 << 46, 1 << 47, 1 << 63, (1 << 64) - 1]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("kind", ["sound", "dynamic"])
def test_absurd_fields(field: str, kind: str, write: Write, request: pytest.FixtureRequest) -> None:
    """Every field with absurd values; a program header's in each of the headers."""
    content: bytes = request.getfixturevalue(kind)
    offset, size = FIELDS[field]
    count = struct.unpack_from("<H", content, 56)[0] if field.startswith("p_") else 1
    wrong = []
    for number in range(count):
        for value in dict.fromkeys(value & ((1 << 8 * size) - 1) for value in ABSURD):
            changed = bytearray(content)
            changed[offset + number * PHDR : offset + number * PHDR + size] = value.to_bytes(size, "little")
            path = write(bytes(changed))
            ours, kernels = verdict(path), natively(path)
            if ours != kernels:
                wrong.append((number, hex(value), ours, kernels))
    assert not wrong


INTERPRETERS = {
    "empty": b"", "nul": b"\0",
    "no-nul": b"/lib64/ld-linux-x86-64.so.2", "relative": b"ld.so\0", "missing": b"/no/such\0",
    "directory": b"/tmp\0", "not-elf": b"/etc/passwd\0", "device": b"/dev/null\0", "long": b"/" + b"x" * 4094 + b"\0",
    "too-long": b"/" + b"x" * 5000 + b"\0", "nul-inside": b"/lib64\0/ld-linux-x86-64.so.2\0", "itself": None,
}  # fmt: skip


@pytest.mark.parametrize("name", INTERPRETERS)
def test_absurd_interpreters(name: str, dynamic: bytes, write: Write, tmp_path: Path) -> None:
    text = INTERPRETERS[name]
    if text is None:
        text = os.fsencode(tmp_path / "program") + b"\0"
    changed = bytearray(dynamic)
    count = struct.unpack_from("<H", changed, 56)[0]
    for number in range(count):
        at = EHDR + number * PHDR
        if struct.unpack_from("<I", changed, at)[0] == 3:  # PT_INTERP
            struct.pack_into("<Q", changed, at + 8, len(changed))
            struct.pack_into("<Q", changed, at + 32, len(text))
    path = write(bytes(changed) + text)
    assert verdict(path) == natively(path)


CONTENTS = {
    "empty": b"", "one-byte": b"\x7f", "magic": b"\x7fELF", "text": b"hello\n", "zeros": bytes(4096),
    "dos": b"MZ" + bytes(200),
    "aout": struct.pack("<IIIIIIII", 0x10B, 16, 16, 0, 0, 0, 0, 0) + bytes(100),
    "script-of-nothing": b"#!\n",
    "script-of-spaces": b"#!   \t\n", "script-to-nowhere": b"#!/no/such/interpreter\n",
    "script-to-a-directory": b"#!/tmp\n",
    "script-without-end": b"#!" + b"x" * 300, "script-to-text": b"#!/etc/passwd\n",
    "script-nul": b"#!/bin/\0true\n",
    "script-good": b"#!/bin/true\n", "script-no-newline": b"#!/bin/true",
    "script-with-argument": b"#! /bin/true  a b \n",
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
def test_contents(name: str, write: Write) -> None:
    path = write(CONTENTS[name])
    assert verdict(path) == natively(path)
    assert memory_of(path) < BYTES


@pytest.mark.parametrize("field", ["e_phnum", "p_filesz", "p_memsz", "p_offset", "p_align"])
def test_no_field_sizes_an_allocation(field: str, dynamic: bytes, write: Write) -> None:
    """The interpreter's header with an enormous value: a few MB at most."""
    offset, size = FIELDS[field]
    for number in range(4):
        changed = bytearray(dynamic)
        at = offset + number * PHDR if field.startswith("p_") else offset
        changed[at : at + size] = ((1 << 8 * size - 4) - 1).to_bytes(size, "little")
        assert memory_of(write(bytes(changed))) < BYTES


def test_a_script_that_is_its_own_interpreter(write: Write, tmp_path: Path) -> None:
    path = write(b"#!" + os.fsencode(tmp_path / "program") + b"\n")
    assert verdict(path) == natively(path) == "ELOOP"


def test_chains_of_scripts(tmp_path: Path) -> None:
    """fs/exec.c: exec_binprm allows five rewrites of the program."""
    before = "/bin/true"
    for number in range(1, 9):
        path = tmp_path / f"script{number}"
        path.write_text(f"#!{before}\n")
        path.chmod(0o755)
        before = str(path)
        assert verdict(before) == natively(before), number


def test_a_directory_a_missing_file_and_one_without_permission(tmp_path: Path, sound: bytes) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(sound)
    plain.chmod(0o644)
    for path in (str(tmp_path), str(tmp_path / "missing"), str(plain), str(plain) + "/x", "", "/dev/null"):
        assert verdict(path) == natively(path), path


@pytest.mark.parametrize(
    "words", [["x" * 131_071], ["x" * 131_072], ["y" * 100_000] * 20, ["y" * 100_000] * 22, [""] * 200_000]
)
def test_arguments_up_to_their_limits(words: list[str]) -> None:
    """One string: MAX_ARG_STRLEN; all of them: a quarter of the stack limit (fs/exec.c: bprm_stack_limits)."""
    try:
        native_image("/bin/true", ["/bin/true", *words], [])
        wanted = "ok"
    except NativeFailure as failure:
        wanted = failure.name
    try:
        package.explain("/bin/true", ["/bin/true", *words], [])
        ours = "ok"
    except LinuxError as error:
        ours = error.name
    assert ours == wanted


COMMAND_LINE = {
    "empty": (b"", "ENOEXEC"), "header-only": (None, "ENOEXEC"), "text": (b"hello\n", "ENOEXEC"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMAND_LINE)
def test_command_line_says_why_in_one_paragraph(name: str, write: Write, sound: bytes) -> None:
    content, errno = COMMAND_LINE[name]
    path = write(sound[:63] if content is None else content)
    told, machine, ran = loadstone("explain", path), loadstone("explain", "--json", path), loadstone("run", path)
    assert told.status == machine.status == 1
    assert errno in told.text + told.errors
    error = json.loads(machine.stdout)["error"]
    assert (error["errno"], error["signal"]) == (errno, None)
    assert error["message"]
    assert ran.status == 126
    assert ran.stdout == b""
    for got in (told, machine, ran):
        assert "Traceback" not in got.errors


def test_a_segment_that_does_not_fit_kills_after_the_point_of_no_return(sound: bytes, write: Write) -> None:
    """Natively the process is killed; `run` shows the status of that signal."""
    changed = bytearray(sound)
    count = struct.unpack_from("<H", changed, 56)[0]
    loads = [n for n in range(count) if struct.unpack_from("<I", changed, EHDR + n * PHDR)[0] == 1]
    struct.pack_into("<Q", changed, EHDR + loads[-1] * PHDR + 40, 1 << 46)  # p_memsz
    struct.pack_into("<Q", changed, EHDR + loads[-1] * PHDR + 16, (1 << 47) - 0x2000)  # p_vaddr
    path = write(bytes(changed))
    wanted = natively(path)
    assert verdict(path) == wanted
    if wanted.startswith("signal"):
        assert loadstone("run", path).status == 128 + int(wanted.split()[1])
        error = json.loads(loadstone("explain", "--json", path).stdout)["error"]
        assert error["signal"]
