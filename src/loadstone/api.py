"""The public API: build a machine, put a program into it, run it, look.

    machine = Machine(memory=1 << 30)
    process = machine.spawn("/bin/true", ["true"], {"LC_ALL": "C"})
    status = process.run()

How the rooms are put together behind it is in `assembly`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from errno import ENOMEM
from typing import TYPE_CHECKING, Any

from loadstone.assembly import CoreChoice, HostFiles, add_core, make_linux
from loadstone.errors import HostError, LinuxError, OutOfFrames
from loadstone.events import Events, Fault
from loadstone.guest import Process, UserMemory
from loadstone.host import (
    Environment,
    Strings,
    fill_ahead_for,
    give_files,
    new_process,
    profile_for,
    profile_of_core,
    strings,
)
from loadstone.kernel.console import Console, ignored_by_host
from loadstone.kernel.kernel import MAX_PROCESSES, MachineOptions
from loadstone.kernel.process import ExitStatus, Task
from loadstone.kernel.process import Process as KernelProcess
from loadstone.linux.exec.execve import Stage
from loadstone.linux.exec.layout import Draws
from loadstone.linux.exec.new_image import ExecImage
from loadstone.linux.exec.world import ProcessWorld
from loadstone.linux.profile import KernelProfile
from loadstone.linux.signal.signals import SIGKILL, TaskSignals
from loadstone.vfs.file_table import MOST_DESCRIPTORS

if TYPE_CHECKING:
    from loadstone.control import Breakpoints
    from loadstone.machine.core import Core
    from loadstone.memory.fill_ahead import FillAhead
    from loadstone.observe.image import Image
    from loadstone.tree import Processes

__all__ = ["Machine", "Process", "UserMemory", "explain"]
DEFAULT_SEED = 0


class Machine:
    """A computer with memory, one CPU core, the host's files (read-only, under an overlay) and a Linux kernel.

    Args:
        memory: bytes of physical memory; default: as much as the host has.
        engine: the CPU core: "auto" (see `machine.engines`), "unicorn" or "kvm".
        cpu: "baseline": the CPU that a program sees is the one of `machine.cpuid`, on every host; default: the core's.
        deterministic: the same run every time: clock, randomness and time slices depend on nothing but `seed`.
        seed: of what is random; default: the host's randomness, or 0 when deterministic.
        aslr: a seed for the kernel's address-space randomisation; None: off.
        fault_around: bytes that a file fault maps at once; 4096 is pure demand paging.
        fill_ahead: pages that a fault on new anonymous memory may fill at once; 0: off. Default: 512 while nobody
            listens to faults, off in a deterministic machine (see `memory.fill_ahead`).
        page_cache: "warm" (files are in memory already) or "cold".
        root: the host directory that is the guest's root.
        rw: host paths that the guest may change.
        binds: (host path, guest path) pairs to show elsewhere.
        noexec: guest directories from which nothing may be executed, as with the mount option.
        visible: the only guest paths that are seen (a directory means all below it); default: all.
            `observe.needed.needed_files` lists what one program needs.
        timeout: seconds after which the machine is switched off.
        cpu_count: CPUs that the guest sees; default: the host's.
        stack_limit: RLIMIT_STACK in bytes; default: the host's.
        profile: the kernel to model; default: the one we are running on.
        keep_faults: remember every page fault, for `Process.faults`.
        policy: who runs next: "round-robin", "fair" or "priority" (see `kernel.policies`).
        schedule_seed: let these dice decide instead: any order and length of slices, the same on every run.
        max_processes: one more at a time switches the machine off.
        max_files: descriptors of all processes together; one more is ENFILE.

    Attributes:
        events: subscribe to what happens: `machine.events.subscribe(function, ["fault"])`.
        physical: the frames. kernel: the kernel's own state. profile: what it models.
    """

    def __init__(
        self,
        *,
        memory: int | None = None,
        engine: str = "auto",
        cpu: str | None = None,
        deterministic: bool = False,
        seed: int | None = None,
        aslr: int | None = None,
        fault_around: int = 65536,
        fill_ahead: int | None = None,
        page_cache: str = "warm",
        root: str = "/",
        rw: Sequence[str] = (),
        binds: Sequence[tuple[str, str]] = (),
        noexec: Sequence[str] = (),
        visible: Sequence[str] | None = None,
        timeout: float | None = None,
        cpu_count: int | None = None,
        stack_limit: int | None = None,
        profile: KernelProfile | None = None,
        keep_faults: bool = True,
        policy: str = "round-robin",
        schedule_seed: int | None = None,
        max_processes: int = MAX_PROCESSES,
        max_files: int = MOST_DESCRIPTORS,
    ) -> None:
        self._closed = False
        self._wanted: list[tuple[str | int, Callable[[Process], object]]] = []
        self._running: list[Process] = []
        self._known: dict[int, Process] = {}  # the objects that stand for processes, by number
        self._processes: Processes | None = None
        self._breakpoints: Breakpoints | None = None
        self._keep_faults = keep_faults
        self._core_choice = CoreChoice(engine, cpu)
        self._core_choice.demand_possible(deterministic)
        self._engine_why = ""
        if deterministic and seed is None:
            seed = DEFAULT_SEED
        self.seed = seed
        self.page_cache_mode = page_cache
        self.fault_around = fault_around
        self.profile = profile = profile_for(profile, memory, cpu_count, stack_limit, fault_around)
        self.events = Events()
        options = MachineOptions(
            profile.memory_size, profile.cpu_count, deterministic, seed, aslr, timeout, fault_around, policy,
            schedule_seed, max_processes, max_files,
        )  # fmt: skip
        files = HostFiles(root, rw, binds, noexec, visible)
        self.kernel, self.linux = make_linux(options, profile, files, self.events, warm=page_cache == "warm")
        self.physical = self.kernel.memory
        self.kernel.fill_ahead = fill_ahead_for(self.kernel.page_cache, fill_ahead, deterministic)

    @property
    def memory_size(self) -> int:
        """Bytes of physical memory."""
        return self.physical.size

    @property
    def core(self) -> Core:
        """The CPU core; made when first needed, since explaining a program needs none."""
        if not self.kernel.cores:
            _, self._engine_why = add_core(self.kernel, self.linux, self.profile, self._core_choice)
        return self.kernel.cores[0]

    @property
    def engine(self) -> str:
        """The CPU core that was chosen: "unicorn" or "kvm"."""
        return self.core.name

    @property
    def engine_why(self) -> str:
        """Why that one, as a sentence for a person."""
        _ = self.core  # made now, if not before
        return self._engine_why

    def spawn(
        self,
        path: str,
        argv: Strings | None = None,
        envp: Environment | None = None,
        *,
        cwd: str | None = None,
        inherited: Sequence[int] = (),
    ) -> Process:
        """Make a process and let it execute `path` (not searched in PATH); nothing has run yet.

        Args:
            path: the program, as the guest names it.
            argv: its arguments, the first its own name; default: just `path`.
            envp: its environment, as a mapping or as "NAME=value" strings; default: empty.
            cwd: its working directory, as the guest names it; default: the host's current one if the guest has it.
            inherited: our descriptors above stderr that it has too, under the same numbers. They are the machine's from
                now on: a pipe, socket or device is closed when the guest has no descriptor of it left.

        Raises:
            LinuxError: the kernel refuses to execute it.
        """
        self._require_open()
        core = self.core
        kernel = self.kernel
        kernel.profile = profile_of_core(self.profile, core)
        process = new_process(kernel, self.profile, cwd)
        give_files(process, inherited)
        task = Task(process, process.pid, core.new_context(), TaskSignals())
        if not kernel.options.deterministic:
            task.nice = os.getpriority(os.PRIO_PROCESS, 0)
            process.signals.ignore(ignored_by_host())
        made = Process(self, process)
        if self._keep_faults and not self._known:
            self.events.subscribe(self._keep_fault, ("fault",))
        self._known[process.pid] = made
        try:
            self.linux.execute(task, path, strings([path] if argv is None else argv), strings(envp or ()))
        except BaseException as error:
            self._forget(made)
            if isinstance(error, OutOfFrames):
                raise _too_small(error) from None
            raise
        self.linux.console.take(process)
        kernel.start(task)
        self._running.append(made)
        made._install_hooks()
        return made

    def prepare(
        self, path: str, argv: Strings | None = None, envp: Environment | None = None, *, cwd: str | None = None,
        stages: list[Stage] | None = None, draws: Draws | None = None,
    ) -> ExecImage:  # fmt: skip
        """The image that execve would make of `path`; no CPU core is needed, nothing can be run. Raises LinuxError.

        `stages` receives what happened, also when the exec fails. `draws` randomises addresses; default: as the machine
        was made.
        """
        self._require_open()
        process = new_process(self.kernel, self.profile, cwd)
        linux = self.linux
        world = ProcessWorld(self.kernel, process, linux.vdso, self.profile, linux.plans, linux.formats, runs=False)
        if draws is None and self.kernel.options.aslr is not None:
            draws = Draws(self.kernel.options.aslr)
        words = strings([path] if argv is None else argv), strings(envp or ())
        try:
            return world.execve(path, *words, draws=draws, stages=stages)
        except OutOfFrames as error:
            raise _too_small(error) from None

    def _forget(self, process: Process) -> None:
        """A process that could not be started was never there."""
        process._let_go()
        del self._known[process.pid]
        if not self._known:
            self.events.unsubscribe(self._keep_fault)

    @property
    def breakpoints(self) -> Breakpoints:
        """The machine's breakpoints."""
        if self._breakpoints is None:
            from loadstone.control import Breakpoints

            self._breakpoints = Breakpoints(self.kernel, self.core)
        return self._breakpoints

    def hook(self, place: str | int, function: Callable[[Process], object]) -> None:
        """Call `function(process)` each time a program is about to execute `place`: an address or a symbol.

        A symbol is looked for when a program is spawned, in the program and its dynamic linker, and again when it
        reaches its entry point, in its libraries too. Raises LookupError there if it is in none of them.
        """
        self._wanted.append((place, function))
        for process in self._running:
            process._install_hooks()

    @property
    def processes(self) -> Processes:
        """The live tree of processes, and who is told of its changes."""
        if self._processes is None:
            from loadstone.tree import Processes

            self._processes = Processes(self.kernel, self._known, lambda inner: Process(self, inner))
        return self._processes

    def _keep_fault(self, fault: Fault) -> None:
        process = self._known.get(fault.pid)
        if process is not None:
            process.faults.append(fault)

    def finish(self, *, wait_for_all: bool = False, patience: float = 10.0) -> list[KernelProcess]:
        """Let what a program left running in the background come to its end; the processes that had to be ended.

        They go on while any of them can run, as what a pipe or a process substitution still has to print; for
        `patience` seconds of the machine's time at most. Who then waits for time to pass or for input is killed. With
        `wait_for_all` they have all the time they want.
        """
        self._require_open()
        kernel = self.kernel
        if all(process.status is not None for process in kernel.processes.values()):
            return []
        end = kernel.clock.monotonic_ns() + int(patience * 1e9)
        with Console(kernel):
            if wait_for_all:
                kernel.scheduler.run(lambda: not kernel.processes)
            else:
                kernel.scheduler.drain(lambda: not kernel.processes or kernel.clock.monotonic_ns() >= end)
        kernel.vfs.sync()
        return self._end_all()

    @property
    def switched_off(self) -> ExitStatus | None:
        """Why everything ended before its time: `timeout`, a signal to us, a bound; None if nothing was."""
        return self.kernel.scheduler.stopped

    def _end_all(self) -> list[KernelProcess]:
        alive = [process for process in self.kernel.processes.values() if process.status is None]
        for process in alive:
            self.kernel.exit_process(process, ExitStatus(signal=SIGKILL))
        return alive

    def register_format(self, text: str | bytes) -> None:
        """Register a format with binfmt_misc, by a string such as ":py:E::py::/usr/bin/python3:".

        It is what the guest writes to /proc/sys/fs/binfmt_misc/register; see `loadstone.binfmt.misc`. The format that
        was registered last is asked first. Raises LinuxError: EINVAL, EEXIST, with flag F also what opening gives.
        """
        from loadstone.linux.exec.binfmt_misc import register

        self._require_open()
        register(self.kernel, os.fsencode(text))

    def discarded(self) -> Sequence[Any]:
        """What the guest wrote that the host will not get."""
        return self.kernel.vfs.discarded()

    def keep_option(self) -> str:
        """The `--rw` option that would have kept it; "" if there was nothing."""
        return self.kernel.vfs.keep_option()

    @property
    def fill_ahead(self) -> FillAhead | None:
        """How far faults on new anonymous memory fill the pages that follow, and what they filled; None: they do not.

        A limit that nobody asked for does not count while somebody listens to faults.
        """
        return self.kernel.fill_ahead

    @property
    def unimplemented(self) -> dict[str, int]:
        """System calls that are not implemented and were made all the same, with how often."""
        return self.linux.calls.unimplemented

    @property
    def refused(self) -> dict[str, int]:
        """What programs asked for and may not have (sockets, mounts, ioctls), with how often."""
        return self.linux.calls.refused

    def dump_cores(self, where: str) -> None:
        """Let processes that die by a signal such as SIGSEGV leave an ELF core file, for programs spawned from now on.

        `where`: a host directory, for files called core.PID, or a file. Raises HostError if it cannot be there.
        """
        from loadstone.linux.coredump import CoreFiles
        from loadstone.linux.profile import RLIM_INFINITY, RLIMIT_CORE

        directory = where if os.path.isdir(where) else os.path.dirname(where) or "."
        if not os.access(directory, os.W_OK | os.X_OK):
            raise HostError(f"--core: {directory} is no directory that can be written to")
        limits = list(self.profile.limits)
        limits[RLIMIT_CORE] = (RLIM_INFINITY, RLIM_INFINITY)
        self.profile = self.profile._replace(limits=tuple(limits))
        self.linux.core_files = CoreFiles(where)

    @property
    def cores(self) -> list[tuple[str, int]]:
        """The core files that were written: (path, bytes)."""
        return list(self.linux.core_files.written) if self.linux.core_files is not None else []

    @property
    def ignored_set_id(self) -> list[str]:
        """Executed files whose set-user-ID or set-group-ID bits would have changed the process's credentials."""
        return list(self.linux.ignored_set_id)

    @property
    def killed_for_memory(self) -> list[str]:
        """A sentence for each process that was killed because the machine was full."""
        return list(self.linux.killed_for_memory)

    def close(self) -> None:
        """Give the host back what the machine holds."""
        if not self._closed:
            self._closed = True
            self.events.unsubscribe(self._keep_fault)
            for process in self._running:
                process._let_go()
            for core in self.kernel.cores:
                core.close()
            self.kernel.vfs.close()
            self.physical.close()

    def _require_open(self) -> None:
        if self._closed:
            raise HostError("the machine is closed")

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _too_small(error: OutOfFrames) -> LinuxError:
    return LinuxError(ENOMEM, f"{error}: the machine is too small for this program")


def explain(
    path: str,
    argv: Strings | None = None,
    envp: Environment | None = None,
    *,
    machine: Machine | None = None,
    cwd: str | None = None,
    stages: list[Stage] | None = None,
) -> Image:
    """What execve makes of `path`, without running any of it.

    Args:
        path: the program, not searched in PATH; argv: default just `path`; envp: default empty.
        machine: where to load it; default: a machine as the host is.
        cwd: the working directory, as the guest names it.
        stages: a list that receives the stages of the exec, also when it fails.

    Raises:
        LinuxError: what the kernel would answer; `fatal_signal` is set past the point of no return.
    """
    from loadstone.observe.image import Image

    own = machine is None
    machine = Machine(keep_faults=False) if machine is None else machine
    try:
        return Image(machine.prepare(path, argv, envp, cwd=cwd, stages=stages))
    finally:
        if own:
            machine.close()
