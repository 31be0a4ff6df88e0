"""Locks whose owners die, locks with priority inheritance, and the newer futex calls: as natively, line by line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from loadstone.kernel.policies import make_policy
from loadstone.kernel.process import RUNNABLE
from support.c_programs import source_of
from support.compilers import Compiler
from support.run import loadstone, native, same


def test_robust_mutexes_of_threads_and_processes_that_end(compiled: Compiler) -> None:
    done = same(compiled(source_of("robust"), "pie"))
    assert "EOWNERDEAD" in done.text and "ENOTRECOVERABLE" in done.text


def test_locks_with_priority_inheritance_and_waits_on_several_words(compiled: Compiler) -> None:
    program = compiled(source_of("locks"), "pie")
    wanted, got = native(program), loadstone("run", program)
    assert got.status == wanted.status == 0
    ours, theirs = got.text.splitlines(), wanted.text.splitlines()
    assert len(ours) == len(theirs) > 80
    assert [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b and "ENOSYS" not in b] == []


@pytest.mark.parametrize("policy", ["round-robin", "fair", "priority"])
def test_locks_under_every_policy(policy: str, compiled: Compiler) -> None:
    program = compiled(source_of("robust"), "pie")
    assert loadstone("run", "--policy", policy, program).stdout == native(program).stdout


def test_who_has_what_a_real_time_task_waits_for_runs_before_others() -> None:
    def task(name: str, real_time: int = 0) -> Any:
        return SimpleNamespace(
            name=name, nice=0, real_time=real_time, inherited=0, runs_to_block=False, state=RUNNABLE, virtual_time=0.0
        )

    policy = make_policy("priority", None)
    owner, middle = task("owner"), task("middle", 10)
    policy.add(owner)
    policy.add(middle)
    owner.inherited = 20
    policy.moved(owner)
    chosen = [policy.next(), policy.next(), policy.next()]
    assert [one.name if one else None for one in chosen] == ["owner", "middle", None]


UNREADABLE = r"""
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
  char *area = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  FILE *file = tmpfile();
  ftruncate(fileno(file), 4096);
  char *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
  ftruncate(fileno(file), 0);
  munmap(area, 4096);
  mprotect(area + 4096, 4096, PROT_NONE);
  mprotect(area + 8192, 4096, PROT_READ);
  char *words[] = {area, area + 4096, area + 8192, shared};
  for (int i = 0; i < 4; i++)
    for (int op = 0; op < 3; op++) {
      long r = op == 2 ? syscall(SYS_futex, area + 8192, FUTEX_CMP_REQUEUE, 1, 1L, words[i], 0)
                       : syscall(SYS_futex, words[i], FUTEX_WAKE | (op ? FUTEX_PRIVATE_FLAG : 0), 1, 0, 0, 0);
      printf("%d %d: %s\n", i, op, r < 0 ? strerrorname_np(errno) : "0");
    }
}
"""


def test_words_that_cannot_be_read(compiled: Compiler) -> None:
    assert same(compiled("#define _GNU_SOURCE\n" + UNREADABLE)).text.count("EFAULT") == 8
