"""Sending signals: to a process, to a thread, by force; and what a change of mask or action does to those pending.

Source: kernel/signal.c.
"""

from __future__ import annotations

from errno import EAGAIN
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import ENDED, WAITING
from loadstone.linux.capabilities import user_shown
from loadstone.linux.of_task import linux_of, pid_seen, pids_of
from loadstone.linux.profile import RLIMIT_SIGPENDING
from loadstone.linux.signal.signals import (
    DUMPING,
    IGNORED,
    SI_KERNEL,
    SI_MESGQ,
    SI_QUEUE,
    SI_TKILL,
    SI_USER,
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGRTMIN,
    STOPPING,
    UNBLOCKABLE,
    bit,
    from_kernel,
    from_process,
)
from loadstone.linux.state import is_frozen, process_state

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.signal.signals import Action, PendingSet, ProcessSignals, SigInfo, TaskSignals

_WITH_SENDER = (SI_USER, SI_QUEUE, SI_MESGQ, SI_TKILL)
_MOST_QUEUED = 1 << 16  # signals of a process, where there is no limit


def send(process: Process, info: SigInfo, *, has_room: bool = False) -> None:
    """Send to a process: any of its threads that does not block the signal takes it.

    `has_room`: the signal is a timer's, for which room was made with it. Raises LinuxError(EAGAIN) where there is none.
    """
    _send(process, process.signals.pending, info, has_room)


def send_task(task: Task, info: SigInfo, *, has_room: bool = False) -> None:
    """Send to one thread."""
    _send(task.process, task.signals.pending, info, has_room)


def _send(process: Process, pending: PendingSet, info: SigInfo, has_room: bool) -> None:
    number = info.number
    if not _prepare(process, info):
        return
    if process.credentials.users is not None or pids_of(process) is not None:
        info = _as_seen(process, info)
    if not has_room and (number >= SIGRTMIN or info.code < 0) and queue_is_full(process):
        if number >= SIGRTMIN and info.code != SI_USER:
            raise LinuxError(EAGAIN, "RLIMIT_SIGPENDING signals are queued")
        if pending.mask & bit(number):
            return
        info = from_process(number, 0, 0)  # the kernel keeps the bit and loses the rest (collect_signal)
    sent, known = process.signals.sent, len(pending.queue)
    pending.add(info)
    if len(pending.queue) > known and (sent.waiters or sent.listeners):
        process.kernel.scheduler.wake(sent.wake())
    _tell(process, pending, number)


def _prepare(process: Process, info: SigInfo) -> bool:
    """What a signal does by being sent, blocked or not; whether it is to be kept (kernel: prepare_signal).

    Stopping and going on take each other back, and who is stopped goes on at once.
    """
    number = info.number
    if bit(number) & STOPPING:
        _flush(process, bit(SIGCONT))
    elif number == SIGCONT:
        _flush(process, STOPPING)
    if process.status is not None:
        return False  # a zombie hears nothing
    if number in (SIGCONT, SIGKILL) and (process.stopped_by or is_frozen(process)):
        from loadstone.linux import jobs

        jobs.go_on(process, number)
    if number == SIGCONT and _is_traced(process, number):
        tracing = linux_of(process.tasks[0]).calls.tracing
        assert tracing is not None
        tracing.continued(process)
    return not (_is_ignored(process, number) or (process.signals.is_init and _spares_init(process, info)))


def _tell(process: Process, pending: PendingSet, number: int) -> None:
    """Let who takes the signal look: one thread for the process's, all for a kill (kernel: complete_signal)."""
    if pending is process.signals.pending:
        _choose(process, number)
    else:
        for task in process.tasks:
            recalculate(task)
    if number == SIGKILL:
        for task in process.tasks:
            process.kernel.scheduler.interrupt(task, killed=True)


def _spares_init(process: Process, info: SigInfo) -> bool:
    """Whether the first process of a PID namespace hears nothing of a signal (kernel: sig_task_ignored).

    What it does not handle counts for it only if it cannot be handled, and comes from outside.
    """
    number = info.number
    if process.signals.action(number).handler != SIG_DFL or any(
        bit(number) & (task.signals.mask | task.signals.waited_for) for task in process.tasks
    ):
        return False
    sender = process.kernel.scheduler.current
    from_inside = info.code != SI_KERNEL and sender is not None and pid_seen(process, sender.process.pid)
    return bool(from_inside or not bit(number) & UNBLOCKABLE)


def _as_seen(process: Process, info: SigInfo) -> SigInfo:
    """A signal from another process, or of a child, in the numbers of who gets it."""
    if info.code not in _WITH_SENDER and not (info.number == SIGCHLD and info.code > 0):
        return info
    pid, uid = info.sender
    return info.sent_by(pid_seen(process, pid), user_shown(process.credentials, uid))


def _choose(process: Process, number: int) -> None:
    """A signal for the whole process is told to one thread that does not block it (kernel: complete_signal)."""
    for task in process.tasks:
        if task.state != ENDED and not task.signals.mask & bit(number):
            recalculate(task)
            if _is_fatal(process, number):
                process.kernel.scheduler.interrupt(task, killed=True)
            return


def _is_fatal(process: Process, number: int) -> bool:
    """Whether a signal ends the process as SIGKILL does, out of waits that other signals leave alone (sig_fatal).

    What dumps core does not: that has to be delivered first.
    """
    if bit(number) & (STOPPING | DUMPING) or process.signals.action(number).handler != SIG_DFL:
        return False
    return not bit(number) & IGNORED and not _is_traced(process, number)


def fatal_pending(task: Task) -> bool:
    """Whether a signal is about to end the thread's process, as `_is_fatal` says (fatal_signal_pending)."""
    left = (task.signals.pending.mask | task.process.signals.pending.mask) & ~task.signals.mask
    while left:
        if _is_fatal(task.process, left.bit_length()):
            return True
        left &= ~bit(left.bit_length())
    return False


def queue_is_full(process: Process) -> bool:
    """Whether RLIMIT_SIGPENDING leaves no room for one more; each timer of timer_create(2) has taken some."""
    limit = min(process.limits.get(RLIMIT_SIGPENDING, (_MOST_QUEUED, 0))[0], _MOST_QUEUED)
    timers = len(process_state(process).timers) if process.personal is not None else 0
    queued = len(process.signals.pending.queue) + sum(len(task.signals.pending.queue) for task in process.tasks)
    return timers + queued >= limit


def _is_ignored(process: Process, number: int) -> bool:
    """Whether a signal is lost at once. A blocked one is not: its action may be another when it is unblocked."""
    if any(bit(number) & (task.signals.mask | task.signals.waited_for) for task in process.tasks):
        return False
    return ignores(process.signals.action(number), number) and not _is_traced(process, number)


def _is_traced(process: Process, number: int) -> bool:
    """Whether a tracer will want to see the signal, ignored or not."""
    tracing = linux_of(process.tasks[0]).calls.tracing
    return tracing is not None and number != SIGKILL and any(task in tracing.tracees for task in process.tasks)


def ignores(action: Action, number: int) -> bool:
    """Whether the action is to do nothing."""
    return action.handler == SIG_IGN or (action.handler == SIG_DFL and bool(bit(number) & IGNORED))


def _flush(process: Process, mask: int) -> None:
    process.signals.pending.flush(mask)
    for task in process.tasks:
        task.signals.pending.flush(mask)


def recalculate(task: Task) -> None:
    """Set `attention` when there is a signal to deliver (the kernel's recalc_sigpending); a call it waits in ends."""
    signals = task.signals
    if (signals.pending.mask | task.process.signals.pending.mask) & ~signals.mask:
        signals.attention = True
        if task.state == WAITING:
            task.kernel.scheduler.interrupt(task)


def set_mask(task: Task, mask: int) -> None:
    """Block exactly `mask`, less the two signals that cannot be."""
    before, after = task.signals.mask, mask & ~UNBLOCKABLE
    task.signals.mask = after
    recalculate(task)
    shared = task.process.signals.pending.mask & after & ~before
    if shared and len(task.process.tasks) > 1:  # somebody else has to take them (kernel: retarget_shared_pending)
        for other in task.process.tasks:
            recalculate(other)


def set_action(process: Process, number: int, action: Action) -> None:
    """sigaction: a pending signal that the new action ignores is forgotten."""
    process.signals.actions[number] = action
    if ignores(action, number):
        _flush(process, bit(number))


def force(task: Task, info: SigInfo) -> None:
    """Send a signal that cannot be put off: blocked or ignored, it kills (the kernel's force_sig_info_to_task)."""
    number = info.number
    signals, shared = task.signals, task.process.signals
    blocked = signals.mask & bit(number)
    if blocked or shared.action(number).handler == SIG_IGN:
        shared.actions[number] = shared.action(number)._replace(handler=SIG_DFL)
        signals.mask &= ~bit(number)
    signals.pending.add(info)
    recalculate(task)


def force_fatal(task: Task, number: int) -> None:
    """Kill by `number` whatever the handler says."""
    shared = task.process.signals
    shared.actions[number] = shared.action(number)._replace(handler=SIG_DFL)
    force(task, from_kernel(number))


def take(task: Task, mask: int) -> SigInfo | None:
    """Take a pending signal out of `mask`, blocked or not, without delivering it (sigtimedwait)."""
    own: TaskSignals = task.signals
    shared: ProcessSignals = task.process.signals
    return own.pending.take(mask) or shared.pending.take(mask)
