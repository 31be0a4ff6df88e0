"""Address-space randomisation beside the kernel's: 1,000 execs of each program on both sides."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from loadstone.errors import HostError
from loadstone.linux.exec.layout import Draws
from loadstone.verify import aslr
from loadstone.verify.aslr import Area, Place, Result, measure, program_names
from loadstone.verify.host_world import HostWorld

EXECS = 1000
RANDOMISE = Path("/proc/sys/kernel/randomize_va_space")


FEW = ("PIE", "static PIE", "i386 PIE")  # between them they have every area
EVERY = [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in program_names()]


@pytest.mark.parametrize("program", EVERY)
def test_as_the_kernel_randomises(program: str) -> None:
    if RANDOMISE.read_text().strip() != "2":
        pytest.skip("the host does not randomise addresses")
    results = measure(EXECS, seed=42, programs=[program])
    assert results and not [(result.area.name, result.faults) for result in results if result.faults]
    bits = {result.area.name: result.bits for result in results}
    wide, narrow = (int(Path(f"/proc/sys/vm/mmap_rnd{name}_bits").read_text()) for name in ("", "_compat"))
    mmap = narrow if program.startswith("i386") else wide
    # arch/x86/include/asm/elf.h (STACK_RND_MASK), arch_align_stack, arch_randomize_brk
    expected = {
        "stack top": 11 if program.startswith("i386") else 22,
        "stack pointer in its page": 9,
        "mmap base": mmap,
        "vdso": mmap,
        "program": mmap - 9 if "2 MiB" in program else mmap,
        "break": 18,
        "break above .bss": 13 if program.startswith("i386") else 18,
        "vdso below the mmap base": 0,
    }
    assert bits == {name: expected[name] for name in bits}


def test_the_same_seed_gives_the_same_places() -> None:
    world = HostWorld()
    places = []
    for _ in range(2):
        image = world.exec("/bin/true", [b"x"], [], draws=Draws(7))
        places.append(image.space.render_maps())
        image.space.release()
    image = world.exec("/bin/true", [b"x"], [], draws=Draws(8))
    assert places[0] == places[1] != image.space.render_maps()
    image.space.release()
    world.close()


AREA = Area("an area", "nowhere", 4096, lambda place: place.brk)


def judged(live: list[int], own: list[int]) -> Result:
    ends = tuple(Place(0, 0, 0, 0, 0, 0, brk=value) for value in (0, 0xFFFFF000))
    sides = ([Place(0, 0, 0, 0, 0, 0, brk=value) for value in sample] for sample in (live, own))
    return aslr._judge("program", AREA, *sides, ends)  # type: ignore[arg-type]


def even(seed: int, count: int = EXECS) -> list[int]:
    draw = Random(seed)
    return [draw.getrandbits(20) << 12 for _ in range(count)]


def test_even_samples_pass() -> None:
    for seed in range(20):
        assert judged(even(seed), even(seed + 100)).faults == ()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda value: value + 16, "no multiple"),
        (lambda value: value + (1 << 32), "are not in"),
        (lambda value: value & ~0x8000, "bit 3 is set in 0%"),
        (lambda value: value // 3 & -4096, "not distributed evenly"),
        (lambda value: min(value, 0xC0000000), "distributed differently"),
    ],
    ids=["unit", "range", "a bit that is never set", "a third of the range", "cut off"],
)
def test_other_samples_do_not(spoil: object, said: str) -> None:
    spoiled = [spoil(value) for value in even(5)]  # type: ignore[operator]
    for result in (judged(spoiled, even(6)), judged(even(6), spoiled)):
        assert any(said in fault for fault in result.faults), result.faults


def test_too_few_execs_are_refused() -> None:
    with pytest.raises(HostError):
        measure(10, 0)
