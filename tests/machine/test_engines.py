"""Which core a machine gets: the rule of auto, what it says where there is no KVM to use, and `--cpu baseline`."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadstone.api import Machine
from loadstone.errors import HostError
from loadstone.machine import cpuid, engines, kvm_api
from loadstone.machine.kvm_core import KvmCore
from loadstone.machine.kvm_cpu import baseline_cpu
from loadstone.machine.kvm_cpuid import answers
from loadstone.machine.paging import PageTable
from loadstone.machine.physical import PhysicalMemory
from loadstone.report import doctor
from machine.bare import Bare
from machine.engines import maker
from support.compilers import Compiler
from support.run import command, loadstone, native, same

DOCS = Path(__file__).parents[2] / "docs" / "engines.md"

# -- hosts without a KVM to use ---------------------------------------------------------------------------------------


def no_such_file(patch: pytest.MonkeyPatch, path: Path) -> None:
    patch.setattr(kvm_api.Device.__init__, "__defaults__", (str(path),))


def another_file(patch: pytest.MonkeyPatch, path: Path) -> None:
    path.write_text("no device")
    no_such_file(patch, path)


def refused(patch: pytest.MonkeyPatch, path: Path) -> None:
    """open(2) says EACCES: the tests may run as root, whom no file mode keeps out."""
    another_file(patch, path)
    real = os.open

    def opened(name: str, flags: int, *rest: Any) -> int:
        if name == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(name, flags, *rest)

    patch.setattr(kvm_api.os, "open", opened)


def answering(number: int, answer: int | OSError) -> Callable[[pytest.MonkeyPatch, Path], None]:
    """One ioctl gives this answer."""

    def inject(patch: pytest.MonkeyPatch, _: Path) -> None:
        maker("kvm")
        real = kvm_api.ioctl

        def asked(fd: int, request: int, *rest: Any) -> Any:
            if request != number:
                return real(fd, request, *rest)
            if isinstance(answer, OSError):
                raise answer
            return answer

        patch.setattr(kvm_api, "ioctl", asked)

    return inject


def another_architecture(patch: pytest.MonkeyPatch, _: Path) -> None:
    maker("kvm")
    there = os.uname_result((*os.uname()[:4], "aarch64"))
    patch.setattr(kvm_api, "os", SimpleNamespace(**{**vars(os), "uname": lambda: there}))  # for this module alone


HOSTS = {
    "absent": (no_such_file, "which this host does not have"),
    "not-permitted": (refused, "this user may not open it"),
    "another-file": (another_file, "is not KVM: Inappropriate ioctl for device"),
    "another-version": (answering(kvm_api.GET_API_VERSION, 11), "API version 11 on x86_64 is not one for x86-64"),
    "another-architecture": (another_architecture, "on aarch64 is not one for x86-64"),
    "no-machine": (answering(kvm_api.CREATE_VM, OSError(errno.EBUSY, "Device or resource busy")), "no machine can be"),
    "too-old": (answering(kvm_api.CHECK_EXTENSION, 0), "is too old"),
    "no-vcpu": (answering(kvm_api.CREATE_VCPU, OSError(errno.ENOMEM, "Cannot allocate memory")), "no vCPU can be"),
}


@pytest.fixture(params=HOSTS)
def sentence(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A host on which KVM cannot be used, and what is said about it."""
    inject, said = HOSTS[request.param]
    monkeypatch.setattr(engines, "TESTED_KVM", "/")  # the rule asks for the kind first
    inject(monkeypatch, tmp_path / "kvm")
    yield said
    monkeypatch.undo()


def test_kvm_that_cannot_be_used_is_a_clear_line(sentence: str) -> None:
    with Machine(engine="kvm", memory=16 << 20) as machine, pytest.raises(HostError, match=sentence) as raised:
        _ = machine.core
    assert "--engine unicorn" in str(raised.value.args[1])


def test_auto_takes_unicorn_there_and_says_why(sentence: str) -> None:
    with Machine(memory=16 << 20) as machine:
        assert machine.engine == "unicorn"
        assert sentence in machine.engine_why
        assert machine.physical.usage()["reserved"] == 1  # Unicorn's own frame: KVM's are given back


def test_doctor_explains_it(sentence: str) -> None:
    found = {finding.what: finding for finding in doctor.examine()}
    assert found["KVM"].state == doctor.OPTIONAL
    assert sentence in found["KVM"].found
    assert found["--engine auto"].found.startswith("unicorn: ")
    assert sentence in found["--engine auto"].found


def test_what_no_core_can_do_is_one_line_on_the_command_line() -> None:
    got = loadstone("run", "--engine", "kvm", "--deterministic", "/bin/true")
    assert (got.status, got.stdout) == (125, b"")
    assert "unicorn" in got.errors


# -- the rule of auto -------------------------------------------------------------------------------------------------


def test_a_cheap_exit_is_a_reason_for_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    maker("kvm")
    monkeypatch.setattr(engines, "TESTED_KVM", "/")
    monkeypatch.setattr(engines, "DEAREST_EXIT_NS", 10**9)
    with Machine(memory=16 << 20) as machine:
        assert machine.engine == "kvm"
        assert re.search(r"leaving the guest costs \d+ us here", machine.engine_why)


def test_a_dear_exit_is_a_reason_for_unicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    maker("kvm")
    monkeypatch.setattr(engines, "TESTED_KVM", "/")
    monkeypatch.setattr(engines, "DEAREST_EXIT_NS", 1)
    with Machine(memory=16 << 20) as machine:
        assert machine.engine == "unicorn"
        assert "KVM can be used, but leaving the guest costs" in machine.engine_why
        assert machine.spawn("/bin/true").run().code == 0


def test_a_kind_of_kvm_that_was_never_tested_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "TESTED_KVM", "/nowhere")
    with Machine(memory=16 << 20) as machine:
        assert (machine.engine, "never tested" in machine.engine_why) == ("unicorn", True)


def test_deterministic_runs_are_unicorns() -> None:
    with Machine(memory=16 << 20, deterministic=True) as machine:
        assert machine.engine == "unicorn"


def test_the_probe_takes_less_than_a_millisecond() -> None:
    bare = Bare(make=maker("kvm"))
    spent = []
    for _ in range(50):
        started = time.perf_counter()
        bare.core.exit_cost()
        spent.append(time.perf_counter() - started)
    bare.close()
    assert min(spent) < 0.001, "of fifty, since the machine has other work"


def test_the_probe_ends_where_an_exit_is_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Bare(make=maker("kvm"))
    real = bare.core._guest.enter
    entered = []

    def slowly(table: PageTable) -> int:
        entered.append(time.sleep(0.001))
        return int(real(table))

    monkeypatch.setattr(bare.core._guest, "enter", slowly)
    assert bare.core.exit_cost() > 1_000_000
    assert len(entered) == 3
    bare.close()


@pytest.mark.parametrize("engine", ["kvm", "auto"])
def test_stats_print_the_core_and_the_figure(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maker("kvm")
    if engine == "auto" and not os.path.isdir(engines.TESTED_KVM):
        pytest.skip("auto chooses Unicorn on this host")
    got = loadstone("run", "--stats", "/bin/true") if engine == "auto" else _run("--engine", "kvm", "--stats")
    text = " ".join(got.errors.split())
    assert re.search(r"engine (kvm|unicorn): .*leaving the guest costs \d+ us", text) or "asked for" in text


def _run(*options: str) -> Any:
    import subprocess

    from support.run import ENVIRONMENT, Completed

    done = subprocess.run(
        command("run", *options, "/bin/true"), capture_output=True, env=dict(ENVIRONMENT), check=False
    )
    return Completed(done.stdout, done.stderr, done.returncode)


def test_doctor_prints_what_an_exit_costs() -> None:
    maker("kvm")
    found = {entry["what"]: entry["found"] for entry in json.loads(loadstone("doctor", "--json").text)}
    assert re.fullmatch(r"usable.*; leaving the guest costs \d+ us", found["KVM"])
    assert found["--engine auto"].startswith(("kvm: KVM can be used, and ", "unicorn: KVM "))


# -- the baseline CPU -------------------------------------------------------------------------------------------------

# Names of /proc/cpuinfo by (leaf, register, bit); Intel SDM vol. 2, CPUID, and AMD's manual for 0x80000001.
NAMES = {
    (
        1,
        3,
    ): "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 - clflush - - - mmx fxsr sse sse2",
    (
        1,
        2,
    ): "pni pclmulqdq - - - - - - - ssse3 - - - cx16 - - - - - sse4_1 sse4_2 - movbe popcnt - aes - - - - - hypervisor",
    (7, 1): "fsgsbase - - bmi1 - - - - bmi2 erms",
    (7, 2): "",
    (7, 3): "",
    (0x8000_0001, 2): "lahf_lm - - - - abm",
    (0x8000_0001, 3): "- - - - - - - - - - - syscall - - - - - - - - nx - - - - - - rdtscp - lm",
}


def features() -> list[str]:
    """What the baseline CPU says it has, by name; a bit without a name is an error."""
    found = []
    for leaf, register in cpuid.FEATURE_WORDS:
        names = NAMES[leaf, register].split()
        word = cpuid.cpuid(leaf, 0)[register]
        for bit in range(32):
            if word >> bit & 1:
                assert names[bit] != "-", f"CPUID {leaf:#x}, register {register}, bit {bit}"
                found.append(names[bit])
    return found


def test_the_features_are_those_of_the_documentation() -> None:
    listed = re.search(r"### The baseline CPU\n.*?```text\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert listed is not None, "docs/engines.md has no list of features"
    assert sorted(listed.group(1).split()) == sorted(features())


def test_unicorn_is_the_baseline_cpu(bare: Bare) -> None:
    """CPUID, executed in ring 3, word by word."""
    for leaf, part, answer in cpuid.table():
        bare.start(f"mov eax, {leaf}; mov ecx, {part}; cpuid; mov r8d, ecx; syscall")
        assert tuple(bare.context.read(name) for name in ("rax", "rbx", "r8", "rdx")) == answer


def test_the_table_for_kvm_is_the_same() -> None:
    assert answers(baseline_cpu().table) == {(leaf, part): answer for leaf, part, answer in cpuid.table()}


def test_kvm_refuses_where_cpuid_is_the_hosts() -> None:
    bare = Bare(make=maker("kvm"))
    seen = {leaf: bare.core.cpuid(leaf) for leaf, _ in cpuid.FEATURE_WORDS}
    bare.close()
    if all(not seen[leaf][n] & ~cpuid.cpuid(leaf, 0)[n] for leaf, n in cpuid.FEATURE_WORDS):
        pytest.skip("this host's CPU has no more than the baseline")
    if not os.path.isdir(engines.TESTED_KVM):
        pytest.skip("this host's KVM may let its user decide what CPUID says")
    got = _run("--engine", "kvm", "--cpu", "baseline")
    assert got.status == 125
    assert "use --engine unicorn" in got.errors
    with Machine(memory=16 << 20, cpu="baseline") as machine:
        assert machine.engine == "unicorn"
        assert "is not decided by Loadstone on this host's KVM" in machine.engine_why
        assert machine.physical.usage()["reserved"] == 1


def test_kvm_is_the_baseline_where_cpuid_is_ours(compiled: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """As hardware would have it: CPUID answers what was asked for. (The program's own CPUID cannot be patched.)"""
    maker("kvm")
    monkeypatch.setattr(KvmCore, "cpuid", lambda _self, leaf, part=0: cpuid.cpuid(leaf, part))
    with Machine(memory=64 << 20, engine="kvm", cpu="baseline") as machine:
        core: Any = machine.core
        assert (core.hwcap, core.hwcap2, core.minimum_signal_stack) == (cpuid.HWCAP, cpuid.HWCAP2, 2048)
        assert (core.xcr0, core.extended_size) == (3, 512)
        assert machine.spawn(compiled("recover", "musl-static")).run().signal == 12


def test_cpu_baseline_on_the_command_line(compiled: Compiler) -> None:
    """On whatever core auto takes, the program sees no AVX and runs right."""
    program = compiled(
        "#include <stdio.h>\nint main(void) { __builtin_cpu_init(); "
        'printf("%d %d\\n", !!__builtin_cpu_supports("avx"), !!__builtin_cpu_supports("sse4.2")); return 0; }'
    )
    got = loadstone("run", "--cpu", "baseline", program, env=None) if native(program).status == 0 else None
    assert got is not None
    assert (got.text, got.status) == ("0 1\n", 0)
    same(compiled("numbers", "pie", "-lm"), options=("--cpu", "baseline"))


def test_another_cpu_is_refused() -> None:
    assert loadstone("run", "--cpu", "pentium", "/bin/true").status == 125
    with pytest.raises(HostError, match="there is no such CPU; there is baseline"):
        Machine(cpu="pentium")


def test_a_core_that_cannot_be_made_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    maker("kvm")
    monkeypatch.setattr(KvmCore, "cpuid", lambda _self, _leaf, part=0: (0xFFFF_FFFF,) * 4)
    memory = PhysicalMemory(1 << 20)
    before, descriptors = memory.usage(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="--cpu baseline"):
        KvmCore(memory, lambda *_: None, baseline=True)
    assert (memory.usage(), len(os.listdir("/proc/self/fd"))) == (before, descriptors)
    memory.close()
