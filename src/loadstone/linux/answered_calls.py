"""Calls whose answer is known before they are made.

An optimisation of Loadstone's own, beside answered_signals.py and answered_reads.py. Of the forty calls that a shell
and the program it starts make, eight only ask which thread this is or where the break is, or tell the kernel what it
will need when the thread ends, or close a file that was read. A core that can (machine.kvm_foreseen) answers them with
what is said here, while nobody listens to system calls, traces a process or filters its calls, and has them carried out
when the program is out of the guest, by the very functions that would have answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.kvm_foreseen import ARCH_PRCTL, BRK, GETPID, GETTID, SET_ROBUST_LIST, SET_TID_ADDRESS
from loadstone.vfs.flags import O_ACCMODE, O_PATH, O_RDONLY
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.dispatch import SystemCalls

_NO_ARGUMENTS = (0, 0, 0, 0, 0, 0)


class AnsweredCalls:
    """Implements `machine.kvm_foreseen.CallsKeeper`. `calls`: how many were answered in the guest."""

    def __init__(self, kernel: Kernel, calls: SystemCalls) -> None:
        self._kernel = kernel
        self._system_calls = calls
        self._rows = calls.registry.row
        self.calls = 0

    def may_answer(self) -> bool:
        """Whether nobody listens to the calls of the thread that runs, traces or filters them."""
        task = self._kernel.scheduler.current
        return task is not None and not self._system_calls.are_watched(task)

    def foreseen(self) -> list[tuple[int, int]]:
        """Number and answer, for the thread that is about to run."""
        task = self._kernel.scheduler.current
        if task is None:
            return []
        tid = self._ask(task, GETTID)
        return [
            (BRK, self._ask(task, BRK)), (GETPID, self._ask(task, GETPID)), (GETTID, tid), (SET_TID_ADDRESS, tid),
            (SET_ROBUST_LIST, 0), (ARCH_PRCTL, 0),
        ]  # fmt: skip

    def closes_quietly(self, descriptor: int) -> bool:
        """Whether `descriptor` is of a regular file, open for reading, in a table that no other process has."""
        task = self._kernel.scheduler.current
        if task is None or task.process.files.shared or descriptor not in task.process.files:
            return False
        file = task.process.files.get(descriptor)
        return isinstance(file.inode, RegularFile) and file.flags & (O_ACCMODE | O_PATH) == O_RDONLY

    def carry_out(self, number: int, first: int, second: int) -> None:
        """The running thread has made this call, with the answer that was foreseen."""
        task, row = self._kernel.scheduler.current, self._rows(number)
        row.calls += 1
        self.calls += 1
        if task is None or row.invoke is None or number == ARCH_PRCTL:  # the base of FS is set already
            return
        try:
            row.invoke(task, (number, first, second, 0, 0, 0, 0))
        except LinuxError:  # the program has made the note of it, and not the call
            return

    def _ask(self, task: Task, number: int) -> int:
        invoke = self._rows(number).invoke
        assert invoke is not None
        return int(invoke(task, (number, *_NO_ARGUMENTS)))
