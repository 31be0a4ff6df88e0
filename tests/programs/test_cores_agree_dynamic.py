"""Programs of dynamic glibc on both cores: why a page faults on one and not on the other, for every such page.

The cores are different CPUs (the host's, and the baseline), so glibc chooses other functions, which lie on other pages:
by IFUNC where relocations say so, and in the dynamic linker the one that saves registers while a symbol is looked up.
The libraries are stripped: what a relocation came to is read from its slot when the program has run, and how far a
function goes from its unwinding information. Besides, the CPU is asked by what executes CPUID; and the linker lists the
directories of libraries for this CPU, of which there are more or fewer, before it allocates the thread's control block.
"""

from __future__ import annotations

import bisect
from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile

from loadstone import api, assembly
from loadstone.clock import VirtualClock
from loadstone.events import Fault
from loadstone.kernel import policies
from loadstone.machine import kvm_core, native_code
from machine.engines import maker
from support.run import ENVIRONMENT, loadstone

PROGRAMS = (("/bin/true",), ("/bin/ls", "/"), ("/bin/bash", "-c", ":"), ("/usr/bin/python3", "-S", "-E", "-c", "pass"))
LINKER = "/lib64/ld-linux-x86-64.so.2"
IFUNC_RELOCATIONS = (6, 7, 37)  # GLOB_DAT, JUMP_SLOT, IRELATIVE: what may hold the address of a chosen function
CPUID = b"\x0f\xa2"


class Library:
    """The functions of a stripped ELF file, by unwinding information, and where addresses of functions are kept."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            self._segments = [(part["p_vaddr"], part.data()) for part in elf.iter_segments("PT_LOAD")]
            self.fixed = elf["e_type"] == "ET_EXEC"
            self.slots = [
                relocation["r_offset"]
                for section in elf.iter_sections("SHT_RELA")
                for relocation in section.iter_relocations()
                if relocation["r_info_type"] in IFUNC_RELOCATIONS
            ]
            dynamic = elf.get_section_by_name(".dynamic")
            tags = {tag.entry.d_tag: tag["d_ptr"] for tag in dynamic.iter_tags()} if dynamic else {}
            if "DT_PLTGOT" in tags:
                self.slots.append(tags["DT_PLTGOT"] + 16)  # who looks up what is called for the first time
            information = elf.get_dwarf_info()
            entries = information.EH_CFI_entries() if information.has_EH_CFI() else []
            self._functions = sorted(
                (entry.header["initial_location"], entry.header["address_range"])
                for entry in entries
                if isinstance(entry, FDE)
            )

    def function(self, address: int) -> int:
        """Where the function that holds `address` begins; -1: in none."""
        at = bisect.bisect_right(self._functions, (address, 1 << 64)) - 1
        start, size = self._functions[at] if at >= 0 else (0, 0)
        return start if address < start + size else -1

    def asks_the_cpu(self, function: int) -> bool:
        """Whether the function has a CPUID instruction."""
        size = dict(self._functions)[function]
        return any(CPUID in data[function - first : function - first + size] for first, data in self._segments)


@cache
def library(path: str) -> Library:
    return Library(path)


Function = tuple[str, int]
"""The path of a library, and where in it."""


class Run(NamedTuple):
    """What a core made of a program."""

    faults: list[Fault]
    calls: list[str]
    libraries: dict[str, int]  # where each was mapped
    slots: dict[tuple[str, int], int]
    control_block: tuple[int, int]  # the mapping that the thread's lies in

    def function(self, address: int) -> Function:
        """The function that holds an address; ("", -1) for none."""
        below = [(base, path) for path, base in self.libraries.items() if base <= address]
        if not below:
            return "", -1
        base, path = max(below)
        return path, library(path).function(address - (0 if library(path).fixed else base))


def run(engine: str, words: tuple[str, ...]) -> Run:
    faults: list[Fault] = []
    calls: list[str] = []
    with api.Machine(engine=engine, seed=1, memory=1 << 30, cpu_count=1, fault_around=4096, fill_ahead=0) as machine:
        machine.events.subscribe(faults.append, ("fault",))
        machine.events.subscribe(lambda call: calls.append(call.name), ("syscall",))
        process = machine.spawn(words[0], words, ENVIRONMENT)
        process.run_until("exit")
        space = process.inner.space
        libraries: dict[str, int] = {}
        for vma in space.vmas:
            name = space.name_of(vma)
            if name.startswith("/") and not vma.offset and _is_elf(name):
                libraries.setdefault(name, vma.start)
        slots = {}
        for path, base in libraries.items():
            for slot in library(path).slots:
                at = slot + (0 if library(path).fixed else base)
                slots[path, slot] = int.from_bytes(process.memory.read(at, 8), "little")
        block = space.find(process.inner.tasks[0].context.read("fs_base"))
        assert block is not None
        return Run(faults, calls, libraries, slots, (block.start, block.end))


def _is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


@pytest.fixture
def both_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores to compare, or a skip with the reason; what their speed decides is taken away."""
    maker("kvm")
    if not native_code.supported():
        pytest.skip("the Unicorn core needs an x86-64 host")
    monkeypatch.setattr(assembly, "Clock", VirtualClock)
    monkeypatch.setattr(VirtualClock, "advance", lambda _self, _nanoseconds: None)
    monkeypatch.setattr(policies, "SLICE", 1 << 45)
    monkeypatch.setattr(kvm_core, "TESTED_KVM", "/nowhere")  # where a CPU's time stamps are read, clocks are not asked


@pytest.mark.usefixtures("both_cores")
@pytest.mark.parametrize("words", PROGRAMS, ids=lambda words: words[0].rpartition("/")[2])
def test_every_page_that_only_one_core_faults_on_is_explained(
    words: tuple[str, ...], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """By a function that the cores have chosen differently, by what asks the CPU, or by what the answer has moved."""
    one = run("unicorn", words)
    first = capfdbinary.readouterr().out
    two = run("kvm", words)
    assert capfdbinary.readouterr().out == first
    assert one.calls == two.calls
    assert one.libraries == two.libraries
    chosen = {
        made.function(made.slots[slot])
        for slot in one.slots
        for made in (one, two)
        if one.slots[slot] != two.slots[slot]
    }
    assert len(chosen) > 20, "the cores choose the same functions"
    pages = [Counter(map(page, made.faults)) for made in (one, two)]
    unexplained = [
        f"{made.function(fault.pc)} {fault.access}s {fault.address:#x} {fault.mapping}"
        for made, mine, other in ((one, pages[0], pages[1]), (two, pages[1], pages[0]))
        for fault in made.faults
        if mine[page(fault)] > other[page(fault)] and not reason(made, fault, chosen)
    ]
    assert unexplained == []


def page(fault: Fault) -> tuple[object, ...]:
    """Which fault it is: a page faults once to be read, and once more to be written."""
    return fault.address >> 12, fault.access, fault.mode, fault.cause


def reason(made: Run, fault: Fault, chosen: set[Function]) -> str:
    """Why only this core takes the fault; "" when nothing tells."""
    path, start = made.function(fault.pc)
    if (path, start) in chosen:  # the one that saves registers on the stack is among them: XSAVE or FXSAVE
        return "variant"
    if start >= 0 and library(path).asks_the_cpu(start):
        return "asks the CPU"
    first, end = made.control_block
    if "/ld-linux" in path and fault.access == "write" and first <= fault.address < end:
        return "allocated by the linker behind the names of directories"
    return ""


@pytest.mark.usefixtures("both_cores")
def test_the_linker_lists_directories_for_its_cpu() -> None:
    """glibc-hwcaps: what the last reason above rests on."""
    texts = [loadstone("run", "--engine", engine, "--", LINKER, "--help").text for engine in ("unicorn", "kvm")]
    lists = [[line.split()[0] for line in text.splitlines() if "(supported, searched)" in line] for text in texts]
    assert "x86-64-v2" in lists[0]
    assert set(lists[0]) <= set(lists[1])
    with open("/proc/cpuinfo") as file:
        if "avx2" in file.read():
            assert "x86-64-v3" in set(lists[1]) - set(lists[0])
