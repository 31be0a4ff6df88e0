"""No write reaches the host outside --rw, and nothing of the host but files, directories and links is opened."""

from __future__ import annotations

import gc
import inspect
import os
import socket
import sys
from collections.abc import Callable, Iterator
from errno import EACCES, EBUSY, ENOENT, ENOSPC, ENXIO, EXDEV
from pathlib import Path

import pytest

from loadstone.errors import HostError, LinuxError
from loadstone.vfs.assemble import assemble
from loadstone.vfs.attributes import change_mode, change_owner, change_times
from loadstone.vfs.file import OpenFile
from loadstone.vfs.flags import O_CREAT, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY, S_IFIFO
from loadstone.vfs.generated import MagicLink
from loadstone.vfs.namespace import Origin
from loadstone.vfs.vfs import Vfs
from support.trees import snapshot

DATA = memoryview(b"written by the guest")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """`out` is to be left alone; `rw` is handed over. Links lead from each to the other."""
    for name in ("out/deep", "rw/sub"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out/secret").write_bytes(b"keep me")
    (tmp_path / "out/deep/file").write_bytes(b"keep me too")
    (tmp_path / "rw/mine").write_bytes(b"change me")
    os.symlink("../out/secret", tmp_path / "rw/up")
    os.symlink(str(tmp_path / "out"), tmp_path / "rw/absolute")
    os.symlink("../out/new", tmp_path / "rw/dangling")
    os.symlink("../rw/mine", tmp_path / "out/inward")
    return tmp_path


def guest(host: Path, **options: object) -> Vfs:
    return assemble(None, rw=[str(host / "rw")], **options)  # type: ignore[arg-type]


def put(vfs: Vfs, path: str, flags: int = O_WRONLY) -> OpenFile:
    file = vfs.open(path, flags, 0o644)
    assert file.write_from([DATA]) == len(DATA)
    return file


def error(action: Callable[[], object]) -> int:
    with pytest.raises(LinuxError) as raised:
        action()
    return raised.value.errno


def test_ways_out_of_the_rw_directory_end_in_the_overlay(host: Path) -> None:
    before = snapshot(host / "out")
    vfs, rw, out = guest(host), str(host / "rw"), str(host / "out")
    for path in ("/up", "/absolute/secret", "/../out/secret", "/sub/../../out/deep/file", "/absolute/deep/../secret"):
        put(vfs, rw + path)
    put(vfs, rw + "/dangling", O_WRONLY | O_CREAT)
    put(vfs, rw + "/absolute/fresh", O_WRONLY | O_CREAT)
    put(vfs, out + "/secret", O_WRONLY | O_TRUNC)
    vfs.truncate(rw + "/up", 1)
    change_mode(vfs.resolve(rw + "/up").inode, 0o777)
    change_owner(vfs.resolve(rw + "/absolute/deep").inode, 1, 1)
    change_times(vfs.resolve(rw + "/up").inode, (1, 1))
    vfs.mkdir(rw + "/absolute/d", 0o755)
    vfs.symlink("x", rw + "/../out/link")
    vfs.unlink(rw + "/absolute/secret")
    vfs.rename(out + "/deep", out + "/moved")
    put(vfs, out + "/moved/file")
    file = vfs.open(out, O_RDWR | O_TMPFILE, 0o600)
    file.write_from([DATA])
    vfs.mknod(out + "/fifo", S_IFIFO | 0o644)
    assert snapshot(host / "out") == before
    assert not (host / "out/new").exists()


def test_links_and_renames_do_not_cross_the_boundary(host: Path) -> None:
    before = snapshot(host / "out")
    vfs, rw, out = guest(host), str(host / "rw"), str(host / "out")
    assert error(lambda: vfs.link(out + "/secret", rw + "/hard")) == EXDEV
    assert error(lambda: vfs.link(rw + "/mine", out + "/hard")) == EXDEV
    assert error(lambda: vfs.link(rw + "/absolute/secret", rw + "/hard")) == EXDEV
    assert error(lambda: vfs.rename(out + "/secret", rw + "/mine")) == EXDEV
    assert error(lambda: vfs.rename(rw + "/mine", out + "/secret")) == EXDEV
    assert error(lambda: vfs.rename(rw + "/sub", out + "/sub")) == EXDEV
    assert error(lambda: vfs.rename(rw, str(host / "elsewhere"))) == EBUSY
    assert error(lambda: vfs.rmdir(rw)) == EBUSY
    file = vfs.open(out, O_RDWR | O_TMPFILE, 0o600)
    assert error(lambda: vfs.link("", rw + "/hard", Origin(file.location), empty=True)) == EXDEV
    assert snapshot(host / "out") == before
    assert (host / "rw/mine").read_bytes() == b"change me"


def test_an_open_descriptor_or_magic_link_does_not_write_through(host: Path) -> None:
    before = snapshot(host / "out")
    vfs, out = guest(host), str(host / "out")
    reader = vfs.open(out + "/secret", O_RDONLY)
    place = vfs.open(out + "/secret", O_PATH).location
    link = MagicLink(lambda: "fd", lambda: place)
    vfs.mount("/proc", type(vfs.resolve("/proc").inode)(1, 1, 0o40555))
    again = vfs.open_location(link.follow() or vfs.root, O_RDWR)
    assert again.write_from([DATA]) == len(DATA)
    data = bytearray(100)
    assert reader.read_into([memoryview(data)]) == len(DATA)  # one file: the reader sees what was written
    directory = vfs.open(out + "/deep", O_RDONLY).location
    vfs.open("file", O_WRONLY | O_TRUNC, 0, Origin(directory))
    vfs.open("../secret", O_WRONLY | O_TRUNC, 0, Origin(directory))
    assert snapshot(host / "out") == before


def test_the_rw_directory_is_really_written(host: Path) -> None:
    vfs, rw = guest(host), str(host / "rw")
    put(vfs, rw + "/mine", O_WRONLY | O_TRUNC)
    put(vfs, rw + "/sub/new", O_WRONLY | O_CREAT)
    put(vfs, str(host / "out/inward"))
    file = vfs.open(rw, O_RDWR | O_TMPFILE, 0o640)
    file.write_from([DATA])
    vfs.link("", rw + "/named", Origin(file.location), empty=True)
    vfs.rename(rw + "/sub", rw + "/moved")
    assert (host / "rw/mine").read_bytes() == bytes(DATA)
    assert (host / "rw/moved/new").read_bytes() == bytes(DATA)
    assert (host / "rw/named").read_bytes() == bytes(DATA)
    assert (host / "rw/named").stat().st_mode & 0o777 == 0o640
    assert vfs.discarded() == []
    assert vfs.keep_option() == ""


def test_special_files_of_the_host_are_seen_and_never_opened(host: Path) -> None:
    os.mkfifo(host / "out/fifo")
    os.mkfifo(host / "rw/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host / "out/socket"))
    vfs = guest(host)
    for where in ("out", "rw"):
        assert vfs.stat(str(host / where / "fifo")).mode >> 12 == 1
        for flags in (O_RDONLY, O_WRONLY, O_RDWR):
            assert error(lambda w=where, f=flags: vfs.open(str(host / w / "fifo"), f)) == EACCES  # type: ignore[misc]
    assert error(lambda: vfs.open(str(host / "out/socket"), O_RDONLY)) == ENXIO
    for name in ("proc/1/environ", "sys/kernel", "dev/kmsg", "proc/self/mem"):
        assert error(lambda n=name: vfs.open("/" + n, O_RDONLY)) == ENOENT  # type: ignore[misc]


def test_a_device_of_the_host_is_never_opened(host: Path) -> None:
    try:
        os.mknod(host / "out/null", 0o020666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device takes root")
    vfs = guest(host)
    assert vfs.stat(str(host / "out/null")).rdev == os.makedev(1, 3)
    assert error(lambda: vfs.open(str(host / "out/null"), O_RDONLY)) == EACCES


def test_a_link_put_in_place_of_a_file_by_the_host_is_not_followed(host: Path) -> None:
    vfs, path = guest(host), host / "rw/mine"
    vfs.stat(str(path))
    path.unlink()
    path.symlink_to("../out/secret")
    put(vfs, str(path))
    assert (host / "out/secret").read_bytes() == b"keep me"


def test_untrusted_sees_only_what_it_was_given(host: Path) -> None:
    vfs = assemble(None, visible=[str(host / "out/inward")])
    assert vfs.stat(str(host / "rw/mine")).size == len(b"change me")
    assert [entry[0] for entry in vfs.resolve(str(host / "out")).inode.entries()] == ["inward"]
    for path in (host / "out/secret", host / "rw/up", Path("/etc/passwd")):
        assert error(lambda p=path: vfs.stat(str(p))) == ENOENT  # type: ignore[misc]
    put(vfs, str(host / "out/secret"), O_WRONLY | O_CREAT)
    assert (host / "out/secret").read_bytes() == b"keep me"


def test_the_overlay_is_bounded(host: Path) -> None:
    vfs = guest(host, limit=1 << 20)
    file = vfs.open("/tmp/big", O_WRONLY | O_CREAT, 0o600)
    piece = memoryview(bytes(1 << 18))

    def fill() -> None:
        for _ in range(8):
            file.write_from([piece])

    assert error(fill) == ENOSPC
    sparse = vfs.open("/tmp/sparse", O_WRONLY | O_CREAT, 0o600)
    assert error(lambda: [sparse.write_from([piece], 1 << 40) for _ in range(9)]) == ENOSPC
    file.truncate(0)
    assert sparse.write_from([piece], 1 << 40) == len(piece)


def test_names_count_as_well(host: Path) -> None:
    """A loop over mkdir, symlink, link or mkfifo ends; what is removed may be made again; a rename costs nothing."""
    vfs, out = guest(host, limit=1 << 20), str(host / "out")
    before = vfs.budget.used
    put(vfs, out + "/new", O_WRONLY | O_CREAT)
    made: dict[str, Callable[[str], None]] = {
        "d": lambda path: vfs.mkdir(path, 0o755),
        "l": lambda path: vfs.link(out + "/new", path),
        "s": lambda path: vfs.symlink("x" * 3000, path),
        "f": lambda path: vfs.mknod(path, S_IFIFO | 0o644),
        "../rw/f": lambda path: vfs.mknod(path, S_IFIFO | 0o644),
    }
    for name, make in made.items():
        count = 0
        try:
            while count < 2000:
                make(f"{out}/{name}{count}")
                count += 1
        except LinuxError as full:
            assert full.errno == ENOSPC
        assert 200 < count < 1100, name
        vfs.rename(f"{out}/{name}0", f"{out}/{name}{count}")
        for number in range(1, count + 1):
            (vfs.rmdir if name == "d" else vfs.unlink)(f"{out}/{name}{number}")
    vfs.unlink(out + "/new")
    gc.collect()
    assert vfs.budget.used == before


def test_discarded_says_what_and_how_to_keep_it(host: Path) -> None:
    vfs, out = guest(host), str(host / "out")
    put(vfs, out + "/new", O_WRONLY | O_CREAT)
    put(vfs, out + "/deep/file", O_WRONLY | O_TRUNC)
    vfs.unlink(out + "/secret")
    put(vfs, "/dev/shm/x", O_WRONLY | O_CREAT)
    put(vfs, out + "/temporary", O_WRONLY | O_CREAT)
    vfs.unlink(out + "/temporary")
    found = vfs.discarded()
    assert [tuple(one) for one in found] == [
        (out + "/deep/file", len(DATA), "file"),
        (out + "/new", len(DATA), "file"),
        (out + "/secret", 0, "removed"),
    ]
    assert vfs.keep_option() == f"--rw {out}"


@pytest.fixture
def small_stack() -> Iterator[int]:
    """Room for 120 more calls of Python, which is the value."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 120)
    yield 120
    sys.setrecursionlimit(before)


def test_trees_may_be_deeper_than_the_stack_of_python(host: Path, small_stack: int) -> None:
    """In the overlay and on the host: made, walked up again, listed at the end of the run, taken away."""
    vfs = guest(host)
    depth = 2 * small_stack
    for top in (str(host / "rw"), str(host / "out")):
        place = vfs.resolve(top)
        for _ in range(depth):
            vfs.mkdir("d", 0o755, Origin(place))
            place = vfs.resolve("d", Origin(place))
        vfs.open("file", O_WRONLY | O_CREAT, 0o644, Origin(place)).write_from([DATA])
        assert place.path == top + "/d" * depth
        assert place.inode.host_path == (place.path if top.endswith("rw") else "")
    assert len(vfs.discarded()) == depth + 1
    assert vfs.keep_option() == f"--rw {host / 'out'}"
    bottom = place = vfs.resolve("d/" * depth, Origin(vfs.resolve(str(host / "rw"))))
    for reference in list(vfs.resolve("/").inode.fs.tree.descriptors.open.values()):  # type: ignore[attr-defined]
        reference().close()  # as when many other directories were looked at since
    assert [name for name, _, _ in bottom.inode.entries()] == ["file"]
    vfs.unlink("file", Origin(bottom))
    while place.path != str(host / "rw"):
        place = place.parent
        vfs.rmdir("d", Origin(place))


def test_a_file_gets_a_name_though_the_one_it_was_opened_by_is_gone(host: Path) -> None:
    vfs, rw = guest(host), str(host / "rw")
    vfs.link(rw + "/mine", rw + "/second")
    file = vfs.open(rw + "/mine", O_RDONLY)
    vfs.unlink(rw + "/mine")
    assert file.location is not None
    vfs.link("", rw + "/third", Origin(file.location), empty=True)
    assert (host / "rw/third").read_bytes() == b"change me"
    assert (host / "rw/third").samefile(host / "rw/second")


def test_bind_and_root(host: Path) -> None:
    vfs = assemble(None, host_root=str(host / "rw"), binds=[(str(host / "out"), "/mnt/o")])
    assert vfs.stat("/mnt/o/secret").size == 7
    assert vfs.resolve("/mnt/o/deep/../../..").path == "/"
    assert error(lambda: vfs.stat("/up")) == ENOENT
    put(vfs, "/mnt/o/secret", O_WRONLY)
    assert (host / "out/secret").read_bytes() == b"keep me"
    assert [one.path for one in vfs.discarded()] == ["/mnt/o/secret"]
    assert vfs.keep_option() == f"--rw {host / 'out'}"
    with pytest.raises(HostError, match="does not exist"):
        assemble(None, rw=[str(host / "nothing")])


def test_a_deterministic_guest_sees_nothing_of_the_hosts_numbers(host: Path) -> None:
    def shown(name: str) -> list[object]:
        top = host / name
        top.mkdir()
        for one in ("b", "c", "a") if name == "first" else ("a", "b", "c"):
            (top / one).write_text(one)
            os.utime(top / one, ns=(7 * len(name), 10**18))
        os.utime(top, ns=(1, 10**18))
        vfs = assemble(None, host_root=str(top), deterministic=True)
        found: list[object] = [entry[:3] for entry in vfs.open("/", O_RDONLY).next_entries()]
        for one in "abc":
            inode = vfs.stat("/" + one)
            found.append((inode.device, inode.inode, inode.atime_ns, inode.mtime_ns, inode.ctime_ns))
        return found

    assert shown("first") == shown("second")
