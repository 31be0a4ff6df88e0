"""seccomp(2): a thread gives up system calls, or attaches a filter that decides about them (kernel/seccomp.c)."""

from __future__ import annotations

from errno import EACCES, EINVAL, EOPNOTSUPP, ESRCH
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import ENDED
from loadstone.linux.capabilities import CAP_SYS_ADMIN, capable
from loadstone.linux.of_task import linux_of, pid_seen
from loadstone.linux.seccomp import bpf
from loadstone.linux.seccomp.filters import ACTIONS, DISABLED, FILTER, STRICT, Filter
from loadstone.linux.seccomp.notices import Listener
from loadstone.linux.state import task_state
from loadstone.linux.structs import UINT
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.transfer import read_struct, write_struct
from loadstone.memory.user import copy_in

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, UHex, UInt

# include/uapi/linux/seccomp.h
SET_MODE_STRICT, SET_MODE_FILTER, GET_ACTION_AVAIL, GET_NOTIF_SIZES = range(4)
TSYNC, LOG, SPEC_ALLOW, NEW_LISTENER, TSYNC_ESRCH, WAIT_KILLABLE_RECV = (1 << shift for shift in range(6))
_KNOWN_FLAGS = (1 << 6) - 1
_PROGRAM = Struct("<H6xQ")  # struct sock_fprog: length, where
_SIZES = Struct("<3H")
NOTICE_SIZE, ANSWER_SIZE = 80, 24  # struct seccomp_notif, struct seccomp_notif_resp


@syscall(PARTIAL, "what is to be logged is written nowhere; int 0x80 is not filtered; strict mode leaves RDTSC alone")
def seccomp(task: Task, operation: UInt, flags: UHex, argument: Address) -> int:
    """seccomp(2)."""
    if operation == SET_MODE_FILTER:
        return set_filter(task, flags, argument)
    if flags or operation > GET_NOTIF_SIZES:
        raise LinuxError(EINVAL, f"seccomp operation {operation} with flags {flags:#x}")
    if operation == SET_MODE_STRICT:
        if argument:
            raise LinuxError(EINVAL, "strict mode takes no filter")
        return set_strict(task)
    if operation == GET_ACTION_AVAIL:
        (action,) = read_struct(task, argument, UINT)
        if action not in ACTIONS:
            raise LinuxError(EOPNOTSUPP, f"no action {action:#x}")
        return 0
    write_struct(task, argument, _SIZES, NOTICE_SIZE, ANSWER_SIZE, bpf.DATA_SIZE)
    return 0


def set_mode(task: Task, mode: int, argument: int) -> int:
    """prctl(PR_SET_SECCOMP)."""
    if mode == STRICT:
        return set_strict(task)
    if mode == FILTER:
        return set_filter(task, 0, argument)
    raise LinuxError(EINVAL, f"no seccomp mode {mode}")


def set_strict(task: Task) -> int:
    """From now on only read, write, rt_sigreturn and exit; EINVAL with filters."""
    _demand_mode(task, STRICT)
    _filter_calls(task, STRICT)
    return 0


def set_filter(task: Task, flags: int, argument: int) -> int:
    """Attach the filter at `argument` (seccomp_set_mode_filter).

    The descriptor of its listener where one was asked for; the first thread that cannot have it, with TSYNC; else 0.
    """
    _check_flags(flags)
    made = Filter(
        _read_program(task, argument), logs=bool(flags & LOG), waits_killable=bool(flags & WAIT_KILLABLE_RECV)
    )
    files, listens = task.process.files, flags & NEW_LISTENER
    if listens:
        files.free()  # EMFILE
        first = int.from_bytes(task.kernel.random_bytes(8), "little")
        made.listener = Listener(task.kernel.vfs, made, first)
    _demand_mode(task, FILTER)
    state = task_state(task)
    made.check_before(state.seccomp_filter)
    if flags & TSYNC:
        other = _first_apart(task)
        if other is not None:
            if flags & TSYNC_ESRCH:
                raise LinuxError(ESRCH, f"thread {other.tid} has other filters")
            return pid_seen(task.process, other.tid)
    made.older, state.seccomp_filter = state.seccomp_filter, made
    _filter_calls(task, FILTER)
    if flags & TSYNC:
        _share_filters(task)
    return files.install(made.listener, cloexec=True) if made.listener is not None else 0


def _check_flags(flags: int) -> None:
    """EINVAL for flags that are unknown, or whose results could not be told from each other."""
    both = flags & TSYNC and flags & NEW_LISTENER and not flags & TSYNC_ESRCH
    if flags & ~_KNOWN_FLAGS or both or (flags & WAIT_KILLABLE_RECV and not flags & NEW_LISTENER):
        raise LinuxError(EINVAL, f"seccomp flags {flags:#x}")


def _read_program(task: Task, argument: int) -> bytes:
    """The program that a struct sock_fprog names, checked. EACCES for who may not have filters."""
    length, place = read_struct(task, argument, _PROGRAM)
    if not 0 < length <= bpf.MOST_INSTRUCTIONS:
        raise LinuxError(EINVAL, f"a filter of {length} instructions")
    if not task_state(task).no_new_privileges and not capable(task.process.credentials, CAP_SYS_ADMIN):
        raise LinuxError(EACCES, "filters are for CAP_SYS_ADMIN, and for who has set PR_SET_NO_NEW_PRIVS")
    if not place:
        raise LinuxError(EINVAL, "a filter at NULL")
    program = copy_in(task.process.space, place, length * bpf.INSTRUCTION.size)
    bpf.check(program)
    return program


def _demand_mode(task: Task, mode: int) -> None:
    """The mode can be entered once (seccomp_may_assign_mode)."""
    if task_state(task).seccomp_mode not in (DISABLED, mode):
        raise LinuxError(EINVAL, "the thread is in another seccomp mode")


def _filter_calls(task: Task, mode: int) -> None:
    task_state(task).seccomp_mode = mode
    linux_of(task).calls.hooked = True


def _others(task: Task) -> list[Task]:
    return [other for other in task.process.tasks if other is not task and other.state != ENDED]


def _first_apart(task: Task) -> Task | None:
    """The first thread whose filters are not the beginning of the caller's (seccomp_can_sync_threads)."""
    newest = task_state(task).seccomp_filter
    mine = list(newest.chain()) if newest is not None else []
    for other in _others(task):
        state = task_state(other)
        shared = state.seccomp_filter is None or state.seccomp_filter in mine
        if state.seccomp_mode not in (DISABLED, FILTER) or not shared:
            return other
    return None


def _share_filters(task: Task) -> None:
    """All threads have the caller's filters, and may do no more than it (seccomp_sync_threads)."""
    mine = task_state(task)
    assert mine.seccomp_filter is not None
    for other in _others(task):
        state = task_state(other)
        mine.seccomp_filter.hold()
        if state.seccomp_filter is not None:
            state.seccomp_filter.leave()
        state.seccomp_filter, state.seccomp_mode = mine.seccomp_filter, FILTER
        state.no_new_privileges |= mine.no_new_privileges
