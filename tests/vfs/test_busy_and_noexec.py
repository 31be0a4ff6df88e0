"""Programs that are being written, files that are being executed, and directories from which nothing is executed."""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
from collections.abc import Iterator
from errno import EACCES, EPERM, ETXTBSY
from pathlib import Path

import pytest

from loadstone.errors import LinuxError
from loadstone.verify.host_world import HostWorld
from loadstone.vfs.flags import O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY
from support.run import loadstone, native, same

BUSY = """
cp /bin/true program
exec 9>>program; ./program; echo open for writing: $?; exec 9>&-
./program; echo closed: $?
cp /bin/cat running; mkfifo there back
./running < there > back & exec 8> there 7< back
echo it runs >&8; read -r -u 7 line; echo "$line"
(echo x >> running); echo append: $?
(: > running) 2>/dev/null; echo empty: $?
truncate -s 0 running; echo truncate: $?
cp --remove-destination /bin/true running; echo replace: $?; (echo x >> running); echo another file: $?
cp /bin/cat again; exec 8>&-; wait
./again < /dev/null; (echo x >> again); echo afterwards: $?
printf '#!/bin/sh\\necho "# more" >> "$0" && echo a script may change itself\\n' > script; chmod +x script; ./script
"""

NOEXEC = """
"$1/true"; echo "program: $?"
"$1/script"; echo "script: $?"
/bin/sh "$1/script"; echo "read by a shell: $?"
test -x "$1/true"; echo "test -x: $?"
test -r "$1/true"; echo "test -r: $?"
/lib64/ld-linux-x86-64.so.2 "$1/true"; echo "by the loader: $?"
"""

MAPPED = """
import mmap, os, sys
fd = os.open(sys.argv[1] + "/true", os.O_RDONLY)
for prot in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_EXEC):
    try:
        mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, prot)
        print(prot, "mapped")
    except OSError as error:
        print(prot, error.errno)
print(bool(os.statvfs(sys.argv[1]).f_flag & os.ST_NOEXEC), os.access(sys.argv[1] + "/true", os.X_OK))
"""


@pytest.fixture
def world() -> Iterator[HostWorld]:
    here = HostWorld()
    yield here
    here.close()


@pytest.mark.parametrize("options", [(), ("--rw", ".")], ids=["overlay", "rw"])
def test_busy_files_as_on_the_kernel(tmp_path: Path, options: tuple[str, ...]) -> None:
    for side in ("native", "own"):
        (tmp_path / side).mkdir()
    natively = native("/bin/bash", "-c", BUSY, cwd=tmp_path / "native")
    ours = loadstone("run", *options, "--", "/bin/bash", "-c", BUSY, cwd=tmp_path / "own")
    assert ours.stdout == natively.stdout and ours.guest_stderr == natively.guest_stderr
    assert b"open for writing: 126" in ours.stdout and b"append: 1" in ours.stdout


def test_counts_of_writers_and_of_executors(world: HostWorld, tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(Path("/bin/true").read_bytes())
    path.chmod(0o755)
    image = world.exec(str(path))
    for flags in (O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_WRONLY | O_TRUNC):
        with pytest.raises(LinuxError) as error:
            world.vfs.open(str(path), flags)
        assert error.value.errno == ETXTBSY
    with pytest.raises(LinuxError) as error:
        world.vfs.truncate(str(path), 0)
    assert error.value.errno == ETXTBSY
    reader = world.vfs.open(str(path), O_RDONLY)  # reading is nobody's business
    reader.hold()
    other = world.exec(str(path))
    image.space.release()
    with pytest.raises(LinuxError):
        world.vfs.open(str(path), O_WRONLY)
    other.space.release()
    first, second = (world.vfs.open(str(path), O_WRONLY) for _ in range(2))
    for file in (first, second):
        file.hold()
        with pytest.raises(LinuxError) as error:
            world.exec(str(path))
        assert error.value.errno == ETXTBSY
    first.close()
    with pytest.raises(LinuxError):
        world.exec(str(path))
    second.close()
    world.exec(str(path)).space.release()
    reader.close()


def test_a_failed_exec_leaves_no_trace(world: HostWorld, tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF".ljust(64, b"\0"))
    path.chmod(0o755)
    with pytest.raises(LinuxError):
        world.exec(str(path))
    file = world.vfs.open(str(path), O_WRONLY)
    file.hold()
    file.close()


def test_the_loader_may_be_written_while_it_is_used(world: HostWorld) -> None:
    """Only the program itself is protected (mm->exe_file); its interpreter is let go when it is mapped."""
    image = world.exec("/bin/true")
    assert image.interpreter is not None
    assert image.interpreter.inode.write_count == 0 and image.program.inode.write_count == -1
    image.space.release()
    assert image.program.inode.write_count == 0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    fill(place)
    return place


def fill(place: Path) -> None:
    (place / "true").write_bytes(Path("/bin/true").read_bytes())
    (place / "script").write_text("#!/bin/sh\necho hello\n")
    for name in ("true", "script"):
        (place / name).chmod(0o755)


def test_a_directory_of_the_guest(directory: Path) -> None:
    options = ("--noexec", str(directory))
    done = loadstone("run", *options, "--", "/bin/bash", "-c", NOEXEC, "x", str(directory))
    for line in ("program: 126", "script: 126", "read by a shell: 0", "test -x: 1", "test -r: 0", "by the loader: 127"):
        assert line in done.text.splitlines()
    mapped = loadstone("run", *options, "--", sys.executable, "-S", "-c", MAPPED, str(directory))
    assert mapped.text == f"1 mapped\n5 {EPERM}\nTrue False\n"
    assert loadstone("run", "--", str(directory / "true")).status == 0


def test_a_directory_that_is_not_there() -> None:
    done = loadstone("run", "--noexec", "/nowhere", "--", "/bin/true")
    assert done.status == 125 and "--noexec: /nowhere" in done.errors


def test_what_the_host_mounted_noexec(tmp_path: Path) -> None:
    """In a mount namespace of its own: the host's kernel and Loadstone, of the same tmpfs."""
    if os.geteuid():
        pytest.skip("only root can mount")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = in_namespace(tmp_path)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 77:
        pytest.skip("a mount namespace is not allowed here")
    assert status == 0


def in_namespace(place: Path) -> int:
    libc = ctypes.CDLL(None)
    private, noexec = 0x44000, 8  # MS_REC | MS_PRIVATE, MS_NOEXEC
    if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, ctypes.c_ulong(private), None):
        return 77
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", ctypes.c_ulong(noexec), None):
        return 77
    fill(place)
    text = same("/bin/bash", "-c", NOEXEC, "x", str(place)).text
    same(sys.executable, "-S", "-c", MAPPED, str(place))
    world = HostWorld()
    with pytest.raises(LinuxError) as error:
        world.exec(str(place / "true"))
    world.close()
    return 0 if "program: 126" in text and error.value.errno == EACCES else 1
