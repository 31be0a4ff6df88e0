"""What each field of a kernel profile decides, and in which file of the kernel's source to look it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.linux.exec import auxv
from loadstone.linux.profile import BRK_ALWAYS, BRK_NEVER, BRK_RANDOMIZED, Special

if TYPE_CHECKING:
    from loadstone.linux.profile import KernelProfile


class Field(NamedTuple):
    """One field: its name in `KernelProfile`, the source file, and what it decides."""

    name: str
    file: str
    what: str


class ProfileDifference(NamedTuple):
    """A field that is not the same in two profiles, with both values for a person."""

    field: Field
    here: str
    there: str


_ELF, _EXEC, _VMA = "fs/binfmt_elf.c", "fs/exec.c", "arch/x86/entry/vdso/vma.c"
_MMAP, _HUGE = "arch/x86/mm/mmap.c", "mm/huge_memory.c"

# fmt: off
FIELDS = (
    Field("buffer_size", "include/uapi/linux/binfmts.h", "bytes of a file that its format is chosen by: how long a "
          "#! line may be (BINPRM_BUF_SIZE)"),
    Field("rewrites", _EXEC, "interpreters in a row before ELOOP (exec_binprm)"),
    Field("empty_argument", _EXEC, "an empty argv is made to hold one empty string (do_execveat_common)"),
    Field("comm_of_file", _EXEC, "execveat without a path: comm is the file's own name (begin_new_exec)"),
    Field("exec_check", _EXEC, "execveat knows AT_EXECVE_CHECK"),
    Field("tells_argv0", "fs/binfmt_misc.c", "AT_FLAGS says that a format kept argv[0]"),
    Field("has_aout", "arch/x86/Kconfig", "a.out programs have a handler (IA32_AOUT, BINFMT_AOUT)"),
    Field("auxv", _ELF, "entries of the auxiliary vector, in order (create_elf_tables, ARCH_DLINFO)"),
    Field("auxv_i386", "arch/x86/include/asm/elf.h", "the same for 32-bit programs (ARCH_DLINFO_IA32)"),
    Field("ia32", "arch/x86/Kconfig", "32-bit programs run (IA32_EMULATION)"),
    Field("x86_64", "arch/x86/include/asm/elf.h", "64-bit programs run (elf_check_arch)"),
    Field("max_program_headers", _ELF, "bytes that the program headers may have (load_elf_phdrs)"),
    Field("selectors_i386", "arch/x86/include/asm/segment.h", "CS and DS of 32-bit programs"),
    Field("task_size", "arch/x86/include/asm/page_64_types.h", "where the address space of 64-bit programs ends"),
    Field("task_size_i386", "arch/x86/include/asm/page_types.h", "where that of 32-bit programs ends, and their stack"),
    Field("stack_guard_gap", "mm/mmap.c", "what stays free below the stack"),
    Field("stack_expand", _EXEC, "what exec adds to the stack below the strings (setup_arg_pages)"),
    Field("legacy_when_unlimited", _MMAP, "mmap works bottom-up when the stack has no limit (mmap_is_legacy)"),
    Field("program_in_mmap_area", _ELF, "a position-independent program goes where mmap finds room for its first "
          "segment, and nothing is reserved for the others"),
    Field("loader_in_mmap_area", _ELF, "only one without PT_INTERP does, and room is kept for all of it"),
    Field("align_program", _ELF, "p_align counts for where a position-independent program goes (maximum_alignment)"),
    Field("align_loader", _ELF, "it counts without PT_INTERP too"),
    Field("loader_brk", _ELF, "when the break of such a program is moved away from the mmap area"),
    Field("brk_gap", _ELF, "a page stays free between .bss and a randomised break"),
    Field("huge_file", _HUGE, "large files are mapped on a 2 MiB boundary (__thp_get_unmapped_area)"),
    Field("huge_file_i386", _HUGE, "by 32-bit programs too"),
    Field("guard_pages", "mm/madvise.c", "madvise makes guard pages (MADV_GUARD_INSTALL)"),
    Field("unique_mounts", "fs/stat.c", "statx knows STATX_MNT_ID_UNIQUE"),
    Field("cpu_mask_bytes", "kernel/sched/syscalls.c", "how long a CPU mask is that sched_getaffinity gives"),
    Field("huge_anonymous", "mm/mmap.c", "anonymous memory of a multiple of 2 MiB is (__get_unmapped_area)"),
    Field("special", "arch/x86/entry/vdso/vdso-layout.lds.S", "the kernel's own mappings and their pages"),
    Field("special_i386", "arch/x86/entry/vdso/vdso-layout.lds.S", "the same for 32-bit programs"),
    Field("vdso_above_stack", _VMA, "the vDSO is put above the stack where there is room (vdso_addr)"),
    Field("vsyscall", "arch/x86/Kconfig", "how the vsyscall page shows (LEGACY_VSYSCALL_XONLY, _EMULATE)"),
    Field("fault_around", "mm/memory.c", "bytes that one fault on a file maps (fault_around_bytes)"),
)
# fmt: on

_BRK = {BRK_NEVER: "never", BRK_RANDOMIZED: "with randomisation", BRK_ALWAYS: "always"}


def profile_differences(here: KernelProfile, there: KernelProfile) -> list[ProfileDifference]:
    """What two kernels do differently, field by field. What only the host decides is left out."""
    found = []
    for field in FIELDS:
        one, other = getattr(here, field.name), getattr(there, field.name)
        if one != other:
            found.append(ProfileDifference(field, *_texts(field.name, one, other)))
    return found


def _texts(name: str, one: object, other: object) -> tuple[str, str]:
    """Both values; of two lists of entries only what the other does not have."""
    if name.startswith("auxv") and isinstance(one, tuple) and isinstance(other, tuple):
        return _more(one, other), _more(other, one)
    return _text(name, one), _text(name, other)


def _more(entries: tuple[int, ...], others: tuple[int, ...]) -> str:
    more = [auxv.name(key) for key in entries if key not in others]
    return "also " + ", ".join(more) if more else "no more"


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "loader_brk" and isinstance(value, int):
        return _BRK[value]
    if isinstance(value, tuple):
        return ", ".join(f"{item.name} {item.size:#x}" if isinstance(item, Special) else f"{item:#x}" for item in value)
    if isinstance(value, int):
        return f"{value:#x}" if value > 99 else str(value)
    return str(value) or "none"
