"""What a guest does to files stays in the guest: nothing on the host changes but what `--rw` hands over."""

from __future__ import annotations

import os
import pty
from collections.abc import Callable
from pathlib import Path

import pytest

from support.compilers import Compiler
from support.run import ENVIRONMENT, loadstone, native, run_command
from support.trees import snapshot

VICTIMS = [*(f"plain{n}" for n in ("", *range(2, 10))), *"abcdefghi"]


def lay_out(top: Path) -> Path:
    """The directory that `escape.c` attacks."""
    (top / "sub").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "empty2").mkdir()
    for name in (*VICTIMS, "sub/inner"):
        (top / name).write_text(f"data of {name}\n")
    (top / "to-plain3").symlink_to("plain3")
    (top / "absolute-link").symlink_to(top / "plain3")
    os.link(top / "plain8", top / "plain8-hard")
    return top


def test_the_attack_works_where_nothing_stops_it(compiled: Compiler, tmp_path: Path) -> None:
    """Natively the same program changes everything: a test that cannot fail shows nothing."""
    top = lay_out(tmp_path / "victim")
    before = snapshot(top)
    done = native(compiled("escape", "static"), str(top))
    assert b"done" in done.stdout
    after = snapshot(top)
    assert len([name for name in before if before[name] != after.get(name)]) > 20


@pytest.mark.parametrize("variant", ["static", "pie", "musl-static"])
def test_no_write_reaches_the_host(variant: str, compiled: Compiler, tmp_path: Path) -> None:
    top = lay_out(tmp_path / "victim")
    before, root = snapshot(tmp_path), sorted(os.listdir("/"))
    got = loadstone("run", compiled("escape", variant), str(top), cwd=tmp_path)
    assert b"done" in got.stdout, got.errors
    assert snapshot(tmp_path) == before
    assert sorted(os.listdir("/")) == root
    succeeded = [line for line in got.text.splitlines() if not line.endswith(("not implemented", "permitted"))]
    assert len(succeeded) > 40, got.text  # the overlay took the writes; it did not just refuse them


def test_the_guest_sees_its_own_writes(compiled: Compiler, tmp_path: Path) -> None:
    """What the calls return inside is what they return natively, up to what a guest may not do at all."""
    wanted = native(compiled("escape", "static"), str(lay_out(tmp_path / "native" / "victim")))
    got = loadstone("run", compiled("escape", "static"), str(lay_out(tmp_path / "guest" / "victim")))
    allowed_to_differ = ("mknod", "SYS_", "setxattr", "chroot", '"/i"', "etc-not-there", "chown")
    for ours, theirs in zip(got.text.splitlines(), wanted.text.splitlines(), strict=True):
        if not any(word in theirs for word in allowed_to_differ):
            assert ours == theirs


PYTHON_ATTACK = """
import os, shutil, sys
top = sys.argv[1]
os.chdir(top)
with open("plain", "r+") as f: f.write("owned")
with open(f"/proc/{os.getpid()}/root{top}/plain2", "w") as f: f.write("owned")
with open("/proc/thread-self/cwd/plain3", "a") as f: f.write("owned")
fd = os.open(".", os.O_RDONLY)
os.unlink("a", dir_fd=fd); os.mkdir("new", dir_fd=fd); os.rename("b", "new/b", src_dir_fd=fd, dst_dir_fd=fd)
with open(f"/dev/fd/{os.open('c', os.O_RDONLY)}", "w") as f: f.write("owned")
os.link("d", "d2"); open("d2", "a").write("owned")
os.symlink(top, "loop"); open("loop/loop/loop/e", "w").write("owned")
os.truncate("f", 2); os.chmod("g", 0o777); os.utime("h", (1, 1))
shutil.rmtree("sub"); shutil.copytree("new", "/tmp/copied-by-the-guest")
os.replace("i", "plain9")
print(open("plain2").read(), open("d").read().split()[-1], sorted(os.listdir("new")), os.path.exists("sub"))
"""


def test_no_write_of_python_reaches_the_host(tmp_path: Path) -> None:
    top = lay_out(tmp_path / "victim")
    before = snapshot(tmp_path)
    got = loadstone("run", "/usr/bin/python3", "-c", PYTHON_ATTACK, str(top))
    assert (got.status, got.text) == (0, "owned owned ['b'] False\n"), got.errors
    assert snapshot(tmp_path) == before
    assert not os.path.exists("/tmp/copied-by-the-guest")


def test_rw_hands_over_one_directory_and_nothing_beside_it(tmp_path: Path) -> None:
    given, beside = lay_out(tmp_path / "given"), lay_out(tmp_path / "beside")
    before = snapshot(beside)
    script = 'echo changed > "$0/plain"; echo new > "$0/new"; echo changed > "$1/plain"; echo x > "$0/../beside/a"'
    got = loadstone("run", "--rw", str(given), "/bin/bash", "-c", script, str(given), str(beside))
    assert got.status == 0, got.errors
    assert (given / "plain").read_text() == "changed\n"
    assert (given / "new").read_text() == "new\n"
    assert snapshot(beside) == before


def test_rw_is_no_way_out_through_a_symlink(tmp_path: Path) -> None:
    """A link inside the directory that was handed over leads to the overlay's file, not to the host's."""
    given, beside = lay_out(tmp_path / "given"), lay_out(tmp_path / "beside")
    (given / "out").symlink_to(beside)
    (given / "out-file").symlink_to(beside / "plain")
    before = snapshot(beside)
    script = 'cd "$0"; echo x > out/a; echo x > out-file; echo x > out/new; echo x > ../beside/b'
    got = loadstone("run", "--rw", str(given), "/bin/bash", "-c", script, str(given))
    assert got.status == 0, got.errors
    assert snapshot(beside) == before


LINK_ATTACK = """
import os, sys
given, beside = sys.argv[1:]
def attempt(call, *args):
    try:
        call(*args)
    except OSError as error:
        print(error.strerror)
attempt(os.link, beside + "/a", given + "/stolen")
attempt(lambda: open(given + "/stolen", "a").write("owned"))
attempt(os.symlink, beside, given + "/made")
attempt(lambda: open(given + "/made/b", "a").write("owned"))
attempt(os.rename, beside + "/c", given + "/moved")
attempt(os.rename, given + "/d", beside + "/moved")
attempt(os.unlink, given + "/../beside/e")
"""


def test_links_made_by_the_guest_are_no_way_out_of_rw(tmp_path: Path) -> None:
    """A hard link of a host file inside the directory that is handed over would be the host's file itself."""
    given, beside = lay_out(tmp_path / "given"), lay_out(tmp_path / "beside")
    before = snapshot(beside)
    got = loadstone("run", "--rw", str(given), "/usr/bin/python3", "-c", LINK_ATTACK, str(given), str(beside))
    assert got.status == 0, got.errors
    assert snapshot(beside) == before


def test_rw_of_what_does_not_exist_is_an_error(tmp_path: Path) -> None:
    got = loadstone("run", "--rw", str(tmp_path / "missing"), "/bin/true")
    assert got.status == 125
    assert "missing" in got.errors
    assert "Traceback" not in got.errors


def test_untrusted_hides_home_and_the_rest(compiled: Compiler, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").write_text("secret")
    env = {**ENVIRONMENT, "HOME": str(home), "TOKEN": "secret"}
    look = r"""
#include <dirent.h>
#include <stdio.h>
#include <fcntl.h>
#include <errno.h>
extern char **environ;
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        int fd = open(argv[i], O_RDONLY);
        printf("%d %d\n", fd >= 0, fd < 0 ? errno : 0);
    }
    for (char **e = environ; *e; e++) puts(*e);
    return 0;
}
"""
    program = compiled(look, "pie")
    paths = [str(home / "secret"), "/etc/passwd", "/root", str(tmp_path)]
    got = loadstone("run", "--untrusted", program, *paths, env=env)
    assert got.status == 0, got.errors
    lines = got.text.splitlines()
    assert lines[:2] == ["0 2", "0 2"]
    assert "secret" not in got.text
    assert "HOME" not in got.text
    assert len(lines) == len(paths), "the environment is empty"


def test_the_host_s_proc_sys_and_dev_are_replaced() -> None:
    got = loadstone("run", "/bin/ls", "/dev")
    assert {"null", "zero", "full", "urandom", "tty"} <= set(got.text.split())
    assert not {"vda", "sda", "mem", "kmsg", "kvm"} & set(got.text.split())
    pids = [name for name in loadstone("run", "/bin/ls", "/proc").text.split() if name.isdigit()]
    assert pids == ["1", "1000"]  # init, and the program
    got = loadstone("run", "/bin/cat", f"/proc/{os.getpid()}/cmdline")
    assert got.status == 1


def test_a_host_fifo_is_never_opened(tmp_path: Path) -> None:
    """Opening one would wait for a peer of the host: it must come back at once with an error."""
    os.mkfifo(tmp_path / "fifo")
    got = loadstone("run", "/bin/cat", str(tmp_path / "fifo"))
    assert got.status == 1
    assert "fifo" in got.errors


def test_a_host_socket_and_device_are_never_opened(tmp_path: Path) -> None:
    import socket

    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    got = loadstone("run", "/bin/cat", str(tmp_path / "socket"))
    assert got.status == 1
    server.close()
    if os.geteuid():
        pytest.skip("making a device node needs root")
    try:
        os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 5))  # /dev/zero: reading it would never end
    except OSError as error:
        pytest.skip(f"this file system takes no device nodes: {error}")
    got = loadstone("run", "/usr/bin/head", "-c", "5", str(tmp_path / "null"))
    assert got.status == 1


def test_terminal_ioctls_that_reach_the_session_are_refused(compiled: Compiler) -> None:
    """TIOCSTI types into the user's shell; the others take the console. TIOCSCTTY is the guest's own affair."""
    program = compiled("terminal", "static")
    pid, master = pty.fork()
    if pid == 0:
        line = run_command(program, "/dev/tty")
        os.execve(line[0], line, dict(ENVIRONMENT))
    output = _read_all(master)
    os.waitpid(pid, 0)
    assert b"refused 111 isatty 1 winsize 0" in output


def _read_all(master: int) -> bytes:
    output = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # EIO: the other side is closed
            return output
        if not piece:
            return output
        output += piece


def test_no_network(find_program: Callable[[str], str]) -> None:
    script = "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9), 1)\n"
    script += "except OSError as e:\n    print('refused')"
    assert loadstone("run", "/usr/bin/python3", "-c", script).text == "refused\n"


def test_root_directory_is_all_that_is_seen(compiled: Compiler, tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root")
    busybox = "/bin/busybox"
    if not os.path.exists(busybox):
        pytest.skip("busybox is not installed")
    (root / "bin").mkdir()
    (root / "bin" / "busybox").write_bytes(Path(busybox).read_bytes())
    (root / "bin" / "busybox").chmod(0o755)
    (root / "out").symlink_to("/../../../../etc/passwd")
    got = loadstone("run", "--root", str(root), "/bin/busybox", "cat", "/plain", "/../../plain2", cwd="/")
    assert got.text == "data of plain\ndata of plain2\n", got.errors
    assert loadstone("run", "--root", str(root), "/bin/busybox", "cat", "/out", cwd="/").status == 1
    assert (
        loadstone("run", "--root", str(root), "/bin/busybox", "cat", str(tmp_path / "root/plain"), cwd="/").status == 1
    )


def test_bind_shows_a_directory_elsewhere(tmp_path: Path) -> None:
    top = lay_out(tmp_path / "victim")
    before = snapshot(top)
    script = "read x < /mnt/plain; echo $x; echo more > /mnt/new; read x < /mnt/new; echo $x"
    got = loadstone("run", "--bind", f"{top}:/mnt", "/bin/bash", "-c", script)
    assert got.text == "data of plain\nmore\n", got.errors
    assert snapshot(top) == before
