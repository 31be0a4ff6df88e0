"""Changes of a signal mask that are answered without leaving the guest.

An optimisation of Loadstone's own, beside answered_reads.py: a shell calls rt_sigprocmask(2) ten times for each process
that it starts. A core that can answers it (machine.kvm_entry) while that call is nothing but a change of a number: no
signal is pending for the thread or its process, and nobody listens to system calls or traces a process. The number is
taken over whenever the program is out of the guest, before anybody can look at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.syscalls.dispatch import SystemCalls

_RT_SIGPROCMASK = 14  # the number of rt_sigprocmask(2)


class AnsweredMasks:
    """Implements `machine.kvm_entry.MaskKeeper`. `calls`: how many were answered in the guest."""

    def __init__(self, kernel: Kernel, calls: SystemCalls) -> None:
        self._kernel = kernel
        self._system_calls = calls
        self._row = calls.registry.row(_RT_SIGPROCMASK)
        self.calls = 0

    def mask(self) -> int:
        """The signals that the running thread blocks; -1: the next change of them is for the kernel."""
        task = self._kernel.scheduler.current
        if task is None or self._kernel.events.syscall or self._system_calls.tracing is not None:
            return -1
        signals = task.signals
        if signals.pending.mask or task.process.signals.pending.mask:
            return -1
        mask: int = signals.mask
        return mask

    def changed(self, mask: int, calls: int) -> None:
        """The running thread has made `calls` calls, after which it blocks `mask`."""
        self._row.calls += calls
        self.calls += calls
        task = self._kernel.scheduler.current
        if task is not None:
            task.signals.mask = mask
