"""ptrace(2): a C program's view against the kernel's, and strace and gdb of the distribution inside the machine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from support.c_programs import source_of
from support.compilers import Compiler
from support.run import loadstone, native, same


def test_what_a_tracer_sees_and_does(compiled: Compiler) -> None:
    done = same(compiled(source_of("ptrace"), "pie"))
    assert len(done.text.splitlines()) > 85


@pytest.mark.parametrize("policy", ["fair", "priority"])
def test_under_other_policies(policy: str, compiled: Compiler) -> None:
    program = compiled(source_of("ptrace"), "static")
    assert loadstone("run", "--policy", policy, program).stdout == native(program).stdout


CALLS = r"""
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
  char text[8] = "";
  int ends[2], status;
  signal(SIGUSR1, SIG_IGN);
  pipe(ends);
  raise(SIGUSR1);
  open("/nonexistent/file", O_RDONLY);
  if (fork() == 0) { write(ends[1], "child", 5); _exit(3); }
  wait(&status);
  read(ends[0], text, 5);
  kill(getpid(), SIGTERM);
}
"""


def _calls(text: str) -> list[str]:
    """What strace wrote, without numbers that differ from run to run and calls that depend on the CPU's features."""
    lines = [re.sub(r"0x[0-9a-f]{5,}|(?<=[(= ])\d{2,}\b|/\* \d+ vars \*/", "N", line) for line in text.splitlines()]
    lines = [re.sub(" +", " ", line) for line in lines]
    return [line for line in lines if not re.search(r"brk|mmap|prlimit|rseq|getrandom|arch_prctl|execve", line)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace here")
def test_strace_of_the_distribution(compiled: Compiler, tmp_path: Path) -> None:
    program = compiled(CALLS, "static")
    line = ["/bin/sh", "-c", f"strace -ff -o trace {program}; echo $?; cat trace.*"]
    wanted, got = native(*line, cwd=tmp_path), loadstone("run", *line, cwd=tmp_path / "..")
    ours = _calls(got.text)
    assert ours == _calls(wanted.text)
    assert (
        ours[0] == "143" and any("SIGUSR1" in line for line in ours) and any("exited with 3" in line for line in ours)
    )


DEBUGGED = r"""
#include <stdio.h>
static int total;
__attribute__((noinline)) static int add(int a, int b) { int sum = a + b; total += sum; return sum; }
int main(void) {
  char text[16] = "hello";
  for (int i = 0; i < 3; i++)
    add(i, 10);
  printf("%s %d\n", text, total);
  return 0;
}
"""
SESSION = (
    "set pagination off", "break add", "run", "bt", "info args", "next", "print sum", "stepi", "continue",
    "watch total", "delete 1", "continue", "x/3i $pc", "set var total = 100", "finish", "delete", "print text",
    "catch syscall exit_group", "continue", "continue",
)  # fmt: skip


@pytest.mark.skipif(shutil.which("gdb") is None, reason="there is no gdb here")
def test_a_session_with_gdb_of_the_distribution(compiled: Compiler) -> None:
    program = compiled(DEBUGGED, "pie", "-g", "-O0")
    line = [
        "/usr/bin/env",
        "gdb",
        "-nx",
        "-batch",
        *[word for command in SESSION for word in ("-ex", command)],
        program,
    ]
    told = [re.sub(r"process \d+|0x7ff[0-9a-f]+", "N", done.text) for done in (native(*line), loadstone("run", *line))]
    if "Breakpoint 1, add" not in told[0]:
        pytest.skip("gdb cannot trace on this host")
    assert told[1] == told[0]
    assert "New value = 21" in told[1] and "hello 112" in told[1]
