"""What becomes of a system call of a thread in seccomp (kernel/seccomp.c: __secure_computing).

It is asked when a tracer has had its turn and before the call is made; each action has a function here, which returns
what `SystemCalls.dispatch` does: None when the call is done, or what the thread waits in.
"""

from __future__ import annotations

from errno import ENOSYS
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.kernel.process import ENDED, ExitStatus
from loadstone.linux.of_task import tracee_of
from loadstone.linux.seccomp import filters
from loadstone.linux.seccomp.filters import STRICT
from loadstone.linux.seccomp.notices import Asking
from loadstone.linux.signal.sending import force
from loadstone.linux.signal.signals import SA_IMMUTABLE, SIGKILL, SIGSYS, SIGTRAP, SYS_SECCOMP, Action, SigInfo
from loadstone.linux.state import task_state
from loadstone.linux.tracing.ptrace import AT_SECCOMP, EVENT_SECCOMP, O_SUSPEND_SECCOMP, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.seccomp.filters import Verdict
    from loadstone.linux.syscalls.dispatch import Held, SystemCalls
    from loadstone.linux.tracing.ptrace import Tracee

    # (the calls of the machine, who makes one, its number and arguments, what the filters say) -> as dispatch
    Act = Callable[[SystemCalls, Task, tuple[int, ...], Verdict], Held | None]

_STRICT_CALLS = (0, 1, 15, 60)  # read, write, rt_sigreturn, exit
_MAX_ERRNO = 4095
_SIGSYS = Struct("<QiI")  # si_call_addr, si_syscall, si_arch


def compute(calls: SystemCalls, task: Task, registers: tuple[int, ...]) -> Held | None:
    """Have the call made, or something else in its place."""
    tracee = tracee_of(task)
    if tracee is not None and tracee.options & O_SUSPEND_SECCOMP:
        return calls.carry_out(task, registers)
    state = task_state(task)
    if state.seccomp_mode == STRICT:
        if registers[0] & 0xFFFF_FFFF in _STRICT_CALLS:
            return calls.carry_out(task, registers)
        return _end_thread(calls, task, registers, SIGKILL)
    verdict = _judge(task, registers)
    return _ACTS.get(verdict.action, _kill_process)(calls, task, registers, verdict)


def _judge(task: Task, registers: tuple[int, ...]) -> Verdict:
    newest = task_state(task).seccomp_filter
    assert newest is not None
    return newest.judge(registers, task.context.pc)


def _allow(calls: SystemCalls, task: Task, registers: tuple[int, ...], verdict: Verdict) -> Held | None:
    """Also of LOG: there is no audit log to write to."""
    return calls.carry_out(task, registers)


def _fail(calls: SystemCalls, task: Task, registers: tuple[int, ...], verdict: Verdict) -> Held | None:
    calls.skip(task, registers, -min(verdict.data, _MAX_ERRNO))
    return None


def _trap(calls: SystemCalls, task: Task, registers: tuple[int, ...], verdict: Verdict) -> Held | None:
    """SIGSYS; the handler finds the registers as they were before the call."""
    force(task, _signal(task, registers, verdict))
    calls.skip(task, registers, registers[0])
    return None


def _kill_process(calls: SystemCalls, task: Task, registers: tuple[int, ...], verdict: Verdict) -> Held | None:
    """SIGSYS that no handler gets, nor a tracer before it kills."""
    actions = task.process.signals.actions
    actions[SIGSYS] = Action(flags=SA_IMMUTABLE)
    return _trap(calls, task, registers, verdict)


def _kill_thread(calls: SystemCalls, task: Task, registers: tuple[int, ...], verdict: Verdict) -> Held | None:
    if _is_last(task):
        return _kill_process(calls, task, registers, verdict)
    return _end_thread(calls, task, registers, SIGSYS)


def _signal(task: Task, registers: tuple[int, ...], verdict: Verdict) -> SigInfo:
    number = (registers[0] & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31)
    fields = _SIGSYS.pack(task.context.pc, number, filters.AUDIT_ARCH_X86_64)
    return SigInfo(SIGSYS, SYS_SECCOMP, fields, verdict.data)


def _is_last(task: Task) -> bool:
    return all(other is task or other.state == ENDED for other in task.process.tasks)


def _end_thread(calls: SystemCalls, task: Task, registers: tuple[int, ...], number: int) -> Held | None:
    """The thread ends as by a signal, and leaves the others alone (do_exit)."""

    def end() -> None:
        if _is_last(task):
            task.kernel.exit_process(task.process, ExitStatus(signal=number))
        else:
            task.kernel.end_task(task)

    return calls.end_in_place(task, registers, number, end)


def _ask_tracer(calls: SystemCalls, task: Task, registers: tuple[int, ...], verdict: Verdict) -> Held | None:
    """PTRACE_EVENT_SECCOMP, for a tracer that wants it; then what the tracer has made of the call is looked at."""
    tracee = tracee_of(task)
    if tracee is None or not tracee.wants(EVENT_SECCOMP):
        calls.skip(task, registers, -ENOSYS)
        return None
    code = SIGTRAP | EVENT_SECCOMP << 8
    return tracee.begin(Stop(code, verdict.data, at=AT_SECCOMP, then=lambda: _look_again(calls, task, tracee)))


def _look_again(calls: SystemCalls, task: Task, tracee: Tracee) -> Held | None:
    registers = calls.made_of(task)
    if registers[0] >> 31 & 1:  # a negative number: the tracer leaves the call out
        calls.leave_out(task, tracee.instead)
        return None
    verdict = _judge(task, registers)
    act = _allow if verdict.action == filters.TRACE else _ACTS.get(verdict.action, _kill_process)
    return act(calls, task, registers, verdict)


def _ask_listener(calls: SystemCalls, task: Task, registers: tuple[int, ...], verdict: Verdict) -> Held | None:
    assert verdict.filter is not None
    if verdict.filter.listener is None:
        calls.skip(task, registers, -ENOSYS)
        return None
    return Asking(calls, task, registers, verdict.filter)


_ACTS: dict[int, Act] = {
    filters.KILL_PROCESS: _kill_process,
    filters.KILL_THREAD: _kill_thread,
    filters.TRAP: _trap,
    filters.ERRNO: _fail,
    filters.USER_NOTIF: _ask_listener,
    filters.TRACE: _ask_tracer,
    filters.LOG: _allow,
    filters.ALLOW: _allow,
}
