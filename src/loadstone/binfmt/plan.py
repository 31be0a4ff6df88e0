"""The loader decides in data first: what a binary format handler returns. Immutable; nothing has happened yet.

Addresses are as the file has them: `execve` adds the load bias when it commits the plan.
"""

# No `from __future__ import annotations`: NamedTuple would compile every annotation again, half the import's time.

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple, Protocol

EXSTACK_DEFAULT, EXSTACK_DISABLE_X, EXSTACK_ENABLE_X = 0, 1, 2


class Source(Protocol):
    """The file a handler looks at. Reads never raise for a short file; they return fewer bytes, as `kernel_read`."""

    @property
    def size(self) -> int:
        """Bytes in the file."""

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; LinuxError(EIO and the like) where the host cannot read."""


class ElfHeader(NamedTuple):
    """`Elf32_Ehdr`/`Elf64_Ehdr`, field by field (`man 5 elf`)."""

    ident: bytes
    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int

    @property
    def bits(self) -> int:
        """32 or 64, as EI_CLASS claims; the kernel never reads it: `ElfPlan.bits` says how the file is loaded."""
        return 32 if self.ident[4] == 1 else 64


class ProgramHeader(NamedTuple):
    """`Elf32_Phdr`/`Elf64_Phdr`."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class Segment(NamedTuple):
    """One PT_LOAD entry as `load_elf_binary` maps it (fs/binfmt_elf.c: elf_load). All addresses before the load bias.

    Taken in order: map the file part (a first segment of an ET_DYN maps `total_size` and unmaps the rest), clear its
    tail, map the anonymous part. A first segment without a file part reserves nothing and finds no place: the program
    goes to its load bias (address 0 without a program interpreter). Clearing a segment without PROT_WRITE fails
    silently, as does the kernel's `clear_user`; with PROT_WRITE a failure is EFAULT. `error` is raised when the
    segment's turn comes, after the point of no return.
    """

    index: int  # type: ignore[assignment]  # the program header's number
    start: int  # page-aligned start of the file mapping
    file_offset: int  # page-aligned
    file_length: int  # bytes to map, not yet rounded up to a page; 0: the segment has no file part
    prot: int  # PROT_READ | PROT_WRITE | PROT_EXEC
    clear_start: int  # [clear_start, clear_end) is zeroed through the mapping (padzero); equal for nothing
    clear_end: int
    anonymous_start: int  # [anonymous_start, anonymous_end) is mapped anonymously (vm_brk_flags); equal for nothing
    anonymous_end: int
    error: LinuxError | None = None


class ElfPlan(NamedTuple):
    """What `load_elf_binary` will do with an ELF file."""

    header: ElfHeader
    program_headers: tuple[ProgramHeader, ...]
    segments: tuple[Segment, ...]
    isa: str  # x86_64 | i386
    interpreter: bytes | None  # PT_INTERP's path up to its first NUL; may be empty, may be relative to the cwd
    entry: int
    phdr_address: int  # AT_PHDR; 0 when no segment covers the program headers (the load bias is added even then)
    total_size: int  # total_mapping_size(): bytes that an ET_DYN reserves at once
    alignment: int  # maximum_alignment(): of p_align over PT_LOAD, a power of two, or 0
    executable_stack: int  # EXSTACK_*
    start_code: int  # 2**64 - 1 when no segment is executable
    end_code: int
    start_data: int
    end_data: int
    brk: int  # the highest end of any segment, not rounded
    error: LinuxError | None = None  # raised after the point of no return, before any segment is mapped

    @property
    def bits(self) -> int:
        """32 or 64: which of the kernel's two ELF handlers took the file (decided by e_machine alone)."""
        return 64 if self.isa == "x86_64" else 32

    @property
    def read_implies_exec(self) -> bool:
        """An i386 program without PT_GNU_STACK runs with READ_IMPLIES_EXEC (arch/x86/include/asm/elf.h)."""
        return self.executable_stack == EXSTACK_DEFAULT and self.isa == "i386"


class ScriptPlan(NamedTuple):
    """A `#!` line: which interpreter to run instead, with which one argument."""

    interpreter: bytes
    argument: bytes | None


class AoutHeader(NamedTuple):
    """`struct exec` of a.out, field by field without their `a_` (`man 5 a.out`)."""

    info: int
    text: int
    data: int
    bss: int
    syms: int
    entry: int
    trsize: int
    drsize: int


class AoutPlan(NamedTuple):
    """What `load_aout_binary` will do with an a.out file. Addresses are final: nothing is moved."""

    header: AoutHeader
    magic: int  # OMAGIC and so on (binfmt/aout.py)
    text_offset: int  # N_TXTOFF: where the text begins in the file, and data right behind it
    text_address: int  # N_TXTADDR
    data_address: int  # N_DATADDR
    bss_address: int  # N_BSSADDR: the start of the break

    @property
    def mapped(self) -> bool:
        """Whether text and data are mapped from the file; else they are read into anonymous memory."""
        return self.text_offset % 4096 == 0

    @property
    def isa(self) -> str:
        """Only i386 programs have a handler."""
        return "i386"

    @property
    def bits(self) -> int:
        """All of them are 32-bit programs."""
        return 32

    @property
    def brk(self) -> int:
        """The end of .bss."""
        return self.bss_address + self.header.bss

    @property
    def read_implies_exec(self) -> bool:
        """The handler sets PER_LINUX, without the flag."""
        return False


Plan = ElfPlan | ScriptPlan | AoutPlan
