"""Why a thing is in a process image: for every class of mapping, word, register and note, the rule and the function.

`verify` names the class of whatever differs, `explain --why` tells the class of whatever there is: both ask here. Files
and functions are those of Linux 6.18; where older kernels have them elsewhere, `linux.profiles` says what changed.
"""

from __future__ import annotations

from loadstone.lean import NamedTuple


class Origin(NamedTuple):
    """One class: which function of the kernel makes it, in which source file, by which rule."""

    kind: str  # mapping | auxv | stack | register | break | note | memory | verdict
    name: str
    function: str
    file: str
    rule: str


_ELF = "fs/binfmt_elf.c"
_EXEC = "fs/exec.c"
_X86_ELF = "arch/x86/include/asm/elf.h"
_VDSO = "arch/x86/entry/vdso/vma.c"
_PROCESS = "arch/x86/kernel/process_64.c"
_MMAP = "mm/mmap.c"

# fmt: off
_ORIGINS = (
    Origin("mapping", "program", "elf_load", _ELF,
           "a PT_LOAD of the program: p_vaddr plus the load bias, rounded out to pages. ET_EXEC has no bias; ET_DYN "
           "with PT_INTERP gets ELF_ET_DYN_BASE, two thirds of the address space, rounded down to the largest "
           "p_align; ET_DYN without PT_INTERP goes where mmap finds room"),
    Origin("mapping", "interpreter", "load_elf_interp", _ELF,
           "a PT_LOAD of the file that PT_INTERP names: the first one reserves the whole image where mmap finds "
           "room, which is just below the mmap base; the others follow at their distance"),
    Origin("mapping", "anonymous", "vm_brk_flags", _MMAP,
           "p_memsz beyond the last page of p_filesz: .bss as anonymous memory, always readable and writable, with "
           "no page behind it yet"),
    Origin("mapping", "[heap]", "vm_brk_flags", _MMAP,
           "anonymous memory across the program break, which /proc/PID/maps calls the heap"),
    Origin("mapping", "[stack]", "setup_arg_pages", _EXEC,
           "the strings are shifted to the stack top that randomize_stack_top and arch_align_stack give, and the "
           "mapping grows by 128 KiB below them; executable as PT_GNU_STACK says"),
    Origin("mapping", "[vdso]", "map_vdso", _VDSO,
           "the kernel's own code for programs, one size for all of them, directly above its data pages"),
    Origin("mapping", "[vvar]", "map_vdso", _VDSO,
           "the data pages that the vDSO reads: where mmap finds room for them and the code together, after program "
           "and interpreter"),
    Origin("mapping", "[vvar_vclock]", "map_vdso", _VDSO,
           "the pages of paravirtual clocks, between [vvar] and [vdso] since Linux 6.13"),
    Origin("mapping", "[vsyscall]", "get_gate_vma", "arch/x86/entry/vsyscall/vsyscall_64.c",
           "a page at a fixed address in the kernel's half that every 64-bit process shows; executable only, unless "
           "the kernel was configured to emulate it readable"),
    Origin("auxv", "AT_SYSINFO", "ARCH_DLINFO_IA32", _X86_ELF,
           "the address of __kernel_vsyscall in the 32-bit vDSO; only 32-bit programs have it"),
    Origin("auxv", "AT_SYSINFO_EHDR", "ARCH_DLINFO", _X86_ELF, "the address of the vDSO's ELF header"),
    Origin("auxv", "AT_MINSIGSTKSZ", "get_sigframe_size", "arch/x86/kernel/signal.c",
           "the largest frame that a signal can need on this CPU: its XSAVE area decides"),
    Origin("auxv", "AT_HWCAP", "ELF_HWCAP", _X86_ELF, "CPUID leaf 1, EDX, as the kernel keeps it for the boot CPU"),
    Origin("auxv", "AT_HWCAP2", "ELF_HWCAP2", _X86_ELF,
           "bits of Linux's own for x86 features: bit 0 MONITOR in ring 3, bit 1 FSGSBASE"),
    Origin("auxv", "AT_PAGESZ", "create_elf_tables", _ELF, "ELF_EXEC_PAGESIZE: 4,096"),
    Origin("auxv", "AT_CLKTCK", "create_elf_tables", _ELF, "USER_HZ: ticks a second in times(2), 100"),
    Origin("auxv", "AT_PHDR", "load_elf_binary", _ELF,
           "where the segment that covers e_phoff has the program headers in memory, load bias added"),
    Origin("auxv", "AT_PHENT", "create_elf_tables", _ELF, "the size of a program header: 56, or 32 for i386"),
    Origin("auxv", "AT_PHNUM", "create_elf_tables", _ELF, "e_phnum"),
    Origin("auxv", "AT_BASE", "create_elf_tables", _ELF, "the interpreter's load bias, 0 without one"),
    Origin("auxv", "AT_FLAGS", "create_elf_tables", _ELF,
           "0; bit 0 when a binfmt_misc handler kept the program's argv[0]"),
    Origin("auxv", "AT_ENTRY", "create_elf_tables", _ELF,
           "e_entry plus the load bias: the program's, never the interpreter's"),
    Origin("auxv", "AT_UID", "create_elf_tables", _ELF, "the real user id"),
    Origin("auxv", "AT_EUID", "bprm_fill_uid", _EXEC, "the effective user id; the file's owner if it is set-user-ID"),
    Origin("auxv", "AT_GID", "create_elf_tables", _ELF, "the real group id"),
    Origin("auxv", "AT_EGID", "bprm_fill_uid", _EXEC,
           "the effective group id; the file's group if it is set-group-ID"),
    Origin("auxv", "AT_SECURE", "cap_bprm_creds_from_file", "security/commoncap.c",
           "1 when real and effective ids differ or capabilities were gained"),
    Origin("auxv", "AT_RANDOM", "create_elf_tables", _ELF, "the address of 16 random bytes above the vector"),
    Origin("auxv", "AT_EXECFN", "do_execveat_common", _EXEC,
           "the address of the file name given to execve, at the stack's top"),
    Origin("auxv", "AT_PLATFORM", "create_elf_tables", _ELF, "the address of ELF_PLATFORM's string: x86_64, or i686"),
    Origin("auxv", "AT_EXECFD", "begin_new_exec", _EXEC,
           "the descriptor of the file that a format of binfmt_misc with flag O or C passes to its interpreter"),
    Origin("auxv", "AT_RSEQ_FEATURE_SIZE", "create_elf_tables", _ELF, "bytes of struct rseq in use, since Linux 6.3"),
    Origin("auxv", "AT_RSEQ_ALIGN", "create_elf_tables", _ELF, "the alignment of struct rseq, since Linux 6.3"),
    Origin("auxv", "AT_NULL", "create_elf_tables", _ELF, "the end of the vector"),
    Origin("stack", "argc", "create_elf_tables", _ELF, "the number of arguments; the stack pointer points at it"),
    Origin("stack", "argv", "create_elf_tables", _ELF, "the addresses of the argument strings, in order, and a NULL"),
    Origin("stack", "envp", "create_elf_tables", _ELF,
           "the addresses of the environment strings, in order, and a NULL"),
    Origin("stack", "vectors", "create_aout_tables", "arch/x86/ia32/ia32_aout.c",
           "the addresses of argv and envp, which only a.out programs are given"),
    Origin("stack", "padding", "arch_align_stack", "arch/x86/kernel/process.c",
           "what rounding down to 16 bytes leaves between the parts, and up to 8,191 bytes with randomisation"),
    Origin("stack", "AT_RANDOM bytes", "create_elf_tables", _ELF,
           "16 bytes from get_random_bytes, fresh for every exec: the C library's stack protector is seeded from "
           "them"),
    Origin("stack", "AT_PLATFORM string", "create_elf_tables", _ELF, "ELF_PLATFORM, below the strings of the exec"),
    Origin("stack", "argv string", "copy_strings", _EXEC,
           "the arguments, copied before the format is known; a script's interpreter is put in front (load_script)"),
    Origin("stack", "envp string", "copy_strings", _EXEC,
           "the environment, copied before the arguments: so above them"),
    Origin("stack", "AT_EXECFN string", "do_execveat_common", _EXEC, "the file name, copied first: so on top"),
    Origin("stack", "end marker", "create_init_stack_vma", "mm/vma_exec.c",
           "one pointer of zeros: linux_binprm.p starts below it"),
    Origin("stack", "pointer", "create_elf_tables", _ELF,
           "STACK_ROUND: below strings, vector and tables, rounded down to 16 bytes"),
    Origin("register", "instruction pointer", "start_thread", _PROCESS,
           "the interpreter's entry point, or the program's own without one"),
    Origin("register", "stack pointer", "start_thread", _PROCESS, "where argc is"),
    Origin("register", "flags", "start_thread", _PROCESS, "0x202: interrupts on, bit 1 always set"),
    Origin("register", "segment", "start_thread", _PROCESS,
           "the user's code and data segments; bases and the other selectors are 0 (i386: DS and ES are the data "
           "segment)"),
    Origin("register", "general", "ELF_PLAT_INIT", _X86_ELF,
           "0. RDX too: a function there would be registered with atexit"),
    Origin("register", "floating point", "fpu_flush_thread", "arch/x86/kernel/fpu/core.c",
           "the initial state: control word 0x37f, MXCSR 0x1f80"),
    Origin("break", "program break", "load_elf_binary", _ELF,
           "the page after the highest segment; for ET_DYN without PT_INTERP ELF_ET_DYN_BASE, away from the mmap "
           "area"),
    Origin("note", "code and data", "load_elf_binary", _ELF,
           "start_code, end_code, start_data, end_data: over the PT_LOADs, load bias added; shown in /proc/PID/stat"),
    Origin("note", "strings", "create_elf_tables", _ELF,
           "arg_start to env_end: where the strings are; /proc/PID/cmdline and environ read them"),
    Origin("note", "start_stack", "create_elf_tables", _ELF, "the stack pointer, kept for /proc/PID/stat"),
    Origin("note", "comm", "__set_task_comm", _EXEC, "the last component of the file name given to execve, 15 bytes"),
    Origin("memory", "written page", "padzero", _ELF,
           "the rest of a segment's last file page is cleared: a private copy of it before the first instruction"),
    Origin("memory", "[vdso]", "map_vdso", _VDSO, "the kernel's own code, patched at boot for this CPU"),
    Origin("verdict", "errno", "bprm_execve", _EXEC,
           "an error before begin_new_exec is execve's errno; after it the process is killed by a signal"),
)
# fmt: on

_BY_KEY = {(origin.kind, origin.name): origin for origin in _ORIGINS}

_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base")


def all_origins() -> tuple[Origin, ...]:
    """Every class there is."""
    return _ORIGINS


def of_mapping(path: str, program: str, interpreter: str) -> Origin:
    """The class of a mapping that /proc/PID/maps shows with `path`, "" for an anonymous one."""
    if path in ("[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]", "[stack]", "[heap]"):
        return _BY_KEY["mapping", path]
    if not path:
        return _BY_KEY["mapping", "anonymous"]
    return _BY_KEY["mapping", "interpreter" if path == interpreter != program else "program"]


def of_auxv(name: str) -> Origin:
    """The class of an auxiliary vector entry by its name: `AT_PHDR`."""
    return _BY_KEY.get(("auxv", name)) or Origin(
        "auxv", name, "create_elf_tables", _ELF, "an entry that this version of Loadstone does not know"
    )


def of_word(what: str) -> Origin:
    """The class of an item of the initial stack, by the name that `InitialStack.layout` gives it."""
    if what.startswith("AT_") and what.endswith((" type", " value")):
        return of_auxv(what.rpartition(" ")[0])
    if what in ("argc", "end marker", "pointer") or what.startswith("AT_"):
        return _BY_KEY["stack", what]
    if what.startswith("padding"):
        return _BY_KEY["stack", "padding"]
    if what.startswith("address of "):
        return _BY_KEY["stack", "vectors"]
    table = what[:4]
    return _BY_KEY["stack", f"{table} string" if what.endswith(" string") else table]


def of_register(name: str) -> Origin:
    """The class of a register by ptrace's name."""
    if name in ("rip", "eip"):
        return _BY_KEY["register", "instruction pointer"]
    if name in ("rsp", "esp"):
        return _BY_KEY["register", "stack pointer"]
    if name == "eflags":
        return _BY_KEY["register", "flags"]
    if name in _SEGMENTS:
        return _BY_KEY["register", "segment"]
    return _BY_KEY["register", "floating point" if name in ("fcw", "mxcsr") else "general"]


def of_note(name: str) -> Origin:
    """The class of one of the kernel's notes about the image: a field of /proc/PID/stat, or `comm`."""
    if name == "start_brk":
        return _BY_KEY["break", "program break"]
    if name in ("start_stack", "comm"):
        return _BY_KEY["note", name]
    return _BY_KEY["note", "strings" if name.startswith(("arg_", "env_")) else "code and data"]


def of_memory(path: str) -> Origin:
    """The class of bytes in a mapping, the stack apart: the vDSO, or a page that the kernel wrote."""
    return _BY_KEY["memory", "[vdso]" if path == "[vdso]" else "written page"]


def of_verdict() -> Origin:
    """The class of execve's answer."""
    return _BY_KEY["verdict", "errno"]
