"""A case for the verdict on a file: a few small files, described and not stored, and how the first one is executed.

An ELF file is its headers, its size, and the few bytes of its contents that matter (the path in PT_INTERP): everything
that execve looks at. The rest is a pattern without zeros near the start and the ends of segments, so that a cleared
tail can be told from an uncleared one, and holes elsewhere: a file of a gigabyte costs a few pages.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import NamedTuple

from loadstone.binfmt.names import PT_LOAD
from loadstone.binfmt.plan import ElfHeader, ProgramHeader

PAGE = 4096
LARGEST_FILE = 1 << 40  # bytes; a larger one is written with this size
_FILLED = 2 * PAGE  # bytes of pattern at the start
_PATTERN = (bytes(range(1, 256)) * 33)[:_FILLED]

_HEADERS = {64: Struct("<16sHHIQQQIHHHHHH"), 32: Struct("<16sHHIIIIIHHHHHH")}
_WIDTHS = {64: (2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2), 32: (2, 2, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2)}
_ENTRIES = {64: Struct("<IIQQQQQQ"), 32: Struct("<IIIIIIII")}
_ENTRY_WIDTHS = {64: (4, 4, 8, 8, 8, 8, 8, 8), 32: (4,) * 8}


class ElfFile(NamedTuple):
    """An ELF file. `bits` is the layout of the structures that are written, whatever the header claims."""

    name: str
    bits: int
    header: ElfHeader
    entries: tuple[ProgramHeader, ...]
    size: int
    pieces: tuple[tuple[int, bytes], ...] = ()  # (offset, bytes), written last
    table: int = -1  # where the program headers are; -1: at e_phoff
    mode: int = 0o755

    @property
    def table_offset(self) -> int:
        """Where the program headers are written."""
        return self.header.phoff if self.table < 0 else self.table

    def headers(self) -> list[tuple[int, bytes]]:
        """(offset, bytes) of the file header and of the program headers."""
        values = [
            value & (1 << 8 * width) - 1 for value, width in zip(self.header[1:], _WIDTHS[self.bits], strict=True)
        ]
        return [
            (0, _HEADERS[self.bits].pack(self.header.ident, *values)),
            (self.table_offset, b"".join(_packed(entry, self.bits) for entry in self.entries)),
        ]


class TextFile(NamedTuple):
    """A file with these bytes: a script, or anything else that is small."""

    name: str
    data: bytes
    mode: int = 0o755


class Link(NamedTuple):
    """A symbolic link."""

    name: str
    target: str


class Folder(NamedTuple):
    """An empty directory."""

    name: str
    mode: int = 0o755


File = ElfFile | TextFile | Link | Folder


class Case(NamedTuple):
    """Files in a directory of their own, which is the working directory; and an execve.

    Attributes:
        what: one line for a person.
        files: the first is executed, unless `path` says otherwise.
        path: what is executed, "" for the first file's name.
        stack_limit: soft RLIMIT_STACK in bytes, -1 for none; None: the caller's.
        uid: user and group that execute it; None: the caller's.
        busy: files that somebody has open for writing meanwhile.
        noexec: the files are on a file system from which nothing may be executed.
        expected: what is known to come of it on Linux 6.18, as `expect` lines say it; () for nothing.
    """

    what: str
    files: tuple[File, ...]
    argv: tuple[bytes, ...] = (b"x",)
    envp: tuple[bytes, ...] = (b"A=1",)
    path: str = ""
    stack_limit: int | None = None
    uid: int | None = None
    busy: tuple[str, ...] = ()
    noexec: bool = False
    expected: tuple[str, ...] = ()

    @property
    def executed(self) -> str:
        """The path given to execve."""
        return self.path or self.files[0].name


def write(case: Case, directory: str) -> None:
    """Make the case's files in `directory`."""
    for file in case.files:
        path = os.path.join(directory, file.name)
        if isinstance(file, Link):
            os.symlink(file.target, path)
        elif isinstance(file, Folder):
            os.mkdir(path)
            os.chmod(path, file.mode)
        else:
            _write_file(file, path)


def remove(case: Case, directory: str) -> None:
    """Take them away again; what is not there is not missed."""
    for file in reversed(case.files):
        path = os.path.join(directory, file.name)
        try:
            if isinstance(file, Folder):
                os.rmdir(path)
            else:
                os.unlink(path)
        except FileNotFoundError:
            pass


def _write_file(file: ElfFile | TextFile, path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if isinstance(file, TextFile):
            os.write(fd, file.data)
        else:
            _write_elf(file, fd)
        os.fchmod(fd, file.mode)
    finally:
        os.close(fd)


def _write_elf(file: ElfFile, fd: int) -> None:
    """What is past the size is cut off."""
    size = min(file.size, LARGEST_FILE)
    os.ftruncate(fd, size)
    filled = [(0, _FILLED)]
    for entry in file.entries:
        end = entry.offset + entry.filesz
        if entry.type == PT_LOAD and entry.filesz and _FILLED < end <= size:
            filled.append((end & -PAGE, PAGE))
    for offset, length in filled:
        _put(fd, offset, _PATTERN[:length], size)
    for offset, data in (*file.headers(), *file.pieces):
        _put(fd, offset, data, size)


def _put(fd: int, offset: int, data: bytes, size: int) -> None:
    if 0 <= offset < size:
        os.pwrite(fd, data[: size - offset], offset)


def _packed(entry: ProgramHeader, bits: int) -> bytes:
    """A program header; Elf32_Phdr has p_flags last but one, `ProgramHeader` has it second."""
    values = entry if bits == 64 else (entry[0], *entry[2:7], entry.flags, entry.align)
    masked = [value & (1 << 8 * width) - 1 for value, width in zip(values, _ENTRY_WIDTHS[bits], strict=True)]
    return _ENTRIES[bits].pack(*masked)
