"""What pseudo-terminals need of processes: signals for groups and sessions, and who is asking."""

from __future__ import annotations

from errno import ENXIO
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux import jobs
from loadstone.linux.console import Console
from loadstone.linux.signal import sending, signals
from loadstone.linux.signal.signals import SIGCONT, SIGHUP
from loadstone.vfs.inode import ROOT

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.vfs.inode import Identity
    from loadstone.vfs.pty import Pty


class Processes:
    """Implements `vfs.devpts.ProcessSide` for a machine."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def signal_group(self, group: int, number: int) -> None:
        """The kernel sends a signal to a whole group."""
        jobs.send_group(self._kernel, group, number)

    def hang_up(self, session: int) -> None:
        """The leader gets SIGHUP and SIGCONT (tty_signal_session_leader)."""
        leader = self._kernel.processes.get(session)
        if leader is not None and leader.status is None:
            sending.send(leader, signals.from_kernel(SIGHUP))
            sending.send(leader, signals.from_kernel(SIGCONT))

    def controlling(self) -> Pty | None:
        """The caller's controlling terminal; None for the host's. Raises LinuxError(ENXIO) if it has none."""
        task = self._kernel.scheduler.current
        if task is None:
            return None
        terminal = jobs.controlling(task.process)
        if terminal is None:
            raise LinuxError(ENXIO, "the session has no controlling terminal")
        return None if isinstance(terminal, Console) else terminal

    def caller(self) -> Identity:
        """Who opens a file now."""
        task = self._kernel.scheduler.current
        return task.process.credentials if task is not None else ROOT
