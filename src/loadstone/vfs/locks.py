"""File locks: flock(2) on open file descriptions, record locks of fcntl(2) on processes, kept per inode."""

from __future__ import annotations

from errno import EAGAIN
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Inode

READ, WRITE, UNLOCK = 0, 1, 2  # F_RDLCK, F_WRLCK, F_UNLCK
FOREVER = 1 << 63  # the end of a lock "to the end of the file"


class Flock(NamedTuple):
    """A lock on a whole file."""

    file: OpenFile
    exclusive: bool


class Record(NamedTuple):
    """A lock on bytes start..end (end not included). `owner`: a PID, or an OpenFile (F_OFD_SETLK)."""

    owner: object
    kind: int
    start: int
    end: int


def flock(file: OpenFile, exclusive: bool | None) -> None:
    """Take a lock, or give it back (None). EAGAIN if another open file description has one that conflicts."""
    held = [one for one in file.inode.locks or () if isinstance(one, Flock)]
    if exclusive is not None:
        for one in held:
            if one.file is not file and (exclusive or one.exclusive):
                raise LinuxError(EAGAIN)
    kept = [one for one in file.inode.locks or () if not (isinstance(one, Flock) and one.file is file)]
    if exclusive is not None:
        kept.append(Flock(file, exclusive))
    file.inode.locks = kept or None


def conflict(inode: Inode, owner: object, kind: int, start: int, end: int) -> Record | None:
    """The first record lock that stands in the way (F_GETLK), or None."""
    for one in inode.locks or ():
        if not isinstance(one, Record) or one.owner == owner:
            continue
        if one.start < end and start < one.end and WRITE in (kind, one.kind):
            return one
    return None


def set_record(inode: Inode, owner: object, kind: int, start: int, end: int) -> None:
    """Lock or unlock bytes start..end (F_SETLK); EAGAIN if another owner's lock conflicts."""
    if kind != UNLOCK and conflict(inode, owner, kind, start, end) is not None:
        raise LinuxError(EAGAIN)
    kept: list[Flock | Record] = []
    for one in inode.locks or ():
        if not isinstance(one, Record) or one.owner != owner or one.end <= start or end <= one.start:
            kept.append(one)
            continue
        if one.start < start:
            kept.append(one._replace(end=start))
        if end < one.end:
            kept.append(one._replace(start=end))
    if kind != UNLOCK:
        kept.append(Record(owner, kind, start, end))
    inode.locks = kept or None


def release_process(inode: Inode, pid: int) -> None:
    """A process closed some descriptor of the file: all its record locks go, as POSIX has it."""
    _drop(inode, lambda one: isinstance(one, Record) and one.owner == pid)


def release_file(file: OpenFile) -> None:
    """An open file description is gone, and its locks with it."""
    _drop(file.inode, lambda one: (one.file if isinstance(one, Flock) else one.owner) is file)


def _drop(inode: Inode, goes: Callable[[Flock | Record], bool]) -> None:
    inode.locks = [one for one in inode.locks or () if not goes(one)] or None
