"""File locks of several processes, beside the kernel's own: results, who is in the way, and /proc/locks."""

from __future__ import annotations

import fcntl
import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN
from pathlib import Path
from typing import Any

import pytest

from loadstone.errors import LinuxError
from loadstone.linux.proc.locks import locks_text
from loadstone.vfs.assemble import assemble
from loadstone.vfs.file import OpenFile
from loadstone.vfs.file_table import FileTable
from loadstone.vfs.flags import O_RDONLY, O_RDWR
from loadstone.vfs.locks import FOREVER, READ, UNLOCK, WRITE, Record, Request

F_OFD_GETLK, F_OFD_SETLK = 36, 37
FLOCK = struct.Struct("hhxxxxqqixxxx")
WORKERS = 3

Action = tuple[Any, ...]


class Native:
    """A process of the host with three descriptors of one file: the first shared with the others, two of its own."""

    def __init__(self, path: str, shared: int) -> None:
        self.path = path
        self.files = [os.dup(shared), os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)]
        os.close(shared)

    def do(self, name: str, which: int, *args: Any) -> Any:
        try:
            return getattr(self, name)(self.files[which], which, *args)
        except OSError as error:
            return -(error.errno or 0)

    def set(self, fd: int, which: int, own_file: bool, kind: int, start: int, length: int) -> None:
        command = F_OFD_SETLK if own_file else fcntl.F_SETLK
        fcntl.fcntl(fd, command, FLOCK.pack(kind, 0, start, length, 0))

    def get(self, fd: int, which: int, own_file: bool, kind: int, start: int, length: int) -> list[int]:
        command = F_OFD_GETLK if own_file else fcntl.F_GETLK
        found = FLOCK.unpack(fcntl.fcntl(fd, command, FLOCK.pack(kind, 0, start, length, 0)))
        return [UNLOCK] if found[0] == UNLOCK else list(found)

    def flock(self, fd: int, which: int, operation: int) -> None:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)

    def reopen(self, fd: int, which: int) -> None:
        os.close(fd)
        self.files[which] = os.open(self.path, os.O_RDWR)

    def duplicate(self, fd: int, which: int, other: int) -> None:
        os.dup2(fd, self.files[other])


class Ours:
    """The same of the guest's: a descriptor table."""

    def __init__(self, vfs: Any, path: str, shared: OpenFile, pid: int) -> None:
        self.vfs, self.path, self.pid = vfs, path, pid
        self.table = FileTable()
        for file in (shared, vfs.open(path, O_RDWR), vfs.open(path, O_RDWR)):
            self.table.install(file)

    def do(self, name: str, which: int, *args: Any) -> Any:
        try:
            return getattr(self, name)(self.table.get(which), which, *args)
        except LinuxError as error:
            return -error.errno

    def _request(self, file: OpenFile, own_file: bool, kind: int, start: int, length: int) -> Request:
        end = start + length if length else FOREVER
        return Request(file if own_file else self.table, kind, start, end, -1 if own_file else self.pid)

    def set(self, file: OpenFile, which: int, *args: Any) -> None:
        locks = self.vfs.locks.of(file.inode)
        try:
            locks.set(self._request(file, *args))
        finally:
            locks.settle()

    def get(self, file: OpenFile, which: int, *args: Any) -> list[int]:
        found: Record | None = self.vfs.locks.of(file.inode).conflict(self._request(file, *args))
        if found is None:
            return [UNLOCK]
        return [found.kind, 0, found.start, 0 if found.end == FOREVER else found.end - found.start, found.pid]

    def flock(self, file: OpenFile, which: int, operation: int) -> None:
        exclusive = None if operation == fcntl.LOCK_UN else operation == fcntl.LOCK_EX
        self.vfs.locks.of(file.inode).flock(file, exclusive, self.pid)

    def reopen(self, file: OpenFile, which: int) -> None:
        self.table.close(which)
        self.table.install(self.vfs.open(self.path, O_RDWR))

    def duplicate(self, file: OpenFile, which: int, other: int) -> None:
        self.table.dup2(which, other)


@contextmanager
def workers(path: str) -> Iterator[list[tuple[int, int, int]]]:
    """(process number, write commands here, read answers here) of children that are `Native`."""
    found = []
    shared = os.open(path, os.O_RDWR)
    for _ in range(WORKERS):
        commands, answers = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(commands[1])
                _serve(Native(path, shared), commands[0], answers[1])
            finally:
                os._exit(0)
        os.close(commands[0])
        os.close(answers[1])
        found.append((pid, commands[1], answers[0]))
    os.close(shared)
    try:
        yield found
    finally:
        for pid, command, answer in found:
            os.write(command, b"None\n")
            os.close(command)
            os.close(answer)
            os.waitpid(pid, 0)


def _serve(native: Native, commands: int, answers: int) -> None:
    with os.fdopen(commands) as source:
        for line in source:
            action = eval(line)
            if action is None:
                return
            os.write(answers, repr(native.do(*action)).encode())


def random_action(pick: random.Random) -> Action:
    name = pick.choice(["set"] * 6 + ["get"] * 3 + ["flock"] * 2 + ["reopen", "duplicate"])
    which = pick.randrange(3)
    if name in ("set", "get"):
        kind = pick.choice((READ, WRITE, UNLOCK) if name == "set" else (READ, WRITE))
        return name, which, pick.random() < 0.3, kind, pick.randrange(12), pick.choice((0, 1, 2, 3, 6))
    if name == "flock":
        return name, which, pick.choice((fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN))
    return (name, which) if name == "reopen" else (name, which, pick.randrange(3))


def shown(text: str, inode: int) -> list[str]:
    """The lines of /proc/locks about a file, without number and device; the host's order depends on the CPU."""
    lines = (line.split() for line in text.splitlines())
    return sorted(" ".join((*words[1:5], *words[6:])) for words in lines if words[5].rsplit(":", 1)[-1] == str(inode))


@pytest.mark.parametrize("seed", range(10))
def test_locks_are_the_kernels(seed: int, tmp_path: Path) -> None:
    pick = random.Random(seed)
    path = tmp_path / "file"
    path.touch()
    inode = path.stat().st_ino
    vfs = assemble(None)
    with workers(str(path)) as children:
        shared = vfs.open(str(path), O_RDWR)
        ours = [Ours(vfs, str(path), shared, pid) for pid, _, _ in children]
        for step in range(300):
            who = pick.randrange(WORKERS)
            action = random_action(pick)
            _, command, answer = children[who]
            os.write(command, f"{action!r}\n".encode())
            wanted = eval(os.read(answer, 4096))
            assert ours[who].do(*action) == wanted, f"step {step}: {action} of process {who}"
            theirs = shown(Path("/proc/locks").read_text(), inode)
            assert shown(locks_text(vfs.locks).decode(), inode) == theirs, f"step {step}: after {action} of {who}"
        for one in ours:
            one.table.close_all()
        assert locks_text(vfs.locks) == b""


def test_an_open_file_that_is_gone_has_no_locks() -> None:
    vfs = assemble(None)
    first, second = (vfs.open("/tmp", O_RDONLY) for _ in range(2))
    for file in (first, second):
        file.hold()
    vfs.locks.of(first.inode).flock(first, True, 1)
    with pytest.raises(LinuxError) as raised:
        vfs.locks.of(second.inode).flock(second, False, 2)
    assert raised.value.errno == EAGAIN
    first.close()
    vfs.locks.of(second.inode).flock(second, True, 2)
    second.close()
    assert second.inode.locks is None
