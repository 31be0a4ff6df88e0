"""Descriptors that stand for a process (kernel/pid.c, fs/pidfs.c): to poll for its end, to wait for, to signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.linux.of_task import pid_seen
from loadstone.vfs.flags import POLLHUP, POLLIN, POLLRDNORM

if TYPE_CHECKING:
    from loadstone.kernel.process import Process
    from loadstone.vfs.vfs import Vfs


class PidFile(AnonymousFile):
    """A pidfd. It can be read when the process has ended."""

    __slots__ = ("process",)

    kind = "pidfd"
    seeks = False

    def __init__(self, vfs: Vfs, process: Process, flags: int = 0) -> None:
        super().__init__(vfs, flags)
        self.process = process
        self.read_queue = process.ending

    def details(self) -> bytes:
        """The number as who reads it sees it, -1 once somebody has waited for the process (pidfd_show_fdinfo)."""
        process = self.process
        reader = process.kernel.scheduler.current
        pid = -1 if self.gone or reader is None else pid_seen(reader.process, process.pid)
        return f"Pid:\t{pid}\nNSpid:\t{pid}\n".encode()

    @property
    def gone(self) -> bool:
        """Whether its parent has waited for the process."""
        return self.process.kernel.processes.get(self.process.pid) is not self.process

    def ready(self) -> int:
        """POLLIN once it is a zombie; POLLHUP as well once its parent has waited for it."""
        process = self.process
        if process.status is None:
            return 0
        return POLLIN | POLLRDNORM | (POLLHUP if self.gone else 0)
