"""Core files against those of the real kernel, as gdb and struct read them: the same program, the same place to die."""

from __future__ import annotations

import os
import re
import resource
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.c_programs import ASLEEP
from support.compilers import Compiler
from support.run import Completed, loadstone

UNTIL_ASLEEP = "#define _GNU_SOURCE\n" + ASLEEP
CRASH = (
    UNTIL_ASLEEP
    + """
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
char big[100000];
int initialised[5000] = {1};
/* The C library chooses functions by the CPU, and their addresses stay in registers. */
#define forget() __asm__ volatile("xor %%r8d, %%r8d; xor %%r9d, %%r9d; xor %%r10d, %%r10d; xor %%r11d, %%r11d;" \\
                                  "xor %%ecx, %%ecx; xor %%edx, %%edx; xor %%esi, %%esi; xor %%edi, %%edi" \\
                                  ::: "r8", "r9", "r10", "r11", "rcx", "rdx", "rsi", "rdi")
static int inner(int *p, int depth) {
  volatile double half = 1.5 * depth;
  if (depth) return inner(p, depth - 1) + 1;
  forget();
  *p = 5;
  return (int)half;
}
int main(int argc, char **argv) {
  char *heap = malloc(300000);
  strcpy(heap, "on the heap");
  big[3] = 4;
  char *shared = mmap(0, 8192, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  shared[1] = 'x';
  char *hidden = mmap(0, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  hidden[1] = 'y';
  madvise(hidden, 8192, MADV_DONTDUMP);
  if (argc > 2) {
    FILE *filter = fopen("/proc/self/coredump_filter", "w");
    fputs(argv[2], filter);
    fclose(filter);
  }
  if (!strcmp(argv[1], "abort")) abort();
  if (!strcmp(argv[1], "divide")) { forget(); return argc / big[0]; }
  if (!strcmp(argv[1], "trap")) { forget(); __asm__("int3"); }
  if (!strcmp(argv[1], "quit")) raise(SIGQUIT);
  if (!strcmp(argv[1], "wait")) {
    int parent = getpid();
    if (!fork()) { asleep(parent); kill(parent, SIGQUIT); _exit(0); }
    forget();
    syscall(SYS_pause, 0, 0, 0, 0, 0, 0);
  }
  if (!strcmp(argv[1], "limit")) {
    struct rlimit limit = {atoi(argv[3]), atoi(argv[3])};
    setrlimit(RLIMIT_CORE, &limit);
  }
  return inner((int *)0x10, 3) + heap[0];
}
"""
)
ENVIRONMENT = {"A": "1"}
# Numbers of the process, its times, and what the kernel keeps in pr_flag.
NT_PRSTATUS, NT_FPREGSET, NT_PRPSINFO, NT_AUXV, NT_SIGINFO, NT_FILE, NT_X86_XSTATE = (
    1, 2, 3, 6, 0x53494749, 0x46494C45, 0x202,
)  # fmt: skip


class Core:
    """A core file, taken apart by the ELF specification."""

    def __init__(self, path: Path) -> None:
        data = self.data = path.read_bytes()
        assert data[:7] == b"\x7fELF\2\1\1"
        kind, machine = struct.unpack_from("<HH", data, 16)
        assert (kind, machine) == (4, 62)
        (start,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        rows = [struct.unpack_from("<IIQQQQQQ", data, start + n * size) for n in range(count)]
        self.segments = [(r[3], r[5], r[6], r[1]) for r in rows if r[0] == 1]  # address, in file, in memory, flags
        self._offsets = {r[3]: r[2] for r in rows if r[0] == 1}
        self.notes: list[tuple[str, int, bytes]] = []
        offset, end = rows[0][2], rows[0][2] + rows[0][5]
        while offset < end:
            name_size, size, kind = struct.unpack_from("<III", data, offset)
            content = offset + 12 + -(-name_size // 4) * 4
            name = data[offset + 12 : offset + 12 + name_size - 1].decode()
            self.notes.append((name, kind, data[content : content + size]))
            offset = content + -(-size // 4) * 4

    def note(self, kind: int) -> bytes:
        return next(content for _, number, content in self.notes if number == kind)

    def contents(self, address: int, length: int) -> bytes:
        start = self._offsets[address]
        return self.data[start : start + length]


class Both:
    """One way to die, natively and inside Loadstone."""

    def __init__(self, directory: Path, program: str, *arguments: str) -> None:
        with open("/proc/sys/kernel/core_pattern") as file:
            if file.read() != "core\n":
                pytest.skip("the host's core_pattern is not `core`: its core files go elsewhere")
        if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
            pytest.skip("the host's RLIMIT_CORE does not let it write core files")
        if shutil.which("setarch") is None:
            pytest.skip("setarch (util-linux) is not installed")
        self.program = program
        there, here = directory / "there", directory / "here"
        there.mkdir()
        here.mkdir()
        line = ["env", "-i", "A=1", "setarch", "-R", program, *arguments]
        done = subprocess.run(line, cwd=there, capture_output=True, check=False, preexec_fn=_lift_limit)
        self.run: Completed = loadstone(
            "run", "--clear-env", "--env", "A=1", "--core", str(here), program, *arguments, cwd=there
        )
        assert self.run.status == 128 - done.returncode
        self.native_files, self.files = _cores(there), _cores(here)

    @property
    def cores(self) -> tuple[Core, Core]:
        return Core(self.native_files[0]), Core(self.files[0])


def _lift_limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _cores(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.name.startswith("core"))


@pytest.fixture(scope="module")
def crash(compiled: Compiler) -> str:
    return compiled(CRASH, "pie", "-O0")


@pytest.mark.parametrize("how", ["write", "abort", "divide", "trap", "quit", "wait"])
def test_as_the_kernel_writes_it(crash: str, tmp_path: Path, how: str) -> None:
    native, ours = Both(tmp_path, crash, how).cores
    assert ours.segments == native.segments
    kinds = [(name, kind) for name, kind, _ in native.notes]
    assert [(name, kind) for name, kind, _ in ours.notes] == [one for one in kinds if one in _kinds(ours)]
    assert ours.note(NT_FILE) == native.note(NT_FILE)
    status, expected = ours.note(NT_PRSTATUS), native.note(NT_PRSTATUS)
    assert len(status) == len(expected) == 336
    assert status[:32] == expected[:32]
    if how in ("write", "divide", "trap", "wait"):
        assert _without_resume_flag(status[112:]) == _without_resume_flag(expected[112:])  # all registers
    info, expected = ours.note(NT_PRPSINFO), native.note(NT_PRPSINFO)
    assert (info[:8], info[16:24], info[40:]) == (expected[:8], expected[16:24], expected[40:])
    if how in ("write", "divide", "trap"):  # else it has the process's number
        assert ours.note(NT_SIGINFO) == native.note(NT_SIGINFO)
    pairs = [dict(struct.iter_unpack("<QQ", core.note(NT_AUXV))) for core in (ours, native)]
    for of_the_cpu in (16, 26, 51):
        assert pairs[0].pop(of_the_cpu, None) is not None
        pairs[1].pop(of_the_cpu)
    assert pairs[0] == pairs[1]


def _without_resume_flag(registers: bytes) -> bytes:
    """RF, which a CPU sets in what it saves when an instruction faults; Unicorn does not."""
    values = list(struct.unpack("<28Q", registers))
    values[18] &= ~0x10000
    return struct.pack("<28Q", *values)


def _kinds(core: Core) -> set[tuple[str, int]]:
    return {(name, kind) for name, kind, _ in core.notes}


@pytest.mark.parametrize("mask", ["0", "1", "2", "0x13", "0x7f", "16", "4"])
def test_the_filter_decides_what_is_in_it(compiled: Compiler, tmp_path: Path, mask: str) -> None:
    native, ours = Both(tmp_path, compiled(CRASH, "musl-static", "-O0"), "write", mask).cores
    assert ours.segments == native.segments
    for address, dumped, *_ in native.segments:
        if address < 1 << 32:  # the program and its heap
            here, there = _words(ours, address, dumped), _words(native, address, dumped)
            # Not the same twice: what the C library keeps of AT_RANDOM, AT_HWCAP and the process's number.
            assert sum(a != b for a, b in zip(here, there, strict=True)) <= 6, hex(address)


def _words(core: Core, address: int, length: int) -> list[int]:
    data = core.contents(address, length)
    return [word for (word,) in struct.iter_unpack("<Q", data)]


def test_what_gdb_says(crash: str, tmp_path: Path) -> None:
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    both = Both(tmp_path, crash, "write")
    ours, native = (
        gdb(crash, path, "bt", "info registers", "x/8x $sp", "info proc mappings", "p initialised", "x/s heap")
        for path in (both.files[0], both.native_files[0])
    )
    assert "main (argc=2" in native
    assert ours == native


FLOATS = """
#include <stdint.h>
int main(void) {
  static const uint64_t wide[4] = {0x1111111122222222, 3, 0x5555, 0x7777777788888888};
  static const double half = 0.5;
  uint32_t mxcsr = 0x3f80; /* round down */
  __asm__ volatile("ldmxcsr %0; fldl %1; movups %2, %%xmm6" :: "m"(mxcsr), "m"(half), "m"(wide));
  if (__builtin_cpu_supports("avx")) __asm__ volatile("vmovups %0, %%ymm5" :: "m"(wide));
  *(volatile int *)0x30 = 1;
}
"""


def test_floating_point_registers(compiled: Compiler, tmp_path: Path) -> None:
    """What gdb finds of x87, SSE and, where the core has XSAVE, AVX."""
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    both = Both(tmp_path, compiled(FLOATS, "static", "-O1"))
    asked = ["p $st0", "p $fctrl", "p $fstat", "p $ftag", "p/x $mxcsr", "p/x $xmm6"]
    if any(kind == NT_X86_XSTATE for _, kind, _ in both.cores[1].notes):
        asked += ["p/x $ymm5", "p/x $ymm6"]
    ours, native = (gdb(both.program, path, *asked) for path in (both.files[0], both.native_files[0]))
    assert "= 0.5\n" in native and "0x3f80" in native
    assert ours == native


THREADS = (
    UNTIL_ASLEEP
    + """
#include <pthread.h>
static volatile int other;
static void *wait_for_ever(void *unused) { for (other = gettid();;) pause(); }
static void *crash(void *unused) {
  while (!other) usleep(1000);
  asleep(getpid());
  thread_asleep(other);
  *(volatile int *)0x30 = 1;
  return unused;
}
int main(void) {
  pthread_t first, second;
  pthread_create(&first, 0, wait_for_ever, 0);
  pthread_create(&second, 0, crash, 0);
  pthread_join(second, 0);
}
"""
)


def test_threads(compiled: Compiler, tmp_path: Path) -> None:
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    both = Both(tmp_path, compiled(THREADS, "pie", "-O0", "-pthread"))
    # The thread that died is the first; the kernel has the others in the order in which they noticed.
    ours, native = (
        sorted(re.findall(r"(?m)^#\d+ +(?:0x[0-9a-f]+ in )?(\w+)", stack))
        for path in (both.files[0], both.native_files[0])
        for stack in [gdb(both.program, path, "thread apply all bt")]
    )
    assert native.count("wait_for_ever") == 1 and native.count("crash") == 2
    assert ours == native


def gdb(program: str, core: Path, *commands: str) -> str:
    line = ["gdb", "-nx", "-batch", *[word for command in commands for word in ("-ex", command)], program, str(core)]
    said = subprocess.run(line, capture_output=True, text=True, check=False).stdout
    said = re.sub(r"\[New LWP \d+\]", "", said)
    said = re.sub(r"(?m)^k[0-7] .*\n", "", said)  # AVX-512's, which Unicorn's CPU does not have
    return re.sub(r"(eflags +)0x(1?)0?(\w+) +\[(.*?)( RF)? \]", r"\1\3 \4", said)  # see _without_resume_flag


def test_limits(crash: str, tmp_path: Path) -> None:
    for limit in ("0", "4095", "4096", "20000"):
        place = tmp_path / limit
        place.mkdir()
        both = Both(place, crash, "limit", "0x33", limit)
        assert [path.stat().st_size for path in both.files] == [path.stat().st_size for path in both.native_files]


WAITS = """
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
  for (int dumpable = 1; dumpable >= 0; dumpable--) {
    int status;
    pid_t child = fork();
    if (!child) { prctl(PR_SET_DUMPABLE, dumpable); abort(); }
    waitpid(child, &status, 0);
    printf("%x %d\\n", status, !!WCOREDUMP(status));
  }
}
"""


def test_the_parent_is_told(compiled: Compiler, tmp_path: Path) -> None:
    program = compiled(WAITS)
    both = loadstone("run", "--core", str(tmp_path), program)
    assert both.text == "86 1\n6 0\n"
    assert len(_cores(tmp_path)) == 1
    assert "core dumped to" in both.errors
    assert loadstone("run", program).text == "6 0\n6 0\n"


def test_somewhere_that_is_not_there(crash: str) -> None:
    done = loadstone("run", "--core", "/nonexistent/core", crash, "write")
    assert done.status == 125
    assert "--core: /nonexistent is no directory" in done.errors


@pytest.fixture(autouse=True)
def _a_umask_that_lets_us_read() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)
