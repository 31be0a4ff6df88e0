"""The numbers of ELF by name, for showing and for comparing (`<linux/elf.h>`, `<elf.h>`)."""

from __future__ import annotations

ET_NONE, ET_REL, ET_EXEC, ET_DYN, ET_CORE = range(5)

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_PHDR, PT_TLS = 1, 2, 3, 4, 6, 7
PT_GNU_EH_FRAME, PT_GNU_STACK, PT_GNU_RELRO, PT_GNU_PROPERTY = 0x6474E550, 0x6474E551, 0x6474E552, 0x6474E553

PF_X, PF_W, PF_R = 1, 2, 4

EM_386, EM_486, EM_X86_64 = 3, 6, 62

FILE_TYPES = {ET_NONE: "NONE", ET_REL: "REL", ET_EXEC: "EXEC", ET_DYN: "DYN", ET_CORE: "CORE"}

PROGRAM_HEADER_TYPES = {
    0: "NULL",
    PT_LOAD: "LOAD",
    PT_DYNAMIC: "DYNAMIC",
    PT_INTERP: "INTERP",
    PT_NOTE: "NOTE",
    5: "SHLIB",
    PT_PHDR: "PHDR",
    PT_TLS: "TLS",
    PT_GNU_EH_FRAME: "GNU_EH_FRAME",
    PT_GNU_STACK: "GNU_STACK",
    PT_GNU_RELRO: "GNU_RELRO",
    PT_GNU_PROPERTY: "GNU_PROPERTY",
    0x6474E554: "GNU_SFRAME",
    0x65041580: "PAX_FLAGS",
    0x65A3DBE6: "OPENBSD_RANDOMIZE",
}

# e_machine -> (short name of the ISA, what a person calls a program for it)
MACHINES = {
    0: ("none", "a program for no machine"),
    2: ("sparc", "a SPARC program"),
    EM_386: ("i386", "an i386 program"),
    4: ("m68k", "an m68k program"),
    EM_486: ("i386", "an i386 program"),
    8: ("mips", "a MIPS program"),
    15: ("parisc", "a PA-RISC program"),
    18: ("sparc32plus", "a SPARC32+ program"),
    20: ("ppc", "a PowerPC program"),
    21: ("ppc64", "a PowerPC64 program"),
    22: ("s390", "an s390 program"),
    40: ("arm", "an ARM program"),
    42: ("sh", "a SuperH program"),
    43: ("sparc64", "a SPARC64 program"),
    50: ("ia64", "an IA-64 program"),
    EM_X86_64: ("x86_64", "an x86-64 program"),
    83: ("avr", "an AVR program"),
    94: ("xtensa", "an Xtensa program"),
    183: ("aarch64", "an AArch64 program"),
    189: ("microblaze", "a MicroBlaze program"),
    195: ("arc", "an ARCv2 program"),
    243: ("riscv", "a RISC-V program"),
    247: ("bpf", "an eBPF program"),
    252: ("csky", "a C-SKY program"),
    258: ("loongarch", "a LoongArch program"),
}

GNU_PROPERTIES = {
    1: "GNU_PROPERTY_STACK_SIZE",
    2: "GNU_PROPERTY_NO_COPY_ON_PROTECTED",
    0xB0008000: "GNU_PROPERTY_1_NEEDED",
    0xC0000000: "GNU_PROPERTY_AARCH64_FEATURE_1_AND",
    0xC0000002: "GNU_PROPERTY_X86_FEATURE_1_AND",
    0xC0008000: "GNU_PROPERTY_X86_FEATURE_2_NEEDED",
    0xC0008002: "GNU_PROPERTY_X86_ISA_1_NEEDED",
    0xC0010001: "GNU_PROPERTY_X86_FEATURE_2_USED",
    0xC0010002: "GNU_PROPERTY_X86_ISA_1_USED",
}


def file_type(number: int) -> str:
    """e_type by name: `EXEC`, or `ET_0xfe00`."""
    return FILE_TYPES.get(number) or f"ET_{number:#x}"


def program_header_type(number: int) -> str:
    """p_type by name, as readelf prints it: `LOAD`, or `LOOS+0x2` and the like."""
    name = PROGRAM_HEADER_TYPES.get(number)
    if name:
        return name
    if 0x60000000 <= number <= 0x6FFFFFFF:
        return f"LOOS+{number - 0x60000000:#x}"
    if 0x70000000 <= number <= 0x7FFFFFFF:
        return f"LOPROC+{number - 0x70000000:#x}"
    return f"<unknown>: {number:x}"


def property_name(number: int) -> str:
    """The type of a GNU property by name: `GNU_PROPERTY_X86_ISA_1_NEEDED`, or its number."""
    return GNU_PROPERTIES.get(number) or f"GNU property {number:#x}"


def isa(machine: int) -> str:
    """e_machine as a short name: `x86_64`, or `EM_9999`."""
    entry = MACHINES.get(machine)
    return entry[0] if entry else f"EM_{machine}"


def program_of(machine: int) -> str:
    """A file's e_machine for a sentence: `an AArch64 program`."""
    entry = MACHINES.get(machine)
    return entry[1] if entry else f"a program for an unknown machine (e_machine {machine})"
