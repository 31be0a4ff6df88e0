"""epoll and eventfd. Sources: fs/eventpoll.c, fs/eventfd.c."""

from __future__ import annotations

from errno import EFAULT, EINTR, EINVAL, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.anon_inodes import EventFile
from loadstone.linux.epoll_file import ALWAYS, DIRECTIONS, EPOLLET, EPOLLEXCLUSIVE, EPOLLWAKEUP, EpollFile
from loadstone.linux.structs import EPOLL_EVENT
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.poll import mask_at, with_mask
from loadstone.linux.syscalls.registry import syscall
from loadstone.linux.syscalls.transfer import read_time
from loadstone.memory.placement import TASK_SIZE_MAX
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.flags import O_CLOEXEC, O_NONBLOCK
from loadstone.wait import TIMED_OUT, Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.epoll_file import Deliver
    from loadstone.linux.syscalls.arguments import Address, Fd, InSigset, Int, InTime, Size, UInt
    from loadstone.vfs.file import OpenFile
    from loadstone.wait import Blocking

EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3
EFD_SEMAPHORE = 1
MAX_EVENTS = (1 << 31) // EPOLL_EVENT.size
EXCLUSIVE_OK = DIRECTIONS | ALWAYS | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE  # EPOLLEXCLUSIVE_OK_BITS


@syscall()
def epoll_create(task: Task, size: Int) -> int:
    """A new interest list."""
    if size <= 0:
        raise LinuxError(EINVAL)
    return epoll_create1(task, 0)


@syscall()
def epoll_create1(task: Task, flags: Int) -> int:
    """A new interest list, perhaps close-on-exec."""
    if flags & ~O_CLOEXEC:
        raise LinuxError(EINVAL)
    return task.process.files.install(EpollFile(task.kernel.vfs), cloexec=bool(flags & O_CLOEXEC))


def _list_of(task: Task, fd: int) -> EpollFile:
    file = open_file(task, fd)
    if not isinstance(file, EpollFile):
        raise LinuxError(EINVAL)
    return file


@syscall()
def epoll_ctl(task: Task, list_fd: Fd, operation: Int, fd: Fd, event: Address) -> int:
    """Add, change or remove a descriptor."""
    events = data = 0
    if operation != EPOLL_CTL_DEL:
        events, data = EPOLL_EVENT.unpack(copy_in(task.process.space, event, EPOLL_EVENT.size))
    where = open_file(task, list_fd)
    file = open_file(task, fd)
    if not file.pollable or ((file.inode.is_regular or file.inode.is_directory) and not file.queues()):
        raise LinuxError(EPERM, "a file of this kind cannot be waited for")
    if where is file or not isinstance(where, EpollFile):
        raise LinuxError(EINVAL)
    if operation != EPOLL_CTL_DEL and events & EPOLLEXCLUSIVE:
        _demand_exclusive(operation, file, events)
    if operation == EPOLL_CTL_ADD:
        where.add(file, fd, events & ~EPOLLWAKEUP, data)  # the machine never sleeps
    elif operation == EPOLL_CTL_DEL:
        where.drop(where.find(file, fd))
    elif operation == EPOLL_CTL_MOD:
        interest = where.find(file, fd)
        if interest.exclusive:
            raise LinuxError(EINVAL)
        where.modify(interest, events & ~EPOLLWAKEUP, data)
    else:
        raise LinuxError(EINVAL)
    return 0


def _demand_exclusive(operation: int, file: OpenFile, events: int) -> None:
    """EINVAL for what cannot be combined with EPOLLEXCLUSIVE."""
    if operation != EPOLL_CTL_ADD or isinstance(file, EpollFile) or events & ~EXCLUSIVE_OK:
        raise LinuxError(EINVAL)


@syscall()
def epoll_wait(task: Task, fd: Fd, events: Address, most: Int, timeout: Int) -> int | Blocking:
    """The events that have occurred, at most `most`; waits `timeout` milliseconds for one (negative: for ever)."""
    return _epoll_wait(task, fd, events, most, None if timeout < 0 else timeout * 1_000_000)


@syscall()
def epoll_pwait(
    task: Task, fd: Fd, events: Address, most: Int, timeout: Int, mask: InSigset, size: Size
) -> int | Blocking:
    """As epoll_wait, with a signal mask for the time."""
    blocked = mask_at(task, mask, size)
    inner = _epoll_wait(task, fd, events, most, None if timeout < 0 else timeout * 1_000_000)
    return inner if isinstance(inner, int) else with_mask(task, blocked, inner)


@syscall()
def epoll_pwait2(
    task: Task, fd: Fd, events: Address, most: Int, timeout: InTime, mask: InSigset, size: Size
) -> int | Blocking:
    """As epoll_pwait, with a time limit in nanoseconds."""
    limit = read_time(task, timeout) if timeout else None
    blocked = mask_at(task, mask, size)
    inner = _epoll_wait(task, fd, events, most, limit)
    return inner if isinstance(inner, int) else with_mask(task, blocked, inner)


def _epoll_wait(task: Task, fd: int, address: int, most: int, limit: int | None) -> int | Blocking:
    if not 0 < most <= MAX_EVENTS:
        raise LinuxError(EINVAL)
    if address + most * EPOLL_EVENT.size > TASK_SIZE_MAX:
        raise LinuxError(EFAULT)
    file = _list_of(task, fd)
    deliver = _deliverer(task, address)
    task.kernel.personality.expire_timers()  # those that went off in the middle of this time slice
    found = file.send(most, deliver)
    if found or limit == 0:
        return found
    deadline = None if limit is None else task.kernel.clock.monotonic_ns() + limit
    return _wait(task, file, most, deliver, deadline)


def _deliverer(task: Task, address: int) -> Deliver:
    """Puts an event into the user's array."""
    space = task.process.space

    def deliver(position: int, events: int, data: int) -> None:
        copy_out(space, address + position * EPOLL_EVENT.size, EPOLL_EVENT.pack(events, data))

    return deliver


def _wait(task: Task, file: EpollFile, most: int, deliver: Deliver, deadline: int | None) -> Blocking:
    file.hold()  # another thread may close the descriptor meanwhile
    try:
        while True:
            file.arrivals.describe()
            # With nothing to wait for there are still signals; the queue also says so to the scheduler.
            queues = (file.arrivals,) if file.interests else (file.arrivals, task.signals.arrival)
            reason = yield Wait(queues, deadline, file.host_fd())
            found = file.send(most, deliver)
            if found or reason == TIMED_OUT:
                return found
    except Interrupted:
        raise LinuxError(EINTR) from None  # never restarted, whatever SA_RESTART says (signal(7))
    finally:
        file.close()


@syscall()
def eventfd(task: Task, count: UInt) -> int:
    """A counter to wait on."""
    return eventfd2(task, count, 0)


@syscall()
def eventfd2(task: Task, count: UInt, flags: Int) -> int:
    """A counter to wait on, with flags."""
    if flags & ~(EFD_SEMAPHORE | O_NONBLOCK | O_CLOEXEC):
        raise LinuxError(EINVAL)
    file = EventFile(task.kernel.vfs, count, bool(flags & EFD_SEMAPHORE), flags & O_NONBLOCK)
    return task.process.files.install(file, cloexec=bool(flags & O_CLOEXEC))
