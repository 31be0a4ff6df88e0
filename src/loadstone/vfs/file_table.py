"""The descriptors of a process: small numbers for open file descriptions."""

from __future__ import annotations

from errno import EBADF, EINVAL, EMFILE, ENFILE
from itertools import compress
from typing import TYPE_CHECKING, cast

from loadstone.errors import LinuxError
from loadstone.vfs.flags import O_PATH

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile

DEFAULT_LIMIT = 1024
MOST_DESCRIPTORS = 1 << 18


class Room:
    """How many descriptors there may be in the whole machine, and how many there are (kernel: fs.file-max).

    `refused`: how often there was no room for another one.
    """

    __slots__ = ("most", "refused", "used")

    def __init__(self, most: int = MOST_DESCRIPTORS) -> None:
        self.most = most
        self.used = self.refused = 0

    def require(self, count: int = 1) -> None:
        """ENFILE if there is no room for `count` more."""
        if self.used + count > self.most:
            self.refused += 1
            raise LinuxError(ENFILE, f"the machine may have {self.most} descriptors (--max-files)")


class FileTable:
    """fd -> (open file description, close-on-exec). The lowest free number is always given out.

    `limit` is the soft RLIMIT_NOFILE: numbers are below it. `room` is the machine's.
    """

    __slots__ = ("_cloexec", "_files", "_lowest", "_room", "_users", "limit")

    def __init__(self, limit: int = DEFAULT_LIMIT, room: Room | None = None) -> None:
        self.limit = limit
        self._room = room if room is not None else Room()
        self._files: list[OpenFile | None] = []
        self._lowest = 0  # every number below it is taken (kernel: next_fd), so that nobody searches there
        self._cloexec: set[int] = set()
        self._users = 1

    @property
    def shared(self) -> bool:
        """Whether several processes use it (CLONE_FILES)."""
        return self._users > 1

    def share(self) -> FileTable:
        """One process more uses it."""
        self._users += 1
        return self

    def drop(self) -> None:
        """One process less uses it; the last one's exit closes everything."""
        self._users -= 1
        if not self._users:
            self.close_all()

    def get(self, fd: int) -> OpenFile:
        """The open file description; EBADF."""
        if 0 <= fd < len(self._files):
            file = self._files[fd]
            if file is not None:
                return file
        raise LinuxError(EBADF, f"descriptor {fd} is not open")

    def __contains__(self, fd: object) -> bool:
        """Whether `fd` is open."""
        return isinstance(fd, int) and 0 <= fd < len(self._files) and self._files[fd] is not None

    def install(self, file: OpenFile, *, cloexec: bool = False, minimum: int = 0) -> int:
        """Give `file` the lowest free descriptor from `minimum` on; EMFILE."""
        fd = self.free(minimum)
        self._set(fd, file, cloexec)
        return fd

    def inherit(self, file: OpenFile, fd: int) -> None:
        """Have `file` as descriptor `fd` from the beginning, whatever the limit."""
        self._set(fd, file, False)

    def free(self, minimum: int = 0) -> int:
        """The lowest free number from `minimum` on; EMFILE. Ask before an open that has effects."""
        files = self._files
        try:
            fd = files.index(None, max(minimum, self._lowest))
        except ValueError:
            fd = max(len(files), minimum)
        if minimum <= self._lowest:
            self._lowest = fd
        if fd >= self.limit:
            raise LinuxError(EMFILE, f"the process may have {self.limit} descriptors (RLIMIT_NOFILE)")
        self._room.require()
        return fd

    def _set(self, fd: int, file: OpenFile, cloexec: bool) -> None:
        files = self._files
        if fd >= len(files):
            files.extend([None] * (fd + 1 - len(files)))
        if files[fd] is None:
            self._room.require()
            self._room.used += 1
        files[fd] = file
        file.hold()
        if cloexec:
            self._cloexec.add(fd)
        else:
            self._cloexec.discard(fd)

    def close(self, fd: int) -> None:
        """Close one descriptor; EBADF."""
        file = self.get(fd)
        self._files[fd] = None
        self._lowest = min(self._lowest, fd)
        self._room.used -= 1
        self._cloexec.discard(fd)
        self._release(file)

    def _release(self, file: OpenFile) -> None:
        """A descriptor is gone, and with it all record locks of this table on the file (locks_remove_posix)."""
        locks = file.inode.locks
        if locks is not None and not file.flags & O_PATH:
            locks.release_owner(self)
        file.close()

    def dup(self, fd: int, minimum: int = 0, cloexec: bool = False) -> int:
        """dup(2), and fcntl(2) F_DUPFD with its minimum; EINVAL if that is past the limit."""
        file = self.get(fd)
        if not 0 <= minimum < self.limit:
            raise LinuxError(EINVAL)
        return self.install(file, cloexec=cloexec, minimum=minimum)

    def dup2(self, old: int, new: int) -> int:
        """dup2(2): nothing if they are the same."""
        if old == new:
            self.get(old)
            return new
        return self._replace(old, new, False)

    def dup3(self, old: int, new: int, cloexec: bool) -> int:
        """dup3(2): EINVAL if they are the same."""
        if old == new:
            raise LinuxError(EINVAL)
        return self._replace(old, new, cloexec)

    def _replace(self, old: int, new: int, cloexec: bool) -> int:
        return self.put(self.get(old), new, cloexec=cloexec)

    def put(self, file: OpenFile, new: int, *, cloexec: bool = False) -> int:
        """Have `file` as descriptor `new`, in the place of what that was; EBADF past the limit."""
        if not 0 <= new < self.limit:
            raise LinuxError(EBADF, f"descriptor {new} is not below the limit of {self.limit}")
        before = self._files[new] if new < len(self._files) else None
        self._set(new, file, cloexec)
        if before is not None:
            self._release(before)
        return new

    def is_cloexec(self, fd: int) -> bool:
        """FD_CLOEXEC; EBADF."""
        self.get(fd)
        return fd in self._cloexec

    def set_cloexec(self, fd: int, value: bool) -> None:
        """Set FD_CLOEXEC; EBADF."""
        self.get(fd)
        if value:
            self._cloexec.add(fd)
        else:
            self._cloexec.discard(fd)

    def close_on_exec(self) -> None:
        """What exec closes."""
        for fd in sorted(self._cloexec):
            self.close(fd)

    def close_all(self) -> None:
        """What exit closes."""
        for fd, _ in self.items():
            self.close(fd)

    def close_range(self, first: int, last: int) -> None:
        """close_range(2) without flags."""
        for fd, _ in self.items():
            if first <= fd <= last:
                self.close(fd)

    def clone(self) -> FileTable:
        """What fork gives the child: the same open file descriptions."""
        files = [file for _, file in self.items()]
        self._room.require(len(files))
        self._room.used += len(files)
        other = FileTable(self.limit, self._room)
        other._files, other._cloexec = self._files.copy(), self._cloexec.copy()
        for file in files:
            file.hold()
        return other

    def items(self) -> list[tuple[int, OpenFile]]:
        """All (fd, open file description), ascending."""
        numbered = compress(enumerate(self._files), self._files)  # most are free: a shell has one at 255
        return cast("list[tuple[int, OpenFile]]", list(numbered))
