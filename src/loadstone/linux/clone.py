"""fork, vfork, clone: how a process or thread comes into being (kernel/fork.c, copy_process)."""

from __future__ import annotations

from errno import EAGAIN, EBADF, EFAULT, EINVAL, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.events import Fork, publish
from loadstone.kernel.process import Process, Task
from loadstone.lean import NamedTuple
from loadstone.linux.clone_flags import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_INTO_CGROUP,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    NAMESPACES,
)
from loadstone.linux.of_task import linux_of, own_tid, pid_seen, tracee_of
from loadstone.linux.profile import RLIMIT_NPROC
from loadstone.linux.signal.signals import ProcessSignals, TaskSignals
from loadstone.linux.state import process_state, task_state
from loadstone.memory.accounting import Limits
from loadstone.memory.user import copy_out, pieces
from loadstone.wait import Interrupted, Wait, WaitQueue

if TYPE_CHECKING:
    from loadstone.linux.tracing.ptrace import Stop
    from loadstone.machine.core import Context
    from loadstone.wait import Blocking

_TABLES = CLONE_FS | CLONE_FILES


class CloneArguments(NamedTuple):
    """What clone(2) and clone3(2) are asked for. `stack`: the stack pointer to start with, 0 for the caller's.

    `cgroup`: the descriptor that CLONE_INTO_CGROUP names.
    """

    flags: int
    exit_signal: int = 0
    stack: int = 0
    parent_tid: int = 0
    child_tid: int = 0
    pidfd: int = 0
    tls: int = 0
    wanted_pids: tuple[int, ...] = ()
    cgroup: int = 0


def clone(task: Task, asked: CloneArguments) -> int | Blocking:
    """Make the child that `asked` describes; its number, with CLONE_VFORK once it no longer needs the memory.

    Raises LinuxError: EINVAL for flags that do not go together, EAGAIN at a limit, ENOMEM, EPERM for namespaces.
    """
    flags, kernel, linux = asked.flags, task.kernel, linux_of(task)
    _check(task, asked)
    _check_limits(task)
    cgroups, tracing = linux.cgroups, linux.calls.tracing
    group = cgroups.for_child(task, asked.cgroup if flags & CLONE_INTO_CGROUP else -1) if cgroups is not None else None
    child = _make(task, asked)
    if cgroups is not None and group is not None and child.process is not task.process:
        cgroups.join(child.process, group)
    if kernel.events.fork:
        _publish(task, child, flags | asked.exit_signal)
    stop = tracing.born(task, child, flags, asked.exit_signal) if tracing is not None else None
    if flags & CLONE_VFORK:
        child.vfork_done = WaitQueue(f"vfork's child {child.tid}")
    kernel.start(child)
    if flags & CLONE_VFORK:
        return _wait_for_vfork(task, child, stop)
    if stop is not None and tracing is not None:
        tracing.tracees[task].soon(stop)
    return child.tid


def _make(task: Task, asked: CloneArguments) -> Task:
    """The child in its namespaces, with its numbers told; it has not started."""
    flags = asked.flags
    descriptor = _pidfd_descriptor(task, asked.pidfd) if flags & CLONE_PIDFD else -1
    child = _new_thread(task, asked) if flags & CLONE_THREAD else _new_process(task, asked)
    _start_registers(child, asked)
    child.clear_child_tid = asked.child_tid if flags & CLONE_CHILD_CLEARTID else 0
    try:
        if flags & NAMESPACES or child.personal.namespaces is not None:
            _enter_namespaces(task, child, asked)
        _tell_numbers(task, child, asked, descriptor)
    except BaseException:  # no frame is left: the call is made again, or its process killed
        _abandon(task, child)
        raise
    return child


def _publish(task: Task, child: Task, how: int) -> None:
    events, thread = task.kernel.events.fork, child.process is task.process
    now = task.kernel.scheduler.time_ns()
    publish(events, Fork(task.process.pid, task.tid, child.tid, how, thread, now))


def _enter_namespaces(task: Task, child: Task, asked: CloneArguments) -> None:
    from loadstone.linux.namespaces.changing import born

    born(task, child, asked)


def _tell_numbers(task: Task, child: Task, asked: CloneArguments, descriptor: int) -> None:
    """Write the child's number, and its pidfd's, where they are wanted."""
    if asked.flags & CLONE_PIDFD:
        _give_pidfd(task, child, descriptor, asked.pidfd)
    if asked.flags & CLONE_PARENT_SETTID:
        _store_tid(task, asked.parent_tid, pid_seen(task.process, child.tid))
    if asked.flags & CLONE_CHILD_SETTID:
        _store_tid(child, asked.child_tid, own_tid(child))


def _abandon(task: Task, child: Task) -> None:
    """Give back what a child holds that was never started."""
    child.context.release()
    if child.personal.undo is not None:
        from loadstone.linux.ipc.sem_undo import leave_undo

        leave_undo(child)
    process = child.process
    if child.personal.namespaces is not None:
        from loadstone.linux.namespaces.changing import unborn

        unborn(child)
    child.personal.end()
    process.rejoin(child)
    process.tasks.remove(child)
    if process is not task.process:
        if process.parent is not None:
            del process.parent.children[process.pid]
        process.files.drop()
        process.space.release()


def _wait_for_vfork(task: Task, child: Task, stop: Stop | None) -> Blocking:
    """Wait until the child no longer needs the memory; a tracer is told before and after."""
    tid = child.tid
    tracee = tracee_of(task)
    try:
        if tracee is not None and stop is not None:
            yield from tracee.stop_in_call(stop)
        while child.vfork_done is not None:
            yield Wait((child.vfork_done,), interruptible=False)
    except Interrupted:  # killed
        return tid
    if tracee is not None:
        tracee.vfork_done(tid)
    return tid


def _check(task: Task, asked: CloneArguments) -> None:
    """The combinations that copy_process refuses."""
    flags = asked.flags
    wrong = (
        flags & (CLONE_NEWNS | CLONE_FS) == CLONE_NEWNS | CLONE_FS
        or flags & (CLONE_NEWUSER | CLONE_FS) == CLONE_NEWUSER | CLONE_FS
        or (flags & CLONE_THREAD and not flags & CLONE_SIGHAND)
        or (flags & CLONE_SIGHAND and not flags & CLONE_VM)
        or (flags & CLONE_THREAD and flags & (CLONE_NEWUSER | CLONE_NEWPID))
        or (flags & CLONE_PIDFD and flags & CLONE_DETACHED)
        or (flags & CLONE_SIGHAND and flags & CLONE_CLEAR_SIGHAND)
    )
    if wrong:
        raise LinuxError(EINVAL, f"clone flags that do not go together: {flags:#x}")
    if flags & CLONE_INTO_CGROUP and linux_of(task).cgroups is None:
        raise LinuxError(EBADF, "there are no cgroups before cgroup2 is mounted")
    if flags & CLONE_SETTLS and asked.tls >= task.process.space.layout.task_size:  # kernel: do_arch_prctl_64
        raise LinuxError(EPERM, f"{asked.tls:#x} is not an address of the program")
    if flags & NAMESPACES or task_state(task).namespaces is not None:
        from loadstone.linux.namespaces.changing import check_birth

        check_birth(task, flags)
    if asked.wanted_pids:
        from loadstone.linux.namespaces.changing import check_wanted

        check_wanted(task, asked)


def _check_limits(task: Task) -> None:
    kernel, who = task.kernel, task.process.credentials
    most = kernel.options.max_processes
    if len(kernel.processes) >= most or len(kernel.tasks) >= 4 * most:
        kernel.scheduler.switch_off(
            f"{task.process.name} (pid {task.process.pid}) wanted more than {most:,} processes at a time "
            "(--max-processes): the machine was switched off"
        )
        raise LinuxError(EAGAIN, "the machine has no more processes")
    limit = task.process.limits.get(RLIMIT_NPROC)
    if limit is not None and who.euid != 0 and limit[0] <= len(kernel.tasks):
        mine = sum(len(other.tasks) for other in kernel.processes.values() if other.credentials.uid == who.uid)
        if mine >= limit[0]:
            raise LinuxError(EAGAIN, f"the user may have {limit[0]} processes (RLIMIT_NPROC)")


def _new_process(task: Task, asked: CloneArguments) -> Task:
    parent, flags = task.process, asked.flags
    files = parent.files.share() if flags & CLONE_FILES else parent.files.clone()
    try:
        space = parent.space.share() if flags & CLONE_VM else parent.space.clone()
    except BaseException:
        files.drop()
        raise
    fs = parent.fs if flags & CLONE_FS else parent.fs.copy()
    child = parent.forked(_new_number(task, asked), space, fs, files, _signals_for_child(parent.signals, flags))
    if not flags & CLONE_VM:
        space.owner_ids = (child.pid, child.pid, task.cpu)
        space.limits = Limits(task.kernel.commitment, child.limits, user=child.credentials)
    child.name = task.name
    child.personal = process_state(parent).fork()
    child.exit_signal = parent.exit_signal if flags & CLONE_PARENT else asked.exit_signal
    _adopt(child, parent.parent if flags & CLONE_PARENT else parent)
    return _new_task(task, child, child.pid, flags)


def _signals_for_child(parent: ProcessSignals, flags: int) -> ProcessSignals:
    """Nothing is pending; what is done with signals is shared, copied, or what ignores some (copy_sighand)."""
    made = ProcessSignals()
    if flags & CLONE_SIGHAND:
        made.actions = parent.actions
    elif not flags & CLONE_CLEAR_SIGHAND:
        made.actions = parent.actions.copy()
    else:
        made.inherit_ignored(parent)
    return made


def _new_number(task: Task, asked: CloneArguments) -> int:
    """The machine's number of the child: the last of those that clone3(2) asks for, if it asks for that many."""
    if asked.wanted_pids:
        from loadstone.linux.namespaces.changing import level_of_child

        level = level_of_child(task, asked.flags)
        if len(asked.wanted_pids) > level:
            return asked.wanted_pids[level]
    return task.kernel.new_pid()


def _adopt(child: Process, parent: Process | None) -> None:
    child.parent = parent
    if parent is not None:
        parent.children[child.pid] = child


def _new_thread(task: Task, asked: CloneArguments) -> Task:
    process, flags = task.process, asked.flags
    child = _new_task(task, process, _new_number(task, asked), flags)
    if flags & _TABLES != _TABLES or process.apart is not None:
        files = process.files.share() if flags & CLONE_FILES else process.files.clone()
        process.set_apart(child, files, process.fs if flags & CLONE_FS else process.fs.copy())
    return child


def _new_task(task: Task, process: Process, tid: int, flags: int) -> Task:
    """The child's thread, with the caller's registers and settings."""
    context: Context = task.context.copy()
    signals = TaskSignals(task.signals.mask)
    if flags & (CLONE_VM | CLONE_VFORK) != CLONE_VM:  # kernel: sas_ss_reset for what shares the memory for good
        signals.altstack = task.signals.altstack
    child = Task(process, tid, context, signals)
    child.name = task.name
    child.cpu, child.affinity = task.cpu, task.affinity
    child.personal = task_state(task).fork(keeps_rseq=not flags & CLONE_VM)
    child.nice, child.real_time, child.runs_to_block = task.nice, task.real_time, task.runs_to_block
    child.virtual_time = task.virtual_time
    task_state(task).reset_on_fork(child)
    if flags & CLONE_SYSVSEM:
        from loadstone.linux.ipc.sem_undo import share_undo

        share_undo(task, child)
    return child


def _start_registers(child: Task, asked: CloneArguments) -> None:
    context = child.context
    context.set_result(0)
    if asked.stack:
        context.sp = asked.stack
    if asked.flags & CLONE_SETTLS:
        context.write("fs_base", asked.tls)


def _store_tid(task: Task, address: int, tid: int) -> None:
    """Where the C library wants the number; an address that cannot be written is not an error here."""
    try:
        copy_out(task.process.space, address, tid.to_bytes(4, "little"))
    except LinuxError:
        return


def _pidfd_descriptor(task: Task, address: int) -> int:
    """The number that the pidfd will have; there is no child if it cannot be told to the caller."""
    if sum(map(len, pieces(task.process.space, address, 4, True))) < 4:
        raise LinuxError(EFAULT)
    return task.process.files.free()


def _give_pidfd(task: Task, child: Task, descriptor: int, address: int) -> None:
    from loadstone.linux.pidfd import PidFile

    copy_out(task.process.space, address, descriptor.to_bytes(4, "little"))
    task.process.files.install(PidFile(task.kernel.vfs, child.process), cloexec=True, minimum=descriptor)
