"""seccomp(2): the same answers, ends and notices as on the host's kernel, and nothing answered past a filter."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from support.compilers import Compiler
from support.run import ENVIRONMENT, loadstone, native, same

SOURCE = Path(__file__).parent / "programs" / "seccomp.c"


@pytest.mark.parametrize("options", [(), ("--trace", "syscall"), ("--policy", "fair")])
def test_filters_do_what_they_do_in_the_kernel(options: tuple[str, ...], compiled: Compiler) -> None:
    program = compiled(f'#include "{SOURCE}"\n', "pie")
    wanted, got = native(program), loadstone("run", *options, "--", program)
    assert got.stdout == wanted.stdout
    assert got.status == wanted.status == 0
    assert len(wanted.text.splitlines()) > 150


def test_calls_that_a_core_answers_itself_are_filtered(compiled: Compiler) -> None:
    done = same(compiled(f'#include "{SOURCE}"\n', "static"), "answered")
    assert sum(set(line.split()[:3]) == {"-1"} for line in done.text.splitlines()) == 6


UNDER_FILTER = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
code = b"".join(
    op.to_bytes(2, "little") + bytes((jt, jf)) + k.to_bytes(4, "little")
    for op, jt, jf, k in [(0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), (6, 0, 0, int(sys.argv[2], 0)),
                          (6, 0, 0, 0x7fff0000)]
)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(Program(4, code))) == 0
try:
    print(os.getpriority(os.PRIO_PROCESS, 0))
except OSError as error:
    print(error)
os.execv("/bin/sh", ["sh", "-c", "umask 77; umask; ls -d /"])
"""
GETPRIORITY, UMASK = 140, 95


@pytest.mark.parametrize(
    ("number", "action"), [(GETPRIORITY, "0x5000d"), (UMASK, "0x50026"), (UMASK, "0x80000000"), (UMASK, "0x30000")]
)
def test_python_and_the_shell_that_it_becomes(number: int, action: str) -> None:
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("there is no /usr/bin/python3 here")
    same("/usr/bin/python3", "-S", "-E", "-c", UNDER_FILTER, str(number), action)


def _same_in_sandbox(*line: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> str:
    """Compare a program that filters its own calls with itself on the host; skip the test where it does not."""
    traced = loadstone("run", "--trace", "syscall", "--", *line, stdin=stdin, env=env)
    if "SECCOMP_MODE_FILTER" not in traced.errors and "SECCOMP_SET_MODE_FILTER" not in traced.errors:
        pytest.skip(f"{line[0]} is built without libseccomp here")
    return same(*line, stdin=stdin, env=env).text


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
def test_man_formats_pages_in_its_sandbox(tmp_path: Path) -> None:
    page = tmp_path / "page.7"
    page.write_text(".TH PAGE 7 2026-01-01\n.SH NAME\npage \\- of a test\n")
    done = _same_in_sandbox("man", "-l", str(page), env={**ENVIRONMENT, "MANPAGER": "cat", "MANWIDTH": "60"})
    assert "page - of a test" in done


@pytest.mark.skipif(shutil.which("ctags") is None, reason="there is no ctags here")
def test_ctags_reads_what_it_is_given_in_its_sandbox() -> None:
    command = b'{"command":"generate-tags","filename":"a.c","size":16}\nint main(void);\n'
    done = _same_in_sandbox("ctags", "--_interactive=sandbox", stdin=command)
    assert "completed" in done


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace here")
def test_the_trace_reads_as_straces(compiled: Compiler) -> None:
    program = compiled(TRACED, "static")
    wanted = _calls(native("strace", program).errors)
    got = _calls(loadstone("run", "--trace", "syscall", "--", program).errors)
    assert got == wanted
    assert len(wanted) > 15


def _calls(text: str) -> list[str]:
    """The lines from the first seccomp call on, with single spaces, without addresses."""
    lines = [" ".join(line.replace("loadstone: ", "").split()) for line in text.splitlines()]
    first = next(index for index, line in enumerate(lines) if "SECCOMP" in line)
    return [_without_addresses(line) for line in lines[first:] if "SECCOMP" in line.upper() or "get" in line]


def _without_addresses(line: str) -> str:
    words = [("N" if word.strip("{},;)").rpartition("=")[2].startswith("0x7f") else word) for word in line.split()]
    return " ".join(words)


TRACED = r"""
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static void caught(int number) {}
int main(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 13),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getuid, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP | 2),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getgid, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  unsigned actions[] = {0x80000000, 0, 0x30000, 0x50000, 0x7fc00000, 0x7ff00000, 0x7ffc0000, 0x7fff0000, 0x12345678};
  struct seccomp_notif_sizes sizes;
  signal(SIGSYS, caught);
  for (int i = 0; i < 9; i++) syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &actions[i]);
  syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes);
  syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0x7f, &program);
  syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, 0L);
  syscall(SYS_seccomp, 9, 1, 0L);
  syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, 0L);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  prctl(PR_GET_SECCOMP);
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
  syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
  prctl(PR_GET_SECCOMP);
  syscall(SYS_getppid);
  syscall(SYS_getuid);
  syscall(SYS_getgid);
  syscall(SYS_getegid);
  ioctl(-1, SECCOMP_IOCTL_NOTIF_RECV, 0L);
  return 0;
}
"""
