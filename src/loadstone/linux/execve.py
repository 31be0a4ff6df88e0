"""execve, in the kernel's own stages (fs/exec.c): a new address space is built beside the old one, nothing is changed.

`execve` returns an `ExecImage`; the caller commits it with one assignment. A LinuxError without `fatal_signal` leaves
the old image as it was; with it, the kernel has passed the point of no return and the signal kills the process.
"""

from __future__ import annotations

import os
from errno import EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOEXEC
from typing import TYPE_CHECKING

from loadstone.binfmt.describe import describe
from loadstone.binfmt.plan import ElfPlan, ScriptPlan
from loadstone.binfmt.registry import HANDLERS
from loadstone.binfmt.rules import FormatRules
from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple, Protocol
from loadstone.linux.profile import RLIMIT_STACK
from loadstone.linux.stack import Arguments
from loadstone.vfs.flags import PATH_MAX, S_IFDIR, S_IFMT, S_IFREG, S_ISGID, S_ISUID, X_OK
from loadstone.vfs.inode import may

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.binfmt.plan import Plan
    from loadstone.linux.layout import Draws
    from loadstone.linux.profile import KernelProfile
    from loadstone.linux.stack import InitialStack
    from loadstone.linux.vdso import Vdso
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.placement import Layout
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Location
    from loadstone.vfs.regular import RegularFile


class Credentials(NamedTuple):
    """Who executes: real and effective ids, and the supplementary groups."""

    uid: int
    euid: int
    gid: int
    egid: int
    groups: tuple[int, ...] = ()

    @property
    def fsuid(self) -> int:
        """The user whose rights on files count."""
        return self.euid

    @property
    def fsgid(self) -> int:
        """The group whose rights on files count."""
        return self.egid


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

    def open_program(self, path: str) -> Location:
        """Resolve `path` from the process's root and working directory, following links; ENOENT and the like."""

    def new_space(self, layout: Layout) -> AddressSpace:
        """An empty address space for the process: one frame, the page directory."""

    def random_bytes(self, count: int) -> bytes:
        """Bytes for AT_RANDOM."""


class Program:
    """A file opened for execution (the kernel's `struct file` of an exec). A `binfmt.plan.Source`."""

    __slots__ = ("inode", "location", "name", "path")

    def __init__(self, location: Location, name: str, who: Credentials) -> None:
        """The checks of do_open_execat() on what `name` led to."""
        self.location = location
        self.name = name
        self.path = location.path
        self.inode: RegularFile = _executable(location.inode, name, who)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.inode.size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        length = min(length, max(self.inode.size - offset, 0))
        if length <= 0:
            return b""
        data = bytearray(length)
        done = self.inode.read_into([memoryview(data)], offset)
        return bytes(data[:done])


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
        credentials: after set-user-ID and set-group-ID; `secure` is AT_SECURE.
        start_code ... start_brk: as in /proc/PID/stat.
        stages: what happened, in order.
    """

    __slots__ = (
        "auxv",
        "bias",
        "brk",
        "credentials",
        "end_code",
        "end_data",
        "entry",
        "file_name",
        "interpreter",
        "interpreter_bias",
        "interpreter_plan",
        "isa",
        "name",
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
    plan: ElfPlan
    interpreter_plan: ElfPlan | None
    bias: int
    interpreter_bias: int
    program: Program
    interpreter: Program | None
    scripts: list[Program]
    name: str
    file_name: str
    isa: str
    credentials: Credentials
    secure: bool
    stack: InitialStack
    auxv: tuple[tuple[int, int], ...]
    start_code: int
    end_code: int
    start_data: int
    end_data: int
    brk: int
    stages: list[Stage]

    @property
    def pointer(self) -> int:
        """The stack pointer at the first instruction."""
        return self.stack.pointer


class Binprm:
    """`struct linux_binprm`: what the stages of one exec hand to each other."""

    __slots__ = (
        "arguments",
        "credentials",
        "draws",
        "file_name",
        "interp",
        "program",
        "rules",
        "scripts",
        "secure",
        "stack_limit",
        "stages",
        "world",
    )

    def __init__(self, world: World, file_name: str, who: Credentials, stack_limit: int, draws: Draws | None) -> None:
        profile = world.profile
        self.world = world
        self.file_name = file_name
        self.interp = file_name
        self.credentials = who
        self.stack_limit = stack_limit
        self.draws = draws
        self.rules = FormatRules(
            buffer_size=profile.buffer_size,
            task_size_64=profile.task_size,
            task_size_32=profile.task_size_i386,
            ia32=profile.ia32,
        )
        self.scripts: list[Program] = []
        self.stages: list[Stage] = []
        self.secure = False
        self.arguments: Arguments
        self.program: Program

    def stage(self, function: str, step: int, text: str) -> None:
        """Record what `function` did."""
        self.stages.append(Stage(function, step, text))

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
    who: Credentials,
    *,
    limits: Callable[[int], int],
    draws: Draws | None = None,
    stages: list[Stage] | None = None,
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

    Raises:
        LinuxError: with `fatal_signal` after the point of no return.
        OutOfFrames: the machine is full.
    """
    from loadstone.linux.load_elf import load_elf_binary

    if not path:
        raise LinuxError(ENOENT, "the path is empty")
    if len(os.fsencode(path)) >= PATH_MAX:
        raise LinuxError(ENAMETOOLONG, f"the path is longer than {PATH_MAX - 1} bytes")
    bprm = Binprm(world, path, who, limits(RLIMIT_STACK), draws)
    if stages is not None:
        bprm.stages = stages
    bprm.program = bprm.open(path)
    inode = bprm.program.inode
    bprm.stage(
        "do_open_execat",
        0,
        f"{path} is a regular file of {inode.size} bytes, mode {inode.mode & 0o7777:04o}: it may be executed",
    )
    _copy_arguments(bprm, argv, envp)
    plan = _exec_binprm(bprm)
    return load_elf_binary(bprm, plan)


def _copy_arguments(bprm: Binprm, argv: Sequence[bytes], envp: Sequence[bytes]) -> None:
    """alloc_bprm, bprm_mm_init and the copying of the strings."""
    profile = bprm.world.profile
    arguments = bprm.arguments = Arguments(
        os.fsencode(bprm.file_name), argv, envp, bprm.stack_limit, empty_argument=profile.empty_argument
    )
    bprm.stage(
        "bprm_mm_init",
        0,
        "creating a process, step 1 of 3: a new address space, which is one frame for the page directory, and one "
        f"page of stack below {profile.task_size:#x}",
    )
    added = " (an empty argv[0] was added: argv had none)" if not argv and arguments.argument_count else ""
    bprm.stage(
        "copy_strings",
        0,
        f"the file name, {len(envp)} environment strings and {arguments.argument_count} arguments{added} are copied to "
        f"the top of the new stack: {arguments.depth} bytes of at most {arguments.limit}",
    )


def _exec_binprm(bprm: Binprm) -> ElfPlan:
    """exec_binprm(): search a handler; as long as it puts an interpreter in front, search one for that."""
    for _ in range(bprm.world.profile.rewrites + 1):
        plan = _search_binary_handler(bprm)
        if isinstance(plan, ElfPlan):
            return plan
        _load_script(bprm, plan)
    raise LinuxError(ELOOP, f"more than {bprm.world.profile.rewrites} interpreters in a row: {_chain(bprm)}")


def _search_binary_handler(bprm: Binprm) -> Plan:
    """prepare_binprm() and search_binary_handler(): the first handler that knows the file's beginning takes it."""
    program, size = bprm.program, bprm.rules.buffer_size
    head = program.read(0, size).ljust(size, b"\0")
    bprm.stage(
        "prepare_binprm",
        0,
        f"creating a process, step 2 of 3: the first {size} bytes of {program.name} are read; they begin with "
        f"{head[:4]!r}"[: 300 + len(program.name)],
    )
    why, refused = "", []
    for name, handler in HANDLERS:
        try:
            plan = handler(head, program, bprm.rules)
        except LinuxError as error:
            if error.errno != ENOEXEC:
                bprm.stage("search_binary_handler", 0, f"{name} took the file and failed: {error}")
                raise
            why = why or error.why
            refused.append(name)
            continue
        passed = f"{', '.join(refused)} said ENOEXEC; " if refused else ""
        bprm.stage("search_binary_handler", 0, f"{passed}{name} takes {program.name}")
        return plan
    why = why or describe(head, program.size)
    bprm.stage("search_binary_handler", 0, f"{', '.join(refused)} all said ENOEXEC: {why}")
    raise LinuxError(ENOEXEC, f"no binary format handler takes {program.name}: {why}")


def _load_script(bprm: Binprm, plan: ScriptPlan) -> None:
    """load_script(): argv[0] is replaced by interpreter, argument and script; the interpreter is opened."""
    arguments = bprm.arguments
    arguments.remove_first()
    arguments.push(os.fsencode(bprm.interp))
    if plan.argument is not None:
        arguments.push(plan.argument)
    arguments.push(plan.interpreter)
    interpreter = os.fsdecode(plan.interpreter)
    option = f" with the argument {os.fsdecode(plan.argument)!r}" if plan.argument is not None else ""
    bprm.stage(
        "load_script",
        0,
        f"{bprm.interp} is a script for {interpreter}{option}: argv now begins with interpreter, argument and script",
    )
    bprm.scripts.append(bprm.program)
    bprm.interp = interpreter
    try:
        bprm.program = bprm.open(interpreter)
    except LinuxError as error:
        why = f"the interpreter {interpreter!r} named in the first line of {bprm.scripts[-1].name}"
        raise LinuxError(error.errno, f"{why}: {error.why}" if error.why else why) from None


def _chain(bprm: Binprm) -> str:
    return " -> ".join([script.name for script in bprm.scripts] + [bprm.program.name])


def _executable(inode: Inode, name: str, who: Credentials) -> RegularFile:
    """may_open() and do_open_execat(): a regular file with execute permission. That it is open for writing (ETXTBSY) is
    not looked at."""
    kind = inode.mode & S_IFMT
    if kind == S_IFDIR:
        raise LinuxError(EACCES, f"{name} is a directory")
    if kind != S_IFREG:
        raise LinuxError(EACCES, f"{name} is not a regular file")
    if not may(inode, X_OK, who):
        raise LinuxError(EACCES, f"{name} (mode {inode.mode & 0o7777:04o}) gives no execute permission")
    return inode  # type: ignore[return-value]


def file_credentials(program: Program, who: Credentials) -> tuple[Credentials, bool]:
    """The credentials after exec, and AT_SECURE (bprm_fill_uid, cap_bprm_creds_from_file)."""
    inode = program.inode
    euid, egid = who.euid, who.egid
    if inode.mode & S_ISUID:
        euid = inode.uid
    if inode.mode & (S_ISGID | 0o010) == S_ISGID | 0o010:
        egid = inode.gid
    return who._replace(euid=euid, egid=egid), euid != who.uid or egid != who.gid
