"""Who runs next, and for how long: the scheduling policies of a machine, behind one interface.

A policy holds the tasks that can run and are not running. Work is counted in the core's own unit (bytes of machine code
on Unicorn, nanoseconds on KVM); SLICE of it is a time slice.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from loadstone.kernel.process import RUNNABLE
from loadstone.lean import Protocol

if TYPE_CHECKING:
    from loadstone.kernel.process import Task

SLICE = 1 << 22
"""Work in a time slice: a few milliseconds."""

POLICIES = ("round-robin", "fair", "priority")


class Policy(Protocol):
    """What the scheduler asks."""

    def add(self, task: Task, *, woken: bool = False) -> None:
        """A task can run: it is new, was woken, or its slice is over."""

    def next(self) -> Task | None:
        """Take out the task whose turn it is; None if nobody can run."""

    def slice_of(self, task: Task) -> int:
        """How much work it may do at a stretch."""

    def ran(self, task: Task, work: int) -> None:
        """It did this much."""

    def preempts(self, woken: Task, running: Task) -> bool:
        """Whether a task that was woken must not wait for the end of the running one's slice."""

    def moved(self, task: Task) -> None:
        """Its priority was changed while it may be waiting for a turn."""

    def empty(self) -> bool:
        """Whether nobody is waiting for a turn."""


class RoundRobin:
    """Everybody in turn, the same slice for all."""

    def __init__(self) -> None:
        self._ready: deque[Task] = deque()

    def add(self, task: Task, *, woken: bool = False) -> None:
        """To the end of the queue."""
        self._ready.append(task)

    def next(self) -> Task | None:
        """The first of the queue."""
        ready = self._ready
        while ready:
            task = ready.popleft()
            if task.state == RUNNABLE:  # not ended since
                return task
        return None

    def slice_of(self, task: Task) -> int:
        """One slice."""
        return SLICE

    def ran(self, task: Task, work: int) -> None:
        """Nothing is kept."""

    def preempts(self, woken: Task, running: Task) -> bool:
        """Never."""
        return False

    def moved(self, task: Task) -> None:
        """There are no priorities."""

    def empty(self) -> bool:
        """Whether the queue is."""
        return not self._ready


def make_policy(name: str, seed: int | None) -> Policy:
    """The policy called `name`, one of POLICIES; with a seed, the dice instead."""
    if seed is not None:
        from random import Random

        from loadstone.kernel.other_policies import Shuffled

        return Shuffled(Random(seed))
    if name == "round-robin":
        return RoundRobin()
    from loadstone.kernel.other_policies import Fair, Priority

    return Fair() if name == "fair" else Priority()
