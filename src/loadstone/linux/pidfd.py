"""Descriptors that stand for a process (kernel/pid.c, fs/pidfs.c): to poll for its end, to wait for, to signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.vfs.flags import POLLHUP, POLLIN, POLLRDNORM

if TYPE_CHECKING:
    from loadstone.kernel.process import Process
    from loadstone.vfs.vfs import Vfs


class PidFile(AnonymousFile):
    """A pidfd. It can be read when the process has ended."""

    __slots__ = ("process",)

    kind = "pidfd"

    def __init__(self, vfs: Vfs, process: Process, flags: int = 0) -> None:
        super().__init__(vfs, flags)
        self.process = process
        self.read_queue = process.ending

    def ready(self) -> int:
        """POLLIN once it is a zombie; POLLHUP as well once its parent has waited for it."""
        process = self.process
        if process.status is None:
            return 0
        gone = process.kernel.processes.get(process.pid) is not process
        return POLLIN | POLLRDNORM | (POLLHUP if gone else 0)
