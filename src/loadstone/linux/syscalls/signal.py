"""System calls on signals (kernel/signal.c). What signals are is in `linux.signal.signals`."""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINTR, EINVAL, EPERM, ESRCH
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_KILL, capable_in
from loadstone.linux.of_task import pid_meant, pid_seen, pids_of, process_called
from loadstone.linux.signal import sending, signals
from loadstone.linux.signal.restart import ERESTARTNOHAND, Restart
from loadstone.linux.signal.signals import HIGHEST, SA_KNOWN, UNBLOCKABLE, Action, SigInfo, bit
from loadstone.linux.structs import WORD
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.transfer import read_struct, read_time, write_struct
from loadstone.memory.user import copy_in, copy_out
from loadstone.wait import TIMED_OUT, Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.syscalls.arguments import (
        InSigaction,
        InSiginfo,
        InSigset,
        InStack,
        InTime,
        MaskHow,
        OutSigaction,
        OutSiginfo,
        OutSigset,
        OutStack,
        Pid,
        Signal,
        Size,
    )
    from loadstone.wait import Blocking

_SIGACTION = Struct("<QQQQ")  # handler, flags, restorer, mask
_STACK = Struct("<QIxxxxQ")
_MASK_BYTES = 8
_BLOCK, _UNBLOCK, _SET = range(3)


# ------------------------------------------------------------------------------------------------ sending


@syscall(FULL)
def kill(task: Task, pid: Pid, number: Signal) -> int:
    """kill(2)."""
    process = task.process
    info = signals.from_process(number, process.pid, process.credentials.uid)
    if pid == -(1 << 31):
        raise LinuxError(ESRCH)
    targets = _targets(task, pid)
    if not targets:
        raise LinuxError(ESRCH, f"no process {pid}")
    check_number(number)
    allowed = [target for target in targets if may_signal(process, target, number)]
    if not allowed:
        raise LinuxError(EPERM)
    if number:
        for target in allowed:
            sending.send(target, info)
    return 0


def _targets(task: Task, pid: int) -> list[Process]:
    processes = task.kernel.processes
    if pid > 0:
        found = process_called(task, pid)
        return [found] if found is not None else []
    if pid == -1:
        me = task.process
        return [other for other in processes.values() if other is not me and pid_seen(me, other.pid) > 1]
    group = task.process.group if pid == 0 else -pid
    return [other for other in processes.values() if other.group == group]


def may_signal(sender: Process, target: Process, number: int) -> bool:
    """Kernel: check_kill_permission. Anybody may continue the processes of their own session."""
    if number == signals.SIGCONT and sender.session == target.session:
        return True
    who, whom = sender.credentials, target.credentials
    if who.euid in (whom.suid, whom.uid) or who.uid in (whom.suid, whom.uid):
        return True
    return capable_in(who, whom.users, CAP_KILL)


def check_number(number: int) -> None:
    """EINVAL for a signal that does not exist; 0 only asks."""
    if not 0 <= number <= HIGHEST:
        raise LinuxError(EINVAL, f"no signal {number}")


@syscall(FULL)
def tkill(task: Task, tid: Pid, number: Signal) -> int:
    """tkill(2)."""
    if tid <= 0:
        raise LinuxError(EINVAL)
    return _send_thread(task, 0, tid, number, None)


@syscall(FULL)
def tgkill(task: Task, group: Pid, tid: Pid, number: Signal) -> int:
    """tgkill(2)."""
    if tid <= 0 or group <= 0:
        raise LinuxError(EINVAL)
    return _send_thread(task, group, tid, number, None)


def _send_thread(task: Task, group: int, tid: int, number: int, info: SigInfo | None) -> int:
    sender = task.process
    if info is None:
        info = signals.from_process(number, sender.pid, sender.credentials.uid, signals.SI_TKILL)
    thread = task.kernel.tasks.get(tid)
    if thread is None or group not in (0, thread.process.pid):
        raise LinuxError(ESRCH, f"no thread {tid}")
    check_number(number)
    if not may_signal(sender, thread.process, number):
        raise LinuxError(EPERM)
    if number:
        sending.send_task(thread, info)
    return 0


@syscall(FULL)
def rt_sigqueueinfo(task: Task, pid: Pid, number: Signal, info: InSiginfo) -> int:
    """rt_sigqueueinfo(2)."""
    given = queued(task, number, info, pid)
    target = process_called(task, pid)
    if target is None:
        raise LinuxError(ESRCH, f"no process {pid}")
    check_number(number)
    if not may_signal(task.process, target, number):
        raise LinuxError(EPERM)
    if number:
        sending.send(target, given)
    return 0


@syscall(FULL)
def rt_tgsigqueueinfo(task: Task, group: Pid, tid: Pid, number: Signal, info: InSiginfo) -> int:
    """rt_tgsigqueueinfo(2)."""
    given = queued(task, number, info, tid)
    if tid <= 0 or group <= 0:
        raise LinuxError(EINVAL)
    return _send_thread(task, group, tid, number, given)


def queued(task: Task, number: int, address: int, target: int) -> SigInfo:
    """A program may not pretend to be the kernel, or kill(2), to anybody but itself."""
    info = signals.unpack(copy_in(task.process.space, address, 128))._replace(number=number)
    if (info.code >= 0 or info.code == signals.SI_TKILL) and target != task.process.pid:
        raise LinuxError(EPERM, f"si_code {info.code} is not for programs")
    if pids_of(task.process) is None:
        return info
    pid = pid_meant(task.process, info.sender[0]) & 0xFFFF_FFFF  # it is translated for who gets it
    return info._replace(fields=pid.to_bytes(4, "little") + info.fields[4:])


# ------------------------------------------------------------------------------------------------ actions and masks


def _check_size(size: int) -> None:
    if size != _MASK_BYTES:
        raise LinuxError(EINVAL, f"a signal mask has {_MASK_BYTES} bytes, not {size}")


@syscall(FULL)
def rt_sigaction(task: Task, number: Signal, new: InSigaction, old: OutSigaction, size: Size) -> int:
    """rt_sigaction(2)."""
    _check_size(size)
    given = read_struct(task, new, _SIGACTION) if new else None
    if not 1 <= number <= HIGHEST or (given and bit(number) & UNBLOCKABLE):
        raise LinuxError(EINVAL, f"the action of signal {number} cannot be set")
    before = task.process.signals.action(number)
    if given:
        handler, flags, restorer, mask = given
        action = Action(handler, flags & SA_KNOWN, restorer, mask & ~UNBLOCKABLE)
        sending.set_action(task.process, number, action)
    if old:
        write_struct(task, old, _SIGACTION, *before)
    return 0


@syscall(FULL)
def rt_sigprocmask(task: Task, how: MaskHow, new: InSigset, old: OutSigset, size: Size) -> int:
    """rt_sigprocmask(2)."""
    _check_size(size)
    before = task.signals.mask
    if new:
        (mask,) = read_struct(task, new, WORD)
        if how == _BLOCK:
            mask |= before
        elif how == _UNBLOCK:
            mask = before & ~mask
        elif how != _SET:
            raise LinuxError(EINVAL, f"no such way to change the mask: {how}")
        sending.set_mask(task, mask)
    if old:
        write_struct(task, old, WORD, before)
    return 0


@syscall(FULL)
def rt_sigpending(task: Task, pending: OutSigset, size: Size) -> int:
    """rt_sigpending(2)."""
    if size > _MASK_BYTES:
        raise LinuxError(EINVAL)
    both = task.signals.pending.mask | task.process.signals.pending.mask
    copy_out(task.process.space, pending, (both & task.signals.mask).to_bytes(8, "little")[:size])
    return 0


@syscall(FULL)
def sigaltstack(task: Task, new: InStack, old: OutStack) -> int:
    """sigaltstack(2)."""
    from loadstone.linux.signal import frame as signal_frame

    given = read_struct(task, new, _STACK) if new else None
    state, sp = task.signals, task.context.sp
    start, size, flags = state.altstack
    before = (start, signal_frame.altstack_state(state, sp) | flags & signals.SS_AUTODISARM, size)
    if given:
        new_start, new_flags, new_size = given
        signal_frame.set_altstack(state, sp, new_start, new_size, new_flags, signals.MINSIGSTKSZ)
    if old:
        write_struct(task, old, _STACK, *before)
    return 0


@syscall(FULL)
def rt_sigreturn(task: Task) -> None:
    """rt_sigreturn(2)."""
    from loadstone.linux.signal import frame as signal_frame

    signal_frame.sigreturn(task)


# ------------------------------------------------------------------------------------------------ waiting


@syscall(FULL)
def pause(task: Task) -> Blocking:
    """pause(2)."""
    return _wait_for_handler(task)


@syscall(FULL)
def rt_sigsuspend(task: Task, mask: InSigset, size: Size) -> Blocking:
    """rt_sigsuspend(2): the old mask is back once the handler has returned."""
    _check_size(size)
    (wanted,) = read_struct(task, mask, WORD)
    task.signals.saved_mask = task.signals.mask
    sending.set_mask(task, wanted)
    return _wait_for_handler(task)


def _wait_for_handler(task: Task) -> Blocking:
    try:
        while True:
            yield Wait((task.signals.arrival,))
    except Interrupted:
        raise Restart(ERESTARTNOHAND) from None


@syscall(PARTIAL, "a signal taken this way is not shown as delivered")
def rt_sigtimedwait(task: Task, wanted: InSigset, info: OutSiginfo, timeout: InTime, size: Size) -> Blocking:
    """rt_sigtimedwait(2)."""
    _check_size(size)
    (mask,) = read_struct(task, wanted, WORD)
    deadline = None
    if timeout:
        deadline = task.kernel.clock.monotonic_ns() + read_time(task, timeout)
    return _wait_for_signal(task, mask & ~UNBLOCKABLE, info, deadline)


def _wait_for_signal(task: Task, wanted: int, info: int, deadline: int | None) -> Blocking:
    """The signals waited for are unblocked meanwhile, so that their arrival interrupts, and taken undelivered."""
    taken = sending.take(task, wanted)
    if taken is None:
        state = task.signals
        before = state.mask
        state.waited_for = before & wanted
        state.mask = before & ~wanted
        errno = EAGAIN
        try:
            reason = yield Wait((state.arrival,), deadline)
            errno = EAGAIN if reason == TIMED_OUT else EINTR
        except Interrupted:
            errno = EINTR
        finally:
            state.mask, state.waited_for = before, 0
        taken = sending.take(task, wanted)
        if taken is None:
            raise LinuxError(errno)
    if info:
        try:
            copy_out(task.process.space, info, taken.pack())
        except LinuxError:
            raise LinuxError(EFAULT) from None
    return taken.number
