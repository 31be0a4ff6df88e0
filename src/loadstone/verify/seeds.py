"""What mutation starts from: the shapes of this machine's programs and scripts, and shapes that no linker makes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from loadstone.binfmt.elf import plan_elf32, plan_elf64
from loadstone.binfmt.names import PT_INTERP
from loadstone.binfmt.plan import ElfPlan
from loadstone.binfmt.source import HostSource
from loadstone.errors import LinuxError
from loadstone.verify.case import Case, ElfFile, TextFile
from loadstone.verify.case_text import parse_all

_DIRECTORIES = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/lib/x86_64-linux-gnu")
_MOST_SHAPES, _MOST_SCRIPTS = 40, 10
_SET_ID = 0o6000  # their images are never laid out without randomisation
_LINE = 256

_BUILT = r"""
case a static program
elf64 "prog" size=0x3000
  header entry=0x400800
  LOAD r-x offset=0x0 vaddr=0x400000 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1000 vaddr=0x401000 filesz=0x234 memsz=0x3210 align=0x1000
  GNU_STACK rw- offset=0x0 vaddr=0x0 filesz=0x0 memsz=0x0 align=0x10
case a static i386 program
elf32 "prog" size=0x3000
  header entry=0x8048800
  LOAD r-x offset=0x0 vaddr=0x8048000 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1000 vaddr=0x8049000 filesz=0x234 memsz=0x3210 align=0x1000
  GNU_STACK rw- offset=0x0 vaddr=0x0 filesz=0x0 memsz=0x0 align=0x10
case an i386 program without PT_GNU_STACK
elf32 "prog" size=0x2000
  header entry=0x8048800
  LOAD r-x offset=0x0 vaddr=0x8048000 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1000 vaddr=0x8049000 filesz=0x100 memsz=0x100 align=0x1000
case a static position-independent program
elf64 "prog" size=0x3000
  header type=DYN entry=0x800
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1100 vaddr=0x2100 filesz=0x100 memsz=0x2000 align=0x1000
case a static position-independent program, aligned to 2 MiB
elf64 "prog" size=0x403000
  header type=DYN entry=0x800
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x201000 memsz=0x201000 align=0x200000
  LOAD rw- offset=0x400100 vaddr=0x400100 filesz=0x100 memsz=0x2000 align=0x200000
case a static position-independent i386 program
elf32 "prog" size=0x3000
  header type=DYN entry=0x800
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1100 vaddr=0x2100 filesz=0x100 memsz=0x2000 align=0x1000
case a dynamic program with a loader of its own
elf64 "prog" size=0x3000
  header type=DYN entry=0x800
  INTERP r-- offset=0x900 vaddr=0x900 filesz=0x3 memsz=0x3 align=0x1
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1100 vaddr=0x2100 filesz=0x234 memsz=0x3210 align=0x1000
  GNU_STACK rw- offset=0x0 vaddr=0x0 filesz=0x0 memsz=0x0 align=0x10
  at 0x900 "ld\x00"
elf64 "ld" size=0x3000
  header type=DYN entry=0x800
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1100 vaddr=0x2100 filesz=0x100 memsz=0x2000 align=0x1000
case a dynamic program whose loader has a fixed address
elf64 "prog" size=0x2000
  header entry=0x400800
  INTERP r-- offset=0x900 vaddr=0x400900 filesz=0x3 memsz=0x3 align=0x1
  LOAD r-x offset=0x0 vaddr=0x400000 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1100 vaddr=0x401100 filesz=0x34 memsz=0x210 align=0x1000
  at 0x900 "ld\x00"
elf64 "ld" size=0x2000
  header entry=0x700800
  LOAD r-x offset=0x0 vaddr=0x700000 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1100 vaddr=0x701100 filesz=0x100 memsz=0x2000 align=0x1000
case a dynamic i386 program with a loader of its own
elf32 "prog" size=0x3000
  header type=DYN entry=0x800
  INTERP r-- offset=0x900 vaddr=0x900 filesz=0x3 memsz=0x3 align=0x1
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1100 vaddr=0x2100 filesz=0x234 memsz=0x3210 align=0x1000
  at 0x900 "ld\x00"
elf32 "ld" size=0x3000
  header type=DYN entry=0x800
  LOAD r-x offset=0x0 vaddr=0x0 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD rw- offset=0x1100 vaddr=0x2100 filesz=0x100 memsz=0x2000 align=0x1000
case a program of many segments
elf64 "prog" size=0x9000
  header entry=0x10000800
  LOAD r-x offset=0x0 vaddr=0x10000000 filesz=0x1000 memsz=0x1000 align=0x1000
  LOAD r-- offset=0x1000 vaddr=0x10003000 filesz=0x1fff memsz=0x2000 align=0x1000
  LOAD rw- offset=0x3010 vaddr=0x10006010 filesz=0xff0 memsz=0xff0 align=0x1000
  LOAD rw- offset=0x4000 vaddr=0x10008000 filesz=0x0 memsz=0x5001 align=0x1000
  LOAD rwx offset=0x5000 vaddr=0x10010000 filesz=0x1 memsz=0x1001 align=0x1000
  GNU_STACK rwx offset=0x0 vaddr=0x0 filesz=0x0 memsz=0x0 align=0x10
  GNU_PROPERTY r-- offset=0x2000 vaddr=0x10004000 filesz=0x30 memsz=0x30 align=0x8
case a script
text "script" "#!/bin/sh -eu\necho hello\n"
case a script for a program beside it
text "script" "#!prog one two\n"
elf64 "prog" size=0x1000
  header entry=0x400800
  LOAD r-x offset=0x0 vaddr=0x400000 filesz=0x1000 memsz=0x1000 align=0x1000
case scripts in a row
text "script" "#! first \n"
text "first" "#!\tsecond\n"
text "second" "#!third -x\n"
text "third" "#!/bin/true\n"
"""


def seeds() -> list[Case]:
    """Every seed, in an order that depends on nothing but this machine's files. Some milliseconds."""
    return [*parse_all(_BUILT), *_host_shapes(), *_host_scripts()]


def describe_program(path: str) -> ElfFile | None:
    """A program of the host as a description: its headers, its size, its interpreter's path. None if it is no ELF."""
    try:
        with HostSource(path) as source:
            head = source.read(0, 256).ljust(256, b"\0")
            plan = _plan(head, source)
            if plan is None:
                return None
            pieces = tuple(
                (entry.offset, source.read(entry.offset, entry.filesz))
                for entry in plan.program_headers
                if entry.type == PT_INTERP
            )
            return ElfFile("prog", plan.bits, plan.header, plan.program_headers, source.size, pieces)
    except LinuxError:
        return None


def _plan(head: bytes, source: HostSource) -> ElfPlan | None:
    for handler in (plan_elf64, plan_elf32):
        try:
            return handler(head, source)
        except LinuxError:
            continue
    return None


def _candidates() -> Iterator[str]:
    """Executable files that do not change the user, in alphabetical order."""
    for directory in _DIRECTORIES:
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            try:
                mode = entry.stat().st_mode
            except OSError:
                continue
            if entry.is_file() and mode & 0o111 and not mode & _SET_ID:
                yield entry.path


def _host_shapes() -> list[Case]:
    """One program of each shape: file type, kinds and permissions of the program headers, interpreter."""
    shapes: dict[object, Case] = {}
    for path in _candidates():
        file = describe_program(path)
        if file is None:
            continue
        shape = (
            file.bits,
            file.header.type,
            tuple((entry.type, entry.flags, entry.align) for entry in file.entries),
            file.pieces[0][1] if file.pieces else b"",
        )
        shapes.setdefault(shape, Case(f"the shape of {path}", (file,)))
        if len(shapes) == _MOST_SHAPES:
            break
    return list(shapes.values())


def _host_scripts() -> list[Case]:
    """One script of each first line."""
    lines: dict[bytes, Case] = {}
    for path in _candidates():
        with open(path, "rb") as file:
            line = file.readline(_LINE)
        if line.startswith(b"#!"):
            lines.setdefault(line, Case(f"the first line of {path}", (TextFile("script", line + b"\n"),)))
            if len(lines) == _MOST_SCRIPTS:
                break
    return list(lines.values())
