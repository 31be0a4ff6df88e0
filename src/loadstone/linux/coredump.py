"""What becomes of a process that dies by a signal whose action is to dump core (fs/coredump.c, `man 5 core`).

`--core` sends core files to the host, and lifts RLIMIT_CORE for the first program; a program that lowers the limit gets
what it asks for: below a page no file, else one that ends where the limit is reached. Without `--core`, and once a
program has set kernel.core_pattern, they are files of the machine (core_pattern.py).
"""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import ENDED
from loadstone.lean import Protocol
from loadstone.linux import core_file
from loadstone.linux.core_file import PAGE, Ids, Note, Segment
from loadstone.linux.exec import auxv
from loadstone.linux.profile import RLIM_INFINITY, RLIMIT_CORE
from loadstone.linux.signal.restart import ERESTARTSYS
from loadstone.linux.state import PR_GET_DUMPABLE, process_state
from loadstone.machine.paging import PRESENT, PROTNONE
from loadstone.memory.flags import PFNMAP
from loadstone.memory.peek import peek
from loadstone.memory.vma import DONTDUMP, IO, READ, SHARED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadstone.kernel.process import Process, Task
    from loadstone.linux.personality import Linux
    from loadstone.linux.signal.signals import SigInfo
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.vma import Vma

# MMF_DUMP_*, bits of /proc/PID/coredump_filter
ANONYMOUS_PRIVATE, ANONYMOUS_SHARED, MAPPED_PRIVATE, MAPPED_SHARED, ELF_HEADERS = 1, 2, 4, 8, 16

_DUMPCORE, _SIGNALED = 0x200, 0x400  # PF_* of include/linux/sched.h
_VSYSCALL = Segment(0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FF60_1000, 4, PAGE)
_MASK64 = (1 << 64) - 1
_ZEROS = bytes(PAGE)


class CoreSettings:
    """kernel.core_pattern and kernel.core_uses_pid. `chosen`: a program of the machine has set the pattern."""

    __slots__ = ("chosen", "pattern", "uses_pid")

    def __init__(self) -> None:
        self.pattern = b"core"
        self.uses_pid = 0
        self.chosen = False

    def choose(self, pattern: bytes) -> None:
        """A program sets the pattern."""
        self.pattern, self.chosen = pattern, True


def settings_of(linux: Linux) -> CoreSettings:
    """The machine's, made when first asked for."""
    if linux.core_settings is None:
        linux.core_settings = CoreSettings()
    return linux.core_settings


class Output(Protocol):
    """A file that a core is written to."""

    def seek(self, offset: int, /) -> object:
        """Go on writing there."""

    def tell(self) -> int:
        """Where the next write goes."""

    def write(self, data: bytes, /) -> object:
        """All of it."""

    def truncate(self, size: int, /) -> object:
        """The file ends there."""


def limit_of(process: Process) -> int:
    """RLIMIT_CORE."""
    return process.limits.get(RLIMIT_CORE, (RLIM_INFINITY, 0))[0]


def may_dump(process: Process) -> bool:
    """Whether the limit leaves room for anything, and the process does not forbid it (PR_SET_DUMPABLE)."""
    return limit_of(process) >= PAGE and process_state(process).settings.get(PR_GET_DUMPABLE, 1) == 1


class CoreFiles:
    """Where core files go, and which there are.

    Attributes:
        written: (path, bytes) of each, in order.
        failed: a sentence for each that could not be written.
    """

    __slots__ = ("_where", "failed", "written")

    def __init__(self, where: str) -> None:
        """`where`: a directory of the host, for files called core.PID, or a file that each core replaces."""
        self._where = where
        self.written: list[tuple[str, int]] = []
        self.failed: list[str] = []

    def dump(self, task: Task, info: SigInfo) -> bool:
        """Write the core of `task`'s process, which `info` kills; whether there is one now."""
        process = task.process
        if not may_dump(process):
            return False
        path = os.path.join(self._where, f"core.{process.pid}") if os.path.isdir(self._where) else self._where
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(path, flags, 0o600), "wb") as file:
                size = write_core(file, task, info, limit_of(process))
        except OSError as error:
            self.failed.append(f"no core file {path}: {error.strerror}")
            return False
        self.written = [one for one in self.written if one[0] != path] + [(path, size)]
        return True


def write_core(file: Output, task: Task, info: SigInfo, limit: int) -> int:
    """Write the file, `limit` bytes at most, with holes where there are only zeros; its size."""
    space = task.process.space
    vmas = list(space.vmas)
    wanted = process_state(task.process).coredump_filter
    segments = [Segment(v.start, v.end, v.flags & 7, _dumped(space, v, wanted)) for v in vmas]
    if space.layout.vsyscall:
        segments.append(_VSYSCALL)
    pieces, offset = core_file.headers(_notes(task, info), segments)
    end = offset + sum(segment.dumped for segment in segments)
    for at, piece in chain(pieces, _contents(space, vmas, segments, offset)):
        limit -= len(piece)
        if limit < 0:  # dump_emit(): what does not fit whole is not written, and nothing after it
            return file.tell()
        file.seek(at)
        file.write(piece)
    file.truncate(end)
    return end


def _contents(
    space: AddressSpace, vmas: Sequence[Vma], segments: Sequence[Segment], offset: int
) -> Iterator[tuple[int, bytes]]:
    """(offset in the file, contents) of the pages of all mappings."""
    for vma, segment in zip(vmas, segments, strict=False):
        for address, page in _pages(space, vma, segment.dumped):
            yield offset + address - vma.start, page
        offset += segment.dumped


def _dumped(space: AddressSpace, vma: Vma, wanted: int) -> int:
    """How many bytes of a mapping are in the core file (vma_dump_size)."""
    whole = vma.end - vma.start
    if vma.name:  # [vdso] and its like
        return whole
    if vma.flags & (DONTDUMP | IO):
        return 0
    unlinked = bool(getattr(vma.backing, "unlinked", False))
    if vma.flags & SHARED:
        return whole if wanted & (ANONYMOUS_SHARED if unlinked else MAPPED_SHARED) else 0
    if vma.anon_vma is not None and wanted & ANONYMOUS_PRIVATE:
        return whole
    if vma.backing is None:
        return 0
    if wanted & MAPPED_PRIVATE:
        return whole
    first = wanted & ELF_HEADERS and vma.offset == 0 and vma.flags & READ
    return PAGE if first and (getattr(vma.backing, "mode", 0) & 0o111 or _is_elf(space, vma)) else 0


def _is_elf(space: AddressSpace, vma: Vma) -> bool:
    try:
        return peek(space, vma.start, 4) == b"\x7fELF"
    except LinuxError:
        return False


def _pages(space: AddressSpace, vma: Vma, length: int) -> Iterator[tuple[int, bytes]]:
    """(address, contents) of the pages that are not all zeros; what cannot be read is left out (dump_user_range)."""
    if vma.flags & PFNMAP:
        return
    end = vma.start + length
    if vma.backing is None:
        addresses = [at for at, _, entry in space.page_table.entries(vma.start, end) if entry & (PRESENT | PROTNONE)]
    else:
        addresses = list(range(vma.start, end, PAGE))
    for address in addresses:
        try:
            page = peek(space, address, PAGE)
        except (LinuxError, OSError):  # past the end of the file, or a file that has gone
            continue
        if page != _ZEROS:
            yield address, page


def _notes(task: Task, info: SigInfo) -> list[Note]:
    process = task.process
    image = process.image
    who, stack = process.credentials, image.stack
    ids = Ids(process.pid, process.parent_pid, process.group, process.session)
    command = _area(process, stack.argument_start, min(stack.argument_end - stack.argument_start, 80))
    entries = (*image.auxv, (auxv.AT_NULL, 0))
    parts = [
        _thread_status(task, info.number),
        core_file.process_note(
            _DUMPCORE | _SIGNALED, task.nice, who.uid, who.gid, ids, os.fsencode(task.name), command
        ),
        Note(core_file.NT_SIGINFO, info.pack()),
        Note(core_file.NT_AUXV, auxv.encode(entries)),
        core_file.files_note(_files(process.space)),
        *_thread_state(task),
    ]
    for other in process.tasks:
        if other is not task and other.state != ENDED:
            parts += [_thread_status(other, info.number), *_thread_state(other)]
    return parts


def _thread_status(task: Task, signal: int) -> Note:
    process = task.process
    values = task.context.registers()
    values |= _interrupted_call(task, values)
    registers = [values[name] & _MASK64 for name in core_file.REGISTERS]
    times_us = ((task.cpu_ns - task.system_ns) // 1000, task.system_ns // 1000, 0, 0)
    ids = Ids(task.tid, process.parent_pid, process.group, process.session)
    pending, blocked = task.signals.pending.mask, task.signals.mask
    return core_file.status_note(signal, pending, blocked, ids, times_us, registers)


def _interrupted_call(task: Task, values: dict[str, int]) -> dict[str, int]:
    """orig_rax, and what SYSCALL leaves in the registers of a call that did not come to its end.

    Which call came to its end last is not remembered.
    """
    if task.signals.restart is not None:
        kind, number = task.signals.restart
    elif task.pending is not None:
        kind, number = ERESTARTSYS, task.pending.row.number
    else:
        return {"orig_rax": _MASK64}
    return {"orig_rax": number, "rax": -kind, "rcx": values["rip"], "r11": values["eflags"]}


def _thread_state(task: Task) -> list[Note]:
    context = task.context
    return core_file.state_notes(context.save_extended(), context.extended_features)


def _files(space: AddressSpace) -> list[tuple[int, int, int, bytes]]:
    rows = []
    for vma in space.vmas:
        if vma.backing is not None and not vma.name:
            path = vma.path + (" (deleted)" if getattr(vma.backing, "unlinked", False) else "")
            rows.append((vma.start, vma.end, vma.offset, os.fsencode(path)))
    return rows


def _area(process: Process, address: int, length: int) -> bytes:
    try:
        return peek(process.space, address, length)
    except LinuxError:
        return b""
