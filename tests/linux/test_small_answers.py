"""Answers in which details count: how long a CPU mask is, which bits statx says it knows, what has no access list."""

from __future__ import annotations

from pathlib import Path

from support.compilers import Compiler
from support.run import same

AFFINITY = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
  unsigned long mask[512];
  for (int size = 0; size <= 1024; size += size < 64 ? 4 : 64) {
    errno = 0;
    long length = syscall(SYS_sched_getaffinity, 0, size, mask);
    printf("%d: %ld %d\n", size, length, errno);
  }
}
"""


def test_a_cpu_mask_is_as_long_as_natively(compiled: Compiler) -> None:
    same(compiled(AFFINITY))


STATX = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

int main(void) {
  struct statx s;
  for (unsigned mask = 0x1000; mask <= 0x5000; mask += 0x4000) {
    statx(AT_FDCWD, "/proc/self/stat", 0, mask | STATX_BASIC_STATS, &s);
    printf("%x %llx %d\n", s.stx_mask, (unsigned long long)s.stx_attributes_mask, s.stx_mnt_id >> 31 != 0);
  }
}
"""


def test_statx_says_what_it_knows(compiled: Compiler) -> None:
    same(compiled(STATX))


def test_the_first_program_is_a_job_of_somebodys_session() -> None:
    script = "import os; os.setpgid(0, 0); print(os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid())"
    assert same("/usr/bin/python3", "-c", script).text == "True False\n"


LISTS = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

int main(void) {
  static const char *names[] = {"system.posix_acl_access", "system.posix_acl_default"};
  static const char *files[] = {"pipe", "link", ".", "/proc/self/stat"};
  char value[100];
  mkfifo("pipe", 0600);
  symlink("pipe", "link");
  for (int n = 0; n < 2; n++)
    for (int f = 0; f < 4; f++) {
      errno = 0;
      long r = lgetxattr(files[f], names[n], value, 100);
      printf("%s %s: %ld %d\n", files[f], names[n], r, errno);
    }
  unlink("pipe");
  unlink("link");
}
"""


def test_no_file_has_an_access_control_list(compiled: Compiler, tmp_path: Path) -> None:
    same(compiled(LISTS), cwd=tmp_path)
