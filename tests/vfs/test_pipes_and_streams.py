"""Pipes, FIFOs, devices, the host's standard streams and descriptor tables, beside the kernel's own."""

from __future__ import annotations

import fcntl
import os
import random
import select
from collections.abc import Callable
from errno import EBADF, EINVAL, EMFILE, ENOSPC, ENXIO, EPERM, EPIPE, ESPIPE
from pathlib import Path
from typing import Any

import pytest

from loadstone.errors import LinuxError
from loadstone.vfs.assemble import assemble
from loadstone.vfs.attributes import change_mode, change_owner, change_times
from loadstone.vfs.file import OpenFile, WouldBlock
from loadstone.vfs.file_table import FileTable
from loadstone.vfs.flags import O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, S_IFIFO
from loadstone.vfs.pipe import PipeFile
from loadstone.vfs.streams import host_stream

F_SETPIPE_SZ, FIONREAD = 1031, 0x541B  # include/uapi/linux/fcntl.h, asm-generic/ioctls.h


def error(action: Callable[[], object]) -> int:
    with pytest.raises(LinuxError) as raised:
        action()
    return raised.value.errno


def read(file: OpenFile, length: int) -> bytes | None:
    data = bytearray(length)
    try:
        return bytes(data[: file.read_into([memoryview(data)[: length // 2], memoryview(data)[length // 2 :]])])
    except WouldBlock:
        return None


def write(file: OpenFile, data: bytes) -> int | None:
    try:
        return file.write_from([memoryview(data)])
    except WouldBlock:
        return None


SIZES = (1, 2, 100, 1000, 3000, 4095, 4096, 4097, 5000, 8192, 20000, 65536, 100000)


@pytest.mark.parametrize("packets", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_pipe_is_the_kernels(seed: int, packets: bool) -> None:
    """Any sizes, the capacity changed at times: how full a pipe is depends on the kernel's buffers, not on bytes."""
    pick = random.Random(seed)
    vfs = assemble(None)
    flags = os.O_DIRECT if packets else 0
    reader, writer = vfs.pipe(flags)
    theirs = os.pipe2(os.O_NONBLOCK | flags)
    for _ in range(400):
        size = pick.choice(SIZES)
        chance = pick.random()
        if chance < 0.5:
            data = pick.randbytes(size)
            assert write(writer, data) == attempt(lambda d=data: os.write(theirs[1], d))  # type: ignore[misc]
        elif chance < 0.95:
            assert read(reader, size) == attempt(lambda n=size: os.read(theirs[0], n))  # type: ignore[misc]
        else:
            size = pick.choice((0, 4096, 5000, 16384, 65536, 131072))
            assert resize(writer, size) == attempt(lambda n=size: fcntl.fcntl(theirs[0], F_SETPIPE_SZ, n))  # type: ignore[misc]
        assert reader.available() == int.from_bytes(fcntl.ioctl(theirs[0], FIONREAD, bytes(4)), "little")
        polled = dict(poll(theirs))
        assert reader.ready() & 0x1D == polled.get(theirs[0], 0) & 0x1D
        assert writer.ready() & 0x1D == polled.get(theirs[1], 0) & 0x1D
    for fd in theirs:
        os.close(fd)


def attempt(action: Callable[[], Any]) -> Any:
    """What the kernel gives: None for a wait, minus the number for another error."""
    try:
        return action()
    except BlockingIOError:
        return None
    except OSError as failed:
        return -(failed.errno or 0)


def resize(file: OpenFile, size: int) -> int:
    assert isinstance(file, PipeFile)
    try:
        return file.pipe.resize(size)
    except LinuxError as failed:
        return -failed.errno


def poll(pair: tuple[int, int]) -> list[tuple[int, int]]:
    poller = select.poll()
    poller.register(pair[0], select.POLLIN)
    poller.register(pair[1], select.POLLOUT)
    return poller.poll(0)


def test_pipe_ends() -> None:
    vfs = assemble(None)
    reader, writer = vfs.pipe(O_NONBLOCK)
    for file in (reader, writer):
        file.hold()
    woken: list[object] = []
    vfs.wake_up = woken.extend
    assert reader.read_queue is not None
    reader.read_queue.waiters.append("task")
    assert write(writer, b"abc") == 3
    assert woken == ["task"]
    assert error(lambda: reader.seek(0, 0)) == ESPIPE
    assert error(lambda: writer.read_into([memoryview(bytearray(1))])) == EBADF
    writer.close()
    assert read(reader, 10) == b"abc"
    assert read(reader, 10) == b""
    reader, writer = vfs.pipe()
    reader.hold()
    reader.close()
    assert error(lambda: write(writer, b"x")) == EPIPE


def test_fifo_of_the_guest() -> None:
    vfs = assemble(None)
    vfs.mknod("/tmp/fifo", S_IFIFO | 0o600)
    assert error(lambda: vfs.open("/tmp/fifo", O_WRONLY | O_NONBLOCK)) == ENXIO
    reader = vfs.open("/tmp/fifo", O_RDONLY)
    assert reader.opening() is not None
    writer = vfs.open("/tmp/fifo", O_WRONLY)
    assert reader.opening() is None
    assert writer.opening() is None
    assert write(writer, b"through") == 7
    assert read(reader, 20) == b"through"


def test_devices() -> None:
    vfs = assemble(None, random_bytes=lambda count: b"r" * count)

    def device(name: str) -> OpenFile:
        return vfs.open(f"/dev/{name}", O_RDWR)

    for name in ("null", "zero", "full", "random", "urandom"):
        mine, theirs = vfs.stat(f"/dev/{name}"), os.stat(f"/dev/{name}")
        assert (mine.rdev, oct(mine.mode)) == (theirs.st_rdev, oct(theirs.st_mode))
    assert read(device("null"), 10) == b""
    assert write(device("null"), bytes(10)) == 10
    assert read(device("zero"), 10) == bytes(10)
    assert read(device("full"), 10) == bytes(10)
    assert error(lambda: write(device("full"), b"x")) == ENOSPC
    assert read(device("urandom"), 4) == b"rrrr"
    assert error(lambda: device("tty")) == ENXIO
    assert vfs.readlink("/dev/stdin") == os.readlink("/dev/stdin")
    assert vfs.readlink("/dev/fd") == os.readlink("/dev/fd")


def test_host_pipe_as_a_stream() -> None:
    vfs = assemble(None)
    reader, writer = os.pipe()
    source, sink = host_stream(vfs, reader), host_stream(vfs, writer)
    assert source.path == os.readlink(f"/proc/self/fd/{reader}")
    assert read(source, 10) is None
    with pytest.raises(WouldBlock) as waits:
        source.read_into([memoryview(bytearray(1))])
    assert waits.value.host_fd == reader
    sent = 0
    while count := write(sink, bytes(100_000)):  # never blocks, though the host's descriptor would
        sent += count
    assert sent == 65536
    assert not sink.ready() & select.POLLOUT
    assert read(source, 100_000) == bytes(65536)
    os.close(reader)
    assert error(lambda: write(sink, b"x")) == EPIPE
    os.close(writer)
    assert error(lambda: host_stream(vfs, writer)) == EBADF


def test_redirected_file_shares_the_hosts_offset(tmp_path: Path) -> None:
    vfs = assemble(None)
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"before ")
    stream = host_stream(vfs, fd)
    assert write(stream, b"guest ") == 6
    os.write(fd, b"after")
    assert (tmp_path / "out").read_bytes() == b"before guest after"
    assert stream.seek(0, 1) == 18
    assert stream.seek(7, 0) == 7
    assert os.read(fd, 5) == b"guest"
    assert read(stream, 3) == b" af"
    stream.inode.refresh()
    assert stream.inode.size == 18
    os.close(fd)


@pytest.mark.parametrize("access", [os.O_RDONLY, os.O_RDWR])
def test_redirected_file_keeps_its_permissions_on_the_host(tmp_path: Path, access: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(0o600)
    fd = os.open(path, access)
    vfs = assemble(None)
    inode = host_stream(vfs, fd).inode
    assert error(lambda: change_mode(inode, 0o4777)) == EPERM
    assert error(lambda: change_owner(inode, 1, 1)) == EPERM
    change_times(inode, (1, 1))
    assert path.stat().st_mode & 0o7777 == 0o600 and path.stat().st_mtime_ns != 1
    os.close(fd)


def test_file_table_gives_the_lowest_number() -> None:
    vfs = assemble(None)
    table = FileTable(limit=20)

    def null() -> OpenFile:
        return vfs.open("/dev/null", O_RDWR)

    files = [null() for _ in range(5)]
    assert [table.install(file) for file in files] == [0, 1, 2, 3, 4]
    table.close(1)
    table.close(3)
    assert error(lambda: table.get(3)) == EBADF
    assert table.dup(4) == 1
    assert files[4].references == 2
    assert table.install(null(), cloexec=True) == 3
    assert table.dup(0, minimum=10) == 10
    assert table.dup2(0, 7) == 7
    assert error(lambda: table.dup3(0, 0, False)) == EINVAL
    assert error(lambda: table.dup2(0, 20)) == EBADF
    assert table.dup2(4, 4) == 4
    child = table.clone()
    child.close_on_exec()
    assert [fd for fd, _ in child.items()] == [0, 1, 2, 4, 7, 10]
    assert table.is_cloexec(3)
    for _ in range(13):
        table.install(null())
    assert error(lambda: table.install(null())) == EMFILE
    table.close_all()
    child.close_all()
    assert [file.references for file in files] == [0, 0, 0, 0, 0]


def test_pipe_is_opened_again_through_its_descriptor() -> None:
    vfs = assemble(None)
    reader, writer = vfs.pipe()
    again = vfs.open_location(vfs.place_of(writer), O_WRONLY)
    assert again.opening() is None
    assert write(again, b"both") == 4
    assert read(reader, 10) == b"both"
    assert again.path == writer.path


def test_the_hosts_null_device_is_the_guests() -> None:
    """Programs compare what they inherit with the name (grep and tar do less when their output goes nowhere)."""
    vfs = assemble(None)
    with open(os.devnull, "r+b") as nowhere:
        file = host_stream(vfs, nowhere.fileno())
    inode = vfs.resolve("/dev/null").inode
    assert (file.inode.device, file.inode.inode, file.path) == (inode.device, inode.inode, "/dev/null")
    assert read(file, 10) == b""
    assert file.write_from([memoryview(b"text")]) == 4
