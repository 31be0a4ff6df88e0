"""Changes of signal masks and actions that the core answers by itself.

An optimisation of Loadstone's own, beside answered_reads.py: a shell calls rt_sigprocmask(2) ten times and
rt_sigaction(2) eight times for each process that it starts. The core (machine.kvm_entry, machine.unicorn_signals)
answers them while they are nothing but changes of numbers: no signal is pending for the thread or its process, and
nobody listens to system calls, traces a process or filters its calls. The numbers are taken over whenever the
program stops, before anybody can look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.signal.signals import SA_KNOWN, UNBLOCKABLE, Action, Actions
from loadstone.machine.signals_keeper import SIGACTION, SIGPROCMASK

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.syscalls.dispatch import SystemCalls


class AnsweredSignals:
    """Implements `machine.signals_keeper.SignalsKeeper`. `calls`: how many the core answered."""

    def __init__(self, kernel: Kernel, calls: SystemCalls) -> None:
        self._kernel = kernel
        self._system_calls = calls
        self.calls = 0

    def state(self) -> tuple[int, Actions] | None:
        """What the running thread blocks, and what its process does with signals; None: a change is for the kernel."""
        task = self._kernel.scheduler.current
        if task is None or self._system_calls.are_watched(task):
            return None
        shared = task.process.signals
        if task.signals.pending.mask or shared.pending.mask:
            return None
        return task.signals.mask, shared.actions

    def set_action(self, number: int, handler: int, flags: int, restorer: int, mask: int) -> None:
        """The running thread has made a change that is not in the table yet."""
        task = self._kernel.scheduler.current
        if task is not None:
            task.process.signals.actions[number] = Action(handler, flags & SA_KNOWN, restorer, mask & ~UNBLOCKABLE)

    def answered(self, mask: int, mask_calls: int, action_calls: int) -> None:
        """The running thread has made so many calls of each kind, after which it blocks `mask`."""
        registry = self._system_calls.registry
        registry.row(SIGPROCMASK).calls += mask_calls
        registry.row(SIGACTION).calls += action_calls
        self.calls += mask_calls + action_calls
        scheduler = self._kernel.scheduler
        scheduler.kernel_time.count(mask_calls + action_calls)
        if scheduler.current is not None:
            scheduler.current.signals.mask = mask
