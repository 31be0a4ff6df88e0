"""Processes and tasks: what a program is to the kernel while it runs.

A task is a thread of the guest; a process is what its threads share. Neither knows an ABI: signals and the like are
objects that the personality puts here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.machine.core import Context
    from loadstone.memory.address_space import AddressSpace
    from loadstone.vfs.file_table import FileTable
    from loadstone.vfs.location import Location
    from loadstone.wait import WaitQueue

RUNNABLE, WAITING, STOPPED, ENDED = range(4)  # states of a task


class Credentials:
    """User and group numbers: real, effective, saved and file-system ones, and the supplementary groups."""

    __slots__ = ("egid", "euid", "fsgid", "fsuid", "gid", "groups", "sgid", "suid", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...] = ()) -> None:
        self.uid = self.euid = self.suid = self.fsuid = uid
        self.gid = self.egid = self.sgid = self.fsgid = gid
        self.groups = groups


class FsContext:
    """Where paths start: working directory, root, and the mask for new files' modes."""

    __slots__ = ("cwd", "root", "umask")

    def __init__(self, cwd: Location, root: Location, umask: int = 0o022) -> None:
        self.cwd = cwd
        self.root = root
        self.umask = umask


class ExitStatus:
    """How a process ended: `code`, or the number of the `signal` that killed it (0: none).

    `timed_out`: the machine's time was up. `note`: a sentence where there is more to say, as for out of memory.
    """

    __slots__ = ("code", "note", "signal", "timed_out")

    def __init__(self, code: int = 0, signal: int = 0, *, timed_out: bool = False, note: str = "") -> None:
        self.code = code
        self.signal = signal
        self.timed_out = timed_out
        self.note = note

    def __repr__(self) -> str:
        return f"ExitStatus(code={self.code}, signal={self.signal})"


class Process:
    """What the threads of a program share.

    Attributes:
        pid, parent_pid, group, session: process, parent, process group and session numbers.
        space: the address space; exec replaces it by one assignment.
        signals: the personality's: actions, and what is pending for the process.
        personal: what else the personality keeps of it; None until it does.
        limits: resource number -> (soft, hard), in the resource's own unit.
        image: what exec made, as the personality describes it (None before the first exec).
        status: how it ended, or None.
        keeps_memory: its memory outlives it, for somebody who wants to look at the end.
    """

    __slots__ = (
        "credentials", "executable", "files", "fs", "group", "image", "keeps_memory", "kernel", "limits", "name",
        "parent_pid", "personal", "pid", "session", "signals", "space", "started_ns", "status", "tasks",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, pid: int, credentials: Credentials, fs: FsContext, files: FileTable, signals: Any
    ) -> None:
        self.kernel = kernel
        self.pid = self.group = self.session = pid
        self.parent_pid = 1
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
        self.started_ns = 0  # CLOCK_MONOTONIC
        self.tasks: list[Task] = []
        self.status: ExitStatus | None = None
        self.keeps_memory = False


class Task:
    """A thread.

    Attributes:
        context: its CPU state.
        signals: the personality's: mask, pending signals, alternate stack.
        personal: what else the personality keeps of it; None until it does.
        state: RUNNABLE, WAITING, STOPPED or ENDED.
        pending: the system call it waits in, or None.
        cpu: the number of the core it ran on last.
    """

    __slots__ = (
        "clear_child_tid", "context", "cpu", "kernel", "name", "pending", "personal", "process", "queues",
        "robust_list", "signals", "state", "tid", "why",
    )  # fmt: skip

    def __init__(self, process: Process, tid: int, context: Context, signals: Any) -> None:
        self.process = process
        self.kernel = process.kernel
        self.tid = tid
        self.context = context
        self.signals = signals
        self.name = process.name
        self.cpu = 0
        self.state = RUNNABLE
        self.why = "started"  # why it last stopped running, for the switch event
        self.pending: Any = None
        self.queues: tuple[WaitQueue, ...] = ()
        self.clear_child_tid = 0
        self.robust_list = 0
        self.personal: Any = None
        process.tasks.append(self)
