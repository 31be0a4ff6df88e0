"""The processes of a run, made from its events: who started whom, what each became, where its time went.

A thread is at any time in one of four states: it runs on a CPU, it is ready and waits for one, it is blocked, or it is
stopped by a signal. Times are in nanoseconds of the machine's time. `History` takes live events or those of a record
(`observe.replay`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from loadstone import events

RUNNING, READY, BLOCKED, STOPPED = "running", "ready", "blocked", "stopped"
EXIT_WAKES = "a child"  # what a parent waits for in wait4 (kernel.process, Process.child_events)
_AFTER = {"blocked": BLOCKED, "stopped": STOPPED, "slice-end": READY}


class Span(NamedTuple):
    """A thread was in `state` from `start` to `end`; `cpu` where it ran, else -1; `what` it was blocked on."""

    start: int
    end: int
    state: str
    cpu: int
    what: str


class Link(NamedTuple):
    """At `time` the thread `source` did something for the thread `target`: fork, or wake with `what` it waited for."""

    time: int
    kind: str
    source: int
    target: int
    what: str


class Wait(NamedTuple):
    """A wait that is over, or lasted to the end."""

    duration: int
    what: str


class Thread:
    """One thread.

    Attributes:
        born, ended: from when to when it lived; `ended` is None while it does.
        spans: its states one after another, if they are kept.
        totals: ns in each state.
        stays: how often it came onto a CPU.
    """

    __slots__ = ("_since", "_state", "_what", "born", "ended", "spans", "stays", "tid", "totals")

    def __init__(self, tid: int, born: int) -> None:
        self.tid = tid
        self.born = self._since = born
        self._state = READY
        self._what = ""
        self.ended: int | None = None
        self.spans: list[Span] = []
        self.totals = dict.fromkeys((RUNNING, READY, BLOCKED, STOPPED), 0)
        self.stays = 0

    def run(self, stay: events.Run, keep: bool) -> Wait | None:
        """Take a stay on a CPU; the wait before it, if nobody told of its end."""
        wait = self._close(stay.start, keep)
        self._add(Span(stay.start, stay.end, RUNNING, stay.cpu, ""), keep)
        self.stays += 1
        self._since = stay.end
        self._state = _AFTER.get(stay.why, READY)
        self._what = stay.waits_for
        return wait

    def wake(self, time: int, keep: bool) -> Wait | None:
        """It can run again; the wait that is over."""
        wait = self._close(time, keep)
        self._since, self._state, self._what = time, READY, ""
        return wait

    def end(self, time: int, keep: bool) -> Wait | None:
        """It ended; the wait in which it did."""
        wait = self._close(time, keep) if self.ended is None else None
        self.ended = time
        return wait

    def pause(self, time: int, keep: bool) -> Wait | None:
        """Nothing more is told, though it lives; the wait in which it is."""
        wait = self._close(time, keep)
        self._since = time
        return wait

    @property
    def what(self) -> str:
        """What it is blocked on now; "" if it is not."""
        return self._what

    def _close(self, time: int, keep: bool) -> Wait | None:
        if time > self._since:
            self._add(Span(self._since, time, self._state, -1, self._what), keep)
        return Wait(time - self._since, self._what) if self._state == BLOCKED else None

    def _add(self, span: Span, keep: bool) -> None:
        self.totals[span.state] += span.end - span.start
        if keep:
            self.spans.append(span)


class Process:
    """One process of the run.

    Attributes:
        pid, parent: its number and its parent's object (None for one that nobody forked).
        children: in the order of their birth.
        programs: what it became by execve, in order; empty for one that goes on as the program it was forked from.
        threads: by number, in the order of their birth, the ended ones included.
        end: its exit event; None while it lives.
        calls: system calls it made, if they are counted.
        longest_wait: of its threads; None if none ever blocked.
    """

    __slots__ = ("born", "calls", "children", "end", "longest_wait", "parent", "pid", "programs", "threads")

    def __init__(self, pid: int, parent: Process | None, born: int) -> None:
        self.pid = pid
        self.parent = parent
        self.born = born
        self.children: list[Process] = []
        self.programs: list[events.Program] = []
        self.threads: dict[int, Thread] = {}
        self.end: events.Exit | None = None
        self.calls = 0
        self.longest_wait: Wait | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What it was executed with last; its parent's if it was only forked."""
        if self.programs:
            return self.programs[-1].arguments
        return self.parent.arguments_at(self.born) if self.parent is not None else ()

    def arguments_at(self, time: int) -> tuple[str, ...]:
        """What it had been executed with by then."""
        for program in reversed(self.programs):
            if program.time <= time:
                return program.arguments
        return self.parent.arguments_at(self.born) if self.parent is not None else ()

    @property
    def program(self) -> str:
        """The file whose code it ran last; "" if it was only forked."""
        return self.programs[-1].program if self.programs else ""

    @property
    def forked_only(self) -> bool:
        """Whether it never executed anything: a subshell, a worker."""
        return not self.programs

    def total(self, state: str) -> int:
        """ns that its threads spent in a state."""
        return sum(thread.totals[state] for thread in self.threads.values())

    def waited(self, wait: Wait | None) -> None:
        """Keep the longest wait."""
        if wait is not None and wait.what and (self.longest_wait is None or wait > self.longest_wait):
            self.longest_wait = wait


class History:
    """Subscribe it to a machine's events, or hand it those of a record.

    Attributes:
        processes: all there ever were, in the order of their birth.
        links: who forked and woke whom, if details are kept.
        until: the latest time that was told.
        process_switches, thread_switches: how often a CPU went to another page directory, and to another thread.
    """

    KINDS = ("fork", "program", "run", "wake", "exit", "switch", "syscall")

    def __init__(self, *, details: bool = False) -> None:
        self.processes: list[Process] = []
        self.links: list[Link] = []
        self.until = 0
        self.process_switches = self.thread_switches = 0
        self._details = details
        self._alive: dict[int, Process] = {}

    def __call__(self, record: Any) -> None:
        """Take one event."""
        take = _TAKES.get(type(record))
        if take is not None:
            take(self, record)

    @property
    def began(self) -> int:
        """When the first process was born; 0 if there is none."""
        return min((process.born for process in self.processes), default=0)

    @property
    def roots(self) -> list[Process]:
        """The processes that nobody forked."""
        return [process for process in self.processes if process.parent is None]

    @property
    def cpus(self) -> list[int]:
        """The CPUs on which somebody ran, if details are kept."""
        return sorted({span.cpu for thread in self.threads() for span in thread.spans if span.cpu >= 0})

    def threads(self) -> Iterator[Thread]:
        """All threads of all processes."""
        for process in self.processes:
            yield from process.threads.values()

    def pause(self) -> None:
        """Nothing more is told for now: who lives is in their state up to the latest time that was told."""
        for process in self._alive.values():
            for thread in process.threads.values():
                if thread.ended is None:
                    process.waited(thread.pause(self.until, self._details))

    def _process(self, pid: int, tid: int, time: int) -> Process:
        process = self._alive.get(pid)
        if process is None:  # the first one, which the machine's user started
            process = self._born(pid, None, time)
            process.threads[tid] = Thread(tid, time)
        return process

    def _thread(self, pid: int, tid: int, time: int) -> tuple[Process, Thread]:
        process = self._process(pid, tid, time)
        thread = process.threads.get(tid)
        if thread is None or thread.ended is not None:
            thread = process.threads[tid] = Thread(tid, time)
        return process, thread

    def _born(self, pid: int, parent: Process | None, time: int) -> Process:
        process = self._alive[pid] = Process(pid, parent, time)
        self.processes.append(process)
        if parent is not None:
            parent.children.append(process)
        return process

    def _fork(self, e: events.Fork) -> None:
        self._see(e.time)
        parent = self._process(e.pid, e.tid, e.time)
        child = parent if e.thread else self._born(e.child, parent, e.time)
        child.threads[e.child] = Thread(e.child, e.time)
        if self._details:
            self.links.append(Link(e.time, "fork", e.tid, e.child, ""))

    def _program(self, e: events.Program) -> None:
        self._see(e.time)
        process = self._process(e.pid, e.tid, e.time)
        process.programs.append(e)
        for thread in process.threads.values():  # exec leaves the thread that called it, with the process's number
            if thread.tid != e.tid and thread.ended is None:
                process.waited(thread.end(e.time, self._details))

    def _run(self, e: events.Run) -> None:
        self._see(e.end)
        process, thread = self._thread(e.pid, e.tid, e.start)
        process.waited(thread.run(e, self._details))
        if e.why == "exited":
            thread.end(e.end, self._details)

    def _wake(self, e: events.Wake) -> None:
        self._see(e.time)
        process, thread = self._thread(e.pid, e.tid, e.time)
        if self._details and e.by:
            self.links.append(Link(e.time, "wake", e.by, e.tid, thread.what))
        process.waited(thread.wake(e.time, self._details))

    def _exit(self, e: events.Exit) -> None:
        self._see(e.time)
        process = self._process(e.pid, e.tid, e.time)
        process.end = e
        for thread in process.threads.values():
            if thread.ended is None:
                process.waited(thread.end(e.time, self._details))
        self._alive.pop(e.pid, None)

    def _switch(self, e: events.Switch) -> None:
        if e.source and e.same_directory:
            self.thread_switches += 1
        elif e.source:
            self.process_switches += 1

    def _syscall(self, e: events.Syscall) -> None:
        process = self._alive.get(e.pid)
        if process is not None:
            process.calls += 1

    def _see(self, time: int) -> None:
        self.until = max(self.until, time)


_TAKES: dict[type, Any] = {
    events.Fork: History._fork,
    events.Program: History._program,
    events.Run: History._run,
    events.Wake: History._wake,
    events.Exit: History._exit,
    events.Switch: History._switch,
    events.Syscall: History._syscall,
}
