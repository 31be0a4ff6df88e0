"""The sections, segments and symbols of one ELF file, for showing only and never trusted.

The reader is our own, not a library's: the files are hostile, and what it does for one is bounded by the constants
below whatever the file says. A file that is not an ELF object is a `NotAnObject`; a table in it that makes no sense is
an empty table.
"""

from __future__ import annotations

import os
import stat
import struct
from bisect import bisect_right

from loadstone.lean import NamedTuple, Protocol

MOST_SECTIONS = 65_536
MOST_SEGMENTS = 4_096
MOST_SYMBOLS = 2_000_000
MOST_STRINGS = 256 << 20  # bytes of one string table
LONGEST_NAME = 1_024  # a longer name is cut
PAGE = 4096

SHT_SYMTAB, SHT_NOBITS, SHT_DYNSYM = 2, 8, 11
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_TLS = 1, 2, 4, 0x400
PT_LOAD = 1
STT_OBJECT, STT_FUNC, STT_TLS, STT_GNU_IFUNC = 1, 2, 6, 10
_NAMED_TYPES = frozenset((0, STT_OBJECT, STT_FUNC, STT_GNU_IFUNC))
_KINDS = {STT_OBJECT: "object", STT_FUNC: "function", STT_GNU_IFUNC: "function"}


class NotAnObject(Exception):  # noqa: N818 - a finding about a file, not a failure of ours
    """The file is no ELF object this reader understands; the message says why."""


class Source(Protocol):
    """Bytes that can be read at an offset; a read past the end gives fewer bytes."""

    @property
    def size(self) -> int:
        """Bytes there are."""

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""


class BytesSource:
    """A `Source` over bytes: a vDSO read from memory, a test's file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        return self._data[offset : offset + length]


class FileSource:
    """A `Source` over a regular file of the host; never opens anything else. Raises NotAnObject."""

    def __init__(self, path: str) -> None:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise NotAnObject(f"{path} is not a regular file")
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise NotAnObject(str(error)) from error
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        try:
            return os.pread(self._fd, min(length, self.size), offset) if offset < self.size else b""
        except OSError:
            return b""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Section(NamedTuple):
    """One section header. `address` is as linked, before any load bias; 0 for what is not loaded."""

    number: int
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    entry_size: int

    @property
    def file_size(self) -> int:
        """Bytes of the file that the section takes: none for `.bss`."""
        return 0 if self.type == SHT_NOBITS else self.size

    @property
    def loaded(self) -> bool:
        """Whether it has a place in memory (SHF_ALLOC), thread-local templates of zeros excepted."""
        return bool(self.flags & SHF_ALLOC) and not (self.flags & SHF_TLS and self.type == SHT_NOBITS)


class LoadSegment(NamedTuple):
    """One PT_LOAD header."""

    number: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


class Symbol(NamedTuple):
    """A defined symbol. `address` is as linked; `kind` is function, object or "" (a label)."""

    address: int
    size: int
    name: str
    kind: str


class ObjectFile:
    """What one ELF file says of itself.

    Attributes:
        bits: 32 or 64.
        relocatable: whether it is ET_DYN: linked at 0 and moved when loaded.
        sections, segments: as in the file; empty when it has none, or none that can be read.
        symbols: by address; of several at one address the one that names it best comes last.
    """

    def __init__(self, source: Source) -> None:
        head = source.read(0, 64)
        if len(head) < 52 or head[:4] != b"\x7fELF":
            raise NotAnObject("it does not begin with the ELF magic number")
        if head[4] not in (1, 2) or head[5] not in (1, 2):
            raise NotAnObject(f"its class {head[4]} or byte order {head[5]} is unknown")
        self.bits = 32 * head[4]
        self._order = "<" if head[5] == 1 else ">"
        layout = struct.Struct(self._order + ("HHIQQQIHHHHHH" if self.bits == 64 else "HHIIIIIHHHHHH"))
        if len(head) < 16 + layout.size:
            raise NotAnObject("its ELF header is cut off")
        (kind, self.machine, _, self.entry, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx) = (
            layout.unpack_from(head, 16)
        )
        self.relocatable = kind == 3
        self.segments = self._read_segments(source, phoff, phentsize, phnum)
        self.sections = self._read_sections(source, shoff, shentsize, shnum, shstrndx)
        self.symbols = self._read_symbols(source)
        self._addresses = [symbol.address for symbol in self.symbols]
        self._by_name: dict[str, Symbol] | None = None

    # -- lookups ------------------------------------------------------------------------------------------------------

    def symbol_at(self, address: int) -> Symbol | None:
        """The symbol that covers the linked `address`, or a label without a size before it in the same section."""
        at = bisect_right(self._addresses, address)
        section = self.section_at(address)
        for index in range(at - 1, max(at - 17, -1), -1):  # sizes may nest: look a little further back
            symbol = self.symbols[index]
            if symbol.address + symbol.size > address or symbol.address == address:
                return symbol
            if symbol.size == 0 and section and section.address <= symbol.address:
                return symbol
        return None

    def symbol_named(self, name: str) -> Symbol | None:
        """The symbol `name`; a version suffix (`memcpy@GLIBC_2.14`) is not part of names here."""
        if self._by_name is None:
            self._by_name = {}
            for symbol in self.symbols:  # later ones, which name an address better, win only over lesser kinds
                known = self._by_name.get(symbol.name)
                if known is None or (not known.kind and symbol.kind):
                    self._by_name[symbol.name] = symbol
        return self._by_name.get(name)

    def section_at(self, address: int) -> Section | None:
        """The loaded section whose linked range contains `address`."""
        for section in self.sections:
            if section.loaded and section.address <= address < section.address + section.size:
                return section
        return None

    def section_at_offset(self, offset: int) -> Section | None:
        """The section whose bytes in the file contain `offset`."""
        for section in self.sections:
            if section.number and section.offset <= offset < section.offset + section.file_size:
                return section
        return None

    def segment_at(self, address: int) -> LoadSegment | None:
        """The PT_LOAD whose memory contains the linked `address`."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.memory_size:
                return segment
        return None

    def segment_at_offset(self, offset: int) -> LoadSegment | None:
        """The PT_LOAD whose bytes in the file contain `offset`."""
        for segment in self.segments:
            if segment.offset <= offset < segment.offset + segment.file_size:
                return segment
        return None

    def offset_of(self, address: int) -> int | None:
        """The file offset behind the linked `address`; None where memory has no file behind it (`.bss`)."""
        segment = self.segment_at(address)
        if segment is None or address - segment.address >= segment.file_size:
            return None
        return address - segment.address + segment.offset

    def address_of(self, offset: int) -> int | None:
        """The linked address at which the byte at `offset` is loaded; None when no segment takes it along."""
        segment = self.segment_at_offset(offset)
        return None if segment is None else offset - segment.offset + segment.address

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read_segments(self, source: Source, offset: int, entry: int, count: int) -> tuple[LoadSegment, ...]:
        layout = struct.Struct(self._order + ("IIQQQQQQ" if self.bits == 64 else "IIIIIIII"))
        if entry < layout.size:
            return ()
        found = []
        for index, row in enumerate(_rows(source, offset, entry, min(count, MOST_SEGMENTS), layout)):
            if row[0] != PT_LOAD:
                continue
            if self.bits == 64:
                _, flags, start, address, _, file_size, memory_size, _ = row
            else:
                _, start, address, _, file_size, memory_size, flags, _ = row
            found.append(LoadSegment(index, flags, start, address, file_size, memory_size))
        return tuple(found)

    def _read_sections(
        self, source: Source, offset: int, entry: int, count: int, names_index: int
    ) -> tuple[Section, ...]:
        layout = struct.Struct(self._order + ("IIQQQQIIQQ" if self.bits == 64 else "IIIIIIIIII"))
        if not offset or entry < layout.size:
            return ()
        rows = _rows(source, offset, entry, min(count, MOST_SECTIONS) or 1, layout)
        if not rows:
            return ()
        if not count:  # more than fit into e_shnum: the first header's size says how many
            rows = _rows(source, offset, entry, min(rows[0][5], MOST_SECTIONS), layout)
        if names_index == 0xFFFF and rows:
            names_index = rows[0][6]
        names = b""
        if names_index < len(rows):
            names = source.read(rows[names_index][4], min(rows[names_index][5], MOST_STRINGS))
        return tuple(
            Section(index, _string(names, row[0]), row[1], row[2], row[3], row[4], row[5], row[6], row[9])
            for index, row in enumerate(rows)
        )

    def _read_symbols(self, source: Source) -> list[Symbol]:
        found: dict[tuple[int, str], Symbol] = {}
        ranked = []
        # The full table before the dynamic one, which is a part of it in a file that was not stripped.
        for wanted in (SHT_SYMTAB, SHT_DYNSYM):
            for section in self.sections:
                if section.type == wanted and len(found) < MOST_SYMBOLS:
                    for rank, symbol in self._table(source, section):
                        if (symbol.address, symbol.name) not in found:
                            found[symbol.address, symbol.name] = symbol
                            ranked.append((symbol.address, rank, symbol))
        ranked.sort(key=_address_and_rank)
        return [symbol for _, _, symbol in ranked]

    def _table(self, source: Source, section: Section) -> list[tuple[int, Symbol]]:
        wide = self.bits == 64
        layout = struct.Struct(self._order + ("IBBHQQ" if wide else "IIIBBH"))
        if section.link >= len(self.sections):
            return []
        table = self.sections[section.link]
        strings = source.read(table.offset, min(table.size, MOST_STRINGS))
        count = min(section.size // layout.size, MOST_SYMBOLS, max(0, source.size - section.offset) // layout.size)
        data = source.read(section.offset, count * layout.size)
        found = []
        for row in layout.iter_unpack(data[: len(data) // layout.size * layout.size]):
            if wide:
                name, info, _, where, address, size = row
            else:
                name, address, size, info, _, where = row
            kind = info & 15
            # 0 is undefined; from 0xFFF1 on absolute or common: neither is a place in this object
            if not where or where >= 0xFFF1 or not name or kind not in _NAMED_TYPES:
                continue
            text = _string(strings, name)
            if text:
                # Prefer typed over labels, sized over not, global over weak over local, no leading underscores.
                rank = (4 if kind else 0) + (8 if size else 0) + (info >> 4 == 1) * 2 + (not text.startswith("_"))
                found.append((rank, Symbol(address, size, text, _KINDS.get(kind, ""))))
        return found


def _address_and_rank(entry: tuple[int, int, Symbol]) -> tuple[int, int]:
    return entry[0], entry[1]


def _rows(source: Source, offset: int, entry: int, count: int, layout: struct.Struct) -> list[tuple[int, ...]]:
    """At most `count` headers of `entry` bytes each, as far as the file has them whole."""
    count = min(count, max(0, source.size - offset) // entry)
    data = source.read(offset, count * entry)
    return [layout.unpack_from(data, at) for at in range(0, len(data) - layout.size + 1, entry)]


def _string(table: bytes, offset: int) -> str:
    if offset >= len(table):
        return ""
    end = table.find(b"\0", offset, offset + LONGEST_NAME)
    return os.fsdecode(table[offset : end if end >= 0 else offset + LONGEST_NAME])


def read_object(path: str) -> ObjectFile | None:
    """The object in the host's file `path`, None when it is not there or not an ELF object."""
    try:
        with FileSource(path) as source:
            return ObjectFile(source)
    except NotAnObject:
        return None
