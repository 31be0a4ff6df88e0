"""Why two sequences of page faults differ: every difference by itself, with the reason where one is known.

A reason is given where the circumstances show it: the kernel's own two runs differ there; the two sides map a different
number of pages around a fault; the CPU of the Unicorn core is another one than the host's. It says "perhaps" where they
only suggest it: the program saw a /proc, a /sys or an answer that is not the host's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from loadstone.verify.alignment import align
from loadstone.verify.faults import (
    DEFAULT_FAULT_AROUND,
    MOVED,
    ONLY_HERE,
    ONLY_KERNEL,
    OTHER_MODE,
    PAGE,
    Comparison,
    Difference,
    FaultHere,
    Key,
    split,
)
from loadstone.verify.native_faults import NativeFault, NativeRun

_UNSTEADY = "the kernel's own two runs differ at this page"
_AROUND = "--fault-around {ours}K maps {pages} pages with one fault of a file, the kernel {theirs}K"
_OTHER_CPU = (
    "the CPU of --engine unicorn has no AVX and no XSAVE: the C library takes other functions, on other pages, and"
    " saves fewer registers on the stack (--engine kvm shows what is not due to that)"
)
_CLOCK = (
    "on the host the vDSO tells the time by itself; here it makes the system call, so the kernel writes the answer, not"
    " the program"
)
_REFUSED = "perhaps since Loadstone refuses what the host does: {}"
_OWN_FILES = "perhaps since it looks at what is the guest's own: {}"
_MOST_NAMES = 4
_FOLIO = (
    "perhaps since the host's page cache has these pages in one large folio, all of which a fault may map"
    " (mm/filemap.c, filemap_map_pages), beyond the window of --fault-around"
)
_LARGEST_FOLIO = 2 << 20
_COLD = "--page-cache cold maps no neighbours that were not read before"
_VDSO = "[vdso]"

Fault = NativeFault | FaultHere


def differences(comparison: Comparison, again: NativeRun) -> Iterator[Difference]:
    """All of them, task by task, in the order of the sequences. `again`: the kernel's second run."""
    native, here = comparison.native.faults, comparison.here.faults
    unsteady = _unsteady(comparison.native, again)
    names = {fault.address & -PAGE: fault.mapping for fault in here}
    areas = _areas(comparison.here.maps)
    blocks = {fault.address // _LARGEST_FOLIO for fault in native}
    for task, alignment in enumerate(comparison.alignments):
        left = [fault for fault in native if fault.task == task]
        right = [fault for fault in here if fault.task == task]
        kernel = [fault for hunk in alignment.hunks for fault in left[slice(*hunk.left)]]
        ours = [fault for hunk in alignment.hunks for fault in right[slice(*hunk.right)]]
        for kind, fault in _kinds(kernel, ours):
            page = fault.address & -PAGE
            mapping = names[page] if page in names else _mapping(areas, page)
            why = _why(
                comparison,
                mapping,
                unsteady=(task, fault.mode, page) in unsteady,
                in_vdso=mapping.startswith("[v") or _mapping(areas, fault.pc) == _VDSO,
                in_folio=kind == ONLY_HERE and page // _LARGEST_FOLIO in blocks,
            )
            yield Difference(kind, fault.mode, page, fault.pc, task, mapping, why)


def _kinds(kernel: list[NativeFault], ours: list[FaultHere]) -> Iterator[tuple[str, Fault]]:
    """Pair what both sides have with each other: a fault at another place of the sequence is one difference."""
    both = Counter(map(_key, kernel)) & Counter(map(_key, ours))
    pages_here = Counter(_key(fault)[1] for fault in ours)
    taken: Counter[Key] = Counter()
    other_mode: set[int] = set()
    for native in kernel:
        key = _key(native)
        if taken[key] < both[key]:
            taken[key] += 1
            yield MOVED, native
        elif pages_here[key[1]] and not both[key]:
            other_mode.add(key[1])
            yield OTHER_MODE, native
        else:
            yield ONLY_KERNEL, native
    for fault in ours:
        key = _key(fault)
        if taken[key]:
            taken[key] -= 1
        elif key[1] not in other_mode:
            yield ONLY_HERE, fault


def _why(comparison: Comparison, mapping: str, *, unsteady: bool, in_vdso: bool, in_folio: bool) -> str:
    """The reason, or ""."""
    here = comparison.here
    if unsteady:
        return _UNSTEADY
    of_file = mapping.startswith("/")
    if of_file and here.fault_around != DEFAULT_FAULT_AROUND:
        ours = here.fault_around
        return _AROUND.format(ours=ours >> 10, pages=f"up to {ours // PAGE}" if ours > PAGE else "no other", theirs=64)
    if of_file and here.page_cache != "warm":
        return _COLD
    if in_vdso:
        return _CLOCK
    if here.engine == "unicorn":
        return _OTHER_CPU
    if of_file and in_folio:
        return _FOLIO
    if here.refused:
        return _REFUSED.format(_some(here.refused))
    return _OWN_FILES.format(_some(here.own_files)) if here.own_files else ""


def _some(names: tuple[str, ...]) -> str:
    """The first few."""
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


def _unsteady(first: NativeRun, second: NativeRun) -> set[tuple[int, str, int]]:
    """(task, mode, page) of what the kernel itself does not repeat."""
    found = set()
    tasks = split(first.faults), split(second.faults)
    for task in {*tasks[0], *tasks[1]}:
        left, right = tasks[0].get(task, []), tasks[1].get(task, [])
        for hunk in align(left, right).hunks:
            found |= {(task, *key) for key in left[slice(*hunk.left)] + right[slice(*hunk.right)]}
    return found


def _areas(maps: str) -> list[tuple[int, int, str]]:
    """(start, end, name) of the lines of /proc/PID/maps."""
    found = []
    for line in maps.splitlines():
        fields = line.split(None, 5)
        start, _, end = fields[0].partition("-")
        found.append((int(start, 16), int(end, 16), fields[5] if len(fields) > 5 else ""))
    return found


def _mapping(areas: list[tuple[int, int, str]], page: int) -> str:
    return next((name for start, end, name in areas if start <= page < end), "")


def _key(fault: Fault) -> Key:
    return fault.mode, fault.address & -PAGE
