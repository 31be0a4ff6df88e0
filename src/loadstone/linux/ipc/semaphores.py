"""System V semaphores: the sets of an IPC namespace, and who waits for them (ipc/sem.c).

System calls run one at a time here, so that what the kernel guards with a lock for each semaphore needs none.
"""

from __future__ import annotations

from array import array
from errno import EAGAIN, EIDRM, EINVAL, ENOSPC, ERANGE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.ipc.ids import IPC_NOWAIT, Permissions, Table
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadstone.kernel.process import Credentials
    from loadstone.linux.ipc.objects import IpcObjects
    from loadstone.linux.ipc.sem_undo import UndoList

# include/uapi/linux/sem.h
SEM_UNDO = 0x1000
SEMMNI, SEMMSL, SEMOPM = 32000, 32000, 500
SEMMNS = SEMMNI * SEMMSL
SEMVMX = SEMAEM = 32767

_SEMAPHORE_BYTES = 64  # struct sem, on a cache line of its own


class Step(NamedTuple):
    """A struct sembuf: add `change` to semaphore `number`, or with 0 wait until it is 0."""

    number: int
    change: int
    flags: int


class Operation:
    """What one semop(2) asks for: all of its steps or none.

    Attributes:
        undo: where steps with SEM_UNDO are noted; None if there are none.
        alters: whether a step changes a semaphore.
        blocking: the first step that cannot be done, once it was tried in vain.
        status: 0 when it was done while its task waited, or why it cannot be; None while it waits.
        queue: what its task waits in, once it waits.
    """

    __slots__ = ("alters", "blocking", "pid", "queue", "status", "steps", "undo")

    def __init__(self, steps: Sequence[Step], pid: int, undo: UndoList | None) -> None:
        self.steps = steps
        self.pid = pid
        self.undo = undo
        self.alters = any(step.change for step in steps)
        self.blocking: Step | None = None
        self.status: int | None = None
        self.queue: WaitQueue | None = None

    def waits_on(self, number: int, *, for_zero: bool) -> bool:
        """Whether GETZCNT, or else GETNCNT, counts it: only where it cannot go on (count_semcnt)."""
        step = self.blocking
        return step is not None and step.number == number and (step.change == 0) == for_zero


class SemaphoreSet:
    """A set of semaphores.

    Attributes:
        values: of the semaphores; pids: who changed each last, 0 for nobody.
        operated_s, changed_s: when semop was last successful, and semctl last changed something; seconds since 1970.
        waiting: the operations of those who wait, in the order in which they came.
        undone_by: the undo lists that have an entry for it.
    """

    __slots__ = ("_around", "changed_s", "operated_s", "permissions", "pids", "undone_by", "values", "waiting")

    def __init__(self, around: IpcObjects, permissions: Permissions, count: int) -> None:
        self._around = around
        self.permissions = permissions
        self.values = array("H", bytes(2 * count))
        self.pids = array("i", bytes(4 * count))
        self.operated_s = 0
        self.changed_s = around.now_s()
        self.waiting: list[Operation] = []
        self.undone_by: list[UndoList] = []

    def __len__(self) -> int:
        return len(self.values)

    def operate(self, operation: Operation) -> bool:
        """Carry out an operation if that is possible now, and what others wait for then; whether it was.

        Raises LinuxError: EAGAIN for one that must not wait, ERANGE.
        """
        if not self._attempt(operation):
            return False
        self.operated_s = self._around.now_s()
        if operation.alters and self.waiting:
            self._complete_others()
        return True

    def set(self, changes: Mapping[int, int], pid: int) -> None:
        """Give semaphores new values (SETVAL, SETALL); nothing that was done to them before is undone any more."""
        for number, value in changes.items():
            self.values[number] = value
            self.pids[number] = pid
        for undo in self.undone_by:
            adjustments = undo.changes[self]
            for number in changes:
                adjustments.pop(number, None)
        self.changed_s = self._around.now_s()
        if self._complete_others():
            self.operated_s = self._around.now_s()

    def undo(self, changes: Mapping[int, int], pid: int) -> None:
        """Take back what a task that ends has done with SEM_UNDO, as far as the values allow it (exit_sem)."""
        for number, change in changes.items():
            if change:
                self.values[number] = min(max(self.values[number] + change, 0), SEMVMX)
                self.pids[number] = pid
        self.operated_s = self._around.now_s()
        self._complete_others()

    def wait_for(self, operation: Operation) -> WaitQueue:
        """Let an operation wait until it is possible, in what is returned; its `status` tells."""
        step = operation.blocking
        assert step is not None
        wanted = "to be 0" if not step.change else f"to reach {-step.change}"
        queue = operation.queue = WaitQueue(f"semaphore {step.number} of set {self.permissions.number} {wanted}")
        self.waiting.append(operation)
        return queue

    def give_up(self, operation: Operation) -> None:
        """It waits no longer; nothing happens if it was ended already."""
        if operation in self.waiting:
            self.waiting.remove(operation)

    def remove(self) -> None:
        """The set is gone: who waits gets EIDRM, nothing is undone."""
        for undo in self.undone_by:
            del undo.changes[self]
        self.undone_by.clear()
        for operation in tuple(self.waiting):
            self._end(operation, EIDRM)

    def _attempt(self, operation: Operation) -> bool:
        """Carry out all steps, or none (perform_atomic_semop)."""
        undo = operation.undo.of(self) if operation.undo is not None else {}
        values: dict[int, int] = {}
        changes: dict[int, int] = {}
        for step in operation.steps:
            number, change, flags = step
            value = values.get(number, self.values[number])
            if value + change < 0 or (not change and value):
                operation.blocking = step
                if flags & IPC_NOWAIT:
                    raise LinuxError(EAGAIN)
                return False
            if value + change > SEMVMX:
                raise LinuxError(ERANGE, f"semaphore {number} would be {value + change}")
            if flags & SEM_UNDO:
                adjustment = changes.get(number, undo.get(number, 0)) - change
                if not -SEMAEM - 1 <= adjustment <= SEMAEM:
                    raise LinuxError(ERANGE, f"{adjustment} would have to be undone")
                changes[number] = adjustment
            values[number] = value + change
        undo.update(changes)
        for number, value in values.items():
            self.values[number] = value
            self.pids[number] = operation.pid
        return True

    def _complete_others(self) -> bool:
        """Carry out what others wait for, as far as it is possible now; whether anything was (do_smart_update).

        Those who wait for 0 come first, then the others in their order. Behind one with several steps all are looked
        at again: an older one may be possible now.
        """
        done = self._complete_constant()
        again = True
        while again:
            again = False
            for operation in [one for one in self.waiting if one.alters]:
                if not self._try_waiting(operation):
                    continue
                done = True
                self._complete_constant()
                if any(len(one.steps) > 1 for one in (operation, *self.waiting)):
                    again = True
                    break
        return done

    def _complete_constant(self) -> bool:
        """Carry out what only looks at semaphores; whether anything was."""
        done = False
        for operation in [one for one in self.waiting if not one.alters]:
            done |= self._try_waiting(operation)
        return done

    def _try_waiting(self, operation: Operation) -> bool:
        """Carry out what somebody waits for, if that is possible; whether it was. An error ends it too."""
        try:
            if not self._attempt(operation):
                return False
        except LinuxError as error:
            self._end(operation, error.errno)
            return False
        self._end(operation, 0)
        return True

    def _end(self, operation: Operation, status: int) -> None:
        operation.status = status
        self.waiting.remove(operation)
        assert operation.queue is not None
        self._around.wake(operation.queue.wake())


class SemaphoreSets(Table[SemaphoreSet]):
    """All sets of a namespace.

    Attributes:
        most_in_set, most_in_all, most_steps: SEMMSL, SEMMNS and SEMOPM of kernel.sem; SEMMNI is `most`.
        used: semaphores in all sets.
    """

    def __init__(self, around: IpcObjects) -> None:
        super().__init__("semaphore set", SEMMNI)
        self._around = around
        self.most_in_set, self.most_in_all, self.most_steps = SEMMSL, SEMMNS, SEMOPM
        self.used = 0

    def named(self, who: Credentials, key: int, count: int, flags: int) -> SemaphoreSet:
        """The set called `key`, made if IPC_CREAT asks for that (semget)."""
        if not 0 <= count <= self.most_in_set:
            raise LinuxError(EINVAL, f"a set of {count} semaphores")

        def check(found: SemaphoreSet) -> None:
            if count > len(found):
                raise LinuxError(EINVAL, f"the set has {len(found)} semaphores, not {count}")

        return self.get(
            who, key, flags, lambda: self._make(Permissions(who, self._around.users, key, flags), count), check
        )

    def discard(self, gone: SemaphoreSet) -> None:
        """IPC_RMID."""
        self.remove(gone)
        gone.remove()
        self.used -= len(gone)
        self._around.give_back(_SEMAPHORE_BYTES * len(gone))

    def _make(self, permissions: Permissions, count: int) -> SemaphoreSet:
        if not count:
            raise LinuxError(EINVAL, "a set of no semaphores")
        if self.used + count > self.most_in_all:
            raise LinuxError(ENOSPC, f"all sets together may have {self.most_in_all} semaphores")
        self.demand_room()
        self._around.keep(_SEMAPHORE_BYTES * count)
        self.used += count
        return SemaphoreSet(self._around, permissions, count)
