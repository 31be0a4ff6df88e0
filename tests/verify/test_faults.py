"""`loadstone verify --faults`: the sequence of page faults of whole programs, beside the kernel's own trace."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from loadstone import Machine
from loadstone.errors import HostError
from loadstone.verify import native_faults
from loadstone.verify.faults import (
    MOVED,
    ONLY_HERE,
    ONLY_KERNEL,
    OTHER_MODE,
    Comparison,
    FaultHere,
    Program,
    RunHere,
    compare,
    judge,
)
from loadstone.verify.native_faults import NativeFault, NativeRun, record_faults
from support.compilers import Compiler
from support.run import loadstone

ENVIRONMENT = (b"PATH=/usr/bin:/bin", b"LC_ALL=C", b"PERL_HASH_SEED=0", b"PYTHONHASHSEED=0")
SAME = (
    "/bin/true",
    "ls -l /usr/bin",
    "bash -c :",
    "gzip -c /bin/bash",
    "/usr/bin/python3 -S -E -c pass",
)
PR_SET_DUMPABLE = 4
OTHERS = Path(__file__).with_name("fault_programs.txt")


def compared(line: str, engine: str = "kvm", fault_around: int = 65536) -> Comparison:
    """What `verify --faults` finds for a command line; a skip where this host cannot say."""
    words = shlex.split(line)
    path = shutil.which(words[0], path="/usr/bin:/bin")
    if path is None:
        pytest.skip(f"no {words[0]} here")
    program = Program(path, tuple(word.encode() for word in words), ENVIRONMENT)
    with Machine(engine=engine, fault_around=fault_around, keep_faults=False) as machine:
        try:
            found = compare(program, machine, 60, lambda _: None)
        except HostError as error:
            pytest.skip(str(error.args[0]))
    if not found.native.kernel_mode:
        pytest.skip("faults in kernel mode are shown to root only")
    return found


def described(found: Comparison) -> str:
    return "\n".join(f"{one.kind} {one.mode} {one.page:#x} {one.mapping} {one.why}" for one in found.differences)


@pytest.mark.parametrize("line", SAME)
def test_the_sequence_is_the_kernels(line: str) -> None:
    found = compared(line)
    assert found.identical, described(found)
    assert found.same_end
    assert found.prefix == len(found.native.faults) > 40


LARGE = """
const char table[24 << 20] = {1};
int main(void) {
    int sum = 0;
    for (int i = 0; i < sizeof table; i += 65536) sum += ((volatile const char *)table)[i];
    return sum - 1;
}
"""


def test_how_the_host_came_by_its_page_cache_does_not_count(compiled: Compiler, tmp_path: Path) -> None:
    program = tmp_path / "large"
    shutil.copy(compiled(LARGE, "musl-static"), program)
    with open(program, "rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 20):  # in sequence: large folios, where the file system has them
            pass
    found = compared(str(program))
    assert found.identical, described(found)
    assert len(found.native.faults) > 24 * 16


@pytest.mark.slow
def test_fifty_other_programs_agree_to_99_percent() -> None:
    lines = [line for line in OTHERS.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) >= 50
    matched = total = 0
    for line in lines:
        found = compared(line)
        matched += sum(one.matched for one in found.alignments)
        total += sum(sum(one.lengths) for one in found.alignments)
        assert found.agreement >= 0.95, f"{line}\n{described(found)}"
    assert 2 * matched / total >= 0.99


def test_pure_demand_paging_is_explained() -> None:
    found = compared("/bin/true", fault_around=4096)
    assert not found.identical
    assert {one.why.partition(" maps")[0] for one in found.differences} == {"--fault-around 4K"}


def test_the_other_cpu_is_explained() -> None:
    found = compared("ls -l /usr/bin", engine="unicorn")
    assert not found.identical
    assert found.agreement > 0.9
    assert {one.why.partition(" has")[0] for one in found.differences} == {"the CPU of --engine unicorn"}


# ------------------------------------------------------------------------------------------------ the oracle

THREADS = """
#include <pthread.h>
#include <stdlib.h>
static void *touch(void *size) {
    volatile char *memory = malloc((long)size);
    for (long i = 0; i < (long)size; i += 4096) memory[i] = 1;
    return 0;
}
int main(void) {
    pthread_t threads[2];
    for (long i = 0; i < 2; i++) {
        pthread_create(&threads[i], 0, touch, (void *)((i + 1) << 20));
        pthread_join(threads[i], 0);
    }
}
"""
TOUCH = """
#include <sys/mman.h>
int main(void) {
    char *memory = mmap(0, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long i = 0; i < 64 << 20; i += 4096) memory[i] = 1;
    return 7;
}
"""


def recorded(path: str, **options: float | bool) -> NativeRun:
    try:
        return record_faults(path, [path.encode()], ENVIRONMENT, **options)  # type: ignore[arg-type]
    except HostError as error:
        if "perf_event_open" in str(error):
            pytest.skip(str(error.args[0]))
        raise


def test_threads_are_tasks_of_their_own(compiled: Compiler) -> None:
    run = recorded(compiled(THREADS, "pie", "-pthread"))
    by_task = [sum(fault.task == task for fault in run.faults) for task in range(3)]
    assert {fault.task for fault in run.faults} == {0, 1, 2}
    assert 256 <= by_task[1] < 300
    assert 512 <= by_task[2] < 560


def test_nothing_is_lost_when_the_ring_is_small(compiled: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_faults, "_RING_PAGES", 256)
    run = recorded(compiled(TOUCH, "musl-static"))
    assert 16384 <= len(run.faults) < 16500
    assert os.waitstatus_to_exitcode(run.status) == 7


def test_it_can_end_at_the_first_instruction() -> None:
    run = recorded("/bin/true", to_the_end=False)
    assert {fault.mode for fault in run.faults} <= {"kernel"}


def test_who_runs_too_long_is_killed(compiled: Compiler) -> None:
    with pytest.raises(HostError, match=r"longer than 0\.2 s"):
        recorded(compiled("int main(void)\n{ for (;;); }", "musl-static"), timeout=0.2)


def test_what_cannot_be_executed_says_so() -> None:
    with pytest.raises(HostError, match=r"Permission denied|No such file"):
        recorded("/etc/passwd")


def test_the_mapped_files_are_known() -> None:
    assert any("libc.so.6" in name for name in recorded("/bin/true").files)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_others_than_root_see_user_mode_only() -> None:
    with open("/proc/sys/kernel/perf_event_paranoid", encoding="ascii") as file:
        paranoid = int(file.read())
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after execve: else nobody may look at it
        try:
            run = record_faults("/bin/true", [b"true"], ENVIRONMENT)
            answer = f"{run.kernel_mode} {sorted({fault.mode for fault in run.faults})}"
        except HostError as error:
            answer = str(error.args[0])
        os.write(writing, answer.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    got = os.read(reading, 1000).decode()
    os.close(reading)
    os.close(writing)
    if paranoid <= 1:
        assert got == "True ['kernel', 'user']"
    elif paranoid == 2:
        assert got == "False ['user']"
    else:
        assert f"perf_event_paranoid is {paranoid}" in got


# ------------------------------------------------------------------------------------------------ differences

MAPS = """\
00400000-00500000 r-xp 00000000 00:00 1 /bin/program
00600000-00700000 rw-p 00000000 00:00 0 [heap]
"""


def judged(native: str, ours: str, again: str | None = None) -> Comparison:
    """Compare sequences written as letters: a lower-case letter is a page touched in user mode, a capital in kernel."""

    def events(text: str) -> list[tuple[str, int, int, int]]:
        return [
            ("kernel" if a.isupper() else "user", 0x600000 + 4096 * (ord(a.lower()) - 97), 0x400000, 0) for a in text
        ]

    runs = [
        NativeRun(tuple(NativeFault(*one) for one in events(text)), frozenset(), 0, True)
        for text in (native, native if again is None else again)
    ]
    here = RunHere(tuple(FaultHere(*one, "[heap]") for one in events(ours)), MAPS, 0, "kvm", 65536, "warm")
    return judge(Program("/bin/program", (b"program",), ()), runs[0], runs[1], here)


def kinds(found: Comparison) -> list[str]:
    return [one.kind for one in found.differences]


def test_the_kinds_of_difference() -> None:
    assert kinds(judged("abc", "abc")) == []
    assert kinds(judged("abcd", "acd")) == [ONLY_KERNEL]
    assert kinds(judged("acd", "abcd")) == [ONLY_HERE]
    assert kinds(judged("abcde", "acdbe")) == [MOVED]
    assert kinds(judged("abc", "aBc")) == [OTHER_MODE]


def test_the_figures() -> None:
    found = judged("abcde", "abde")
    assert (found.prefix, found.distance, found.exact) == (2, 1, True)
    assert found.agreement == pytest.approx(8 / 9)


def test_what_the_kernel_does_not_repeat_is_no_fault_of_ours() -> None:
    found = judged("abcx", "abcy", again="abcz")
    assert found.repeatable == pytest.approx(6 / 8)
    assert [one.why for one in found.differences] == ["the kernel's own two runs differ at this page", ""]


def test_the_mapping_is_named() -> None:
    assert [one.mapping for one in judged("abc", "ab").differences] == ["[heap]"]


# ------------------------------------------------------------------------------------------------ the command


def test_the_host_runs_nothing_unasked() -> None:
    done = loadstone("verify", "--faults", "/bin/true")
    assert done.status == 125
    assert b"--run-natively" in done.stderr


def test_json(tmp_path: Path) -> None:
    recorded("/bin/true")  # skips where it cannot be
    commands = tmp_path / "commands"
    commands.write_text("# two programs\n/bin/true\n/nowhere/at/all 'an argument'\n")
    done = loadstone("verify", "--faults", "--run-natively", "--json", "--commands", str(commands))
    document = json.loads(done.stdout)
    assert document["schema"] == "loadstone/verify-faults/1"
    (program,) = document["programs"]
    assert program["command"] == ["/bin/true"]
    assert program["identical"] == (not program["differences"])
    assert [one["command"] for one in document["not_compared"]] == ["/nowhere/at/all an argument"]
    assert done.status == 1


def test_a_set_user_id_program_cannot_be_compared(tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    program.chmod(0o4755)
    done = loadstone("verify", "--faults", "--run-natively", str(program))
    assert done.status == 125
    assert b"always randomises" in done.stderr
