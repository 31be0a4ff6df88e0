"""The errors that cross rooms. Depends on nothing."""

from __future__ import annotations

import errno as _errno
import os

_USUAL = {_errno.EOPNOTSUPP: "EOPNOTSUPP", _errno.EDEADLK: "EDEADLK"}  # of the names that one number has


def errno_name(number: int) -> str:
    """The name that the kernel gives an errno: `ENOEXEC`; the number where it has none."""
    return _USUAL.get(number) or _errno.errorcode.get(number, str(number))


class LinuxError(Exception):
    """An operation that failed with an errno, and one sentence for a person.

    Raised, never returned: the system-call dispatcher turns it into `-errno`, the command line into a message.

    Attributes:
        errno: the positive number of `<errno.h>`, as in the standard module `errno`.
        why: what exactly is wrong, for a person; empty where the errno says it all.
        fatal_signal: the signal that kills the process when the kernel fails after the point of no return, else None.
    """

    def __init__(self, errno: int, why: str = "", fatal_signal: int | None = None) -> None:
        super().__init__(errno, why)
        self.errno = errno
        self.why = why
        self.fatal_signal = fatal_signal

    @property
    def name(self) -> str:
        """The errno's name: `ENOEXEC`."""
        return errno_name(self.errno)

    def __str__(self) -> str:
        text = f"{os.strerror(self.errno)} ({self.name})"
        return f"{text}: {self.why}" if self.why else text


class OutOfFrames(Exception):  # noqa: N818 - the field's word for it
    """The machine has no free frame left; the kernel answers with an out-of-memory kill."""


class HostError(Exception):
    """Loadstone itself cannot go on: a missing library, a host that does not fit, a wrong option. Exit status 125."""
