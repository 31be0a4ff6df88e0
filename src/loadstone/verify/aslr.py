"""Address-space randomisation against the kernel: the same areas, ranges, alignments and distributions.

Some programs are executed many times on both sides. For each area one number is compared: how far it is from what it is
placed from (the stack's top from the end of the address space, the break from the end of `.bss`, ...). The range is
Loadstone's own, from draws that are all zeros and all ones; and each side's sample must

- lie in that range, a stack's top within two pages of it (it is the sum of a page and of an offset below it),
- be a multiple of the area's unit from the range's start,
- have each random bit set in about half of the execs (Hoeffding's bound),
- be distributed evenly: Kolmogorov and Smirnov's distance from the even distribution, and between the two samples.

The limits are such that an even source fails one test less than once in 10**10, and all of them, which are about a
thousand, less than once in 10**7. With 1,000 execs these are 39 to 61 % for a bit, D = 0.109 and D = 0.154.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from math import log, sqrt
from typing import TYPE_CHECKING, NamedTuple

from loadstone.errors import HostError
from loadstone.linux.exec.layout import PAGE, Draws
from loadstone.verify.case import Case, ElfFile, write
from loadstone.verify.case_text import parse_all
from loadstone.verify.host_world import HostWorld
from loadstone.verify.kernel_side import IMAGE, NativeServer, Request, vector_facts
from loadstone.verify.native import parse_maps

if TYPE_CHECKING:
    from loadstone.linux.exec.new_image import ExecImage

FALSE_ALARM = 1e-10  # at most so probable it is that one test refuses an even source
_STACK_UNIT = 16
_TOP_SLACK = 2 * PAGE  # arch_align_stack() below the random page
_LONG_ENOUGH = 200  # execs, for the limits above to mean anything

PROGRAMS = r"""
case PIE
elf64 "prog" size=0x3000
  header type=DYN entry=0x800
  INTERP r-- offset=0x900 vaddr=0x900 filesz=0x3 memsz=0x3 align=0x1
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1000 vaddr=0x2000 filesz=0x234 memsz=0x3000 align=0x1000
  at 0x900 "ld\x00"
elf64 "ld" size=0x1000
  header type=DYN entry=0x800
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
case ET_EXEC
elf64 "prog" size=0x2000
  header entry=0x400800
  LOAD r-x offset=0x0 vaddr=0x400000 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1000 vaddr=0x401000 filesz=0x100 memsz=0x2000 align=0x1000
case static PIE
elf64 "prog" size=0x1000
  header type=DYN entry=0x800
  LOAD rwx offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
case static PIE aligned to 2 MiB
elf64 "prog" size=0x1000
  header type=DYN entry=0x800
  LOAD rwx offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x200000
case i386 PIE
elf32 "prog" size=0x3000
  header type=DYN entry=0x800
  INTERP r-- offset=0x900 vaddr=0x900 filesz=0x3 memsz=0x3 align=0x1
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1000 vaddr=0x2000 filesz=0x234 memsz=0x3000 align=0x1000
  at 0x900 "ld\x00"
elf32 "ld" size=0x1000
  header type=DYN entry=0x800
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
case i386 ET_EXEC
elf32 "prog" size=0x2000
  header entry=0x8048800
  LOAD r-x offset=0x0 vaddr=0x8048000 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1000 vaddr=0x8049000 filesz=0x100 memsz=0x2000 align=0x1000
"""


class Place(NamedTuple):
    """Where one exec put things. Addresses."""

    program: int  # the first segment
    end: int  # of the program's last segment
    mmap: int  # the end of what was mapped first below the mmap base: the loader, or a static PIE
    vdso: int
    stack_top: int
    pointer: int
    brk: int


class Area(NamedTuple):
    """What is compared. `value`: of one exec, in bytes; `unit`: it is random in steps of that many bytes."""

    name: str
    source: str  # the kernel's function
    unit: int
    value: Callable[[Place], int]
    slack: int = 0


class Result(NamedTuple):
    """One area of one program on both sides. Sizes in bytes; distances as Kolmogorov and Smirnov's D."""

    program: str
    area: Area
    lowest: int
    highest: int
    live: tuple[int, ...]
    own: tuple[int, ...]
    faults: tuple[str, ...]  # what is not as it must be; () for all well

    @property
    def bits(self) -> int:
        """Random bits of the area."""
        return _bits(self.lowest, self.highest, self.area.unit)


_STACK = (
    Area("stack top", "randomize_stack_top", PAGE, lambda place: -place.stack_top, _TOP_SLACK),
    Area("stack pointer in its page", "arch_align_stack", _STACK_UNIT, lambda place: place.stack_top - place.pointer),
)
_MMAP = Area("mmap base", "arch_mmap_rnd", PAGE, lambda place: -place.mmap)
_VDSO = Area("vdso below the mmap base", "arch_setup_additional_pages", PAGE, lambda place: place.mmap - place.vdso)
_BREAK = Area("break above .bss", "arch_randomize_brk", PAGE, lambda place: place.brk - place.end)
_LOW_BREAK = Area("break", "arch_randomize_brk", PAGE, lambda place: place.brk)
_BIAS = Area("program", "load_elf_binary: ELF_ET_DYN_BASE", PAGE, lambda place: place.program)
_AREAS = {
    "PIE": (*_STACK, _MMAP, _VDSO, _BIAS, _BREAK),
    "ET_EXEC": (*_STACK, _BREAK, Area("vdso", "arch_mmap_rnd", PAGE, lambda place: -place.vdso)),
    "static PIE": (*_STACK, _MMAP, _VDSO, _LOW_BREAK),
    "static PIE aligned to 2 MiB": (
        Area("program", "load_elf_binary: its alignment", 2 << 20, lambda place: -place.program),
        _LOW_BREAK,
    ),
}


def program_names() -> list[str]:
    """The programs that are executed."""
    return [case.what for case in parse_all(PROGRAMS)]


def measure(
    count: int, seed: int, *, programs: Sequence[str] = (), progress: Callable[[int], object] = lambda done: None
) -> list[Result]:
    """Compare `count` execs of each program on both sides; `programs`: which, by name (default: all).

    Raises HostError where the host does not randomise addresses.
    """
    if _randomization() != 2:
        raise HostError("this host does not randomise addresses: kernel.randomize_va_space is not 2")
    if count < _LONG_ENOUGH:
        raise HostError(f"{count} execs say nothing about a distribution: at least {_LONG_ENOUGH} are needed")
    cases = [case for case in parse_all(PROGRAMS) if not programs or case.what in programs]
    base = tempfile.mkdtemp(prefix="loadstone-aslr-")
    server = NativeServer()
    results = []
    try:
        for number, case in enumerate(cases):
            directory = os.path.join(base, str(number))
            os.mkdir(directory)
            write(case, directory)
            live = _live(case, directory, server, count)
            own, ends = _own(case, directory, seed, count)
            for area in _AREAS[case.what.removeprefix("i386 ")]:
                results.append(_judge(case.what, area, live, own, ends))
            progress(number + 1)
    finally:
        server.close()
        shutil.rmtree(base)
    return results


class _Constant(Draws):
    """Draws that are all as low, or all as high, as they can be."""

    def __init__(self, high: bool) -> None:
        self._high = high

    def bits(self, count: int) -> int:
        """No bit, or all of them."""
        return (1 << count) - 1 if self._high else 0

    def below(self, bound: int) -> int:
        """0, or the highest."""
        return bound - 1 if self._high else 0


def _randomization() -> int:
    with open("/proc/sys/kernel/randomize_va_space", encoding="ascii") as file:
        return int(file.read())


def _live(case: Case, directory: str, server: NativeServer, count: int) -> list[Place]:
    request = Request(case.executed, case.argv, case.envp, directory, None, None, (), True)
    found = []
    for _ in range(count):
        kind, facts = server.ask(request)
        if kind != IMAGE:
            raise HostError(f"the kernel does not execute {case.what}: {kind}")
        found.append(_place(case, facts))
    return found


def _own(case: Case, directory: str, seed: int, count: int) -> tuple[list[Place], tuple[Place, Place]]:
    """`count` execs, one after the other from the same draws; and those with the lowest and the highest draws."""
    world = HostWorld()
    world.cwd = directory

    def once(draws: Draws) -> Place:
        image = world.exec(case.executed, case.argv, case.envp, draws=draws)
        try:
            return _place(case, _own_facts(image))
        finally:
            image.space.release()

    try:
        draws = Draws(seed)
        return [once(draws) for _ in range(count)], (once(_Constant(False)), once(_Constant(True)))
    finally:
        world.close()


def _own_facts(image: ExecImage) -> dict[str, str]:
    facts = vector_facts(image.auxv, image.plan.bits)
    facts["maps"] = image.space.render_maps()
    facts["start_stack"], facts["start_brk"] = f"{image.space.start_stack:#x}", f"{image.space.start_brk:#x}"
    return facts


def _place(case: Case, facts: dict[str, str]) -> Place:
    program = case.files[0]
    assert isinstance(program, ElfFile)
    maps = parse_maps(facts["maps"])
    entry = int(facts["AT_ENTRY"], 16)
    first = next(mapping.start for mapping in maps if mapping.start <= entry < mapping.end)
    last = program.entries[-1]
    bias = entry - program.header.entry
    end = (bias + last.vaddr + last.memsz + PAGE - 1) & -PAGE
    base = int(facts["AT_BASE"], 16)
    return Place(
        program=first,
        end=end,
        mmap=base + PAGE if base else end,
        vdso=int(facts["AT_SYSINFO_EHDR"], 16),
        stack_top=next(mapping.end for mapping in maps if mapping.path == "[stack]"),
        pointer=int(facts["start_stack"], 16),
        brk=int(facts["start_brk"], 16),
    )


def _judge(program: str, area: Area, live: list[Place], own: list[Place], ends: tuple[Place, Place]) -> Result:
    lowest, highest = sorted(area.value(place) for place in ends)
    samples = [area.value(place) for place in live], [area.value(place) for place in own]
    faults = []
    for side, sample in zip(("the kernel", "Loadstone"), samples, strict=True):
        faults += [f"{side}: {fault}" for fault in _faults(sample, area, lowest, highest)]
    distance = _between(*samples)
    if distance > _limit(len(live) * len(own) / (len(live) + len(own))):
        faults.append(f"the two samples are distributed differently (D = {distance:.3f})")
    return Result(program, area, lowest, highest, tuple(samples[0]), tuple(samples[1]), tuple(faults))


def _faults(sample: Sequence[int], area: Area, lowest: int, highest: int) -> list[str]:
    """What is wrong with one side's sample of an area."""
    found = []
    outside = [value for value in sample if not lowest - area.slack <= value <= highest + area.slack]
    if outside:
        found.append(
            f"{len(outside)} of {len(sample)} are not in {lowest:#x}..{highest:#x}: {outside[0]:#x} and others"
        )
    unaligned = [value for value in sample if (value - lowest) % area.unit]
    if unaligned:
        found.append(f"{len(unaligned)} are no multiple of {area.unit:#x} away, the first is {unaligned[0]:#x}")
    if lowest == highest:
        return found
    steps = [(value - lowest) // area.unit for value in sample]
    for bit in range(_bits(lowest, highest, area.unit)):
        part = sum(step >> bit & 1 for step in steps) / len(steps)
        if abs(part - 0.5) > _limit(len(steps)):
            found.append(f"bit {bit} is set in {part:.0%} of the execs")
    distance = _from_even(sample, lowest, highest + area.unit)
    if distance > _limit(len(sample)):
        found.append(f"they are not distributed evenly (D = {distance:.3f})")
    return found


def _bits(lowest: int, highest: int, unit: int) -> int:
    """How many bits choose among the values from `lowest` to `highest`; what is over, rounding has added."""
    return ((highest - lowest) // unit + 1).bit_length() - 1


def _limit(size: float) -> float:
    """The distance that an even source exceeds with probability FALSE_ALARM.

    Hoeffding's for the share of ones; Dvoretzky, Kiefer and Wolfowitz's, with Massart's constant, for a distribution.
    """
    return sqrt(-log(FALSE_ALARM / 2) / 2 / size)


def _from_even(sample: Sequence[int], lowest: int, end: int) -> float:
    """The largest distance between the sample's distribution and the even one on [lowest, end)."""
    size = len(sample)
    worst = 0.0
    for index, value in enumerate(sorted(sample)):
        expected = (value - lowest) / (end - lowest)
        worst = max(worst, abs(expected - index / size), abs(expected - (index + 1) / size))
    return worst


def _between(one: Sequence[int], other: Sequence[int]) -> float:
    """The largest distance between the distributions of two samples."""
    first, second = sorted(one), sorted(other)
    at, to, worst = 0, 0, 0.0
    for value in sorted({*one, *other}):
        while at < len(first) and first[at] <= value:
            at += 1
        while to < len(second) and second[to] <= value:
            to += 1
        worst = max(worst, abs(at / len(first) - to / len(second)))
    return worst
