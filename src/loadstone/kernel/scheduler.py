"""Who runs, for how long, and what everybody else waits for.

The CPUs of a machine take turns in one host thread, so that the order is the same on every run; who comes next is a
policy's decision (policies.py). When nobody can run, time passes: to the next deadline, to input from the host, or to
a signal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.clock import VirtualClock
from loadstone.errors import HostError, OutOfFrames
from loadstone.events import Switch, publish
from loadstone.kernel.cpu_time import KernelTime, VirtualKernelTime
from loadstone.kernel.cpus import Cpu, Cpus
from loadstone.kernel.outside import Outside
from loadstone.kernel.policies import SLICE, make_policy
from loadstone.kernel.process import ENDED, RUNNABLE, STOPPED, WAITING, ExitStatus, Task
from loadstone.kernel.waits import Waits
from loadstone.machine.core import EXCEPTION, SLICE_END, STOPPED_AT, SYSTEM_CALL
from loadstone.wait import INTERRUPTED, TIMED_OUT, WOKEN, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from loadstone.kernel.kernel import Kernel
    from loadstone.machine.core import Core

_TICK_NS = 4_000_000  # what a slice moves a virtual clock by
_UNDISTURBED = 32_000_000  # ns by which a slice in real time is longer while nobody can want the CPU
_WHY = {RUNNABLE: "slice-end", WAITING: "blocked", STOPPED: "stopped", ENDED: "exited"}


class Overdue(BaseException):
    """The machine should have stopped, and what it does in Python goes on. Raised by a signal handler, anywhere."""


class Scheduler:
    """The run queue of a machine.

    Attributes:
        current: whose system call or fault is being served; /proc/self is its process.
        inside: whose slice it is; None between slices, when the host and the clock wake who waits.
        on_breakpoint: told when a task is about to execute an instruction with a breakpoint; True pauses the slice.
        on_all_stopped: called when nobody can run and somebody is stopped by a signal, with whether that is for good:
            nobody waits for a time at which they could continue others.
        kernel_time: how much of the running slice was the kernel's work; system_ns: of all slices that are over.
        cpus: the machine's CPUs, and how often they went from one task to another.
    """

    def __init__(self, kernel: Kernel) -> None:
        options = kernel.options
        self._kernel = kernel
        self._policy = make_policy(options.policy, options.schedule_seed)
        self._outside = Outside(options.timeout, self._interrupt_cores)
        self.cpus = Cpus(options.cpu_count)
        self._alive = 0
        self._waits = Waits()
        self._since_poll = 0  # work done since host descriptors were looked at
        self._preempt = False
        self._computed: Task | None = None  # whose last slice ended while it computed
        self._slice_began = 0  # CPU time of the host's at which the running slice began
        self._work_began = 0  # the core's work at which it began
        self._broken: HostError | None = None  # why the machine cannot go on
        self.current: Task | None = None
        self.inside: Task | None = None
        self.on_breakpoint: Callable[[Task], bool] = lambda _: True
        self.on_all_stopped: Callable[[bool], None] = lambda for_good: None
        self.system_ns = 0
        virtual = kernel.clock.__class__ is VirtualClock
        self.kernel_time = VirtualKernelTime() if virtual else KernelTime()
        self._timed_call: Callable[[Task], Any] | None = None
        self.post = self._outside.post
        self.start_deadline = self._outside.start_deadline

    def add(self, task: Task) -> None:
        """A new task, which can run."""
        self._alive += 1
        task.state = RUNNABLE
        self._policy.add(task)

    def remove(self, task: Task) -> None:
        """A task has ended. Nothing happens if it had before."""
        if task.state == ENDED:
            return
        if task.state == WAITING:
            self._waits.remove(task)
        task.state = ENDED
        if self._kernel.events.run:
            self._telling().ends(self, self.cpus[task.cpu], task, self._kernel.cores[0].retired - self._work_began)
        self._alive -= 1
        if task.pending is not None:
            task.pending.close()
            task.pending = None

    def wake(self, tasks: Iterable[object]) -> None:
        """What these tasks waited for has happened; they go on when it is their turn."""
        for task in tasks:
            if isinstance(task, Task) and task.state == WAITING:
                self._end_wait(task, WOKEN)

    def interrupt(self, task: Task, *, killed: bool = False) -> None:
        """A signal came for the task: if it waits, its call is told so. Some waits only a kill interrupts."""
        if task.state == WAITING and (killed or self._waits[task].interruptible):
            self._end_wait(task, INTERRUPTED)

    def yield_now(self) -> None:
        """The running task's slice ends with the system call that it is in."""
        self._preempt = True

    def reprioritise(self, task: Task) -> None:
        """The task's priority is another now."""
        self._policy.moved(task)

    def resume(self, task: Task) -> None:
        """A stopped task goes on."""
        if task.state == STOPPED:
            task.state = RUNNABLE
            if self._kernel.events.wake:
                self._telling().wakes(self, task, "continued")
            self._policy.add(task, woken=True)

    def stop(self, number: int) -> None:
        """Switch the machine off soon, as by signal `number`. May be called from a signal handler."""
        self._outside.stop(ExitStatus(signal=int(number)))

    def switch_off(self, note: str) -> None:
        """Switch the machine off soon because of what its programs do; everybody in it is killed."""
        self._outside.stop(ExitStatus(signal=9, note=note))

    @property
    def stopped(self) -> ExitStatus | None:
        """How everybody ended when the machine was switched off; None unless it was."""
        return self._outside.stopped

    def run(self, until: Callable[[], bool]) -> None:
        """Run the machine until `until()` holds, asked after every slice, or the machine is stopped.

        An error that comes out of a slice leaves its task where it is, but for HostError: then nothing may go on.
        """
        self._run_guarded(until, idles=True)

    def drain(self, until: Callable[[], bool]) -> None:
        """As `run`, but only while somebody can: not past the moment when all wait for time, input or each other."""
        self._run_guarded(until, idles=False)

    def _run_guarded(self, until: Callable[[], bool], *, idles: bool) -> None:
        if self._broken is not None:
            raise self._broken
        self._outside.start_deadline()
        try:
            self._run(until, idles)
        except Overdue:
            self._look_outside()
        if self._outside.stopped:
            for process in list(self._kernel.processes.values()):
                self._kernel.exit_process(process, self._outside.stopped)

    def insist(self) -> None:
        """The machine was told to stop, or its time is up, and it had time to see that. For a signal handler."""
        raise Overdue

    def _run(self, until: Callable[[], bool], idles: bool) -> None:
        policy = self._policy
        while not until():
            self._look_outside()
            if self._outside.stopped:
                return
            if self._waits:
                self._look_at_waits()
            task = policy.next()
            if task is None:
                if not self._alive:
                    return
                if idles or self._waits.for_output():
                    self._idle()
                elif not self._anything_ready():
                    return
            else:
                try:
                    self._run_slice(task)
                except HostError as error:
                    self._broken = error
                    raise
                except BaseException:
                    if task.state == RUNNABLE:
                        policy.add(task)
                    raise
                if task.state == RUNNABLE:
                    policy.add(task)

    # -- one slice ----------------------------------------------------------------------------------------------------

    def _run_slice(self, task: Task) -> None:
        """The task runs until it waits, ends, or has used its slice up."""
        kernel = self._kernel
        core = kernel.cores[0]
        cpu = self.cpus.place(task, alone=self._policy.empty())
        self._switch_to(cpu, task)
        personality = kernel.personality
        personality.expire_timers()
        personality.new_slice(task)
        self.inside = task
        self._work_began = started = core.retired
        cpu_time = kernel.clock.cpu_ns() if kernel.clock.__class__ is not VirtualClock else 0
        self._slice_began = cpu_time
        self.kernel_time.begin()
        try:
            if task.pending is None or self._go_on(task):
                self._run_user(core, task, started + self._policy.slice_of(task))
        except OutOfFrames as error:
            personality.out_of_frames(task, str(error))
        self._preempt = False
        self.inside = None
        task.why = _WHY[task.state]
        work = core.retired - started
        self._policy.ran(task, work)
        cpu.busy += work
        cpu.ran += work
        self._since_poll += work
        if kernel.clock.__class__ is VirtualClock:
            elapsed = _TICK_NS * work // SLICE + self.kernel_time.spent
            kernel.clock.advance(elapsed)
        else:
            elapsed = kernel.clock.cpu_ns() - cpu_time
        task.cpu_ns += elapsed
        system = self.kernel_time.share(elapsed)
        task.system_ns += system
        self.system_ns += system
        if kernel.events.run:
            self._telling().leaves(self, cpu, task)
        if task.state != ENDED:
            personality.ran(task)

    def time_ns(self) -> int:
        """The machine's time since it was built, for an observer: looking does not move a virtual clock."""
        kernel = self._kernel
        now = kernel.clock.seen_ns() - kernel.booted_ns
        if kernel.clock.__class__ is VirtualClock and self.inside is not None:  # it moves when the slice is over
            now += self.slice_cpu_ns()
        return now

    @staticmethod
    def _telling() -> ModuleType:
        """What tells of stays and wakes; imported when somebody listens."""
        from loadstone.kernel import telling

        return telling

    def slice_cpu_ns(self) -> int:
        """CPU time since the slice that runs now began; 0 between slices."""
        if self.inside is None:
            return 0
        clock = self._kernel.clock
        if clock.__class__ is VirtualClock:
            return _TICK_NS * (self._kernel.cores[0].retired - self._work_began) // SLICE + self.kernel_time.spent
        return clock.cpu_ns() - self._slice_began

    def slice_system_ns(self) -> int:
        """How much of `slice_cpu_ns` was the kernel's work."""
        return self.kernel_time.share(self.slice_cpu_ns()) if self.inside is not None else 0

    def _run_user(self, core: Core, task: Task, end: int) -> None:
        personality = self._kernel.personality
        system_call = self._timed_call
        if system_call is None:
            system_call = self._timed_call = self.kernel_time.timed_call(personality.system_call)
        process = task.process
        signals = task.signals
        outside = self._outside
        more = _UNDISTURBED if self._computed is task and self._is_undisturbed(core) else 0
        self._computed = None
        while True:
            if signals.attention:
                personality.before_user(task)
                if task.state != RUNNABLE:
                    return
            trap = core.run(task.context, process.space, end - core.retired + more)
            more = 0
            if trap.kind == SYSTEM_CALL:
                pending = system_call(task)
                if pending is not None:
                    self.block(task, pending)
                    return
                if task.state != RUNNABLE or core.retired >= end or self._preempt or outside.stopped:
                    return
            elif trap.kind == EXCEPTION:
                pending = personality.exception(task, trap)
                if pending is not None:
                    self.block(task, pending)
                    return
                if task.state != RUNNABLE:
                    return
            elif trap.kind != STOPPED_AT or self.on_breakpoint(task):
                self._computed = task if trap.kind == SLICE_END else None
                return

    def _is_undisturbed(self, core: Core) -> bool:
        """Whether nothing but a system call of the running task, or the host by a kick, can make anybody else runnable.

        Ticks cost 1 to 2 % of a program that computes, on a core whose slices are real time; it then has fewer.
        """
        if "native-speed" not in core.capabilities or not self._waits.only_for_each_other:
            return False
        return self._policy.empty() and not self._kernel.personality.armed

    def _go_on(self, task: Task) -> bool:
        """Go on with the call in which the task waited; whether it is done."""
        pending, task.pending = task.pending, None
        personality = self._kernel.personality
        began = self.kernel_time.now()
        if task.woken_by == INTERRUPTED:
            pending = personality.interrupt(task, pending)
        else:
            pending = personality.resume(task, pending, task.woken_by)
        self.kernel_time.since(began)
        if pending is not None:
            self.block(task, pending)
        return task.state == RUNNABLE and task.pending is None

    def _switch_to(self, cpu: Cpu, task: Task) -> None:
        self.current = task
        if self._kernel.events.run:
            self._telling().enters(self, cpu, self.cpus[task.cpu], task)
        process = task.process
        process.space.owner_ids = (process.pid, task.tid, cpu.number)
        if process.apart is not None:
            process.files, process.fs = process.apart[task]
        if task.cpu != cpu.number:
            task.cpu = cpu.number
            self._kernel.personality.migrated(task)
        self._kernel.cores[0].cpu = cpu.number
        last = cpu.last
        if last is task:
            return
        same = self.cpus.hand_over(cpu, task)
        if last is not None and last.why == "slice-end" and last.state != ENDED:
            self._kernel.personality.preempted(last)
        events = self._kernel.events
        if events.switch:
            self._tell_switch(cpu, last, task, same)
        cpu.ran = 0

    def _tell_switch(self, cpu: Cpu, last: Task | None, task: Task, same: bool) -> None:
        if last is None:
            record = Switch(cpu.number, 0, task.tid, "started")
        else:
            waits_for = self.what(last)
            record = Switch(cpu.number, last.tid, task.tid, last.why, cpu.ran, waits_for, same)
        publish(self._kernel.events.switch, record)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def block(self, task: Task, pending: object) -> None:
        """The task waits in a system call, or for its tracer."""
        task.pending = pending
        wait: Wait = task.pending.wait
        if task.signals.attention and wait.interruptible:  # a signal was there before the wait
            task.woken_by = INTERRUPTED
            return
        task.state = WAITING
        self._waits.add(task, wait)

    def _end_wait(self, task: Task, reason: str) -> None:
        """The task can run again, and will go on with its call for this reason."""
        self._waits.remove(task)
        task.state = RUNNABLE
        task.woken_by = reason
        if self._kernel.events.wake:
            self._telling().wakes(self, task, reason)
        self._policy.add(task, woken=True)
        current = self.current
        if current is not None and current.state == RUNNABLE and self._policy.preempts(task, current):
            self._preempt = True

    def _look_at_waits(self) -> None:
        """Between slices: deadlines that have passed, and now and then the host's descriptors."""
        if self._waits.on_host and self._since_poll >= SLICE:
            self._since_poll = 0
            self._wake_ready(self._outside.poll(self._waits.on_host, 0))
        self._end_overdue()

    def _end_overdue(self) -> None:
        if self._waits.next_deadline() is None:  # do not even look at the clock, which moves a virtual one
            return
        now = self._kernel.clock.monotonic_ns()
        while (task := self._waits.overdue(now)) is not None:
            self._end_wait(task, TIMED_OUT)

    def _wake_ready(self, events: dict[int, int]) -> None:
        """Wake who waits for descriptors of the host's that are ready now."""
        for task in self._waits.ready(events):
            self._end_wait(task, WOKEN)

    def _anything_ready(self) -> bool:
        """Wake who waits for input of the host's that is there already; whether that was anybody."""
        if self._waits.on_host:
            self._wake_ready(self._outside.poll(self._waits.on_host, 0))
        return not self._policy.empty()

    def _idle(self) -> None:
        """Nobody can run: wait for the host, a deadline or a signal."""
        personality = self._kernel.personality
        deadlines = [when for when in (self._waits.next_deadline(), personality.next_deadline()) if when is not None]
        deadline = min(deadlines) if deadlines else None
        if self._anybody_stopped():
            self.on_all_stopped(deadline is None)
        elif deadline is None and not self._waits.on_host and not self._waits.for_signals():
            raise HostError(f"every task waits for ever: {self._waits.who()}")
        self._wake_ready(self._pass_time(deadline))
        self._since_poll = 0
        personality.expire_timers()
        self._end_overdue()

    def _pass_time(self, deadline: int | None) -> dict[int, int]:
        """Let time pass until a watched host descriptor is ready (returned: its events), the deadline, or a signal."""
        clock = self._kernel.clock
        waits = self._waits.on_host
        if deadline is None:
            return self._outside.poll(waits, None)
        if clock.__class__ is not VirtualClock:
            return self._outside.poll(waits, max(0.0, (deadline - clock.monotonic_ns()) / 1e9))
        ready = self._outside.poll(waits, 0) if waits else {}
        if not ready:
            clock.sleep_until(deadline)
        return ready

    def _anybody_stopped(self) -> bool:
        return any(task.state == STOPPED for process in self._kernel.processes.values() for task in process.tasks)

    def what(self, task: Task) -> str:
        """What a task waits for, for a person; "" if it does not wait."""
        return self._waits.what(task)

    # -- the host -----------------------------------------------------------------------------------------------------

    def _interrupt_cores(self) -> None:
        for core in self._kernel.cores:
            core.interrupt()

    def _look_outside(self) -> None:
        """Signals of the host's that came since, and the machine's time limit."""
        for number in self._outside.take_signals():
            self._kernel.personality.console_signal(number)
