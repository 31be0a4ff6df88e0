"""Where things go in a new address space: the arithmetic of arch/x86/mm/mmap.c, fs/exec.c and fs/binfmt_elf.c.

Without address-space randomisation (the default) every place follows from the profile and the stack limit. With
`--aslr SEED` the same formulas add the kernel's own draws, of the kernel's widths and alignments, from a seeded source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple

if TYPE_CHECKING:
    from loadstone.linux.profile import KernelProfile

PAGE = 4096
MASK64 = (1 << 64) - 1
GAP_MINIMUM = 128 << 20  # arch/x86/mm/mmap.c: SIZE_128M
STACK_JITTER = 8192  # arch_align_stack()
BRK_RANGE = 1 << 30  # arch_randomize_brk()
BRK_RANGE_I386 = 32 << 20
HUGE_PAGE = 2 << 20


class Draws:
    """The random numbers of one exec, in the order in which the kernel takes them, from a recorded seed."""

    __slots__ = ("_bits",)

    def __init__(self, seed: int) -> None:
        from random import Random  # only `--aslr` pays for it

        self._bits = Random(seed).getrandbits

    def bits(self, count: int) -> int:
        """A number of `count` random bits."""
        return self._bits(count)

    def below(self, bound: int) -> int:
        """A number in [0, bound), bound > 0, with the kernel's slight bias of a 64-bit remainder."""
        return self._bits(64) % bound


class Placement(NamedTuple):
    """Where a new address space's areas go. Addresses in bytes.

    `legacy_base` is where a search upwards begins: all of them, unless `top_down`; then those that find nothing below.
    """

    stack_top: int
    mmap_base: int
    legacy_base: int
    top_down: bool
    task_size: int


def page_up(address: int) -> int:
    """The next page boundary at or above `address`."""
    return (address + PAGE - 1) & -PAGE


def align_stack(address: int, draws: Draws | None) -> int:
    """arch_align_stack(): down to 16 bytes, after at most 8,191 random bytes."""
    if draws is not None:
        address -= draws.below(STACK_JITTER)
    return address & -16


def mmap_bases(profile: KernelProfile, stack_limit: int, draws: Draws | None, bits: int = 64) -> tuple[int, int, bool]:
    """The address that mmap works from, the one for searches upwards, and whether the first goes down.

    Both move by the same draw (arch_pick_mmap_base).
    `stack_limit` is the soft RLIMIT_STACK in bytes. Below the stack a gap of that size is kept free, but at least
    128 MiB and at most five sixths of the address space: so a stack without a limit leaves one sixth for mmap.
    """
    task_size = profile.task_size if bits == 64 else profile.task_size_i386
    random = _mmap_random(profile, draws, bits)
    unlimited = profile.legacy_when_unlimited and stack_limit == MASK64
    legacy = page_up(task_size // 3) + random
    if profile.legacy_layout or unlimited:
        return legacy, legacy, False
    pad = profile.stack_guard_gap
    if draws is not None:
        pad += (profile.stack_random_mask if bits == 64 else profile.stack_random_mask_i386) * PAGE
    gap = stack_limit
    if (gap + pad) & MASK64 > gap:
        gap += pad
    gap = min(max(gap, GAP_MINIMUM), task_size // 6 * 5)
    return page_up(task_size - gap - random), legacy, True


def stack_top(profile: KernelProfile, draws: Draws | None, bits: int = 64) -> int:
    """The page-aligned top of the stack (randomize_stack_top, setup_arg_pages)."""
    top = profile.task_size if bits == 64 else profile.task_size_i386
    if draws is not None:
        mask = profile.stack_random_mask if bits == 64 else profile.stack_random_mask_i386
        top -= (draws.bits(64) & mask) * PAGE
    return page_up(align_stack(top, draws))


def place(profile: KernelProfile, stack_limit: int, draws: Draws | None, bits: int = 64) -> Placement:
    """The areas of a new address space, with the draws in the kernel's order: mmap base, then stack."""
    base, legacy, top_down = mmap_bases(profile, stack_limit, draws, bits)
    task_size = profile.task_size if bits == 64 else profile.task_size_i386
    return Placement(stack_top(profile, draws, bits), base, legacy, top_down, task_size)


def program_bias(profile: KernelProfile, alignment: int, draws: Draws | None, bits: int = 64) -> int:
    """Where an ET_DYN program with an interpreter goes: ELF_ET_DYN_BASE, randomised, aligned to its largest p_align.

    The first segment's p_vaddr is still to be subtracted, and the result rounded down to a page.
    """
    base = profile.pie_base if bits == 64 else profile.pie_base_i386
    base += _mmap_random(profile, draws, bits)
    return base & -alignment if alignment else base


def random_brk(start: int, draws: Draws, bits: int = 64) -> int:
    """arch_randomize_brk(): a page in the gigabyte (32 MiB for 32-bit programs) above `start`."""
    spread = BRK_RANGE if bits == 64 else BRK_RANGE_I386
    return page_up(start) + draws.below(spread // PAGE) * PAGE


def vdso_hint(profile: KernelProfile, start_stack: int, length: int, draws: Draws | None) -> int:
    """Where the vDSO is asked for: 0 (anywhere), or above the stack on kernels that tried there first (vdso_addr)."""
    if not profile.vdso_above_stack:
        return 0
    start = page_up(start_stack)
    end = min((start + length + HUGE_PAGE - 1) & -HUGE_PAGE, profile.task_size) - length
    if end <= start or draws is None:
        return start
    return start + draws.below((end - start) // PAGE + 1) * PAGE


def _mmap_random(profile: KernelProfile, draws: Draws | None, bits: int) -> int:
    if draws is None:
        return 0
    width = profile.mmap_random_bits if bits == 64 else profile.mmap_random_bits_i386
    return draws.bits(width) * PAGE
