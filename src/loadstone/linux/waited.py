"""What wait4(2) and waitid(2) ask for, and what they are told: of children, and of threads that a process traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple, Protocol

if TYPE_CHECKING:
    from loadstone.kernel.process import Usage

# include/uapi/linux/wait.h
WNOHANG, WUNTRACED, WEXITED, WCONTINUED, WNOWAIT = 1, 2, 4, 8, 0x1000000
WNOTHREAD, WALL, WCLONE = 0x20000000, 0x40000000, 0x80000000
P_ALL, P_PID, P_PGID, P_PIDFD = range(4)


class Selectable(Protocol):
    """What a wait selects by."""

    @property
    def pid(self) -> int:
        """The number of a process, or of a traced thread."""

    @property
    def group(self) -> int:
        """Its process group."""


class Report(NamedTuple):
    """What a wait found: the child or traced thread `pid` of user `uid`, and a change of it.

    `code` is a CLD_…, `value` its si_status. `status` is the status word of wait(2).
    """

    pid: int
    uid: int
    code: int
    value: int
    usage: Usage
    status: int
