"""What the guest may not do: clocks, the machine itself. Refused with the errno that programs expect,
and counted, so that the report of a run says what a program asked for in vain.
"""

from __future__ import annotations

from errno import EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import linux_of
from loadstone.linux.refusals import count_refusal
from loadstone.linux.syscalls.registry import PARTIAL, syscall

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task


def _denied(name: str) -> Callable[[Task], int]:
    """A call for which the guest has no privilege."""

    def handler(task: Task) -> int:
        count_refusal(task, name)
        raise LinuxError(EPERM, "the guest has no privilege for this")

    return syscall(support=PARTIAL, note="refused: EPERM", name=name)(handler)


DENIED = """swapon swapoff reboot acct settimeofday adjtimex
    clock_adjtime init_module finit_module delete_module kexec_load kexec_file_load bpf open_by_handle_at syslog
    iopl ioperm quotactl"""

globals().update({name: _denied(name) for name in DENIED.split()})


@syscall(PARTIAL, "refused with a terminal, which is the host's: EPERM")
def vhangup(task: Task) -> int:
    """vhangup(2): who has no terminal has nothing to hang up."""
    if task.process.credentials.euid:
        raise LinuxError(EPERM)
    if linux_of(task).console.session == task.process.session:
        count_refusal(task, "vhangup")
        raise LinuxError(EPERM, "the terminal is the host's")
    return 0
