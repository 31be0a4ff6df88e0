"""load_elf_binary past the checks of the file: a plan becomes an address space (fs/binfmt_elf.c)."""

from __future__ import annotations

import os
from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.binfmt.elf import entry_error, plan_interpreter
from loadstone.binfmt.known import FirstPage
from loadstone.binfmt.names import ET_DYN, ET_EXEC
from loadstone.errors import LinuxError
from loadstone.linux.capabilities import group_shown, user_shown
from loadstone.linux.exec import auxv
from loadstone.linux.exec.elf_segments import MappedElf
from loadstone.linux.exec.layout import MASK64, PAGE, page_up, random_brk
from loadstone.linux.exec.prepared_images import Asked, Places
from loadstone.linux.exec.stack import MAX_ARG_STRLEN, InitialStack, lay_out
from loadstone.linux.profile import BRK_ALWAYS, BRK_NEVER
from loadstone.memory.fault import SIGSEGV
from loadstone.memory.user import copy_out, read_string
from loadstone.memory.vma import GROWSDOWN

if TYPE_CHECKING:
    from loadstone.binfmt.plan import ElfPlan
    from loadstone.linux.exec.execve import Binprm
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.linux.exec.program import Program
    from loadstone.memory.address_space import AddressSpace

PHDR_SIZE = {64: 56, 32: 32}


def load_elf_binary(bprm: Binprm, plan: ElfPlan) -> ExecImage:
    """Open and check the interpreter, then build the image. Past begin_new_exec every error kills the process."""
    _tell_headers(bprm, plan)
    interpreter = interpreter_plan = None
    if plan.interpreter is not None:
        interpreter, interpreter_plan = _open_interpreter(bprm, plan)
    else:
        bprm.stage("load_elf_binary", 2, "there is no PT_INTERP: the program needs no dynamic linker")
    bprm.settle_credentials()
    loader = _Loader(bprm, plan, interpreter, interpreter_plan)
    try:
        return loader.load()
    except LinuxError as error:
        loader.release()
        if error.fatal_signal is not None:
            raise
        raise LinuxError(error.errno, error.why, SIGSEGV) from None
    except BaseException:
        loader.release()
        raise


def _tell_headers(bprm: Binprm, plan: ElfPlan) -> None:
    if not bprm.tells:
        return
    header = plan.header
    kind = "ET_EXEC" if header.type == ET_EXEC else "ET_DYN"
    bprm.stage(
        "load_elf_binary",
        1,
        f"the header is good: magic 7f 45 4c 46, {kind}, machine {header.machine} ({plan.isa}), "
        f"entry {header.entry:#x}",
    )
    bprm.stage(
        "load_elf_phdrs",
        1,
        f"{header.phnum} program headers of {header.phentsize} bytes at offset {header.phoff:#x}; "
        f"{len(plan.segments)} of them are PT_LOAD",
    )


def _open_interpreter(bprm: Binprm, plan: ElfPlan) -> tuple[Program, ElfPlan]:
    path = os.fsdecode(plan.interpreter or b"")
    try:
        interpreter = bprm.open(path)
    except LinuxError as error:
        why = f"the program interpreter {path!r} (PT_INTERP)"
        raise LinuxError(error.errno, f"{why}: {error.why}" if error.why else why) from None
    plans, page = bprm.world.plans, FirstPage(interpreter)
    checked = plans.interpreter(page, plan.bits)
    if checked is None:
        checked = plan_interpreter(page, plan, bprm.rules)
        plans.keep_interpreter(page, plan.bits, checked)
    if bprm.tells:
        size = interpreter.size
        bprm.stage("open_exec", 2, f"PT_INTERP names {path}: an ELF file for {checked.isa} of {size} bytes")
    return interpreter, checked


class _Loader(MappedElf):
    """The state of load_elf_binary past the point of no return."""

    __slots__ = ("asked",)

    def __init__(
        self, bprm: Binprm, plan: ElfPlan, interpreter: Program | None, interpreter_plan: ElfPlan | None
    ) -> None:
        super().__init__(bprm, plan, interpreter, interpreter_plan)
        self.asked: Asked | None = None  # what a prepared image may be kept under

    def load(self) -> ExecImage:
        """Everything from begin_new_exec to start_thread."""
        plan = self.plan
        space = self.new_space(read_implies_exec=plan.read_implies_exec)
        places = self._fill(space) or self._map_all(space)
        program_entry = entry = (plan.entry + places.bias) & MASK64
        if self.interpreter_plan is not None:
            entry = (places.interpreter_bias + self.interpreter_plan.entry) & MASK64
        stack = self._create_elf_tables(space, places, program_entry)
        brk = self._set_brk(space, places.bias)
        return self._start_thread(space, stack, entry, program_entry, places, brk)

    def _fill(self, space: AddressSpace) -> Places | None:
        """All of `_map_all` at once, for a program that was executed before, where nobody hears of the single steps."""
        bprm = self.bprm
        images = bprm.world.images
        if images is None or bprm.tells or bprm.draws is not None:
            return None
        self.asked = Asked(self.plan, bprm.program, self.interpreter_plan, self.interpreter, bprm.arguments.pages)
        places = images.fill(space, self.asked)
        if places is not None:
            stack = space.find(self.place.stack_top - PAGE)
            assert stack is not None
            self.put_strings(space, stack)
        return places

    def _map_all(self, space: AddressSpace) -> Places:
        """The stack, the segments and the special mappings, one after the other."""
        plan = self.plan
        self.setup_arg_pages(space, plan.executable_stack)
        if plan.error:
            raise plan.error
        bias = self.map_program(space)
        entry, interpreter_bias = (plan.entry + bias) & MASK64, 0
        if self.interpreter_plan is not None:
            interpreter_bias = self.map_interpreter(space, bias)
            entry = (interpreter_bias + self.interpreter_plan.entry) & MASK64
        if error := entry_error(entry, self.bits, self.bprm.rules):
            raise error
        places = Places(bias, interpreter_bias, self.map_special(space))
        images, stack = self.bprm.world.images, space.find(self.place.stack_top - PAGE)
        if images is not None and self.asked is not None and stack is not None and stack.flags & GROWSDOWN:
            images.keep(space, self.asked, places, stack, self.cleared)
        return places

    def _create_elf_tables(self, space: AddressSpace, places: Places, program_entry: int) -> InitialStack:
        """create_elf_tables: the auxiliary vector and the tables below the strings, written with kernel-mode faults."""
        bprm, profile = self.bprm, self.profile
        order = profile.auxv if self.bits == 64 else profile.auxv_i386
        stack = lay_out(
            bprm.arguments,
            self.place.stack_top,
            self._auxiliary_values(places, program_entry),
            order if bprm.descriptor < 0 else auxv.with_execfd(order),
            os.fsencode(profile.platform) if self.bits == 64 else b"i686",
            bprm.world.random_bytes,
            bprm.draws,
            self.bits // 8,
            self._strings(space),
        )
        for address, data in stack.writes:
            copy_out(space, address, data)
        bprm.stage(
            "create_elf_tables",
            4,
            lambda: (
                f"{len(stack.auxv) + 1} auxiliary vector entries, {bprm.arguments.environment_count} envp and "
                f"{bprm.arguments.argument_count} argv pointers and argc are written below the strings; AT_ENTRY is "
                f"{program_entry:#x}, AT_BASE {places.interpreter_bias:#x}; the stack pointer is {stack.pointer:#x}"
            ),
        )
        return stack

    def _auxiliary_values(self, places: Places, program_entry: int) -> dict[int, int]:
        """What the auxiliary vector says, by AT_…, but for the addresses of strings on the stack."""
        bprm, plan, profile, who = self.bprm, self.plan, self.profile, self.bprm.credentials
        values = {
            auxv.AT_MINSIGSTKSZ: profile.minimum_signal_stack,
            auxv.AT_HWCAP: profile.hwcap,
            auxv.AT_PAGESZ: PAGE,
            auxv.AT_CLKTCK: profile.clock_ticks,
            auxv.AT_PHDR: (plan.phdr_address + places.bias) & MASK64,
            auxv.AT_PHENT: PHDR_SIZE[self.bits],
            auxv.AT_PHNUM: plan.header.phnum,
            auxv.AT_BASE: places.interpreter_bias,
            auxv.AT_FLAGS: auxv.AT_FLAGS_PRESERVE_ARGV0 if bprm.preserves_argv0 and profile.tells_argv0 else 0,
            auxv.AT_ENTRY: program_entry,
            auxv.AT_UID: user_shown(who, who.uid),
            auxv.AT_EUID: user_shown(who, who.euid),
            auxv.AT_GID: group_shown(who, who.gid),
            auxv.AT_EGID: group_shown(who, who.egid),
            auxv.AT_SECURE: int(bprm.secure),
            auxv.AT_HWCAP2: profile.hwcap2,
            auxv.AT_HWCAP3: 0,
            auxv.AT_HWCAP4: 0,
            auxv.AT_RSEQ_FEATURE_SIZE: profile.rseq_feature_size,
            auxv.AT_RSEQ_ALIGN: profile.rseq_align,
        }
        if places.vdso:
            values[auxv.AT_SYSINFO_EHDR] = places.vdso
            values[auxv.AT_SYSINFO] = places.vdso + profile.vdso_entry_i386
        if bprm.descriptor >= 0:
            values[auxv.AT_EXECFD] = bprm.descriptor
        return values

    def _strings(self, space: AddressSpace) -> list[bytes]:
        """The strings as create_elf_tables finds them: a segment may have been mapped over the stack."""
        arguments = self.bprm.arguments
        strings = arguments.strings()
        address = self.place.stack_top - arguments.depth
        vma = space.find(address)
        if vma is not None and vma.flags & GROWSDOWN and vma.end == self.place.stack_top:
            return strings
        found = []
        for _ in strings:
            try:
                found.append(read_string(space, address, MAX_ARG_STRLEN))
            except LinuxError as error:
                raise LinuxError(EINVAL, f"a segment lies over the arguments: {error.why}", SIGSEGV) from None
            address += len(found[-1]) + 1
        return found

    def _set_brk(self, space: AddressSpace, bias: int) -> int:
        """The program break: behind .bss, or in the low area for a loader that mmap placed."""
        plan, profile, draws = self.plan, self.profile, self.bprm.draws
        brk = page_up((plan.brk + bias) & MASK64)
        moved = False
        why = "behind the last segment, rounded up to a page"
        rule = profile.loader_brk
        if plan.header.type == ET_DYN and self.interpreter is None and rule != BRK_NEVER:
            moved = rule == BRK_ALWAYS or draws is not None
            if moved:
                brk = page_up(profile.pie_base if self.bits == 64 else profile.pie_base_i386)
                why = "ELF_ET_DYN_BASE, because a loader in the mmap area leaves no room behind itself"
        if draws is not None:
            if not moved and profile.brk_gap:
                brk += PAGE
            brk = random_brk(brk, draws, self.bits)
            why += ", randomised"
        space.start_brk = space.brk = brk
        self.bprm.stage(
            "load_elf_binary", 4, lambda: f"the program break is {brk:#x} ({why}); there is no heap until it moves"
        )
        return brk

    def _start_thread(
        self, space: AddressSpace, stack: InitialStack, entry: int, program_entry: int, places: Places, brk: int
    ) -> ExecImage:
        """start_thread: the registers; and everything put together."""
        plan, bias = self.plan, places.bias
        image = self.image(space, plan, stack, entry)
        image.program_entry = program_entry
        image.interpreter, image.interpreter_plan = self.interpreter, self.interpreter_plan
        image.bias, image.interpreter_bias = bias, places.interpreter_bias
        image.start_code, image.end_code = (plan.start_code + bias) & MASK64, (plan.end_code + bias) & MASK64
        image.start_data, image.end_data = (plan.start_data + bias) & MASK64, (plan.end_data + bias) & MASK64
        image.brk = brk
        image.note()
        who = "the interpreter's" if self.interpreter is not None else "the program's"
        register = "RDX" if self.bits == 64 else "EDX"
        self.bprm.stage(
            "start_thread",
            5,
            lambda: (
                f"creating a process, step 3 of 3: the instruction pointer is {who} entry point {entry:#x}, the stack "
                f"pointer {stack.pointer:#x}; all other registers are 0, also {register}, which the ABI reserves for a "
                "function to register with atexit"
            ),
        )
        return image
