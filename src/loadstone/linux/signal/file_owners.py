"""Signals of files: who is sent one when something happens to an open file. Source: fs/fcntl.c.

An open file description has at most one owner (F_SETOWN). It is sent SIGIO, or what F_SETSIG chose with a siginfo that
names the descriptor, by signal-driven I/O (O_ASYNC), when a lease is to be given back, and for F_NOTIFY.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.linux.jobs import members
from loadstone.linux.signal import sending, signals
from loadstone.vfs.flags import (
    O_ASYNC,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDHUP,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
    S_IFMT,
    S_IFSOCK,
)

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process, Task
    from loadstone.vfs.file import OpenFile
    from loadstone.wait import WaitQueue

OWNER_THREAD, OWNER_PROCESS, OWNER_GROUP = range(3)  # F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP
# si_code: why (include/uapi/asm-generic/siginfo.h)
POLL_IN, POLL_OUT, POLL_MSG, POLL_ERR, POLL_PRI, POLL_HUP = range(1, 7)
SI_SIGIO: Final = -5
_POLLMSG: Final = 0x400
_BANDS: Final = (
    POLLIN | POLLRDNORM,
    POLLOUT | POLLWRNORM | POLLWRBAND,
    POLLIN | POLLRDNORM | _POLLMSG,
    POLLERR,
    POLLPRI | POLLRDBAND,
    POLLHUP | POLLERR,
)
_FIELDS = Struct("<qi")  # si_band, si_fd
# SIG_SPECIFIC_SICODES_MASK: signals whose si_code means something else (SIGPOLL is SIGIO)
_OWN_CODES: Final = signals.bits(
    signals.SIGILL, signals.SIGFPE, signals.SIGSEGV, signals.SIGBUS, signals.SIGTRAP, signals.SIGCHLD, signals.SIGSYS
)


class FileOwner:
    """Whom signals of an open file go to: the kernel's `struct fown_struct`, with its entry in lists of `fasync`.

    Attributes:
        number, kind: a thread, a process or a group, as OWNER_* says; 0 for nobody.
        uid, euid: who said so, and so who may be sent to.
        signal: what is sent; 0 is SIGIO without a siginfo.
        lease_fd: the descriptor with which a lease was taken.
    """

    __slots__ = ("_ears", "euid", "file", "kernel", "kind", "lease_fd", "number", "signal", "uid")

    def __init__(self, kernel: Kernel, file: OpenFile) -> None:
        self.kernel = kernel
        self.file = file
        self.number = self.uid = self.euid = self.signal = 0
        self.kind = OWNER_THREAD
        self.lease_fd = -1
        self._ears: list[_Ear] = []

    def set(self, task: Task, kind: int, number: int) -> None:
        """F_SETOWN: signals go to `number` (of the machine) from now on, with the rights of `task`."""
        self.kind, self.number = kind, number
        if number:
            self.uid, self.euid = task.process.credentials.uid, task.process.credentials.euid

    def propose(self, task: Task, kind: int, number: int) -> None:
        """As `set`, unless somebody is the owner already (__f_setown without force)."""
        if not self.number:
            self.set(task, kind, number)

    def forget(self) -> None:
        """Nobody, and SIGIO (f_delown)."""
        self.number = self.signal = 0
        self.kind = OWNER_PROCESS

    @property
    def living(self) -> bool:
        """Whether there is still somebody to send to."""
        kernel, number = self.kernel, self.number
        if self.kind == OWNER_GROUP:
            return any(one.group == number for one in kernel.processes.values())
        return number in (kernel.tasks if self.kind == OWNER_THREAD else kernel.processes)

    def send(self, fd: int, reason: int) -> None:
        """Something happened to the file that `fd` was: `reason` is one of POLL_* (send_sigio)."""
        if not self.number:
            return
        if self.kind == OWNER_GROUP:
            for process in members(self.kernel, self.number):
                self._send_to(process, None, fd, reason)
            return
        task = self.kernel.tasks.get(self.number)
        if task is not None:
            self._send_to(task.process, task if self.kind == OWNER_THREAD else None, fd, reason)

    def _send_to(self, process: Process, task: Task | None, fd: int, reason: int) -> None:
        who = process.credentials
        if self.euid and self.euid not in (who.suid, who.uid) and self.uid not in (who.suid, who.uid):
            return
        number = self.signal
        if number:
            code = SI_SIGIO if signals.bit(number) & _OWN_CODES else reason
            info = signals.SigInfo(number, code, _FIELDS.pack(_BANDS[reason - POLL_IN], fd))
            try:
                _send(process, task, info)
                return
            except LinuxError:  # the queue is full: at least SIGIO tells of it
                pass
        _send(process, task, signals.from_kernel(signals.SIGIO))

    def listen(self, fd: int) -> None:
        """O_ASYNC: send signals when the file can be read or written (fasync_helper)."""
        self.file.flags |= O_ASYNC
        if self._ears:
            for ear in self._ears:
                ear.fd = fd
            return
        for queue, events in ((self.file.read_queue, POLLIN), (self.file.write_queue, POLLOUT)):
            if queue is not None:
                ear = _Ear(self, queue, events, fd)
                queue.listen(ear)
                self._ears.append(ear)

    def ignore(self) -> None:
        """O_ASYNC is off."""
        self.file.flags &= ~O_ASYNC
        for ear in self._ears:
            ear.queue.unlisten(ear)
        self._ears.clear()

    def lease_asked(self) -> None:
        """Somebody wants to open the file on which there is a lease (lease_break_callback)."""
        self.send(self.lease_fd, POLL_MSG)

    def lease_ended(self) -> None:
        """The lease is gone, and takes the owner along (lease_modify)."""
        self.file.flags &= ~O_ASYNC
        self.forget()

    def file_closed(self) -> None:
        """Nothing more will happen."""
        self.ignore()


def _send(process: Process, task: Task | None, info: signals.SigInfo) -> None:
    if task is None:
        sending.send(process, info)
    else:
        sending.send_task(task, info)


class _Ear:
    """Listens on one of a file's queues, for `events`: POLLIN or POLLOUT. Implements `wait.Listener`."""

    __slots__ = ("events", "exclusive", "fd", "owner", "queue")

    def __init__(self, owner: FileOwner, queue: WaitQueue, events: int, fd: int) -> None:
        self.owner = owner
        self.queue = queue
        self.events = events
        self.exclusive = False
        self.fd = fd

    def happened(self, events: int) -> bool:
        """Send, if it is what this one listens for; never says that it woke somebody."""
        reason = self._reason(events)
        if reason:
            self.owner.send(self.fd, reason)
        return False

    def _reason(self, events: int) -> int:
        """POLL_*, or 0 for nothing that signals tell of."""
        file = self.owner.file
        if events & self.events:
            if self.events == POLLIN:
                return POLL_IN
            return POLL_OUT if file.tells_of_room() else 0
        if events:
            return 0
        bits = file.ready()
        if file.inode.mode & S_IFMT != S_IFSOCK:  # the other side is gone: pipe_release() tells both lists of it
            return (POLL_IN if self.events == POLLIN else POLL_OUT) if bits & (POLLHUP | POLLERR) else 0
        ended = bits & (POLLHUP | POLLRDHUP)
        if self.events == POLLIN:
            return POLL_HUP if bits & POLLHUP else POLL_IN if ended else 0
        return POLL_OUT if bits & POLLOUT and not ended else 0  # connected


def owner_of(file: OpenFile) -> FileOwner | None:
    """The owner of an open file, None while nobody asked for one."""
    return next((one for one in file.file_interests if isinstance(one, FileOwner)), None)


def make_owner(task: Task, file: OpenFile) -> FileOwner:
    """The owner of an open file, made when first asked for."""
    found = owner_of(file)
    if found is None:
        found = FileOwner(task.kernel, file)
        file.file_interests = (*file.file_interests, found)
    return found


def set_asynchronous(task: Task, fd: int, file: OpenFile, wanted: bool) -> None:
    """O_ASYNC on or off. Files of kinds that tell nobody stay without it, and say nothing (setfl)."""
    if not file.asynchronous:
        return
    if not wanted:
        owner = owner_of(file)
        if owner is not None:
            owner.ignore()
        return
    owner = make_owner(task, file)
    if file.tty is not None:  # __tty_fasync: whose terminal it is, else the caller
        if file.tty.foreground:
            owner.propose(task, OWNER_GROUP, file.tty.foreground)
        else:
            owner.propose(task, OWNER_PROCESS, task.process.pid)
    owner.listen(fd)
