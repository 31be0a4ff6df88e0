"""The events `run` and `wake`: who stayed on which CPU for how long, and who let whom go on.

Imported only while somebody listens, so that a scheduler nobody watches carries none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.events import Run, Wake, publish
from loadstone.kernel.process import RUNNABLE

if TYPE_CHECKING:
    from loadstone.kernel.cpus import Cpu
    from loadstone.kernel.process import Task
    from loadstone.kernel.scheduler import Scheduler


class Stay:
    """A task's stay on a CPU that goes on. Times in ns; `work`: the CPU's count of it when the stay began."""

    __slots__ = ("end", "start", "task", "work")

    def __init__(self, task: Task, start: int, work: int) -> None:
        self.task = task
        self.start = start
        self.end = start  # of its last slice so far
        self.work = work


def enters(scheduler: Scheduler, cpu: Cpu, before: Cpu, task: Task) -> None:
    """The task's slice on `cpu` begins; it was on the CPU `before` last. Whose stay that ends has used its slice up."""
    if before is not cpu and before.stay is not None and before.stay.task is task:
        _tell(before, "slice-end", "")
    stay = cpu.stay
    if stay is not None and stay.task is not task:
        _tell(cpu, "slice-end", "")
    if cpu.stay is None:
        # the CPU begins to count anew when another task comes
        cpu.stay = Stay(task, scheduler.time_ns(), cpu.ran if cpu.last is task else 0)


def leaves(scheduler: Scheduler, cpu: Cpu, task: Task) -> None:
    """The task's slice is over; if it cannot go on, so is its stay."""
    stay = cpu.stay
    if stay is None:  # it ended, or somebody began to listen in the slice
        return
    stay.end = scheduler.time_ns()
    if task.state != RUNNABLE:
        _tell(cpu, task.why, scheduler.what(task))


def ends(scheduler: Scheduler, cpu: Cpu, task: Task, since: int) -> None:
    """The task has ended, before its process does: the end of a process is its last event.

    `since`: work of the slice that runs now.
    """
    stay = cpu.stay
    if stay is None or stay.task is not task:
        return
    if scheduler.inside is task:
        stay.end = scheduler.time_ns()
        stay.work -= since
    _tell(cpu, "exited", "")


def _tell(cpu: Cpu, why: str, waits_for: str) -> None:
    stay: Stay = cpu.stay
    cpu.stay = None
    task, work = stay.task, cpu.ran - stay.work
    record = Run(task.process.pid, task.tid, cpu.number, stay.start, stay.end, why, work, waits_for)
    publish(task.kernel.events.run, record)


def wakes(scheduler: Scheduler, task: Task, why: str) -> None:
    """A task can run again."""
    by = scheduler.inside
    record = Wake(task.process.pid, task.tid, scheduler.time_ns(), by.tid if by is not None else 0, why)
    publish(task.kernel.events.wake, record)
