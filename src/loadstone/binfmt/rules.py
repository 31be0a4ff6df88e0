"""What varies between kernels and hosts and can change a handler's verdict. The kernel profile fills it in."""

# No `from __future__ import annotations`: NamedTuple would compile every annotation again, half the import's time.

from loadstone.lean import NamedTuple


class FormatRules(NamedTuple):
    """The knobs of the binary format handlers. The defaults are those of a 6.18 x86-64 kernel with IA-32 emulation."""

    buffer_size: int = 256  # BINPRM_BUF_SIZE (include/uapi/linux/binfmts.h); 128 before 5.1
    max_program_headers_size: int = 65536  # bytes (fs/binfmt_elf.c: load_elf_phdrs); a page (4096) in 6.14 and before
    task_size_64: int = 0x7FFF_FFFF_F000  # TASK_SIZE of a 64-bit process; larger with five-level page tables
    task_size_32: int = 0xFFFF_E000  # IA32_PAGE_OFFSET
    ia32: bool = True  # CONFIG_IA32_EMULATION: i386 programs have a handler
    x86_64: bool = True  # not a 32-bit kernel: x86-64 programs have a handler
    aout: bool = False  # CONFIG_IA32_AOUT or CONFIG_BINFMT_AOUT, until 5.18: a.out programs have a handler
    gnu_property: bool = False  # CONFIG_ARCH_USE_GNU_PROPERTY: a bad PT_GNU_PROPERTY fails the exec (not on x86)

    @property
    def aout_segment(self) -> int:
        """SEGMENT_SIZE of `<linux/a.out.h>`, in bytes: what the address of an a.out program's data is a multiple of."""
        return 4096 if self.x86_64 else 1024

    def task_size(self, bits: int) -> int:
        """The first address a process of `bits` bits cannot have."""
        return self.task_size_64 if bits == 64 else self.task_size_32


DEFAULT_RULES = FormatRules()
