"""The processes of a machine while it runs: the live tree, and who is told of its changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadstone.events import Exit, Fork, Program
    from loadstone.guest import Process
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process as KernelProcess

_KEPT = 64  # objects of processes that are gone are kept up to here, and to twice as many as live


class Processes:
    """The processes of a machine that live, and the ended ones that nobody has waited for, by number.

    It follows what happens: `len`, `in`, iteration and `[pid]` tell how it is now. The same process is the same object
    as long as it is there. `known`: the objects there are, `make` makes one more.
    """

    def __init__(self, kernel: Kernel, known: dict[int, Process], make: Callable[[KernelProcess], Process]) -> None:
        self._kernel = kernel
        self._known = known
        self._make = make

    def __len__(self) -> int:
        return len(self._kernel.processes)

    def __iter__(self) -> Iterator[Process]:
        return iter([self.of(inner) for inner in self._kernel.processes.values()])

    def __contains__(self, pid: object) -> bool:
        return pid in self._kernel.processes

    def __getitem__(self, pid: int) -> Process:
        """The process with that number. Raises KeyError if there is none."""
        return self.of(self._kernel.processes[pid])

    def of(self, inner: KernelProcess) -> Process:
        """The object that stands for a process of the kernel's."""
        known, alive = self._known, self._kernel.processes
        found = known.get(inner.pid)
        if found is None or found.inner is not inner:
            if len(known) > 2 * len(alive) + _KEPT:
                for pid in [pid for pid, one in known.items() if alive.get(pid) is not one.inner]:
                    del known[pid]
            found = known[inner.pid] = self._make(inner)
        return found

    @property
    def roots(self) -> list[Process]:
        """Those whose parent is the machine: what was spawned, and orphans."""
        return [process for process in self if process.inner.parent is None]

    def __str__(self) -> str:
        """The tree, a line a process, children below their parents."""
        lines = []
        pending = [(process, 0) for process in reversed(self.roots)]
        while pending:
            process, depth = pending.pop()
            on = f" for {process.waits_for}" if process.waits_for else ""
            lines.append(f"{process.pid:>7} {'  ' * depth}{process.name}: {process.state}{on}")
            pending += [(child, depth + 1) for child in reversed(process.children)]
        return "\n".join(lines)

    def on_fork(self, function: Callable[[Process, Process], object]) -> Callable[[], None]:
        """Call `function(parent, child)` for each new process, before it runs. What is returned takes that back."""

        def told(event: Fork) -> None:
            if not event.thread:
                parent = self._kernel.processes[event.pid]
                family = [parent, parent.parent]  # with CLONE_PARENT it is a sibling
                found = (one.children.get(event.child) for one in family if one is not None)
                function(self.of(parent), self.of(next(child for child in found if child is not None)))

        return self._subscribed(told, "fork")

    def on_exec(self, function: Callable[[Process], object]) -> Callable[[], None]:
        """Call `function(process)` each time one has become another program. What is returned takes that back."""

        def told(event: Program) -> None:
            inner = self._kernel.processes.get(event.pid)
            function(self.of(inner) if inner is not None else self._known[event.pid])  # or it is just being spawned

        return self._subscribed(told, "program")

    def on_exit(self, function: Callable[[Process], object]) -> Callable[[], None]:
        """Call `function(process)` each time one ends, its memory still there. What is returned takes that back."""

        def told(event: Exit) -> None:
            function(self[event.pid])

        return self._subscribed(told, "exit")

    def _subscribed(self, told: Callable[..., None], kind: str) -> Callable[[], None]:
        events = self._kernel.events
        events.subscribe(told, (kind,))
        return lambda: events.unsubscribe(told)
