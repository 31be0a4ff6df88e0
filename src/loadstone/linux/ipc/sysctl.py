"""The limits on inter-process communication, in /proc/sys/kernel and /proc/sys/fs/mqueue.

Each shows and changes those of the namespace that its reader or writer is in. Sources: ipc/ipc_sysctl.c, mq_sysctl.c.
"""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.ipc.ids import MOST_IDENTIFIERS
from loadstone.linux.ipc.objects import IpcObjects, ipc_of
from loadstone.linux.of_task import current_task
from loadstone.linux.proc.settings import INT_MIN, Number, Numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.proc.settings import Settings

_ULONG_MAX = (1 << 64) - 1
# The ranges of the POSIX ones (include/linux/ipc_namespace.h): MIN_MSGMAX to HARD_MSGMAX, and the sizes.
_MESSAGES, _SIZES = (1, 65536), (128, 16 * 1024 * 1024)


def ipc_settings(kernel: Kernel) -> Settings:
    """What /proc/sys/kernel has of System V's."""

    def here() -> IpcObjects:
        return ipc_of(current_task(kernel))

    return {
        "auto_msgmni": Number(lambda: 0, lambda value: None, 0, 1),
        "msg_next_id": _next_number(lambda: here().queues),
        "msgmax": Number.of(lambda: here().queues, "most_in_message"),
        "msgmnb": Number.of(lambda: here().queues, "capacity"),
        "msgmni": Number.of(lambda: here().queues, "most", 0, MOST_IDENTIFIERS),
        "sem": Numbers(lambda: _semaphore_limits(here()), lambda values: _limit_semaphores(here(), values)),
        "sem_next_id": _next_number(lambda: here().semaphores),
        "shm_next_id": _next_number(lambda: here().segments),
        "shm_rmid_forced": Number(
            lambda: here().segments.removes_unused, lambda value: here().segments.force_removal(value), 0, 1
        ),
        "shmall": Number.of(lambda: here().segments, "max_pages", 0, _ULONG_MAX),
        "shmmax": Number.of(lambda: here().segments, "max_bytes", 0, _ULONG_MAX),
        "shmmni": Number.of(lambda: here().segments, "most", 0, MOST_IDENTIFIERS),
    }


def queue_settings(kernel: Kernel) -> Settings:
    """/proc/sys/fs/mqueue."""

    def queues() -> object:
        return ipc_of(current_task(kernel)).posix_queues

    return {
        "msg_default": Number.of(queues, "default_messages", *_MESSAGES),
        "msg_max": Number.of(queues, "most_messages", *_MESSAGES),
        "msgsize_default": Number.of(queues, "default_size", *_SIZES),
        "msgsize_max": Number.of(queues, "most_size", *_SIZES),
        "queues_max": Number.of(queues, "most", INT_MIN),
    }


def _next_number(table: Callable[[], object]) -> Number:
    """The identifier that the next object is to have; shown as read-only to everybody, as the kernel does."""
    return Number.of(table, "next_number", mode=0o444)


def _semaphore_limits(here: IpcObjects) -> tuple[int, int, int, int]:
    sets = here.semaphores
    return sets.most_in_set, sets.most_in_all, sets.most_steps, sets.most


def _limit_semaphores(here: IpcObjects, values: Sequence[int]) -> None:
    """SEMMSL, SEMMNS, SEMOPM and SEMMNI; the first three as they are given (proc_ipc_sem_dointvec)."""
    sets = here.semaphores
    sets.most_in_set, sets.most_in_all, sets.most_steps, most = values
    if not 0 <= most <= MOST_IDENTIFIERS:
        raise LinuxError(EINVAL, f"there cannot be {most} sets")
    sets.most = most
