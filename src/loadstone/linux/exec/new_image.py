"""A new process image, and what all binary format handlers make of it alike: address space, stack, registers.

Sources: fs/exec.c (begin_new_exec, setup_new_exec, setup_arg_pages), mm/mmap.c (vm_brk_flags),
arch/x86/kernel/process_64.c (start_thread).
"""

from __future__ import annotations

from errno import E2BIG, ENOMEM
from typing import TYPE_CHECKING

from loadstone.binfmt.plan import EXSTACK_DISABLE_X, EXSTACK_ENABLE_X, ElfPlan
from loadstone.errors import LinuxError
from loadstone.linux.exec.layout import MASK64, PAGE, Placement, place
from loadstone.linux.exec.stack import STACK_DEFAULT
from loadstone.machine.core import REGISTER_ORDER
from loadstone.machine.segments import USER_CS, USER_SS
from loadstone.memory.flags import MAP_FIXED
from loadstone.memory.mapping import unmap_range
from loadstone.memory.neighbours import fill_below
from loadstone.memory.placement import Layout, unmapped_area
from loadstone.memory.stack import create_stack, expand_stack, finish_stack, put_on_stack, shift_stack

if TYPE_CHECKING:
    from loadstone.binfmt.plan import AoutPlan
    from loadstone.linux.exec.execve import Binprm, Stage
    from loadstone.linux.exec.program import ExecCredentials, Program
    from loadstone.linux.exec.stack import InitialStack
    from loadstone.linux.profile import KernelProfile
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.vma import Vma

_STACK_AHEAD = 3  # pages below the strings: tables, and what nearly every program's stack grows to
_STACK_REASON = ("no PT_GNU_STACK", "PT_GNU_STACK without PF_X", "PT_GNU_STACK with PF_X")


class ExecImage:
    """A new process image, complete and not yet anybody's. All addresses in bytes.

    Attributes:
        space: the new address space.
        entry: where the first instruction is fetched (the interpreter's, if there is one).
        program_entry: the program's own entry point (AT_ENTRY).
        pointer: the stack pointer.
        registers: at the first instruction, by ptrace's names, and fcw, mxcsr. All others are 0.
        plan: the program's; `interpreter_plan` its interpreter's, or None.
        bias, interpreter_bias: what is added to their addresses.
        program: the file that was mapped (for a script: its interpreter); `script` the chain of scripts that led there.
        name: comm, at most 15 bytes.
        credentials: after set-user-ID and set-group-ID; `secure` is AT_SECURE. `ignored_set_id`: the file whose bits
            would have changed them, had they not been ignored.
        passed: the file that the interpreter finds open as `descriptor` (AT_EXECFD); None, -1: none.
        start_code ... start_brk: as in /proc/PID/stat.
        stages: what happened, in order.
    """

    __slots__ = (
        "bias",
        "brk",
        "credentials",
        "descriptor",
        "end_code",
        "end_data",
        "entry",
        "file_name",
        "ignored_set_id",
        "interpreter",
        "interpreter_bias",
        "interpreter_plan",
        "isa",
        "name",
        "passed",
        "plan",
        "program",
        "program_entry",
        "registers",
        "scripts",
        "secure",
        "space",
        "stack",
        "stages",
        "start_code",
        "start_data",
    )

    space: AddressSpace
    entry: int
    program_entry: int
    registers: dict[str, int]
    plan: ElfPlan | AoutPlan
    interpreter_plan: ElfPlan | None
    bias: int
    interpreter_bias: int
    program: Program
    interpreter: Program | None
    scripts: list[Program]
    name: str
    file_name: str
    isa: str
    credentials: ExecCredentials
    secure: bool
    ignored_set_id: Program | None
    passed: Program | None
    descriptor: int
    stack: InitialStack
    start_code: int
    end_code: int
    start_data: int
    end_data: int
    brk: int
    stages: list[Stage]

    def note(self) -> None:
        """The address space is told where code, data and stack are, as /proc/PID/stat shows them, and of which file."""
        space = self.space
        space.start_code, space.end_code = self.start_code, self.end_code
        space.start_data, space.end_data = self.start_data, self.end_data
        space.start_stack = self.pointer
        space.execute(self.program.inode)

    @property
    def pointer(self) -> int:
        """The stack pointer at the first instruction."""
        return self.stack.pointer

    @property
    def auxv(self) -> tuple[tuple[int, int], ...]:
        """The auxiliary vector without its AT_NULL; that of an a.out program is empty."""
        return self.stack.auxv

    @property
    def elf(self) -> ElfPlan:
        """The plan of an ELF program; not for a.out."""
        assert isinstance(self.plan, ElfPlan)
        return self.plan


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
        space = self.space = bprm.world.new_space(self._layout(where))
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

    def _layout(self, where: Placement) -> Layout:
        profile = self.profile
        return Layout(
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

    def image(self, space: AddressSpace, plan: ElfPlan | AoutPlan, stack: InitialStack, entry: int) -> ExecImage:
        """The image as start_thread leaves it, of a program alone; code, data and break are for who loads it to say."""
        bprm = self.bprm
        image = ExecImage()
        image.space, image.stack = space, stack
        image.entry = image.program_entry = entry
        image.registers = _initial_registers(entry, stack.pointer, self.bits, self.profile.selectors_i386)
        image.plan, image.interpreter_plan = plan, None
        image.bias = image.interpreter_bias = 0
        image.program, image.interpreter = bprm.program, None
        image.scripts, image.file_name, image.name, image.isa = bprm.scripts, bprm.file_name, bprm.comm, plan.isa
        image.credentials, image.secure = bprm.credentials, bprm.secure
        image.ignored_set_id, image.passed, image.descriptor = bprm.ignored_set_id, bprm.passed, bprm.descriptor
        image.stages = bprm.stages
        return image

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


_REGISTERS_32 = (
    *("ebx", "ecx", "edx", "esi", "edi", "ebp", "eax", "ds", "es", "fs", "gs"),
    *("eip", "cs", "eflags", "esp", "ss"),
)


def _initial_registers(entry: int, pointer: int, bits: int, selectors: tuple[int, int]) -> dict[str, int]:
    """What start_thread leaves, in ptrace's order (arch/x86/kernel/process_64.c, ELF_PLAT_INIT)."""
    registers = dict.fromkeys(REGISTER_ORDER if bits == 64 else _REGISTERS_32, 0)
    registers["eflags"] = 0x202
    if bits == 64:
        registers |= {"rip": entry, "rsp": pointer, "cs": USER_CS, "ss": USER_SS}
    else:
        code, data = selectors
        registers |= {"eip": entry, "esp": pointer, "cs": code, "ss": data, "ds": data, "es": data}
    return registers | {"fcw": 0x37F, "mxcsr": 0x1F80}
