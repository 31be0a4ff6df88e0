"""The policies that a machine has on request: fair shares, strict priorities, and dice. See policies.py."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from loadstone.kernel.policies import SLICE
from loadstone.kernel.process import RUNNABLE

if TYPE_CHECKING:
    from random import Random

    from loadstone.kernel.process import Task


def weight(nice: int) -> float:
    """The share of a nice value, relative to nice 0: each step is a factor of 1.25 (kernel: sched_prio_to_weight)."""
    return float(1.25**-nice)


class Fair:
    """The task that has had the least of its share (kernel: CFS). Shares go by the nice value.

    A task's virtual time is its work divided by its weight. One that slept is put at most half a slice before the
    others, so that it runs soon and cannot save up.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Task]] = []
        self._count = 0
        self._least = 0.0  # never goes back

    def add(self, task: Task, *, woken: bool = False) -> None:
        """By virtual time."""
        task.virtual_time = max(task.virtual_time, self._least - (SLICE / 2 if woken else 0))
        self._count += 1
        heappush(self._heap, (task.virtual_time, self._count, task))

    def next(self) -> Task | None:
        """The one with the least virtual time."""
        while self._heap:
            when, _, task = heappop(self._heap)
            if task.state == RUNNABLE:
                self._least = max(self._least, when)
                return task
        return None

    def slice_of(self, task: Task) -> int:
        """A slice, shared out when many wait, but never less than an eighth."""
        return max(SLICE >> 3, SLICE // (1 + len(self._heap)))

    def ran(self, task: Task, work: int) -> None:
        """Its virtual time goes on."""
        task.virtual_time += work / weight(task.nice)

    def preempts(self, woken: Task, running: Task) -> bool:
        """When it is behind by half a slice."""
        return woken.virtual_time + SLICE / 2 < running.virtual_time

    def moved(self, task: Task) -> None:
        """Its share is looked up when it has run."""

    def empty(self) -> bool:
        """Whether the heap is."""
        return not self._heap


class Priority:
    """Strictly by priority: real-time tasks, then ordinary ones by their nice value; equals in turn.

    Who has a lower priority may wait for ever. SCHED_FIFO tasks run until they wait.
    """

    def __init__(self) -> None:
        self._queues: dict[int, deque[Task]] = {}

    @staticmethod
    def level(task: Task) -> int:
        """Higher runs first: 101 to 199 for real-time tasks and who has what they wait for, 60 to 99 for the others."""
        real_time = max(task.real_time, task.inherited)
        return 100 + real_time if real_time else 79 - task.nice

    def add(self, task: Task, *, woken: bool = False) -> None:
        """To the end of its level's queue; a SCHED_FIFO task that was preempted keeps its place at the head."""
        queue = self._queues.setdefault(self.level(task), deque())
        if task.runs_to_block and not woken:
            queue.appendleft(task)
        else:
            queue.append(task)

    def next(self) -> Task | None:
        """The first of the highest level."""
        while self._queues:
            level = max(self._queues)
            queue = self._queues[level]
            while queue:
                task = queue.popleft()
                if task.state != RUNNABLE:
                    continue
                if self.level(task) == level:
                    return task
                self.add(task, woken=True)  # its priority was changed while it waited
            if not queue and self._queues.get(level) is queue:
                del self._queues[level]
        return None

    def slice_of(self, task: Task) -> int:
        """One slice."""
        return SLICE

    def ran(self, task: Task, work: int) -> None:
        """Nothing is kept."""

    def preempts(self, woken: Task, running: Task) -> bool:
        """When its level is higher."""
        return self.level(woken) > self.level(running)

    def moved(self, task: Task) -> None:
        """To the queue of its level."""
        for queue in self._queues.values():
            if task in queue:
                queue.remove(task)
                self.add(task, woken=True)
                return

    def empty(self) -> bool:
        """Whether nobody waits."""
        return not any(self._queues.values())


class Shuffled:
    """Any task that can run, for a slice of any length, as a seed's dice fall: to find what depends on the order."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._ready: list[Task] = []

    def add(self, task: Task, *, woken: bool = False) -> None:
        """To the others."""
        self._ready.append(task)

    def next(self) -> Task | None:
        """Any of them."""
        ready = self._ready
        while ready:
            chosen = self._dice.randrange(len(ready))
            task = ready[chosen]
            ready[chosen] = ready[-1]
            ready.pop()
            if task.state == RUNNABLE:
                return task
        return None

    def slice_of(self, task: Task) -> int:
        """From SLICE / 1024 to SLICE, short and long ones alike."""
        return SLICE >> self._dice.randrange(11)

    def ran(self, task: Task, work: int) -> None:
        """Nothing is kept."""

    def preempts(self, woken: Task, running: Task) -> bool:
        """One time in four."""
        return not self._dice.randrange(4)

    def moved(self, task: Task) -> None:
        """The dice know no priorities."""

    def empty(self) -> bool:
        """Whether nobody waits."""
        return not self._ready
