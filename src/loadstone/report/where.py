"""`where`, drawn: file offset, section, segment, VMA, page, page tables, frame, and who else has the frame."""

from __future__ import annotations

from typing import IO

from loadstone.machine.paging import PRESENT, PROTNONE, USER_END
from loadstone.observe.where import PAGE, Answer, bits
from loadstone.report.paper import DIM, Column, Paper, count

MOST_OTHERS = 20
_LABEL = 10


def write_answers(answers: list[Answer], moment: str, stream: IO[str], width: int | None = None) -> None:
    """Draw each answer; several when one page of a file is mapped more than once."""
    paper = Paper(stream, width)
    for number, answer in enumerate(answers):
        if number:
            paper.blank()
        _one(paper, answer, moment)
    if len(answers) > 1:
        frames = {answer.frame for answer in answers if answer.frame >= 0}
        paper.blank()
        shared = "one frame behind all of them" if len(frames) == 1 else f"{count(len(frames), 'frame')} behind them"
        paper.paragraph(f"The byte is mapped at {len(answers)} addresses; {shared}.", indent=0)


def _one(paper: Paper, answer: Answer, moment: str) -> None:
    where = f"{answer.address:#x}" if answer.address is not None else "not in memory"
    name = f" = {answer.name}" if answer.name and answer.name != answer.query else ""
    paper.title(f"{answer.query}{name}: {where}, {moment}")
    _file(paper, answer)
    if answer.address is None:
        _row(paper, "VMA", "none: no segment takes this part of the file along, so no page of it is ever mapped")
        return
    _vma(paper, answer)
    _page_tables(paper, answer)
    _frame(paper, answer)


def _row(paper: Paper, label: str, text: str, style: str = "") -> None:
    paper.line(f"{label:<{_LABEL}}{text}", style=style)


def _file(paper: Paper, answer: Answer) -> None:
    if answer.file_offset is not None:
        _row(paper, "file", f"{answer.path}, offset {answer.file_offset:#x}")
    else:
        _row(paper, "file", "none behind it")
    section, segment = answer.section, answer.segment
    if section is not None:
        start = section.address if answer.linked is not None and section.loaded else section.offset
        here = answer.linked if answer.linked is not None and section.loaded else answer.file_offset
        inside = f", {here - start:#x} into it" if here is not None else ""
        _row(paper, "section", f"{section.name} ({section.size:#x} bytes at offset {section.offset:#x}){inside}")
    elif segment is not None:
        _row(paper, "section", "none: between sections, or the file has no section headers")
    if segment is not None:
        flags = "".join(letter if segment.flags & bit else "-" for bit, letter in ((4, "R"), (2, "W"), (1, "E")))
        linked = f", {answer.linked - segment.address:#x} into it" if answer.linked is not None else ""
        text = f"LOAD {segment.number} {flags}, offset {segment.offset:#x}, p_vaddr {segment.address:#x}, "
        _row(paper, "segment", f"{text}p_filesz {segment.file_size:#x}, p_memsz {segment.memory_size:#x}{linked}")
        if answer.linked is not None and answer.linked - segment.address >= segment.file_size:
            _row(paper, "", "past p_filesz: zeros, not bytes of the file (.bss)")
    if answer.linked is not None and answer.address is not None:
        _row(paper, "address", f"{answer.linked:#x} as linked + {answer.bias:#x} load bias = {answer.address:#x}")


def _vma(paper: Paper, answer: Answer) -> None:
    mapping, address = answer.mapping, answer.address
    if address is None:
        return
    if mapping is None:
        _row(paper, "VMA", "none: an access is SIGSEGV (SEGV_MAPERR)")
        return
    name = mapping.path or "anonymous"
    _row(paper, "VMA", f"{mapping.start:x}-{mapping.end:x} {mapping.perms} {mapping.offset:08x} {name}")
    page = address & -PAGE
    number = (page - mapping.start) // PAGE
    _row(
        paper, "page", f"{page:#x}, page {number} of {mapping.size // PAGE} in the VMA; byte {address - page:#x} of it"
    )


def _page_tables(paper: Paper, answer: Answer) -> None:
    if answer.address is None:
        return
    if answer.address >= USER_END:
        _row(paper, "tables", "not in the process's own page tables: the kernel's half")
        return
    rows = []
    for level in answer.levels:
        marks = [name if on else "-" for name, on in bits(level.entry)]
        points = f"{(level.entry & 0x000F_FFFF_FFFF_F000) >> 12}" if level.entry else ""
        rows.append((level.level, level.table, level.slot, f"{level.entry:016x}", *marks, points))
    names = [Column(name, fixed=True) for name in ("P", "RW", "US", "A", "D", "NX")]
    paper.blank()
    paper.table(
        [
            Column("level", fixed=True),
            Column("frame", right=True),
            Column("index", right=True),
            Column("entry", fixed=True),
            *names,
            Column("points at", right=True),
        ],
        rows,
    )
    paper.blank()


def _frame(paper: Paper, answer: Answer) -> None:
    if answer.address is None or answer.address >= USER_END:
        return
    if answer.frame < 0:
        _row(paper, "frame", _promise(answer))
        return
    leaf = answer.levels[-1].entry
    kept = "; nobody may touch it (PROT_NONE)" if leaf & PROTNONE and not leaf & PRESENT else ""
    references = count(answer.references, "reference")
    _row(paper, "frame", f"{answer.frame} (physical {answer.frame << 12:#x}), {answer.owner}, {references}{kept}")
    if answer.byte is not None:
        _row(paper, "byte", f"{answer.byte:#04x}")
    if answer.owner == "page cache":
        _row(paper, "also", "the page cache holds it as a page of the file")
    elif answer.owner == "anonymous" and answer.file_offset is not None:
        _row(paper, "", "a private copy: written to, and no longer the file's page")
    if answer.owner == "zero":
        _row(paper, "also", "everybody who has read, and not yet written, untouched anonymous memory")
        return
    for other in answer.others[:MOST_OTHERS]:
        name = f" in {other.mapping.perms} {other.mapping.path or 'anonymous'}" if other.mapping else ""
        _row(paper, "also", f"process {other.pid} at {other.address:#x}{name}")
    left = len(answer.others) - MOST_OTHERS
    if left > 0:
        _row(paper, "also", f"{left} more")
    if not answer.others and answer.owner != "page cache":
        _row(paper, "also", "nobody else maps it", style=DIM)


def _promise(answer: Answer) -> str:
    """What the first touch will bring."""
    mapping = answer.mapping
    if mapping is None:
        return "none"
    if mapping.perms[:3] == "---":
        return "none, and never one: the mapping allows no access"
    if answer.file_offset is not None:
        page = answer.file_offset & -PAGE
        return f"none yet: the first touch is a page fault, answered from offset {page:#x} of the file"
    return "none yet: the first read maps the zero frame, the first write a frame of its own"
