"""The public API on real programs."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator
from errno import EACCES, EFAULT, ENOENT, ENOMEM
from pathlib import Path

import pytest

from loadstone.api import Machine, Process, explain
from loadstone.errors import HostError, LinuxError
from support.compilers import Compiler
from support.run import loadstone, native

PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int counter = 5;
char text[64] = "before";
__attribute__((noinline)) int work(int n) { counter += n; return counter; }
int main(int argc, char **argv) {
    for (int i = 0; i < 3; i++) work(i + 1);
    if (argc > 1 && !strcmp(argv[1], "crash")) *(volatile int *)0x1234 = 1;
    if (argc > 1 && !strcmp(argv[1], "abort")) abort();
    return strcmp(text, "before") ? 42 : counter;
}
"""


@pytest.fixture(scope="module")
def program(compiled: Compiler) -> str:
    return compiled(PROGRAM, "no-pie")


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=256 << 20, deterministic=True) as made:
        yield made


def test_a_program_runs_to_its_end(machine: Machine, program: str) -> None:
    process = machine.spawn(program, ["program", "x"], {"LC_ALL": "C"})
    assert process.status is None
    status = process.run()
    assert (status.code, status.signal, status.note) == (11, 0, "")
    assert process.status is status
    assert process.executable == program
    assert process.run() is status  # it has ended, and stays so


def test_a_status_is_that_of_the_real_program(machine: Machine, program: str) -> None:
    for argument, number in (("crash", 11), ("abort", 6)):
        status = machine.spawn(program, [program, argument]).run()
        assert (status.code, status.signal) == (0, number)
        assert native(program, argument).status == 128 + number


def test_defaults_of_spawn(machine: Machine) -> None:
    process = machine.spawn("/bin/true")
    assert process.run().code == 0
    assert process.pid == process.inner.pid


def test_programs_that_cannot_be_executed(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n")
    for path, number in (("/nonexistent", ENOENT), (str(tmp_path / "text"), EACCES), (str(tmp_path), EACCES)):
        with pytest.raises(LinuxError) as caught:
            machine.spawn(path)
        assert caught.value.errno == number
    assert machine.spawn("/bin/true").run().code == 0  # the machine is as good as before


def test_a_failing_exec_gives_its_frames_back(machine: Machine, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(Path("/bin/true").read_bytes()[:3000])
    broken.chmod(0o755)
    machine.spawn("/bin/true").run()
    before = machine.physical.usage()
    for _ in range(5):
        with pytest.raises(LinuxError):
            machine.spawn(str(broken))
    after = machine.physical.usage()
    assert (after["page table"], after["anonymous"]) == (before["page table"], before["anonymous"])


def test_registers_at_the_first_instruction(machine: Machine, program: str) -> None:
    process = machine.spawn(program)
    registers = process.registers
    assert registers["rip"] == process.image.registers["rip"]
    assert registers["rsp"] == process.image.registers["rsp"]
    assert {name: registers[name] for name in ("cs", "ss", "eflags", "fcw", "mxcsr")} == {
        "cs": 0x33, "ss": 0x2B, "eflags": 0x202, "fcw": 0x37F, "mxcsr": 0x1F80,
    }  # fmt: skip
    assert process.memory.read(registers["rsp"], 8) == (1).to_bytes(8, "little")  # argc
    process.set_register("rbx", 0x1234)
    assert process.registers["rbx"] == 0x1234


def test_run_until_stops_before_the_instruction(machine: Machine, program: str) -> None:
    process = machine.spawn(program)
    assert process.run_until("main")
    assert process.registers["rip"] == process.symbol("main")
    assert process.registers["rdi"] == 1
    counts = []
    while process.run_until("work"):
        counts.append(
            (process.registers["rdi"], int.from_bytes(process.memory.read(process.symbol("counter") or 0, 4), "little"))
        )
    assert counts == [(1, 5), (2, 6), (3, 8)]
    assert process.status is not None and process.status.code == 11


def test_run_until_an_address_and_a_symbol_that_is_not_there(machine: Machine, program: str) -> None:
    process = machine.spawn(program)
    address = process.symbol("work")
    assert isinstance(address, int)
    assert process.run_until(address)
    assert process.registers["rip"] == address
    with pytest.raises(LookupError, match="no symbol 'nowhere'"):
        machine.spawn(program).run_until("nowhere")


def test_main_of_a_stripped_program(machine: Machine) -> None:
    process = machine.spawn("/bin/echo", ["echo", "-n", ""])
    assert process.run_until("main")
    assert process.registers["rdi"] == 3
    assert process.run().code == 0


def test_hooks_by_symbol_of_a_library_and_by_address(program: str) -> None:
    with Machine(memory=256 << 20, deterministic=True) as machine:
        calls: list[str] = []
        machine.hook("work", lambda process: calls.append(f"work({process.registers['rdi']})"))
        machine.hook("exit", lambda process: calls.append("exit"))
        process = machine.spawn(program)
        machine.hook(process.symbol("main") or 0, lambda process: calls.append("main"))
        assert process.run().code == 11
    assert calls == ["main", "work(1)", "work(2)", "work(3)", "exit"]


def test_a_hook_may_change_what_happens(machine: Machine, program: str) -> None:
    machine.hook("work", lambda process: process.set_register("rdi", 100))
    assert machine.spawn(program).run().code == (5 + 300) & 255


def test_a_hook_that_raises_can_be_gone_on_from(machine: Machine, program: str) -> None:
    seen = []

    def hook(process: Process) -> None:
        seen.append(process.registers["rdi"])
        if len(seen) == 1:
            raise KeyError("stop here")

    machine.hook("work", hook)
    process = machine.spawn(program)
    with pytest.raises(KeyError):
        process.run()
    assert process.status is None
    assert process.run().code == 11
    assert seen == [1, 2, 3]


def test_a_hook_on_a_symbol_that_is_nowhere(machine: Machine, program: str) -> None:
    machine.hook("nowhere", lambda process: None)
    process = machine.spawn(program)
    with pytest.raises(LookupError, match="nowhere"):
        process.run()


def test_memory_is_read_and_written(machine: Machine, program: str) -> None:
    process = machine.spawn(program)
    text = process.symbol("text")
    assert text is not None
    assert process.memory.read(text, 7) == b"before\0"
    faults = len(process.faults)
    process.memory.write(text, b"after")
    assert process.memory.read(text, 6) == b"aftere"
    assert len(process.faults) == faults
    assert process.run().code == 42


def test_code_is_changed_while_it_runs(machine: Machine, program: str) -> None:
    process = machine.spawn(program)
    assert process.run_until("work") and process.run_until("work")
    process.memory.write(process.symbol("work") or 0, b"\xb8\x07\0\0\0\xc3")  # mov eax, 7; ret
    assert process.run().code == 6


def test_memory_where_nothing_is(machine: Machine) -> None:
    process = machine.spawn("/bin/true")
    for call in (lambda: process.memory.read(0x1000, 4), lambda: process.memory.write(0x1000, b"x")):
        with pytest.raises(LinuxError) as caught:
            call()
        assert caught.value.errno == EFAULT


def test_every_fault_is_remembered_and_in_the_page_table(machine: Machine) -> None:
    process = machine.spawn("/bin/true")
    machine.core  # noqa: B018
    process.run_until("main")
    assert len(process.faults) > 20
    assert all(fault.pid == process.pid and fault.signal is None for fault in process.faults)
    resident = [fault for fault in process.faults if process.page_table.entry(fault.address) & 1]
    assert len(resident) > 0.9 * len(process.faults)
    walk = process.page_table.walk(process.registers["rip"])
    assert [step.level for step in walk] == ["PML4", "PDPT", "PD", "PT"] and walk[-1].entry & 1


def test_faults_are_the_same_on_every_run() -> None:
    def run() -> list[object]:
        with Machine(memory=256 << 20, deterministic=True) as machine:
            process = machine.spawn("/bin/true")
            process.run()
            return [tuple(fault) for fault in process.faults]

    assert run() == run()


def test_maps_have_the_kernels_format(machine: Machine, program: str) -> None:
    process = machine.spawn(program)
    lines = process.maps.splitlines()
    assert all(re.match(r"[0-9a-f]+-[0-9a-f]+ [-r][-w][-x][ps] [0-9a-f]{8} [0-9a-f:]+ \d+", line) for line in lines)
    assert any(line.endswith(program) for line in lines) and any("[stack]" in line for line in lines)


def test_addresses_are_described(machine: Machine, program: str) -> None:
    process = machine.spawn(program)
    work = process.symbol("work")
    assert work is not None
    assert process.describe(work + 1).startswith("work+0x1 in ")


def test_explain_runs_nothing(program: str) -> None:
    image = explain(program, [program])
    with Machine() as machine:
        process = machine.spawn(program, [program])
        assert process.registers["rsp"] == image.pointer
    with pytest.raises(LinuxError):
        explain("/nonexistent")


def test_two_processes_after_one_another(machine: Machine, program: str) -> None:
    first = machine.spawn(program)
    assert first.run().code == 11
    second = machine.spawn(program, [program, "crash"])
    assert second.run_until("main")
    assert second.pid != first.pid
    assert second.run().signal == 11
    assert first.status is not None and first.status.code == 11


def test_two_processes_at_once(machine: Machine, program: str) -> None:
    first, second = machine.spawn(program), machine.spawn(program)
    assert first.run_until("work")
    place = second.symbol("counter") or 0
    first.memory.write(place, (100).to_bytes(4, "little"))
    assert second.run_until("main") or second.status is not None
    assert first.run().code == 106
    assert second.run().code == 11
    assert {fault.pid for fault in first.faults} == {first.pid}


def test_a_hook_is_called_for_each_process(machine: Machine, program: str) -> None:
    calls: list[tuple[int, int]] = []
    machine.hook("work", lambda process: calls.append((process.pid, process.registers["rdi"])))
    processes = [machine.spawn(program) for _ in range(2)]
    for process in processes:
        process.run()
    for process in processes:
        assert [n for pid, n in calls if pid == process.pid] == [1, 2, 3]


def test_events_can_be_heard(machine: Machine) -> None:
    heard: list[str] = []
    machine.events.subscribe(lambda event: heard.append(type(event).__name__))
    machine.spawn("/bin/true").run()
    assert {"Fault", "Syscall", "Map", "Exec", "Exit"} <= set(heard)
    with pytest.raises(ValueError, match="no event kind 'nonsense'"):
        machine.events.subscribe(print, ["nonsense"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "nonsense"}, "no such CPU core"),
        ({"memory": 4096}, "at least 1 MiB"),
        ({"root": "/nonexistent"}, "does not exist"),
        ({"rw": ["/nonexistent"]}, "does not exist"),
    ],
)
def test_options_that_make_no_sense(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(HostError, match=message):
        Machine(**arguments)  # type: ignore[arg-type]


def test_a_timeout_switches_the_machine_off(compiled: Compiler) -> None:
    endless = compiled("int main(void) {\n for (;;) ; }\n", "no-pie")
    with Machine(memory=64 << 20, timeout=0.3) as machine:
        status = machine.spawn(endless).run()
    assert status.timed_out and status.code == 124


EATERS = {
    "touching": "for (int k = 0; k < 20; k++) take(1 << 20);",
    "in read(2)": """int f = open("/dev/zero", 0);
        for (int k = 0; k < 20; k++) { char *p = malloc(1 << 20); read(f, p, 1 << 20); }""",
    "in execve(2)": """take(4 << 20); char *a[20], *e[] = {0};
        for (int i = 0; i < 19; i++) { a[i] = malloc(100000); memset(a[i], 65, 99999); a[i][99999] = 0; }
        a[19] = 0; execve("/bin/true", a, e);""",
    "on the stack": "take(3 << 20); volatile char a[4 << 20]; for (long i = 4 << 20; i > 0; i -= 4096) a[i - 1] = 1;",
}
EATER = """#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void take(long size) { volatile char *p = malloc(size); for (long i = 0; i < size; i += 4096) p[i] = 1; }
int main(void) { %s; return 3; }
"""


@pytest.mark.parametrize("name", EATERS)
def test_a_full_machine_kills_with_a_sentence(name: str, compiled: Compiler) -> None:
    eater = compiled(EATER % EATERS[name], "static")
    with Machine(memory=6 << 20, deterministic=True) as machine:
        status = machine.spawn(eater).run()
        assert status.signal == 9
        assert re.match(r"out of memory: .*\(pid 1000\), which has \d+ of them, is killed", status.note)
        assert machine.physical.peak <= machine.physical.frames


@pytest.mark.parametrize("name", ["touching", "in execve(2)"])
def test_the_command_says_why_it_was_killed(name: str, compiled: Compiler) -> None:
    eater = compiled(EATER % EATERS[name], "static")
    done = loadstone("run", "--memory", "6M", eater)
    assert done.status == 137
    assert re.search(r"^loadstone: out of memory: .* is killed$", done.errors, re.MULTILINE)
    assert "Traceback" not in done.errors


def test_a_machine_too_small_for_the_program_itself() -> None:
    with Machine(memory=1 << 20) as machine:
        big = "x" * 100_000
        before = machine.physical.usage()
        for _ in range(3):
            with pytest.raises(LinuxError, match="the machine is too small for this program") as caught:
                machine.spawn("/bin/true", ["true", *[big] * 15])
            assert caught.value.errno == ENOMEM
        assert machine.physical.usage()["anonymous"] == before["anonymous"]
        assert machine.events.fault == ()
        assert machine.spawn("/bin/true").status is None


def test_closing_gives_the_host_everything_back(program: str) -> None:
    def held() -> tuple[list[str], list[str]]:
        with open("/proc/self/maps") as file:
            maps = [line.split()[-1] for line in file if "loadstone" in line or "rwxs" in line]
        return sorted(os.listdir("/proc/self/fd")), maps

    with Machine(memory=64 << 20) as machine:
        machine.spawn(program).run()
    gc.collect()
    before = held()
    kept = []
    for _ in range(20):
        machine = Machine(memory=64 << 20)
        process = machine.spawn(program)
        process.run_until("main")
        machine.close()
        machine.close()
        kept.append((machine, process))  # nothing is left to the garbage collector
    assert held() == before


def test_looking_at_a_closed_machine_is_an_error(program: str) -> None:
    machine = Machine(memory=64 << 20)
    process = machine.spawn(program)
    process.run_until("main")
    machine.close()
    looks: list[Callable[[], object]] = [
        lambda: process.registers, lambda: process.run_until("main"), process.run, lambda: machine.spawn(program),
        lambda: process.memory.read(0x400000, 4), lambda: process.memory.write(0x400000, b"x"),
        lambda: machine.prepare(program),
    ]  # fmt: skip
    for look in looks:
        with pytest.raises(HostError, match="closed"):
            look()
