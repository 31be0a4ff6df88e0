"""What is particular to a.out in the story of an exec: its header, and how that becomes VMAs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.binfmt.aout import MAGIC_NAMES, OMAGIC, QMAGIC, ZMAGIC
from loadstone.report.paper import Column, Paper

if TYPE_CHECKING:
    from loadstone.binfmt.plan import AoutPlan

PAGE = 4096
_I386 = 100  # M_386

STEPS = (
    "check the header: magic number, no relocations, the file is as long as its segments say",
    "no interpreter is looked for: the format knows none",
    "map text and data from the file, or copy them where the file's offset is inside a page",
    "prepare what the program finds: stack, break; neither auxiliary vector nor vDSO",
    "set the address to which execve returns: a_entry",
)


def write_header(paper: Paper, plan: AoutPlan) -> None:
    """The eight words of struct exec, and what the macros of <linux/a.out.h> make of them."""
    header = plan.header
    machine = header.info >> 16 & 0xFF
    kind = "M_386" if machine == _I386 else "not looked at"
    paper.heading("The header: struct exec, eight words of 32 bits")
    rows: list[tuple[object, ...]] = [
        ("a_info", f"{header.info:#010x}", f"{MAGIC_NAMES[plan.magic]} ({plan.magic:#o}); machine {machine} ({kind})"),
        ("a_text", f"{header.text:#x}", "bytes of code"),
        ("a_data", f"{header.data:#x}", "bytes of initialised data, right behind the code in the file"),
        ("a_bss", f"{header.bss:#x}", "bytes of zeros, not in the file"),
        ("a_syms", f"{header.syms:#x}", "bytes of symbols; they only have to be there"),
        ("a_entry", f"{header.entry:#x}", "the first instruction"),
        ("a_trsize", f"{header.trsize:#x}", "relocations of the code: none in a program"),
        ("a_drsize", f"{header.drsize:#x}", "relocations of the data: none in a program"),
    ]
    paper.table([Column("word", fixed=True), Column("value", right=True), Column("meaning")], rows)


def write_arithmetic(paper: Paper, plan: AoutPlan) -> None:
    """From the header to the VMAs."""
    header, end = plan.header, plan.text_address + plan.header.text
    paper.heading("From the header to VMAs")
    where = {QMAGIC: "the header is the first bytes of the text", ZMAGIC: "the header has a block of its own"}
    paper.line(f"N_TXTOFF   {plan.text_offset}  ({where.get(plan.magic, 'right behind the header')})")
    why = "the first page stays unmapped, so that null pointers fault" if plan.text_address else "the very first page"
    paper.line(f"N_TXTADDR  {plan.text_address:#x}  ({why})")
    rounding = "not rounded" if plan.magic == OMAGIC else "rounded up to SEGMENT_SIZE"
    paper.line(f"N_DATADDR  {plan.data_address:#x}  ({plan.text_address:#x} + {header.text:#x} = {end:#x}, {rounding})")
    paper.line(f"N_BSSADDR  {plan.bss_address:#x}  ({plan.data_address:#x} + {header.data:#x})")
    paper.line(f"break      {plan.brk:#x}  ({plan.bss_address:#x} + {header.bss:#x})")
    paper.blank()
    if plan.mapped:
        paper.paragraph(
            f"Text and data begin at multiples of the page size ({PAGE}) in the file, so they are mapped: text r-x, "
            "data rwx and private. Pages come by page faults."
        )
        return
    paper.paragraph(
        f"N_TXTOFF is inside a page ({plan.text_offset} % {PAGE} = {plan.text_offset % PAGE}), so nothing is mapped: "
        "text and data are read at exec, as one piece, into anonymous memory. All its pages are resident from then on."
    )
    if plan.data_address != end:
        paper.paragraph(
            f"The kernel copies the data right behind the text, to {end:#x}, although N_DATADDR "
            f"is {plan.data_address:#x}: a program whose text does not end on a page looks for its data elsewhere."
        )
    paper.paragraph(
        "Anonymous memory is not executable, and the handler does not set READ_IMPLIES_EXEC: on a CPU with NX the "
        "first instruction is a SIGSEGV, unless the kernel was booted with noexec32=off."
    )
