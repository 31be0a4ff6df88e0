"""futex(2) on locks with priority inheritance, and on condition variables that belong to one (kernel/futex/requeue.c).

What the lock's word means, and who owns it, is in `linux.pi_futexes`.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ETIMEDOUT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.futexes import (
    CMP_REQUEUE_PI,
    MATCH_ANY,
    TRYLOCK_PI,
    UNLOCK_PI,
    WAIT_REQUEUE_PI,
    Waiter,
    futexes_of,
    key_of,
    read_word,
)
from loadstone.linux.pi_futexes import acquire, ownership_of, release
from loadstone.linux.signal.restart import ERESTARTNOINTR, Restart
from loadstone.linux.structs import signed
from loadstone.wait import TIMED_OUT, Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.futexes import Futexes, Key
    from loadstone.linux.pi_futexes import PiState
    from loadstone.wait import Blocking


def command(
    task: Task,
    number: int,
    address: int,
    value: int,
    moves: int,
    lock: int,
    expected: int,
    deadline: int | None,
    shared: bool,
) -> int | Blocking:
    """One of the commands of FUTEX_LOCK_PI and its relatives; arguments as futex(2) has them."""
    if number == UNLOCK_PI:
        release(futexes_of(task), task, key_of(task.process.space, address, shared=shared), address)
        return 0
    if number == WAIT_REQUEUE_PI:
        return _wait_requeue(task, address, value, lock, deadline, shared)
    if number == CMP_REQUEUE_PI:
        return _requeue(task, address, lock, signed(value), signed(moves), expected, shared)
    return _lock(task, address, deadline, shared, tries=number == TRYLOCK_PI)


def _lock(task: Task, address: int, deadline: int | None, shared: bool, *, tries: bool) -> int | Blocking:
    space, futexes = task.process.space, futexes_of(task)
    key = key_of(space, address, shared=shared)
    state = acquire(futexes, task, space, key, address)
    if state is None:
        return 0
    if tries:
        ownership_of(futexes).forget_idle(state)
        raise LinuxError(EAGAIN, "somebody has the lock")
    return _wait_for_lock(Waiter(task, key, address), state, futexes, deadline)


def _wait_for_lock(waiter: Waiter, state: PiState, futexes: Futexes, deadline: int | None) -> Blocking:
    ownership = ownership_of(futexes)
    try:
        ownership.check(waiter.task, state)
    except LinuxError:
        ownership.forget_idle(state)
        raise
    ownership.join(waiter, state)
    try:
        reason = yield Wait((waiter.queue,), deadline)
    except Interrupted:
        if waiter.woken:
            return 0
        raise Restart(ERESTARTNOINTR) from None
    finally:
        ownership.leave(waiter)
    if reason == TIMED_OUT and not waiter.woken:
        raise LinuxError(ETIMEDOUT)
    return 0


def _wait_requeue(task: Task, address: int, value: int, lock: int, deadline: int | None, shared: bool) -> Blocking:
    """Wait on a word until moved to the lock by FUTEX_CMP_REQUEUE_PI, then for the lock; 0 with the lock taken."""
    if address == lock:
        raise LinuxError(EINVAL, "the condition and the lock are the same word")
    space, futexes = task.process.space, futexes_of(task)
    target = key_of(space, lock, shared=shared)
    key = key_of(space, address, shared=shared)
    if read_word(space, address) != value:
        raise LinuxError(EAGAIN, "the word has changed")
    if key == target:
        raise LinuxError(EINVAL, "the condition and the lock are the same word")
    waiter = Waiter(task, key, address, target=(target, lock))
    futexes.add(waiter)
    try:
        reason = yield Wait((waiter.queue,), deadline)
    except Interrupted:
        if waiter.woken:
            return 0
        if waiter.state is not None:  # the condition's word is another by now: no use in running the call again
            raise LinuxError(EAGAIN, "interrupted while waiting for the lock") from None
        raise Restart(ERESTARTNOINTR) from None
    finally:
        ownership_of(futexes).leave(waiter)
    if reason == TIMED_OUT and not waiter.woken:
        raise LinuxError(ETIMEDOUT)
    return 0


def _requeue(task: Task, address: int, lock: int, wakes: int, moves: int, expected: int, shared: bool) -> int:
    """Give the lock to the first waiter if it is free, and let it and `moves` others wait for it; how many in all."""
    if wakes < 0 or moves < 0 or address == lock or wakes != 1:
        raise LinuxError(EINVAL)
    space, futexes = task.process.space, futexes_of(task)
    source, target = key_of(space, address, shared=shared), key_of(space, lock, shared=shared)
    if source == target:
        raise LinuxError(EINVAL, "the condition and the lock are the same word")
    if read_word(space, address) != expected:
        raise LinuxError(EAGAIN, "the word has changed")
    waiters = futexes.at(source)
    if not waiters:
        return 0
    _check(waiters[0], target)
    state = acquire(futexes, waiters[0].task, space, target, lock, others=moves > 0)
    done = 0
    if state is None:
        futexes.remove(waiters[0])
        waiters[0].wake()
        done = 1
        if not moves:
            return done
        state = ownership_of(futexes).new(target, waiters[0].task)
    try:
        for waiter in waiters[done : moves + 1]:
            _check(waiter, target)
            ownership_of(futexes).check(waiter.task, state)
            _move(futexes, waiter, state)
            done += 1
    finally:
        ownership_of(futexes).forget_idle(state)
    return done


def _check(waiter: Waiter, target: Key) -> None:
    """Who is moved must have asked for it, to this very lock."""
    if waiter.target is None or waiter.state is not None or waiter.target[0] != target:
        raise LinuxError(EINVAL, "a waiter that did not ask to be moved to this lock")


def _move(futexes: Futexes, waiter: Waiter, state: PiState) -> None:
    assert waiter.target is not None
    futexes.remove(waiter)
    waiter.key, waiter.address = waiter.target
    waiter.bitset = MATCH_ANY
    ownership_of(futexes).join(waiter, state)
