"""System calls on System V semaphores (ipc/sem.c)."""

from __future__ import annotations

from array import array
from errno import E2BIG, EAGAIN, EFBIG, EINTR, EINVAL, ERANGE
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.ipc.ids import IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, MAY_READ, MAY_WRITE, PERMISSIONS
from loadstone.linux.ipc.objects import ipc_of
from loadstone.linux.ipc.sem_undo import undo_list_of
from loadstone.linux.ipc.semaphores import SEM_UNDO, SEMAEM, SEMVMX, Operation, SemaphoreSet, Step
from loadstone.linux.of_task import pid_seen
from loadstone.linux.structs import signed
from loadstone.linux.syscalls.registry import FULL, syscall
from loadstone.linux.syscalls.transfer import read_time
from loadstone.memory.user import copy_in, copy_out
from loadstone.wait import Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Int, UHex, UInt, ULong
    from loadstone.wait import Blocking

# include/uapi/linux/sem.h
GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL, SEM_STAT, SEM_INFO, SEM_STAT_ANY = range(11, 21)
_SEMUSZ = 20  # the size of an undo structure, long ago

_STEP = Struct("<Hhh")  # struct sembuf
_REST = Struct("<q8xq8xQ16x")  # of a struct semid64_ds after the permissions: otime, ctime, nsems
_LIMITS = Struct("<10i")  # struct seminfo


@syscall(FULL)
def semget(task: Task, key: Int, count: Int, flags: UHex) -> int:
    """semget(2)."""
    return ipc_of(task).semaphores.named(task.process.credentials, key, count, flags).permissions.number


@syscall(FULL)
def semop(task: Task, number: Int, steps: Address, count: UInt) -> int | Blocking:
    """semop(2)."""
    return _operate(task, number, steps, count, None)


@syscall(FULL)
def semtimedop(task: Task, number: Int, steps: Address, count: UInt, timeout: Address) -> int | Blocking:
    """semtimedop(2): as semop, for a limited time."""
    return _operate(task, number, steps, count, read_time(task, timeout) if timeout else None)


def _operate(task: Task, number: int, address: int, count: int, timeout_ns: int | None) -> int | Blocking:
    """Do all steps at once, now or when it is possible (do_semtimedop)."""
    sets = ipc_of(task).semaphores
    if count > sets.most_steps:
        raise LinuxError(E2BIG, f"{count} operations are more than {sets.most_steps}")
    if count < 1:
        raise LinuxError(EINVAL, "no operations")
    raw = copy_in(task.process.space, address, count * _STEP.size)
    semaphores = sets.find(number)
    steps = [Step(*fields) for fields in _STEP.iter_unpack(raw)]
    if max(step.number for step in steps) >= len(semaphores):
        raise LinuxError(EFBIG, f"the set has {len(semaphores)} semaphores")
    undo = undo_list_of(task) if any(step.flags & SEM_UNDO for step in steps) else None
    operation = Operation(steps, task.process.pid, undo)
    semaphores.permissions.demand(task.process.credentials, MAY_WRITE if operation.alters else MAY_READ)
    if semaphores.operate(operation):
        return 0
    deadline = None if timeout_ns is None else task.kernel.clock.monotonic_ns() + timeout_ns
    return _wait(semaphores, operation, deadline)


def _wait(semaphores: SemaphoreSet, operation: Operation, deadline: int | None) -> Blocking:
    """Wait until others have made it possible. A signal ends it for good: this call is never made again."""
    queue = semaphores.wait_for(operation)
    try:
        yield Wait((queue,), deadline)
    except Interrupted:
        if operation.status is None:
            raise LinuxError(EINTR) from None
    finally:
        semaphores.give_up(operation)
    if operation.status is None:
        raise LinuxError(EAGAIN, "the time is up")
    if operation.status:
        raise LinuxError(operation.status)
    return 0


@syscall(FULL)
def semctl(task: Task, number: Int, semaphore: Int, command: Int, argument: ULong) -> int:
    """semctl(2). `argument`: a value for SETVAL, else an address."""
    if number < 0:
        raise LinuxError(EINVAL)
    if command in (IPC_INFO, SEM_INFO):
        return _tell_limits(task, command, argument)
    if command in (IPC_STAT, SEM_STAT, SEM_STAT_ANY):
        return _tell(task, number, command, argument)
    if command in (IPC_SET, IPC_RMID):
        return _change(task, number, command, argument)
    if command == SETVAL:
        return _set_value(task, number, semaphore, signed(argument))
    if command in (GETALL, SETALL):
        return _all(task, number, command, argument)
    if command in (GETPID, GETVAL, GETNCNT, GETZCNT):
        return _get(task, number, semaphore, command)
    raise LinuxError(EINVAL, f"no such command: {command}")


def _tell_limits(task: Task, command: int, buffer: int) -> int:
    """The struct seminfo, and the highest index in use."""
    sets = ipc_of(task).semaphores
    counts = (len(sets), sets.used) if command == SEM_INFO else (_SEMUSZ, SEMAEM)
    in_all = sets.most_in_all
    limits = _LIMITS.pack(
        in_all, sets.most, in_all, in_all, sets.most_in_set, sets.most_steps, sets.most_steps, counts[0], SEMVMX,
        counts[1],
    )  # fmt: skip
    copy_out(task.process.space, buffer, limits)
    return sets.highest


def _tell(task: Task, number: int, command: int, buffer: int) -> int:
    """The struct semid64_ds of a set; the two commands that go by the index return its identifier."""
    sets = ipc_of(task).semaphores
    found = sets.find(number) if command == IPC_STAT else sets.at(number)
    if command != SEM_STAT_ANY:
        found.permissions.demand(task.process.credentials, MAY_READ)
    description = found.permissions.packed(task.process.credentials) + _REST.pack(
        found.operated_s, found.changed_s, len(found)
    )
    copy_out(task.process.space, buffer, description)
    return 0 if command == IPC_STAT else found.permissions.number


def _change(task: Task, number: int, command: int, buffer: int) -> int:
    """IPC_SET and IPC_RMID: the owner's, the creator's and root's."""
    whole = PERMISSIONS.size + _REST.size
    given = copy_in(task.process.space, buffer, whole) if command == IPC_SET else b""
    namespace = ipc_of(task)
    found = namespace.semaphores.find(number)
    found.permissions.demand_owner(task.process.credentials)
    if command == IPC_RMID:
        namespace.semaphores.discard(found)
    else:
        found.permissions.update(given, task.process.credentials)
        found.changed_s = namespace.now_s()
    return 0


def _set_value(task: Task, number: int, semaphore: int, value: int) -> int:
    if not 0 <= value <= SEMVMX:
        raise LinuxError(ERANGE, f"a semaphore cannot be {value}")
    found = ipc_of(task).semaphores.find(number)
    _demand_semaphore(found, semaphore)
    found.permissions.demand(task.process.credentials, MAY_WRITE)
    found.set({semaphore: value}, task.process.pid)
    return 0


def _all(task: Task, number: int, command: int, buffer: int) -> int:
    """GETALL and SETALL: an array of unsigned shorts."""
    found = ipc_of(task).semaphores.find(number)
    found.permissions.demand(task.process.credentials, MAY_READ if command == GETALL else MAY_WRITE)
    space = task.process.space
    if command == GETALL:
        copy_out(space, buffer, found.values.tobytes())
        return 0
    values = array("H", copy_in(space, buffer, 2 * len(found)))
    if max(values) > SEMVMX:
        raise LinuxError(ERANGE, f"a semaphore cannot be {max(values)}")
    found.set(dict(enumerate(values)), task.process.pid)
    return 0


def _get(task: Task, number: int, semaphore: int, command: int) -> int:
    """What there is to know about one semaphore."""
    found = ipc_of(task).semaphores.find(number)
    found.permissions.demand(task.process.credentials, MAY_READ)
    _demand_semaphore(found, semaphore)
    if command == GETVAL:
        return found.values[semaphore]
    if command == GETPID:
        return pid_seen(task.process, found.pids[semaphore])
    return sum(one.waits_on(semaphore, for_zero=command == GETZCNT) for one in found.waiting)


def _demand_semaphore(found: SemaphoreSet, number: int) -> None:
    if not 0 <= number < len(found):
        raise LinuxError(EINVAL, f"the set has {len(found)} semaphores")
