"""Core files inside the machine, by RLIMIT_CORE and kernel.core_pattern: the same names and sizes as natively."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.compilers import Compiler
from support.run import loadstone, native

SOURCE = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* argv[1] is the pattern, "" for none; argv[2] the limit. Prints what the child left: with its pid as PID. */
int main(int argc, char **argv) {
  int status;
  char command[600];
  char *area = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (*argv[1]) {
    int fd = open("/proc/sys/kernel/core_pattern", O_WRONLY);
    if (write(fd, argv[1], strlen(argv[1])) < 0) return 2;
    close(fd);
  }
  memcpy(area, "a page of the child's", 21);
  pid_t pid = fork();
  if (!pid) {
    struct rlimit limit = {atol(argv[2]), atol(argv[2])};
    setrlimit(RLIMIT_CORE, &limit);
    abort();
  }
  waitpid(pid, &status, 0);
  printf("%d %d\n", WTERMSIG(status), !!WCOREDUMP(status));
  fflush(stdout);
  snprintf(command, sizeof command,
           "for f in *; do [ -f \"$f\" ] &&"
           " echo \"$f $(stat -c '%%a %%s' \"$f\") $(grep -c \"page of the child's\" \"$f\")\""
           " | sed s/%d/PID/; done", pid);
  return system(command);
}
"""


def test_a_core_is_left_in_the_working_directory_of_the_machine(compiled: Compiler, tmp_path: Path) -> None:
    program = compiled(SOURCE, "static")
    for limit in ("0", "4095", "4096", "100000000"):
        done = loadstone("run", program, "", limit, cwd=tmp_path)
        dumped = int(limit) >= 4096
        assert done.text.splitlines()[0] == f"6 {int(dumped)}"
        files = done.text.splitlines()[1:]
        assert [line.split()[:2] for line in files] == ([["core", "600"]] if dumped else [])
        assert not dumped or limit == "4096" or files[0].endswith(" 1"), files
    assert not list(tmp_path.iterdir()), "the host has got a file"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can set the kernel's core_pattern, and put it back")
def test_the_name_is_what_the_pattern_makes_of_it(compiled: Compiler, tmp_path: Path) -> None:
    program = compiled(SOURCE, "static")
    setting = Path("/proc/sys/kernel/core_pattern")
    before = setting.read_bytes()
    for number, pattern in enumerate(("dump-%p", "%e.%s.%u.%g.%c", "a%%b%", "%q%f", "x-%E", "sub/none", "%d.core")):
        sides = []
        for side in (native, loadstone):
            here = tmp_path / f"{number}{side.__name__}"
            here.mkdir()
            try:
                line = [program, pattern, "100000000"]
                done = native(*line, cwd=here) if side is native else loadstone("run", *line, cwd=here)
            finally:
                setting.write_bytes(before)
            # The size differs by the CPU's extended state, and by the note on its layout.
            sides.append([" ".join(row.split()[:2] + row.split()[3:]) for row in done.text.splitlines()])
        assert sides[0] == sides[1], pattern


def test_a_program_as_pattern_is_counted_and_not_run(compiled: Compiler) -> None:
    done = loadstone("run", "--stats", compiled(SOURCE, "static"), "|/bin/cat", "100000000")
    assert done.text.startswith("6 0\n")
    assert "kernel.core_pattern" in done.errors


def test_readelf_reads_it(compiled: Compiler, tmp_path: Path) -> None:
    program = compiled(SOURCE, "static")
    done = loadstone("run", "--rw", str(tmp_path), program, "", "100000000", cwd=tmp_path)
    assert done.text.startswith("6 1\n"), done.errors
    told = subprocess.run(["readelf", "-h", tmp_path / "core"], capture_output=True, text=True, check=True).stdout
    assert "CORE (Core file)" in told
