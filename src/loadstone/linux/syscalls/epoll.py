"""epoll and eventfd. Sources: fs/eventpoll.c, fs/eventfd.c."""

from __future__ import annotations

from errno import EFAULT, EINTR, EINVAL, ELOOP, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.anon_inodes import EpollFile, EventFile, Interest
from loadstone.linux.structs import EPOLL_EVENT
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.poll import Watch, with_mask
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.transfer import read_time
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.flags import O_CLOEXEC, O_NONBLOCK
from loadstone.wait import TIMED_OUT, Interrupted

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, InSigset, Int, InTime, Size, UInt
    from loadstone.wait import Blocking

EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3
EFD_SEMAPHORE = 1
MAX_NESTS = 5  # EP_MAX_NESTS, and the outermost list
MAX_EVENTS = (1 << 31) // EPOLL_EVENT.size
_EDGES = "with EPOLLET reading is reported as long as there is something to read"


@syscall(support=PARTIAL, note=_EDGES)
def epoll_create(task: Task, size: Int) -> int:
    """A new interest list."""
    if size <= 0:
        raise LinuxError(EINVAL)
    return epoll_create1(task, 0)


@syscall(support=PARTIAL, note=_EDGES)
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


@syscall(support=PARTIAL, note=_EDGES)
def epoll_ctl(task: Task, list_fd: Fd, operation: Int, fd: Fd, event: Address) -> int:
    """Add, change or remove a descriptor."""
    events = data = 0
    if operation != EPOLL_CTL_DEL:
        events, data = EPOLL_EVENT.unpack(copy_in(task.process.space, event, EPOLL_EVENT.size))
    where = open_file(task, list_fd)
    file = open_file(task, fd)
    if file.inode.is_regular or file.inode.is_directory:
        raise LinuxError(EPERM, "regular files and directories cannot be waited for")
    if where is file or not isinstance(where, EpollFile):
        raise LinuxError(EINVAL)
    if operation == EPOLL_CTL_ADD:
        if isinstance(file, EpollFile):
            _demand_shallow(task, where, file)
        where.add(fd, Interest(file, events, data))
    elif operation == EPOLL_CTL_DEL:
        where.find(fd, file)
        del where.interests[fd]
    elif operation == EPOLL_CTL_MOD:
        one = where.find(fd, file)
        one.events, one.data, one.told = events, data, 0
    else:
        raise LinuxError(EINVAL)
    return 0


def _demand_shallow(task: Task, where: EpollFile, added: EpollFile) -> None:
    """ELOOP if a list would contain itself, or if more than MAX_NESTS of them would be in a row (ep_loop_check)."""
    everybody = [file for _, file in task.process.files.items() if isinstance(file, EpollFile)]
    levels = 0
    level = {where}
    while level and levels <= MAX_NESTS:
        levels += 1
        level = {one for one in everybody if not level.isdisjoint(one.lists())}
    level = {added}
    while level and levels <= MAX_NESTS and where not in level:
        levels += 1
        level = {inner for one in level for inner in one.lists()}
    if level or levels > MAX_NESTS:
        raise LinuxError(ELOOP)


@syscall(support=PARTIAL, note=_EDGES)
def epoll_wait(task: Task, fd: Fd, events: Address, most: Int, timeout: Int) -> int | Blocking:
    """The events that have occurred, at most `most`; waits `timeout` milliseconds for one (negative: for ever)."""
    return _epoll_wait(task, fd, events, most, None if timeout < 0 else timeout * 1_000_000)


@syscall(support=PARTIAL, note=_EDGES)
def epoll_pwait(
    task: Task, fd: Fd, events: Address, most: Int, timeout: Int, mask: InSigset, size: Size
) -> int | Blocking:
    """As epoll_wait, with a signal mask for the time."""
    inner = _epoll_wait(task, fd, events, most, None if timeout < 0 else timeout * 1_000_000)
    return inner if isinstance(inner, int) else with_mask(task, mask, size, inner)


@syscall(support=PARTIAL, note=_EDGES)
def epoll_pwait2(
    task: Task, fd: Fd, events: Address, most: Int, timeout: InTime, mask: InSigset, size: Size
) -> int | Blocking:
    """As epoll_pwait, with a time limit in nanoseconds."""
    inner = _epoll_wait(task, fd, events, most, read_time(task, timeout) if timeout else None)
    return inner if isinstance(inner, int) else with_mask(task, mask, size, inner)


def _epoll_wait(task: Task, fd: int, address: int, most: int, limit: int | None) -> int | Blocking:
    if not 0 < most <= MAX_EVENTS:
        raise LinuxError(EINVAL)
    if address + most * EPOLL_EVENT.size > 0x7FFF_FFFF_F000:
        raise LinuxError(EFAULT)
    file = _list_of(task, fd)
    found = file.collect(most)
    if found or limit == 0:
        return _report(task, address, found)
    deadline = None if limit is None else task.kernel.clock.monotonic_ns() + limit
    return _wait(task, file, address, most, deadline)


def _wait(task: Task, file: EpollFile, address: int, most: int, deadline: int | None) -> Blocking:
    while True:
        watch = Watch((one.file, one.events) for one in file.interests.values())
        wait = watch.wait(deadline)
        if not wait.queues and wait.host_fd < 0:
            wait = wait._replace(queues=(task.signals.arrival,))
        try:
            reason = yield wait
        except Interrupted:
            raise LinuxError(EINTR) from None  # never restarted, whatever SA_RESTART says (signal(7))
        finally:
            watch.close()
        found = file.collect(most)
        if found or reason == TIMED_OUT:
            return _report(task, address, found)


def _report(task: Task, address: int, found: list[tuple[int, int]]) -> int:
    if found:
        copy_out(task.process.space, address, b"".join(EPOLL_EVENT.pack(*one) for one in found))
    return len(found)


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
