"""A process image at its first instruction, for looking at: schema `loadstone/image/1`.

An `Image` is a copy: it outlives the machine that made it. Sections are for showing only, nothing was ever loaded by
them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from loadstone.binfmt.elf import gnu_properties
from loadstone.binfmt.names import ET_DYN, PT_LOAD, program_header_type
from loadstone.binfmt.plan import AoutPlan, ElfPlan
from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.exec.auxv import AT_NULL
from loadstone.linux.exec.auxv import name as auxv_name
from loadstone.observe.object_file import NotAnObject, ObjectFile
from loadstone.observe.space import mappings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.binfmt.elf import GnuProperty
    from loadstone.binfmt.plan import ProgramHeader
    from loadstone.linux.exec.execve import Stage
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.linux.exec.stack import InitialStack, Word
    from loadstone.observe.object_file import Section, Source, Symbol

SCHEMA = "loadstone/image/1"
PAGE = 4096
SIGNALS = {4: "SIGILL", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV"}
# fmt: off
SECTION_TYPES = (
    "NULL", "PROGBITS", "SYMTAB", "STRTAB", "RELA", "HASH", "DYNAMIC", "NOTE", "NOBITS", "REL", "SHLIB", "DYNSYM", "12",
    "13", "INIT_ARRAY", "FINI_ARRAY", "PREINIT_ARRAY", "GROUP", "SYMTAB_SHNDX", "RELR",
)
# fmt: on
GNU_SECTION_TYPES = {
    0x6FFFFFF6: "GNU_HASH",
    0x6FFFFFFD: "GNU_verdef",
    0x6FFFFFFE: "GNU_verneed",
    0x6FFFFFFF: "GNU_versym",
}


class Arithmetic(NamedTuple):
    """How one PT_LOAD becomes pages. Addresses and sizes in bytes, the load bias included."""

    number: int
    header: ProgramHeader
    bias: int
    start: int  # the first page
    file_end: int  # the end of the pages that the file is behind
    end: int  # the end of all its pages
    file_offset: int  # of the first page
    congruent: bool  # p_vaddr % p_align == p_offset % p_align
    holds_header: bool  # the ELF header is in it


class Image:
    """What `execve` makes of a file, before its first instruction.

    Attributes:
        path: the file name given to execve; `program` the file that was mapped (a script's interpreter).
        format: `elf64`, `elf32` or `a.out`; `aout` is the plan of the last, else None. `isa`: `x86_64` or `i386`.
        interpreter: PT_INTERP's path, or None; `interpreter_file` the file that it led to, or "".
        entry: the program's entry point (AT_ENTRY). `start`: where the first instruction is (the interpreter's entry).
        bias, interpreter_bias: what was added to their addresses.
        brk: the program break.
        maps: the mappings in ascending order, as /proc/PID/maps has them; `maps_text` that file, byte for byte.
        auxv: (type, value) pairs in the kernel's order, without AT_NULL.
        stack: the initial stack. registers: by ptrace's names.
        stages: what happened, in order. name: the task's comm.
        resident: pages in the page tables, all written by the kernel itself.
        sections: the section headers; empty where the file has none that can be read.
        gnu_properties: (type, data) of each entry of PT_GNU_PROPERTY; empty where there are none that can be read.
        differing: (type, value, the host CPU's value) of auxiliary vector entries that describe another CPU core than
            the host's; None when nobody chose a core, and the image describes the host's CPU.
    """

    differing: list[tuple[int, int, int]] | None = None

    def __init__(self, image: ExecImage) -> None:
        """Copy what there is to see of `image`."""
        plan = image.plan
        self.path = image.file_name
        self.program = image.program.path
        self.aout = plan if isinstance(plan, AoutPlan) else None
        self.format = "a.out" if self.aout else f"elf{plan.bits}"
        self.isa = image.isa
        interpreter = plan.interpreter if isinstance(plan, ElfPlan) else None
        self.interpreter = interpreter.decode(errors="surrogateescape") if interpreter is not None else None
        self.interpreter_file = image.interpreter.path if image.interpreter is not None else ""
        self.entry = image.program_entry
        self.start = image.entry
        self.bias = image.bias
        self.interpreter_bias = image.interpreter_bias
        self.brk = image.brk
        self.maps = mappings_of(image.space)
        self.maps_text = image.space.render_maps()
        self.auxv = image.auxv
        self.stack: InitialStack = image.stack
        self.registers = image.registers
        self.stages: list[Stage] = image.stages
        self.name = image.name
        self.plan = plan
        self.interpreter_plan = image.interpreter_plan
        self.resident = image.space.resident_pages
        self.sections = _sections(image.program)
        self.gnu_properties = _gnu_properties(image.program, plan)

    @property
    def pointer(self) -> int:
        """The stack pointer at the first instruction."""
        return self.stack.pointer

    @property
    def argc(self) -> int:
        """What `main` gets in RDI."""
        return self.stack.arguments.argument_count

    @property
    def argv(self) -> int:
        """The address of the argv pointers: what `main` gets in RSI."""
        return self.stack.pointer + self.stack.word

    @property
    def envp(self) -> int:
        """The address of the envp pointers: what `main` gets in RDX."""
        return self.argv + (self.argc + 1) * self.stack.word

    @property
    def segments(self) -> tuple[ProgramHeader, ...]:
        """The program headers, in the file's order; a.out has none."""
        return self.plan.program_headers if isinstance(self.plan, ElfPlan) else ()

    @cached_property
    def layout(self) -> list[Word]:
        """The initial stack word by word, from the stack pointer up."""
        return self.stack.layout()

    def arithmetic(self) -> list[Arithmetic]:
        """The PT_LOAD entries with the pages they come to."""
        found = []
        for number, header in enumerate(self.segments):
            if header.type != PT_LOAD:
                continue
            address = (header.vaddr + self.bias) & (1 << 64) - 1
            start = address & -PAGE
            align = header.align or 1
            found.append(
                Arithmetic(
                    number,
                    header,
                    self.bias,
                    start,
                    _page_up(address + header.filesz) if header.filesz else start,
                    _page_up(address + header.memsz),
                    header.offset & -PAGE,
                    header.vaddr % align == header.offset % align,
                    header.offset == 0 and header.filesz > 0,
                )
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The image in schema `loadstone/image/1`; integers are numbers, text may hold surrogate escapes.

        Where a core was chosen, `auxv_differs` lists [name, type, value, the host's value] of the entries it changes.
        """
        if self.differing is None:
            return self._to_dict()
        differs = [[auxv_name(key), key, value, host] for key, value, host in self.differing]
        return {**self._to_dict(), "auxv_differs": differs}

    def _to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "path": self.path,
            "format": self.format,
            "isa": self.isa,
            "interpreter": self.interpreter,
            "entry": self.entry,
            "start": self.start,
            "brk": self.brk,
            "maps": [mapping._asdict() for mapping in self.maps],
            "auxv": [[auxv_name(key), key, value] for key, value in (*self.auxv, (AT_NULL, 0))],
            "stack": {
                "pointer": self.stack.pointer,
                "top": self.stack.top,
                "bytes": self.stack.bytes.hex(),
                "layout": [
                    {"address": address, "size": size, "what": what, "value": value}
                    for address, size, what, value in self.layout
                ],
            },
            "registers": self.registers,
            "segments": [_segment(header) for header in self.segments],
            "sections": [_section(section) for section in self.sections],
            "stages": stages_to_list(self.stages),
            **({"aout": self.aout.header._asdict()} if self.aout else {}),
        }

    @property
    def position_independent(self) -> bool:
        """Whether the program is ET_DYN: it was linked at 0 and moved."""
        return isinstance(self.plan, ElfPlan) and self.plan.header.type == ET_DYN


def _gnu_properties(source: Source, plan: ElfPlan | AoutPlan) -> tuple[GnuProperty, ...]:
    try:
        return gnu_properties(source, plan) if isinstance(plan, ElfPlan) else ()
    except LinuxError:  # a kernel that looks at them would refuse the file; this one does not
        return ()


def failure_to_dict(error: LinuxError) -> dict[str, Any]:
    """A failed exec in schema `loadstone/image/1`: `signal` is what kills the process past the point of no return."""
    signal = error.fatal_signal
    return {
        "schema": SCHEMA,
        "error": {
            "errno": error.name,
            "signal": None if signal is None else SIGNALS.get(signal, f"SIG{signal}"),
            "message": str(error),
        },
    }


def stages_to_list(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The stages as the schema has them."""
    return [{"function": function, "step": step, "text": text} for function, step, text in stages]


def section_type(number: int) -> str:
    """sh_type by name: `SHT_PROGBITS`."""
    if number < len(SECTION_TYPES):
        return f"SHT_{SECTION_TYPES[number]}"
    return f"SHT_{GNU_SECTION_TYPES.get(number) or hex(number)}"


def _sections(source: Source) -> tuple[Section, ...]:
    """All section headers; read now, because the file's pages go with the machine."""
    try:
        return _SectionsOnly(source).sections
    except NotAnObject:
        return ()


class _SectionsOnly(ObjectFile):
    """An object of which nobody will ask for symbols."""

    def _read_symbols(self, source: Source) -> list[Symbol]:
        return []


def _segment(header: ProgramHeader) -> dict[str, Any]:
    return header._asdict() | {"type": f"PT_{program_header_type(header.type)}"}


def _section(section: Section) -> dict[str, Any]:
    return section._asdict() | {"type": section_type(section.type)}


def _page_up(address: int) -> int:
    return (address + PAGE - 1) & -PAGE
