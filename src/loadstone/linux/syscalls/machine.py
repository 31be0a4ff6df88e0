"""What system calls keep for the whole machine: the Linux personality, with its type."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.personality import Linux


def linux_of(task: Task) -> Linux:
    """The personality of the machine on which `task` runs."""
    return cast("Linux", task.kernel.personality)
