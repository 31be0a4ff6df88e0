"""The kernel of one machine: what its processes have in common, and how they begin and end."""

from __future__ import annotations

import os
from errno import EAGAIN
from typing import TYPE_CHECKING, Any

from loadstone.errors import LinuxError
from loadstone.events import Exit, publish
from loadstone.kernel.process import ENDED, ExitStatus, Process, Task
from loadstone.kernel.scheduler import Scheduler
from loadstone.lean import NamedTuple, Protocol
from loadstone.vfs.file_table import MOST_DESCRIPTORS, Room

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from loadstone.clock import Clock
    from loadstone.events import Events
    from loadstone.machine.core import Core, Trap
    from loadstone.machine.physical import PhysicalMemory
    from loadstone.machine.shootdown import Shootdown
    from loadstone.memory.accounting import Commitment
    from loadstone.memory.fill_ahead import FillAhead
    from loadstone.memory.page_cache import PageCache
    from loadstone.vfs.vfs import Vfs

FIRST_PID = 1000
RESERVED_PIDS = 300  # where numbers start again if there are few
MAX_PROCESSES = 4096


class Personality(Protocol):
    """The ABI of a machine's programs: what it does with a trap.

    `armed`: the timers that are to go off, by whatever clock.
    """

    armed: Any

    def system_call(self, task: Task) -> Any:
        """Run the call in the task's registers; None when it is done, else an object with the `wait` it is in."""

    def resume(self, task: Task, pending: Any, reason: str) -> Any:
        """Go on with a call whose wait is over."""

    def interrupt(self, task: Task, pending: Any) -> Any:
        """Tell a waiting call that a signal came."""

    def exception(self, task: Task, trap: Trap) -> Any:
        """Answer an exception of the CPU; an object with a `wait` if the program has to wait in the instruction."""

    def before_user(self, task: Task) -> None:
        """Deliver what is pending before the task goes on."""

    def new_slice(self, task: Task) -> None:
        """A time slice begins."""

    def ran(self, task: Task) -> None:
        """A time slice is over, and its time added to the task's."""

    def migrated(self, task: Task) -> None:
        """The task goes on on another CPU."""

    def preempted(self, task: Task) -> None:
        """Another task runs, though this one could."""

    def task_ended(self, task: Task) -> None:
        """A thread has run for the last time; the process's memory is still there."""

    def process_ended(self, process: Process) -> None:
        """A process has given back what it held: tell its parent, find another one for its children."""

    def next_deadline(self) -> int | None:
        """CLOCK_MONOTONIC time at which a timer of a process goes off; None for never."""

    def expire_timers(self) -> None:
        """Send the signals of timers that went off."""

    def out_of_frames(self, task: Task, why: str) -> None:
        """The machine is full; end somebody."""

    def console_signal(self, number: int) -> None:
        """The terminal sends a signal to the foreground process group."""

    def restore_terminal(self) -> None:
        """Undo what programs did to the modes of the host's terminal."""

    def suspend_terminal(self) -> Callable[[], None]:
        """Undo them for a while; what is returned does them again."""

    def signal_name(self, number: int) -> str:
        """SIGSEGV for 11."""


class MachineOptions(NamedTuple):
    """What the machine was asked to be. Sizes in bytes, times in seconds."""

    memory_size: int
    cpu_count: int = 1
    deterministic: bool = False
    seed: int | None = None
    aslr: int | None = None
    timeout: float | None = None
    fault_around: int = 65536
    policy: str = "round-robin"
    schedule_seed: int | None = None
    max_processes: int = MAX_PROCESSES
    max_files: int = MOST_DESCRIPTORS


class Kernel:
    """Shared state of the machine's processes; each room's own state stays in the room's objects.

    Attributes:
        memory, page_cache, shootdown, cores: the machine.
        commitment: the promise of memory that overcommit accounting keeps.
        fill_ahead: how far faults on new memory fill the pages that follow, in every process.
        vfs, clock, events, options, profile: as built; `profile` is the personality's description of its kernel.
        descriptors: how many there may be in all processes together.
        processes: by pid, the ended ones included until they are reaped; tasks: their threads, by tid.
        started: how many processes there ever were; most_processes: how many at a time.
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        page_cache: PageCache,
        shootdown: Shootdown,
        commitment: Commitment,
        vfs: Vfs,
        clock: Clock,
        events: Events,
        options: MachineOptions,
        profile: Any,
        random: Random | None,
    ) -> None:
        self.memory = memory
        self.page_cache = page_cache
        self.shootdown = shootdown
        self.commitment = commitment
        self.vfs = vfs
        self.clock = clock
        self.events = events
        self.options = options
        self.profile = profile
        self.cores: list[Core] = []
        self.processes: dict[int, Process] = {}
        self.tasks: dict[int, Task] = {}
        self.started = self.most_processes = 0
        self.scheduler = Scheduler(self)
        self.fill_ahead: FillAhead | None = None
        self.personality: Personality
        self.booted_ns = clock.monotonic_ns()
        self.descriptors = Room(options.max_files)
        self._random = random
        # PID_MAX_DEFAULT, and PIDS_PER_CPU_DEFAULT for each CPU (kernel/pid.c)
        self.pid_max = max(1 << 15, options.cpu_count << 10)
        self._next_pid = FIRST_PID
        self._pids_came_round = False
        vfs.wake_up = self.scheduler.wake

    def random_bytes(self, count: int) -> bytes:
        """Random bytes for the guest: from the seed if there is one, else the host's."""
        return self._random.randbytes(count) if self._random is not None else os.urandom(count)

    def new_pid(self) -> int:
        """The next process or thread number; EAGAIN if all up to `pid_max` are in use."""
        for _ in range(self.pid_max):
            if self._next_pid >= self.pid_max:
                self._next_pid = FIRST_PID if self.pid_max > FIRST_PID else RESERVED_PIDS
                self._pids_came_round = True
            number = self._next_pid
            self._next_pid = number + 1
            if number not in self.tasks and number not in self.processes and not self._names_group(number):
                return number
        raise LinuxError(EAGAIN, f"no number below kernel.pid_max, {self.pid_max}, is free")

    def _names_group(self, number: int) -> bool:
        """Whether a group or session is called like a process that has ended: only once numbers are used again."""
        return self._pids_came_round and any(number in (one.group, one.session) for one in self.processes.values())

    @property
    def last_pid(self) -> int:
        """The number that was given out last (kernel.ns_last_pid)."""
        return self._next_pid - 1

    def go_on_after(self, number: int) -> None:
        """The next number is the first free one after `number`; those below FIRST_PID are the machine's own."""
        self._next_pid = max(number + 1, FIRST_PID)
        self._pids_came_round = True

    def start(self, task: Task) -> None:
        """Let a new task run."""
        if task.process.pid not in self.processes:
            self.processes[task.process.pid] = task.process
            self.started += 1
            self.most_processes = max(self.most_processes, len(self.processes))
        self.tasks[task.tid] = task
        self.scheduler.add(task)

    def exit_task(self, task: Task, code: int) -> None:
        """A thread ends; with the last one the process does, as that one ended."""
        process = task.process
        task.exit_code = code
        if all(other is task or other.state == ENDED for other in process.tasks):
            self.exit_process(process, ExitStatus(code))
        else:
            self.end_task(task)

    def end_task(self, task: Task) -> None:
        """Take a thread out of its process, in which others go on."""
        process = task.process
        self.scheduler.remove(task)
        self.personality.task_ended(task)
        process.rejoin(task)
        if task is not process.tasks[0]:  # the first one's number stays the process's
            process.tasks.remove(task)
            process.usage.add_task(task)
            self.tasks.pop(task.tid, None)
            task.context.release()

    def exit_process(self, process: Process, status: ExitStatus) -> None:
        """A process ends: its threads, open files and (unless it is kept for looking at) its memory.

        What is left is a zombie, until `reap`.
        """
        if process.status is not None:
            return
        process.usage = process.total_usage()
        process.status = status
        for task in process.tasks:
            if task.state != ENDED:
                self.scheduler.remove(task)
                self.personality.task_ended(task)
        process.drop_files()
        if self.events.exit:
            name = self.personality.signal_name(status.signal) if status.signal else None
            took = process.usage
            record = Exit(
                process.pid, process.tasks[0].tid, status.code, name, self.scheduler.time_ns(), took.cpu_ns,
                took.minor_faults, took.major_faults, took.switches, took.peak_pages, took.system_ns,
            )  # fmt: skip
            publish(self.events.exit, record)
        if not process.keeps_memory:
            process.space.release()
        self.personality.process_ended(process)
        self.scheduler.wake(process.ending.wake())

    def reap(self, process: Process) -> None:
        """Forget a process that has ended; its parent has been told all it will be told.

        Who still has hold of one that was forked finds no threads in it: the two would keep each other alive until a
        garbage collection, which takes longer than all that is done here.
        """
        self.processes.pop(process.pid, None)
        for task in process.tasks:
            self.tasks.pop(task.tid, None)
            if not process.keeps_memory:
                task.context.release()
        if process.parent is not None:
            process.parent.children.pop(process.pid, None)
        if not (process.is_first or process.keeps_memory):
            process.tasks = []

    def kill_process(self, process: Process, info: Any) -> None:
        """A signal's default action ends the process. `info` has the signal's `number`."""
        self.exit_process(process, ExitStatus(signal=info.number))
