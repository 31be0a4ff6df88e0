"""User and system time: who computes has the one, who makes calls and touches memory has the other."""

from __future__ import annotations

import pytest

from loadstone.kernel.cpu_time import TimesTold
from support.compilers import Compiler
from support.run import Completed, loadstone, native

# Computes, or makes calls, or touches memory, until half a second of CPU time is gone, and prints the share of system
# time in percent as getrusage(2), times(2), /proc/self/stat and the parent's wait4(2) tell it.
SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long us(struct timeval t) { return t.tv_sec * 1000000L + t.tv_usec; }
static int share(long user, long system) { return user + system ? (int)(100 * system / (user + system)) : -1; }

static void work(char kind)
{
    static volatile long sum;
    if (kind == 'u')
        for (int i = 0; i < 2000000; i++)
            sum += i;
    else if (kind == 's')
        for (int i = 0; i < 500; i++)
            syscall(SYS_getppid);
    else {
        char *area = mmap(0, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise(area, 4 << 20, MADV_NOHUGEPAGE);
        for (int i = 0; i < 4 << 20; i += 4096)
            area[i] = 1;
        munmap(area, 4 << 20);
    }
}

int main(int argc, char **argv)
{
    long total = atol(argv[2]) * 1000, before_user = 0, before_system = 0, backwards = 0;
    struct rusage r;
    struct timespec c;
    struct tms t;
    unsigned long user, system;
    int status;
    if (fork() == 0) {
        do {
            work(*argv[1]);
            getrusage(RUSAGE_SELF, &r);
            backwards += us(r.ru_utime) < before_user || us(r.ru_stime) < before_system;
            before_user = us(r.ru_utime), before_system = us(r.ru_stime);
        } while (before_user + before_system < total);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c);
        times(&t);
        FILE *stat = fopen("/proc/self/stat", "r");
        if (fscanf(stat, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
            return 1;
        printf("%d %d %d %ld ", share(us(r.ru_utime), us(r.ru_stime)), share(t.tms_utime, t.tms_stime),
               share(user, system), backwards);
        printf("%d\n", labs(c.tv_sec * 1000000 + c.tv_nsec / 1000 - us(r.ru_utime) - us(r.ru_stime)) < total / 2);
        fflush(stdout);
        _exit(0);
    }
    wait4(-1, &status, 0, &r);
    times(&t);
    printf("%d %d\n", share(us(r.ru_utime), us(r.ru_stime)), share(t.tms_cutime, t.tms_cstime));
    return status;
}
"""


def shares(done: Completed) -> list[int]:
    """The five shares; none of the times may have gone back, and their sum is the CPU clock's."""
    assert done.status == 0, done.errors
    usage, ticks, proc, backwards, agrees, waited, children = map(int, done.text.split())
    assert (backwards, agrees) == (0, 1)
    return [usage, ticks, proc, waited, children]


@pytest.mark.parametrize(("kind", "least", "most"), [("u", 0, 25), ("s", 26, 100), ("m", 26, 100)])
def test_the_share_of_system_time_is_what_the_program_does(
    kind: str, least: int, most: int, compiled: Compiler
) -> None:
    program = compiled(SOURCE, "static")
    # A kernel may find out by ticks only: of a second it sees as few as a hundred.
    assert all(least <= share <= most for share in shares(native(program, kind, "1000")))
    got = shares(loadstone("run", "--fill-ahead", "off", program, kind, "300"))
    assert all((0 if kind == "u" else 15) <= share <= most for share in got), got


def test_a_virtual_clock_splits_the_time_alike_on_every_run(compiled: Compiler) -> None:
    program = compiled(SOURCE, "static")
    runs = [loadstone("run", "--deterministic", program, "s", "50").text for _ in range(2)]
    assert runs[0] == runs[1] and runs[0]


def test_what_was_told_never_goes_back() -> None:
    told = TimesTold()
    assert [told.settle(cpu, system) for cpu, system in ((10, 4), (12, 3), (12, 20), (20, 20), (20, 0))] == [
        4, 4, 4, 12, 12,
    ]  # fmt: skip
