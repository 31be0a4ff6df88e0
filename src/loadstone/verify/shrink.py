"""Make a case smaller as long as it still shows the same disagreement."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loadstone.binfmt.names import ET_DYN
from loadstone.verify.case import Case, ElfFile, File, TextFile
from loadstone.verify.case_text import plain_header

_MOST_TRIALS = 400
_SIZES = (0, 0x40, 0x1000, 0x2000, 0x3000, 0x10000)


def shrink(case: Case, still: Callable[[Case], bool], trials: int = _MOST_TRIALS) -> Case:
    """The smallest case found for which `still` holds, trying at most `trials` of them. It must hold for `case`."""
    progress = True
    while progress and trials > 0:
        progress = False
        for smaller in _smaller(case):
            trials -= 1
            if still(smaller):
                case, progress = smaller, True
                break
            if trials <= 0:
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    """Cases with one thing less, or one thing plainer; never one that comes back to where it started."""
    plain = Case(case.what, case.files)
    for field in ("argv", "envp", "path", "stack_limit", "uid"):
        value = getattr(plain, field)
        if getattr(case, field) != value:
            yield case._replace(**{field: value})
    for place in range(len(case.files) - 1, 0, -1):
        yield case._replace(files=case.files[:place] + case.files[place + 1 :])
    for place, file in enumerate(case.files):
        for other in _smaller_file(file):
            yield case._replace(files=(*case.files[:place], other, *case.files[place + 1 :]))


def _smaller_file(file: File) -> Iterator[File]:
    if isinstance(file, TextFile):
        for length in (len(file.data) // 2, len(file.data) - 1):
            if 0 <= length < len(file.data):
                yield file._replace(data=file.data[:length])
        for at in range(min(len(file.data), 64)):
            yield file._replace(data=file.data[:at] + file.data[at + 1 :])
    elif isinstance(file, ElfFile):
        yield from _smaller_elf(file)


def _smaller_elf(file: ElfFile) -> Iterator[ElfFile]:
    header, entries = file.header, file.entries
    plain = plain_header(file.bits)
    for number in range(len(entries)):
        count = header.phnum - 1 if header.phnum == len(entries) else header.phnum
        rest = entries[:number] + entries[number + 1 :]
        yield file._replace(entries=rest, header=header._replace(phnum=count))
    for field in ("ident", "version", "shoff", "flags", "ehsize", "shentsize", "shnum", "shstrndx"):
        if getattr(header, field) != getattr(plain, field):
            yield file._replace(header=header._replace(**{field: getattr(plain, field)}))
    for size in _SIZES:
        if size < file.size:
            yield file._replace(size=size)
    for number, entry in enumerate(entries):
        for field, value in (("paddr", 0), ("align", 0x1000), ("filesz", 0), ("memsz", entry.filesz), ("offset", 0)):
            if getattr(entry, field) != value and not (field == "memsz" and entry.memsz < value):
                changed = entry._replace(**{field: value})
                yield file._replace(entries=(*entries[:number], changed, *entries[number + 1 :]))
    if header.entry and header.type == ET_DYN:
        yield file._replace(header=header._replace(entry=0))
