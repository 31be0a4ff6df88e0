"""fork, clone, wait, groups, orphans: one program natively and inside Loadstone, which must print the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.c_programs import both, source_of
from support.compilers import Compiler
from support.run import loadstone, same


@pytest.mark.parametrize("variant", ["pie", "static"])
def test_calls_on_processes_give_what_the_kernel_gives(variant: str, compiled: Compiler, tmp_path: Path) -> None:
    ours, theirs = both("processes", compiled, tmp_path, variant)
    assert [line for line in theirs if line.endswith("NO")] == []
    assert ours == theirs
    assert len(ours) > 100


def test_what_ends_with_a_thread_or_an_exec_is_what_ends_in_the_kernel(compiled: Compiler, tmp_path: Path) -> None:
    ours, theirs = both("lifetimes", compiled, tmp_path)
    assert [line for line in theirs if line.endswith("NO")] == []
    assert ours == theirs


DEADLOCK = r"""
#include <unistd.h>
#include <sys/wait.h>
int main(void) {
  int ends[2];
  char c;
  pipe(ends);
  if (fork() == 0) read(ends[0], &c, 1);
  wait(0);
}
"""


def test_who_waits_for_what_is_said_of_each_process(compiled: Compiler) -> None:
    done = loadstone("run", "--", compiled(DEADLOCK, "static"))
    assert done.status == 125
    assert "every task waits for ever" in done.errors
    assert "(tid 1000) for a child" in done.errors
    assert "(tid 1001) for data in pipe:[" in done.errors


KILLED_IN_VFORK = r"""
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
  pid_t parent = getpid();
  if (fork() == 0) {
    if (vfork() == 0) {
      kill(getppid(), SIGTERM); /* waits until this child is done */
      _exit(3);
    }
    _exit(4);
  }
  int status;
  wait(&status);
  printf("%d\n", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
  return getpid() != parent;
}
"""


def test_a_signal_for_who_waits_in_vfork_comes_afterwards(compiled: Compiler) -> None:
    done = loadstone("run", "--", compiled(KILLED_IN_VFORK, "static"))
    assert (done.text, done.status) == ("15\n", 0)


THREADS = r"""
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/wait.h>
static int total;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *add(void *p) {
  for (int i = 0; i < 1000; i++) {
    pthread_mutex_lock(&lock);
    total += (int)(long)p;
    pthread_mutex_unlock(&lock);
  }
  return p;
}
static void *execute(void *p) { execl("/bin/echo", "echo", "from a thread", (char *)0); return p; }
int main(int argc, char **argv) {
  pthread_t threads[8];
  long sum = 0;
  for (long i = 0; i < 8; i++) pthread_create(&threads[i], 0, add, (void *)i);
  for (int i = 0; i < 8; i++) {
    void *result;
    pthread_join(threads[i], &result);
    sum += (long)result;
  }
  printf("%d %ld\n", total, sum);
  fflush(stdout);
  if (fork() == 0) {
    pthread_create(threads, 0, execute, 0);
    pause();
  }
  int status;
  wait(&status);
  printf("%d\n", WEXITSTATUS(status));
}
"""


def test_threads_and_an_exec_from_one_of_them(compiled: Compiler) -> None:
    done = loadstone("run", "--", compiled(THREADS, "pie"))
    assert (done.text, done.status) == ("28000 28\nfrom a thread\n0\n", 0), done.errors


def test_descriptors_and_directories_of_threads_that_are_apart(compiled: Compiler) -> None:
    program = compiled(source_of("apart"))
    done = same(program)
    assert "descriptor EBADF" in done.text and len(done.text.splitlines()) == 56
