"""Both cores make the same record of a program: page faults, system calls, mappings, signals, switches and exits.

Programs of musl, own C, whose code does not depend on what CPUID says. Both cores are the baseline CPU (on a KVM that
does not decide what CPUID says the program is told so all the same: these do not look), and time moves by what the
program does. What is compared of a fault: address, instruction, access, mode, cause, major, pages around it, mapping,
offset; of a call: number, arguments, result. Not the number of the frame: a core has some frames of its own.

A program of glibc takes other functions where the CPU has more, and those fault elsewhere. The last test names them.
"""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loadstone import api, assembly
from loadstone import events as kinds
from loadstone.clock import VirtualClock
from loadstone.events import Exit, Fault, Fork, Program, Switch, Syscall, Wake
from loadstone.kernel import policies
from loadstone.machine import cpuid, kvm_core, native_code
from loadstone.machine.kvm_core import KvmCore
from machine.engines import maker
from support.compilers import SOURCES, Compiler

ENVIRONMENT = {"PATH": "/usr/bin", "LC_ALL": "C"}
DEEDS = ("null", "write-code", "execute-data", "divide", "abort", "raise")
FRAMES = ("read", "write-present", "execute", "not-canonical", "divide", "ud2", "int3", "hlt", "in", "step", "x87",
          "file-end", "queue", "overflow")  # fmt: skip

# name of the source -> the arguments of each run
PROGRAMS: dict[str, Sequence[tuple[str, ...]]] = {
    "allocate": [()],
    "hello": [("there", "5")],
    "mappings": [()],
    "numbers": [()],
    "vectors": [("one", "", "three words here")],
    "threads_local": [()],
    "recover": [()],
    "pictures": [("argument",)],
    "sparse": [(), ("map",)],
    "signals": [*((deed,) for deed in DEEDS), *((deed, "handle") for deed in DEEDS)],
    "sigframe": [(kind, "s") for kind in FRAMES],
    "cores/again": [("A", "B", "C")],
    **{f"cores/{path.stem}": [()] for path in sorted((SOURCES / "cores").glob("*.c")) if path.stem != "again"},
}
DYNAMIC = ("hello", "numbers", "recover", "threads_local", "cores/instructions", "cores/family", "cores/files",
           "cores/mapped", "cores/masks", "cores/strings", "cores/threads")  # fmt: skip


@pytest.fixture(autouse=True)
def both_cores() -> None:
    """Two cores to compare, or a skip with the reason."""
    maker("kvm")
    if not native_code.supported():
        pytest.skip("the Unicorn core needs an x86-64 host")


@pytest.fixture
def same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cores' own speed decides is taken away: the clock moves by calls and sleeps, slices never end."""
    monkeypatch.setattr(assembly, "Clock", VirtualClock)
    monkeypatch.setattr(VirtualClock, "advance", lambda _self, _nanoseconds: None)
    monkeypatch.setattr(policies, "SLICE", 1 << 45)
    monkeypatch.setattr(kvm_core, "TESTED_KVM", "/nowhere")  # where a CPU's time stamps are read, clocks are not asked
    monkeypatch.setattr(KvmCore, "cpuid", lambda _self, leaf, part=0: cpuid.cpuid(leaf, part))


def comparable(event: Any) -> tuple[object, ...]:
    """An event without what is the core's own."""
    if isinstance(event, Fault):
        return "fault", *event._replace(frame=0)
    if isinstance(event, Syscall):
        return "syscall", *event._replace(text="")
    if isinstance(event, Switch):
        return "switch", event.cpu, event.source, event.target, event.why
    if isinstance(event, kinds.Run):
        return "run", *event._replace(start=0, end=0, work=0)
    if isinstance(event, Exit):
        return "exit", *event._replace(time=0, cpu_ns=0, system_ns=0)
    if isinstance(event, Fork | Wake | Program):
        return type(event).__name__, *event._replace(time=0)
    return type(event).__name__, *event


def record(
    engine: str, program: str, arguments: Sequence[str], cpu: str | None = "baseline"
) -> list[tuple[object, ...]]:
    """Every event of a run."""
    events: list[tuple[object, ...]] = []
    with api.Machine(engine=engine, cpu=cpu, seed=1, memory=1100 << 20, cpu_count=1, timeout=100) as machine:
        machine.events.subscribe(lambda event: events.append(comparable(event)))
        status = machine.spawn(program, [program, *arguments], ENVIRONMENT).run()
        assert not status.timed_out
    return events


def text_of(source: str) -> str:
    """What to compile."""
    return (SOURCES / f"{source}.c").read_text() if "/" in source else source


def shown(event: tuple[object, ...]) -> str:
    return " ".join(hex(value) if type(value) is int and abs(value) > 4096 else str(value) for value in event)


def difference(one: list[tuple[object, ...]], two: list[tuple[object, ...]]) -> str:
    lines = difflib.unified_diff(list(map(shown, one)), list(map(shown, two)), "unicorn", "kvm", "", n=1, lineterm="")
    return "\n".join(list(lines)[:40])


CASES = [
    pytest.param(
        source, arguments, variant, id="-".join((source.removeprefix("cores/"), *filter(None, arguments), variant))
    )
    for source, runs in PROGRAMS.items()
    for arguments in runs
    for variant in ("musl-static", "musl")
    if variant == "musl-static" or source in DYNAMIC
]


@pytest.mark.usefixtures("same_settings")
@pytest.mark.parametrize(("source", "arguments", "variant"), CASES)
def test_the_same_record(
    source: str, arguments: tuple[str, ...], variant: str, compiled: Compiler, here: Path,
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes],
) -> None:  # fmt: skip
    program = compiled(text_of(source), variant, "-lm")
    monkeypatch.chdir(here)
    got = {}
    outputs = []
    for engine in ("unicorn", "kvm"):
        got[engine] = record(engine, program, arguments)
        outputs.append(capfdbinary.readouterr())
    assert outputs[0] == outputs[1]
    assert got["unicorn"] == got["kvm"], difference(got["unicorn"], got["kvm"])
    assert sum(event[0] == "fault" for event in got["kvm"]) > 3


def test_there_are_thirty_programs() -> None:
    assert len(PROGRAMS) >= 30


@pytest.mark.usefixtures("same_settings")
def test_without_the_baseline_the_signal_frame_is_that_of_the_cpu(
    compiled: Compiler, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The frame holds the XSAVE image of the host's CPU, and so the stack is deeper: nothing else differs."""
    program = compiled("recover", "musl-static")
    with api.Machine(engine="kvm", memory=64 << 20) as machine:
        if machine.core.new_context().extended_size <= 512:
            pytest.skip("this CPU has no XSAVE, and so the frame of the baseline")
    one, two = record("unicorn", program, ()), record("kvm", program, (), cpu=None)
    capfdbinary.readouterr()
    assert one != two
    assert without_frames(one) == without_frames(two)


def without_frames(events: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Without the kernel's own faults while it writes frames to the stack, and without addresses on the stack."""
    return [
        event[:1] if event[0] == "syscall" else event
        for event in events
        if not (event[0] == "fault" and "[stack]" in event)
    ]


# -- glibc ------------------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """A run of a static glibc program."""

    faults: list[Fault]
    calls: list[str]  # as strace shows them, with the result
    chosen: dict[str, str]  # which function each IFUNC resolver has chosen


class Symbols:
    """The functions of an ELF file, and its IFUNC relocations."""

    def __init__(self, path: str) -> None:
        from elftools.elf.elffile import ELFFile

        self.slots: list[tuple[int, int]] = []  # (where the choice is kept, the resolver)
        functions: dict[int, tuple[int, str]] = {}
        with open(path, "rb") as file:
            elf = ELFFile(file)
            for symbol in elf.get_section_by_name(".symtab").iter_symbols():
                if symbol["st_info"]["type"] in ("STT_FUNC", "STT_LOOS") and symbol["st_size"]:
                    functions.setdefault(symbol["st_value"], (symbol["st_size"], symbol.name))
            for section in elf.iter_sections("SHT_RELA"):
                for relocation in section.iter_relocations():
                    if relocation["r_info_type"] == _IRELATIVE:
                        self.slots.append((relocation["r_offset"], relocation["r_addend"]))
        self._starts = sorted(functions)
        self._functions = functions

    def name(self, address: int) -> str:
        """The function that holds an address; "" for none."""
        at = bisect.bisect_right(self._starts, address) - 1
        if at < 0:
            return ""
        size, name = self._functions[self._starts[at]]
        return name if address < self._starts[at] + size else ""


_IRELATIVE = 37  # R_X86_64_IRELATIVE
_FREE = re.compile(r"(freeram|uptime)=\d+")  # sysinfo: each core has some frames of its own, and its run its second
# What asks CPUID in a static program of glibc 2.3x, to choose functions and to size caches (sysdeps/x86/cpu-features.c,
# dl-cacheinfo.h), inlined or not.
ASKS_CPUID = re.compile(
    r"(init_cpu_features|update_active|get_(common|extended)|__libc_start_main|intel_check_word|handle_intel|"
    r"handle_amd|dl_init_cacheinfo|init_cacheinfo|__x86_cpu|cpu_features)"
)


def run_glibc(engine: str, program: str, symbols: Symbols) -> Run:
    faults: list[Fault] = []
    calls: list[str] = []
    with api.Machine(engine=engine, seed=1, memory=256 << 20, cpu_count=1) as machine:
        machine.events.subscribe(faults.append, ("fault",))
        machine.events.subscribe(lambda call: calls.append(_FREE.sub("", f"{call.text} = {call.result}")), ("syscall",))
        process = machine.spawn(program, [program], ENVIRONMENT)
        process.run_until("exit")

        def word(address: int) -> int:
            return int.from_bytes(process.memory.read(address, 8), "little")

        chosen = {symbols.name(resolver): symbols.name(word(slot)) for slot, resolver in symbols.slots}
    return Run(faults, calls, chosen)


@pytest.mark.parametrize("source", ["cores/strings", "cores/growing", "cores/lines", "hello"])
def test_glibc_differs_by_the_functions_that_the_cpu_chooses(
    source: str, compiled: Compiler, here: Path, monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:  # fmt: skip
    """Every fault that only one core takes is in, or at, a function that the cores have chosen differently.

    Or in what asks the CPU in order to choose. The system calls are the same.
    """
    monkeypatch.chdir(here)
    program = compiled(text_of(source), "static", "-lm")
    symbols = Symbols(program)
    runs, outputs = [], []
    for engine in ("unicorn", "kvm"):
        runs.append(run_glibc(engine, program, symbols))
        outputs.append(capfdbinary.readouterr().out)
    one, two = runs
    assert outputs[0] == outputs[1]
    assert one.calls == two.calls
    assert one.chosen.keys() == two.chosen.keys()
    different = {name for resolver in one.chosen if one.chosen[resolver] != two.chosen[resolver]
                 for name in (one.chosen[resolver], two.chosen[resolver])}  # fmt: skip
    if "avx2" in Path("/proc/cpuinfo").read_text():
        assert any("sse" in name for name in different), "the cores choose the same functions"
    unexplained = [
        f"{symbols.name(fault.pc)} {fault.access}s {fault.address:#x} {symbols.name(fault.address)}"
        for fault in taken_by_one(one.faults, two.faults)
        if not explains(symbols, fault, different)
    ]
    assert unexplained == []


def taken_by_one(one: list[Fault], two: list[Fault]) -> list[Fault]:
    """The faults that have no counterpart, in order: the same access to the same address in the same mode."""

    def key(fault: Fault) -> tuple[object, ...]:
        return fault.address, fault.access, fault.mode, fault.cause

    matcher = difflib.SequenceMatcher(None, list(map(key, one)), list(map(key, two)), autojunk=False)
    return [
        fault
        for tag, first, last, start, end in matcher.get_opcodes()
        if tag != "equal"
        for fault in (*one[first:last], *two[start:end])
    ]


def explains(symbols: Symbols, fault: Fault, different: set[str]) -> bool:
    """Whether a fault is one of a function that only one core has chosen, or of the choice."""
    function = symbols.name(fault.pc)
    return function in different or bool(ASKS_CPUID.match(function))
