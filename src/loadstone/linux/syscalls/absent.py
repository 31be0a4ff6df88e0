"""Calls that a kernel may be built without, as this machine's is: they answer as such a kernel does, and are counted.

Programs ask for them to do better where they can, and go on without: what they get is no error of theirs.
"""

from __future__ import annotations

from errno import EINVAL, ENOSPC
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.refusals import AbsentError, count_refusal
from loadstone.linux.syscalls.registry import PARTIAL, syscall

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Int, Prot, Size, UInt


def _absent(name: str, without: str) -> Callable[[Task], int]:
    """A call of a kernel feature that is configured away."""

    def handler(task: Task) -> int:
        count_refusal(task, name)
        raise AbsentError(without)

    return syscall(support=PARTIAL, note=f"as a kernel without {without}: ENOSYS", name=name)(handler)


ABSENT = {
    "CONFIG_NUMA": "get_mempolicy set_mempolicy set_mempolicy_home_node mbind migrate_pages move_pages",
}

globals().update({name: _absent(name, option) for option, names in ABSENT.items() for name in names.split()})


@syscall(PARTIAL, "as on a CPU without protection keys: ENOSPC")
def pkey_alloc(task: Task, flags: UInt, rights: UInt) -> Int:
    """pkey_alloc(2)."""
    if flags or rights & ~3:
        raise LinuxError(EINVAL)
    raise LinuxError(ENOSPC, "the CPU has no protection keys")


@syscall(PARTIAL, "as on a CPU without protection keys: EINVAL")
def pkey_free(task: Task, key: Int) -> int:
    """pkey_free(2): there is none to free."""
    raise LinuxError(EINVAL)


@syscall(PARTIAL, "as on a CPU without protection keys: key -1 only")
def pkey_mprotect(task: Task, address: Address, length: Size, prot: Prot, key: Int) -> int:
    """pkey_mprotect(2)."""
    if key != -1:
        raise LinuxError(EINVAL)
    task.process.space.protect(address, length, prot)
    return 0
