"""Two sources for the handlers that need no machine: bytes, and a host file."""

from __future__ import annotations

import os
import stat
from errno import EACCES

from loadstone.errors import LinuxError


class BytesSource:
    """A file that exists only in memory."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        return self.data[offset : offset + length]


class HostSource:
    """A host file opened for planning, by the rules of do_open_execat: a regular file that someone may execute.

    A context manager. Raises LinuxError (ENOENT, EACCES, ELOOP, ...) like `execve` would.
    """

    __slots__ = ("_fd", "size")

    def __init__(self, path: str | bytes) -> None:
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise LinuxError(EACCES, "not a regular file")
            if not os.access(path, os.X_OK, effective_ids=True):
                raise LinuxError(EACCES, "no execute permission")
            # O_NONBLOCK: should the file be exchanged for a FIFO meanwhile, the open does not hang.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise LinuxError(error.errno or EACCES) from None
        self.size = status.st_size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise LinuxError(error.errno or EACCES, error.strerror or "") from None

    def close(self) -> None:
        """Close the host file."""
        os.close(self._fd)

    def __enter__(self) -> HostSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
