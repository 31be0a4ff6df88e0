"""Calls about which a filter asks another process: the listener's file, and the wait for its answer.

The listener is the file that SECCOMP_FILTER_FLAG_NEW_LISTENER gives; its ioctls are in syscalls/seccomp_notices.py.
Source: kernel/seccomp.c, from seccomp_do_user_notification to init_listener; `man 2 seccomp_unotify`.
"""

from __future__ import annotations

from errno import ENOENT, ENOSYS, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.linux.seccomp.filters import seccomp_data
from loadstone.linux.signal.sending import fatal_pending
from loadstone.vfs.flags import POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from loadstone.wait import Wait, WaitQueue

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.seccomp.filters import Filter
    from loadstone.linux.syscalls.dispatch import Held, SystemCalls
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.vfs import Vfs

FRESH, RECEIVED, ANSWERED = range(3)  # states of a notice: SECCOMP_NOTIFY_INIT, …_SENT, …_REPLIED
FLAG_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_IDS = 1 << 64


class Addition:
    """A file that the listener wants to be open in the process that waits (struct seccomp_kaddfd).

    `number`: as which descriptor, -1 for the lowest that is free. `answers`: the number is the answer of the call.
    `result`: the descriptor, or a negative errno, once it is known.
    """

    __slots__ = ("answers", "cloexec", "done", "file", "number", "result")

    def __init__(self, file: OpenFile, number: int, *, cloexec: bool, answers: bool) -> None:
        self.file = file
        self.number = number
        self.cloexec = cloexec
        self.answers = answers
        self.result: int | None = None
        self.done = WaitQueue("a descriptor that another process is to open")


class Notice:
    """A call that waits for its answer (struct seccomp_knotif).

    Attributes:
        id: what the listener calls it. task: who makes the call; data: its `struct seccomp_data`.
        state: FRESH, RECEIVED or ANSWERED; then `error` (0 or negative), `value` and `flags` are the answer.
        happenings: how often there was something to look at for who waits in `queue`.
        additions: files to be opened there, the latest first.
    """

    __slots__ = ("additions", "data", "error", "flags", "happenings", "id", "queue", "state", "task", "value")

    def __init__(self, number: int, task: Task, data: bytes) -> None:
        self.id = number
        self.task = task
        self.data = data
        self.state = FRESH
        self.error = self.value = self.flags = 0
        self.happenings = 0
        self.queue = WaitQueue("the answer of a seccomp listener")
        self.additions: list[Addition] = []

    def happened(self) -> None:
        """Have who waits look."""
        self.happenings += 1
        self.task.kernel.scheduler.wake(self.queue.wake())

    def answer(self, error: int, value: int, flags: int = 0) -> None:
        """This is the answer."""
        self.state, self.error, self.value, self.flags = ANSWERED, error, value, flags
        self.happened()


class Listener(AnonymousFile):
    """The file of who answers the calls that a filter asks about.

    Attributes:
        notices: the calls that wait, in their order. requests: how many times one came that was not received since.
        filter: whose it is.
    """

    __slots__ = ("_next", "filter", "notices", "requests")

    kind = "seccomp notify"

    def __init__(self, vfs: Vfs, owner: Filter, first: int) -> None:
        super().__init__(vfs, 0)
        self.filter = owner
        self.notices: list[Notice] = []
        self.requests = 0
        self._next = first
        self.read_queue = self.write_queue = WaitQueue("a call that a seccomp filter asks about")

    @property
    def path(self) -> str:
        """As /proc/self/fd shows it."""
        return f"anon_inode:{self.kind}"

    def tell(self, events: int) -> None:
        """Have who waits for `events` look."""
        self._notify(self.read_queue, events)

    def ask(self, task: Task, data: bytes) -> Notice:
        """A call has come."""
        notice = Notice(self._next, task, data)
        self._next = (self._next + 1) % _IDS
        self.notices.append(notice)
        self.again()
        return notice

    def again(self) -> None:
        """There is one more to be received."""
        self.requests += 1
        self.tell(POLLIN | POLLRDNORM)

    def find(self, number: int) -> Notice:
        """The call of that id; ENOENT."""
        for notice in self.notices:
            if notice.id == number:
                return notice
        raise LinuxError(ENOENT, f"no call {number} waits")

    def ready(self) -> int:
        """POLLIN with a call to receive, POLLOUT with one to answer, POLLHUP when nobody has the filter."""
        states = {notice.state for notice in self.notices}
        bits = POLLIN | POLLRDNORM if FRESH in states else 0
        bits |= POLLOUT | POLLWRNORM if RECEIVED in states else 0
        return bits | (0 if self.filter.users else POLLHUP)

    def release(self) -> None:
        """Closed: who waits, and who will ask, hears ENOSYS."""
        self.filter.listener = None
        for notice in self.notices:
            if notice.state != ANSWERED:
                notice.answer(-ENOSYS, 0)
        self.notices = []


class Asking:
    """The wait of a thread for the answer to its call, in place of the call."""

    __slots__ = ("_calls", "_filter", "_notice", "_registers", "_task", "wait")

    def __init__(self, calls: SystemCalls, task: Task, registers: tuple[int, ...], asked: Filter) -> None:
        listener = asked.listener
        assert listener is not None
        self._calls, self._task, self._registers, self._filter = calls, task, registers, asked
        self._notice = listener.ask(task, bytes(seccomp_data(registers, task.context.pc)))
        self.wait = self._again()

    def go_on(self) -> Held | None:
        """Something has happened, or a signal came: what the thread waits in next, or None."""
        notice = self._notice
        if not notice.happenings:
            return self._interrupted()
        notice.happenings -= 1
        if notice.additions:
            self._add(notice.additions.pop(0))
        if notice.state != ANSWERED:
            self.wait = self._again()
            return self
        self.close()
        if notice.flags & FLAG_CONTINUE:
            return self._calls.carry_out(self._task, self._registers)
        self._calls.skip(self._task, self._registers, notice.error or notice.value)
        return None

    def _again(self) -> Wait:
        return Wait((self._notice.queue,), interruptible=not self._only_killed())

    def _only_killed(self) -> bool:
        """Whether signals have to wait, since the listener has begun to work on the call (should_sleep_killable)."""
        return self._filter.waits_killable and self._notice.state != FRESH

    def _interrupted(self) -> Held | None:
        if self.wait.interruptible and self._only_killed() and not fatal_pending(self._task):
            self.wait = self._again()
            return self
        self.close()
        self._calls.interrupted(self._task, self._registers)
        return None

    def _add(self, addition: Addition) -> None:
        """Open a file for the listener (seccomp_handle_addfd)."""
        notice, files = self._notice, self._task.process.files
        try:
            if addition.number < 0:
                addition.result = files.install(addition.file, cloexec=addition.cloexec)
            else:
                addition.result = files.put(addition.file, addition.number, cloexec=addition.cloexec)
        except LinuxError as error:
            addition.result = -error.errno
        if addition.answers:
            if addition.result < 0:
                notice.state = RECEIVED
            else:
                notice.error, notice.value, notice.flags = 0, addition.result, 0
        self._task.kernel.scheduler.wake(addition.done.wake())

    def close(self) -> None:
        """The call waits no longer, or its thread has ended."""
        notice, listener = self._notice, self._filter.listener
        for addition in notice.additions:
            addition.result = -ESRCH
            self._task.kernel.scheduler.wake(addition.done.wake())
        notice.additions = []
        if listener is not None and notice in listener.notices:
            listener.notices.remove(notice)
