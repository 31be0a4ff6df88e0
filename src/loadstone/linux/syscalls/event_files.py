"""Files that are events: timerfd and signalfd. Sources: fs/timerfd.c, fs/signalfd.c."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import linux_of
from loadstone.linux.signal.signalfd import SignalFile
from loadstone.linux.signal.signals import UNBLOCKABLE
from loadstone.linux.structs import WORD
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.time import BOOTTIME, MONOTONIC, REALTIME
from loadstone.linux.syscalls.timers import TIMER_ABSTIME, deadline_of, read_setting, write_setting
from loadstone.linux.syscalls.transfer import read_struct
from loadstone.linux.timer_file import TimerFile
from loadstone.vfs.flags import O_CLOEXEC, O_NONBLOCK

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, ClockId, Fd, InSigset, Int, Size

TFD_TIMER_CANCEL_ON_SET = 2  # the machine's calendar cannot be set
_SIGSET_BYTES = 8


@syscall(support=PARTIAL, note="the alarm clocks are EINVAL")
def timerfd_create(task: Task, clock: ClockId, flags: Int) -> int:
    """A timer to be read."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK) or clock not in (REALTIME, MONOTONIC, BOOTTIME):
        raise LinuxError(EINVAL)
    file = TimerFile(task.kernel.vfs, linux_of(task).calls.timers, clock, flags & O_NONBLOCK)
    return task.process.files.install(file, cloexec=bool(flags & O_CLOEXEC))


def _timer_file(task: Task, fd: int) -> TimerFile:
    file = open_file(task, fd)
    if not isinstance(file, TimerFile):
        raise LinuxError(EINVAL)
    return file


@syscall()
def timerfd_settime(task: Task, fd: Fd, flags: Int, new: Address, old: Address) -> int:
    """Set the timer; what it was before."""
    value, interval = read_setting(task, new)
    if flags & ~(TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET):
        raise LinuxError(EINVAL)
    file = _timer_file(task, fd)
    file.look()
    before = file.timer.get()
    file.set(deadline_of(task, file.clock, value, bool(flags & TIMER_ABSTIME)), interval)
    if old:
        write_setting(task, old, *before)
    return 0


@syscall()
def timerfd_gettime(task: Task, fd: Fd, current: Address) -> int:
    """The time left, and the interval."""
    file = _timer_file(task, fd)
    file.look()
    write_setting(task, current, *file.timer.get())
    return 0


@syscall()
def signalfd(task: Task, fd: Int, mask: InSigset, size: Size) -> int:
    """Signals to be read."""
    return signalfd4(task, fd, mask, size, 0)


@syscall()
def signalfd4(task: Task, fd: Int, mask: InSigset, size: Size, flags: Int) -> int:
    """Signals to be read; with a descriptor of such a file, its new mask."""
    if size != _SIGSET_BYTES:
        raise LinuxError(EINVAL)
    (wanted,) = read_struct(task, mask, WORD)
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise LinuxError(EINVAL)
    wanted &= ~UNBLOCKABLE
    if fd == -1:
        file = SignalFile(task.kernel, wanted, flags & O_NONBLOCK)
        return task.process.files.install(file, cloexec=bool(flags & O_CLOEXEC))
    known = open_file(task, fd)
    if not isinstance(known, SignalFile):
        raise LinuxError(EINVAL)
    known.mask = wanted
    return fd
