"""/proc/sys/kernel/seccomp: the actions that there are, and those that are to be logged (`man 2 seccomp`)."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.proc.settings import Line, fixed

if TYPE_CHECKING:
    from loadstone.linux.proc.settings import Settings

_NAMES = (b"kill_process", b"kill_thread", b"trap", b"errno", b"user_notif", b"trace", b"log", b"allow")
_NEVER_LOGGED = b"allow"


class _Logged:
    """The actions that are to be logged. It is kept for who reads it: the machine has no audit log."""

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names = tuple(name for name in _NAMES if name != _NEVER_LOGGED)

    def choose(self, line: bytes) -> None:
        """Names, with one space between them, up to the first empty one; EINVAL for an unknown one, and for allow."""
        wanted = line.partition(b"  ")[0].split(b" ") if line else []
        given = [name for name in wanted if name]
        if not set(given) <= set(_NAMES) - {_NEVER_LOGGED}:
            raise LinuxError(EINVAL, f"actions to be logged: {line!r}")
        self.names = tuple(name for name in _NAMES if name in given)


def seccomp_settings() -> Settings:
    """As they are when the machine starts."""
    logged, available = _Logged(), b" ".join(_NAMES)
    return {
        "actions_avail": fixed(available.decode()),
        "actions_logged": Line(lambda: b" ".join(logged.names), logged.choose, len(available)),
    }
