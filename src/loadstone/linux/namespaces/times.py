"""Time namespaces: how far CLOCK_MONOTONIC and CLOCK_BOOTTIME are ahead of the machine's (kernel/time/namespace.c)."""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM, ERANGE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SYS_TIME, capable_in
from loadstone.linux.clone_flags import CLONE_NEWTIME
from loadstone.linux.namespaces.base import FIRST_TIME, Namespace

if TYPE_CHECKING:
    from loadstone.kernel.process import Process
    from loadstone.linux.namespaces.users import UserNamespace

NS = 1_000_000_000
_PAGE = 4096
_LONGEST_S = 9_223_372_036  # KTIME_SEC_MAX
_CLOCKS = {b"monotonic": "monotonic", b"1": "monotonic", b"boottime": "boottime", b"7": "boottime"}


class TimeNamespace(Namespace):
    """Offsets of clocks, in ns.

    Attributes:
        monotonic, boottime: how far the clocks are ahead.
        begun: somebody is in it, so that the offsets stay as they are.
    """

    __slots__ = ("begun", "boottime", "monotonic")

    kind = "time"
    flag = CLONE_NEWTIME

    def __init__(self, number: int, owner: UserNamespace, monotonic: int = 0, boottime: int = 0) -> None:
        super().__init__(number, owner)
        self.monotonic = monotonic
        self.boottime = boottime
        self.begun = number == FIRST_TIME

    def copy(self, number: int, owner: UserNamespace) -> TimeNamespace:
        """A new one begins with the offsets of the old one."""
        return TimeNamespace(number, owner, self.monotonic, self.boottime)

    def shown(self) -> bytes:
        """/proc/PID/timens_offsets."""
        rows = (("monotonic", self.monotonic), ("boottime", self.boottime))
        return "".join(f"{name:<10} {ns // NS:10d} {ns % NS:9d}\n" for name, ns in rows).encode()

    def write(self, writer: Process, now_ns: int, data: bytes) -> None:
        """Set offsets, before anybody is in the namespace (proc_timens_set_offset). Two lines count, more are ignored.

        Raises LinuxError: EINVAL, EPERM without CAP_SYS_TIME, ERANGE for clocks out of range, EACCES once it has begun.
        """
        if len(data) >= _PAGE:
            raise LinuxError(EINVAL)
        offsets = [_parsed(line) for line in data.removesuffix(b"\n").split(b"\n")[:2]]
        if not capable_in(writer.credentials, self.owner, CAP_SYS_TIME):
            raise LinuxError(EPERM, "clocks are set with CAP_SYS_TIME")
        for _, seconds, _ in offsets:
            if abs(seconds) > _LONGEST_S or not 0 <= now_ns // NS + seconds <= _LONGEST_S // 2:
                raise LinuxError(ERANGE, f"{seconds} seconds ahead")
        if self.begun:
            raise LinuxError(EACCES, "somebody is in the time namespace")
        for clock, seconds, rest in offsets:
            setattr(self, clock, seconds * NS + rest)


def _parsed(line: bytes) -> tuple[str, int, int]:
    """`clock seconds nanoseconds`."""
    words = line.split()
    if len(words) != 3 or words[0] not in _CLOCKS or not words[1].removeprefix(b"-").isdigit():
        raise LinuxError(EINVAL, f"no offset of a clock: {line!r}")
    if not words[2].isdigit() or int(words[2]) >= NS:
        raise LinuxError(EINVAL, f"no number of nanoseconds: {words[2]!r}")
    return _CLOCKS[words[0]], int(words[1]), int(words[2])
