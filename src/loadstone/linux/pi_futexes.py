"""Futexes with priority inheritance: locks whose word says who owns them (kernel/futex/pi.c).

The word is the owner's thread number, with WAITERS when unlocking needs the kernel and OWNER_DIED when its owner ended
without unlocking. The kernel has a state for it only while somebody waits. A lock that becomes free is handed to the
first waiter at once, so that there is no moment at which it has waiters and no owner.
"""

from __future__ import annotations

from errno import EDEADLK, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import ENDED
from loadstone.linux.futexes import read_word, write_word
from loadstone.linux.of_task import own_tid, pid_meant

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.futexes import Futexes, Key, Waiter
    from loadstone.memory.address_space import AddressSpace

TID_MASK, OWNER_DIED, WAITERS = 0x3FFF_FFFF, 0x4000_0000, 0x8000_0000


class PiState:
    """A lock for which somebody waits."""

    __slots__ = ("key", "owner")

    def __init__(self, key: Key, owner: Task) -> None:
        self.key = key
        self.owner = owner


class Ownership:
    """Who owns which of these locks, and which one each task waits for.

    The owner of a lock runs with the highest real-time priority among those who wait for it, and so does who owns the
    lock that the owner itself waits for.
    """

    __slots__ = ("_futexes", "_owned", "_wanted")

    def __init__(self, futexes: Futexes) -> None:
        self._futexes = futexes
        self._owned: dict[Task, list[PiState]] = {}
        self._wanted: dict[Task, PiState] = {}

    def new(self, key: Key, owner: Task) -> PiState:
        """The state of a lock that `owner` has, for its first waiter."""
        state = PiState(key, owner)
        self._owned.setdefault(owner, []).append(state)
        return state

    def check(self, task: Task, state: PiState) -> None:
        """Raises LinuxError(EDEADLK) if the lock's owner waits for a lock of the task's, directly or by others."""
        owner: Task | None = state.owner
        while owner is not None:
            if owner is task:
                raise LinuxError(EDEADLK, "the lock's owner waits for the task")
            wanted = self._wanted.get(owner)
            owner = wanted.owner if wanted is not None else None

    def join(self, waiter: Waiter, state: PiState) -> None:
        """Begin to wait for the lock."""
        waiter.state = state
        self._wanted[waiter.task] = state
        self._futexes.add(waiter)
        self._lend(state.owner)

    def leave(self, waiter: Waiter) -> None:
        """Wait for the lock no longer, without it."""
        state = waiter.state
        self._futexes.remove(waiter)
        self._wanted.pop(waiter.task, None)
        if state is not None and not waiter.woken:
            self.forget_idle(state)
            self._lend(state.owner)

    def forget_idle(self, state: PiState) -> None:
        """The kernel knows nothing of a lock for which nobody waits."""
        if not self._waiters(state):
            self._disown(state)

    def hand_over(self, state: PiState, space: AddressSpace | None, address: int, died: int = 0) -> None:
        """The lock goes to its first waiter. The word is at `address` of `space`; None: where the waiter has it."""
        waiter = self._waiters(state)[0]
        new = waiter.task
        if space is None:
            space, address = new.process.space, waiter.address
        write_word(space, address, WAITERS | own_tid(new) | died)
        before = state.owner
        self._disown(state)
        self._futexes.remove(waiter)
        self._wanted.pop(new, None)
        if self._waiters(state):
            state.owner = new
            self._owned.setdefault(new, []).append(state)
        waiter.wake()
        self._lend(before)
        self._lend(new)

    def owner_ended(self, task: Task) -> None:
        """Its locks go to those who wait for them, marked (kernel: exit_pi_state_list)."""
        for state in list(self._owned.get(task, ())):
            try:
                self.hand_over(state, None, 0, OWNER_DIED)
            except LinuxError:  # the waiter's word cannot be written: it stays as the dead one left it
                self._disown(state)

    def _disown(self, state: PiState) -> None:
        owned = self._owned.get(state.owner, [])
        if state in owned:
            owned.remove(state)
        if not owned:
            self._owned.pop(state.owner, None)

    def _waiters(self, state: PiState) -> list[Waiter]:
        return [waiter for waiter in self._futexes.at(state.key) if waiter.state is state]

    def _lend(self, owner: Task) -> None:
        """Work out what priority the owner inherits, and the owner of what it waits for, and so on."""
        while True:
            heirs = [waiter.task for state in self._owned.get(owner, ()) for waiter in self._waiters(state)]
            inherited = max((max(heir.real_time, heir.inherited) for heir in heirs), default=0)
            if inherited == owner.inherited:
                return
            owner.inherited = inherited
            owner.kernel.scheduler.reprioritise(owner)
            wanted = self._wanted.get(owner)
            if wanted is None:
                return
            owner = wanted.owner


def ownership_of(futexes: Futexes) -> Ownership:
    """The table of `futexes`, made when first asked for."""
    if futexes.ownership is None:
        futexes.ownership = Ownership(futexes)
    return futexes.ownership


def acquire(
    futexes: Futexes, task: Task, space: AddressSpace, key: Key, address: int, *, others: bool = False
) -> PiState | None:
    """Take the lock for `task` (kernel: futex_lock_pi_atomic): None when it has it, else the state to wait with.

    `others`: somebody will wait for it, so that unlocking must be a system call. Raises LinuxError: EDEADLK when
    the task has it, ESRCH for an owner that does not exist, EINVAL for a word that is not what it was left as, EFAULT.
    """
    word = read_word(space, address)
    number = word & TID_MASK
    if number == own_tid(task):
        raise LinuxError(EDEADLK, "the task has the lock")
    first = futexes.first(key)
    if first is not None:
        return _joinable(first.state, word)
    if not number:
        write_word(space, address, word & OWNER_DIED | own_tid(task) | (WAITERS if others else 0))
        return None
    write_word(space, address, word | WAITERS)
    owner = task.kernel.tasks.get(pid_meant(task.process, number))
    if owner is None or owner.state == ENDED:
        raise LinuxError(ESRCH, f"the lock's owner {number} has ended, or never was")
    return ownership_of(futexes).new(key, owner)


def _joinable(state: PiState | None, word: int) -> PiState:
    """The state of the others that wait, if the word agrees with it (kernel: attach_to_pi_state)."""
    if state is None:
        raise LinuxError(EINVAL, "others wait on the word, but not for a lock")
    if word & TID_MASK != own_tid(state.owner):
        raise LinuxError(EINVAL, "the word does not name the lock's owner")
    return state


def release(futexes: Futexes, task: Task, key: Key, address: int) -> None:
    """Unlock; the first waiter has the lock then. Raises LinuxError: EPERM for who does not have it, EINVAL, EFAULT."""
    space = task.process.space
    if read_word(space, address) & TID_MASK != own_tid(task):
        raise LinuxError(EPERM, "somebody else has the lock")
    first = futexes.first(key)
    if first is None:
        write_word(space, address, 0)
        return
    if first.state is None or first.state.owner is not task:
        raise LinuxError(EINVAL, "the word does not name the lock's owner")
    ownership_of(futexes).hand_over(first.state, space, address)
