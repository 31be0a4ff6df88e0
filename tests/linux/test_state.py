"""What a program sets about itself is what it reads elsewhere, and execve keeps or resets it as the kernel does."""

from __future__ import annotations

from support.compilers import Compiler
from support.run import loadstone, same

PROGRAM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

static void show(const char *path, const char *line) {
  char text[4096], *found = text;
  int fd = open(path, O_RDONLY);
  long got = read(fd, text, sizeof text - 1);
  text[got < 0 ? 0 : got] = 0;
  close(fd);
  if (line) found = strstr(text, line);
  if (found) printf("%s: %.*s\n", path, (int)strcspn(found, "\n"), found);
}

static void tell(void) {
  char text[4096], *at;
  long nice = 99, priority = 99;
  struct utsname name;
  cpu_set_t cpus;
  show("/proc/self/personality", 0);
  show("/proc/self/status", "NoNewPrivs");
  show("/proc/self/timerslack_ns", 0);
  show("/proc/self/oom_score_adj", 0);
  int fd = open("/proc/self/stat", O_RDONLY);
  text[read(fd, text, sizeof text - 1)] = 0;
  close(fd);
  at = strrchr(text, ')');
  sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %ld %ld", &priority, &nice);
  sched_getaffinity(0, sizeof cpus, &cpus);
  uname(&name);
  printf("priority %ld nice %ld %d policy %d cpus %d dumpable %d keepcaps %d release %.3s\n", priority, nice,
         getpriority(PRIO_PROCESS, 0), sched_getscheduler(0), CPU_COUNT(&cpus), prctl(PR_GET_DUMPABLE),
         prctl(PR_GET_KEEPCAPS), name.release);
}

int main(int argc, char **argv) {
  struct sched_param parameter = {0};
  cpu_set_t cpus;
  if (argc == 1) {
    sched_getaffinity(0, sizeof cpus, &cpus);
    int first = 0;
    while (!CPU_ISSET(first, &cpus)) first++;
    CPU_ZERO(&cpus);
    CPU_SET(first, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
    sched_setscheduler(0, SCHED_BATCH, &parameter);
    setpriority(PRIO_PROCESS, 0, 5);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1234);
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_KEEPCAPS, 1);
    prctl(PR_SET_DUMPABLE, 1);
    personality(ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC | UNAME26);
    tell();
    fflush(stdout);
    execl("/proc/self/exe", argv[0], "again", (char *)0);
  }
  tell();
}
"""


def test_settings_are_shown_and_survive_exec_as_on_linux(compiled: Compiler) -> None:
    assert same(compiled(PROGRAM, "static")).text.count("\n") == 10


WHERE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <unistd.h>
int main(int argc, char **argv) {
  int here;
  printf("%p\n", (void *)&here);
  fflush(stdout);
  if (argc == 1) {
    personality(ADDR_NO_RANDOMIZE);
    execl("/proc/self/exe", argv[0], "", (char *)0);
  }
}
"""


def test_a_program_may_switch_randomisation_off_for_what_it_executes(compiled: Compiler) -> None:
    program = compiled(WHERE, "static-pie")
    runs = [loadstone("run", "--aslr", seed, "--", program).text.split() for seed in ("1", "2")]
    assert runs[0][0] != runs[1][0]
    assert runs[0][1] == runs[1][1]
