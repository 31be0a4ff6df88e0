"""Who runs, for how long, and what everybody else waits for.

Round robin over the tasks that can run. The cores of a machine take turns in one host thread, so that the order is the
same on every run. When nobody can run, time passes: to the next deadline, to input from the host, or to a signal.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from loadstone.clock import VirtualClock
from loadstone.errors import HostError, OutOfFrames
from loadstone.events import Switch, publish
from loadstone.kernel.process import ENDED, RUNNABLE, STOPPED, WAITING, ExitStatus, Task
from loadstone.machine.core import EXCEPTION, STOPPED_AT, SYSTEM_CALL
from loadstone.wait import TIMED_OUT, WOKEN, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from loadstone.kernel.kernel import Kernel
    from loadstone.machine.core import Core

SLICE = 1 << 22
"""Bytes of machine code in a time slice: a few milliseconds."""

_POLLIN, _POLLOUT, _ALWAYS = 1, 4, 8 | 16 | 32  # poll(2); POLLERR, POLLHUP and POLLNVAL come unasked
_TICK_NS = 4_000_000  # what a slice moves a virtual clock by


class Overdue(BaseException):
    """The machine should have stopped, and what it does in Python goes on. Raised by a signal handler, anywhere."""


class Scheduler:
    """The run queue of a machine.

    `on_breakpoint` is told when a task is about to execute an instruction with a breakpoint; True pauses the slice.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._ready: deque[Task] = deque()
        self._waiting: list[Task] = []
        self._last: dict[int, Task] = {}
        self.current: Task | None = None  # whose system call or fault is being served; /proc/self is its process
        self._host_signals: list[int] = []
        self._stopped: ExitStatus | None = None  # how everybody is to end; None while the machine runs
        self._deadline: float | None = None
        self._bell = -1  # an eventfd while the machine idles: rung by what comes from outside
        self._broken: HostError | None = None  # why the machine cannot go on
        self.on_breakpoint: Callable[[Task], bool] = lambda _: True

    def add(self, task: Task) -> None:
        """A task that can run."""
        task.state = RUNNABLE
        self._ready.append(task)

    def remove(self, task: Task) -> None:
        """A task has ended."""
        task.state = ENDED
        if task.pending is not None:
            self._leave_queues(task)
            task.pending.close()
            task.pending = None
        if task in self._waiting:
            self._waiting.remove(task)

    def wake(self, tasks: Iterable[object]) -> None:
        """What these tasks waited for has happened."""
        for task in tasks:
            if isinstance(task, Task) and task.state == WAITING:
                self._resume(task, WOKEN)

    def post(self, number: int) -> None:
        """A signal came from the host. May be called from a signal handler."""
        self._host_signals.append(number)
        self._interrupt_all()

    def stop(self, number: int) -> None:
        """Switch the machine off soon, as by signal `number`. May be called from a signal handler."""
        self._stopped = ExitStatus(signal=int(number))
        self._interrupt_all()

    def run(self, until: Callable[[], bool]) -> None:
        """Run the machine until `until()` holds, asked after every slice, or the machine is stopped.

        An error that comes out of a slice leaves its task where it is, but for HostError: then nothing may go on.
        """
        if self._broken is not None:
            raise self._broken
        self.start_deadline()
        try:
            self._run(until)
        except Overdue:
            self._look_outside()
        if self._stopped:
            for process in list(self._kernel.processes.values()):
                self._kernel.exit_process(process, self._stopped)

    def start_deadline(self) -> float | None:
        """Let the machine's time begin, if it has not; the seconds that are left, None without a limit."""
        timeout = self._kernel.options.timeout
        if timeout is None:
            return None
        if self._deadline is None:
            self._deadline = time.monotonic() + timeout
        return max(0.0, self._deadline - time.monotonic())

    def insist(self) -> None:
        """The machine was told to stop, or its time is up, and it had time to see that. For a signal handler."""
        raise Overdue

    def _run(self, until: Callable[[], bool]) -> None:
        while not until():
            self._look_outside()
            if self._stopped:
                return
            self._interrupt_waiting()
            task = self._next()
            if task is None:
                if not any(t.state != ENDED for p in self._kernel.processes.values() for t in p.tasks):
                    return
                self._idle()
            else:
                try:
                    self._run_slice(self._kernel.cores[task.cpu % len(self._kernel.cores)], task)
                except HostError as error:
                    self._broken = error
                    raise
                except BaseException:
                    if task.state == RUNNABLE:
                        self._ready.appendleft(task)
                    raise
                if task.state == RUNNABLE:
                    self._ready.append(task)

    # -- one slice ----------------------------------------------------------------------------------------------------

    def _run_slice(self, core: Core, task: Task) -> None:
        """The task runs until it waits, ends, or has used its slice up."""
        kernel = self._kernel
        personality = kernel.personality
        process = task.process
        self._switch_to(core, task)
        personality.expire_timers()
        personality.new_slice(task)
        end = core.retired + SLICE
        system_call = personality.system_call
        signals = task.signals
        try:
            while True:
                if signals.attention:
                    personality.before_user(task)
                    if task.state != RUNNABLE:
                        break
                trap = core.run(task.context, process.space, end - core.retired)
                if trap.kind == SYSTEM_CALL:
                    pending = system_call(task)
                    if pending is not None:
                        self._block(task, pending)
                        break
                    if task.state != RUNNABLE or core.retired >= end or self._stopped:
                        break
                elif trap.kind == EXCEPTION:
                    personality.exception(task, trap)
                    if task.state != RUNNABLE:
                        break
                elif trap.kind != STOPPED_AT or self.on_breakpoint(task):
                    break
        except OutOfFrames as error:
            personality.out_of_frames(task, str(error))
        task.why = {RUNNABLE: "slice-end", WAITING: "blocked", STOPPED: "stopped"}.get(task.state, "exited")
        if isinstance(kernel.clock, VirtualClock):
            kernel.clock.advance(_TICK_NS * (core.retired - end + SLICE) // SLICE)

    def _switch_to(self, core: Core, task: Task) -> None:
        self.current = task
        task.process.space.owner_ids = (task.process.pid, task.tid, core.number)
        last = self._last.get(core.number)
        if last is task:
            return
        self._last[core.number] = task
        events = self._kernel.events
        if events.switch:
            publish(
                events.switch, Switch(core.number, last.tid if last else 0, task.tid, last.why if last else "started")
            )

    def _next(self) -> Task | None:
        while self._ready:
            task = self._ready.popleft()
            if task.state == RUNNABLE:
                return task
        return None

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _block(self, task: Task, pending: object) -> None:
        """The task waits in a system call."""
        task.pending = pending
        task.state = WAITING
        task.queues = task.pending.wait.queues
        for queue in task.queues:
            queue.waiters.append(task)
        self._waiting.append(task)

    def _resume(self, task: Task, reason: str) -> None:
        """A wait is over: go on with the call; it may wait again."""
        personality = self._kernel.personality
        self._go_on(task, lambda pending: personality.resume(task, pending, reason))

    def _interrupt_waiting(self) -> None:
        """Tell the calls of waiting tasks about signals that came."""
        interrupt = self._kernel.personality.interrupt
        for task in [t for t in self._waiting if t.signals.attention]:
            self._go_on(task, lambda pending, task=task: interrupt(task, pending))  # type: ignore[misc]

    def _go_on(self, task: Task, step: Callable[[object], object | None]) -> None:
        """Take a task out of its wait and take `step` with the call that it waited in."""
        self._leave_queues(task)
        self._waiting.remove(task)
        self.current = task
        pending, task.pending = task.pending, None
        task.state = RUNNABLE
        try:
            pending = step(pending)
        except OutOfFrames as error:
            self._kernel.personality.out_of_frames(task, str(error))
            pending = None
        self._after_call(task, pending)

    def _after_call(self, task: Task, pending: object | None) -> None:
        if pending is not None:
            self._block(task, pending)
        elif task.state == RUNNABLE:
            self._ready.append(task)

    def _leave_queues(self, task: Task) -> None:
        for queue in task.queues:
            if task in queue.waiters:
                queue.waiters.remove(task)
        task.queues = ()

    def _idle(self) -> None:
        """Nobody can run: wait for the host, a deadline or a signal."""
        waits = [(task, task.pending.wait) for task in self._waiting]
        deadlines = [wait.deadline for _, wait in waits if wait.deadline is not None]
        timer = self._kernel.personality.next_deadline()
        if timer is not None:
            deadlines.append(timer)
        deadline = min(deadlines) if deadlines else None
        watched = [(task, wait) for task, wait in waits if wait.host_fd >= 0]
        if deadline is None and not watched and not self._signals_may_come():
            raise HostError(f"every task waits for ever: {self._who_waits()}")
        ready = self._wait_for_host(watched, deadline)
        self._kernel.personality.expire_timers()
        for task, wait in watched:
            if ready.get(wait.host_fd, 0) & (_events_of(wait) | _ALWAYS) and task.state == WAITING:
                self._resume(task, WOKEN)
        now = self._kernel.clock.monotonic_ns() if deadline is not None else 0
        for task, wait in waits:
            if (
                wait.deadline is not None
                and wait.deadline <= now
                and task.state == WAITING
                and task.pending is not None
            ):
                self._resume(task, TIMED_OUT)

    def _wait_for_host(self, watched: list[tuple[Task, Wait]], deadline: int | None) -> dict[int, int]:
        """Let time pass until a watched host descriptor is ready (returned: its events), the deadline, or a signal.

        Python goes on with an interrupted poll(); it is the bell that ends it.
        """
        clock = self._kernel.clock
        events: dict[int, int] = {}
        for _, wait in watched:
            events[wait.host_fd] = events.get(wait.host_fd, 0) | _events_of(wait)
        virtual = isinstance(clock, VirtualClock) and deadline is not None
        left = 0.0 if virtual else 1.0 if deadline is None else max(0.0, (deadline - clock.monotonic_ns()) / 1e9)
        if self._deadline is not None:
            left = min(left, max(0.0, self._deadline - time.monotonic()))
        ready = self._poll(events, min(left, 1.0))
        if virtual and not ready and deadline is not None:
            clock.sleep_until(deadline)
        return ready

    def _poll(self, events: dict[int, int], seconds: float) -> dict[int, int]:
        """poll(2) on host descriptors, ended early by `post` and `stop`."""
        import select

        poll = select.poll()
        for fd, wanted in events.items():
            poll.register(fd, wanted)
        self._bell = bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            poll.register(bell, _POLLIN)
            if self._host_signals or self._stopped:
                seconds = 0
            return {fd: found for fd, found in poll.poll(seconds * 1000) if fd != bell}
        finally:
            self._bell = -1
            os.close(bell)

    def _signals_may_come(self) -> bool:
        """Whether somebody waits for a signal or is stopped: the host's terminal may still send one."""
        return any(queue is task.signals.arrival for task in self._waiting for queue in task.queues) or any(
            task.state == STOPPED for process in self._kernel.processes.values() for task in process.tasks
        )

    def _who_waits(self) -> str:
        return "; ".join(
            f"{task.process.name} (tid {task.tid}) for {' or '.join(queue.what for queue in task.queues) or 'nothing'}"
            for task in self._waiting
        )

    def _interrupt_all(self) -> None:
        for core in self._kernel.cores:
            core.interrupt()
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)

    # -- the host -----------------------------------------------------------------------------------------------------

    def _look_outside(self) -> None:
        """Signals of the host's that came since, and the machine's time limit."""
        while self._host_signals:
            self._kernel.personality.console_signal(self._host_signals.pop(0))
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._stopped = ExitStatus(124, timed_out=True)


def _events_of(wait: Wait) -> int:
    """The poll(2) event that a wait is for."""
    return _POLLOUT if wait.host_write else _POLLIN
