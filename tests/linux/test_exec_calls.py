"""The exec calls as programs make them: the C library's family, execveat(2), the limits on arguments; native twins."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from support.c_programs import source_of
from support.compilers import Compiler
from support.run import ENVIRONMENT, loadstone, native, same

FAMILY = ("execl", "execlp", "execle", "execv", "execvp", "execvpe", "execve", "fexecve", "posix_spawn", "posix_spawnp")


@pytest.fixture(scope="module")
def family(compiled: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """exec_family, in a directory of its own."""
    place = tmp_path_factory.mktemp("bin") / "program"
    shutil.copy(compiled(source_of("exec_family")), place)
    return place


@pytest.mark.parametrize("function", FAMILY)
def test_the_exec_family(family: Path, function: str) -> None:
    environment = {**ENVIRONMENT, "PATH": f"/nonexistent:{family.parent}:{ENVIRONMENT['PATH']}"}
    got = same(str(family), function, str(family), family.name, env=environment)
    assert "argv[0]=zero\nargv[1]=show\nargv[2]=two\n" in got.text
    given = function in ("execle", "execvpe", "execve", "fexecve", "posix_spawn", "posix_spawnp")
    assert ("TEST=given" if given else "TEST=inherited") in got.text


@pytest.mark.parametrize("function", FAMILY)
def test_they_are_all_the_same_call(family: Path, function: str) -> None:
    environment = {**ENVIRONMENT, "PATH": str(family.parent)}
    done = loadstone("run", "--trace", "syscall", str(family), function, str(family), family.name, env=environment)
    calls = [line for line in done.errors.splitlines() if "execve" in line and '"zero"' in line]
    expected = "execveat(" if function == "fexecve" else f'execve("{family}"'
    assert len(calls) == 1 and expected in calls[0], done.errors[-3000:]


def test_execveat(compiled: Compiler, tmp_path: Path) -> None:
    program = compiled(source_of("execveat"))
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    wanted = native(program, str(there)).text.replace(str(there), "PLACE").splitlines()
    got = loadstone("run", program, str(here)).text.replace(str(here), "PLACE").splitlines()
    assert got == wanted
    assert len(got) > 35


LIMITS = """
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
static int start(char **argv, char **envp) {
  int status, ends[2], error = 0;
  pipe(ends);
  if (!fork()) {
    fcntl(ends[1], 2, 1);
    execve("/bin/true", argv, envp);
    error = errno;
    write(ends[1], &error, 4);
    _exit(1);
  }
  close(ends[1]);
  read(ends[0], &error, 4);
  close(ends[0]);
  wait(&status);
  return error;
}
static char *string(int length) { char *s = malloc(length + 1); memset(s, 'x', length); s[length] = 0; return s; }
static char **many(int count, char *one) {
  char **list = malloc((count + 1) * sizeof *list);
  for (int i = 0; i < count; i++) list[i] = one;
  list[count] = 0;
  return list;
}
int main(int argc, char **argv) {
  char *none[] = {0};
  if (argc == 4) { /* stack limit, length, count: does it pass? */
    struct rlimit limit = {atol(argv[1]), 64 << 20};
    setrlimit(RLIMIT_STACK, &limit);
    printf("%d\\n", start(many(atoi(argv[3]), string(atoi(argv[2]))), none));
    return 0;
  }
  for (int length = 131070; length <= 131073; length++) {
    char *one[] = {"x", string(length), 0}, *variable[] = {string(length), 0};
    printf("%d: %d %d\\n", length, start(one, none), start((char *[]){"x", 0}, variable));
  }
  char **hole = many(3, "x");
  hole[1] = (char *)8;
  printf("bad pointers: %d %d %d\\n", start(hole, none), start((char **)8, none), start(none, (char **)8));
  return 0;
}
"""


def test_limits_on_one_argument(compiled: Compiler) -> None:
    got = same(compiled(LIMITS))
    assert "131071: 0 0\n131072: 7 7\n" in got.text


@pytest.mark.parametrize(
    ("stack", "length"), [(8 << 20, 100_000), (64 << 20, 130_000), (512 << 10, 0), (100 << 10, 500)]
)
def test_limits_on_all_arguments(compiled: Compiler, stack: int, length: int) -> None:
    program = compiled(LIMITS)
    low, high = 1, 1 << 15
    while high - low > 1:  # the highest number of arguments that the kernel lets pass
        middle = (low + high) // 2
        passes = native(program, str(stack), str(length), str(middle)).text == "0\n"
        low, high = (middle, high) if passes else (low, middle)
    for count in (low, high):
        answer = same(program, str(stack), str(length), str(count)).text
        assert answer == ("0\n" if count == low else "7\n")


def test_set_id_bits_are_ignored_and_that_is_said(compiled: Compiler, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy(compiled(IDS), program)
    other = os.getegid() + 1
    try:
        os.chown(program, -1, other)
    except PermissionError:
        pytest.skip("only root can give a file to another group")
    program.chmod(0o2755)
    done = loadstone("run", str(program))
    assert done.text == f"{os.getegid()} {os.getegid()} 0\n"
    assert f"set-group-ID bits were ignored: {program} ran" in done.errors
    program.chmod(0o755)
    assert "ignored" not in loadstone("run", str(program)).errors


def test_set_id_bits_of_a_file_count_where_its_format_says_so(tmp_path: Path) -> None:
    """Flag C of binfmt_misc: the interpreter would run with the credentials of the file it is given."""
    file = tmp_path / "file.ext"
    file.write_text("text\n")
    try:
        os.chown(file, -1, os.getegid() + 1)
    except PermissionError:
        pytest.skip("only root can give a file to another group")
    file.chmod(0o2755)
    for flags, told in (("", False), ("O", False), ("C", True)):
        done = loadstone("run", "--binfmt", f":e:E::ext::/bin/true:{flags}", str(file))
        assert done.status == 0, done.errors
        assert (f"set-group-ID bits were ignored: {file} ran" in done.errors) == told


IDS = """
#include <stdio.h>
#include <sys/auxv.h>
#include <unistd.h>
int main(void) { printf("%d %lu %lu\\n", getegid(), getauxval(AT_EGID), getauxval(AT_SECURE)); }
"""


def test_a_shell_runs_what_no_handler_takes(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "text, run by $0"\n')
    script.chmod(0o755)
    same("/bin/sh", "-c", f"{script}; exec {script}")
