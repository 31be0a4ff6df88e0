"""File data: the page cache and the file agree, and nothing is done a byte at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loadstone.machine.physical import PhysicalMemory
from loadstone.memory.page_cache import PageCache
from loadstone.vfs.assemble import assemble
from loadstone.vfs.attributes import change_mode
from loadstone.vfs.file import OpenFile
from loadstone.vfs.flags import O_CREAT, O_RDONLY, O_RDWR
from loadstone.vfs.regular import RegularFile

PAGE = 4096


def read(file: OpenFile, length: int, offset: int, cuts: int = 3) -> bytes:
    data = bytearray(length)
    view, step = memoryview(data), max(1, length // cuts)
    pieces = [view[at : at + step] for at in range(0, length, step)]
    return bytes(data[: file.read_into(pieces, offset)])


@pytest.mark.parametrize("rw", [False, True])
def test_read_write_and_mapped_pages_are_one_file(tmp_path: Path, rw: bool) -> None:
    content = bytearray(os.urandom(10 * PAGE + 100))
    (tmp_path / "file").write_bytes(content)
    memory = PhysicalMemory(4 << 20)
    cache = PageCache(memory)
    vfs = assemble(cache, rw=[str(tmp_path)] if rw else [])
    file = vfs.open(str(tmp_path / "file"), O_RDWR)
    inode = file.inode
    assert isinstance(inode, RegularFile)
    for index in (1, 2, 5, 10):
        cache.bring(inode, index, index)
    assert inode.pages is not None
    frames = inode.pages.frames
    assert bytes(memory.page(frames[5])) == content[5 * PAGE : 6 * PAGE]
    assert bytes(memory.page(frames[10])) == content[10 * PAGE :] + bytes(PAGE - 100)
    # A store through a shared mapping is seen by read() before it is written back, and by the file afterwards.
    memory.page(frames[2])[10:14] = content[2 * PAGE + 10 : 2 * PAGE + 14] = b"here"
    inode.pages.dirty.add(2)
    for offset in (0, 1, PAGE - 1, 2 * PAGE + 5, 3 * PAGE, 9 * PAGE + 50, 10 * PAGE + 99, 11 * PAGE):
        for length in (1, 100, PAGE, 3 * PAGE + 1, 12 * PAGE):
            assert read(file, length, offset) == content[offset : offset + length]
    # A write is seen through the mapping.
    text = os.urandom(6 * PAGE)
    view = memoryview(text)
    assert file.write_from([view[:5], view[5:9000], view[9000:]], PAGE + 7) == len(text)
    content[PAGE + 7 : PAGE + 7 + len(text)] = text
    for index in (1, 2, 5):
        assert bytes(memory.page(frames[index])) == content[index * PAGE : (index + 1) * PAGE]
    file.sync()
    assert read(file, len(content) + 5, 0) == content
    cache.forget(inode)
    assert read(file, len(content) + 5, 0) == content
    assert (bytes((tmp_path / "file").read_bytes()) == content) == rw


def test_truncation_reaches_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (3 * PAGE))
    memory = PhysicalMemory(4 << 20)
    cache = PageCache(memory)
    vfs = assemble(cache)
    file = vfs.open(str(tmp_path / "file"), O_RDWR)
    inode = file.inode
    assert isinstance(inode, RegularFile)
    frames = cache.bring(inode, 0, 2)
    file.truncate(PAGE + 10)
    assert sorted(frames) == [0, 1]
    assert bytes(memory.page(frames[1])) == b"x" * 10 + bytes(PAGE - 10)
    file.truncate(2 * PAGE)
    assert read(file, 4 * PAGE, PAGE) == b"x" * 10 + bytes(PAGE - 10)
    assert (tmp_path / "file").stat().st_size == 3 * PAGE


def test_a_hundred_megabytes_take_no_work_per_byte(tmp_path: Path) -> None:
    size, chunk = 100 << 20, 32 * PAGE
    with open(tmp_path / "big", "wb") as made:
        made.truncate(size)
    vfs = assemble(None)
    file = vfs.open(str(tmp_path / "big"), O_RDONLY)
    area = memoryview(bytearray(chunk))
    pieces = [area[at : at + PAGE] for at in range(0, chunk, PAGE)]
    fd = os.open(tmp_path / "big", os.O_RDONLY)

    def ours() -> int:
        file.seek(0, 0)
        return sum(iter(lambda: file.read_into(pieces), 0))

    def plain() -> int:
        os.lseek(fd, 0, 0)
        return sum(iter(lambda: os.readv(fd, pieces), 0))

    def cost(run: Callable[[], int]) -> float:
        start = time.process_time()
        assert run() == size
        return time.process_time() - start

    plain()  # the host's page cache is warm for both
    native, mine = (min(times) for times in zip(*[(cost(plain), cost(ours)) for _ in range(7)], strict=True))
    os.close(fd)
    assert mine < 2 * native + 0.02, f"{mine:.3f} s against {native:.3f} s for readv alone"


def test_many_small_files_need_few_descriptors() -> None:
    vfs = assemble(None)
    vfs.budget.descriptors = 20
    before = len(os.listdir("/proc/self/fd"))
    files = []
    for number in range(200):
        file = vfs.open(f"/tmp/f{number}", O_RDWR | O_CREAT, 0o600)
        file.write_from([memoryview(b"%d" % number)])
        files.append(file)
    assert len(os.listdir("/proc/self/fd")) - before <= 25
    for number, file in enumerate(files):
        assert read(file, 100, 0) == b"%d" % number


def test_unlinked_files_live_while_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"still here")
    for rw in (False, True):
        vfs = assemble(None, rw=[str(tmp_path)] if rw else [])
        file = vfs.open(str(tmp_path / "file"), O_RDONLY)
        file.hold()
        vfs.unlink(str(tmp_path / "file"))
        assert file.path == f"{tmp_path}/file (deleted)"
        assert read(file, 100, 0) == b"still here"
        file.close()


def test_anonymous_files() -> None:
    vfs = assemble(None)
    file = vfs.anonymous("memfd:shared", O_RDWR)
    file.write_from([memoryview(b"abc")], 10)
    assert file.path == "/memfd:shared (deleted)"
    assert file.inode.size == 13
    assert read(file, 100, 0) == bytes(10) + b"abc"
    assert vfs.discarded() == []


def test_names_that_can_be_found_again_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadstone.vfs.namespace.REMEMBERED_NAMES", 50)
    for number in range(200):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}/file").write_text(str(number))
    vfs = assemble(None)
    cwd = vfs.resolve(str(tmp_path / "d3"))
    change_mode(vfs.resolve(str(tmp_path / "d4/file")).inode, 0o600)
    identity = vfs.stat(str(tmp_path / "d5/file"))
    for number in range(200):
        vfs.stat(str(tmp_path / f"d{number}/file"))
    top = vfs.resolve(str(tmp_path)).dentry
    assert len(top.children) < 100
    assert vfs.stat(str(tmp_path / "d5/file")) is identity
    vfs.rename(str(tmp_path / "d3"), str(tmp_path / "moved"))
    assert cwd.path == str(tmp_path / "moved")
    assert [one.path for one in vfs.discarded() if one.kind == "attributes"] == [str(tmp_path / "d4/file")]


def test_pages_of_a_forgotten_file_are_given_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (3 * PAGE))
    memory = PhysicalMemory(4 << 20)
    cache = PageCache(memory)
    vfs = assemble(cache, rw=[str(tmp_path)])
    before = memory.usage()
    file = vfs.open(str(tmp_path / "file"), O_RDWR)
    file.hold()
    inode = file.inode
    assert isinstance(inode, RegularFile)
    memory.page(cache.bring(inode, 0, 2)[1])[:3] = b"new"
    assert inode.pages is not None
    inode.pages.dirty.add(1)
    vfs.sync()
    assert (tmp_path / "file").read_bytes()[PAGE : PAGE + 3] == b"new"
    vfs.unlink(str(tmp_path / "file"))
    file.close()
    del file, inode
    assert memory.usage() == before


def test_a_file_whose_making_was_interrupted_goes_quietly() -> None:
    """Ctrl-C may come between the making of the object and its first attribute."""
    with pytest.MonkeyPatch.context() as patch:
        unraisable: list[object] = []
        patch.setattr("sys.unraisablehook", unraisable.append)
        unfinished = RegularFile.__new__(RegularFile)
        del unfinished
        assert not unraisable
