"""The CPUs of a machine, as the scheduler sees them: who runs on which, and who ran there before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.kernel.policies import SLICE

if TYPE_CHECKING:
    from loadstone.kernel.process import Task


class Cpu:
    """One CPU of the machine: who ran there last, and how much work it has done.

    `ran`: work of `last` since it came there. `stay`: what telling.py keeps of it while somebody listens.
    """

    __slots__ = ("busy", "last", "number", "ran", "stay")

    def __init__(self, number: int) -> None:
        self.number = number
        self.last: Task | None = None
        self.busy = 0
        self.ran = 0
        self.stay: Any = None


class Cpus:
    """All of them.

    Attributes:
        thread_switches, process_switches: how often a CPU went to another task with the same page directory, and with
            another one.
    """

    __slots__ = ("_all", "process_switches", "thread_switches")

    def __init__(self, count: int) -> None:
        self._all = [Cpu(number) for number in range(count)]
        self.thread_switches = self.process_switches = 0

    def __getitem__(self, number: int) -> Cpu:
        return self._all[number]

    def place(self, task: Task, alone: bool) -> Cpu:
        """The CPU for the next slice: the last one, unless the task may not run there or that one has done much more.

        `alone`: nobody else can run.
        """
        cpus = self._all
        cpu = cpus[task.cpu]
        if len(cpus) == 1:
            return cpu
        if alone and task.affinity is None:
            for other in cpus:  # the other CPUs idle meanwhile, and have nothing to catch up with
                other.busy = cpu.busy
            return cpu
        allowed = [one for one in cpus if task.affinity is None or task.affinity >> one.number & 1]
        least = min(allowed, key=lambda one: one.busy)
        if cpu not in allowed or cpu.busy - least.busy > SLICE:
            return least
        return cpu

    def hand_over(self, cpu: Cpu, task: Task) -> bool:
        """The CPU goes to a task that is not its last one; whether both are in the same memory."""
        last, cpu.last = cpu.last, task
        task.switches += 1
        same = last is not None and last.process.space is task.process.space
        if last is not None and same:
            self.thread_switches += 1
        elif last is not None:
            self.process_switches += 1
        return same
