"""execve, in the kernel's own stages (fs/exec.c): a new address space is built beside the old one, nothing is changed.

`execve` returns an `ExecImage`; the caller commits it with one assignment. A LinuxError without `fatal_signal` leaves
the old image as it was; with it, the kernel has passed the point of no return and the signal kills the process.
"""

from __future__ import annotations

import os
from errno import EACCES
from typing import TYPE_CHECKING

from loadstone.binfmt.known import KnownPlans
from loadstone.binfmt.plan import ElfPlan
from loadstone.binfmt.rules import FormatRules
from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple, Protocol
from loadstone.linux.exec.program import ExecCredentials, Opened, Program, check_open, file_credentials
from loadstone.linux.exec.stack import Arguments
from loadstone.linux.profile import RLIMIT_DATA, RLIMIT_STACK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.binfmt.misc import MiscFormats
    from loadstone.linux.exec.layout import Draws
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.linux.exec.prepared_images import PreparedImages
    from loadstone.linux.profile import KernelProfile
    from loadstone.linux.vdso import Vdso
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.placement import Layout
    from loadstone.vfs.location import Location


COMM_LENGTH = 15  # TASK_COMM_LEN without its NUL


class Stage(NamedTuple):
    """One stage of an exec. `step`: which of the five steps of load_elf_binary it belongs to, 0 outside of them.

    The five: 1 check the header, 2 find the interpreter, 3 map the segments, 4 prepare the program's environment
    (stack, registers), 5 set the address of the first instruction.
    """

    function: str
    step: int
    text: str


class World(Protocol):
    """What execve needs of the machine it runs in."""

    @property
    def profile(self) -> KernelProfile:
        """The kernel that is modelled."""

    @property
    def vdso(self) -> Vdso:
        """What is behind the special mappings."""

    @property
    def plans(self) -> KnownPlans:
        """What is known of programs, and the rules of the kernel."""

    @property
    def images(self) -> PreparedImages | None:
        """Those of programs that were executed before; None: all are made step by step."""

    def open_program(self, path: str) -> Location:
        """Resolve `path` from the process's root and working directory, following links; ENOENT and the like."""

    def new_space(self, layout: Layout) -> AddressSpace:
        """An empty address space for the process: one frame, the page directory."""

    def random_bytes(self, count: int) -> bytes:
        """Bytes for AT_RANDOM."""


def known_plans(profile: KernelProfile) -> KnownPlans:
    """No plan yet, and the rules of a kernel."""
    return KnownPlans(
        FormatRules(
            buffer_size=profile.buffer_size,
            task_size_64=profile.task_size,
            task_size_32=profile.task_size_i386,
            ia32=profile.ia32,
            x86_64=profile.x86_64,
            max_program_headers_size=profile.max_program_headers,
            aout=profile.has_aout,
        )
    )


class Setting(NamedTuple):
    """What else decides an exec in a running machine; the default is what a lone exec has.

    `formats`: those of binfmt_misc, or None. `free_descriptor`: the lowest number that is free once close-on-exec
    descriptors are gone (EMFILE). `honours_set_id`: whether set-user-ID and set-group-ID bits have an effect.
    """

    formats: MiscFormats | None = None
    free_descriptor: Callable[[], int] = lambda: 3
    honours_set_id: bool = True


_ALONE = Setting()


class Binprm:
    """`struct linux_binprm`: what the stages of one exec hand to each other.

    Attributes:
        program: the file that is looked at; an interpreter replaces it, and `scripts` has what it replaced.
        interp: the path of `program`, as it was asked for.
        passes_file: a format wants `passed`, the file it was asked for, to be open for the interpreter (have_execfd).
        descriptor: its number, once there is one.
        passes_credentials: the credentials are to come from `passed` (execfd_creds).
        preserves_argv0: a format kept argv[0], as AT_FLAGS will say.
        tells: whether somebody wants the stages.
    """

    __slots__ = (
        "arguments", "credentials", "descriptor", "draws", "file_name", "ignored_set_id", "interp", "opened", "passed",
        "passes_credentials", "passes_file", "preserves_argv0", "program", "rules", "scripts", "secure", "setting",
        "stack_limit", "stages", "tells", "world",
    )  # fmt: skip

    def __init__(
        self,
        world: World,
        file_name: str,
        who: ExecCredentials,
        stack_limit: int,
        draws: Draws | None,
        opened: Opened | None = None,
        setting: Setting = _ALONE,
    ) -> None:
        self.world = world
        self.file_name = file_name
        self.interp = file_name
        self.credentials = who
        self.stack_limit = stack_limit
        self.draws = draws
        self.opened = opened
        self.setting = setting
        self.rules = world.plans.rules
        self.scripts: list[Program] = []
        self.stages: list[Stage] = []
        self.tells = True
        self.secure = False
        self.ignored_set_id: Program | None = None
        self.passes_file = self.passes_credentials = self.preserves_argv0 = False
        self.passed: Program | None = None
        self.descriptor = -1
        self.arguments: Arguments
        self.program: Program

    @property
    def comm(self) -> str:
        """The task's name: the last component of the file name, or of the file's own where it had none; cut short."""
        name = self.file_name
        if self.opened is not None and self.opened.nameless and self.world.profile.comm_of_file:
            name = self.program.location.dentry.name
        return os.fsdecode(os.fsencode(name.rpartition("/")[2])[:COMM_LENGTH])

    def settle_credentials(self) -> None:
        """bprm_creds_from_file: the set-ID bits of the program, or of the file that is passed to it."""
        source = self.passed if self.passes_credentials and self.passed is not None else self.program
        credentials, secure = file_credentials(source, self.credentials)
        if self.setting.honours_set_id:
            self.credentials, self.secure = credentials, secure
        elif credentials != self.credentials:
            self.ignored_set_id = source
            self.stage(
                "bprm_fill_uid",
                0,
                f"the set-ID bits of {source.name} (mode {source.inode.mode & 0o7777:04o}) are ignored, as under "
                "no_new_privs",
            )

    def pass_file(self) -> None:
        """The file that an interpreter reads by descriptor gets its number (begin_new_exec)."""
        if self.passed is not None:
            self.descriptor = self.setting.free_descriptor()

    def stage(self, function: str, step: int, text: str | Callable[[], str]) -> None:
        """Record what `function` did. `text` may be a function, which makes the sentence if somebody wants it."""
        if self.tells:
            self.stages.append(Stage(function, step, text if isinstance(text, str) else text()))

    def open(self, path: str) -> Program:
        """open_exec(): a file that is about to be executed or mapped as an interpreter."""
        if not path:  # getname_kernel() lets it pass, and the walk ends where it starts
            raise LinuxError(EACCES, "the path is empty, which is the working directory")
        return Program(self.world.open_program(path), path, self.credentials)


def execve(
    world: World,
    path: str,
    argv: Sequence[bytes],
    envp: Sequence[bytes],
    who: ExecCredentials,
    *,
    limits: Callable[[int], int],
    draws: Draws | None = None,
    stages: list[Stage] | None = None,
    opened: Opened | None = None,
    program: Program | None = None,
    setting: Setting = _ALONE,
    tells: bool = True,
) -> ExecImage:
    """Build the image of `path` (do_execveat_common).

    Args:
        world: the machine.
        path: the file name, as the guest gave it; not searched in PATH.
        argv: the arguments, without NUL bytes; may be empty.
        envp: the environment strings.
        who: the process's credentials.
        limits: the process's soft limit of an RLIMIT_* number, in that limit's unit.
        draws: address-space randomisation, or None.
        stages: a list that receives the stages as they happen, so that a failed exec can be told too.
        opened: what execveat(2) found already; `path` is then only its name.
        program: what `check_open` said to that, if it was asked.
        tells: whether the image is to have its stages.
        setting: what the machine it runs in adds.

    Raises:
        LinuxError: with `fatal_signal` after the point of no return.
        OutOfFrames: the machine is full.
    """
    from loadstone.linux.exec.chain import exec_binprm
    from loadstone.linux.exec.load_elf import load_elf_binary

    bprm = Binprm(world, path, who, limits(RLIMIT_STACK), draws, opened, setting)
    if stages is not None:
        bprm.stages = stages
    bprm.tells = tells
    bprm.program = check_open(bprm.world.open_program, path, who, opened) if program is None else program
    inode = bprm.program.inode
    bprm.stage(
        "do_open_execat",
        0,
        lambda: f"{path} is a regular file of {inode.size} bytes, mode {inode.mode & 0o7777:04o}: it may be executed",
    )
    _copy_arguments(bprm, argv, envp)
    plan = exec_binprm(bprm)
    if isinstance(plan, ElfPlan):
        return load_elf_binary(bprm, plan)
    from loadstone.linux.exec.load_aout import load_aout_binary

    return load_aout_binary(bprm, plan, limits(RLIMIT_DATA))


def _copy_arguments(bprm: Binprm, argv: Sequence[bytes], envp: Sequence[bytes]) -> None:
    """alloc_bprm, bprm_mm_init and the copying of the strings."""
    profile = bprm.world.profile
    arguments = bprm.arguments = Arguments(
        os.fsencode(bprm.file_name), argv, envp, bprm.stack_limit, empty_argument=profile.empty_argument
    )
    bprm.stage(
        "bprm_mm_init",
        0,
        lambda: (
            "creating a process, step 1 of 3: a new address space, which is one frame for the page directory, and one "
            f"page of stack below {profile.task_size:#x}"
        ),
    )
    added = " (an empty argv[0] was added: argv had none)" if not argv and arguments.argument_count else ""
    bprm.stage(
        "copy_strings",
        0,
        lambda: (
            f"the file name, {len(envp)} environment strings and {arguments.argument_count} arguments{added} are "
            f"copied to the top of the new stack: {arguments.depth} bytes of at most {arguments.limit}"
        ),
    )
