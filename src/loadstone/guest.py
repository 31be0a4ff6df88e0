"""A process of a machine and its threads, as whoever uses the machine sees them."""

from __future__ import annotations

import os
from errno import EFAULT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.console import Console
from loadstone.kernel.process import ENDED, RUNNABLE
from loadstone.kernel.process import STOPPED as STOPPED_STATE
from loadstone.kernel.process import WAITING as WAITING_STATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.api import Machine
    from loadstone.events import Fault
    from loadstone.kernel.process import ExitStatus, Task, Usage
    from loadstone.kernel.process import Process as KernelProcess
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.machine.paging import PageTable

RUNNING, READY, WAITING, STOPPED, ZOMBIE, GONE = "running", "ready", "waiting", "stopped", "zombie", "gone"
_ACTIVE = (RUNNING, READY, WAITING, STOPPED, GONE)


class Thread:
    """A thread of a process, as it is now.

    Attributes:
        tid: its number; the first one's is the process's.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.tid = task.tid

    @property
    def name(self) -> str:
        """Its short name (comm)."""
        return self._task.name

    @property
    def state(self) -> str:
        """RUNNING (its slice it is), READY, WAITING, STOPPED (by a signal) or GONE."""
        task = self._task
        if task.state == RUNNABLE:
            return RUNNING if task.kernel.scheduler.inside is task else READY
        return {WAITING_STATE: WAITING, STOPPED_STATE: STOPPED, ENDED: GONE}[task.state]

    @property
    def waits_for(self) -> str:
        """What it waits for, for a person; "" if it does not."""
        return self._task.kernel.scheduler.what(self._task)

    @property
    def cpu(self) -> int:
        """The number of the CPU on which it ran last."""
        return self._task.cpu

    @property
    def cpu_ns(self) -> int:
        """CPU time of its finished time slices, in ns."""
        return self._task.cpu_ns

    @property
    def switches(self) -> int:
        """How often a CPU came to it from another thread."""
        return self._task.switches

    @property
    def registers(self) -> dict[str, int]:
        """The CPU's registers, by ptrace's names."""
        return self._task.context.registers()

    def __repr__(self) -> str:
        on = f" for {self.waits_for}" if self.waits_for else ""
        return f"<thread {self.tid} {self.name}: {self.state}{on}>"


class Process:
    """A process of a machine, for looking at and running. It stays valid when the process has ended.

    Attributes:
        pid: its number.
        image: what execve made (addresses, registers, stack, stages).
        faults: every page fault since there is this object, in order, while the machine keeps them.
        memory: its memory, to read and write.
    """

    def __init__(self, machine: Machine, inner: KernelProcess) -> None:
        self.machine = machine
        self.inner = inner
        self.pid = inner.pid
        self.faults: list[Fault] = []
        self.memory = UserMemory(machine, inner)
        self._hooked: set[int] = set()

    @property
    def image(self) -> ExecImage:
        """What the last execve made."""
        image: ExecImage = self.inner.image
        return image

    @property
    def executable(self) -> str:
        """The path of the file it runs."""
        return self.inner.executable.path if self.inner.executable is not None else ""

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None while it has not."""
        return self.inner.status

    @property
    def name(self) -> str:
        """Its short name (comm), at most 15 bytes."""
        return self.inner.name

    @property
    def arguments(self) -> list[str]:
        """argv as it is in its memory now, as /proc/PID/cmdline has it; empty once it has ended."""
        stack = self.image.stack
        try:
            data = self.memory.read(stack.argument_start, stack.argument_end - stack.argument_start)
        except LinuxError:  # there is no such memory any more
            return []
        return [os.fsdecode(word) for word in data.split(b"\0")[:-1]]

    @property
    def parent(self) -> Process | None:
        """Who is told of its end; None for the machine, which is told nothing."""
        return self.machine.processes.of(self.inner.parent) if self.inner.parent is not None else None

    @property
    def parent_pid(self) -> int:
        """Its parent's number; 1 where that is the machine."""
        return self.inner.parent_pid

    @property
    def children(self) -> list[Process]:
        """Its children in the order of their birth, ended ones until it has waited for them."""
        return [self.machine.processes.of(child) for child in self.inner.children.values()]

    @property
    def tasks(self) -> list[Thread]:
        """Its threads, the first one first; of an ended process that one alone, none of a forked one that is gone."""
        return [Thread(task) for task in self.inner.tasks]

    @property
    def state(self) -> str:
        """RUNNING, READY, WAITING or STOPPED, that of its most active thread; ZOMBIE, GONE once it has ended."""
        if self.inner.status is not None:
            return ZOMBIE if self.inner.kernel.processes.get(self.pid) is self.inner else GONE
        return min((thread.state for thread in self.tasks), key=_ACTIVE.index)

    @property
    def waits_for(self) -> str:
        """What its threads wait for, for a person; "" if none waits."""
        return "; ".join(thread.waits_for for thread in self.tasks if thread.waits_for)

    @property
    def usage(self) -> Usage:
        """What it took so far: `cpu_ns`, `system_ns`, `minor_faults`, `major_faults`, `peak_pages`, `switches`."""
        return self.inner.total_usage()

    @property
    def resident_pages(self) -> int:
        """Pages of its that are in memory now; 0 once it has ended."""
        return self.inner.space.resident_pages if self.inner.space.users else 0

    @property
    def maps(self) -> str:
        """Its mappings, in the format of /proc/PID/maps; none once it has ended, unless its memory was kept."""
        return self.inner.space.render_maps()

    @property
    def registers(self) -> dict[str, int]:
        """The CPU's registers, by ptrace's names."""
        return self.inner.tasks[0].context.registers()

    def set_register(self, name: str, value: int) -> None:
        """Change a register."""
        self.inner.tasks[0].context.write(name, value)

    @property
    def page_table(self) -> PageTable:
        """Its page tables."""
        return self.inner.space.page_table

    def symbol(self, name: str) -> int | None:
        """The address of a symbol of the program or of a library it has mapped, or None."""
        from loadstone.control import find_symbol

        return find_symbol(self.inner, name)

    def describe(self, address: int) -> str:
        """An address for a person: `puts+0x4 in libc.so.6`."""
        from loadstone.observe.space import symbolizer

        return symbolizer(self.inner.space).describe(address)

    def __repr__(self) -> str:
        on = f" for {self.waits_for}" if self.waits_for else ""
        return f"<process {self.pid} {self.name}: {self.state}{on}>"

    def run(self) -> ExitStatus:
        """Run it to its end."""
        self.machine._require_open()
        inner = self.inner
        with Console(self.machine.kernel):
            self.machine.kernel.scheduler.run(lambda: inner.status is not None)
        self.machine.kernel.vfs.sync()  # what shared mappings of --rw files hold goes to the host
        assert inner.status is not None
        return inner.status

    def keep_memory(self) -> None:
        """Keep its memory past its end, to be looked at, until the machine is closed."""
        self.inner.keeps_memory = True

    def run_until(self, place: str | int) -> bool:
        """Run until it is about to execute an address or symbol; False if it ended before.

        `main` is found in stripped programs too. "exit" is the end: the process's memory is kept, to be looked at.
        Raises LookupError if there is no such symbol.
        """
        if place == "exit":
            self.keep_memory()
            self.run()
            return True
        from loadstone.control import run_to_place

        self.machine._require_open()
        with Console(self.machine.kernel):
            return run_to_place(self.machine.breakpoints, self.inner, place)

    def _install_hooks(self) -> None:
        """Set the machine's hooks, now or, for symbols of libraries, when the program's entry point is reached."""
        if self.machine._wanted and self._set_found_hooks():
            entry = self.image.program_entry

            def at_entry(task: Task) -> bool:
                if task.process is self.inner:
                    self.machine.breakpoints.remove(entry, at_entry)
                    missing = self._set_found_hooks()
                    if missing:
                        raise LookupError(f"{self.inner.name}: there is no symbol {missing[0]!r} to hook")
                return False

            self.machine.breakpoints.add(entry, at_entry)

    def _set_found_hooks(self) -> list[str | int]:
        """Set every hook whose address is known; the places of the others."""
        from loadstone.control import find_symbol

        missing: list[str | int] = []
        for number, (place, function) in enumerate(self.machine._wanted):
            if number in self._hooked:
                continue
            address = place if isinstance(place, int) else find_symbol(self.inner, place)
            if address is None:
                missing.append(place)
                continue
            self._hooked.add(number)
            self.machine.breakpoints.add(address, self._caller(function))
        return missing

    def _caller(self, function: Callable[[Process], object]) -> Callable[[Task], bool]:
        def call(task: Task) -> bool:
            if task.process is self.inner:
                function(self)
            return False

        return call

    def _let_go(self) -> None:
        """The machine is closed, or the process came to nothing: open files are closed."""
        self.inner.files.close_all()


class UserMemory:
    """A process's memory as an observer sees it: looking changes nothing and counts no fault."""

    def __init__(self, machine: Machine, process: KernelProcess) -> None:
        self._machine = machine
        self._process = process

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at `address`, whether resident or not. Raises LinuxError(EFAULT) where nothing is mapped."""
        from loadstone.memory.peek import peek

        self._require_memory()
        return peek(self._process.space, address, length)

    def write(self, address: int, data: bytes) -> None:
        """Change memory, whatever its protection; a private page is copied first. LinuxError(EFAULT) as for `read`."""
        from loadstone.memory.peek import poke

        self._require_memory()
        poke(self._process.space, address, data)

    def _require_memory(self) -> None:
        self._machine._require_open()
        if not self._process.space.users:
            raise LinuxError(EFAULT, f"process {self._process.pid} has ended, and its memory was not kept")
