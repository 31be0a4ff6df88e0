"""The files of an ELF program become mappings: its segments, its interpreter's, and the vDSO beside them.

Sources: fs/binfmt_elf.c (load_elf_binary, elf_load, load_elf_interp), arch/x86/entry/vdso/vma.c.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING

from loadstone.binfmt.elf import interpreter_segment_error
from loadstone.binfmt.names import ET_DYN
from loadstone.errors import LinuxError
from loadstone.linux.exec.layout import MASK64, PAGE, page_up, program_bias, vdso_hint
from loadstone.linux.exec.new_image import NewImage, brk_flags
from loadstone.memory.fault import SIGSEGV
from loadstone.memory.flags import MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PFNMAP, PROT_EXEC, PROT_WRITE
from loadstone.memory.neighbours import map_ahead
from loadstone.memory.placement import unmapped_area
from loadstone.memory.user import copy_out
from loadstone.memory.vma import DONTDUMP, EXEC, IO, MAYEXEC, MAYREAD, MAYWRITE, READ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.binfmt.plan import ElfPlan, Segment
    from loadstone.linux.exec.execve import Binprm
    from loadstone.linux.exec.program import Program
    from loadstone.memory.address_space import AddressSpace

# arch/x86/entry/vdso/vma.c: map_vdso
_CODE_FLAGS = READ | EXEC | MAYREAD | MAYWRITE | MAYEXEC
_DATA_FLAGS = READ | MAYREAD | DONTDUMP | IO | PFNMAP


class MappedElf(NewImage):
    """An image whose segments are being mapped, past the point of no return.

    Attributes:
        plan, interpreter, interpreter_plan: the program's; its interpreter, with that one's plan, or None.
        cleared: the addresses from which on the rest of a page of data was cleared.
    """

    __slots__ = ("cleared", "interpreter", "interpreter_plan", "plan")

    def __init__(
        self, bprm: Binprm, plan: ElfPlan, interpreter: Program | None, interpreter_plan: ElfPlan | None
    ) -> None:
        super().__init__(bprm, plan.bits)
        self.plan = plan
        self.interpreter = interpreter
        self.interpreter_plan = interpreter_plan
        self.cleared: list[int] = []

    def map_program(self, space: AddressSpace) -> int:
        """The PT_LOAD loop of load_elf_binary; the load bias."""
        plan, program = self.plan, self.bprm.program
        handle = object()  # the open file: two opens of one file do not merge
        self.bprm.stage(
            "load_elf_binary",
            3,
            "creating a process, step 2 of 3, goes on: the segments connect virtual memory with the file; no page of "
            "it is read yet",
        )
        bias, flags, total = 0, MAP_PRIVATE | MAP_FIXED_NOREPLACE, 0
        if plan.segments and plan.header.type == ET_DYN:
            first, total = plan.segments[0], plan.total_size
            if first.error and not total:
                raise first.error
            bias, flags = self._choose_bias(space, first, MAP_PRIVATE, handle)
            if self.profile.program_in_mmap_area:
                total = 0  # nothing is reserved for the other segments
        for segment, address in self._map_segments(space, program, plan, handle, bias, flags, total):
            bias = (address - segment.start) & MASK64
            if self.bprm.tells:
                self._tell(program, plan, segment, address, bias)
            if segment.error:
                raise segment.error
        return bias

    def _choose_bias(self, space: AddressSpace, first: Segment, flags: int, handle: object) -> tuple[int, int]:
        """Where an ET_DYN goes: a program to ELF_ET_DYN_BASE, a loader (no PT_INTERP) where mmap finds room."""
        bprm, plan, profile = self.bprm, self.plan, self.profile
        vaddr = plan.program_headers[first.index].vaddr
        if profile.program_in_mmap_area:
            base = 0
            why = "0: mmap chooses a place for the first segment, and the others follow it"
        elif self.interpreter is not None or not profile.loader_in_mmap_area:
            alignment = plan.alignment if profile.align_program else 0
            base = program_bias(profile, alignment, bprm.draws, self.bits)
            flags |= MAP_FIXED_NOREPLACE
            why = "ELF_ET_DYN_BASE, because it is a program that an interpreter loads"
        elif plan.alignment > PAGE and profile.align_loader:
            base = self._load(space, bprm.program, handle, first, 0, flags, plan.total_size)
            space.unmap(base, plan.total_size)
            base &= -plan.alignment
            flags |= MAP_FIXED_NOREPLACE
            why = "where mmap found room, rounded down to the alignment"
        else:
            base = 0
            why = "0: mmap chooses, because nothing else loads it"
        bprm.stage(
            "load_elf_binary",
            3,
            lambda: (
                f"ET_DYN: {plan.total_size:#x} bytes are reserved at once, p_align at most {plan.alignment:#x}; "
                f"the base is {base:#x} ({why})"
            ),
        )
        return (base - vaddr) & MASK64 & -PAGE, flags

    def _map_segments(
        self, space: AddressSpace, file: Program, plan: ElfPlan, handle: object, bias: int, flags: int, total: int
    ) -> Iterator[tuple[Segment, int]]:
        """Map the segments; each with where it went, in pages.

        `bias`, `flags`, `total`: of the first one, which decides where the others go.
        """
        for segment in plan.segments:
            address = (bias + segment.start) & MASK64 & -PAGE
            address = self._load(space, file, handle, segment, address, flags, total)
            bias, flags, total = address - segment.start, MAP_PRIVATE | MAP_FIXED, 0
            yield segment, address

    def _load(
        self,
        space: AddressSpace,
        file: Program,
        handle: object,
        segment: Segment,
        address: int,
        flags: int,
        total: int,
    ) -> int:
        """elf_load: map the file part at `address`, clear its tail, map the anonymous part. Where it went, in pages."""
        if segment.file_length:
            size = page_up(segment.file_length)
            reserve = page_up(total) if total else size
            address = space.map(
                address,
                reserve,
                segment.prot,
                flags,
                file.inode,
                segment.file_offset,
                path=file.path,
                file=handle,
            )
            if reserve > size:
                space.unmap(address + size, reserve - size)
                _map_ahead(space, address)
        if address >= self.place.task_size:
            raise LinuxError(EINVAL, f"a segment would be at {address:#x}, outside the address space", SIGSEGV)
        delta = address - segment.start
        if segment.clear_end > segment.clear_start:
            self._padzero(space, segment, segment.clear_start + delta)
        start, end = segment.anonymous_start + delta, segment.anonymous_end + delta
        if end > start:
            brk_flags(space, start, end, EXEC if segment.prot & PROT_EXEC else 0)
        return address

    def _padzero(self, space: AddressSpace, segment: Segment, address: int) -> None:
        """Clear the rest of the last file page; a segment that is not writable keeps what the file has there."""
        self.cleared.append(address)
        try:
            copy_out(space, address, bytes(-address % PAGE))
        except LinuxError:
            if segment.prot & PROT_WRITE:
                raise LinuxError(EFAULT, f"the tail of .bss at {address:#x} cannot be cleared", SIGSEGV) from None

    def map_interpreter(self, space: AddressSpace, bias: int) -> int:
        """load_elf_interp; the interpreter's load bias."""
        plan, file = self.interpreter_plan, self.interpreter
        assert plan is not None and file is not None
        if plan.error:
            raise plan.error
        dynamic = plan.header.type == ET_DYN
        load = -plan.program_headers[plan.segments[0].index].vaddr if bias and dynamic else 0
        flags = MAP_PRIVATE if dynamic else MAP_PRIVATE | MAP_FIXED
        for segment, address in self._map_segments(space, file, plan, object(), load, flags, plan.total_size):
            load = address - segment.start
            if self.bprm.tells:
                self._tell(file, plan, segment, address, load)
            header = plan.program_headers[segment.index]
            error = segment.error or interpreter_segment_error(header, load & MASK64, self.bits, self.bprm.rules)
            if error:
                raise error
        self.bprm.stage(
            "load_elf_interp",
            3,
            lambda: (
                f"the interpreter {file.name} is at {load & MASK64:#x} (AT_BASE), below the mmap base "
                f"{self.place.mmap_base:#x}"
            ),
        )
        return load & MASK64

    def _tell(self, file: Program, plan: ElfPlan, segment: Segment, address: int, bias: int) -> None:
        header = plan.program_headers[segment.index]
        perms = "".join(letter if segment.prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
        parts = []
        if segment.file_length:
            end = address + page_up(segment.file_length)
            parts.append(f"{address:#x}-{end:#x} {perms} from file offset {segment.file_offset & MASK64:#x}")
        delta = address - segment.start
        if segment.clear_end > segment.clear_start:
            parts.append(f"{segment.clear_start + delta:#x} to the page's end cleared")
        if segment.anonymous_end > segment.anonymous_start:
            start, end = segment.anonymous_start + delta, segment.anonymous_end + delta
            parts.append(f"{start:#x}-{end:#x} anonymous")
        self.bprm.stage(
            "elf_load",
            3,
            f"{file.name} segment {segment.index}: p_vaddr {header.vaddr:#x} + bias {bias & MASK64:#x}, p_offset "
            f"{header.offset:#x}, p_filesz {header.filesz:#x}, p_memsz {header.memsz:#x} -> "
            + ("; ".join(parts) or "nothing"),
        )

    def map_special(self, space: AddressSpace) -> int:
        """arch_setup_additional_pages: [vvar], [vvar_vclock] and [vdso], side by side; where the last one is, or 0."""
        profile, bprm = self.profile, self.bprm
        mappings = profile.special if self.bits == 64 else profile.special_i386
        total = sum(special.size for special in mappings)
        vdso = 0
        if not total:
            return vdso
        hint = vdso_hint(profile, self.place.stack_top - bprm.arguments.depth, total, bprm.draws)
        address = start = unmapped_area(space, hint, total, 0)
        for name, size in mappings:
            flags = _CODE_FLAGS if name == "[vdso]" else _DATA_FLAGS
            vma = space.insert_special(address, size, flags, name, bprm.world.vdso.backing(name))
            if name == "[vdso]":
                vdso = address
                map_ahead(space, vma, vma.start, vma.end)
            address += size
        bprm.stage(
            "arch_setup_additional_pages",
            4,
            lambda: f"{', '.join(special.name for special in mappings)} are at {start:#x}-{address:#x}",
        )
        return vdso


def _map_ahead(space: AddressSpace, address: int) -> None:
    vma = space.find(address)
    if vma is not None:
        map_ahead(space, vma, vma.start, vma.end)
