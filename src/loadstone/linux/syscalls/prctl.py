"""prctl(2): what a process says of itself. Source: kernel/sys.c."""

from __future__ import annotations

from errno import EFAULT, EINVAL, EPERM
from os import fsdecode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SETPCAP, LAST_CAPABILITY, capabilities_of, capable, lower_bound
from loadstone.linux.state import (
    DEFAULT_SLACK,
    INHERITED_SLACK,
    PR_GET_CHILD_SUBREAPER,
    PR_GET_DUMPABLE,
    PR_GET_KEEPCAPS,
    PR_GET_PDEATHSIG,
    PR_GET_TIMERSLACK,
    process_state,
    task_state,
)
from loadstone.linux.structs import INT, WORD
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.transfer import write_struct
from loadstone.memory.user import copy_in, copy_out, read_string

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Hex, PrctlOption, ULong

    # (the caller, the second argument, the bits of the others) -> the result
    Option = Callable[[Task, int, int], int]

# include/uapi/linux/prctl.h; those that other modules look at are in linux.state
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_GET_TIMING, PR_SET_TIMING = 1, 4, 8, 13, 14
PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = 15, 16, 21, 22, 23, 24
PR_GET_TSC, PR_SET_TSC, PR_GET_SECUREBITS, PR_SET_SECUREBITS, PR_SET_TIMERSLACK = 25, 26, 27, 28, 29
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_GET_TID_ADDRESS = 36, 38, 39, 40
PR_SET_THP_DISABLE, PR_GET_THP_DISABLE = 41, 42

_NAME_SIZE = 16
_HIGHEST_SIGNAL = 64
_TSC_ENABLED = 1


@syscall(PARTIAL, "what a process says of itself; ambient capabilities and secure bits are refused")
def prctl(task: Task, option: PrctlOption, argument: Hex, third: ULong, fourth: ULong, fifth: ULong) -> int:
    """prctl(2)."""
    if option == PR_SET_SECCOMP:
        from loadstone.linux.syscalls.seccomp import set_mode

        return set_mode(task, argument, third)
    act = _OPTIONS.get(option)
    if act is None:
        raise LinuxError(EINVAL, f"no prctl option {option}")
    return act(task, argument, third | fourth | fifth)


def _tells(setting: int, initial: int = 0, *, alone: bool = False) -> Option:
    """The setting is the result; `alone`: the other arguments must be 0."""

    def tell(task: Task, argument: int, rest: int) -> int:
        if alone and argument | rest:
            raise LinuxError(EINVAL)
        return process_state(task.process).settings.get(setting, initial)

    return tell


def _writes(setting: int, initial: int = 0) -> Option:
    """The setting is written to the int at the second argument."""

    def write(task: Task, argument: int, rest: int) -> int:
        write_struct(task, argument, INT, process_state(task.process).settings.get(setting, initial))
        return 0

    return write


def _keeps(setting: int, least: int, most: int, *, alone: bool = False) -> Option:
    """The second argument is kept; EINVAL below `least` and above `most`, and (`alone`) if the others are not 0."""

    def keep(task: Task, argument: int, rest: int) -> int:
        if not least <= argument <= most or (alone and rest):
            raise LinuxError(EINVAL, f"a setting of {argument:#x}")
        process_state(task.process).settings[setting] = argument
        return 0

    return keep


def _keeps_truth(setting: int, *, alone: bool = False) -> Option:
    """Whether the second argument is 0 is kept."""

    def keep(task: Task, argument: int, rest: int) -> int:
        if alone and rest:
            raise LinuxError(EINVAL)
        process_state(task.process).settings[setting] = int(argument != 0)
        return 0

    return keep


def _must_be(value: int) -> Option:
    """A setting with one possible value."""

    def check(task: Task, argument: int, rest: int) -> int:
        if argument != value:
            raise LinuxError(EINVAL, f"a setting of {argument:#x}")
        return 0

    return check


def _set_name(task: Task, argument: int, rest: int) -> int:
    task.name = _name_at(task, argument)
    if task is task.process.tasks[0]:
        task.process.name = task.name
    return 0


def _name_at(task: Task, address: int) -> str:
    """Up to 15 bytes; what is longer is cut."""
    try:
        return fsdecode(read_string(task.process.space, address, _NAME_SIZE))
    except LinuxError as error:
        if error.errno == EFAULT:
            raise
        return fsdecode(copy_in(task.process.space, address, _NAME_SIZE - 1))


def _get_name(task: Task, argument: int, rest: int) -> int:
    copy_out(task.process.space, argument, task.name.encode("utf-8", "surrogateescape").ljust(_NAME_SIZE, b"\0"))
    return 0


def _get_tid_address(task: Task, argument: int, rest: int) -> int:
    write_struct(task, argument, WORD, task.clear_child_tid)
    return 0


def _read_bound(task: Task, argument: int, rest: int) -> int:
    _check_capability(argument)
    return capabilities_of(task.process.credentials).bound >> argument & 1


def _drop_bound(task: Task, argument: int, rest: int) -> int:
    if not capable(task.process.credentials, CAP_SETPCAP):
        raise LinuxError(EPERM)
    _check_capability(argument)
    lower_bound(task.process.credentials, argument)
    return 0


def _check_capability(number: int) -> None:
    if number > LAST_CAPABILITY:
        raise LinuxError(EINVAL, f"no capability {number}")


def _get_seccomp(task: Task, argument: int, rest: int) -> int:
    return task_state(task).seccomp_mode


def _set_no_new_privileges(task: Task, argument: int, rest: int) -> int:
    if argument != 1 or rest:
        raise LinuxError(EINVAL, "no_new_privs can only be set")
    task_state(task).no_new_privileges = True
    return 0


def _get_no_new_privileges(task: Task, argument: int, rest: int) -> int:
    if argument | rest:
        raise LinuxError(EINVAL)
    return int(task_state(task).no_new_privileges)


def _set_slack(task: Task, argument: int, rest: int) -> int:
    settings = process_state(task.process).settings
    if 0 < argument < 1 << 63:
        settings[PR_GET_TIMERSLACK] = argument
    else:
        settings[PR_GET_TIMERSLACK] = settings.get(INHERITED_SLACK, DEFAULT_SLACK)
    return 0


def _refuse_secure_bits(task: Task, argument: int, rest: int) -> int:
    raise LinuxError(EPERM, "the secure bits cannot be changed")


_OPTIONS: dict[int, Option] = {
    PR_SET_PDEATHSIG: _keeps(PR_GET_PDEATHSIG, 0, _HIGHEST_SIGNAL),
    PR_GET_PDEATHSIG: _writes(PR_GET_PDEATHSIG),
    PR_GET_DUMPABLE: _tells(PR_GET_DUMPABLE, 1),
    PR_SET_DUMPABLE: _keeps(PR_GET_DUMPABLE, 0, 1),
    PR_GET_KEEPCAPS: _tells(PR_GET_KEEPCAPS),
    PR_SET_KEEPCAPS: _keeps(PR_GET_KEEPCAPS, 0, 1),
    PR_GET_TIMING: _tells(PR_GET_TIMING),
    PR_SET_TIMING: _must_be(0),
    PR_SET_NAME: _set_name,
    PR_GET_NAME: _get_name,
    PR_GET_SECCOMP: _get_seccomp,
    PR_CAPBSET_READ: _read_bound,
    PR_CAPBSET_DROP: _drop_bound,
    PR_GET_TSC: _writes(PR_GET_TSC, _TSC_ENABLED),
    PR_SET_TSC: _must_be(_TSC_ENABLED),
    PR_GET_SECUREBITS: _tells(PR_GET_SECUREBITS),
    PR_SET_SECUREBITS: _refuse_secure_bits,
    PR_SET_TIMERSLACK: _set_slack,
    PR_GET_TIMERSLACK: _tells(PR_GET_TIMERSLACK, DEFAULT_SLACK),
    PR_SET_CHILD_SUBREAPER: _keeps_truth(PR_GET_CHILD_SUBREAPER),
    PR_GET_CHILD_SUBREAPER: _writes(PR_GET_CHILD_SUBREAPER),
    PR_SET_NO_NEW_PRIVS: _set_no_new_privileges,
    PR_GET_NO_NEW_PRIVS: _get_no_new_privileges,
    PR_GET_TID_ADDRESS: _get_tid_address,
    PR_SET_THP_DISABLE: _keeps_truth(PR_GET_THP_DISABLE, alone=True),
    PR_GET_THP_DISABLE: _tells(PR_GET_THP_DISABLE, alone=True),
}
