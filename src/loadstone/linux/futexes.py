"""Who waits on which word of user memory (kernel/futex/core.c, waitwake.c). One object for the whole machine.

System calls run one at a time here, so that what the kernel guards with hash-bucket locks needs none.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import linux_of
from loadstone.memory.fault import populate_page
from loadstone.memory.user import copy_in, copy_out
from loadstone.memory.vma import MAYSHARE, READ, WRITE
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.pi_futexes import Ownership, PiState
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.vma import Vma

Key = tuple[object, int]
"""A private futex: address space and address. A shared one: the mapped file and the offset in it."""

# include/uapi/linux/futex.h
WAIT, WAKE, _FD, REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI, WAIT_BITSET, WAKE_BITSET = range(11)
WAIT_REQUEUE_PI, CMP_REQUEUE_PI, LOCK_PI2 = 11, 12, 13
PRIVATE, CLOCK_REALTIME = 128, 256
MATCH_ANY = 0xFFFF_FFFF  # FUTEX_BITSET_MATCH_ANY


class Waiter:
    """One task that waits on one word.

    Attributes:
        key, address: the word. bitset: which wakes it listens to.
        queue: what its task waits in; several waiters of one task (futex_waitv) share it.
        woken: it was taken off the list by a wake; for a lock, it has the lock now.
        state: of the priority-inheritance futex that it waits for, else None.
        target: (key, address) of the priority-inheritance futex that it wants to be moved to, else None.
    """

    __slots__ = ("address", "bitset", "key", "queue", "state", "target", "task", "woken")

    def __init__(
        self,
        task: Task,
        key: Key,
        address: int,
        bitset: int = MATCH_ANY,
        *,
        target: tuple[Key, int] | None = None,
        queue: WaitQueue | None = None,
    ) -> None:
        self.task = task
        self.key = key
        self.address = address
        self.bitset = bitset
        self.queue = queue if queue is not None else WaitQueue(f"futex {address:#x}")
        self.woken = False
        self.state: PiState | None = None
        self.target = target

    @property
    def wants_lock(self) -> bool:
        """Whether it waits for a lock, or to be moved to one: a plain wake is not for it."""
        return self.state is not None or self.target is not None

    def wake(self) -> None:
        """Its task goes on."""
        self.woken = True
        self.task.kernel.scheduler.wake(self.queue.wake())


class Futexes:
    """The waiters of all words: on each word real-time tasks first, by priority, then in the order in which they came.

    `ownership`: who holds the priority-inheritance futexes that somebody waits for; None until there was one.
    """

    __slots__ = ("_waiters", "ownership")

    def __init__(self) -> None:
        self._waiters: dict[Key, list[Waiter]] = {}
        self.ownership: Ownership | None = None

    def add(self, waiter: Waiter) -> None:
        """Begin to wait."""
        waiters = self._waiters.setdefault(waiter.key, [])
        priority = waiter.task.real_time
        at = len(waiters)
        while at and waiters[at - 1].task.real_time < priority:
            at -= 1
        waiters.insert(at, waiter)

    def remove(self, waiter: Waiter) -> None:
        """Wait no longer; nothing happens if it was woken already."""
        waiters = self._waiters.get(waiter.key)
        if waiters and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[waiter.key]

    def at(self, key: Key) -> tuple[Waiter, ...]:
        """Those who wait on a word, the first to be woken first."""
        return tuple(self._waiters.get(key, ()))

    def first(self, key: Key) -> Waiter | None:
        """The first of them."""
        waiters = self._waiters.get(key)
        return waiters[0] if waiters else None

    def wake(self, key: Key, count: int, bitset: int = MATCH_ANY) -> int:
        """Wake up to `count` waiters whose bits meet `bitset`; how many.

        Raises LinuxError(EINVAL) at one that waits for a lock; those before it are woken.
        """
        woken = 0
        for waiter in self.at(key):
            if woken >= count:
                break
            if waiter.wants_lock:
                raise LinuxError(EINVAL, "a lock with priority inheritance is not woken, but unlocked")
            if waiter.bitset & bitset:
                self.remove(waiter)
                waiter.wake()
                woken += 1
        return woken

    def move(self, key: Key, target: Key, count: int) -> int:
        """Let up to `count` waiters wait on another word; how many. EINVAL at one that waits for a lock."""
        waiters = self.at(key)[:count]
        for moved, waiter in enumerate(waiters):
            if waiter.wants_lock:
                if moved:
                    return moved
                raise LinuxError(EINVAL, "a waiter for a lock with priority inheritance is moved otherwise")
            self.remove(waiter)
            waiter.key = target
            self.add(waiter)
        return len(waiters)


def futexes_of(task: Task) -> Futexes:
    """The machine's."""
    return linux_of(task).calls.futexes


def key_of(space: AddressSpace, address: int, *, shared: bool) -> Key:
    """What identifies the word. Raises LinuxError: EINVAL when it is not aligned, EFAULT when there is none."""
    if address & 3:
        raise LinuxError(EINVAL, f"the futex {address:#x} is not aligned")
    if address >= space.layout.task_size:
        raise LinuxError(EFAULT, f"{address:#x} is not an address of the program")
    if shared:
        vma = space.find(address)
        if vma is None or not _has_word(space, vma, address):
            raise LinuxError(EFAULT, f"{address:#x} is no word that anybody could change")
        if vma.flags & MAYSHARE:
            return vma.backing, address - vma.start + vma.offset
    return space, address


def _has_word(space: AddressSpace, vma: Vma, address: int) -> bool:
    """Whether the page can be brought in, and is not private memory that is only read (kernel: get_futex_key)."""
    access = vma.flags & WRITE or vma.flags & READ
    if not access or (access == READ and vma.backing is None):
        return False
    return populate_page(space, address, access) is None


def wake(task: Task, address: int, count: int, bitset: int = MATCH_ANY, *, shared: bool) -> int:
    """FUTEX_WAKE on the word at `address` of the task's memory: how many were woken, at least one if one waits.

    Raises LinuxError: EINVAL, EFAULT.
    """
    if not bitset:
        raise LinuxError(EINVAL, "an empty bitset")
    return futexes_of(task).wake(key_of(task.process.space, address, shared=shared), max(count, 1), bitset)


def read_word(space: AddressSpace, address: int) -> int:
    """The word of a futex; EFAULT."""
    return int.from_bytes(copy_in(space, address, 4), "little")


def write_word(space: AddressSpace, address: int, value: int) -> None:
    """Set it; EFAULT."""
    copy_out(space, address, value.to_bytes(4, "little"))
