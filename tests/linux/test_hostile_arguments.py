"""Whatever a program passes to a system call, it gets an answer: no exception of Python's, no hang, no memory flood."""

from __future__ import annotations

import os
import resource

import pytest

from support.compilers import Compiler
from support.hostile import attack
from support.run import loadstone

GROWTH = 200 << 10  # KiB of host memory: a machine here has 64 MiB, and its overlay holds what the calls write


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("traced", [False, True], ids=["untraced", "traced"])
def test_every_call_answers_hostile_arguments(traced: bool) -> None:
    _survives(1 + traced, 8, traced=traced)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 30))
def test_every_call_answers_many_hostile_arguments(seed: int) -> None:
    _survives(seed, 100, traced=seed % 2 == 1)


def _survives(seed: int, rounds: int, *, traced: bool) -> None:
    attack(seed, 1, traced=traced)  # what is imported, and what the host's C library keeps
    descriptors, before = open_descriptors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert attack(seed, rounds, traced=traced) > 300 * rounds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH
    assert open_descriptors() <= descriptors


# Through the scheduler, with a CPU: the program calls everything but what would end it or take its memory away, with
# numbers and pointers at random. A timer interrupts what waits.
MONKEY = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static const int spared[] = {
  SYS_exit, SYS_exit_group, SYS_execve, SYS_execveat, SYS_munmap, SYS_mmap, SYS_mremap, SYS_mprotect, SYS_brk,
  SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_sigaltstack, SYS_setitimer, SYS_alarm,
  SYS_arch_prctl, SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_madvise, SYS_prctl,
  SYS_rseq, SYS_ppoll, SYS_pselect6, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_rt_sigtimedwait, SYS_setrlimit,
  SYS_prlimit64, SYS_fork, SYS_vfork, SYS_clone, SYS_clone3, SYS_pkey_mprotect, SYS_remap_file_pages, SYS_shmat,
};
enum { SIZE = 1 << 16 };
static char *arena;
static uint64_t state;

static uint64_t next(void) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}

static long argument(void) {
  switch (next() % 6) {
    case 0: return (long)arena + next() % SIZE;
    case 1: return next() % 20;
    case 2: return -(long)(next() % 200);
    case 3: return 1L << next() % 64;
    case 4: return (long)next();
    default: return (long)arena + 4096 * (next() % 15);
  }
}

static void nothing(int number) {}

int main(int argc, char **argv) {
  struct itimerval soon = {{0, 1000}, {0, 1000}};
  struct sigaction action = {.sa_handler = nothing};
  state = atoi(argv[1]) * 2654435761u + 1;
  arena = mmap((void *)0x10000000, SIZE, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  sigaction(SIGALRM, &action, 0);
  setitimer(ITIMER_REAL, &soon, 0);
  for (int signal = 1; signal < 32; signal++)
    if (signal == SIGPIPE || signal == SIGXFSZ) sigaction(signal, &action, 0);
  for (int i = atoi(argv[2]); i > 0; i--) {
    long number = next() % 470;
    for (unsigned j = 0; j < sizeof spared / sizeof *spared; j++)
      if (number == spared[j]) number = SYS_getpid;
    for (int j = 0; j < 4; j++) *(long *)(arena + next() % (SIZE - 8)) = argument();
    strcpy(arena + 4096 * (next() % 15), next() % 2 ? "/tmp/monkey" : "/dev/zero");
    syscall(number, argument(), argument(), argument(), argument(), argument(), argument());
  }
  return 42;
}
"""


@pytest.mark.parametrize(
    ("seed", "calls"), [(1, 10_000), *(pytest.param(n, 100_000, marks=pytest.mark.slow) for n in range(2, 6))]
)
def test_a_program_that_calls_at_random_comes_to_its_end(seed: int, calls: int, compiled: Compiler) -> None:
    program = compiled(MONKEY, "static")
    done = loadstone("run", "--deterministic", "--timeout", "100", "--", program, str(seed), str(calls))
    assert done.status == 42, done.errors[-2000:]
