"""Structures in user memory, and the ones that many calls share. EFAULT unless all of it is there."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from loadstone.kernel.process import Task

TIMESPEC = Struct("<qq")
TIMEVAL = Struct("<qq")
INT = Struct("<i")
UNSIGNED = Struct("<I")
WORD = Struct("<Q")
SECOND = 1_000_000_000


def read_struct(task: Task, address: int, layout: Struct) -> tuple[Any, ...]:
    """One structure."""
    return layout.unpack(copy_in(task.process.space, address, layout.size))


def write_struct(task: Task, address: int, layout: Struct, *values: int) -> None:
    """One structure."""
    copy_out(task.process.space, address, layout.pack(*values))
