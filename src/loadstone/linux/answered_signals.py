"""Changes of signal masks and actions that are answered without leaving the guest.

An optimisation of Loadstone's own, beside answered_reads.py: a shell calls rt_sigprocmask(2) ten times and
rt_sigaction(2) eight times for each process that it starts. A core that can answers them (machine.kvm_entry) while they
are nothing but changes of numbers: no signal is pending for the thread or its process, and nobody listens to system
calls or traces a process. The numbers are taken over whenever the program is out of the guest, before anybody can look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux import signals as linux_signals
from loadstone.linux.signals import SA_KNOWN, UNBLOCKABLE, Action, Actions

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.syscalls.dispatch import SystemCalls

_RT_SIGACTION, _RT_SIGPROCMASK = 13, 14  # numbers of calls


class AnsweredSignals:
    """Implements `machine.kvm_entry.SignalsKeeper`. `calls`: how many were answered in the guest."""

    def __init__(self, kernel: Kernel, calls: SystemCalls) -> None:
        self._kernel = kernel
        self._system_calls = calls
        self._action_row, self._mask_row = (calls.registry.row(number) for number in (_RT_SIGACTION, _RT_SIGPROCMASK))
        self.calls = 0

    def state(self) -> tuple[int, Actions] | None:
        """What the running thread blocks, and what its process does with signals; None: a change is for the kernel."""
        task = self._kernel.scheduler.current
        if task is None or self._kernel.events.syscall or self._system_calls.tracing is not None:
            return None
        shared = task.process.signals
        if task.signals.pending.mask or shared.pending.mask:
            return None
        return task.signals.mask, shared.actions

    def mask_changed(self, mask: int, calls: int) -> None:
        """The running thread has made `calls` calls, after which it blocks `mask`."""
        self._mask_row.calls += calls
        self.calls += calls
        task = self._kernel.scheduler.current
        if task is not None:
            task.signals.mask = mask

    def actions_changed(self, changes: list[tuple[int, ...]], calls: int) -> None:
        """It has made `calls` calls, which set these: signal, handler, flags, restorer, mask."""
        self._action_row.calls += calls
        self.calls += calls
        task = self._kernel.scheduler.current
        if task is not None:
            for number, handler, flags, restorer, mask in changes:
                action = Action(handler, flags & SA_KNOWN, restorer, mask & ~UNBLOCKABLE)
                linux_signals.set_action(task.process, number, action)
