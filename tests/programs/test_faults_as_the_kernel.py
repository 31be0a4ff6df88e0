"""The whole run's page faults against the kernel's own trace: the same sequence of (mode, page), nothing more or less.

musl's code does not depend on what the CPU can do; glibc chooses its string functions by CPUID, so its programs are the
same only on the host's CPU, which is the KVM core. (tests/verify/test_faults.py compares the system's programs.)
"""

from __future__ import annotations

import difflib

import pytest

from loadstone import Machine
from loadstone.errors import HostError
from support.compilers import Compiler
from support.kernel_faults import NativeFault, run_faults

ENVIRONMENT = [b"PATH=/usr/bin", b"LC_ALL=C"]
PAGE = 4096

WORK = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static char bss[100000];
static int initialised[3000] = {1};
int main(int argc, char **argv) {
    char *large = malloc(300000), *small = malloc(100), buffer[5000], deep[60000];
    memset(large, 1, 300000);
    memset(bss, 2, sizeof bss);
    strcpy(small, argv[0]);
    initialised[2000] += argc;                               /* read, then written, by one instruction */
    char *map = mmap(0, 20 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 20; i += 2) map[i * 4096]++;
    for (int i = 0; i < 20; i++) buffer[i] = map[i * 4096];   /* the zero page, where nothing was written */
    mprotect(map, 10 * 4096, PROT_READ);
    mprotect(map, 10 * 4096, PROT_READ | PROT_WRITE);
    for (int i = 0; i < 20; i++) map[i * 4096] = i;
    FILE *self = fopen("/proc/self/exe", "r");
    size_t n = fread(large, 1, 40000, self);                  /* the kernel writes to user memory */
    char *file = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(self), 0);
    file[1]++;
    deep[0] = 1;
    madvise(map, 8 * 4096, MADV_DONTNEED);
    map[0] = map[4096];
    printf("%s %d %d\n", small, (int)(n > 0), deep[0] + map[0]);
    return 0;
}
"""


def pages(faults: list[NativeFault]) -> list[tuple[str, int]]:
    return [(fault.mode, fault.address // PAGE * PAGE) for fault in faults]


def ours(program: str, discard: pytest.CaptureFixture[bytes], engine: str) -> list[tuple[str, int]]:
    try:
        machine = Machine(engine=engine)
        assert machine.core is not None  # made now
    except HostError as error:
        pytest.skip(str(error.args[0]))
    with machine:
        process = machine.spawn(program, [program], ENVIRONMENT)
        assert process.run().code == 0
        discard.readouterr()
        return [(fault.mode, fault.address // PAGE * PAGE) for fault in process.faults]


@pytest.mark.parametrize(
    ("variant", "engine"),
    [
        *((variant, engine) for variant in ("musl-static", "musl-static-pie", "musl") for engine in ("unicorn", "kvm")),
        *((variant, "kvm") for variant in ("static", "static-pie", "no-pie", "pie")),
    ],
)
def test_the_same_sequence(
    variant: str, engine: str, compiled: Compiler, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    program = compiled(WORK, variant, "-O1")
    run_faults(program, [program.encode()], ENVIRONMENT)  # the page cache is warm afterwards
    native = pages(run_faults(program, [program.encode()], ENVIRONMENT))
    got = ours(program, capfdbinary, engine)
    difference = "\n".join(
        difflib.unified_diff(
            [f"{m} {a:#x}" for m, a in native], [f"{m} {a:#x}" for m, a in got], "kernel", "loadstone", ""
        )
    )
    assert got == native, difference


def test_on_unicorn_glibc_differs_only_where_the_cpu_chooses(
    compiled: Compiler, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The string functions that glibc picks lie on other pages; all else is the same."""
    program = compiled(WORK, "pie", "-O1")
    run_faults(program, [program.encode()], ENVIRONMENT)
    native = pages(run_faults(program, [program.encode()], ENVIRONMENT))
    got = ours(program, capfdbinary, "unicorn")
    assert difflib.SequenceMatcher(None, native, got, autojunk=False).ratio() > 0.9
