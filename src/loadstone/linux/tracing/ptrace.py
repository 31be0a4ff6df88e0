"""Who is traced, and when they stop for it (kernel/ptrace.c, kernel/signal.c). The calls are in syscalls/tracing.py.

A traced thread stops before and after system calls, before a signal is delivered, and at events: a new process, exec,
the end. Each stop is a wait, in place of a system call or in front of the return to user mode, that only the tracer
or SIGKILL ends. Several stops in a row (exec's event, then the end of the call) are queued.
"""

from __future__ import annotations

from errno import ENOSYS
from typing import TYPE_CHECKING, Final

from loadstone.kernel.process import ENDED, STOPPED
from loadstone.lean import NamedTuple
from loadstone.linux.clone_flags import CLONE_UNTRACED, CLONE_VFORK
from loadstone.linux.ending import CLD_STOPPED, CLD_TRAPPED, status_word
from loadstone.linux.signal import sending, signals
from loadstone.linux.signal.signals import SIG_IGN, SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGTRAP, SigInfo
from loadstone.wait import Wait, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Process, Task
    from loadstone.linux.tracing.watchpoints import DebugRegisters
    from loadstone.wait import Blocking

# include/uapi/linux/ptrace.h
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_VFORK_DONE, EVENT_EXIT, EVENT_SECCOMP = range(1, 8)
EVENT_STOP = 128
O_SYSGOOD, O_EXITKILL, O_SUSPEND_SECCOMP = 1, 1 << 20, 1 << 21
KNOWN_OPTIONS = 0xFF | O_EXITKILL | O_SUSPEND_SECCOMP
RUNS, STOPS_AT_CALLS, STEPS = range(3)  # how it was let go
NO_CALL, AT_ENTRY, AT_EXIT, AT_SECCOMP = range(4)  # op of PTRACE_GET_SYSCALL_INFO
BEFORE_CALL = (AT_ENTRY, AT_SECCOMP)
TRAP_FLAG = 0x100
_TRACE_TRAP = SigInfo(SIGTRAP, signals.TRAP_TRACE)


class Stop(NamedTuple):
    """Why a thread stops. `code` is what wait(2) shows: a signal's number, for events with the event in the bits above.

    `signal`: about to be delivered. `then`: what goes on in the kernel when it is let go; a new wait, or None.
    """

    code: int
    message: int = 0
    signal: SigInfo | None = None
    at: int = NO_CALL
    then: Callable[[], object] | None = None


_TRAP_STOP: Final = Stop(SIGTRAP | EVENT_STOP << 8)  # of a seized thread: something concerns its group


class Tracee:
    """A thread that is traced.

    Attributes:
        tracer: the process that does it. seized: by PTRACE_SEIZE, without the old signals. options: PTRACE_O_….
        stop: why it is stopped, None while it runs; `unreported`: wait(2) has not told of it.
        mode: how it was let go. message: of the last stop, for PTRACE_GETEVENTMSG. call: number and arguments of the
            system call it is in, or was in last; `instead`: what its tracer has set as the result, should the call be
            left out.
        listening: stopped with its group, and lets SIGCONT through (PTRACE_LISTEN).
        resumed: what its stops wait for. debug: the debug registers; None until somebody looks at them.
    """

    __slots__ = (
        "_answer", "_coming", "call", "debug", "instead", "listening", "message", "mode", "options", "resumed",
        "seized", "stop", "task", "tracer", "unreported",
    )  # fmt: skip

    def __init__(self, task: Task, tracer: Process, *, seized: bool, options: int = 0) -> None:
        self.task = task
        self.tracer = tracer
        self.seized = seized
        self.options = options
        self.stop: Stop | None = None
        self.unreported = False
        self.mode = RUNS
        self.message = 0
        self.call: tuple[int, ...] = (-1, 0, 0, 0, 0, 0, 0)
        self.instead = -ENOSYS
        self.listening = False
        self.resumed = WaitQueue("its tracer")
        self._coming: list[Stop] = []
        self.debug: DebugRegisters | None = None
        self._answer: SigInfo | None = None

    def wants(self, event: int) -> bool:
        """Whether the tracer asked for this event."""
        return bool(self.options & 1 << event)

    # -- stopping -----------------------------------------------------------------------------------------------------

    def begin(self, stop: Stop) -> StopWait:
        """Stop now: tell the tracer. The wait is returned."""
        self.stop, self.unreported, self.listening = stop, True, False
        self.message = stop.message
        _tell_tracer(self, stop)
        return StopWait(self, stop)

    def soon(self, stop: Stop) -> None:
        """Stop before the thread goes on in user mode."""
        self._coming.append(stop)
        self.task.signals.attention = True

    def before_user(self) -> bool:
        """Whether the thread stops now instead of going on in user mode."""
        if not self._coming:
            return False
        self._block(self._coming.pop(0))
        return True

    def signal_stop(self, info: SigInfo) -> None:
        """Stop before the delivery of a signal, which the tracer may change or drop."""
        self._block(Stop(info.number, signal=info))

    def group_stop(self, number: int) -> None:
        """Stop as all threads of the process do, by a stopping signal."""
        self._block(self._group_stop(number))

    def _group_stop(self, number: int) -> Stop:
        return Stop(number | (EVENT_STOP << 8 if self.seized else 0))

    def notice(self) -> None:
        """Something has happened to the group: a thread that listens stops anew, another one when it goes on."""
        if self.listening:
            self.stop = None
            self.begin(_TRAP_STOP)
        elif _TRAP_STOP not in self._coming:
            self.soon(_TRAP_STOP)

    def listen(self) -> None:
        """Stay stopped with the group, but hear of what happens to it, or has happened meanwhile."""
        self.listening = True
        if _TRAP_STOP in self._coming:
            self._coming.remove(_TRAP_STOP)
            self.notice()

    def take_over_stop(self, number: int) -> None:
        """The thread is stopped with its group, or will be: that becomes a stop for the tracer."""
        if self.task.state == STOPPED:
            self.group_stop(number)
        else:
            self.soon(self._group_stop(number))

    def _block(self, stop: Stop) -> None:
        self.task.signals.attention = True  # to be looked at again when it goes on
        self.task.kernel.scheduler.block(self.task, self.begin(stop))

    def stop_in_call(self, stop: Stop) -> Blocking:
        """Stop in the middle of a system call."""
        self.begin(stop)
        yield Wait((self.resumed,), interruptible=False)
        return 0

    def answer(self) -> SigInfo | None:
        """The signal that the tracer let it go on with, once."""
        answer, self._answer = self._answer, None
        return answer

    # -- going on -----------------------------------------------------------------------------------------------------

    def go_on(self, mode: int, number: int) -> None:
        """The tracer lets it go on, with signal `number` (0: none) if it was about to get one."""
        stop, self.stop, self.unreported, self.mode = self.stop, None, False, mode
        context = self.task.context
        flags = context.read("eflags") & ~TRAP_FLAG
        watches = self.debug is not None and self.debug.armed
        if self.debug is not None and watches:
            self.debug.look(self.task)
        context.write("eflags", flags | TRAP_FLAG if mode == STEPS or watches else flags)
        if stop is not None and stop.signal is not None and number:
            same = number == stop.signal.number
            who = self.tracer.credentials.uid
            self._answer = stop.signal if same else signals.from_process(number, self.tracer.pid, who)
        elif number and stop is not None and stop.at in (AT_ENTRY, AT_EXIT):  # at a call's stop a signal is sent
            sending.send_task(self.task, signals.from_process(number, self.tracer.pid, self.tracer.credentials.uid))
        self.task.kernel.scheduler.wake(self.resumed.wake())

    def let_off(self) -> None:
        """It is traced no longer: no stop is to come, nothing is watched."""
        self.debug = None
        self._coming.clear()
        if self.stop is not None:
            self.go_on(RUNS, 0)

    def call_ends(self) -> None:
        """The system call is over, or will be made again."""
        if self.mode == STOPS_AT_CALLS:
            self.soon(Stop(self.call_code, AT_EXIT, at=AT_EXIT))
        elif self.mode == STEPS:
            self.task.context.write("eflags", self.task.context.read("eflags") & ~TRAP_FLAG)
            sending.send_task(self.task, _TRACE_TRAP)

    def stepped(self) -> bool:
        """Whether the instruction that was stepped over is nothing to stop for: only watchpoints made it a step."""
        if self.debug is None or not self.debug.armed:
            return False
        hit = self.debug.hits(self.task)
        if not hit:
            self.debug.look(self.task)
        return not hit and self.mode != STEPS

    def vfork_done(self, child: int) -> None:
        """The child of a vfork has left its memory."""
        if self.wants(EVENT_VFORK_DONE):
            self.soon(Stop(SIGTRAP | EVENT_VFORK_DONE << 8, message=child))

    @property
    def call_code(self) -> int:
        """What wait(2) shows of a stop at a system call."""
        return SIGTRAP | (0x80 if self.options & O_SYSGOOD else 0)


class StopWait:
    """A stop, as what a task waits in."""

    __slots__ = ("_stop", "_tracee", "wait")

    def __init__(self, tracee: Tracee, stop: Stop) -> None:
        self._tracee = tracee
        self._stop = stop
        self.wait = Wait((tracee.resumed,), interruptible=False)

    def go_on(self) -> object:
        """The tracer let it go on, or it is killed; what it waits in next, or None."""
        self._tracee.stop = None
        killed = self._tracee.task.signals.pending.mask | self._tracee.task.process.signals.pending.mask
        if self._stop.then is None or killed & signals.bit(SIGKILL):
            return None
        return self._stop.then()

    def close(self) -> None:
        """The task dies."""


class DeadTracee(NamedTuple):
    """A thread of another process that ended while it was traced: its tracer is told. `status` as wait(2) has it."""

    tracer: Process
    pid: int
    group: int
    uid: int
    status: int


class Tracing:
    """The traced threads of a machine.

    Attributes:
        tracees: by task. dead: those whose end the tracer has not waited for.
    """

    __slots__ = ("dead", "tracees")

    def __init__(self) -> None:
        self.tracees: dict[Task, Tracee] = {}
        self.dead: list[DeadTracee] = []

    def of(self, tracer: Process) -> list[Tracee]:
        """The living threads that a process traces."""
        return [tracee for tracee in self.tracees.values() if tracee.tracer is tracer]

    def attach(self, task: Task, tracer: Process, *, seized: bool, options: int = 0) -> Tracee:
        """From now on the thread is traced."""
        tracee = self.tracees[task] = Tracee(task, tracer, seized=seized, options=options)
        return tracee

    def before_call(self, task: Task, registers: tuple[int, ...], make: Callable[[Task], object]) -> StopWait | None:
        """The stop of a thread in front of a system call, which is made by `make` when the tracer lets it."""
        tracee = self.tracees.get(task)
        if tracee is None:
            return None
        tracee.call, tracee.instead = registers, -ENOSYS
        if tracee.mode != STOPS_AT_CALLS:
            return None
        return tracee.begin(Stop(tracee.call_code, AT_ENTRY, at=AT_ENTRY, then=lambda: make(task)))

    def makes(self, task: Task, registers: tuple[int, ...]) -> None:
        """The thread is let into a call, which may be another one by now."""
        tracee = self.tracees.get(task)
        if tracee is not None:
            tracee.call = registers

    def left_out(self, task: Task, registers: tuple[int, ...]) -> int | None:
        """The result of a call that its tracer wants to be left out, by number -1; None: it is to be made."""
        tracee = self.tracees.get(task)
        if tracee is None or registers[0] & _NO_NUMBER != _NO_NUMBER:
            return None
        return tracee.instead

    def after_call(self, task: Task) -> None:
        """The call is over, or will be made again."""
        tracee = self.tracees.get(task)
        if tracee is not None and task.state != ENDED:
            tracee.call_ends()

    def before_end(self, task: Task, status: int, end: Callable[[], object]) -> StopWait | None:
        """The stop of a thread in front of its end; `status` as wait(2) has it."""
        tracee = self.tracees.get(task)
        if tracee is None or not tracee.wants(EVENT_EXIT):
            return None
        return tracee.begin(Stop(SIGTRAP | EVENT_EXIT << 8, status, then=end))

    def detach(self, tracee: Tracee, number: int = 0) -> None:
        """The thread is traced no longer, and goes on."""
        self.tracees.pop(tracee.task, None)
        tracee.let_off()
        if number:
            who = tracee.tracer
            sending.send_task(tracee.task, signals.from_process(number, who.pid, who.credentials.uid))

    def born(self, parent: Task, child: Task, flags: int, exit_signal: int) -> Stop | None:
        """A traced thread has made a child: trace it too if that was asked for; the stop of the parent for it."""
        tracee = self.tracees.get(parent)
        if tracee is None or flags & CLONE_UNTRACED:
            return None
        event = EVENT_VFORK if flags & CLONE_VFORK else EVENT_FORK if exit_signal == SIGCHLD else EVENT_CLONE
        if not tracee.wants(event):
            return None
        new = self.attach(child, tracee.tracer, seized=tracee.seized, options=tracee.options)
        if tracee.seized:
            new.soon(_TRAP_STOP)
        else:
            child.signals.pending.add(signals.from_process(SIGSTOP, 0, 0))
            child.signals.attention = True
        return Stop(SIGTRAP | event << 8, message=child.tid)

    def executed(self, task: Task, former: int) -> None:
        """A traced thread, called `former` before, has become another program."""
        tracee = self.tracees.get(task)
        if tracee is None:
            return
        if tracee.wants(EVENT_EXEC):
            tracee.soon(Stop(SIGTRAP | EVENT_EXEC << 8, message=former))
        elif not tracee.seized:
            process = task.process
            sending.send_task(task, signals.from_process(SIGTRAP, process.pid, process.credentials.uid))

    def ended(self, task: Task) -> None:
        """A thread has ended; what it traced is let go with its process."""
        tracee = self.tracees.pop(task, None)
        process = task.process
        if tracee is None or tracee.tracer.status is not None:
            return
        if task.tid == process.pid and tracee.tracer is process.parent:
            return  # it hears of that as the parent
        word = task.exit_code << 8 if process.status is None else status_word(process.status)
        self.dead.append(DeadTracee(tracee.tracer, task.tid, process.group, process.credentials.uid, word))
        _wake(tracee.tracer)

    def tracer_ended(self, process: Process) -> None:
        """Who it traced goes on untraced, or is killed if it asked for that (exit_ptrace)."""
        for tracee in self.of(process):
            kill = tracee.options & O_EXITKILL
            self.detach(tracee)
            if kill:
                sending.send(tracee.task.process, signals.from_kernel(SIGKILL))
        self.dead = [dead for dead in self.dead if dead.tracer is not process]

    def continued(self, process: Process) -> None:
        """SIGCONT was sent: seized threads stop for it (ptrace_trap_notify)."""
        for tracee in list(self.tracees.values()):
            if tracee.task.process is process and tracee.seized:
                tracee.notice()


_NO_NUMBER = 0xFFFF_FFFF


def _tell_tracer(tracee: Tracee, stop: Stop) -> None:
    """SIGCHLD, and an end of its wait (do_notify_parent_cldstop)."""
    tracer, task = tracee.tracer, tracee.task
    _wake(tracer)
    action = tracer.signals.action(SIGCHLD)
    if tracer.status is None and action.handler != SIG_IGN and not action.flags & signals.SA_NOCLDSTOP:
        code = CLD_STOPPED if stop.code in (SIGSTOP, SIGCONT) and stop.signal is None else CLD_TRAPPED
        fields = signals.from_process(SIGCHLD, task.tid, task.process.credentials.uid).fields
        sending.send(tracer, SigInfo(SIGCHLD, code, fields + (stop.code & 0x7F).to_bytes(4, "little")))


def _wake(tracer: Process) -> None:
    tracer.kernel.scheduler.wake(tracer.child_events.wake())
