"""How a pending signal reaches its program: a handler, a default action, an interrupted call that is settled.

The order of decisions is the kernel's (kernel/signal.c: get_signal; arch/x86/kernel/signal.c: handle_signal).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.events import Signal, publish
from loadstone.kernel.process import STOPPED, ExitStatus
from loadstone.linux.of_task import linux_of, tracee_of
from loadstone.linux.profile import RLIMIT_CORE
from loadstone.linux.rseq import leave_critical_section
from loadstone.linux.signal.restart import ERESTART_RESTARTBLOCK, ERESTARTNOINTR, ERESTARTSYS
from loadstone.linux.signal.sending import force, force_fatal, ignores, recalculate, take
from loadstone.linux.signal.signals import (
    DUMPING,
    SA_IMMUTABLE,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SIG_DFL,
    SIG_IGN,
    SIGKILL,
    SIGSEGV,
    SS_AUTODISARM,
    SS_DISABLE,
    STOPPING,
    TERMINAL_STOPS,
    UNBLOCKABLE,
    bit,
    from_kernel,
    name,
)
from loadstone.linux.state import is_frozen

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.signal.signals import Action, SigInfo
    from loadstone.linux.tracing.ptrace import Tracee


_NO_CORE = (0, 0)


def deliver(task: Task) -> None:
    """Do what `attention` asks for: run handlers, take default actions, settle an interrupted system call.

    Call it before the task goes on in user mode. Afterwards the task's registers are at the handler, or the process
    has ended.
    """
    signals = task.signals
    tracee = tracee_of(task)
    if (task.process.stopped_by or is_frozen(task.process)) and tracee is None:
        task.state = STOPPED
        return
    signals.attention = False
    if tracee is not None and tracee.before_user():
        return
    answer = tracee.answer() if tracee is not None else None
    while (info := answer or take(task, ~task.signals.mask)) is not None:
        number = info.number
        action = task.process.signals.action(number)
        if tracee is not None and answer is None and number != SIGKILL and not action.flags & SA_IMMUTABLE:
            tracee.signal_stop(info)
            return
        answer = None
        if action.handler not in (SIG_DFL, SIG_IGN) and number != SIGKILL:
            _announce(task, info, "handler")
            _handle(task, info, action)
        elif ignores(action, number) or _stops_nobody(task, number) or _leaves_init_alone(task, info):
            _announce(task, info, "ignored")
        else:
            _announce(task, info, "default")
            if tracee is None or not _stops_for_tracer(task, tracee, info):
                _default(task, info)
            return
    _restart_silently(task)
    if signals.saved_mask is not None:
        signals.mask, signals.saved_mask = signals.saved_mask, None
        recalculate(task)
        if signals.attention:
            deliver(task)


def _stops_for_tracer(task: Task, tracee: Tracee, info: SigInfo) -> bool:
    """Whether a traced thread stops in front of its default action, or for it."""
    if bit(info.number) & STOPPING:
        tracee.group_stop(info.number)
        return True
    if info.number == SIGKILL:
        return False
    tracing = linux_of(task).calls.tracing
    stop = tracing.before_end(task, info.number, lambda: _default(task, info)) if tracing is not None else None
    if stop is not None:
        task.kernel.scheduler.block(task, stop)
    return stop is not None


def _stops_nobody(task: Task, number: int) -> bool:
    """A stop from the terminal is ignored in an orphaned process group: nobody is there to continue it."""
    if not bit(number) & TERMINAL_STOPS:
        return False
    from loadstone.linux import jobs

    return jobs.is_orphaned(task.kernel, task.process.group)


def _leaves_init_alone(task: Task, info: SigInfo) -> bool:
    """The first process of a PID namespace dies of no signal that a program sends, but for SIGKILL from outside."""
    return bool(task.process.signals.is_init and info.code <= 0 and not bit(info.number) & UNBLOCKABLE)


def _announce(task: Task, info: SigInfo, action: str) -> None:
    subscribers = task.kernel.events.signal
    if subscribers:
        text = ""
        if task.kernel.events.texts:
            from loadstone.linux.strace.structs import signal_info

            text = signal_info(info)
        record = Signal(task.process.pid, task.tid, name(info.number), info.code, info.address, action, text)
        publish(subscribers, record)


def _default(task: Task, info: SigInfo) -> None:
    """The default action of a signal that is not ignored by default: stop or end the process."""
    if not bit(info.number) & STOPPING:
        if bit(info.number) & DUMPING and _dump_core(task, info):
            task.kernel.exit_process(task.process, ExitStatus(signal=info.number, core_dumped=True))
        else:
            task.kernel.kill_process(task.process, info)
        return
    from loadstone.linux import jobs

    jobs.stop(task.process, info.number)
    task.state = STOPPED
    task.signals.attention = True  # to be looked at again when it goes on


def _dump_core(task: Task, info: SigInfo) -> bool:
    linux = linux_of(task)
    chosen = linux.core_settings is not None and linux.core_settings.chosen
    if linux.core_files is not None and not chosen:
        return linux.core_files.dump(task, info)
    if task.process.limits.get(RLIMIT_CORE, _NO_CORE)[0] == 0:  # as nearly everywhere: do not even load the writer
        return False
    from loadstone.linux import core_pattern

    return core_pattern.dump(task, info)


_RESTART_SYSCALL = 219
_SYSCALL_LENGTH = 2
_EINTR = 4


def _handle(task: Task, info: SigInfo, action: Action) -> None:
    """A handler runs: settle the interrupted call, build the frame, change the mask (kernel: handle_signal)."""
    from loadstone.linux.signal.frame import push_frame  # few programs handle a signal, all pay for what start-up loads

    signals, shared = task.signals, task.process.signals
    number = info.number
    _settle_call(task, action)
    if action.flags & SA_RESETHAND:
        shared.actions[number] = action._replace(handler=SIG_DFL)
    try:
        leave_critical_section(task)
        push_frame(task, info, action)
    except LinuxError:
        if number == SIGSEGV:
            force_fatal(task, SIGSEGV)
        else:
            force(task, from_kernel(SIGSEGV))
        return
    signals.saved_mask = None
    blocked = signals.mask | action.mask
    if not action.flags & SA_NODEFER:
        blocked |= bit(number)
    signals.mask = blocked & ~UNBLOCKABLE
    if signals.altstack[2] & SS_AUTODISARM:
        signals.altstack = (0, 0, SS_DISABLE)


def _settle_call(task: Task, action: Action) -> None:
    restart, task.signals.restart = task.signals.restart, None
    if restart is None:
        return
    kind, number = restart
    if kind == ERESTARTNOINTR or (kind == ERESTARTSYS and action.flags & SA_RESTART):
        _run_again(task, number)
    else:
        task.context.set_result(-_EINTR)


def _restart_silently(task: Task) -> None:
    """No handler ran: the call runs again, unseen by the program."""
    restart, task.signals.restart = task.signals.restart, None
    if restart is not None:
        kind, number = restart
        _run_again(task, _RESTART_SYSCALL if kind == ERESTART_RESTARTBLOCK else number)


def _run_again(task: Task, number: int) -> None:
    task.context.set_result(number)
    task.context.pc -= _SYSCALL_LENGTH
