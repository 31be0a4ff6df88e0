"""Waiting for several files: poll and select. Source: fs/select.c."""

from __future__ import annotations

from errno import EBADF, EINTR, EINVAL
from struct import iter_unpack, pack
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.signal.restart import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, Restart
from loadstone.linux.state import STICKY_TIMEOUTS, process_state
from loadstone.linux.structs import SECOND, SIGSET_ARGUMENT, TIMESPEC, TIMEVAL
from loadstone.linux.syscalls.registry import syscall
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.flags import (
    O_PATH,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
)
from loadstone.wait import TIMED_OUT, Interrupted, Wait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, InSigset, Int, InTime, PollFds, Size, UInt
    from loadstone.vfs.file import OpenFile
    from loadstone.wait import Blocking, WaitQueue

    Polled = list[tuple[int, int]]
    """(descriptor, wanted events)."""

POLLNVAL = 0x20
ALWAYS = POLLERR | POLLHUP
SIGSET_SIZE = 8
KTIME_SECONDS = (1 << 63) // SECOND

# What of a file makes a descriptor count in each of select's three sets.
READABLE = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR
WRITABLE = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR
EXCEPTIONAL = POLLPRI


# Waiting


class Watch:
    """What a task waits for in one poll: queues and host descriptors. Close it afterwards.

    Several host descriptors are gathered in an epoll descriptor of the host, since one is all that a Wait can name.
    """

    __slots__ = ("_epoll", "host_fd", "host_write", "queues")

    def __init__(self, files: Iterable[tuple[OpenFile, int]]) -> None:
        """`files` are (open file, wanted POLL* bits)."""
        queues: list[WaitQueue] = []
        host: dict[int, int] = {}
        for file, events in files:
            queues += [one for one in file.queues() if one not in queues]
            fd = file.host_fd()
            if fd >= 0:
                host[fd] = host.get(fd, 0) | events & (POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM)
        self.queues = tuple(queues)
        self._epoll = None
        self.host_fd, self.host_write = -1, False
        if len(host) == 1 and not all(events & WRITABLE and events & READABLE for events in host.values()):
            ((self.host_fd, events),) = host.items()
            self.host_write = bool(events & (POLLOUT | POLLWRNORM))
        elif host:
            import select as host_select

            self._epoll = host_select.epoll()
            for fd, events in host.items():
                try:
                    self._epoll.register(fd, events)
                except OSError:
                    continue  # a file that epoll does not take is always ready, and was found ready before
            self.host_fd = self._epoll.fileno()

    def wait(self, deadline: int | None) -> Wait:
        """What to yield."""
        return Wait(self.queues, deadline, self.host_fd, self.host_write)

    def close(self) -> None:
        """Give the host's descriptor back."""
        if self._epoll is not None:
            self._epoll.close()


def bits_of(task: Task, fd: int, events: int) -> int:
    """revents for one descriptor."""
    try:
        file = task.process.files.get(fd)
    except LinuxError:
        return POLLNVAL
    if file.flags & O_PATH:
        return POLLNVAL
    return file.ready() & (events | ALWAYS)


def watched(task: Task, polled: Polled) -> list[tuple[OpenFile, int]]:
    """The open files behind the descriptors that are open."""
    files = task.process.files
    return [(files.get(fd), events) for fd, events in polled if fd in files]


# poll


@syscall()
def poll(task: Task, descriptors: PollFds, count: UInt, timeout: Int) -> int | Blocking:
    """Wait until one of several descriptors is ready, `timeout` milliseconds at most (negative: for ever)."""
    polled = _pollfds(task, descriptors, count)
    ready, revents = _look(task, polled)
    if ready or timeout == 0:
        return _answer(task, descriptors, polled, revents, ready)
    deadline = None if timeout < 0 else task.kernel.clock.monotonic_ns() + timeout * 1_000_000
    return _poll_later(task, descriptors, polled, deadline)


def _poll_later(task: Task, descriptors: int, polled: Polled, deadline: int | None) -> Blocking:
    """After a signal poll goes on through restart_syscall(2) with the old deadline."""
    try:
        return (yield from _wait(task, descriptors, polled, deadline))
    except Interrupted:
        raise Restart(ERESTART_RESTARTBLOCK, lambda again: _poll_later(again, descriptors, polled, deadline)) from None


@syscall()
def ppoll(task: Task, descriptors: PollFds, count: UInt, timeout: InTime, mask: InSigset, size: Size) -> int | Blocking:
    """As poll, with a time limit in nanoseconds, of which the rest is written back, and a signal mask for the time."""
    deadline = _deadline(task, timeout, SECOND)
    blocked = mask_at(task, mask, size)
    polled = _pollfds(task, descriptors, count)
    return with_mask(task, blocked, _ppoll(task, descriptors, polled, timeout, deadline))


def _ppoll(task: Task, descriptors: int, polled: Polled, timeout: int, deadline: int | None) -> Blocking:
    ready, revents = _look(task, polled)
    try:
        if ready or _past(task, deadline):
            return _answer(task, descriptors, polled, revents, ready)
        return (yield from _wait(task, descriptors, polled, deadline))
    finally:
        _write_rest(task, timeout, deadline, False)


def _pollfds(task: Task, address: int, count: int) -> Polled:
    if count > task.process.files.limit:
        raise LinuxError(EINVAL)
    raw = copy_in(task.process.space, address, 8 * count)
    return [(fd, events & 0xFFFF) for fd, events, _ in iter_unpack("<ihh", raw)]


def _look(task: Task, polled: Polled) -> tuple[int, list[int]]:
    """How many descriptors are ready, and revents of each."""
    revents = [bits_of(task, fd, events) if fd >= 0 else 0 for fd, events in polled]
    return sum(1 for bits in revents if bits), revents


def _answer(task: Task, address: int, polled: Polled, revents: list[int], ready: int) -> int:
    data = b"".join(pack("<iHH", fd, events, bits) for (fd, events), bits in zip(polled, revents, strict=True))
    copy_out(task.process.space, address, data)
    return ready


def _wait_on(task: Task, watch: Watch, deadline: int | None) -> Wait:
    """What the caller waits for. With nothing to watch there are still signals; their queue tells the scheduler so."""
    wait = watch.wait(deadline)
    if not wait.queues and wait.host_fd < 0:
        wait = wait._replace(queues=(task.signals.arrival,))
    return wait


def _wait(task: Task, address: int, polled: Polled, deadline: int | None) -> Blocking:
    watch = Watch(watched(task, polled))
    wait = _wait_on(task, watch, deadline)
    try:
        while True:
            reason = yield wait
            ready, revents = _look(task, polled)
            if ready or reason == TIMED_OUT:
                return _answer(task, address, polled, revents, ready)
    finally:
        watch.close()


# select


@syscall()
def select(
    task: Task, count: Int, reads: Address, writes: Address, exceptions: Address, timeout: Address
) -> int | Blocking:
    """Wait until a descriptor of three sets is ready; the rest of the time limit is written back."""
    deadline = _deadline(task, timeout, 1_000_000)
    sets = _sets(task, count, (reads, writes, exceptions))
    return _select(task, (reads, writes, exceptions), sets, timeout, deadline, True)


@syscall()
def pselect6(
    task: Task, count: Int, reads: Address, writes: Address, exceptions: Address, timeout: InTime, mask: Address
) -> int | Blocking:
    """As select, with a time limit in nanoseconds and a signal mask for the time."""
    address, size = SIGSET_ARGUMENT.unpack(copy_in(task.process.space, mask, 16)) if mask else (0, 0)
    deadline = _deadline(task, timeout, SECOND)
    blocked = mask_at(task, address, size)
    sets = _sets(task, count, (reads, writes, exceptions))
    inner = _select(task, (reads, writes, exceptions), sets, timeout, deadline, False)
    return with_mask(task, blocked, inner)


def _sets(task: Task, count: int, addresses: tuple[int, int, int]) -> list[bytes | None]:
    """The three bitmaps, cut to `count` descriptors and to as many as there can be; EINVAL, EFAULT."""
    if count < 0:
        raise LinuxError(EINVAL)
    highest = max((fd for fd, _ in task.process.files.items()), default=-1)
    count = min(count, max(64, (highest + 64) & ~63))
    size = (count + 63) // 64 * 8
    keep = (1 << count) - 1
    sets: list[bytes | None] = []
    for address in addresses:
        if not address:
            sets.append(None)
            continue
        wanted = int.from_bytes(copy_in(task.process.space, address, size), "little") & keep
        sets.append(wanted.to_bytes(size, "little"))
    return sets


def _select(
    task: Task,
    addresses: tuple[int, int, int],
    sets: list[bytes | None],
    timeout: int,
    deadline: int | None,
    microseconds: bool,
) -> Blocking:
    wanted = [int.from_bytes(one, "little") if one else 0 for one in sets]
    polled = _polled_of(task, wanted)
    watch = Watch(watched(task, polled))
    wait = _wait_on(task, watch, deadline)
    try:
        reason = TIMED_OUT if _past(task, deadline) else ""
        while True:
            found = _ready_sets(task, polled, wanted)
            ready = sum(one.bit_count() for one in found)
            if ready or reason == TIMED_OUT:
                break
            reason = yield wait
    except Interrupted:
        _write_rest(task, timeout, deadline, microseconds)
        raise Restart(ERESTARTNOHAND) from None
    finally:
        watch.close()
    _write_rest(task, timeout, deadline, microseconds)
    for address, one, bits in zip(addresses, sets, found, strict=True):
        if one is not None:
            copy_out(task.process.space, address, bits.to_bytes(len(one), "little"))
    return ready


def _polled_of(task: Task, wanted: list[int]) -> Polled:
    """What the three sets of select(2) ask, as poll(2) has it; EBADF for a descriptor that is not open."""
    polled: Polled = []
    for fd in range(max(one.bit_length() for one in wanted)):
        events = sum(bits for one, bits in zip(wanted, (READABLE, WRITABLE, EXCEPTIONAL), strict=True) if one >> fd & 1)
        if events:
            if fd not in task.process.files:
                raise LinuxError(EBADF)
            polled.append((fd, events))
    return polled


def _ready_sets(task: Task, polled: Polled, wanted: list[int]) -> list[int]:
    found = [0, 0, 0]
    for fd, _ in polled:
        bits = bits_of(task, fd, READABLE | WRITABLE | EXCEPTIONAL)
        for at, mask in enumerate((READABLE, WRITABLE, EXCEPTIONAL)):
            if wanted[at] >> fd & 1 and bits & mask:
                found[at] |= 1 << fd
    return found


# Time limits and masks


def _deadline(task: Task, address: int, unit: int) -> int | None:
    """The absolute time of a relative limit: a timespec (`unit` 1e9) or timeval (1e6); None without one."""
    if not address:
        return None
    layout = TIMESPEC if unit == SECOND else TIMEVAL
    seconds, fraction = layout.unpack(copy_in(task.process.space, address, 16))
    if unit != SECOND:
        # select(2) carries microseconds over a second into the seconds
        seconds, fraction = seconds + fraction // unit, fraction % unit if fraction >= 0 else -1
    if seconds < 0 or not 0 <= fraction < unit:
        raise LinuxError(EINVAL)
    if seconds >= KTIME_SECONDS:
        return None
    limit: int = seconds * SECOND + fraction * (SECOND // unit)
    return task.kernel.clock.monotonic_ns() + limit if limit else 0


def _past(task: Task, deadline: int | None) -> bool:
    return deadline is not None and (not deadline or deadline <= task.kernel.clock.monotonic_ns())


def _write_rest(task: Task, address: int, deadline: int | None, microseconds: bool) -> None:
    """Write what is left of the time; a limit that cannot be written is left alone (poll_select_finish)."""
    if not address or deadline is None or process_state(task.process).personality & STICKY_TIMEOUTS:
        return
    left = max(0, deadline - task.kernel.clock.monotonic_ns()) if deadline else 0
    seconds, rest = divmod(left, SECOND)
    try:
        copy_out(task.process.space, address, pack("<qq", seconds, rest // 1000 if microseconds else rest))
    except LinuxError:
        return


def mask_at(task: Task, address: int, size: int) -> int | None:
    """The signal mask at `address`, None for none; EINVAL for another size than the kernel's."""
    if not address:
        return None
    if size != SIGSET_SIZE:
        raise LinuxError(EINVAL)
    return int.from_bytes(copy_in(task.process.space, address, SIGSET_SIZE), "little")


def with_mask(task: Task, blocked: int | None, inner: Blocking) -> Blocking:
    """Run `inner` with another signal mask. After a signal the old one comes back once its handler has returned."""
    from loadstone.linux.signal.sending import set_mask

    signals = task.signals
    old = signals.mask
    if blocked is not None:
        signals.saved_mask = old
        set_mask(task, blocked)
    try:
        result = yield from inner
    except Interrupted:
        raise Restart(ERESTARTNOHAND) from None
    except Restart:
        raise
    except LinuxError as error:
        if error.errno != EINTR:  # with EINTR a handler runs first, under the mask of the call
            _unmask(task, blocked, old)
        raise
    except BaseException:
        _unmask(task, blocked, old)
        raise
    _unmask(task, blocked, old)
    return result


def _unmask(task: Task, blocked: int | None, old: int) -> None:
    from loadstone.linux.signal.sending import set_mask

    if blocked is not None:
        task.signals.saved_mask = None
        set_mask(task, old)
