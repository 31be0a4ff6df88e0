"""The story of an exec: what `execve` makes of a file, with every number it decided by.

Each section of the story is one function over an `Image`; `write_story` puts them in order.
"""

from __future__ import annotations

from errno import ENOENT
from typing import IO, TYPE_CHECKING, Any

from loadstone.binfmt.names import (
    PF_R,
    PF_W,
    PF_X,
    PT_GNU_PROPERTY,
    PT_GNU_RELRO,
    PT_GNU_STACK,
    PT_LOAD,
    PT_TLS,
    program_header_type,
    property_name,
)
from loadstone.linux.exec.auxv import AT_BASE, AT_EXECFN, AT_PLATFORM, AT_RANDOM
from loadstone.linux.exec.auxv import name as auxv_name
from loadstone.observe.image import failure_to_dict, section_type
from loadstone.observe.maps import format_maps
from loadstone.report.differing import differing_line
from loadstone.report.discarded import amount
from loadstone.report.paper import DIM, Column, Paper, count

if TYPE_CHECKING:
    from loadstone.errors import LinuxError
    from loadstone.linux.exec.stack import Word
    from loadstone.observe.image import Arithmetic, Image
    from loadstone.observe.object_file import Section

PAGE = 4096
MASK = (1 << 64) - 1

PROCESS_STEPS = (
    "an address space of its own, which is nothing but a page directory",
    "the file's header is read, and virtual memory is connected with the file: VMAs, no pages",
    "the instruction pointer is set to the entry point; pages come when they are touched",
)
LOAD_STEPS = (
    "check the header: magic number, type, machine, number of segments",
    "look for PT_INTERP and find the dynamic linker",
    "map the segments as the program headers say",
    "prepare what the program finds: stack, auxiliary vector, break, vDSO",
    "set the address to which execve returns: the entry point, the interpreter's if there is one",
)

AUXV_MEANING = {
    3: "program headers",
    4: "bytes in each",
    5: "how many",
    6: "bytes in a page",
    7: "the interpreter",
    9: "entry point",
    11: "user, real",
    12: "user, effective",
    13: "group, real",
    14: "group, effective",
    16: "CPUID.1:EDX",
    17: "ticks a second",
    23: "1: set-user-ID",
    26: "CPU features",
    27: "struct rseq, in use",
    28: "its alignment",
    33: "the vDSO",
    51: "least signal stack",
}

REGISTER_NOTES = {
    "rip": "the first instruction",
    "eip": "the first instruction",
    "rsp": "argc is here; divisible by 16",
    "esp": "argc is here; divisible by 16",
    "rdx": "the kernel registers no function with atexit; the dynamic linker will",
    "edx": "the kernel registers no function with atexit; the dynamic linker will",
    "eflags": "interrupts on, the rest off",
    "fcw": "x87: all exceptions masked, extended precision",
    "mxcsr": "SSE: all exceptions masked, round to nearest",
    "cs": "user code segment, ring 3",
    "ss": "user data segment, ring 3",
}


def write_story(image: Image, stream: IO[str], width: int | None = None) -> None:
    """Write the whole story of a successful exec."""
    paper = Paper(stream, width)
    _opening(paper, image)
    if image.aout is not None:
        from loadstone.report import explain_aout

        _stages(paper, image, "load_aout_binary", explain_aout.STEPS)
        explain_aout.write_header(paper, image.aout)
        explain_aout.write_arithmetic(paper, image.aout)
    else:
        _stages(paper, image, "load_elf_binary", LOAD_STEPS)
        _segments_and_sections(paper, image)
        _arithmetic(paper, image)
        _zeros(paper, image)
    _address_space(paper, image)
    _stack(paper, image)
    _registers(paper, image)


def write_failure(error: LinuxError, path: str, stream: IO[str], width: int | None = None) -> None:
    """Write the one paragraph of an exec that fails."""
    facts = failure_to_dict(error)["error"]
    paper = Paper(stream, width)
    how = (
        f"The kernel is past the point of no return by then, so the process is killed by {facts['signal']}."
        if facts["signal"]
        else f"execve returns -1 with errno {facts['errno']}, and the calling process goes on as it was."
    )
    missing = "there is no such file" if error.errno == ENOENT else "the kernel gives no closer reason"
    reason = error.why or missing
    system = str(type(error)(error.errno))
    paper.paragraph(f"{path} cannot be executed: {reason}. {how} {system}.", indent=0)


def _opening(paper: Paper, image: Image) -> None:
    paper.title(f"How execve() loads {image.path}")
    kind = "position-independent (ET_DYN)" if image.position_independent else "at fixed addresses (ET_EXEC)"
    rows = [("format", f"{image.format}, {image.isa}, {'at fixed addresses' if image.aout else kind}")]
    if image.program != image.path:
        rows.append(("mapped file", image.program))
    rows += [
        ("interpreter", image.interpreter or "none: the kernel jumps to the program itself"),
        ("load bias", f"{image.bias:#x}"),
        ("program entry", f"{image.entry:#x}"),
        ("first instruction", f"{image.start:#x}" + (" in the interpreter" if image.interpreter else "")),
        ("program break", f"{image.brk:#x}"),
        ("resident pages", f"{image.resident}, all written by the kernel; the rest comes by page faults"),
    ]
    for name, value in rows:
        paper.line(f"{name:<18} {value}")


def _stages(paper: Paper, image: Image, handler: str, steps: tuple[str, ...]) -> None:
    paper.heading("Creating a process, in three steps")
    for number, text in enumerate(PROCESS_STEPS, 1):
        paper.item(f"{number}.", text)
    paper.heading(f"The five steps of {handler}")
    for number, text in enumerate(steps, 1):
        paper.item(f"{number}.", text)
    paper.heading("What the kernel does, function by function")
    for stage in image.stages:
        paper.line(f"{stage.function:<28} {f'step {stage.step} of 5' if stage.step else ''}".rstrip(), style="bold")
        paper.paragraph(stage.text, indent=4)


def _segments_and_sections(paper: Paper, image: Image) -> None:
    paper.heading("Segments (what the kernel loads) beside sections (what the linker put there)")
    rows = []
    for number, header in enumerate(image.segments):
        inside = [section.name for section in image.sections if _lies_in(section, header)]
        sizes = f"{header.offset:#x} {header.vaddr:#x} {header.filesz:#x} {header.memsz:#x}"
        rows.append(
            (number, program_header_type(header.type), _flags(header.flags), *sizes.split(), " ".join(inside) or "-")
        )
    paper.table(
        [
            Column("#", right=True),
            Column("type", fixed=True),
            Column("flags", fixed=True),
            Column("offset", right=True),
            Column("vaddr", right=True),
            Column("filesz", right=True),
            Column("memsz", right=True),
            Column("sections in it", style=DIM),
        ],
        rows,
    )
    if not image.sections:
        paper.paragraph("The file has no section headers. Nobody misses them: loading goes by segments only.")
        return
    _sections(paper, image)


def _sections(paper: Paper, image: Image) -> None:
    loads = [(number, header) for number, header in enumerate(image.segments) if header.type == PT_LOAD]
    rows = []
    for section in image.sections[1:]:
        home = next((f"LOAD {number}" for number, header in loads if _lies_in(section, header)), "")
        address = f"{section.address:#x}" if section.loaded else ""
        kind = section_type(section.type).removeprefix("SHT_")
        rows.append((section.name, kind, address, f"{section.offset:#x}", f"{section.size:#x}", home))
    paper.blank()
    paper.table(
        [
            Column("section"),
            Column("type", fixed=True),
            Column("address", right=True),
            Column("offset", right=True),
            Column("size", right=True),
            Column("segment", fixed=True),
        ],
        rows,
    )
    unloaded = sum(1 for section in image.sections[1:] if not section.loaded)
    paper.paragraph(
        f"{count(unloaded, 'section')} of {len(image.sections) - 1} belong to no segment and never reach memory.",
        style=DIM,
    )


def _lies_in(section: Section, header: Any) -> bool:
    """Whether a segment covers the section: by address where it is loaded."""
    if not section.number or not section.loaded:
        return bool(
            header.type == PT_TLS
            and section.flags & 0x400
            and header.vaddr <= section.address < header.vaddr + header.memsz
        )
    inside = header.vaddr <= section.address and section.address + section.size <= header.vaddr + header.memsz
    return bool(inside and (section.size or section.address < header.vaddr + header.memsz) and header.memsz)


def _flags(flags: int) -> str:
    return "".join(letter if flags & bit else "-" for bit, letter in ((PF_R, "R"), (PF_W, "W"), (PF_X, "E")))


def _arithmetic(paper: Paper, image: Image) -> None:
    paper.heading("From segment to VMA")
    paper.paragraph(
        "Files are mapped in whole pages, so a segment's address and offset must lie equally far into theirs: "
        "p_vaddr % p_align == p_offset % p_align. The start is rounded down to a page and the end up; what the "
        "rounding takes in is whatever the file has there. p_paddr is ignored."
    )
    for entry in image.arithmetic():
        paper.blank()
        _one_segment(paper, entry)
    odd = [number for number, header in enumerate(image.segments) if header.paddr != header.vaddr]
    if odd:
        paper.paragraph(f"p_paddr differs from p_vaddr in program header {odd[0]}: it makes no difference.")


def _one_segment(paper: Paper, entry: Arithmetic) -> None:
    header, align = entry.header, entry.header.align or 1
    paper.line(f"LOAD {entry.number}  {_flags(header.flags)}", style="bold")
    left, right = header.vaddr % align, header.offset % align
    rest = f"{header.offset:#x} % {align:#x}"
    equal = f"{rest} = {left:#x}" if entry.congruent else f"{left:#x}, but {rest} = {right:#x}"
    paper.line(f"modulo   {header.vaddr:#x} % {align:#x} = {equal}", indent=4)
    address = (header.vaddr + entry.bias) & MASK
    paper.line(f"address  {entry.bias:#x} + {header.vaddr:#x} = {address:#x}", indent=4)
    if header.filesz:
        start, end = entry.start, entry.file_end
        paper.line(
            f"file     {header.offset:#x}..{header.offset + header.filesz:#x}, {amount(header.filesz)}", indent=4
        )
        paper.line(
            f"pages    {start:#x}-{end:#x} from offset {entry.file_offset:#x}: {count((end - start) // PAGE, 'page')}",
            indent=4,
        )
        before, after = address - start, end - address - header.filesz
        paper.line(f"rounding {before:#x} bytes more at the start, {after:#x} more at the end", indent=4)
    if entry.end > entry.file_end:
        paper.line(
            f"zeros    {entry.file_end:#x}-{entry.end:#x}: {count((entry.end - entry.file_end) // PAGE, 'page')} "
            "of anonymous memory, no file behind them",
            indent=4,
        )
    if entry.holds_header:
        paper.paragraph(
            "The ELF header and the program headers are the beginning of this segment.", indent=4, style=DIM
        )


def _zeros(paper: Paper, image: Image) -> None:
    """What .bss costs: a tail zeroed now, pages promised for later."""
    paper.heading("What .bss costs")
    written = False
    for entry in image.arithmetic():
        header = entry.header
        if header.memsz <= header.filesz:
            continue
        written = True
        end = (header.vaddr + header.filesz + entry.bias) & MASK
        wanted = (header.vaddr + header.memsz + entry.bias) & MASK
        tail = min(entry.file_end, (end + PAGE - 1) & -PAGE) - end if header.filesz else 0
        pages = (entry.end - entry.file_end) // PAGE
        paper.paragraph(
            f"LOAD {entry.number}: p_memsz - p_filesz = {header.memsz:#x} - {header.filesz:#x} = "
            f"{amount(header.memsz - header.filesz)} up to {wanted:#x}, none of it in the file."
        )
        if tail and header.flags & PF_W:
            paper.paragraph(
                f"The last page of the file part is zeroed from {end:#x} on, {amount(tail)}: the kernel writes there, "
                "which makes a private copy of that page before the first instruction.",
                indent=4,
            )
        paper.paragraph(
            f"{count(pages, 'page')} of anonymous memory {'is' if pages == 1 else 'are'} promised and cost no frame "
            "until touched."
            if pages
            else "All of it fits into that page: no anonymous memory is needed.",
            indent=4,
        )
    if not written:
        paper.paragraph("Nothing: no segment is larger in memory than in the file.")


def _address_space(paper: Paper, image: Image) -> None:
    paper.heading("The address space before the first instruction")
    for line in format_maps(image.maps).splitlines():
        fields = line.split(None, 5)
        name = fields[5] if len(fields) > 5 else ""
        paper.line(f"{fields[0]} {fields[1]} {fields[2]} {name}".rstrip())
    for number, header in enumerate(image.segments):
        if header.type == PT_GNU_STACK:
            paper.paragraph(
                f"PT_GNU_STACK ({number}) has flags {_flags(header.flags)}: they are the stack's.", style=DIM
            )
        if header.type == PT_GNU_RELRO:
            start = (header.vaddr + image.bias) & MASK & -PAGE
            paper.paragraph(
                f"PT_GNU_RELRO ({number}) is not the kernel's business: the dynamic linker will make "
                f"{start:#x}-{(header.vaddr + image.bias + header.memsz) & MASK & -PAGE:#x} read-only.",
                style=DIM,
            )
        if header.type == PT_GNU_PROPERTY and image.gnu_properties:
            values = [(property_name(kind), int.from_bytes(data, "little")) for kind, data in image.gnu_properties]
            held = ", ".join(f"{name} {value:#x}" for name, value in values)
            paper.paragraph(
                f"PT_GNU_PROPERTY ({number}) holds {held}: an x86 kernel does not look at it, the dynamic linker does.",
                style=DIM,
            )


def _stack(paper: Paper, image: Image) -> None:
    stack = image.stack
    paper.heading("The initial stack, from the stack pointer up")
    paper.paragraph(
        f"{stack.top - stack.pointer} bytes from {stack.pointer:#x} to {stack.top:#x}: argc, argv, envp, the auxiliary "
        "vector, then what they point at."
    )
    strings = _strings(image)
    rows = []
    words = iter(image.layout)
    for word in words:
        if word.what.endswith(" type"):
            value = next(words)
            rows.append(_auxv_row(word, value, strings))
        else:
            rows.append(_word_row(word, strings))
    paper.table(
        [Column("address", fixed=True), Column("bytes", right=True), Column("what", fixed=True), Column("value")], rows
    )
    if image.differing is not None:
        paper.paragraph(differing_line(image.differing))


def _strings(image: Image) -> dict[int, str]:
    """Address -> text of what pointers on the stack lead to."""
    return {
        word.address: str(word.value)
        for word in image.layout
        if word.what.endswith(" string") and isinstance(word.value, str)
    }


def _auxv_row(kind: Word, value: Word, strings: dict[int, str]) -> tuple[object, ...]:
    number = int(kind.value)
    content = int(value.value)
    name = auxv_name(number)
    decimal = number in (4, 5, 6, 11, 12, 13, 14, 17, 23, 27, 28, 51)
    text = str(content) if decimal else f"{content:#x}"
    meaning = AUXV_MEANING.get(number, "")
    if number in (AT_PLATFORM, AT_EXECFN) and content in strings:
        meaning = f"-> {strings[content]!r}"
    if number == AT_BASE and not content:
        meaning = "no interpreter"
    if number == AT_RANDOM:
        meaning = "-> 16 random bytes"
    return f"{kind.address:x}", kind.size + value.size, f"{name} ({number})", f"{text}  {meaning}".rstrip()


def _word_row(word: Word, strings: dict[int, str]) -> tuple[object, ...]:
    value = word.value
    if isinstance(value, str):
        text = f"{value!r}" if word.what.endswith(" string") else _shortened(value)
    elif word.what == "argc":
        text = str(value)
    else:
        target = strings.get(value)
        text = f"{value:#x}" + (f"  -> {target!r}" if target is not None else "")
    return f"{word.address:x}", word.size, word.what, text


def _shortened(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:60]}…"


def _registers(paper: Paper, image: Image) -> None:
    paper.heading("Registers at the first instruction")
    shown = ["rip", "rsp", "rdx", "eflags", "cs", "ss", "fcw", "mxcsr"]
    if image.isa == "i386":
        shown = ["eip", "esp", "edx", "eflags", "cs", "ss", "fcw", "mxcsr"]
    notes = REGISTER_NOTES
    if image.aout is not None:
        shown.remove("edx")
        notes = {**notes, "esp": "argc is here; divisible by 4"}
    rows = [(name, f"{image.registers[name]:#x}", notes.get(name, "")) for name in shown if name in image.registers]
    others = [(name, f"{value:#x}", "") for name, value in image.registers.items() if name not in shown and value]
    paper.table([Column("register", fixed=True), Column("value", right=True), Column("why")], rows + others)
    if image.aout is not None:
        paper.paragraph("The general registers keep what they had when execve was called.")
        return
    paper.paragraph("All others are 0.")
    if image.interpreter:
        paper.paragraph(
            f"The dynamic linker runs first. When it jumps to {image.entry:#x}, RDX holds its _dl_fini, which the "
            "program's _start hands to __libc_start_main; main then gets argc, argv and envp as above: "
            f"RDI {image.argc}, RSI {image.argv:#x}, RDX {image.envp:#x}."
        )
    else:
        paper.paragraph(
            "The program's own _start runs first and sees RDX 0: nothing to register. main then gets argc, argv and "
            f"envp as above: RDI {image.argc}, RSI {image.argv:#x}, RDX {image.envp:#x}."
        )
