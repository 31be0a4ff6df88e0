"""Mutations of cases: fields of headers, program headers as a whole, file sizes, interpreters, `#!` lines, arguments.

Fields get values at which the kernel's checks turn: page boundaries, the ends of the address space, the other fields'
values and ends. A mutant depends on nothing but the seeds, the run's seed and its number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from loadstone.binfmt.names import PT_GNU_PROPERTY, PT_GNU_STACK, PT_INTERP, PT_LOAD
from loadstone.binfmt.plan import ProgramHeader
from loadstone.verify.case import PAGE, Case, ElfFile, File, Folder, Link, TextFile

# fmt: off
_VALUES = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 0xFF, 0x100, 0xFFE, 0xFFF, 0x1000, 0x1001, 0x2000, 0xF000, 0x10000, 0x100000,
    0x200000, 0x400000, 0x8048000, 0x40000000, 0x56555000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xF7FFF000,
    0xFFFFD000, 0xFFFFE000, 0xFFFFF000, 0xFFFFFFFF, 1 << 32, 1 << 34, 1 << 40, 0x155555555000, 0x2AAAAAAAB000,
    0x555555554000, 0x7FFFF7FFF000, 0x7FFFFFFDE000, 0x7FFFFFFFE000, 0x7FFFFFFFEFFF, 0x7FFFFFFFF000, 1 << 47,
    0xFFFFFFFFFF600000, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1,
)
_STEPS = (-PAGE, PAGE, 1, -1, 8, -8, 16, 0x800, 1 << 20, 1 << 21, 1 << 24, 1 << 30)
_PLACES = {  # where the kernel puts things itself: the stack, the mmap area, programs
    64: (0x7FFFFFFFE000, 0x7FFFFFFFD000, 0x7FFFFFFDE000, 0x7FFFF7FFE000, 0x7FFFF7FF6000, 0x555555554000),
    32: (0xFFFFD000, 0xFFFFC000, 0xFFFDD000, 0xF7FFD000, 0xF7FFB000, 0xF7FF5000, 0x56555000),
}
_TYPES = (0, PT_LOAD, PT_LOAD, 2, PT_INTERP, 4, 6, 7, PT_GNU_STACK, PT_GNU_PROPERTY, 0x7FFFFFFF)
_ENTRY_FIELDS = (
    "type", "flags", "flags", "offset", "offset", "vaddr", "vaddr", "vaddr", "filesz", "filesz", "filesz", "memsz",
    "memsz", "memsz", "align", "align", "paddr",
)
_HEADER_FIELDS = (
    "ident", "type", "type", "machine", "version", "entry", "entry", "entry", "phoff", "phoff", "flags", "ehsize",
    "phentsize", "phnum", "phnum", "phnum", "shoff", "shnum",
)
_MACHINES = (0, 2, 3, 3, 6, 8, 40, 62, 62, 183, 243, 247)
_INTERPRETERS = (
    b"/lib64/ld-linux-x86-64.so.2", b"/bin/true", b"/bin/sh", b"/lib/ld-linux.so.2", b"/nowhere", b"ld", b"./ld",
    b"prog", b"", b"/", b"/tmp", b"/dev/null", b"/etc/passwd", b"/bin/true/x", b"folder", b"loop", b"script",
    b"x" * 300, b"/" * 200 + b"bin/true", b"/bin/../bin/true", b"ld\0tail", b"\xff\xfe",
)
_MODES = (0o755, 0o755, 0o700, 0o644, 0o555, 0o001, 0o010, 0o000)
_UNREADABLE = 0o111  # the kernel executes what its user may not read; Loadstone, with no more rights than he, cannot
_STACK_LIMITS = (-1, 0, 4096, 8192, 64 << 10, 140 << 10, 1 << 20, 8 << 20, 64 << 20, 1 << 30, 1 << 40, (1 << 63) - 1)
# fmt: on
_NOBODY = 65534
_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # the most that may be promised at once
_ARGUMENTS = ((0, 0), (1, 0), (3, 5), (1, 4000), (40, 200), (500, 3), (200, 2000), (1, 131071), (1, 131072))
_LENGTHS = (2, 3, 125, 126, 127, 128, 129, 253, 254, 255, 256, 257, 258, 300, 4096)
_BLANKS = (b"", b" ", b"\t", b" \t ", b"  ", b"\0", b"\n")


def mutant(seeds: Sequence[Case], seed: int, number: int) -> Case:
    """Mutant `number` of the run with that seed."""
    choose = Random(f"{seed}:{number}")
    case = start = choose.choice(seeds)
    for _ in range(choose.choices((1, 2, 3, 4, 8), (40, 27, 18, 10, 5))[0]):
        case = _changed(case, choose)
    return case._replace(what=f"mutant {number} of seed {seed}, from {start.what}")


def _changed(case: Case, choose: Random) -> Case:
    if choose.random() < 0.09:
        return _execution(case, choose)
    place = 0 if choose.random() < 0.5 else choose.randrange(len(case.files))
    file = case.files[place]
    if choose.random() < 0.02 and isinstance(file, ElfFile | TextFile):
        return _with_file(case, place, file._replace(mode=choose.choice(_modes())))
    if isinstance(file, TextFile):
        return _with_file(case, place, file._replace(data=_line(file.data, choose)))
    if not isinstance(file, ElfFile):
        return case
    if choose.random() < 0.12:
        return _interpreter(case, place, file, choose)
    change = choose.choices(_ELF_CHANGES, _ELF_WEIGHTS)[0]
    return _with_file(case, place, change(file, choose))


def _modes() -> tuple[int, ...]:
    return _MODES if os.geteuid() else (*_MODES, _UNREADABLE)


def _with_file(case: Case, place: int, file: File) -> Case:
    return case._replace(files=(*case.files[:place], file, *case.files[place + 1 :]))


def _execution(case: Case, choose: Random) -> Case:
    """Other arguments, another limit, another name for the program."""
    kind = choose.randrange(4 if os.geteuid() else 6)  # only root can become somebody else
    if kind == 0:
        count, length = choose.choice(_ARGUMENTS)
        return case._replace(argv=(b"a" * length,) * count)
    if kind == 1:
        count, length = choose.choice(_ARGUMENTS)
        return case._replace(envp=(b"e" * length,) * count)
    if kind == 2:
        return case._replace(stack_limit=choose.choice(_STACK_LIMITS))
    if kind > 3:
        return case._replace(uid=_NOBODY)
    name = case.files[0].name
    return case._replace(path=choose.choice((f"./{name}", f"{name}/", f"{name}/x", f"//{name}", ".", f".//./{name}")))


# ELF files


def _entry_field(file: ElfFile, choose: Random) -> ElfFile:
    if not file.entries:
        return file
    loads = [number for number, entry in enumerate(file.entries) if entry.type == PT_LOAD]
    number = choose.choice(loads) if loads and choose.random() < 0.8 else choose.randrange(len(file.entries))
    entry = file.entries[number]
    field = choose.choice(_ENTRY_FIELDS)
    old = getattr(entry, field)
    if field == "type":
        new = choose.choice(_TYPES)
    elif field == "flags":
        new = choose.randrange(8) if choose.random() < 0.9 else choose.getrandbits(32)
    elif field == "align":
        new = choose.choice((0, 1, 3, 16, 0x1000, 0x3000, 0x10000, 1 << 21, 1 << 30, 1 << choose.randrange(64)))
    elif field == "vaddr" and choose.random() < 0.15:
        new = choose.choice(_PLACES[file.bits]) + choose.choice((0, 0, old % PAGE, PAGE, -PAGE, 8))
    else:
        new = _value(old, file, choose)
    entries = list(file.entries)
    entries[number] = entry._replace(**{field: new & _mask(file, field)})
    return file._replace(entries=tuple(entries))


def _mask(file: ElfFile, field: str) -> int:
    return (1 << (32 if field in ("type", "flags") else file.bits)) - 1


def _value(old: int, file: ElfFile, choose: Random) -> int:
    """A number near what a check compares: a landmark, a neighbour, one of the file's own numbers, or any."""
    kind = choose.randrange(8)
    if kind < 2:
        return choose.choice(_VALUES)
    if kind < 4:
        return old + choose.choice(_STEPS)
    if kind < 6:
        landmarks = [file.size, _MEMORY]
        for entry in file.entries:
            landmarks += [
                entry.vaddr,
                entry.offset,
                entry.vaddr + entry.memsz,
                entry.offset + entry.filesz,
                entry.memsz,
            ]
        return choose.choice(landmarks) + choose.choice((0, 0, 0, 1, -1, PAGE, -PAGE))
    if kind == 6:
        return old ^ 1 << choose.randrange(file.bits)
    return choose.getrandbits(choose.choice((12, 20, 32, 47, 64)))


def _header_field(file: ElfFile, choose: Random) -> ElfFile:
    header = file.header
    field = choose.choice(_HEADER_FIELDS)
    if field == "ident":
        ident = bytearray(header.ident)
        ident[choose.choice((0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 15))] = choose.choice((0, 1, 2, 3, 0x45, 0x7F, 0xFF))
        return file._replace(header=header._replace(ident=bytes(ident)))
    if field == "type":
        return file._replace(header=header._replace(type=choose.choice((0, 1, 2, 2, 3, 3, 4, 0xFE00, 0xFFFF))))
    if field == "machine":
        return file._replace(header=header._replace(machine=choose.choice(_MACHINES)))
    if field == "phoff":
        return _moved_table(file, choose)
    if field == "phnum":
        count = len(file.entries)
        value = choose.choice((0, 1, count - 1, count + 1, count + 3, 73, 1170, 1171, 2048, 2049, 0xFFFE, 0xFFFF))
        return file._replace(header=header._replace(phnum=value & 0xFFFF), table=file.table_offset)
    if field == "phentsize":
        return file._replace(header=header._replace(phentsize=choose.choice((0, 1, 31, 32, 55, 56, 57, 64, 0xFFFF))))
    value = _value(getattr(header, field), file, choose)
    width = {"version": 32, "flags": 32, "ehsize": 16, "shnum": 16}.get(field, file.bits)
    changed: dict[str, Any] = {field: value & (1 << width) - 1}
    return file._replace(header=header._replace(**changed))


def _moved_table(file: ElfFile, choose: Random) -> ElfFile:
    """Another e_phoff: with the program headers there, or with them left behind."""
    size = (56 if file.bits == 64 else 32) * len(file.entries)
    new = choose.choice((0x200, 0x1000, file.size - size, file.size - size + 1, file.size, 1, *_VALUES[-3:]))
    new &= (1 << file.bits) - 1
    follow = choose.random() < 0.6 and new < file.size
    return file._replace(header=file.header._replace(phoff=new), table=-1 if follow else file.table_offset)


def _entry_list(file: ElfFile, choose: Random) -> ElfFile:
    """A program header more, or fewer, or two that change places."""
    entries = list(file.entries)
    kind = choose.randrange(5)
    if kind == 0 and entries:
        entries.pop(choose.randrange(len(entries)))
    elif kind == 1 and entries:
        entries.insert(choose.randrange(len(entries) + 1), choose.choice(entries))
    elif kind == 2 and len(entries) > 1:
        first, second = choose.sample(range(len(entries)), 2)
        entries[first], entries[second] = entries[second], entries[first]
    elif kind == 3 and len(entries) > 1:
        first, second = choose.sample(range(len(entries)), 2)
        entries[first] = entries[first]._replace(vaddr=entries[second].vaddr)
    else:
        entries.insert(choose.randrange(len(entries) + 1), _new_entry(file, choose))
    return file._replace(entries=tuple(entries), header=file.header._replace(phnum=len(entries)))


def _new_entry(file: ElfFile, choose: Random) -> ProgramHeader:
    vaddr = choose.choice([entry.vaddr + entry.memsz for entry in file.entries] or [0]) + choose.choice((0, 0x1000, 1))
    offset = choose.choice((0, 0x1000, vaddr & 0xFFF, 0x1000 + (vaddr & 0xFFF)))
    filesz = choose.choice((0, 1, 0x234, 0x1000, 0x1001))
    memsz = filesz + choose.choice((0, 0, 1, 0xFFF, 0x1000, 0x100000))
    mask = (1 << file.bits) - 1
    return ProgramHeader(choose.choice(_TYPES), choose.randrange(8), offset, vaddr & mask, 0, filesz, memsz, 0x1000)


def _size(file: ElfFile, choose: Random) -> ElfFile:
    """Cut off, or longer."""
    ends = [entry.offset + entry.filesz for entry in file.entries] or [0]
    table = file.table_offset + (56 if file.bits == 64 else 32) * len(file.entries)
    places = (0, 1, 4, 51, 52, 63, 64, table - 1, table, choose.choice(ends), choose.choice(ends) - 1, file.size + 1)
    new = choose.choice((*places, file.size + (1 << 21), file.size & -PAGE, choose.randrange(file.size + 1)))
    return file._replace(size=min(max(new, 0), 1 << 32))


def _interpreter_bytes(file: ElfFile, choose: Random) -> ElfFile:
    """The bytes that PT_INTERP leads to, and p_filesz: it may or may not fit them."""
    number = next((n for n, entry in enumerate(file.entries) if entry.type == PT_INTERP), None)
    if number is None:
        return _entry_field(file, choose)
    entry = file.entries[number]
    path = choose.choice(_INTERPRETERS) + choose.choice((b"\0", b"\0", b"\0", b"", b"\0\0", b"\0x"))
    filesz = choose.choice((len(path), len(path), len(path), 0, 1, 2, len(path) - 1, 4095, 4096, 4097, 1 << 31))
    offset = entry.offset if choose.random() < 0.8 else max(file.size - len(path) + choose.choice((0, 1)), 0)
    entries = list(file.entries)
    entries[number] = entry._replace(filesz=max(filesz, 0), offset=offset)
    return file._replace(entries=tuple(entries), pieces=((offset, path),))


_ELF_CHANGES: tuple[Callable[[ElfFile, Random], ElfFile], ...] = (
    _entry_field,
    _header_field,
    _entry_list,
    _size,
    _interpreter_bytes,
)
_ELF_WEIGHTS = (56, 16, 12, 8, 8)


def _interpreter(case: Case, place: int, file: ElfFile, choose: Random) -> Case:
    """A file of ours as the interpreter: another program, a script, a link, a directory."""
    path = b"ld\0"
    entries = [entry for entry in file.entries if entry.type != PT_INTERP]
    offset = 0xF00
    entries.insert(
        choose.randrange(len(entries) + 1), ProgramHeader(PT_INTERP, 4, offset, 0, 0, len(path), len(path), 1)
    )
    changed = file._replace(
        entries=tuple(entries), header=file.header._replace(phnum=len(entries)), pieces=((offset, path),)
    )
    others: tuple[File, ...] = (
        file._replace(name="ld"),
        changed._replace(name="ld"),
        file._replace(name="ld", header=file.header._replace(type=choose.choice((0, 1, 2, 3, 4)))),
        TextFile("ld", b"#!/bin/sh\n"),
        TextFile("ld", b"\x7fELF"),
        Link("ld", choose.choice(("ld", "/bin/true", "/lib64/ld-linux-x86-64.so.2", file.name, "nowhere"))),
        Folder("ld"),
    )
    rest = tuple(other for other in case.files if other.name != "ld")
    if file.name == "ld":
        return _with_file(case, place, changed)
    with_file = (
        _with_file(case, place, changed).files
        if len(rest) == len(case.files)
        else tuple(changed if other.name == file.name else other for other in rest)
    )
    return case._replace(files=(*with_file, choose.choice((*others[:3], *others))))


# Scripts


def _line(data: bytes, choose: Random) -> bytes:
    """Another `#!` line, or this one with some bytes changed."""
    if choose.random() < 0.5 and data:
        return _scratched(data, choose)
    path = choose.choice(_INTERPRETERS)
    parts = [b"#!", choose.choice(_BLANKS), path, choose.choice(_BLANKS)]
    if choose.random() < 0.6:
        parts += [choose.choice((b"-x", b"a b", b"a\tb ", b"\0", b"a\0b", b"y" * 140, b"\xff")), choose.choice(_BLANKS)]
    line = b"".join(parts)
    if choose.random() < 0.4:  # a path or an argument that ends around the end of the buffer
        line = line.ljust(choose.choice(_LENGTHS), choose.choice((b" ", b"\t", b"z", b"/", b"\0")))
    return line + choose.choice((b"\n", b"\n", b"", b"\n#", b"\0\n", b" \nmore\n"))


def _scratched(data: bytes, choose: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 3))):
        at = choose.randrange(min(len(changed), 300)) if changed else 0
        kind = choose.randrange(4)
        if kind == 0 and changed:
            changed[at] = choose.choice((0, 9, 10, 13, 32, 33, 35, 47, 255))
        elif kind == 1:
            changed[at:at] = choose.choice((b" ", b"\t", b"\n", b"\0", b"/", b"#!", b"x" * 120))
        elif kind == 2:
            del changed[at : at + choose.choice((1, 1, 2, 20))]
        else:
            length = choose.choice(_LENGTHS)
            changed = changed[:length] if len(changed) > length else changed.ljust(length, b"w")
    return bytes(changed)
