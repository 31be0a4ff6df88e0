"""Images that the kernel randomises all the same: its draws, read back from the image and given to Loadstone.

The personality ADDR_NO_RANDOMIZE is dropped for a set-user-ID or set-group-ID file (PER_CLEAR_ON_SETID), so two execs
of it never look the same. But everything in such an image follows from six draws. They can be solved for one after the
other; with them our image must be the kernel's, and each must lie in its range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadstone.binfmt.names import ET_DYN
from loadstone.binfmt.plan import ElfPlan
from loadstone.linux.exec import auxv
from loadstone.linux.exec.layout import PAGE, Draws

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.linux.profile import KernelProfile
    from loadstone.verify.image import ImageFacts


class OutOfRange(Exception):  # noqa: N818 - an answer about the kernel's image, not a fault of ours
    """The kernel's image needs a draw that Loadstone's rules do not allow."""


class KernelDraws(NamedTuple):
    """The draws behind one image, in the order in which they are taken. In pages, but for the two jitters (bytes)."""

    mmap: int = 0  # the mmap base, downwards; upwards in the legacy layout (arch_mmap_rnd)
    stack: int = 0  # the stack top, downwards (randomize_stack_top)
    stack_jitter: int = 0  # arch_align_stack, for the top
    program: int | None = None  # the load bias of an ET_DYN, upwards; None where none is drawn
    table_jitter: int = 0  # arch_align_stack, below the strings
    brk: int = 0  # the program break, upwards (arch_randomize_brk)

    def replay(self) -> Draws:
        """A source that answers with these."""
        return _Replay([value for value in self if value is not None])


class _Replay(Draws):
    """Answers with given numbers, in order."""

    __slots__ = ("_values",)

    def __init__(self, values: list[int]) -> None:
        self._values = values

    def bits(self, count: int) -> int:
        return self.below(1 << count)

    def below(self, bound: int) -> int:
        value = self._values.pop(0)
        if not 0 <= value < bound:
            raise OutOfRange(f"a draw of {value}, which must be from 0 to {bound - 1}")
        return value


def solve(build: Callable[[Draws], ExecImage], kernel: ImageFacts, profile: KernelProfile) -> KernelDraws:
    """The draws that make our image the kernel's.

    `build` makes our image from a source of draws; every image is released here. Raises OutOfRange, and LinuxError as
    `build` does.
    """
    draws = _with_vdso_below(build, kernel, _first_places(build, kernel, profile))
    with _Built(build, draws) as image:
        # Both were rounded down to 16 bytes after the draw: the smallest that leads there.
        distance = image.stack.random_address - dict(kernel.auxv)[auxv.AT_RANDOM]
        draws = draws._replace(table_jitter=max(distance + image.stack.argument_start % 16 - 15, 0))
    with _Built(build, draws) as image:
        return draws._replace(brk=(int(kernel.notes["start_brk"]) - image.brk) // PAGE)


def _first_places(build: Callable[[Draws], ExecImage], kernel: ImageFacts, profile: KernelProfile) -> KernelDraws:
    """The draws for mmap base, stack and program: each moves one area by whole pages, whatever the others are."""
    with _Built(build, KernelDraws(program=0)) as image:
        moved = image.interpreter is not None or not profile.loader_in_mmap_area
        biased = isinstance(image.plan, ElfPlan) and image.elf.header.type == ET_DYN and moved
        # The vDSO is mapped last, below or above what else is there, and moves with the base as that does.
        down = auxv.find(image.auxv, auxv.AT_SYSINFO_EHDR) - auxv.find(kernel.auxv, auxv.AT_SYSINFO_EHDR)
        pages = (image.stack.top - (kernel.stack_pointer + len(kernel.stack))) // PAGE
        # Rounded up: what a larger alignment rounds away is not seen.
        bias = -((image.program_entry - dict(kernel.auxv)[auxv.AT_ENTRY]) // PAGE)
        mask = profile.stack_random_mask if kernel.bits == 64 else profile.stack_random_mask_i386
    return KernelDraws(
        mmap=down // PAGE if image.space.layout.top_down else -down // PAGE,
        stack=min(pages, mask),
        stack_jitter=max(pages - mask, 0) * PAGE,
        program=bias if biased else None,
    )


def _with_vdso_below(build: Callable[[Draws], ExecImage], kernel: ImageFacts, draws: KernelDraws) -> KernelDraws:
    """The draws once more, of a program in the mmap area that leaves too little room above it for the vDSO.

    A static PIE is placed where huge pages may be, anything up to 2 MiB below the base. Where that is less than the
    vDSO takes, the vDSO lies below the program and does not tell the base; the program does, but for those few pages,
    which change nothing.
    """
    with _Built(build, draws) as image:
        up = dict(kernel.auxv)[auxv.AT_ENTRY] - image.program_entry
        if draws.program is not None or not up or not image.space.layout.top_down:
            return draws
        room = image.space.layout.mmap_base - _end_of_run(image)
        return draws._replace(mmap=draws.mmap - (up - room) // PAGE - 1)


def _end_of_run(image: ExecImage) -> int:
    """Where the mappings end that follow the program's entry point without a gap."""
    vmas = image.space.vmas
    vma = vmas.find(image.program_entry)
    assert vma is not None
    while (following := vmas.after(vma)) is not None and following.start == vma.end:
        vma = following
    return vma.end


class _Built:
    """An image for the length of a `with`."""

    def __init__(self, build: Callable[[Draws], ExecImage], draws: KernelDraws) -> None:
        # A first try knows nothing yet: more zeros than any image takes.
        values = [value for value in draws if value is not None]
        self.image = build(_Replay([*values, 0, 0]))

    def __enter__(self) -> ExecImage:
        return self.image

    def __exit__(self, *_: object) -> None:
        self.image.space.release()
