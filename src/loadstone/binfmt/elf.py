"""ELF files: from headers to a plan, with the verdicts of fs/binfmt_elf.c (Linux 6.18, x86-64 and its i386 twin).

Two handlers, as in the kernel: `plan_elf64` (binfmt_elf.c) and `plan_elf32` (the same file compiled by
compat_binfmt_elf.c). Which one takes a file is decided by e_machine alone; EI_CLASS, EI_DATA and the versions are never
looked at. Arithmetic wraps where C's does: at 64 bits, and for sums of two file fields of a 32-bit file at 32.
"""

# No `from __future__ import annotations`: NamedTuple would compile every annotation again, half the import's time.

from errno import EINVAL, EIO, ELIBBAD, ENOEXEC, ENOMEM, EPERM
from struct import Struct

from loadstone.binfmt.names import (
    EM_386,
    EM_486,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    PF_X,
    PT_GNU_PROPERTY,
    PT_GNU_STACK,
    PT_INTERP,
    PT_LOAD,
    file_type,
    program_of,
)
from loadstone.binfmt.plan import (
    EXSTACK_DEFAULT,
    EXSTACK_DISABLE_X,
    EXSTACK_ENABLE_X,
    ElfHeader,
    ElfPlan,
    ProgramHeader,
    Segment,
    Source,
)
from loadstone.binfmt.rules import DEFAULT_RULES, FormatRules
from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple

ELF_MAGIC = b"\x7fELF"
PAGE = 4096  # ELF_MIN_ALIGN
MAX_INTERPRETER_BYTES = 4096  # PATH_MAX
MAX_PROPERTY_BYTES = 1024  # NOTE_DATA_SZ

_OFFSET_MASK = PAGE - 1
_PAGE_MASK = ~_OFFSET_MASK
_MASK_64 = (1 << 64) - 1
_MASK_32 = (1 << 32) - 1
_LARGEST_OFFSET = (1 << 63) - 1
_SIGSEGV = 11

# PF_X 1, PF_W 2, PF_R 4 -> PROT_EXEC 4, PROT_WRITE 2, PROT_READ 1 (make_prot)
_PROT = tuple((flags & 4) >> 2 | flags & 2 | (flags & 1) << 2 for flags in range(8))


class _Layout(NamedTuple):
    """What differs between the two handlers."""

    bits: int
    isa: str
    machines: tuple[int, ...]
    header: Struct
    program_header: Struct
    mask: int  # of elf_addr_t


_ELF64 = _Layout(64, "x86_64", (EM_X86_64,), Struct("<16sHHIQQQIHHHHHH"), Struct("<IIQQQQQQ"), _MASK_64)
_ELF32 = _Layout(32, "i386", (EM_386, EM_486), Struct("<16sHHIIIIIHHHHHH"), Struct("<IIIIIIII"), _MASK_32)


class GnuProperty(NamedTuple):
    """One entry of a PT_GNU_PROPERTY note: `struct gnu_property` and its data."""

    type: int
    data: bytes


def plan_elf64(head: bytes, source: Source, rules: FormatRules = DEFAULT_RULES) -> ElfPlan:
    """Plan an x86-64 program (load_elf_binary up to begin_new_exec).

    Args:
        head: the first `rules.buffer_size` bytes of the file, padded with zeros (`linux_binprm.buf`).
        source: the file.
        rules: what varies between kernels.

    Raises:
        LinuxError: ENOEXEC, without a sentence where the file is not this handler's; EIO or EINVAL where PT_INTERP
            cannot be read.
    """
    if not rules.x86_64:
        ours = head[:4] == ELF_MAGIC and int.from_bytes(head[18:20], "little") == EM_X86_64
        raise LinuxError(ENOEXEC, "it is an x86-64 program, and the kernel a 32-bit one" if ours else "")
    return _plan_program(_ELF64, head, source, rules)


def plan_elf32(head: bytes, source: Source, rules: FormatRules = DEFAULT_RULES) -> ElfPlan:
    """Plan an i386 program, as `plan_elf64` (fs/compat_binfmt_elf.c)."""
    if not rules.ia32:
        raise LinuxError(ENOEXEC)
    return _plan_program(_ELF32, head, source, rules)


def plan_interpreter(source: Source, program: ElfPlan, rules: FormatRules = DEFAULT_RULES) -> ElfPlan:
    """Plan the program interpreter that `program` names (the checks of load_elf_binary, then load_elf_interp).

    A file that is no ET_EXEC or ET_DYN, or has nothing to map, fails only after the point of no return: see
    `ElfPlan.error`. Its own PT_INTERP is not followed. What depends on where it is mapped: `interpreter_segment_error`.

    Raises:
        LinuxError: EIO for a file shorter than an ELF header; ELIBBAD where it is not an ELF file for the same machine
            or has unusable program headers.
    """
    layout = _ELF64 if program.bits == 64 else _ELF32
    head = _read_exactly(source, 0, layout.header.size, "the interpreter's ELF header")
    if head[:4] != ELF_MAGIC:
        raise LinuxError(ELIBBAD, "the program interpreter is not an ELF file")
    header = ElfHeader._make(layout.header.unpack(head))
    if header.machine not in layout.machines:
        raise LinuxError(ELIBBAD, f"the program interpreter is {program_of(header.machine)}")
    headers = _program_headers(layout, header, source, rules, ELIBBAD)
    if rules.gnu_property:
        _check_properties(source, headers, layout.bits)
    return _finish(layout, header, headers, None, rules, interpreter=True)


def interpreter_segment_error(
    header: ProgramHeader, load_address: int, bits: int, rules: FormatRules = DEFAULT_RULES
) -> LinuxError | None:
    """The check of load_elf_interp that needs the load address: made for each PT_LOAD, after it has been mapped."""
    if _overflows((load_address + header.vaddr) & _MASK_64, header, rules.task_size(bits)):
        return _fatal(ENOMEM, "a segment of the program interpreter does not fit into the address space")
    return None


def entry_error(entry: int, bits: int, rules: FormatRules = DEFAULT_RULES) -> LinuxError | None:
    """The check of load_elf_binary for the address (load bias included) where the first instruction is fetched.

    `entry` is the interpreter's if there is one; the program's own e_entry is never checked then.
    """
    if entry & _MASK_64 >= rules.task_size(bits):
        return _fatal(EINVAL, f"the entry point {entry & _MASK_64:#x} is outside the address space")
    return None


def gnu_properties(source: Source, plan: ElfPlan) -> tuple[GnuProperty, ...]:
    """The properties of the last PT_GNU_PROPERTY, for showing; empty where there is none.

    An x86 kernel does not look at them. Raises LinuxError (ENOEXEC, EIO) for a note that a kernel which does would
    refuse (parse_elf_properties).
    """
    found = [header for header in plan.program_headers if header.type == PT_GNU_PROPERTY]
    return _parse_properties(source, found[-1], plan.bits) if found else ()


def header_of(head: bytes) -> ElfHeader | None:
    """The ELF header of any class and byte order, for describing a file nobody takes; None if it is not ELF."""
    if head[:4] != ELF_MAGIC or len(head) < 64:
        return None
    layout = _ELF32 if head[4] == 1 else _ELF64
    order = ">" if head[5] == 2 else "<"
    fields = Struct(order + layout.header.format[1:])
    return ElfHeader._make(fields.unpack_from(head))


def _plan_program(layout: _Layout, head: bytes, source: Source, rules: FormatRules) -> ElfPlan:
    if head[:4] != ELF_MAGIC:
        raise LinuxError(ENOEXEC)
    header = ElfHeader._make(layout.header.unpack_from(head))
    if header.type not in (ET_EXEC, ET_DYN) or header.machine not in layout.machines:
        raise LinuxError(ENOEXEC)
    headers = _program_headers(layout, header, source, rules, ENOEXEC)
    interpreter = None
    for number, entry in enumerate(headers):
        if entry.type == PT_INTERP:
            interpreter = _interpreter(number, entry, source)
            break
    if rules.gnu_property and interpreter is None:
        _check_properties(source, headers, layout.bits)
    return _finish(layout, header, headers, interpreter, rules, interpreter=False)


def _program_headers(
    layout: _Layout, header: ElfHeader, source: Source, rules: FormatRules, errno: int
) -> tuple[ProgramHeader, ...]:
    """load_elf_phdrs: every way to fail ends in the same `errno`."""
    fields = layout.program_header
    if header.phentsize != fields.size:
        if layout.bits == 64 and header.ident[4] == 1:
            raise LinuxError(errno, "an x32 program: x86-64 code in a 32-bit ELF file, which has no handler")
        raise LinuxError(errno, f"e_phentsize is {header.phentsize}, a program header has {fields.size} bytes")
    size = fields.size * header.phnum
    if size == 0:
        raise LinuxError(errno, "there are no program headers (e_phnum is 0)")
    if size > rules.max_program_headers_size:
        most = rules.max_program_headers_size // fields.size
        raise LinuxError(errno, f"e_phnum is {header.phnum}; the kernel takes at most {most} program headers")
    try:
        data = _read_exactly(source, header.phoff, size, f"{header.phnum} program headers")
    except LinuxError as error:
        raise LinuxError(errno, error.why) from None
    if layout.bits == 64:
        return tuple(map(ProgramHeader._make, fields.iter_unpack(data)))
    # Elf32_Phdr has p_flags last but one; ProgramHeader has it second, as Elf64_Phdr.
    return tuple(ProgramHeader(f[0], f[6], f[1], f[2], f[3], f[4], f[5], f[7]) for f in fields.iter_unpack(data))


def _interpreter(number: int, entry: ProgramHeader, source: Source) -> bytes:
    if not 2 <= entry.filesz <= MAX_INTERPRETER_BYTES:
        raise LinuxError(ENOEXEC, f"PT_INTERP (program header {number}) has p_filesz {entry.filesz}, not 2 to 4096")
    path = _read_exactly(source, entry.offset, entry.filesz, f"PT_INTERP (program header {number})")
    if path[-1]:
        raise LinuxError(ENOEXEC, f"the path in PT_INTERP (program header {number}) does not end with a NUL byte")
    return path[: path.index(0)]


def _read_exactly(source: Source, offset: int, length: int, what: str) -> bytes:
    """elf_read: EIO for a short read; EINVAL for an offset that loff_t cannot hold (rw_verify_area)."""
    if offset + length > _LARGEST_OFFSET:
        raise LinuxError(EINVAL, f"{what} would be at offset {offset:#x}, which no file has")
    data = source.read(offset, length)
    if len(data) != length:
        raise LinuxError(EIO, f"{what} would end at {offset + length:#x}, past the end of the file")
    return data


def _finish(
    layout: _Layout,
    header: ElfHeader,
    headers: tuple[ProgramHeader, ...],
    path: bytes | None,
    rules: FormatRules,
    *,
    interpreter: bool,
) -> ElfPlan:
    """The arithmetic that both a program and its interpreter share; it reads nothing more."""
    loads = [(number, entry) for number, entry in enumerate(headers) if entry.type == PT_LOAD]
    mask = layout.mask
    total = _total_mapping_size(loads, mask)
    task_size = rules.task_size(layout.bits)
    segments = _segments(loads, task_size, total, fixed=header.type != ET_DYN, interpreter=interpreter)
    if loads and header.type == ET_DYN and not interpreter:
        error = _first_error(loads[0][1], total, path)
        if error is not None:
            segments[0] = segments[0]._replace(error=error)
    start_code, end_code, start_data, end_data, brk, phdr = _areas(header, loads, mask)
    return ElfPlan(
        header=header,
        program_headers=headers,
        segments=tuple(segments),
        isa=layout.isa,
        interpreter=path,
        entry=header.entry,
        phdr_address=phdr,
        total_size=total,
        alignment=_maximum_alignment(loads),
        executable_stack=_executable_stack(headers),
        start_code=start_code,
        end_code=end_code,
        start_data=start_data,
        end_data=end_data,
        brk=brk,
        error=_interpreter_error(header, total) if interpreter else None,
    )


def _segments(
    loads: list[tuple[int, ProgramHeader]], task_size: int, total: int, *, fixed: bool, interpreter: bool
) -> list[Segment]:
    """The PT_LOADs, each with why it will be refused. The first of an image that moves is mapped over all `total`."""
    segments = []
    reserve = total if interpreter or not fixed else 0
    errno, moves = (ENOMEM, not fixed) if interpreter else (EINVAL, False)
    for number, entry in loads:
        error = _mapping_error(number, entry, reserve, fixed, task_size)
        error = error or _size_error(number, entry, task_size, moves, errno)
        segments.append(_segment(number, entry, error))
        reserve = 0
    return segments


def _first_error(entry: ProgramHeader, total: int, path: bytes | None) -> LinuxError | None:
    """What load_elf_binary refuses in the first segment of a program that may go anywhere."""
    if not total:
        return _fatal(EINVAL, "the segments of this position-independent file have no size at all")
    # Nothing of the file to map means that no place is looked for: the image goes to address 0, less p_vaddr's pages.
    if path is None and not entry.filesz and entry.vaddr & _OFFSET_MASK:
        return _fatal(EINVAL, "the first segment has no bytes in the file and would be mapped below address 0")
    return None


def _interpreter_error(header: ElfHeader, total: int) -> LinuxError | None:
    if header.type not in (ET_EXEC, ET_DYN):
        return _fatal(
            EPERM, f"the program interpreter is an ELF file of type {file_type(header.type)}, not EXEC or DYN"
        )
    if not total:
        return _fatal(EINVAL, "the program interpreter has nothing to map (no PT_LOAD with a size)")
    return None


def _segment(number: int, entry: ProgramHeader, error: LinuxError | None) -> Segment:
    """elf_load in numbers. An entry with an error may have fields that make no sense together; nothing uses them."""
    vaddr, filesz, memsz = entry.vaddr, entry.filesz, entry.memsz
    start = vaddr & _PAGE_MASK
    clear_start = clear_end = anonymous_start = anonymous_end = 0
    if memsz > filesz:
        zero_start = start
        if filesz:
            zero_start = vaddr + filesz
            clear_start, clear_end = zero_start, (zero_start + _OFFSET_MASK) & _PAGE_MASK
            zero_start = clear_end
        anonymous_start, anonymous_end = zero_start, (vaddr + memsz + _OFFSET_MASK) & _PAGE_MASK
    return Segment(
        number,
        start,
        (entry.offset - (vaddr & _OFFSET_MASK)) & _MASK_64,
        filesz + (vaddr & _OFFSET_MASK) if filesz else 0,
        _PROT[entry.flags & 7],
        clear_start,
        clear_end,
        anonymous_start,
        anonymous_end,
        error,
    )


def _mapping_error(number: int, entry: ProgramHeader, reserve: int, fixed: bool, task_size: int) -> LinuxError | None:
    """Why vm_mmap is sure to refuse the file part, wherever the image goes (elf_map, vm_mmap, do_mmap)."""
    if not entry.filesz:
        return None
    page_offset = entry.vaddr & _OFFSET_MASK
    length = _page_align(reserve or entry.filesz + page_offset)
    offset = (entry.offset - page_offset) & _MASK_64
    if offset & _OFFSET_MASK:
        why = f"p_offset {entry.offset:#x} and p_vaddr {entry.vaddr:#x} differ in their place within a page"
        return _fatal(EINVAL, f"segment {number}: {why}")
    if offset + length > _MASK_64:
        return _fatal(EINVAL, f"segment {number}: p_offset {entry.offset:#x} plus the size wraps around")
    if length > task_size or (fixed and (entry.vaddr & _PAGE_MASK) > task_size - length):
        return _fatal(ENOMEM, f"segment {number}: {length:#x} bytes at {entry.vaddr:#x} do not fit the address space")
    return None


def _size_error(number: int, entry: ProgramHeader, task_size: int, moves: bool, errno: int) -> LinuxError | None:
    """The check that load_elf_binary makes once the segment is mapped, on p_vaddr *without* the load bias.

    load_elf_interp makes it with the load address: where that `moves` the segment only the sizes can be judged here.
    """
    if entry.filesz > entry.memsz:
        return _fatal(errno, f"segment {number}: p_filesz {entry.filesz:#x} is larger than p_memsz {entry.memsz:#x}")
    if _overflows(0 if moves else entry.vaddr, entry, task_size):
        where = f"p_vaddr {entry.vaddr:#x} with p_memsz {entry.memsz:#x}"
        return _fatal(errno, f"segment {number}: {where} reaches past the end of the address space, {task_size:#x}")
    return None


def _overflows(address: int, entry: ProgramHeader, task_size: int) -> bool:
    return (
        address >= task_size
        or entry.filesz > entry.memsz
        or entry.memsz > task_size
        or task_size - entry.memsz < address
    )


def _total_mapping_size(loads: list[tuple[int, ProgramHeader]], mask: int) -> int:
    """total_mapping_size: from the first page to the last byte, in elf_addr_t."""
    if not loads:
        return 0
    lowest = min(entry.vaddr & _PAGE_MASK for _, entry in loads)
    highest = max((entry.vaddr + entry.memsz) & mask for _, entry in loads)
    return (highest - lowest) & mask


def _maximum_alignment(loads: list[tuple[int, ProgramHeader]]) -> int:
    """maximum_alignment: of the powers of two among p_align, at least a page; 0 if there is none."""
    best = 0
    for _, entry in loads:
        align = entry.align
        if align > best and not align & (align - 1):
            best = align
    return _page_align(best)


def _executable_stack(headers: tuple[ProgramHeader, ...]) -> int:
    """The last PT_GNU_STACK wins."""
    stack = EXSTACK_DEFAULT
    for entry in headers:
        if entry.type == PT_GNU_STACK:
            stack = EXSTACK_ENABLE_X if entry.flags & PF_X else EXSTACK_DISABLE_X
    return stack


def _areas(header: ElfHeader, loads: list[tuple[int, ProgramHeader]], mask: int) -> tuple[int, int, int, int, int, int]:
    """start_code, end_code, start_data, end_data, brk and the address of the program headers, before the load bias."""
    start_code, end_code, start_data, end_data, brk, phdr = _MASK_64, 0, 0, 0, 0, 0
    phoff = header.phoff
    for _, entry in loads:
        _, flags, offset, vaddr, _, filesz, memsz, _ = entry
        if offset <= phoff < (offset + filesz) & mask:
            phdr = (phoff - offset + vaddr) & mask
        file_end = (vaddr + filesz) & mask
        if flags & PF_X:
            start_code = min(start_code, vaddr)
            end_code = max(end_code, file_end)
        start_data = max(start_data, vaddr)
        end_data = max(end_data, file_end)
        brk = max(brk, (vaddr + memsz) & mask)
    return start_code, end_code, start_data, end_data, brk, phdr


def _check_properties(source: Source, headers: tuple[ProgramHeader, ...], bits: int) -> None:
    found = [header for header in headers if header.type == PT_GNU_PROPERTY]
    if found:
        _parse_properties(source, found[-1], bits)


def _parse_properties(source: Source, entry: ProgramHeader, bits: int) -> tuple[GnuProperty, ...]:
    """parse_elf_properties: one NT_GNU_PROPERTY_TYPE_0 note, its properties unique and sorted by type."""
    if entry.filesz > MAX_PROPERTY_BYTES:
        raise LinuxError(ENOEXEC, f"PT_GNU_PROPERTY has {entry.filesz} bytes, more than {MAX_PROPERTY_BYTES}")
    data = b"" if entry.offset > _LARGEST_OFFSET - MAX_PROPERTY_BYTES else source.read(entry.offset, entry.filesz)
    if len(data) < 16:
        raise LinuxError(EIO, "PT_GNU_PROPERTY is shorter than a note header with its name")
    name_size, size, note_type = _NOTE.unpack_from(data)
    if note_type != 5 or name_size != 4 or data[12:16] != b"GNU\0":
        raise LinuxError(ENOEXEC, "PT_GNU_PROPERTY does not hold an NT_GNU_PROPERTY_TYPE_0 note")
    if size > len(data) - 16:
        raise LinuxError(ENOEXEC, "the note in PT_GNU_PROPERTY is larger than its segment")
    align = bits // 8
    place, end = 16, 16 + size
    properties: list[GnuProperty] = []
    while place != end:
        if end - place < 8:
            raise LinuxError(ENOEXEC, "a GNU property is cut off")
        kind, length = _PROPERTY.unpack_from(data, place)
        place += 8
        step = (length + align - 1) & -align
        if step > end - place:
            raise LinuxError(ENOEXEC, f"GNU property {kind:#x} is larger than its note")
        if properties and kind <= properties[-1].type:
            raise LinuxError(ENOEXEC, "the GNU properties are not sorted by type")
        properties.append(GnuProperty(kind, data[place : place + length]))
        place += step
    return tuple(properties)


_NOTE = Struct("<III")
_PROPERTY = Struct("<II")


def _page_align(value: int) -> int:
    """ELF_PAGEALIGN in an unsigned long."""
    return (value + _OFFSET_MASK) & _PAGE_MASK & _MASK_64


def _fatal(errno: int, why: str) -> LinuxError:
    """An error after the point of no return: the process gets SIGSEGV (bprm_execve)."""
    return LinuxError(errno, why, _SIGSEGV)
