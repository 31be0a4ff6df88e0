"""futex(2): waiting on a word of user memory (kernel/futex/)."""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL, ENOSYS, ETIMEDOUT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.futexes import Key, Waiter
from loadstone.linux.of_task import linux_of
from loadstone.linux.restart import ERESTART_RESTARTBLOCK, ERESTARTSYS, Restart
from loadstone.linux.structs import UINT
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.transfer import read_struct, read_time, write_struct
from loadstone.memory.vma import MAYSHARE
from loadstone.wait import TIMED_OUT, Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, FutexOp, UHex, UInt
    from loadstone.wait import Blocking

WAIT, WAKE, _FD, REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI, WAIT_BITSET, WAKE_BITSET = range(11)
_COMMANDS = 14
PRIVATE, CLOCK_REALTIME = 128, 256
MATCH_ANY = 0xFFFF_FFFF


@syscall(PARTIAL, "the priority-inheritance commands are ENOSYS")
def futex(
    task: Task, address: Address, op: FutexOp, value: UInt, timeout: Address, address2: Address, value3: UHex
) -> int | Blocking:
    """futex(2)."""
    command = op & ~(PRIVATE | CLOCK_REALTIME)
    if command >= _COMMANDS or command == _FD or command < 0:
        raise LinuxError(ENOSYS, f"no futex command {command}")
    if op & CLOCK_REALTIME and command not in (WAIT_BITSET, 11, 13):
        raise LinuxError(ENOSYS, "FUTEX_CLOCK_REALTIME goes with FUTEX_WAIT_BITSET")
    if command in (WAIT, WAIT_BITSET):
        return _wait(task, address, op, value, timeout, MATCH_ANY if command == WAIT else value3)
    shared = not op & PRIVATE
    if command in (WAKE, WAKE_BITSET):
        return wake(task, address, value, MATCH_ANY if command == WAKE else value3, shared=shared)
    # the fourth argument is a count here, not a pointer
    second = timeout & 0xFFFF_FFFF
    if command in (REQUEUE, CMP_REQUEUE):
        expected = value3 if command == CMP_REQUEUE else None
        return _requeue(task, address, address2, value, second, expected, shared=shared)
    if command == WAKE_OP:
        return _wake_op(task, address, address2, value, second, value3, shared=shared)
    raise LinuxError(ENOSYS, "priority-inheritance futexes")


def key_of(task: Task, address: int, shared: bool) -> Key:
    """What identifies the word: EINVAL when it is not aligned."""
    if address & 3:
        raise LinuxError(EINVAL, f"the futex {address:#x} is not aligned")
    space = task.process.space
    if shared:
        vma = space.find(address)
        if vma is None:
            raise LinuxError(EFAULT, f"nothing is mapped at {address:#x}")
        if vma.flags & MAYSHARE:
            return vma.backing, address - vma.start + vma.offset
    return space, address


def _wait(task: Task, address: int, op: int, value: int, timeout: int, bitset: int) -> Blocking:
    """FUTEX_WAIT counts its time-out from now, FUTEX_WAIT_BITSET has an absolute one."""
    deadline = _deadline(task, op, timeout) if timeout else None
    if not bitset:
        raise LinuxError(EINVAL, "an empty bitset")
    return wait_on(task, address, value, deadline, bitset, shared=not op & PRIVATE)


def _deadline(task: Task, op: int, timeout: int) -> int:
    time = read_time(task, timeout)
    clock = task.kernel.clock
    if op & ~(PRIVATE | CLOCK_REALTIME) == WAIT:
        return clock.monotonic_ns() + time
    if op & CLOCK_REALTIME:
        return clock.monotonic_ns() + time - clock.realtime_ns()
    return time


def wait_on(task: Task, address: int, value: int, deadline: int | None, bitset: int, *, shared: bool) -> Blocking:
    """Wait while the word is `value`, until woken; EAGAIN when it is not, ETIMEDOUT."""
    key = key_of(task, address, shared)
    (found,) = read_struct(task, address, UINT)
    if found != value:
        raise LinuxError(EAGAIN, f"the word is {found:#x}")
    futexes = linux_of(task).calls.futexes
    waiter = Waiter(key, bitset, address)
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


def wake(task: Task, address: int, count: int, bitset: int, *, shared: bool) -> int:
    """Wake up to `count` waiters (at least one, as Linux does for 0 too); how many were woken."""
    if not bitset:
        raise LinuxError(EINVAL, "an empty bitset")
    return _wake(task, key_of(task, address, shared), count, bitset)


def _wake(task: Task, key: Key, count: int, bitset: int = MATCH_ANY) -> int:
    futexes = linux_of(task).calls.futexes
    taken = futexes.take(key, max(_signed(count), 1), bitset)
    for waiter in taken:
        waiter.woken = True
        task.kernel.scheduler.wake(waiter.queue.wake())
    return len(taken)


def _requeue(
    task: Task, address: int, target: int, wakes: int, moves: int, expected: int | None, *, shared: bool
) -> int:
    if _signed(wakes) < 0 or _signed(moves) < 0:
        raise LinuxError(EINVAL)
    source_key, target_key = key_of(task, address, shared), key_of(task, target, shared)
    if expected is not None and read_struct(task, address, UINT)[0] != expected:
        raise LinuxError(EAGAIN, "the word has changed")
    futexes = linux_of(task).calls.futexes
    woken = 0
    for waiter in futexes.take(source_key, wakes, MATCH_ANY):
        waiter.woken = True
        task.kernel.scheduler.wake(waiter.queue.wake())
        woken += 1
    moved = futexes.move(source_key, target_key, moves)
    return woken + moved if expected is not None else woken


def _wake_op(task: Task, address: int, second: int, count: int, count2: int, code: int, *, shared: bool) -> int:
    """Change the second word, wake on the first, and on the second if its old value meets the comparison."""
    first_key, second_key = key_of(task, address, shared), key_of(task, second, shared)
    operation, comparison = code >> 28 & 0xF, code >> 24 & 0xF
    operand, against = _signed12(code >> 12 & 0xFFF), _signed12(code & 0xFFF)
    if operation & 8:
        operation &= 7
        operand = 1 << (operand & 31)
    (old,) = read_struct(task, second, UINT)
    results = (operand, old + operand, old | operand, old & ~operand, old ^ operand)
    if operation >= len(results):
        raise LinuxError(ENOSYS, f"no FUTEX_OP {operation}")
    write_struct(task, second, UINT, results[operation] & 0xFFFF_FFFF)
    woken = _wake(task, first_key, count)
    signed = _signed(old)
    verdicts = (
        signed == against,
        signed != against,
        signed < against,
        signed <= against,
        signed > against,
        signed >= against,
    )
    if comparison >= len(verdicts):
        raise LinuxError(ENOSYS, f"no FUTEX_OP_CMP {comparison}")
    if verdicts[comparison]:
        woken += _wake(task, second_key, count2)
    return woken


def _signed(value: int) -> int:
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000


def _signed12(value: int) -> int:
    return (value ^ 0x800) - 0x800
