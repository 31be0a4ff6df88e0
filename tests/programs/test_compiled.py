"""C programs linked in every way, with both C libraries: same output, status, mappings and signals as on the kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loadstone import Machine
from support.compilers import VARIANTS, Compiler
from support.run import ENVIRONMENT, engine, loadstone, native, of_unicorn, same

DYNAMIC_GLIBC = ("pie", "no-pie")
STATIC = ("static", "static-pie", "musl-static", "musl-static-pie")


@pytest.mark.parametrize("variant", VARIANTS)
def test_hello(variant: str, compiled: Compiler) -> None:
    same(compiled("hello", variant), "there", "5")


@pytest.mark.parametrize("variant", VARIANTS)
def test_vectors(variant: str, compiled: Compiler) -> None:
    same(compiled("vectors", variant), "one", "", "three words here", env={**ENVIRONMENT, "EMPTY": "", "Ä": "ü"})


def test_no_environment_and_no_arguments(compiled: Compiler) -> None:
    same(compiled("vectors", "static"), env={})


def test_the_longest_argument_passes(compiled: Compiler) -> None:
    """MAX_ARG_STRLEN (include/uapi/linux/binfmts.h) is 32 pages, the NUL included.

    The host refuses the longer one to us already, so that half is asked of the Python API (test_bad_input.py).
    """
    same(compiled("vectors", "static"), "x" * 131_071)


@pytest.mark.parametrize("variant", VARIANTS)
def test_numbers_are_printed_to_the_last_digit(variant: str, compiled: Compiler) -> None:
    same(compiled("numbers", variant, "-lm"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_thread_local_storage_and_exit_handlers(variant: str, compiled: Compiler) -> None:
    same(compiled("threads_local", variant))


@pytest.mark.parametrize("variant", [*DYNAMIC_GLIBC, "static", "noseparate-code", "musl", "musl-static"])
def test_small_malloc_moves_the_break_and_a_large_one_maps(variant: str, compiled: Compiler) -> None:
    """Word by word what /proc/self/maps says at each step, addresses included."""
    got = same(compiled("allocate", variant), fixed_addresses=True)
    assert "a large malloc moves the break: no\nlarge is outside the heap: yes" in got.text
    if not variant.startswith(("musl", "static")):  # musl first gives out the ends of its .bss; static glibc has a heap
        assert "a small malloc moves the break: yes\nsmall is inside the heap: yes" in got.text


@pytest.mark.parametrize("variant", ["pie", "static", "musl-static"])
def test_mapping_calls(variant: str, compiled: Compiler, here: Path) -> None:
    """Placement, splits and merges of mmap, munmap, mprotect, mremap, madvise and mincore.

    The mapped file is the guest's own in both runs: its device and inode differ, and its path is the same.
    """
    program = compiled("mappings", variant)
    wanted = native(program, cwd=here, fixed_addresses=True)
    (here / "file").unlink()
    got = loadstone("run", program, cwd=here)
    assert got.status == wanted.status
    assert got.text.splitlines() == wanted.text.splitlines()
    assert got.guest_stderr == wanted.stderr


@pytest.mark.parametrize("kind", [(), ("map",)], ids=["bss", "mmap"])
def test_a_gigabyte_costs_what_is_touched(kind: tuple[str, ...], compiled: Compiler) -> None:
    """Ten touched pages are 40 KiB resident; of .bss the first was there, with the end of .data.

    (With less than a gigabyte of memory the kernel would not promise it.)
    """
    got = loadstone("run", "--memory", "1100M", compiled("sparse", "no-pie"), *kind)
    assert (got.status, got.text) == (0, "55 40\n" if kind else "55 36\n"), got.errors


@pytest.mark.parametrize("kind", [(), ("map",)], ids=["bss", "mmap"])
def test_frames_follow_use(kind: tuple[str, ...], compiled: Compiler) -> None:
    """Ten frames and their page tables: the pages lie 100 MiB apart, so each may need a table of its own."""
    program = compiled("sparse", "static")
    with Machine(memory=1100 << 20, fault_around=4096) as machine:
        process = machine.spawn(program, [program, *kind], {})
        assert process.run_until("main")
        before = machine.physical.usage()
        assert process.run_until("exit")
        after = machine.physical.usage()
    assert after["anonymous"] - before["anonymous"] <= 10 + 16  # and what stdio allocates
    assert after["page table"] - before["page table"] <= 10 + 3


FLAGS = r"""
#include <fenv.h>
#include <stdio.h>
int main(void) {
    volatile double one = 1, three = 3, zero = 0, third = one / three;
    printf("%d", fetestexcept(FE_ALL_EXCEPT));
    volatile double infinite = one / zero;
    printf(" %d %g %g\n", fetestexcept(FE_ALL_EXCEPT), third, infinite);
    return 0;
}
"""


@pytest.mark.xfail(engine() != "kvm", reason="Unicorn does not set the exception flags of MXCSR", strict=True)
def test_floating_point_exception_flags(compiled: Compiler) -> None:
    same(compiled(FLAGS, "pie", "-lm"), options=of_unicorn())


DEEDS = re.findall(r'!strcmp\(deed, "([a-z0-9-]+)"\)\)', (Path(__file__).parent / "sources/signals.c").read_text())
DEEDS = list(dict.fromkeys(DEEDS))
# What the Unicorn core does otherwise than a CPU: each is expected to fail, and the day it does not the test says so.
DEVIATIONS = {
    "misaligned-sse": "Unicorn does not check the alignment of SSE operands",
}


def deeds() -> list[object]:
    """Every deed, the core's known deviations marked."""
    return [
        pytest.param(deed, marks=pytest.mark.xfail(reason=DEVIATIONS[deed], strict=True))
        if deed in DEVIATIONS and engine() != "kvm"
        else deed
        for deed in DEEDS
    ]


@pytest.mark.parametrize("deed", deeds())
def test_signal_handlers_see_what_they_see_natively(deed: str, compiled: Compiler, here: Path) -> None:
    """signo, si_code, si_addr, trap number, error code, CR2 and RIP, compared at the same addresses."""
    program = compiled("signals")
    wanted = native(program, deed, "handle", cwd=here, fixed_addresses=True)
    got = loadstone("run", *_engine_for(deed), "--", program, deed, "handle", cwd=here)
    assert got.status == wanted.status, got.errors
    assert _comparable(got.text, deed) == _comparable(wanted.text, deed)


@pytest.mark.parametrize("deed", deeds())
def test_signals_kill_as_natively(deed: str, compiled: Compiler, here: Path) -> None:
    program = compiled("signals")
    wanted = native(program, deed, cwd=here, fixed_addresses=True)
    got = loadstone("run", *_engine_for(deed), "--", program, deed, cwd=here)
    assert (got.status, got.stdout) == (wanted.status, wanted.stdout), got.errors
    if got.status > 128:
        said = [line for line in got.errors.splitlines() if line.startswith("loadstone: ") and "SIG" in line]
        assert len(said) == 1, got.errors


def _engine_for(deed: str) -> tuple[str, ...]:
    return of_unicorn() if deed in DEVIATIONS else ()


def _comparable(text: str, deed: str) -> list[str]:
    """The lines of a handler's report; a process's own id, which `raise` stores as the sender, is not comparable."""
    return [re.sub(r"address 0x\w+", "address of sender", line) if deed in ("abort", "raise") else line
            for line in text.splitlines()]  # fmt: skip


def test_the_line_about_a_fatal_fault_says_what_where_and_in_which_mapping(compiled: Compiler) -> None:
    program = compiled("signals", "no-pie")
    got = loadstone("run", program, "wild-write")
    line = next(line for line in got.errors.splitlines() if "SIGSEGV" in line)
    assert "123456789abc" in line
    assert "main" in line
    assert os.path.basename(program) in line


@pytest.mark.parametrize("variant", ["pie", "static", "musl-static"])
def test_handlers_that_come_back(variant: str, compiled: Compiler) -> None:
    same(compiled("recover", variant))


def test_vex_instructions_end_with_a_message_on_unicorn(compiled: Compiler) -> None:
    """Unicorn would execute them as something else; a wrong result is worse than none."""
    program = compiled("vector", "pie", "-mavx2")
    if "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this host has no AVX2")
    assert native(program).stdout == b"2 4 6 8 10 12 14 16 \n"
    got = loadstone("run", "--engine", "unicorn", program)
    assert got.stdout == b""
    assert got.status != 0
    assert "--engine kvm" in got.errors
    assert "Traceback" not in got.errors


def test_maps_of_the_process_itself_are_the_kernels() -> None:
    same("/bin/cat", "/proc/self/maps", fixed_addresses=True)


@pytest.mark.parametrize(
    "name", ["auxv", "cmdline", "environ", "exe", "comm", "limits", "statm-fields", "stat-fields", "status-fields"]
)
def test_proc_self(name: str) -> None:
    """What a process reads of itself. Counters and process ids differ; the fields' names and number do not."""
    if name == "exe":
        same("/bin/readlink", "/proc/self/exe")
    elif name.endswith("-fields"):
        file = f"/proc/self/{name.removesuffix('-fields')}"
        wanted, got = native("/bin/cat", file), loadstone("run", "/bin/cat", file)
        shape = [line.split(b":")[0] if b":" in line else len(line.split()) for line in wanted.stdout.splitlines()]
        assert [ln.split(b":")[0] if b":" in ln else len(ln.split()) for ln in got.stdout.splitlines()] == shape
    elif name == "auxv":
        wanted, got = native("/bin/cat", "/proc/self/auxv"), loadstone("run", "/bin/cat", "/proc/self/auxv")
        assert got.stdout[::16] == wanted.stdout[::16]  # the same entries in the same order
    else:
        same("/bin/cat", f"/proc/self/{name}")


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc", "/nonexistent", "/nonexistent/x", "/dev/null"])
def test_what_cannot_be_run(path: str) -> None:
    """126 and 127, as a shell says them."""
    wanted = native("/bin/bash", "-c", 'exec "$0"', path)
    got = loadstone("run", path)
    assert got.status == wanted.status
    assert got.stdout == b""
    assert path in got.errors
    assert "Traceback" not in got.errors


def test_a_program_gets_descriptors_0_1_2_and_no_others(compiled: Compiler) -> None:
    """What the machine holds open on the host is not the guest's."""
    got = loadstone("run", "/bin/ls", "/proc/self/fd")
    assert got.stdout == b"0\n1\n2\n3\n"


def test_run_accepts_a_program_whose_name_looks_like_an_option(here: Path, compiled: Compiler) -> None:
    os.symlink(compiled("hello", "static"), here / "-x")
    got = loadstone("run", "--", "./-x", "--stats", "0", cwd=here)
    assert (got.stdout, got.status) == (b"hello, --stats: 3\n", 0)
    got = loadstone("run", "/bin/ls", "--help")
    assert got.stdout == native("/bin/ls", "--help").stdout


def test_module_and_command_are_the_same_program() -> None:
    command = os.path.join(os.path.dirname(sys.executable), "loadstone")
    if not os.path.exists(command):
        pytest.skip("the command is not installed beside this Python")
    done = subprocess.run([command, "run", "/bin/echo", "hi"], capture_output=True, check=False)
    assert (done.stdout, done.returncode) == (b"hi\n", 0)
