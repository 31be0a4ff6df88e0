"""Processes and tasks: what a program is to the kernel while it runs.

A task is a thread of the guest; a process is what its threads share. Neither knows an ABI: signals and the like are
objects that the personality puts here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.kernel.cpu_time import TimesTold
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.machine.core import Context
    from loadstone.memory.address_space import AddressSpace
    from loadstone.vfs.file_table import FileTable
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Location

RUNNABLE, WAITING, STOPPED, ENDED = range(4)  # states of a task
INIT = 1  # the number of the machine itself, to which orphans go


class Credentials:
    """User and group numbers: real, effective, saved and file-system ones, and the supplementary groups.

    `capabilities`: the personality's, where they are not what goes with the user numbers; else None. `users`: the
    personality's too, what the numbers mean to the process where that is not the numbers themselves; else None.
    """

    __slots__ = ("capabilities", "egid", "euid", "fsgid", "fsuid", "gid", "groups", "sgid", "suid", "uid", "users")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...] = ()) -> None:
        self.uid = self.euid = self.suid = self.fsuid = uid
        self.gid = self.egid = self.sgid = self.fsgid = gid
        self.groups = groups
        self.capabilities: Any = None
        self.users: Any = None

    def rules(self, inode: Inode, capability: int) -> bool:
        """Whether a capability counts on a file for a user who is not 0, by the personality's rules."""
        return self.users is not None and bool(self.users.rules(self, inode, capability))

    def copy(self) -> Credentials:
        """What fork gives the child."""
        other = Credentials(self.uid, self.gid, self.groups)
        other.euid, other.suid, other.fsuid = self.euid, self.suid, self.fsuid
        other.egid, other.sgid, other.fsgid = self.egid, self.sgid, self.fsgid
        other.capabilities, other.users = self.capabilities, self.users
        return other


class FsContext:
    """Where paths start: working directory, root, and the mask for new files' modes."""

    __slots__ = ("cwd", "root", "umask")

    def __init__(self, cwd: Location, root: Location, umask: int = 0o022) -> None:
        self.cwd = cwd
        self.root = root
        self.umask = umask

    def copy(self) -> FsContext:
        """What fork gives the child."""
        return FsContext(self.cwd, self.root, self.umask)


class ExitStatus:
    """How a process ended: `code`, or the number of the `signal` that killed it (0: none).

    `core_dumped`: it left a core file. `timed_out`: the machine's time was up. `note`: a sentence where there is more
    to say, as for out of memory.
    """

    __slots__ = ("code", "core_dumped", "note", "signal", "timed_out")

    def __init__(
        self, code: int = 0, signal: int = 0, *, core_dumped: bool = False, timed_out: bool = False, note: str = ""
    ) -> None:
        self.code = code
        self.signal = signal
        self.core_dumped = core_dumped
        self.timed_out = timed_out
        self.note = note

    def __repr__(self) -> str:
        return f"ExitStatus(code={self.code}, signal={self.signal})"


class Usage:
    """What a process took: CPU time in ns (`system_ns` of it in the kernel), page faults, pages resident at most, and
    how often it came to run.
    """

    __slots__ = ("cpu_ns", "major_faults", "minor_faults", "peak_pages", "switches", "system_ns")

    def __init__(self) -> None:
        self.cpu_ns = self.minor_faults = self.major_faults = self.peak_pages = self.switches = self.system_ns = 0

    @property
    def user_ns(self) -> int:
        """CPU time outside of the kernel."""
        return self.cpu_ns - self.system_ns

    def add_task(self, task: Task) -> None:
        """Count what a thread took."""
        self.cpu_ns += task.cpu_ns
        self.system_ns += task.system_ns
        self.switches += task.switches

    def add_memory(self, space: AddressSpace) -> None:
        """Count the page faults of an address space, and its pages at most."""
        self.minor_faults += space.minor_faults
        self.major_faults += space.major_faults
        self.peak_pages = max(self.peak_pages, space.resident_peak)

    def copy(self) -> Usage:
        """Another with the same figures."""
        other = Usage()
        other.add(self)
        return other

    def add(self, other: Usage) -> None:
        """Take another's figures in; of the peaks the higher one counts."""
        self.cpu_ns += other.cpu_ns
        self.system_ns += other.system_ns
        self.minor_faults += other.minor_faults
        self.major_faults += other.major_faults
        self.switches += other.switches
        self.peak_pages = max(self.peak_pages, other.peak_pages)


class Process:
    """What the threads of a program share.

    Attributes:
        pid, group, session: process, process group and session numbers.
        parent: the process that is told of its end; None for the machine itself, which is told nothing.
        children: its living and ended, not yet reaped children, by pid, in the order of their birth.
        child_events: woken when a child ends, stops or goes on.
        ending: woken when it ends (and becomes a zombie).
        exit_signal: what its parent is sent when it ends; 0 for nothing.
        space: the address space; exec replaces it by one assignment.
        signals: the personality's: actions, and what is pending for the process.
        personal: what else the personality keeps of it; None until it does.
        limits: resource number -> (soft, hard), in the resource's own unit.
        image: what exec made, as the personality describes it (None before the first exec).
        status: how it ended, or None.
        stopped_by: the signal that stopped it; 0 while it is not stopped.
        unreported: the stop or continuation that its parent has not waited for yet: a signal number, or None.
        apart: the descriptors and directories of each thread, where not all share them; `files` and `fs` are then those
            of the thread that runs or ran last. None where all do.
        told: its user and system time as last told.
        usage: what its ended threads took; `children_usage`: what the children it waited for took.
        is_first: it was not forked: the machine's user started it.
        keeps_memory: its memory outlives it, for somebody who wants to look at the end.
    """

    __slots__ = (
        "apart", "child_events", "children", "children_usage", "credentials", "ending", "executable", "exit_signal",
        "files", "fs", "group", "has_executed", "image", "is_first", "keeps_memory", "kernel", "limits", "name",
        "parent", "personal", "pid", "session", "signals", "space", "started_ns", "status", "stopped_by", "tasks",
        "told", "unreported", "usage",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, pid: int, credentials: Credentials, fs: FsContext, files: FileTable, signals: Any
    ) -> None:
        self.kernel = kernel
        self.pid = self.group = self.session = pid
        self.parent: Process | None = None
        self.children: dict[int, Process] = {}
        self.child_events = WaitQueue("a child")
        self.ending = WaitQueue(f"the end of process {pid}")
        self.exit_signal = 0
        self.credentials = credentials
        self.fs = fs
        self.files = files
        self.signals = signals
        self.limits: dict[int, tuple[int, int]] = {}
        self.personal: Any = None
        self.name = ""  # at most 15 bytes (the kernel's comm)
        self.space: AddressSpace
        self.executable: Location | None = None
        self.image: Any = None
        self.has_executed = False  # since it was forked (setpgid looks at it)
        self.started_ns = 0  # CLOCK_MONOTONIC
        self.tasks: list[Task] = []
        self.status: ExitStatus | None = None
        self.stopped_by = 0
        self.unreported: int | None = None
        self.apart: dict[Task, tuple[FileTable, FsContext]] | None = None
        self.told = TimesTold()
        self.usage = Usage()
        self.children_usage = Usage()
        self.is_first = False
        self.keeps_memory = False

    def forked(self, pid: int, space: AddressSpace, fs: FsContext, files: FileTable, signals: Any) -> Process:
        """A new process with these, and with what else a child takes over; it has no parent and no thread yet."""
        child = Process(self.kernel, pid, self.credentials.copy(), fs, files, signals)
        child.space = space
        child.group, child.session = self.group, self.session
        child.limits = self.limits.copy()
        child.executable, child.image = self.executable, self.image
        child.started_ns = self.kernel.clock.monotonic_ns()
        return child

    @property
    def parent_pid(self) -> int:
        """The parent's number; 1 where it is the machine, which plays init."""
        return self.parent.pid if self.parent is not None else INIT

    def set_apart(self, task: Task, files: FileTable, fs: FsContext) -> None:
        """From now on the thread has descriptors and directories of its own, or shares them with only some others.

        Every thread then counts as a user of its table.
        """
        if self.apart is None:
            others = [other for other in self.tasks if other is not task]
            for _ in others[1:]:
                self.files.share()
            self.apart = dict.fromkeys(others, (self.files, self.fs))
            if not others:
                self.files.drop()
        elif task in self.apart:
            self.apart[task][0].drop()
        self.apart[task] = files, fs

    def unshare(self, task: Task, *, files: bool, fs: bool) -> None:
        """The running thread gets descriptors, directories or both of its own, whoever else uses those it has."""
        if len(self.tasks) > 1 and (files or fs):
            mine = self.files.clone() if files else self.files.share()
            here = self.fs.copy() if fs else self.fs
            self.set_apart(task, mine, here)
            self.files, self.fs = mine, here
            return
        if fs:
            self.fs = self.fs.copy()
        if files and self.files.shared:
            shared, self.files = self.files, self.files.clone()
            shared.drop()

    def rejoin(self, task: Task) -> None:
        """A thread that was apart, or whose process has such, ends."""
        if self.apart is None or task not in self.apart:
            return
        self.apart.pop(task)[0].drop()
        for files, fs in self.apart.values():
            self.files, self.fs = files, fs
            break

    def drop_files(self) -> None:
        """The end of the process: nobody in it uses descriptors any more."""
        if self.apart is None:
            self.files.drop()
            return
        for files, _ in self.apart.values():
            files.drop()

    def total_usage(self) -> Usage:
        """What it took so far, its threads, its memory and the slice that runs now taken together."""
        total = self.usage.copy()
        if self.status is not None:
            return total
        for task in self.tasks:
            total.add_task(task)
        scheduler = self.kernel.scheduler
        if scheduler.current is not None and scheduler.current.process is self:
            total.cpu_ns += scheduler.slice_cpu_ns()
            total.system_ns += scheduler.slice_system_ns()
        total.system_ns = self.told.settle(total.cpu_ns, total.system_ns)
        total.add_memory(self.space)
        return total


class Task:
    """A thread.

    Attributes:
        context: its CPU state.
        signals: the personality's: mask, pending signals, alternate stack.
        personal: what else the personality keeps of it; None until it does.
        state: RUNNABLE, WAITING, STOPPED or ENDED.
        pending: the system call it is in, or None; `woken_by` is why the call goes on.
        cpu: the number of the CPU it ran on last; cpu_ns: how long it ran, in ns, and `system_ns` of that in the
            kernel; switches: how often it came to run.
        nice: -20 (runs most) to 19; real_time: priority 1 to 99, 0 for ordinary tasks; runs_to_block: no time slice.
        inherited: the highest real-time priority of those who wait for a lock of its; 0 for none.
        affinity: the CPUs it may run on, as a mask; None: all.
        vfork_done: woken when it no longer needs its parent's memory; None if it never did.
    """

    __slots__ = (
        "affinity", "clear_child_tid", "context", "cpu", "cpu_ns", "exit_code", "inherited", "kernel", "name", "nice",
        "pending", "personal", "process", "queues", "real_time", "robust_list", "runs_to_block", "signals", "state",
        "switches", "system_ns", "tid", "vfork_done", "virtual_time", "why", "woken_by",
    )  # fmt: skip

    def __init__(self, process: Process, tid: int, context: Context, signals: Any) -> None:
        self.process = process
        self.kernel = process.kernel
        self.tid = tid
        self.context = context
        self.signals = signals
        self.name = process.name
        self.cpu = 0
        self.cpu_ns = self.system_ns = 0
        self.switches = 0
        self.state = RUNNABLE
        self.why = "started"  # why it last stopped running, for the switch event
        self.pending: Any = None
        self.woken_by = ""
        self.queues: tuple[WaitQueue, ...] = ()
        self.nice = 0
        self.real_time = self.inherited = 0
        self.runs_to_block = False
        self.virtual_time = 0.0  # of a policy that shares out by weight
        self.affinity: int | None = None
        self.vfork_done: WaitQueue | None = None
        self.exit_code = 0
        self.clear_child_tid = 0
        self.robust_list = 0
        self.personal: Any = None
        process.tasks.append(self)
