"""Cases as text: what is printed when two verdicts differ is what the corpus keeps, and can be read back.

    case the first segment's p_filesz is larger than its p_memsz
    exec argv "x" envp "A=1"
    elf64 "prog" size=0x3000
      header type=EXEC machine=X86_64 entry=0x400800 phoff=0x40 phentsize=56 phnum=2
      LOAD r-x offset=0x0 vaddr=0x400000 filesz=0x1001 memsz=0x1000 align=0x1000
      INTERP r-- offset=0x900 vaddr=0x900 filesz=0x1c memsz=0x1c align=0x1
      at 0x900 "/lib64/ld-linux-x86-64.so.2\\x00"
    text "script" mode=0644 "#!/bin/sh\\n"
    link "loop" "loop"
    folder "directory"
    expect image
    expect map 0x400000-0x402000 r-xp prog

What is left out has the value of a plain file. Numbers are decimal, 0x..., or 0... for modes; strings are Python's.
"""

from __future__ import annotations

import ast
import os
import re
from typing import Any

from loadstone.binfmt.names import FILE_TYPES, PROGRAM_HEADER_TYPES
from loadstone.binfmt.plan import ElfHeader, ProgramHeader
from loadstone.verify.case import Case, ElfFile, File, Folder, Link, TextFile

_IDENT = {bits: bytes([0x7F, 0x45, 0x4C, 0x46, 2 if bits == 64 else 1, 1, 1]).ljust(16, b"\0") for bits in (32, 64)}
_SIZES = {64: (64, 56), 32: (52, 32)}
_MACHINE = {64: 62, 32: 3}
_MACHINE_NAMES = {62: "X86_64", 3: "386", 6: "486"}
_TYPES = {name: number for number, name in FILE_TYPES.items()}
_MACHINES = {name: number for number, name in _MACHINE_NAMES.items()}
_ENTRY_TYPES = {name: number for number, name in PROGRAM_HEADER_TYPES.items()}
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"]+="(?:[^"\\]|\\.)*"|\S+')
_EXEC = {"argv": b"x", "envp": b"A=1"}


class CaseError(ValueError):
    """A line that says nothing that can be understood; the message quotes it."""


def plain_header(bits: int, **fields: Any) -> ElfHeader:
    """The header of an ordinary program of that size, with `fields` changed."""
    size, entry = _SIZES[bits]
    header = ElfHeader(_IDENT[bits], 2, _MACHINE[bits], 1, 0, size, 0, 0, size, entry, 0, 0, 0, 0)
    return header._replace(**fields)


def render(case: Case) -> str:
    """The case as text, one line a thing, ending with a newline."""
    lines = [f"case {case.what}", _render_exec(case)]
    for file in case.files:
        lines += _render_file(file)
    lines += [f"expect {line}" for line in case.expected]
    return "\n".join(lines) + "\n"


def parse(text: str) -> Case:
    """The case that `text` describes; lines that begin with # are comments. Raises CaseError."""
    what = ""
    files: list[File] = []
    expected: list[str] = []
    execution: dict[str, Any] = {}
    for line in text.splitlines():
        words = _WORD.findall(line)
        if not words or words[0].startswith("#"):
            continue
        try:
            if words[0] == "case":
                what = line.strip()[5:]
            elif words[0] == "exec":
                execution = _parse_exec(words[1:])
            elif words[0] == "expect":
                expected.append(" ".join(words[1:]))
            elif line[0].isspace():
                files[-1] = _parse_part(files[-1], words)
            else:
                files.append(_parse_file(words))
        except (ValueError, KeyError, IndexError, SyntaxError, TypeError) as error:
            raise CaseError(f"{line.strip()!r}: {error}") from None
    if not files:
        raise CaseError("the case has no file")
    for number, file in enumerate(files):
        if isinstance(file, ElfFile) and file.header.phnum < 0:
            files[number] = file._replace(header=file.header._replace(phnum=len(file.entries)))
    return Case(what, tuple(files), expected=tuple(expected), **execution)


def parse_all(text: str) -> list[Case]:
    """The cases of a file: each begins with a `case` line."""
    parts = re.split(r"(?m)^(?=case )", text)
    return [parse(part) for part in parts if part.startswith("case ")]


def quoted(data: bytes) -> str:
    """Bytes as a string between double quotes, all of it ASCII."""
    text = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" if byte != 10 else "\\n"
        for byte in data
    )
    return f'"{text}"'


def unquoted(word: str) -> bytes:
    """The bytes of a quoted string."""
    value = ast.literal_eval("b" + word)
    assert isinstance(value, bytes)
    return value


def _render_exec(case: Case) -> str:
    words = ["exec"]
    if case.path:
        words.append(f"path={quoted(os.fsencode(case.path))}")
    if case.stack_limit is not None:
        words.append(f"stack-limit={case.stack_limit}")
    if case.uid is not None:
        words.append(f"uid={case.uid}")
    words += [f"busy={quoted(os.fsencode(name))}" for name in case.busy]
    words += ["noexec=1"] * case.noexec
    for name, strings in (("argv", case.argv), ("envp", case.envp)):
        words += [name, *map(quoted, strings)]
    return " ".join(words)


def _parse_exec(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    strings: list[bytes] | None = None
    for word in words:
        if word in _EXEC:
            strings = []
            found[word] = strings
        elif word.startswith('"') and strings is not None:
            strings.append(unquoted(word))
        else:
            key, _, value = word.partition("=")
            key = key.replace("-", "_")
            if key == "busy":
                found[key] = (*found.get(key, ()), os.fsdecode(unquoted(value)))
            elif key == "path":
                found[key] = os.fsdecode(unquoted(value))
            elif key in ("stack_limit", "uid", "noexec"):
                found[key] = bool(int(value)) if key == "noexec" else int(value)
            else:
                raise ValueError(f"there is no {word!r} in an exec line")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


def _render_file(file: File) -> list[str]:
    name = quoted(os.fsencode(file.name))
    mode = "" if isinstance(file, Link) or file.mode == 0o755 else f" mode={file.mode:04o}"
    if isinstance(file, Link):
        return [f"link {name} {quoted(os.fsencode(file.target))}"]
    if isinstance(file, Folder):
        return [f"folder {name}{mode}"]
    if isinstance(file, TextFile):
        return [f"text {name}{mode} {quoted(file.data)}"]
    return _render_elf(file, name, mode)


def _render_elf(file: ElfFile, name: str, mode: str) -> list[str]:
    table = f" table={file.table:#x}" if file.table >= 0 else ""
    header, plain = file.header, plain_header(file.bits)
    words = [f"ident={quoted(header.ident)}"] if header.ident != plain.ident else []
    for field in header._fields[1:]:
        value, usual = getattr(header, field), getattr(plain, field)
        if field == "type":
            words.append(f"type={FILE_TYPES.get(value, hex(value))}")
        elif field == "machine":
            words.append(f"machine={_MACHINE_NAMES.get(value, str(value))}")
        elif field in ("phentsize", "phnum"):
            words.append(f"{field}={value}")
        elif value != usual or field in ("entry", "phoff"):
            words.append(f"{field}={value:#x}")
    lines = [f"elf{file.bits} {name}{mode} size={file.size:#x}{table}", "  header " + " ".join(words)]
    lines += ["  " + _render_entry(entry) for entry in file.entries]
    lines += [f"  at {offset:#x} {quoted(data)}" for offset, data in file.pieces]
    return lines


def _render_entry(entry: ProgramHeader) -> str:
    kind = PROGRAM_HEADER_TYPES.get(entry.type, hex(entry.type))
    flags = "".join(letter if entry.flags & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
    if entry.flags & ~7:
        flags = f"flags={entry.flags:#x}"
    physical = f" paddr={entry.paddr:#x}" if entry.paddr else ""
    return (
        f"{kind} {flags} offset={entry.offset:#x} vaddr={entry.vaddr:#x}{physical} filesz={entry.filesz:#x} "
        f"memsz={entry.memsz:#x} align={entry.align:#x}"
    )


def _parse_file(words: list[str]) -> File:
    kind, name, rest = words[0], os.fsdecode(unquoted(words[1])), words[2:]
    options = dict(word.split("=", 1) for word in rest if not word.startswith('"'))
    strings = [unquoted(word) for word in rest if word.startswith('"')]
    mode = int(options.get("mode", "0755"), 8)
    if kind == "link":
        return Link(name, os.fsdecode(strings[0]))
    if kind == "folder":
        return Folder(name, mode)
    if kind == "text":
        return TextFile(name, b"".join(strings), mode)
    if kind not in ("elf32", "elf64"):
        raise ValueError(f"there is no kind of file called {kind!r}")
    bits = int(kind[3:])
    return ElfFile(
        name,
        bits,
        plain_header(bits, phnum=-1),
        (),
        int(options["size"], 0),
        (),
        int(options.get("table", "-1"), 0),
        mode,
    )


def _parse_part(file: File, words: list[str]) -> File:
    if not isinstance(file, ElfFile):
        raise ValueError("only an ELF file has parts")
    if words[0] == "at":
        return file._replace(pieces=(*file.pieces, (int(words[1], 0), unquoted(words[2]))))
    values = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    if words[0] == "header":
        ident = unquoted(values.pop("ident")) if "ident" in values else file.header.ident
        fields = {key: _number(value) for key, value in values.items()}
        return file._replace(header=file.header._replace(ident=ident, **fields))
    flags = sum(bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if "=" not in words[1] and letter in words[1])
    kind = _ENTRY_TYPES[words[0]] if words[0] in _ENTRY_TYPES else int(words[0], 0)
    entry = ProgramHeader(kind, flags, 0, 0, 0, 0, 0, 0)
    entry = entry._replace(**{key: int(value, 0) for key, value in values.items()})
    return file._replace(entries=(*file.entries, entry))


def _number(word: str) -> int:
    if word in _TYPES:
        return _TYPES[word]
    if word in _MACHINES:
        return _MACHINES[word]
    return int(word, 0)
