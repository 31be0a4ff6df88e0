"""Core files inside the machine: where kernel.core_pattern says, within RLIMIT_CORE (fs/coredump.c, `man 5 core`).

A pattern that begins with `|` or `@` hands the core to a program or a socket; neither is done, and that is counted.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.coredump import limit_of, may_dump, settings_of, write_core
from loadstone.linux.of_task import linux_of
from loadstone.linux.refusals import count_refusal
from loadstone.vfs.flags import O_CREAT, O_EXCL, O_LARGEFILE, O_NOFOLLOW, O_RDWR, SEEK_SET
from loadstone.vfs.namespace import Origin

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.signal.signals import SigInfo
    from loadstone.vfs.file import OpenFile

_FLAGS = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_LARGEFILE
_SECOND = 1_000_000_000


def dump(task: Task, info: SigInfo) -> bool:
    """Leave a core file where the pattern says; whether there is one now."""
    process, settings = task.process, settings_of(linux_of(task))
    if not may_dump(process) or not settings.pattern:
        return False
    if settings.pattern[:1] in (b"|", b"@"):
        count_refusal(task, "a core file for a program (kernel.core_pattern)")
        return False
    name = os.fsdecode(file_name(task, info, settings.pattern, uses_pid=bool(settings.uses_pid)))
    vfs, origin = task.kernel.vfs, Origin(process.fs.cwd, process.fs.root, process.credentials)
    with suppress(LinuxError):  # what an earlier core left; never followed, never written into
        vfs.unlink(name, origin)
    try:
        file = vfs.open(name, _FLAGS, 0o600 & ~process.fs.umask, origin)
    except LinuxError:
        return False
    try:
        write_core(_Written(file), task, info, limit_of(process))
    except LinuxError:
        return False
    finally:
        file.close()
    return True


def file_name(task: Task, info: SigInfo, pattern: bytes, *, uses_pid: bool) -> bytes:
    """The pattern with what its `%` stand for; slashes in names become exclamation marks (format_corename)."""
    process, who = task.process, task.process.credentials
    path = os.fsencode(process.executable.path) if process.executable is not None else b""
    comm = os.fsencode(task.name)
    host = os.fsencode(task.kernel.profile.nodename)
    names = {b"h": host, b"e": comm, b"E": path or comm, b"f": os.path.basename(path)}
    numbers = {
        b"p": process.pid, b"P": process.pid, b"i": task.tid, b"I": task.tid, b"u": who.uid, b"g": who.gid, b"d": 1,
        b"s": info.number, b"t": task.kernel.clock.realtime_ns() // _SECOND, b"c": limit_of(process), b"C": task.cpu,
    }  # fmt: skip
    parts, rest, has_pid = [], pattern, False
    while rest:
        text, mark, rest = rest.partition(b"%")
        parts.append(text)
        if not mark:
            break
        letter, rest = rest[:1], rest[1:]
        if letter == b"%":
            parts.append(letter)
        elif letter in numbers:
            parts.append(b"%d" % numbers[letter])
            has_pid |= letter == b"p"
        elif letter in names:
            parts.append(_escaped(names[letter]))
    if uses_pid and not has_pid:
        parts.append(b".%d" % process.pid)
    return b"".join(parts)


def _escaped(name: bytes) -> bytes:
    if name in (b"", b".", b".."):
        return b"!" + name[1:]
    return name.replace(b"/", b"!")


class _Written:
    """An open file of the machine's, as `write_core` writes it."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._at = 0

    def seek(self, offset: int) -> None:
        """Go on writing there."""
        self._at = offset

    def tell(self) -> int:
        """Where the next write goes."""
        return self._at

    def write(self, data: bytes) -> None:
        """All of it."""
        self._file.seek(self._at, SEEK_SET)
        left = memoryview(bytearray(data))
        while left:
            left = left[self._file.write_from([left], None) :]
        self._at += len(data)

    def truncate(self, size: int) -> None:
        """The file ends there."""
        self._file.inode.truncate(size)
