"""User time and system time: how much of a slice the machine's kernel worked for the task.

The program's own time is what is left. A system call and a page fault are each measured by the host's clock, in a
machine with a virtual clock they take a fixed time. Reading the clock costs a fiftieth of a call, so that of many calls
in a slice only some are measured, and stand for the others.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.machine.core import Resolver

_ALL_OF = 32  # events of a slice that are all measured; of the later ones each seventh
_EACH = 7  # no period of a program's own calls, which come in twos and fours
VIRTUAL_STEP_NS = 1_000  # what a call or a fault takes on a virtual clock


class KernelTime:
    """The kernel's time in the slice that runs now, in ns: measured.

    Attributes:
        spent: so far, without the ways into the kernel and out of it.
        entry_ns: what those cost for a call or a fault, where it is much: nobody sees them from either side.
    """

    __slots__ = ("_began", "_count", "entry_ns", "spent")

    def __init__(self) -> None:
        self.spent = 0
        self.entry_ns = 0
        self._began = 0
        self._count = 0

    def begin(self) -> None:
        """A slice begins."""
        self.spent = self._count = 0
        self._began = perf_counter_ns()

    def share(self, cpu_ns: int) -> int:
        """How much of the slice's CPU time was the kernel's."""
        spent = self.spent + self._count * self.entry_ns
        return min(cpu_ns, cpu_ns * spent // max(perf_counter_ns() - self._began, 1))

    def now(self) -> int:
        """A time to give to `since`."""
        return perf_counter_ns()

    def since(self, when: int) -> None:
        """The kernel has worked from then until now."""
        self.spent += perf_counter_ns() - when

    def count(self, calls: int) -> None:
        """The core has answered so many calls by itself: the kernel did not work for them."""

    def timed_call(self, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`call(task)`, counted as the kernel's work."""

        def measured(task: Any) -> Any:
            self._count = count = self._count + 1
            if count > _ALL_OF and count % _EACH:
                return call(task)
            began = perf_counter_ns()
            try:
                return call(task)
            finally:
                took = perf_counter_ns() - began
                self.spent += took if count <= _ALL_OF else took * _EACH

        return measured

    def timed_fault(self, resolve: Resolver) -> Resolver:
        """`resolve`, counted as the kernel's work."""

        def measured(space: Any, address: int, access: int, pc: int) -> object | None:
            self._count = count = self._count + 1
            if count > _ALL_OF and count % _EACH:
                return resolve(space, address, access, pc)
            began = perf_counter_ns()
            try:
                return resolve(space, address, access, pc)
            finally:
                took = perf_counter_ns() - began
                self.spent += took if count <= _ALL_OF else took * _EACH

        return measured


class VirtualKernelTime(KernelTime):
    """The same for a machine with a virtual clock, which moves by a fixed step for each call and fault."""

    __slots__ = ()

    def begin(self) -> None:
        """A slice begins."""
        self.spent = 0

    def share(self, cpu_ns: int) -> int:
        """All that was counted."""
        return self.spent

    def now(self) -> int:
        """Nothing to remember."""
        return 0

    def since(self, when: int) -> None:
        """One step."""
        self.spent += VIRTUAL_STEP_NS

    def count(self, calls: int) -> None:
        """One step each, as if the kernel had answered them: whether it did must not change the time."""
        self.spent += calls * VIRTUAL_STEP_NS

    def timed_call(self, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`call(task)`, one step each."""

        def counted(task: Any) -> Any:
            self.spent += VIRTUAL_STEP_NS
            return call(task)

        return counted

    def timed_fault(self, resolve: Resolver) -> Resolver:
        """`resolve`, one step each."""

        def counted(space: Any, address: int, access: int, pc: int) -> object | None:
            self.spent += VIRTUAL_STEP_NS
            return resolve(space, address, access, pc)

        return counted


class TimesTold:
    """What was told of somebody's user and system time: neither ever goes back (kernel: cputime_adjust)."""

    __slots__ = ("system_ns", "user_ns")

    def __init__(self) -> None:
        self.user_ns = self.system_ns = 0

    def settle(self, cpu_ns: int, system_ns: int) -> int:
        """The system time to tell, of `cpu_ns` in all; `system_ns` is the best guess."""
        system_ns = max(self.system_ns, min(system_ns, cpu_ns - self.user_ns))
        self.system_ns, self.user_ns = system_ns, max(cpu_ns - system_ns, 0)
        return system_ns
