"""Structures in user memory, read and written whole: EFAULT unless all of it is there."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING, Any

from loadstone.errors import LinuxError
from loadstone.linux.structs import SECOND, TIMESPEC
from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from struct import Struct

    from loadstone.kernel.process import Task

KTIME_MAX = (1 << 63) - 1  # ns: no time-out is longer


def read_struct(task: Task, address: int, layout: Struct) -> tuple[Any, ...]:
    """One structure."""
    return layout.unpack(copy_in(task.process.space, address, layout.size))


def write_struct(task: Task, address: int, layout: Struct, *values: int) -> None:
    """One structure."""
    copy_out(task.process.space, address, layout.pack(*values))


def read_time(task: Task, address: int) -> int:
    """A struct timespec as ns, KTIME_MAX at most (timespec64_to_ktime); EINVAL for what is no time."""
    seconds, nanoseconds = read_struct(task, address, TIMESPEC)
    if seconds < 0 or not 0 <= nanoseconds < SECOND:
        raise LinuxError(EINVAL, "the time is not valid")
    return min(int(seconds) * SECOND + int(nanoseconds), KTIME_MAX)
