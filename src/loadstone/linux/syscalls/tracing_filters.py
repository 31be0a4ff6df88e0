"""What a tracer learns of the seccomp filters of a thread, and how it suspends them (kernel/seccomp.c, ptrace.c).

All of it is for CAP_SYS_ADMIN in the machine's first user namespace, and for who is not in seccomp.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SYS_ADMIN, capable_in
from loadstone.linux.of_task import tracee_of
from loadstone.linux.seccomp import bpf
from loadstone.linux.seccomp.filters import FILTER
from loadstone.linux.state import task_state
from loadstone.linux.structs import WORD
from loadstone.linux.syscalls.seccomp import LOG
from loadstone.linux.tracing.ptrace import O_SUSPEND_SECCOMP
from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.seccomp.filters import Filter
    from loadstone.linux.tracing.ptrace import Tracee

_METADATA = Struct("<QQ")  # struct seccomp_metadata: filter_off, flags


def get_filter(task: Task, tracee: Tracee, number: int, data: int) -> int:
    """PTRACE_SECCOMP_GET_FILTER: the program of a filter, counted from the oldest; its length in instructions."""
    _demand_right(task)
    program = _filter(tracee, number).program
    if data:
        copy_out(task.process.space, data, program)
    return len(program) // bpf.INSTRUCTION.size


def get_metadata(task: Task, tracee: Tracee, size: int, data: int) -> int:
    """PTRACE_SECCOMP_GET_METADATA: the flags of a filter; how many bytes were written."""
    _demand_right(task)
    if size < WORD.size:
        raise LinuxError(EINVAL, "struct seccomp_metadata is longer")
    (number,) = WORD.unpack(copy_in(task.process.space, data, WORD.size))
    flags = LOG if _filter(tracee, number).logs else 0
    image = _METADATA.pack(number, flags)[:size]
    copy_out(task.process.space, data, image)
    return len(image)


def check_suspension(task: Task, options: int) -> None:
    """PTRACE_O_SUSPEND_SECCOMP (ptrace_check_options): EPERM for who may not, or is suspended itself."""
    if not options & O_SUSPEND_SECCOMP:
        return
    tracee = tracee_of(task)
    suspended = tracee is not None and tracee.options & O_SUSPEND_SECCOMP
    if not _has_right(task) or suspended:
        raise LinuxError(EPERM, "seccomp is suspended by CAP_SYS_ADMIN outside of it")


def _demand_right(task: Task) -> None:
    if not _has_right(task):
        raise LinuxError(EACCES, "filters are shown to CAP_SYS_ADMIN outside of seccomp")


def _has_right(task: Task) -> bool:
    return capable_in(task.process.credentials, None, CAP_SYS_ADMIN) and not task_state(task).seccomp_mode


def _filter(tracee: Tracee, number: int) -> Filter:
    """Filter `number` of a thread, the oldest being 0: EINVAL without filters, ENOENT past the newest."""
    state = task_state(tracee.task)
    if state.seccomp_mode != FILTER or state.seccomp_filter is None:
        raise LinuxError(EINVAL, "the thread has no filters")
    chain = list(state.seccomp_filter.chain())
    if number >= len(chain):
        raise LinuxError(ENOENT, f"the thread has {len(chain)} filters")
    return chain[-1 - number]
