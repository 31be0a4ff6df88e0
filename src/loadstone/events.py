"""Everything that happens is an event: small typed records, emitted at the one place where they happen.

Emitting costs one `if` while nobody listens:

    if events.fault:
        publish(events.fault, Fault(...))

Field meanings are those of the `loadstone/events/1` schema. Addresses and sizes are in bytes; `time`, `start` and `end`
are nanoseconds of the machine's time since it was built. Depends on nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from loadstone.lean import NamedTuple

Subscriber = Callable[[Any], object]


class Fault(NamedTuple):
    """A page fault that was resolved, or that ended in a signal (`signal` is then its name)."""

    pid: int
    tid: int
    cpu: int
    address: int
    pc: int
    access: str  # read | write | execute
    mode: str  # user | kernel
    cause: str  # file | anonymous | zero-page | copy-on-write | shared | stack | swap | protection
    major: bool
    around: int  # pages mapped beside the faulting one
    mapping: str  # the VMA's name as /proc/PID/maps shows it; "" for anonymous memory
    offset: int  # file offset of the page; for anonymous memory the offset in the mapping
    frame: int
    signal: str | None = None


class Syscall(NamedTuple):
    """A system call that returned. `errno` is the error's name, or None; `args` are the six raw registers."""

    pid: int
    tid: int
    cpu: int
    number: int
    name: str
    args: tuple[int, ...]
    result: int
    errno: str | None
    restarted: bool
    text: str  # the strace-style line without the result; "" unless somebody wants the texts
    shown: str = ""  # with it the result as strace shows it, where that is not the number, and what it adds to it
    note: str = ""


class Map(NamedTuple):
    """A mapping came into being (`event` = map), went (unmap) or changed its protection (protect)."""

    event: str
    pid: int
    tid: int
    start: int
    end: int
    perms: str
    offset: int
    path: str


class Exec(NamedTuple):
    """One stage of `execve`: the kernel function that takes it and what it decided."""

    pid: int
    tid: int
    path: str
    function: str
    step: int
    text: str


class Switch(NamedTuple):
    """A CPU goes from one task to another.

    `why` the first one stopped: slice-end, blocked, stopped, exited; started if there was none. `work`: what it did
    since it came there, in the core's unit. `waits_for`: what it is blocked on, for a person. `same_directory`: both
    are in the same address space, so that only threads were switched.
    """

    cpu: int
    source: int
    target: int
    why: str
    work: int = 0
    waits_for: str = ""
    same_directory: bool = False


class Run(NamedTuple):
    """A task's stay on a CPU, told when it is over: who ran where, from when to when, and why it stopped.

    `why`: blocked, stopped, exited, or slice-end once another task has the CPU or it goes on on another one. `work`
    and `waits_for` as in `Switch`.
    """

    pid: int
    tid: int
    cpu: int
    start: int
    end: int
    why: str
    work: int
    waits_for: str


class Wake(NamedTuple):
    """A task that waited, or was stopped, can run again.

    `by`: the thread that did what it waited for; 0 for the host, a timer or a deadline. `why`: woken, timed-out,
    interrupted (by a signal), continued (after a stop).
    """

    pid: int
    tid: int
    time: int
    by: int
    why: str


class Program(NamedTuple):
    """A process is a new program from here on: its last `execve` succeeded.

    `path`: what was executed, as given. `program`: the file whose code runs, the interpreter for a script. `name`: the
    process's short name. `arguments`: argv, as it was given.
    """

    pid: int
    tid: int
    time: int
    path: str
    program: str
    name: str
    arguments: tuple[str, ...]


class Fork(NamedTuple):
    """A process or, with `thread`, a thread came into being: `child` is its number. `flags` are those of clone(2)."""

    pid: int
    tid: int
    child: int
    flags: int
    thread: bool
    time: int = 0


class Signal(NamedTuple):
    """A signal was delivered. `action`: handler, default, ignored."""

    pid: int
    tid: int
    signal: str
    code: int
    address: int
    action: str
    text: str = ""  # siginfo_t in strace's manner; "" unless somebody wants the texts of system calls


class Exit(NamedTuple):
    """A process ended with `status`, or by `signal`.

    What it took, its threads taken together: `cpu_ns` of CPU time, `system_ns` of it in the kernel, page faults, times
    it came to run, and the pages that were resident at most.
    """

    pid: int
    tid: int
    status: int
    signal: str | None
    time: int = 0
    cpu_ns: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    switches: int = 0
    peak_pages: int = 0
    system_ns: int = 0


KINDS = ("fault", "syscall", "map", "exec", "switch", "signal", "fork", "exit", "run", "wake", "program")


class Events:
    """Who listens to what. An attribute a kind; the empty tuple means nobody.

    `texts`: somebody who listens to system calls wants them as a person reads them, which costs more than the call.
    """

    __slots__ = (*KINDS, "texts")

    fault: tuple[Subscriber, ...]
    syscall: tuple[Subscriber, ...]
    map: tuple[Subscriber, ...]
    exec: tuple[Subscriber, ...]
    switch: tuple[Subscriber, ...]
    signal: tuple[Subscriber, ...]
    fork: tuple[Subscriber, ...]
    exit: tuple[Subscriber, ...]
    run: tuple[Subscriber, ...]
    wake: tuple[Subscriber, ...]
    program: tuple[Subscriber, ...]

    def __init__(self) -> None:
        for kind in KINDS:
            setattr(self, kind, ())
        self.texts = False

    def subscribe(self, subscriber: Subscriber, kinds: Iterable[str] = KINDS, *, texts: bool = True) -> None:
        """Call `subscriber(record)` for every event of `kinds` (default: all), in the order in which they happen.

        Without `texts`, `Syscall.text` may be empty.
        """
        kinds = tuple(kinds)
        self.texts = self.texts or (texts and "syscall" in kinds)
        for kind in kinds:
            if kind not in KINDS:
                raise ValueError(f"no event kind {kind!r}; there are {', '.join(KINDS)}")
            setattr(self, kind, (*getattr(self, kind), subscriber))

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Stop calling `subscriber`, for all kinds."""
        for kind in KINDS:
            setattr(self, kind, tuple(s for s in getattr(self, kind) if s != subscriber))


def publish(subscribers: tuple[Subscriber, ...], record: object) -> None:
    """Hand `record` to each subscriber."""
    for subscriber in subscribers:
        subscriber(record)
