"""Reads that the KVM core answers in the guest: what the program sees is what read(2) gives natively."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Sequence
from errno import EIO
from pathlib import Path

import pytest

from loadstone import Machine
from loadstone.errors import LinuxError
from loadstone.linux.answered_reads import Stream
from loadstone.vfs.regular import RegularFile
from machine.engines import answering, maker
from support.compilers import Compiler
from support.run import loadstone, native

SIZE = 5_000_000
PART = 32768
READER = f"""
#include <fcntl.h>
#include <unistd.h>
static char to[{PART}];
int main(int count, char **words) {{
    int file = open(words[1], O_RDONLY);
    while (read(file, to, sizeof to) > 0);
    return 0;
}}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(random.Random(1).randbytes(SIZE))
    return file


def test_whatever_comes_between_reads(compiled: Compiler, data: Path) -> None:
    """Seeks, duplicates, forks, signals, threads, bad buffers, changed files, jumps to where the answers come from."""
    maker("kvm")
    program = compiled("reads", "static", "-lpthread")
    contents = data.read_bytes()
    expected = native(program, str(data))
    data.write_bytes(contents)
    got = loadstone("run", "--engine", "kvm", "--rw", str(data.parent), "--", program, str(data))
    assert expected.status == 0, expected.errors
    assert got.text == expected.text
    assert got.status == 0, got.errors


def run(words: list[str], data: Path, *, watched: bool = False) -> tuple[int, dict[str, int], int]:
    """Reads that were answered in the guest, calls by name, how often the guest was left."""
    with Machine(engine="kvm") as machine:
        calls: list[object] = []
        if watched:
            machine.events.subscribe(calls.append, ("syscall",))
        assert machine.spawn(words[0], [*words, str(data)], {}).run().code == 0
        reads = machine.linux.answered_reads
        assert reads is not None
        counts = machine.linux.calls.counts()
        assert not watched or len(calls) == sum(counts.values())
        return reads.reads, counts, machine.core.exits.total


def test_most_reads_are_answered_and_all_are_counted(
    data: Path, compiled: Compiler, capfd: pytest.CaptureFixture[str]
) -> None:
    answering("kvm")
    program = [compiled(READER, "static")]
    answered, counts, exits = run(program, data)
    unanswered, calls, left = run(program, data, watched=True)
    assert answered > SIZE // PART * 0.8
    assert unanswered == 0  # somebody listened to system calls
    assert counts == calls
    assert exits < left - 0.7 * answered


def test_what_the_host_changes_is_seen_after_the_next_call(data: Path, compiled: Compiler) -> None:
    """The program reads, asks, and reads on; in between the host has changed the file."""
    answering("kvm")
    program = compiled(
        "#include <unistd.h>\n#include <fcntl.h>\nstatic char to[4096];\nint main(int n, char **v) {"
        "int f = open(v[1], 0); for (int i = 0; i < 20; i++) read(f, to, 4096);"
        'write(1, "?", 1); read(0, to, 1); read(f, to, 4096); write(1, to, 8); return 0; }', "static"
    )  # fmt: skip
    reader, writer = os.pipe()
    answers, asked = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(answers, 0)
        os.dup2(writer, 1)
        for fd in (reader, asked):
            os.close(fd)
        with Machine(engine="kvm") as machine:
            status = machine.spawn(program, [program, str(data)], {}).run().code
            reads = machine.linux.answered_reads
            os._exit(status if reads is not None and reads.reads > 10 else 99)
    os.close(writer)
    assert os.read(reader, 1) == b"?"
    with data.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"changed!")
    os.write(asked, b"!")
    assert os.read(reader, 8) == b"changed!"
    assert os.waitpid(child, 0)[1] == 0
    for fd in (reader, answers, asked):
        os.close(fd)


def test_a_read_ahead_that_fails_leaves_nothing_on_offer(
    data: Path, compiled: Compiler, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The program's own reads come out right, and it does not hear of errors in what it has not read yet."""
    answering("kvm")
    program = compiled("reads", "static", "-lpthread")
    read_into = RegularFile.read_into
    tries = itertools.count()

    def sometimes(file: RegularFile, pieces: Sequence[memoryview], offset: int) -> int:
        if len(pieces) == 1 and len(pieces[0]) > 2 * 4096 and next(tries) % 2:
            pieces[0][:] = bytes(len(pieces[0]))
            raise LinuxError(EIO)
        return read_into(file, pieces, offset)

    contents = data.read_bytes()
    expected = native(program, str(data)).stdout
    data.write_bytes(contents)
    with Machine(engine="kvm", rw=[str(data.parent)]) as machine:
        process = machine.spawn(program, [program, str(data)], {})
        monkeypatch.setattr(Stream, "offer", failing(Stream.offer, sometimes, monkeypatch))
        assert process.run().code == 0
    assert capfdbinary.readouterr().out == expected
    assert next(tries) > 10


def failing(
    offer: Callable[..., None], read_into: Callable[..., int], patch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """An offer during which files are read by `read_into`."""

    def made(*arguments: object) -> None:
        with patch.context() as here:
            here.setattr(RegularFile, "read_into", read_into)
            offer(*arguments)

    return made


def test_a_debugger_in_the_machine_sees_every_read(data: Path, compiled: Compiler, tmp_path: Path) -> None:
    answering("kvm")
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    program, log = compiled(READER, "static"), tmp_path / "log"
    words = [strace, "-o", str(log), "-e", "trace=read", program, str(data)]
    done = loadstone("run", "--engine", "kvm", "--rw", str(tmp_path), "--", *words)
    assert done.status == 0, done.errors
    assert log.read_text().count("read(") == -(-SIZE // PART) + 1


def test_the_frames_come_back(data: Path, compiled: Compiler) -> None:
    """A process's tables go with it; its buffer serves the next one, and shows it nothing."""
    answering("kvm")
    program = compiled(READER, "static")
    with Machine(engine="kvm") as machine:
        used = []
        for _ in range(4):
            assert machine.spawn(program, [program, str(data)], {}).run().code == 0
            used.append(machine.physical.used)
        half = machine.core.machine.half  # type: ignore[attr-defined]
        assert len(half.spare_buffers) == 1
        assert used[1:] == used[1:2] * 3
