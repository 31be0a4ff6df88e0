"""seccomp(2): the same answers, ends and notices as on the host's kernel, and nothing answered past a filter."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from support.compilers import Compiler
from support.run import loadstone, native, same

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


@pytest.mark.skipif(shutil.which("file") is None, reason="there is no file(1) here")
def test_file_sandboxes_itself() -> None:
    line = ["/usr/bin/file", "-b", sys.executable, str(SOURCE), "/dev/null", "/"]
    same(*line)
    traced = loadstone("run", "--trace", "syscall", "--", *line)
    if "seccomp(" not in traced.errors and "PR_SET_SECCOMP" not in traced.errors:
        pytest.skip("this file(1) is built without libseccomp")
