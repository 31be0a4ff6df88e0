"""A kernel whose programs are Python generators: each `yield` is a trap, what comes back is the call's result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

from loadstone.clock import Clock, VirtualClock
from loadstone.errors import OutOfFrames
from loadstone.events import Events, Switch
from loadstone.kernel.kernel import MachineOptions
from loadstone.kernel.process import ENDED, RUNNABLE, ExitStatus, Task
from loadstone.kernel.scheduler import Scheduler
from loadstone.machine.core import EXCEPTION, INTERRUPTED, SLICE_END, STOPPED_AT, SYSTEM_CALL, Trap
from loadstone.wait import Interrupted, Wait

Program = Generator[Any, Any, None]


class Pending:
    """A system call that waits."""

    def __init__(self, handler: Generator[Wait, str, object], wait: Wait) -> None:
        self.handler = handler
        self.wait = wait

    def close(self) -> None:
        self.handler.close()


class Core:
    """Runs a program up to its next yield: an int is bytes of code, a string a breakpoint, anything else a call."""

    number = 0
    capabilities: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.budgets: list[int] = []
        self.retired = 0
        self.interrupted = 0

    def run(self, context: Any, space: Any, budget: int) -> Trap:
        self.budgets.append(budget)
        if context.left:
            return self._work(context, budget)
        try:
            what = context.program.send(context.result)
        except StopIteration:
            what = "exit"
        context.result = None
        if isinstance(what, int):
            context.left = what
            return self._work(context, budget)
        if isinstance(what, str):
            context.stopped_at = what
            return Trap({"exception": EXCEPTION, "exit": SYSTEM_CALL}.get(what, STOPPED_AT))
        context.call = what
        return Trap(SYSTEM_CALL)

    def _work(self, context: Any, budget: int) -> Trap:
        done = min(context.left, budget)
        context.left -= done
        self.retired += done
        return Trap(SLICE_END if not context.left or done == budget else INTERRUPTED)

    def interrupt(self) -> None:
        self.interrupted += 1


class Personality:
    """Calls are generators that yield Wait; their return value goes to the program."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.deadline: int | None = None
        self.armed: dict[object, None] = {}
        self.expire: Callable[[], None] = lambda: None

    def next_deadline(self) -> int | None:
        return self.deadline

    def expire_timers(self) -> None:
        self.expire()

    def new_slice(self, task: Task) -> None:
        self.log.append(("slice", task.tid))

    def ran(self, task: Task) -> None:
        pass

    def migrated(self, task: Task) -> None:
        pass

    def preempted(self, task: Task) -> None:
        pass

    def before_user(self, task: Task) -> None:
        task.signals.attention = False
        self.log.append(("signal", task.tid))

    def system_call(self, task: Task) -> Pending | None:
        context: Any = task.context
        if context.stopped_at == "exit":
            end(task)
            return None
        return self._step(task, context.call, lambda handler: next(handler))

    def resume(self, task: Task, pending: Pending, reason: str) -> Pending | None:
        self.log.append((reason, task.tid))
        return self._step(task, pending.handler, lambda handler: handler.send(reason))

    def interrupt(self, task: Task, pending: Pending) -> Pending | None:
        self.log.append(("interrupted", task.tid))
        return self._step(task, pending.handler, lambda handler: handler.throw(Interrupted()))

    def _step(self, task: Task, handler: Any, go: Callable[[Any], Wait]) -> Pending | None:
        context: Any = task.context
        try:
            return Pending(handler, go(handler))
        except StopIteration as stop:
            context.result = stop.value
        except Interrupted:
            context.result = "EINTR"
        return None

    def exception(self, task: Task, trap: Trap) -> None:
        self.log.append(("exception", task.tid))

    def out_of_frames(self, task: Task, why: str) -> None:
        self.log.append(("out of frames", task.tid, why))
        task.process.status = ExitStatus(signal=9)
        end(task)

    def console_signal(self, number: int) -> None:
        self.log.append(("console", number))


def end(task: Task) -> None:
    task.kernel.scheduler.remove(task)
    if task.process.status is None:
        task.process.status = ExitStatus(0)


class Machine:
    """A fake kernel with a real scheduler."""

    def __init__(self, clock: Clock | None = None, timeout: float | None = None, cpu_count: int = 1) -> None:
        self.events = Events()
        self.switches: list[Switch] = []
        self.events.subscribe(self.switches.append, ("switch",))
        self.clock = clock or VirtualClock()
        self.booted_ns = self.clock.seen_ns()
        self.options = MachineOptions(0, cpu_count, timeout=timeout)
        self.core = Core()
        self.cores = [self.core]
        self.processes: dict[int, Any] = {}
        self.personality = Personality()
        self.scheduler = Scheduler(self)  # type: ignore[arg-type]

    def start(self, program: Program, name: str = "program") -> Task:
        pid = 1000 + len(self.processes)
        process: Any = SimpleNamespace(
            kernel=self, pid=pid, name=name, tasks=[], status=None, space=SimpleNamespace(), apart=None
        )
        context: Any = SimpleNamespace(program=program, result=None, left=0, call=None, stopped_at="")
        task = Task(process, pid, context, SimpleNamespace(attention=False, arrival=None))
        self.processes[pid] = process
        self.scheduler.add(task)
        return task

    def exit_process(self, process: Any, status: ExitStatus) -> None:
        process.status = process.status or status
        for task in process.tasks:
            self.scheduler.remove(task)

    def run(self, task: Task | None = None) -> None:
        """Run until `task` (default: everybody) has ended."""
        tasks = [task] if task is not None else [t for p in self.processes.values() for t in p.tasks]
        self.scheduler.run(lambda: all(t.state == ENDED for t in tasks))


__all__ = ["RUNNABLE", "Machine", "OutOfFrames"]
