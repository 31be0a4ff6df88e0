"""The part of a new process image that every binary format handler makes alike: address space, stack, anonymous memory.

Sources: fs/exec.c (begin_new_exec, setup_new_exec, setup_arg_pages), mm/mmap.c (vm_brk_flags).
"""

from __future__ import annotations

from errno import E2BIG, ENOMEM
from typing import TYPE_CHECKING

from loadstone.binfmt.plan import EXSTACK_DISABLE_X, EXSTACK_ENABLE_X
from loadstone.errors import LinuxError
from loadstone.linux.exec.layout import MASK64, PAGE, Placement, place
from loadstone.linux.exec.stack import STACK_DEFAULT
from loadstone.memory.flags import MAP_FIXED
from loadstone.memory.mapping import unmap_range
from loadstone.memory.neighbours import fill_below
from loadstone.memory.placement import Layout, unmapped_area
from loadstone.memory.stack import create_stack, expand_stack, finish_stack, put_on_stack, shift_stack

if TYPE_CHECKING:
    from loadstone.linux.exec.execve import Binprm
    from loadstone.linux.profile import KernelProfile
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.vma import Vma

_STACK_AHEAD = 3  # pages below the strings: tables, and what nearly every program's stack grows to
_STACK_REASON = ("no PT_GNU_STACK", "PT_GNU_STACK without PF_X", "PT_GNU_STACK with PF_X")


class NewImage:
    """An image that is being built, past the point of no return. `bits`: 64 or 32."""

    __slots__ = ("bits", "bprm", "place", "profile", "space")

    def __init__(self, bprm: Binprm, bits: int) -> None:
        self.bprm = bprm
        self.profile: KernelProfile = bprm.world.profile
        self.bits = bits
        self.space: AddressSpace | None = None
        self.place: Placement

    def release(self) -> None:
        """Give back what was built."""
        if self.space is not None:
            self.space.release()
            self.space = None

    def new_space(self, *, read_implies_exec: bool) -> AddressSpace:
        """begin_new_exec and setup_new_exec: the new address space, with its mmap base picked."""
        bprm, profile = self.bprm, self.profile
        bprm.pass_file()
        if bprm.secure:
            bprm.stack_limit = min(bprm.stack_limit, STACK_DEFAULT)
        bprm.stage(
            "begin_new_exec",
            0,
            lambda: (
                "the point of no return: from here on an error kills the process. Other threads end, close-on-exec "
                f"descriptors are closed, signal handlers are reset, comm becomes {bprm.comm!r}"
            ),
        )
        self.place = place(profile, bprm.stack_limit, bprm.draws, self.bits)
        where = self.place
        space = self.space = bprm.world.new_space(
            Layout(
                task_size=where.task_size,
                mmap_base=where.mmap_base,
                legacy_base=where.legacy_base,
                mmap_min_addr=max(profile.mmap_min_addr, profile.lsm_mmap_min_addr),
                dac_mmap_min_addr=profile.mmap_min_addr,
                top_down=where.top_down,
                stack_top=where.stack_top,
                stack_gap=profile.stack_guard_gap,
                vsyscall=profile.vsyscall if self.bits == 64 else "",
                huge_alignment=profile.huge_file and (self.bits == 64 or profile.huge_file_i386),
                huge_anonymous=profile.huge_anonymous and self.bits == 64,
            )
        )
        space.read_implies_exec = read_implies_exec
        direction = "down" if where.top_down else "up"
        bprm.stage(
            "setup_new_exec",
            0,
            lambda: (
                f"mmap works {direction} from {where.mmap_base:#x}: the stack limit {_limit(bprm.stack_limit)} and a "
                f"guard gap of {profile.stack_guard_gap:#x}, at least 128 MiB, stay free below the stack"
            ),
        )
        return space

    def setup_arg_pages(self, space: AddressSpace, executable: int) -> None:
        """setup_arg_pages: the stack gets its place, permissions and 128 KiB of room; its pages hold the strings.

        `executable`: EXSTACK_*.
        """
        bprm, top, arguments = self.bprm, self.place.stack_top, self.bprm.arguments
        runs = executable == EXSTACK_ENABLE_X or (space.read_implies_exec and executable != EXSTACK_DISABLE_X)
        first = self.place.task_size if self.bits == 64 else top
        vma = create_stack(space, first)
        for address in range(first - PAGE, first - arguments.pages - 1, -PAGE):
            if not expand_stack(space, vma, address):
                raise LinuxError(E2BIG, "the stack cannot hold the arguments")
        put_on_stack(space, vma, arguments.image)
        if first != top:
            shift_stack(space, vma, first - top)
        vma = finish_stack(space, vma, top - arguments.depth, runs, self.profile.stack_expand)
        self._fill_below(space, vma)
        bprm.stage(
            "setup_arg_pages",
            4,
            lambda: (
                f"the stack is {vma.start:#x}-{vma.end:#x}, {vma.perms[:3]} "
                f"({_STACK_REASON[executable]}); {arguments.pages // PAGE} page(s) of it hold the strings and are "
                "resident"
            ),
        )

    def put_strings(self, space: AddressSpace, stack: Vma) -> None:
        """The strings go to a stack that is in its place already, as large as `setup_arg_pages` makes it."""
        put_on_stack(space, stack, self.bprm.arguments.image)
        self._fill_below(space, stack)

    def _fill_below(self, space: AddressSpace, stack: Vma) -> None:
        fill_below(space, stack, self.place.stack_top - self.bprm.arguments.pages, _STACK_AHEAD)


def brk_flags(space: AddressSpace, start: int, end: int, vm_flags: int) -> None:
    """vm_brk_flags: anonymous memory in place of whatever is mapped there."""
    if end > space.layout.task_size:
        raise LinuxError(ENOMEM, f"{start:#x}-{end:#x} does not fit into the address space")
    unmapped_area(space, start, end - start, MAP_FIXED)
    if space.vmas.overlaps(start, end):
        unmap_range(space, start, end)
    space.extend(start, end - start, vm_flags)


def _limit(value: int) -> str:
    return "unlimited" if value == MASK64 else f"{value:#x}"
