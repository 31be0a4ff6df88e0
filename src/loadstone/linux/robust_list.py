"""Robust mutexes: the locks that a thread has when it ends, or leaves its memory by exec (kernel/futex/core.c).

A thread keeps a list of the locks it has, in its own memory; set_robust_list(2) told the kernel where. The list may be
anything: whatever cannot be read ends the walk without a word.

    struct robust_list_head: address of the first entry (bit 0: a lock with priority inheritance), offset from an
    entry to its lock's word (signed), address of an entry that is being added or removed, or 0
"""

from __future__ import annotations

from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.futexes import futexes_of, read_word, wake, write_word
from loadstone.linux.of_task import own_tid
from loadstone.linux.pi_futexes import OWNER_DIED, TID_MASK, WAITERS
from loadstone.memory.user import copy_in

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.memory.address_space import AddressSpace

HEAD = Struct("<QqQ")
_MOST_LOCKS = 2048  # ROBUST_LIST_LIMIT
_MASK = (1 << 64) - 1
_PI = 1


def release_locks(task: Task) -> None:
    """Mark the locks that the task has as those of a dead owner, and wake who waits for them (futex_cleanup)."""
    head, task.robust_list = task.robust_list, 0
    if head:
        with suppress(LinuxError):  # a list that leads nowhere; what came before on it is done
            _walk(task, head)
    ownership = futexes_of(task).ownership
    if ownership is not None:
        ownership.owner_ended(task)


def _walk(task: Task, head: int) -> None:
    space = task.process.space
    first, offset, pending = HEAD.unpack(copy_in(space, head, HEAD.size))
    entry, pi = first & ~_PI, first & _PI
    for _ in range(_MOST_LOCKS):
        if entry == head:
            break
        following = _next(space, entry)  # before the word is changed: from then on the entry may be somebody else's
        if entry != pending & ~_PI:
            _mark(task, (entry + offset) & _MASK, pi=bool(pi), unfinished=False)
        if following is None:
            return
        entry, pi = following & ~_PI, following & _PI
    if pending & ~_PI:
        _mark(task, ((pending & ~_PI) + offset) & _MASK, pi=bool(pending & _PI), unfinished=True)


def _next(space: AddressSpace, entry: int) -> int | None:
    try:
        return int.from_bytes(copy_in(space, entry, 8), "little")
    except LinuxError:
        return None


def _mark(task: Task, address: int, *, pi: bool, unfinished: bool) -> None:
    """One lock of the dying task (kernel: handle_futex_death). Raises LinuxError where the walk ends.

    `unfinished`: the thread was locking or unlocking it. If it is nobody's then, the wake that it still owed, or that
    was meant for it, goes to the next one.
    """
    if address & 3:
        raise LinuxError(0, "a lock that is not aligned")
    space = task.process.space
    word = read_word(space, address)
    if word & TID_MASK != own_tid(task):
        if unfinished and not pi and (not word & TID_MASK or not word & WAITERS):
            _wake_one(task, address)
        return
    write_word(space, address, word & WAITERS | OWNER_DIED)
    if not pi and word & WAITERS:
        _wake_one(task, address)


def _wake_one(task: Task, address: int) -> None:
    with suppress(LinuxError):  # the kernel does not look at the result either
        wake(task, address, 1, shared=True)
