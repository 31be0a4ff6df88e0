"""The calls that take futex(2) apart, and the wait on several words (kernel/futex/syscalls.c, since 5.16 and 6.7)."""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ETIMEDOUT
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.futexes import PRIVATE, Waiter, futexes_of, key_of, read_word
from loadstone.linux.futexes import wake as wake_up
from loadstone.linux.of_task import monotonic_ahead
from loadstone.linux.signal.restart import ERESTARTSYS, Restart
from loadstone.linux.syscalls.futex import requeue, wait_on
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.time import MONOTONIC, REALTIME
from loadstone.linux.syscalls.transfer import read_time
from loadstone.memory.user import copy_in
from loadstone.wait import TIMED_OUT, Interrupted, Wait, WaitQueue

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, ClockId, Hex, Int, UHex, UInt
    from loadstone.wait import Blocking

_WAITV = Struct("<QQII")  # struct futex_waitv: value, address, flags, reserved
_MOST_WORDS = 128  # FUTEX_WAITV_MAX
_SIZE_MASK, _SIZE_32 = 3, 2
_KNOWN = _SIZE_MASK | PRIVATE
_NO_NUMA = "words of 32 bits; FUTEX2_NUMA and FUTEX2_MPOL are EINVAL"


class _Word(NamedTuple):
    value: int
    address: int
    shared: bool


@syscall(PARTIAL, _NO_NUMA)
def futex_waitv(task: Task, words: Address, count: UInt, flags: UInt, timeout: Address, clock: ClockId) -> Blocking:
    """Wait until one of several words is woken; which one (the last of them, if several were)."""
    if flags or not 0 < count <= _MOST_WORDS or not words:
        raise LinuxError(EINVAL)
    deadline = _deadline(task, timeout, clock)
    return _wait(task, _read_words(task, words, count), deadline)


def _read_words(task: Task, address: int, count: int) -> list[_Word]:
    rows = _WAITV.iter_unpack(copy_in(task.process.space, address, count * _WAITV.size))
    return [_word(*row) for row in rows]


def _word(value: int, address: int, flags: int, reserved: int) -> _Word:
    if reserved:
        raise LinuxError(EINVAL)
    return _Word(_narrow(value), address, _is_shared(flags))


def _is_shared(flags: int) -> bool:
    if flags & ~_KNOWN or flags & _SIZE_MASK != _SIZE_32:
        raise LinuxError(EINVAL, f"futex flags {flags:#x}")
    return not flags & PRIVATE


def _narrow(value: int) -> int:
    if value >> 32:
        raise LinuxError(EINVAL, f"{value:#x} does not fit into the word")
    return value


def _deadline(task: Task, timeout: int, clock: int) -> int | None:
    """An absolute time of one of the two clocks, by CLOCK_MONOTONIC."""
    if not timeout:
        return None
    if clock not in (REALTIME, MONOTONIC):
        raise LinuxError(EINVAL, f"clock {clock}")
    time, machine = read_time(task, timeout), task.kernel.clock
    if clock == MONOTONIC:
        return time - monotonic_ahead(task)
    return machine.monotonic_ns() + time - machine.realtime_ns()


def _wait(task: Task, words: list[_Word], deadline: int | None) -> Blocking:
    space, futexes = task.process.space, futexes_of(task)
    queue = WaitQueue(f"{len(words)} futexes")
    keys = [key_of(space, word.address, shared=word.shared) for word in words]
    waiters = [Waiter(task, key, word.address, queue=queue) for key, word in zip(keys, words, strict=True)]
    try:
        for word, waiter in zip(words, waiters, strict=True):
            if read_word(space, word.address) != word.value:
                raise LinuxError(EAGAIN, "a word has changed")
            futexes.add(waiter)
        reason = yield Wait((queue,), deadline)
    except Interrupted:
        if not any(waiter.woken for waiter in waiters):
            raise Restart(ERESTARTSYS) from None
        reason = ""
    finally:
        for waiter in waiters:
            futexes.remove(waiter)
    woken = [index for index, waiter in enumerate(waiters) if waiter.woken]
    if not woken and reason == TIMED_OUT:
        raise LinuxError(ETIMEDOUT)
    return woken[-1]


@syscall(PARTIAL, _NO_NUMA)
def futex_wake(task: Task, address: Address, mask: Hex, count: Int, flags: UHex) -> int:
    """Wake up to `count` waiters whose bits meet `mask`; none for 0."""
    shared = _is_shared(flags)
    bits = _narrow(mask)
    if bits and not count:
        key_of(task.process.space, address, shared=shared)
        return 0
    return wake_up(task, address, count, bits, shared=shared)


@syscall(PARTIAL, _NO_NUMA)
def futex_wait(
    task: Task, address: Address, value: Hex, mask: Hex, flags: UHex, timeout: Address, clock: ClockId
) -> Blocking:
    """Wait while the word is `value`, until woken by a wake whose bits meet `mask`; the time-out is absolute."""
    shared = _is_shared(flags)
    bits, expected = _narrow(mask), _narrow(value)
    return wait_on(task, address, expected, _deadline(task, timeout, clock), bits, shared=shared)


@syscall(PARTIAL, _NO_NUMA)
def futex_requeue(task: Task, words: Address, flags: UHex, wakes: Int, moves: Int) -> int:
    """FUTEX_CMP_REQUEUE from the first of two words to the second."""
    if flags or not words:
        raise LinuxError(EINVAL)
    source, target = _read_words(task, words, 2)
    return requeue(task, (source.address, source.shared), (target.address, target.shared), wakes, moves, source.value)
