"""a.out for i386, with the verdicts and numbers of load_aout_binary (fs/binfmt_aout.c and, in 64-bit kernels,
arch/x86/ia32/ia32_aout.c, both as of Linux 4.19; `<linux/a.out.h>`, `man 5 a.out`). Linux 5.19 dropped the format.

The file begins with `struct exec`, eight words of 32 bits:

    a_info    low 16 bits the magic number, then the machine type (100: i386), then flags
    a_text, a_data, a_bss     bytes of the three segments
    a_syms, a_entry, a_trsize, a_drsize     symbols, entry point, relocations of text and of data

Where the text lies follows from the magic number alone: OMAGIC and NMAGIC behind the header, ZMAGIC at 1024, QMAGIC at
0, with the header as its first bytes; in memory at 0, QMAGIC's at 4096.
"""

from __future__ import annotations

from errno import ENOEXEC
from struct import Struct
from typing import Final

from loadstone.binfmt.plan import AoutHeader, AoutPlan, Source
from loadstone.binfmt.rules import DEFAULT_RULES, FormatRules
from loadstone.errors import LinuxError

OMAGIC: Final = 0o407
NMAGIC: Final = 0o410
ZMAGIC: Final = 0o413
QMAGIC: Final = 0o314
MAGIC_NAMES: Final = {OMAGIC: "OMAGIC", NMAGIC: "NMAGIC", ZMAGIC: "ZMAGIC", QMAGIC: "QMAGIC"}

PAGE: Final = 4096
_HEADER = Struct("<8I")
_ZMAGIC_OFFSET: Final = 1024  # _N_HDROFF and the header
_MASK32: Final = 0xFFFF_FFFF


def plan_aout(head: bytes, source: Source, rules: FormatRules = DEFAULT_RULES) -> AoutPlan:
    """Plan an a.out program.

    Raises:
        LinuxError: ENOEXEC; without a sentence when the magic number is none of a.out's.
    """
    header = AoutHeader(*_HEADER.unpack_from(head))
    magic = header.info & 0xFFFF
    if magic not in MAGIC_NAMES:
        raise LinuxError(ENOEXEC)
    if header.trsize or header.drsize:
        raise LinuxError(ENOEXEC, f"an a.out file ({MAGIC_NAMES[magic]}) with relocations: it is not linked yet")
    offset = {ZMAGIC: _ZMAGIC_OFFSET, QMAGIC: 0}.get(magic, _HEADER.size)
    # The sum of the sizes is one of 32 bits; the offset is added to it with 64.
    needed = (header.text + header.data + header.syms & _MASK32) + offset
    if source.size < needed:
        raise LinuxError(ENOEXEC, f"an a.out file that should have {needed} bytes and has {source.size}")
    text = PAGE if magic == QMAGIC else 0
    end = text + header.text
    if magic != OMAGIC:
        end = -(-end // rules.aout_segment) * rules.aout_segment
    return AoutPlan(
        header=header,
        magic=magic,
        text_offset=offset,
        text_address=text,
        data_address=end,
        bss_address=end + header.data,
    )
