"""What system calls set for a process or a thread, and other calls, /proc and exec look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadstone.kernel.process import Credentials, Process, Task
    from loadstone.linux.cgroups import Cgroup
    from loadstone.linux.ipc.sem_undo import UndoList
    from loadstone.linux.ipc.shm import Segment
    from loadstone.linux.namespaces import Namespaces
    from loadstone.linux.namespaces.pids import PidNamespace
    from loadstone.linux.seccomp.filters import Filter
    from loadstone.linux.timers import PosixTimer

# include/uapi/linux/prctl.h
PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_GET_TIMERSLACK = 3, 7, 30
PR_GET_PDEATHSIG, PR_GET_CHILD_SUBREAPER = 2, 37
_NOT_INHERITED = (PR_GET_PDEATHSIG, PR_GET_CHILD_SUBREAPER)
DEFAULT_SLACK = 50_000  # ns
INHERITED_SLACK = -PR_GET_TIMERSLACK  # a setting that no prctl reads: what PR_SET_TIMERSLACK with 0 goes back to

# include/uapi/linux/personality.h
UNAME26, ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT, READ_IMPLIES_EXEC = 0x0020000, 0x0040000, 0x0200000, 0x0400000
STICKY_TIMEOUTS = 0x4000000


class ProcessState:
    """Settings of a process.

    Attributes:
        personality: the word of personality(2).
        membarrier: the registrations of membarrier(2).
        oom_score_adj: from -1000 to 1000.
        cpu_seconds_told: the second of CPU time at which it last got SIGXCPU.
        coredump_filter: which mappings are in its core file, bits as in /proc/PID/coredump_filter.
        segments: the shared memory of System V that it made.
        timers: those of timer_create(2), by number.
        cgroup: the control group it is in, None for the root; `frozen`: that group stops it (see cgroups.py).
        pids: the PID namespace that it was born in; None for the machine's first.
        settings: of prctl(2), by the PR_GET_… option that reads them; what is not there was never set.
    """

    __slots__ = (
        "cgroup", "coredump_filter", "cpu_seconds_told", "frozen", "membarrier", "oom_score_adj", "personality",
        "pids", "segments", "settings", "timers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.personality = 0
        self.membarrier = 0
        self.oom_score_adj = 0
        self.coredump_filter = 0x33  # MMF_DUMP_FILTER_DEFAULT
        self.settings: dict[int, int] = {}
        self.timers: dict[int, PosixTimer] = {}
        self.segments: list[Segment] = []
        self.cpu_seconds_told = -1
        self.cgroup: Cgroup | None = None
        self.frozen = False
        self.pids: PidNamespace | None = None

    def fork(self) -> ProcessState:
        """What a child begins with: all but what is said of this very process."""
        child = ProcessState()
        child.personality, child.membarrier = self.personality, self.membarrier
        child.oom_score_adj, child.coredump_filter = self.oom_score_adj, self.coredump_filter
        child.settings = {key: value for key, value in self.settings.items() if key not in _NOT_INHERITED}
        if PR_GET_TIMERSLACK in self.settings:
            child.settings[INHERITED_SLACK] = self.settings[PR_GET_TIMERSLACK]
        return child

    def exec(self, read_implies_exec: bool, who: Credentials) -> None:
        """What execve resets (SET_PERSONALITY2, begin_new_exec, membarrier_exec_mmap); `who` executes."""
        self.personality = self.personality & ~READ_IMPLIES_EXEC | (READ_IMPLIES_EXEC if read_implies_exec else 0)
        self.membarrier = 0
        self.settings[PR_GET_DUMPABLE] = int((who.uid, who.gid) == (who.euid, who.egid))
        self.settings.pop(PR_GET_KEEPCAPS, None)
        for one in self.timers.values():
            one.set(0, 0)
        self.timers.clear()


class TaskState:
    """Settings of a thread.

    Attributes:
        rseq: (address, length, signature) of the area it registered with rseq(2), or None.
        policy: its SCHED_… policy; the priority that goes with it is the task's.
        deadline: runtime, deadline and period of SCHED_DEADLINE, in ns.
        resets_on_fork: children are ordinary again (SCHED_RESET_ON_FORK).
        io_priority: class and level of ioprio_set(2); 0 for none of its own.
        namespaces: those it is in; None where all of them are the machine's first ones.
        undo: what SEM_UNDO will take back when it ends; None while there is nothing.
        no_new_privileges: PR_SET_NO_NEW_PRIVS.
        seccomp_mode: 0, or what seccomp(2) made it, with the newest of its filters.
    """

    __slots__ = (
        "deadline", "io_priority", "namespaces", "no_new_privileges", "policy", "resets_on_fork", "rseq",
        "seccomp_filter", "seccomp_mode", "undo",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rseq: tuple[int, int, int] | None = None
        self.policy = 0
        self.deadline = (0, 0, 0)
        self.resets_on_fork = False
        self.io_priority = 0
        self.namespaces: Namespaces | None = None
        self.undo: UndoList | None = None
        self.no_new_privileges = False
        self.seccomp_mode = 0
        self.seccomp_filter: Filter | None = None

    def fork(self, *, keeps_rseq: bool) -> TaskState:
        """What a child begins with; in the same memory the area stays the parent's."""
        child = TaskState()
        child.rseq = self.rseq if keeps_rseq else None
        child.policy, child.io_priority = self.policy, self.io_priority
        child.namespaces = self.namespaces
        child.no_new_privileges = self.no_new_privileges
        child.seccomp_mode, child.seccomp_filter = self.seccomp_mode, self.seccomp_filter
        if self.seccomp_filter is not None:
            self.seccomp_filter.hold()
        return child

    def end(self) -> None:
        """The thread has ended: it is in no namespace and has no filters any more."""
        self.namespaces = None  # a namespace goes when nobody is in it
        if self.seccomp_filter is not None:
            self.seccomp_filter.leave()
            self.seccomp_filter = None

    def reset_on_fork(self, child: Task) -> None:
        """SCHED_RESET_ON_FORK: the child has no real-time priority, and no better nice value than 0."""
        if self.resets_on_fork:
            task_state(child).policy = 0
            child.real_time, child.runs_to_block, child.nice = 0, False, max(child.nice, 0)

    def exec(self) -> None:
        """What execve resets: the area was in the old image. The new one has the clocks of children."""
        self.rseq = None
        now = self.namespaces
        if now is not None and now.time is not now.time_for_children:
            self.namespaces = now.begun()


def process_state(process: Process) -> ProcessState:
    """The state of a process; made when first asked for."""
    if process.personal is None:
        process.personal = ProcessState()
    state: ProcessState = process.personal
    return state


def is_frozen(process: Process) -> bool:
    """Whether the process's control group stops it."""
    return process.personal is not None and process.personal.frozen


def task_state(task: Task) -> TaskState:
    """The state of a thread; made when first asked for."""
    if task.personal is None:
        task.personal = TaskState()
    state: TaskState = task.personal
    return state
