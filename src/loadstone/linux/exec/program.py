"""A file that is to be executed: whether it may be, and as whom it will run.

Sources: fs/exec.c (do_open_execat, bprm_fill_uid), security/commoncap.c (cap_bprm_creds_from_file).
"""

from __future__ import annotations

import os
from errno import EACCES, ELOOP, ENAMETOOLONG, ENOENT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.vfs.flags import PATH_MAX, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID, X_OK
from loadstone.vfs.inode import may
from loadstone.vfs.location import MNT_NOSUID

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Credentials
    from loadstone.linux.namespaces.users import UserNamespace
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Location
    from loadstone.vfs.regular import RegularFile


class ExecCredentials(NamedTuple):
    """Who executes: real and effective ids, the supplementary groups, and the user namespace, None for the first."""

    uid: int
    euid: int
    gid: int
    egid: int
    groups: tuple[int, ...] = ()
    users: UserNamespace | None = None

    @classmethod
    def of(cls, who: Credentials) -> ExecCredentials:
        """Those of a process."""
        return cls(who.uid, who.euid, who.gid, who.egid, who.groups, who.users)

    def rules(self, inode: Inode, capability: int) -> bool:
        """No capability makes a file executable."""
        return False

    @property
    def fsuid(self) -> int:
        """The user whose rights on files count."""
        return self.euid

    @property
    def fsgid(self) -> int:
        """The group whose rights on files count."""
        return self.egid


class Opened(NamedTuple):
    """A program that execveat(2) found by way of a descriptor; it executes by the name /dev/fd/N or /dev/fd/N/PATH.

    `nameless`: there was no path besides the descriptor. `inaccessible`: the descriptor is closed on exec, so that no
    interpreter will find anything by that name.
    """

    location: Location
    nameless: bool
    inaccessible: bool


class Program:
    """A file opened for execution (the kernel's `struct file` of an exec). A `binfmt.plan.Source`."""

    __slots__ = ("inode", "location", "name", "path")

    def __init__(self, location: Location, name: str, who: ExecCredentials) -> None:
        """The checks of do_open_execat() on what `name` led to."""
        self.location = location
        self.name = name
        self.path = location.path
        self.inode: RegularFile = _executable(location, name, who)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.inode.size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        length = min(length, max(self.inode.size - offset, 0))
        if length <= 0:
            return b""
        data = bytearray(length)
        try:
            done = self.inode.read_into([memoryview(data)], offset)
        except LinuxError as error:
            if error.errno == EACCES and not error.why:  # the kernel reads for itself what its user may only execute
                error.why = (
                    f"{self.name} may be executed here, but not read: Loadstone reads with the rights of its user"
                )
            raise
        return bytes(data[:done])


def check_open(find: Callable[[str], Location], path: str, who: ExecCredentials, opened: Opened | None) -> Program:
    """do_open_execat(): the file, which may be executed; `find` looks for it. Raises LinuxError."""
    if opened is not None:
        return Program(opened.location, path, who)
    if not path:
        raise LinuxError(ENOENT, "the path is empty")
    if len(os.fsencode(path)) >= PATH_MAX:
        raise LinuxError(ENAMETOOLONG, f"the path is longer than {PATH_MAX - 1} bytes")
    return Program(find(path), path, who)


def _executable(location: Location, name: str, who: ExecCredentials) -> RegularFile:
    """may_open() and do_open_execat(): a regular file that may be executed here, and that nobody is writing."""
    inode = location.inode
    kind = inode.mode & S_IFMT
    if kind == S_IFDIR:
        raise LinuxError(EACCES, f"{name} is a directory")
    if kind == S_IFLNK:
        raise LinuxError(ELOOP, f"{name} is a symbolic link, and links are not to be followed")
    if kind != S_IFREG:
        raise LinuxError(EACCES, f"{name} is not a regular file")
    if location.noexec:
        raise LinuxError(EACCES, f"{name} is on a file system from which nothing may be executed (noexec)")
    if not may(inode, X_OK, who):
        raise LinuxError(EACCES, f"{name} (mode {inode.mode & 0o7777:04o}) gives no execute permission")
    file: RegularFile = inode  # type: ignore[assignment]  # S_IFREG on what is not noexec, as /proc is
    try:
        file.demand_unwritten()
    except LinuxError as error:
        raise LinuxError(error.errno, f"{name}: {error.why}") from None
    return file


def file_credentials(program: Program, who: ExecCredentials) -> tuple[ExecCredentials, bool]:
    """The credentials after exec, and AT_SECURE (bprm_fill_uid, cap_bprm_creds_from_file)."""
    inode = program.inode
    euid, egid = who.euid, who.egid
    mode = inode.mode if not program.location.mount.flags & MNT_NOSUID else 0
    if mode & S_ISUID:
        euid = inode.uid
    if mode & (S_ISGID | 0o010) == S_ISGID | 0o010:
        egid = inode.gid
    if (euid, egid) != (who.euid, who.egid):
        who = who._replace(euid=euid, egid=egid)
    return who, euid != who.uid or egid != who.gid
