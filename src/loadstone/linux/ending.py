"""What the end of a process means to others (kernel/exit.c): its parent, its children, its group, its terminal."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import ExitStatus
from loadstone.linux import jobs
from loadstone.linux.futexes import wake
from loadstone.linux.of_task import linux_of, pids_of
from loadstone.linux.signal import sending, signals
from loadstone.linux.signal.signals import SIG_IGN, SIGCHLD, SigInfo
from loadstone.linux.state import PR_GET_CHILD_SUBREAPER, PR_GET_PDEATHSIG, process_state
from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.namespaces.pids import PidNamespace

CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_TRAPPED, CLD_STOPPED, CLD_CONTINUED = range(1, 7)
_CHILD = Struct("<iIi4xqq")  # si_pid, si_uid, si_status, si_utime, si_stime
_TICK_NS = 10_000_000
_ROBUST_HEAD = 24


def leave_memory(task: Task) -> None:
    """A thread ends, or leaves its memory by exec: who waits for that is told (kernel: mm_release)."""
    process = task.process
    _release_locks(task)
    if task.clear_child_tid and (process.space.users > 1 or len(process.tasks) > 1):
        _clear_tid(task)
    _release_vfork_parent(task)


def task_ended(task: Task) -> None:
    """A thread has run for the last time."""
    leave_memory(task)
    if task.personal is not None and task.personal.undo is not None:
        from loadstone.linux.ipc.sem_undo import leave_undo

        leave_undo(task)
    if task.personal is not None:
        task.personal.end()
    tracing = linux_of(task).calls.tracing
    if tracing is not None:
        tracing.ended(task)


def _release_locks(task: Task) -> None:
    """Locks that the task has are marked (kernel: futex_exit_release); most threads have none when they end."""
    if task.robust_list:
        try:
            head = copy_in(task.process.space, task.robust_list, _ROBUST_HEAD)
        except LinuxError:
            head = b""
        if head == task.robust_list.to_bytes(8, "little") + head[8:16] + bytes(8):
            task.robust_list = 0  # the list leads back to itself, and nothing is being added
    if task.robust_list or linux_of(task).calls.futexes.ownership is not None:
        from loadstone.linux.robust_list import release_locks

        release_locks(task)


def _release_vfork_parent(task: Task) -> None:
    """The task has left the memory it was given for a while (kernel: complete_vfork_done)."""
    if task.vfork_done is not None:
        queue, task.vfork_done = task.vfork_done, None
        task.kernel.scheduler.wake(queue.wake())


def _clear_tid(task: Task) -> None:
    """CLONE_CHILD_CLEARTID: zero where the number stood, and wake who waits on that word."""
    address, task.clear_child_tid = task.clear_child_tid, 0
    try:
        copy_out(task.process.space, address, bytes(4))
        wake(task, address, 1, shared=True)
    except LinuxError:
        return  # the program took the memory away; the kernel does not mind either


def process_ended(process: Process) -> None:
    """A process is a zombie now (kernel: exit_notify)."""
    calls = linux_of(process.tasks[0]).calls
    calls.timers.forget(process)
    for segment in process_state(process).segments if process.personal is not None else ():
        segment.creator_ended()
    pids = pids_of(process)
    if pids is not None and pids.init is process:
        _end_all(process, pids)
    if calls.tracing is not None:
        calls.tracing.tracer_ended(process)
    jobs.leave_terminal(process)
    _rehome_children(process)
    jobs.hang_up_orphans(process, process.parent)
    parent = process.parent
    if parent is None or _notify(process, parent):
        process.kernel.reap(process)


def _rehome_children(process: Process) -> None:
    """Children go to the nearest ancestor that asked for orphans, else to the machine (find_new_reaper)."""
    children = list(process.children.values())
    if not children:
        return
    reaper = _reaper(process)
    process.children = {}
    for child in children:
        child.parent = reaper
        child.exit_signal = SIGCHLD
        if reaper is not None:
            reaper.children[child.pid] = child
        if child.status is None:
            wanted = process_state(child).settings.get(PR_GET_PDEATHSIG, 0)
            if wanted:
                who = process.credentials
                sending.send(child, signals.from_process(wanted, process.pid, who.uid))
            jobs.hang_up_orphans(child, process)
        elif reaper is None or _notify(child, reaper):
            process.kernel.reap(child)


def _end_all(init: Process, pids: PidNamespace) -> None:
    """The first process of a PID namespace takes everybody in it along (zap_pid_ns_processes)."""
    from loadstone.linux.namespaces.pids import members

    for process in members(init.kernel, pids):
        if process is not init:
            init.kernel.exit_process(process, ExitStatus(signal=signals.SIGKILL))


def _reaper(process: Process) -> Process | None:
    """Who gets the children of a process: None for the machine, or nobody, as its PID namespace has ended."""
    pids = pids_of(process)
    reaper = process.parent
    while reaper is not None and not _adopts(reaper):
        reaper = reaper.parent
        if pids is not None and (reaper is None or pids_of(reaper) is not pids):
            break
    if pids is None:
        return reaper
    if reaper is None or pids_of(reaper) is not pids:
        reaper = pids.init
    return None if reaper is process else reaper


def _adopts(process: Process) -> bool:
    return process.status is None and bool(process_state(process).settings.get(PR_GET_CHILD_SUBREAPER, 0))


def _notify(child: Process, parent: Process) -> bool:
    """Tell the parent; whether nobody will wait for the child (kernel: do_notify_parent)."""
    number = child.exit_signal
    forgotten = False
    if number == SIGCHLD:
        action = parent.signals.action(SIGCHLD)
        forgotten = action.handler == SIG_IGN or bool(action.flags & signals.SA_NOCLDWAIT)
        if action.handler == SIG_IGN:
            number = 0
    wake_parent(parent)  # first: who waits for the child finds it, signal or not
    if number and parent.status is None:
        sending.send(parent, child_info(child, number, *exit_code(child)))
    return forgotten


def exit_code(process: Process) -> tuple[int, int]:
    """si_code and si_status of a process that has ended."""
    status: ExitStatus | None = process.status
    assert status is not None
    if not status.signal:
        return CLD_EXITED, status.code
    return CLD_DUMPED if status.core_dumped else CLD_KILLED, status.signal


def status_word(status: ExitStatus) -> int:
    """What wait(2) tells of a process that has ended."""
    return status.signal | (0x80 if status.core_dumped else 0) if status.signal else status.code << 8


def child_info(child: Process, number: int, code: int, status: int) -> SigInfo:
    """The siginfo with which a parent hears of its child."""
    usage = child.total_usage()
    times = usage.user_ns // _TICK_NS, usage.system_ns // _TICK_NS
    return SigInfo(number, code, _CHILD.pack(child.pid, child.credentials.uid, status, *times))


def tell_parent_of_stop(process: Process, code: int, number: int) -> None:
    """A child stopped or goes on (kernel: do_notify_parent_cldstop)."""
    parent = process.parent
    if parent is None:
        return
    wake_parent(parent)
    action = parent.signals.action(SIGCHLD)
    if action.handler != SIG_IGN and not action.flags & signals.SA_NOCLDSTOP:
        sending.send(parent, child_info(process, SIGCHLD, code, number))


def wake_parent(parent: Process) -> None:
    """Who waits for a child looks again."""
    parent.kernel.scheduler.wake(parent.child_events.wake())
