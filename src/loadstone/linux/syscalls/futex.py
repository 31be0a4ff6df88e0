"""futex(2): waiting on a word of user memory (kernel/futex/). Locks with priority inheritance are in futex_pi.py."""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ETIMEDOUT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.futexes import (
    CLOCK_REALTIME,
    CMP_REQUEUE,
    CMP_REQUEUE_PI,
    LOCK_PI,
    LOCK_PI2,
    MATCH_ANY,
    PRIVATE,
    REQUEUE,
    TRYLOCK_PI,
    UNLOCK_PI,
    WAIT,
    WAIT_BITSET,
    WAIT_REQUEUE_PI,
    WAKE,
    WAKE_BITSET,
    WAKE_OP,
    Waiter,
    futexes_of,
    key_of,
    read_word,
    wake,
    write_word,
)
from loadstone.linux.of_task import monotonic_ahead
from loadstone.linux.refusals import AbsentError
from loadstone.linux.signal.restart import ERESTART_RESTARTBLOCK, ERESTARTSYS, Restart
from loadstone.linux.structs import signed
from loadstone.linux.syscalls.registry import FULL, syscall
from loadstone.linux.syscalls.transfer import read_time
from loadstone.wait import TIMED_OUT, Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, FutexOp, UHex, UInt
    from loadstone.wait import Blocking

_KNOW_REALTIME = (WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2)
_TIMED = (WAIT, LOCK_PI, LOCK_PI2, WAIT_BITSET, WAIT_REQUEUE_PI)
_WITH_OWNERS = (LOCK_PI, UNLOCK_PI, TRYLOCK_PI, WAIT_REQUEUE_PI, CMP_REQUEUE_PI, LOCK_PI2)


@syscall(FULL)
def futex(
    task: Task, address: Address, op: FutexOp, value: UInt, timeout: Address, address2: Address, value3: UHex
) -> int | Blocking:
    """futex(2)."""
    command, shared = op & ~(PRIVATE | CLOCK_REALTIME), not op & PRIVATE
    deadline = _deadline(task, op, timeout) if timeout and command in _TIMED else None
    if op & CLOCK_REALTIME and command not in _KNOW_REALTIME:
        raise AbsentError("FUTEX_CLOCK_REALTIME for this command")
    if command == WAIT:
        return wait_on(task, address, value, deadline, MATCH_ANY, shared=shared)
    if command == WAIT_BITSET:
        return wait_on(task, address, value, deadline, value3, shared=shared)
    if command in (WAKE, WAKE_BITSET):
        return wake(task, address, signed(value), MATCH_ANY if command == WAKE else value3, shared=shared)
    second = timeout & 0xFFFF_FFFF  # the fourth argument is a count to these, not a pointer
    if command in (REQUEUE, CMP_REQUEUE):
        expected = value3 if command == CMP_REQUEUE else None
        return requeue(task, (address, shared), (address2, shared), signed(value), signed(second), expected)
    if command == WAKE_OP:
        return _wake_op(task, address, address2, signed(value), signed(second), value3, shared=shared)
    if command in _WITH_OWNERS:
        from loadstone.linux.syscalls import futex_pi

        return futex_pi.command(task, command, address, value, second, address2, value3, deadline, shared)
    raise AbsentError(f"futex command {command}")


def _deadline(task: Task, op: int, timeout: int) -> int:
    """When a wait is over, by CLOCK_MONOTONIC. FUTEX_WAIT counts from now; the others have a time of a clock."""
    time = read_time(task, timeout)
    clock = task.kernel.clock
    command = op & ~(PRIVATE | CLOCK_REALTIME)
    if command == WAIT:
        return clock.monotonic_ns() + time
    if op & CLOCK_REALTIME or command == LOCK_PI:
        return clock.monotonic_ns() + time - clock.realtime_ns()
    return time - monotonic_ahead(task)


def wait_on(task: Task, address: int, value: int, deadline: int | None, bitset: int, *, shared: bool) -> Blocking:
    """Wait while the word is `value`, until woken; EAGAIN when it is not, ETIMEDOUT."""
    if not bitset:
        raise LinuxError(EINVAL, "an empty bitset")
    space = task.process.space
    key = key_of(space, address, shared=shared)
    found = read_word(space, address)
    if found != value:
        raise LinuxError(EAGAIN, f"the word is {found:#x}")
    futexes = futexes_of(task)
    waiter = Waiter(task, key, address, bitset)
    futexes.add(waiter)
    try:
        reason = yield Wait((waiter.queue,), deadline)
    except Interrupted:
        if waiter.woken:
            return 0
        if deadline is None:
            raise Restart(ERESTARTSYS) from None
        again = lambda task: wait_on(task, address, value, deadline, bitset, shared=shared)  # noqa: E731
        raise Restart(ERESTART_RESTARTBLOCK, again) from None
    finally:
        futexes.remove(waiter)
    if reason == TIMED_OUT and not waiter.woken:
        raise LinuxError(ETIMEDOUT)
    return 0


def requeue(
    task: Task, source: tuple[int, bool], target: tuple[int, bool], wakes: int, moves: int, expected: int | None
) -> int:
    """Wake `wakes` waiters of one word and let `moves` more wait on another. Words: (address, shared).

    How many were woken, and with `expected` also moved. EAGAIN when the first word is not `expected`.
    """
    if wakes < 0 or moves < 0:
        raise LinuxError(EINVAL, "a negative number of waiters")
    space = task.process.space
    source_key, target_key = key_of(space, source[0], shared=source[1]), key_of(space, target[0], shared=target[1])
    if expected is not None and read_word(space, source[0]) != expected:
        raise LinuxError(EAGAIN, "the word has changed")
    futexes = futexes_of(task)
    return futexes.wake(source_key, wakes) + futexes.move(source_key, target_key, moves)


def _wake_op(task: Task, address: int, second: int, count: int, count2: int, code: int, *, shared: bool) -> int:
    """Change the second word, wake on the first, and on the second if its old value meets the comparison."""
    space = task.process.space
    first_key, second_key = key_of(space, address, shared=shared), key_of(space, second, shared=shared)
    operation, comparison = code >> 28 & 0xF, code >> 24 & 0xF
    operand, against = _signed12(code >> 12 & 0xFFF), _signed12(code & 0xFFF)
    if operation & 8:
        operation &= 7
        operand = 1 << (operand & 31)
    old = read_word(space, second)
    results = (operand, old + operand, old | operand, old & ~operand, old ^ operand)
    if operation >= len(results):
        raise AbsentError(f"FUTEX_OP {operation}")
    write_word(space, second, results[operation] & 0xFFFF_FFFF)
    futexes = futexes_of(task)
    woken = futexes.wake(first_key, max(count, 1))
    before = signed(old)
    verdicts = (
        before == against,
        before != against,
        before < against,
        before <= against,
        before > against,
        before >= against,
    )
    if comparison >= len(verdicts):
        raise AbsentError(f"FUTEX_OP_CMP {comparison}")
    if verdicts[comparison]:
        woken += futexes.wake(second_key, max(count2, 1))
    return woken


def _signed12(value: int) -> int:
    return (value ^ 0x800) - 0x800
