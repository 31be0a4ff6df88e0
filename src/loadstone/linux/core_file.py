"""The bytes of an ELF core file for x86-64, as fs/binfmt_elf.c (elf_core_dump) lays them out.

ELF header, program headers (PT_NOTE, then a PT_LOAD for each mapping)
notes: PRSTATUS PRPSINFO SIGINFO AUXV FILE, FPREGSET and X86_XSTATE of the thread that died, then PRSTATUS,
    FPREGSET and X86_XSTATE of each other thread
from the next page boundary on: the contents of the mappings, as far as they are dumped
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.machine.core import FXSAVE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = 4096
ET_CORE, EM_X86_64, PT_LOAD, PT_NOTE = 4, 62, 1, 4

# include/uapi/linux/elf.h; the first six belong to "CORE", the last to "LINUX"
NT_PRSTATUS, NT_FPREGSET, NT_PRPSINFO, NT_AUXV, NT_SIGINFO, NT_FILE, NT_X86_XSTATE = (
    1, 2, 3, 6, 0x53494749, 0x46494C45, 0x202,
)  # fmt: skip

_EHDR = Struct("<16sHHIQQQIHHHHHH")
_PHDR = Struct("<IIQQQQQQ")
_NOTE = Struct("<III")
_WORDS = Struct("<QQ")
_FILE_ROW = Struct("<QQQ")
# struct elf_prstatus: signal number, code, errno; pr_cursig; pending and blocked signals; pid, ppid, pgrp, sid;
# user, system, and the children's user and system time (s, us); registers; whether NT_FPREGSET is valid
_PRSTATUS = Struct("<3ih2xQQ4i8q27Qi4x")
# struct elf_prpsinfo: state (number, letter), zombie?, nice; flags; uid, gid; pid, ppid, pgrp, sid; comm; command
_PRPSINFO = Struct("<BcBb4xQ2I4i16s80s")

# struct user_regs_struct
REGISTERS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_XSTATE_FEATURES = 464  # where debuggers look for XCR0 in an XSAVE image (struct xstate_fx_sw_bytes)


class Segment(NamedTuple):
    """A mapping in the core file: `[start, end)`, of which the first `dumped` bytes are in the file."""

    start: int
    end: int
    prot: int  # READ 1, WRITE 2, EXEC 4, as mmap(2) has them
    dumped: int


class Ids(NamedTuple):
    """Numbers of a thread and its process, as both status notes have them."""

    pid: int
    ppid: int
    pgrp: int
    sid: int


class Note(NamedTuple):
    """One note, before it is padded."""

    kind: int
    content: bytes

    @property
    def owner(self) -> bytes:
        """Whose kinds of notes it belongs to, with its NUL."""
        return b"LINUX\0" if self.kind == NT_X86_XSTATE else b"CORE\0"


def status_note(
    signal: int, pending: int, blocked: int, ids: Ids, times_us: Sequence[int], registers: Sequence[int]
) -> Note:
    """NT_PRSTATUS. `times_us`: user, system, children's user, children's system time; `registers` as REGISTERS."""
    times = [part for time in times_us for part in divmod(time, 1_000_000)]
    return Note(NT_PRSTATUS, _PRSTATUS.pack(signal, 0, 0, signal, pending, blocked, *ids, *times, *registers, 1))


def process_note(flags: int, nice: int, uid: int, gid: int, ids: Ids, name: bytes, command: bytes) -> Note:
    """NT_PRPSINFO of a running process; `name` is comm, `command` the argument area."""
    words = command[:79].replace(b"\0", b" ")
    return Note(NT_PRPSINFO, _PRPSINFO.pack(0, b"R", 0, nice, flags, uid, gid, *ids, name[:15], words))


def files_note(rows: Sequence[tuple[int, int, int, bytes]]) -> Note:
    """NT_FILE: start, end, byte offset and path of each mapped file; the offset is told in pages."""
    content = _WORDS.pack(len(rows), PAGE)
    content += b"".join([_FILE_ROW.pack(start, end, offset // PAGE) for start, end, offset, _ in rows])
    return Note(NT_FILE, content + b"".join([path + b"\0" for *_, path in rows]))


def state_notes(image: bytes, features: int) -> list[Note]:
    """NT_FPREGSET, and with a CPU that has XSAVE NT_X86_XSTATE, from a FXSAVE or uncompacted XSAVE image."""
    plain = bytearray(image[:FXSAVE_SIZE])
    plain[_XSTATE_FEATURES:] = bytes(FXSAVE_SIZE - _XSTATE_FEATURES)
    found = [Note(NT_FPREGSET, bytes(plain))]
    if len(image) <= FXSAVE_SIZE:
        return found
    extended = plain + image[FXSAVE_SIZE:]
    extended[_XSTATE_FEATURES : _XSTATE_FEATURES + 8] = features.to_bytes(8, "little")
    return [*found, Note(NT_X86_XSTATE, bytes(extended))]


def headers(notes: Sequence[Note], segments: Sequence[Segment]) -> tuple[list[tuple[int, bytes]], int]:
    """What comes before the contents, as (offset, bytes) of each piece that the kernel writes at once, without padding;
    and the offset of the contents."""
    count = len(segments) + 1
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    start = _EHDR.size + count * _PHDR.size
    table = _note_pieces(notes, start)
    end = _aligned(table[-1][0] + len(table[-1][1]), 4)
    offset = contents = _aligned(end, PAGE)
    pieces = [
        (0, _EHDR.pack(ident, ET_CORE, EM_X86_64, 1, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, count, 0, 0, 0)),
        (_EHDR.size, _PHDR.pack(PT_NOTE, 0, start, 0, 0, end - start, 0, 4)),
    ]
    for number, segment in enumerate(segments, 1):
        flags = (segment.prot & 1) << 2 | segment.prot & 2 | (segment.prot & 4) >> 2
        memory = segment.end - segment.start
        header = _PHDR.pack(PT_LOAD, flags, offset, segment.start, 0, segment.dumped, memory, PAGE)
        pieces.append((_EHDR.size + number * _PHDR.size, header))
        offset += segment.dumped
    return pieces + table, contents


def _note_pieces(notes: Sequence[Note], offset: int) -> list[tuple[int, bytes]]:
    """Header, owner and content of each note; owner and content begin at multiples of four."""
    pieces = []
    for note in notes:
        pieces.append((offset, _NOTE.pack(len(note.owner), len(note.content), note.kind)))
        pieces.append((offset + _NOTE.size, note.owner))
        offset = _aligned(offset + _NOTE.size + len(note.owner), 4)
        pieces.append((offset, note.content))
        offset = _aligned(offset + len(note.content), 4)
    return pieces


def _aligned(offset: int, to: int) -> int:
    return (offset + to - 1) // to * to
