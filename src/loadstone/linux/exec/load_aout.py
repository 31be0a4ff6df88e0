"""load_aout_binary: a plan for an a.out program becomes an address space (arch/x86/ia32/ia32_aout.c as of Linux 4.19).

What is unlike ELF: no interpreter, no auxiliary vector and no vDSO; the stack's place is not randomised; only a QMAGIC
program is mapped from its file. The others are copied into anonymous memory, text and data as one piece, and that
memory is not executable: on a CPU with NX such a program dies at its first instruction.
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM
from typing import TYPE_CHECKING

from loadstone.binfmt.aout import MAGIC_NAMES, OMAGIC
from loadstone.binfmt.plan import EXSTACK_DEFAULT
from loadstone.errors import LinuxError
from loadstone.linux.exec.layout import PAGE, align_stack, page_up
from loadstone.linux.exec.new_image import NewImage, brk_flags
from loadstone.linux.exec.stack import InitialStack, lay_out_aout
from loadstone.memory.fault import SIGSEGV
from loadstone.memory.flags import MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from loadstone.memory.user import copy_out

if TYPE_CHECKING:
    from loadstone.binfmt.plan import AoutPlan
    from loadstone.linux.exec.execve import Binprm
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.memory.address_space import AddressSpace

_CHUNK = 1 << 20
_MASK32 = 0xFFFF_FFFF


def load_aout_binary(bprm: Binprm, plan: AoutPlan, data_limit: int) -> ExecImage:
    """Build the image. Past begin_new_exec every error kills the process. `data_limit`: RLIMIT_DATA, in bytes."""
    header = plan.header
    bprm.stage(
        "load_aout_binary",
        1,
        f"the header is good: magic number {plan.magic:#o} ({MAGIC_NAMES[plan.magic]}), text {header.text:#x}, data "
        f"{header.data:#x}, bss {header.bss:#x} bytes, no relocations; text begins at {plan.text_offset} of the file "
        "(N_TXTOFF)",
    )
    if (header.data + header.bss & _MASK32) > data_limit:
        raise LinuxError(ENOMEM, f"data and bss are larger than RLIMIT_DATA, {data_limit} bytes")
    bprm.stage(
        "load_aout_binary", 2, "a.out has no interpreters: shared libraries, where used, are loaded by uselib(2)"
    )
    bprm.settle_credentials()
    loader = _AoutLoader(bprm, plan)
    try:
        return loader.load()
    except LinuxError as error:
        loader.release()
        raise LinuxError(error.errno, error.why, error.fatal_signal or SIGSEGV) from None
    except BaseException:
        loader.release()
        raise


class _AoutLoader(NewImage):
    """The state of load_aout_binary past the point of no return."""

    __slots__ = ("plan",)

    def __init__(self, bprm: Binprm, plan: AoutPlan) -> None:
        super().__init__(bprm, plan.bits)
        self.plan = plan

    def load(self) -> ExecImage:
        """Everything from flush_old_exec to the registers."""
        plan, bprm = self.plan, self.bprm
        space = self.new_space(read_implies_exec=False)
        # IA32_STACK_TOP as it is; arch_align_stack() in setup_arg_pages still takes at most 8,191 bytes off.
        top = page_up(align_stack(self.profile.task_size_i386, bprm.draws))
        self.place = self.place._replace(stack_top=top)
        self.setup_arg_pages(space, EXSTACK_DEFAULT)
        if plan.magic != OMAGIC and plan.mapped:
            self._map(space)
        else:
            self._read(space)
        self._set_brk(space)
        stack = lay_out_aout(bprm.arguments, top)
        for address, data in stack.writes:
            copy_out(space, address, data)
        bprm.stage(
            "create_aout_tables",
            4,
            f"argc, the addresses of argv and envp, {bprm.arguments.argument_count} argv and "
            f"{bprm.arguments.environment_count} envp pointers are written below the strings; no auxiliary vector; the "
            f"stack pointer is {stack.pointer:#x}",
        )
        return self._start_thread(space, stack)

    def _map(self, space: AddressSpace) -> None:
        """Text and data from the file, whose offsets have to be multiples of the page size (QMAGIC)."""
        plan, header = self.plan, self.plan.header
        handle = object()
        parts = (
            ("text", plan.text_address, header.text, PROT_READ | PROT_EXEC, plan.text_offset),
            (
                "data",
                plan.data_address,
                header.data,
                PROT_READ | PROT_WRITE | PROT_EXEC,
                plan.text_offset + header.text,
            ),
        )
        for what, address, length, prot, offset in parts:
            if offset % PAGE or not length:
                why = (
                    f"at offset {offset:#x} of the file, which is no multiple of the page size" if offset % PAGE else ""
                )
                raise LinuxError(EINVAL, f"the {what} cannot be mapped: it is {why or 'empty'}")
            program = self.bprm.program
            space.map(
                address, page_up(length), prot, MAP_FIXED | MAP_PRIVATE, program.inode, offset, path=program.path,
                file=handle,
            )  # fmt: skip
            self.bprm.stage(
                "vm_mmap",
                3,
                f"{what}: {length:#x} bytes at offset {offset:#x} of the file are mapped at {address:#x}-"
                f"{address + page_up(length):#x}",
            )

    def _read(self, space: AddressSpace) -> None:
        """Text and data, copied one behind the other into anonymous memory."""
        plan, header = self.plan, self.plan.header
        length = header.text + header.data & _MASK32
        start = plan.text_address
        if length:
            brk_flags(space, start & -PAGE, page_up(start + length), 0)
        done = 0
        while done < length:
            data = self.bprm.program.read(plan.text_offset + done, min(_CHUNK, length - done))
            if not data:
                break
            copy_out(space, start + done, data)
            done += len(data)
        self.bprm.stage(
            "read_code",
            3,
            f"{done:#x} bytes from offset {plan.text_offset} are copied to {start:#x}-{start + done:#x}, anonymous "
            "memory that is not executable: "
            + (
                "OMAGIC text is to be writable"
                if plan.magic == OMAGIC
                else "that offset cannot be mapped, being inside a page"
            ),
        )

    def _set_brk(self, space: AddressSpace) -> None:
        """set_brk: .bss in whole pages; the break itself is where .bss ends."""
        plan = self.plan
        start, end = page_up(plan.bss_address), page_up(plan.brk)
        if end > start:
            brk_flags(space, start, end, 0)
        space.start_brk, space.brk = plan.bss_address, plan.brk
        pages = max(end - start, 0) // PAGE
        self.bprm.stage(
            "set_brk",
            4,
            f"bss is {plan.bss_address:#x}-{plan.brk:#x}: {pages} page(s) of anonymous memory from {start:#x} on; what "
            "lies before, in the last page of data, is not cleared",
        )

    def _start_thread(self, space: AddressSpace, stack: InitialStack) -> ExecImage:
        plan, header = self.plan, self.plan.header
        image = self.image(space, plan, stack, header.entry)
        image.start_code, image.end_code = plan.text_address, plan.text_address + header.text
        image.start_data, image.end_data = plan.data_address, plan.data_address + header.data
        image.brk = plan.brk
        image.note()
        self.bprm.stage(
            "start_thread",
            5,
            f"creating a process, step 3 of 3: the instruction pointer is {header.entry:#x} (a_entry), the stack "
            f"pointer {stack.pointer:#x}; the general registers keep what they had when execve was "
            "called, shown here as 0",
        )
        return image
