"""Kernels other than the one underneath, as data: what their sources say where Linux 6.18 says something else.

Each is one tree that was read, named by `release`; a distribution's kernel of the same number can have more backported.
What a kernel takes from the host (CPU, memory, limits, settings below /proc/sys) stays the host's. What is decided by
a build and not by the source (the sizes of vDSO images) is as distributions build it.
"""

from __future__ import annotations

from typing import Any

from loadstone.linux.exec import auxv
from loadstone.linux.profile import (
    AUXV_I386,
    AUXV_X86_64,
    BRK_ALWAYS,
    BRK_NEVER,
    BRK_RANDOMIZED,
    PAGE,
    KernelProfile,
    Special,
    live_profile,
)

LIVE = "live"

_RSEQ = (auxv.AT_RSEQ_FEATURE_SIZE, auxv.AT_RSEQ_ALIGN)


def _without(order: tuple[int, ...], *missing: int) -> tuple[int, ...]:
    return tuple([key for key in order if key not in missing])


def _special(pages: int) -> tuple[Special, ...]:
    """[vvar] of so many pages, and a vDSO of two."""
    return Special("[vvar]", pages * PAGE), Special("[vdso]", 2 * PAGE)


# Each repeats what it has in common with the next younger one by building on it.
_6_12: dict[str, Any] = {
    "release": "6.12.0",
    "special": _special(4),
    "special_i386": _special(4),
    "loader_brk": BRK_RANDOMIZED,
    "max_program_headers": PAGE,
    "comm_of_file": False,
    "exec_check": False,
    "guard_pages": False,
}
_6_6 = _6_12 | {
    "release": "6.6.9",
    "vdso_above_stack": True,
    "brk_gap": False,
    "align_loader": False,
    "huge_file_i386": True,
    "huge_anonymous": False,
    "unique_mounts": False,
}
# Debian's, with what the stable series took over from 6.10 to 6.15.
_6_1 = _6_6 | {
    "release": "6.1.192",
    "auxv": _without(AUXV_X86_64, *_RSEQ),
    "auxv_i386": _without(AUXV_I386, *_RSEQ),
    "loader_brk": BRK_ALWAYS,
    "brk_gap": True,
    "align_loader": True,
    "huge_file_i386": False,
}
_5_10 = _6_1 | {
    "release": "5.10.7",
    "auxv": _without(AUXV_X86_64, *_RSEQ, auxv.AT_MINSIGSTKSZ),
    "auxv_i386": _without(AUXV_I386, *_RSEQ, auxv.AT_MINSIGSTKSZ),
    "empty_argument": False,
    "tells_argv0": False,
    "loader_brk": BRK_RANDOMIZED,
    "brk_gap": False,
    "align_loader": False,
    "huge_file": False,
}
_4_19 = _5_10 | {
    "release": "4.19.0",
    "buffer_size": 128,
    "special": _special(3),
    "special_i386": _special(3),
    "vsyscall": "r-xp",
    "align_program": False,
    "loader_brk": BRK_NEVER,
    "has_aout": True,
}
# A 32-bit kernel: 3 GiB for programs, one for itself.
_2_6_32_I386 = _4_19 | {
    "release": "2.6.32.67",
    "machine": "i686",
    "x86_64": False,
    "auxv_i386": _without(AUXV_I386, *_RSEQ, auxv.AT_MINSIGSTKSZ, auxv.AT_HWCAP2),
    "special_i386": (Special("[vdso]", PAGE),),
    "vdso_above_stack": False,
    "task_size_i386": 0xC000_0000,
    "selectors_i386": (0x73, 0x7B),
    "max_program_headers": 65536,
    "program_in_mmap_area": True,
    "legacy_when_unlimited": True,
    "stack_guard_gap": 0,
    "stack_expand": 20 * PAGE,
    "fault_around": PAGE,
}

_KERNELS = {
    "6.12": _6_12,
    "6.6": _6_6,
    "6.1": _6_1,
    "5.10": _5_10,
    "4.19": _4_19,
    "2.6.32-i386": _2_6_32_I386,
}


def kernel_names() -> tuple[str, ...]:
    """What `kernel_profile` knows: `live`, and the others from the youngest to the oldest."""
    return (LIVE, *_KERNELS)


def kernel_profile(name: str) -> KernelProfile:
    """The profile of that name, on this host's CPU, memory and settings. Raises KeyError for an unknown name."""
    live = live_profile()
    if name == LIVE:
        return live
    changes = _KERNELS[name]
    default = KernelProfile()
    source = {field: getattr(default, field) for field in _FROM_THE_SOURCE}
    return live._replace(
        **source | {"name": f"linux-{name}", "version": f"#1 SMP {name} profile", "live": False} | changes
    )


# What a kernel's source decides; everything else in a profile is the host's.
_FROM_THE_SOURCE = (
    *("buffer_size", "rewrites", "empty_argument", "comm_of_file", "exec_check", "tells_argv0", "has_aout", "auxv"),
    *("auxv_i386", "ia32", "x86_64", "max_program_headers", "selectors_i386", "task_size", "task_size_i386"),
    *("stack_guard_gap", "stack_random_mask", "stack_random_mask_i386", "legacy_when_unlimited", "align_program"),
    *("program_in_mmap_area", "loader_in_mmap_area", "align_loader", "loader_brk", "brk_gap", "stack_expand"),
    *("huge_file", "huge_file_i386", "huge_anonymous", "special", "special_i386", "vdso_above_stack", "vsyscall"),
    *("vdso_entry_i386", "fault_around"),
)
