"""PID namespaces: what processes and threads are called (kernel/pid_namespace.c, kernel/pid.c).

Inside Loadstone a process, thread, group or session has one number for good, that of the machine's first namespace.
Another namespace has its own numbers for those that are in it or below it; they are translated where programs say or
see them. Processes of the first namespace have nothing to do with any of this.
"""

from __future__ import annotations

from errno import EEXIST, ENOMEM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.kernel import RESERVED_PIDS
from loadstone.linux.clone_flags import CLONE_NEWPID
from loadstone.linux.namespaces.base import Namespace

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process
    from loadstone.linux.namespaces.users import UserNamespace

DEEPEST = 32  # MAX_PID_NS_LEVEL
NOBODY = (1 << 31) - 1  # a number that no process has: PID_MAX_LIMIT is lower
MOST_PIDS = 1 << 22  # PID_MAX_LIMIT
_FORGOTTEN = 1024  # numbers of the dead that may be remembered


class PidNamespace(Namespace):
    """A PID namespace. `above` None: the machine's first, whose numbers are the machine's.

    Attributes:
        level: how many there are above it.
        init: its first process, which gets its orphans and takes everybody with it when it ends; None before there is
            one.
        pid_max: below what the numbers are (kernel.pid_max).
    """

    __slots__ = ("_inside", "_last", "_outside", "above", "init", "level", "pid_max")

    kind = "pid"
    flag = CLONE_NEWPID

    def __init__(self, number: int, owner: UserNamespace, above: PidNamespace | None = None) -> None:
        super().__init__(number, owner)
        self.above = above
        self.level: int = above.level + 1 if above is not None else 0
        self.init: Process | None = None
        self._inside: dict[int, int] = {}  # by the machine's number
        self._outside: dict[int, int] = {}  # the machine's number
        self._last = 0
        self.pid_max = MOST_PIDS

    def seen(self, number: int) -> int:
        """What the machine's `number` is called here; 0 for what is not in here."""
        return self._inside.get(number, 0) if self.above is not None else number

    def meant(self, number: int) -> int:
        """The machine's number for what is called `number` here; NOBODY if nothing is."""
        return self._outside.get(number, NOBODY) if self.above is not None else number

    def up_to_first(self) -> Iterator[PidNamespace]:
        """This namespace and those above it, but for the machine's first."""
        one: PidNamespace | None = self
        while one is not None and one.above is not None:
            yield one
            one = one.above

    def is_below(self, other: PidNamespace) -> bool:
        """Whether it is `other`, or was made in it or below it."""
        one: PidNamespace | None = self
        while one is not None and one is not other:
            one = one.above
        return one is not None

    def demand_room(self) -> None:
        """ENOMEM once the first process has ended: nobody is born here any more."""
        if self.init is not None and self.init.status is not None:
            raise LinuxError(ENOMEM, "the first process of the PID namespace has ended")

    def add(self, kernel: Kernel, number: int, wanted: int = 0) -> None:
        """The machine's `number` gets one here: the next one that is free, or `wanted`; EEXIST if somebody has that."""
        if len(self._inside) > 2 * len(kernel.tasks) + _FORGOTTEN:
            self._forget(_in_use(kernel))
        if wanted in self._outside:
            raise LinuxError(EEXIST, f"a process is called {wanted} already")
        here = wanted or self._next()
        self._inside[number], self._outside[here] = here, number
        if not wanted:
            self._last = here

    def has(self, here: int) -> bool:
        """Whether something is called that here."""
        return here in self._outside

    def drop(self, number: int) -> None:
        """The machine's `number` was of a process that did not come to be."""
        here = self._inside.pop(number, 0)
        self._outside.pop(here, None)

    def _next(self) -> int:
        number = self._last
        while True:
            number = number + 1 if number < self.pid_max - 1 else RESERVED_PIDS
            if number not in self._outside:
                return number

    def _forget(self, used: Container[int]) -> None:
        """Numbers of what is no more are free again."""
        self._inside = {number: here for number, here in self._inside.items() if number in used}
        self._outside = {here: number for number, here in self._inside.items()}


def _in_use(kernel: Kernel) -> set[int]:
    """The machine's numbers of processes, threads, groups and sessions."""
    used = {*kernel.tasks, *kernel.processes}
    for process in kernel.processes.values():
        used.update((process.group, process.session))
    return used


def members(kernel: Kernel, namespace: PidNamespace) -> list[Process]:
    """The processes in a namespace and in those below it, zombies included."""
    return [process for process in kernel.processes.values() if namespace.seen(process.pid)]
