"""Stopping a program where you want to look at it: symbols to addresses, breakpoints, `run_until`, hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.observe.space import symbolizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process, Task
    from loadstone.machine.core import Core

_LIBC_START = "__libc_start_main"


class Breakpoints:
    """The breakpoints of a machine: which functions to call when a task is about to execute an address."""

    def __init__(self, kernel: Kernel, core: Core) -> None:
        self._kernel = kernel
        self._core = core
        self._actions: dict[int, list[Callable[[Task], bool]]] = {}
        kernel.scheduler.on_breakpoint = self._reached

    def add(self, address: int, action: Callable[[Task], bool]) -> None:
        """Call `action(task)` each time; True from it pauses the machine."""
        self._actions.setdefault(address, []).append(action)
        self._core.break_at(address)

    def remove(self, address: int, action: Callable[[Task], bool]) -> None:
        """Take one action back."""
        actions = self._actions.get(address, [])
        if action in actions:
            actions.remove(action)
        if not actions:
            self._actions.pop(address, None)
            self._core.unbreak(address)

    def run_until(self, process: Process, address: int) -> bool:
        """Run the machine until `process` is about to execute `address`; False if it ended before."""
        reached = []

        def arrive(task: Task) -> bool:
            if task.process is process:
                reached.append(task)
            return bool(reached)

        self.add(address, arrive)
        try:
            self._kernel.scheduler.run(lambda: bool(reached) or process.status is not None)
        finally:
            self.remove(address, arrive)
        return bool(reached)

    def _reached(self, task: Task) -> bool:
        paused = False
        for action in list(self._actions.get(task.context.pc, ())):  # every one is told
            paused |= action(task)
        return paused


def run_to_place(points: Breakpoints, process: Process, place: str | int) -> bool:
    """Run until an address, or a symbol of the program or of a library that it loads; False if it ended before.

    `main` is found in a stripped program too: it is what the C library's start-up function is handed.

    Raises:
        LookupError: there is no such symbol, neither in the program nor, once it runs, in its libraries.
    """
    if isinstance(place, int):
        return points.run_until(process, place)
    address = find_symbol(process, place)
    if address is None and not _has_libraries(process):
        if not points.run_until(process, process.image.program_entry):  # its libraries are there by then
            return False
        address = find_symbol(process, place)
    if address is None and place == "main":
        address = _main_of_stripped(points, process)
    if address is None:
        raise LookupError(f"{process.name}: no symbol {place!r} in the program or in the libraries it starts with")
    return points.run_until(process, address)


def _has_libraries(process: Process) -> bool:
    """Whether what the program is linked to is in memory already; for a static one, always."""
    image = process.image
    if image.interpreter is None:
        return True
    own = {image.program.path, image.interpreter.path}
    return any(vma.backing is not None and vma.path and vma.path not in own for vma in process.space.vmas)


def find_symbol(process: Process, name: str) -> int | None:
    """Where a symbol is in the process, the program itself coming first."""
    found = symbolizer(process.space)
    return found.address_of(name, process.image.program.path) or (None if name == "main" else found.address_of(name))


def _main_of_stripped(points: Breakpoints, process: Process) -> int | None:
    """The first argument of `__libc_start_main`, which the program's entry code calls."""
    start = symbolizer(process.space).address_of(_LIBC_START)
    if start is None or not points.run_until(process, start):
        return None
    return process.tasks[0].context.read("rdi")
