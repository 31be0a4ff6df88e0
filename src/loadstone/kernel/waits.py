"""Who waits, what for, and until when."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING

from loadstone.kernel.outside import ALWAYS, events_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from loadstone.kernel.process import Task
    from loadstone.wait import Wait

_FEW_DEADLINES = 64  # past which those of waits that are over are thrown out


class Waits:
    """The tasks of a machine that wait."""

    __slots__ = ("_deadlines", "_on_host", "_sequence", "_tasks")

    def __init__(self) -> None:
        self._tasks: dict[Task, Wait] = {}
        self._on_host: dict[Task, Wait] = {}  # those of them that wait for a descriptor of the host's
        self._deadlines: list[tuple[int, int, Task, Wait]] = []  # the next one last; some are over
        self._sequence = 0

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._tasks)

    def __getitem__(self, task: Task) -> Wait:
        """What a task that waits waits for."""
        return self._tasks[task]

    @property
    def on_host(self) -> Collection[Wait]:
        """The waits for descriptors of the host's."""
        return self._on_host.values()

    @property
    def only_for_each_other(self) -> bool:
        """Whether nobody waits for a time or the host. (Deadlines of waits that are over may count.)"""
        return not self._deadlines and not self._on_host

    def add(self, task: Task, wait: Wait) -> None:
        """The task waits from now on."""
        task.queues = wait.queues
        for queue in wait.queues:
            queue.waiters.append(task)
        self._tasks[task] = wait
        if wait.host_fd >= 0:
            self._on_host[task] = wait
        if wait.deadline is not None:
            self._sequence += 1
            insort(self._deadlines, (-wait.deadline, -self._sequence, task, wait))

    def remove(self, task: Task) -> None:
        """Its wait is over."""
        for queue in task.queues:
            if task in queue.waiters:
                queue.waiters.remove(task)
        task.queues = ()
        del self._tasks[task]
        self._on_host.pop(task, None)

    def next_deadline(self) -> int | None:
        """The next deadline of a wait that goes on."""
        entries = self._deadlines
        while entries and self._tasks.get(entries[-1][2]) is not entries[-1][3]:
            entries.pop()
        if len(entries) > _FEW_DEADLINES + 2 * len(self._tasks):
            entries[:] = [entry for entry in entries if self._tasks.get(entry[2]) is entry[3]]
        return -entries[-1][0] if entries else None

    def overdue(self, now: int) -> Task | None:
        """The task whose deadline passed first, if any has."""
        deadline = self.next_deadline()
        return self._deadlines[-1][2] if deadline is not None and deadline <= now else None

    def ready(self, events: dict[int, int]) -> list[Task]:
        """Whose descriptors of the host's are ready, by the events of each that is."""
        if not events:
            return []
        return [
            task for task, wait in self._on_host.items() if events.get(wait.host_fd, 0) & (events_of(wait) | ALWAYS)
        ]

    def for_output(self) -> bool:
        """Whether somebody waits for the host to take what they write."""
        return any(wait.host_write for wait in self._on_host.values())

    def for_signals(self) -> bool:
        """Whether somebody waits for a signal: the host's terminal may still send one."""
        return any(queue is task.signals.arrival for task in self._tasks for queue in task.queues)

    def who(self) -> str:
        """What everybody waits for, for a person."""
        return "; ".join(f"{task.process.name} (tid {task.tid}) for {self.what(task)}" for task in self._tasks)

    def what(self, task: Task) -> str:
        """What a task waits for, for a person; "" if it does not wait."""
        wait = self._tasks.get(task)
        if wait is None:
            return ""
        things = [queue.what for queue in task.queues]
        if wait.host_fd >= 0:
            things.append(f"the host's descriptor {wait.host_fd}")
        if not things:
            return "nothing" if wait.deadline is None else "time"
        return " or ".join(things)
