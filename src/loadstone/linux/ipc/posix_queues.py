"""POSIX message queues: what waits in them, who waits for them, and who is told (ipc/mqueue.c).

Their names and descriptors are in `mqueue_files`, the calls in `syscalls.posix_mq`.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.capabilities import user_shown
from loadstone.linux.of_task import pid_seen
from loadstone.linux.signal import sending, signals
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.ipc.objects import IpcObjects
    from loadstone.vfs.netlink_sockets import NetlinkSocket

# include/uapi/linux/mqueue.h, include/uapi/asm-generic/siginfo.h
SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD = range(3)
COOKIE_BYTES = 32
_WOKEN, _REMOVED = 1, 2  # what the last byte of a cookie says
_SI_MESGQ = -3
_FIELDS = Struct("<iIQ")  # si_pid, si_uid, si_value

MQ_PRIO_MAX = 32768
_HEADER_BYTES, _NODE_BYTES = 48, 48  # struct msg_msg, struct posix_msg_tree_node


def cost_of(messages: int, size: int) -> int:
    """What a queue of so many messages of `size` bytes counts against RLIMIT_MSGQUEUE, full or not."""
    return messages * (size + _HEADER_BYTES) + min(messages, MQ_PRIO_MAX) * _NODE_BYTES


class Message(NamedTuple):
    """A message; a higher priority comes out first."""

    priority: int
    data: bytes


class Waiter:
    """Somebody who waits for room with a message, or for one. `message`: the one to send, or what was received."""

    __slots__ = ("done", "message", "queue", "real_time")

    def __init__(self, task: Task, message: Message | None, what: str) -> None:
        self.message = message
        self.done = False
        self.real_time = task.real_time
        self.queue = WaitQueue(what)


class Notification(NamedTuple):
    """Who is told, once, when a message comes into the empty queue while nobody waits for one.

    `how`: SIGEV_…; `signal` and `value` for SIGEV_SIGNAL; for SIGEV_THREAD the `socket` on which the C library waits
    for its `cookie`. `image`: what the process ran when it asked; after an exec it gets no signal.
    """

    process: Process
    how: int
    signal: int
    value: int
    image: object
    socket: NetlinkSocket | None = None
    cookie: bytes = b""

    def tell(self, sender: Process) -> None:
        """A message came from `sender`."""
        if self.how == SIGEV_THREAD:
            self._send_cookie(_WOKEN)
        elif self.how == SIGEV_SIGNAL and self.signal and self.process.image is self.image:
            who = user_shown(self.process.credentials, sender.credentials.uid)
            fields = _FIELDS.pack(pid_seen(self.process, sender.pid), who, self.value)
            try:
                sending.send(self.process, signals.SigInfo(self.signal, _SI_MESGQ, fields))
            except LinuxError:
                return  # the process has as many signals as it may: it is not told

    def remove(self) -> None:
        """It is told nothing any more."""
        if self.how == SIGEV_THREAD:
            self._send_cookie(_REMOVED)

    def _send_cookie(self, code: int) -> None:
        assert self.socket is not None
        self.socket.deliver(self.cookie[:-1] + bytes([code]))


class PosixQueue:
    """A queue.

    Attributes:
        most_messages, most_bytes: how many messages it takes, and how long each may be.
        count, bytes: messages in it, and what they have in all.
        changed: woken when there is a message or room, for who polls.
        notification: who wants to be told; None for nobody.
    """

    __slots__ = (
        "_around", "_by_priority", "_receivers", "_senders", "bytes", "changed", "count", "most_bytes",
        "most_messages", "notification",
    )  # fmt: skip

    def __init__(self, around: IpcObjects, most_messages: int, most_bytes: int) -> None:
        self._around = around
        self.most_messages, self.most_bytes = most_messages, most_bytes
        self._by_priority: dict[int, deque[Message]] = {}
        self.count = self.bytes = 0
        self._senders: list[Waiter] = []
        self._receivers: list[Waiter] = []
        self.changed = WaitQueue("a POSIX message queue")
        self.notification: Notification | None = None

    @property
    def full(self) -> bool:
        """Whether another message has to wait."""
        return self.count >= self.most_messages

    def send(self, message: Message, sender: Process) -> None:
        """Hand a message to the first who waits for one, or put it into the queue, which is not full."""
        if self._receivers:
            self._release(self._receivers.pop(0), message)
            return
        self._around.keep(_size_of(message))
        self._insert(message)
        if self.notification is not None and self.count == 1:
            told, self.notification = self.notification, None
            told.tell(sender)
        self._wake_pollers()

    def receive(self) -> Message:
        """Take the oldest message of the highest priority out, and let in the first who waits with one."""
        highest = max(self._by_priority)
        waiting = self._by_priority[highest]
        message = waiting.popleft()
        if not waiting:
            del self._by_priority[highest]
        self.count -= 1
        self.bytes -= len(message.data)
        self._around.give_back(_size_of(message))
        if self._senders:
            first = self._senders.pop(0)
            assert first.message is not None
            self._insert(first.message)
            self._release(first, first.message)
        else:
            self._wake_pollers()
        return message

    def put_back(self, message: Message) -> None:
        """A message that could not be handed over after all is the next one again."""
        self._around.keep_again(_size_of(message))
        self._insert(message)
        self._by_priority[message.priority].rotate(1)

    def wait_to_send(self, waiter: Waiter) -> None:
        """Let somebody wait for room: real-time tasks first, by priority. The kernel keeps the message meanwhile."""
        assert waiter.message is not None
        self._around.keep(_size_of(waiter.message))
        _enqueue(self._senders, waiter)

    def wait_to_receive(self, waiter: Waiter) -> None:
        """Let somebody wait for a message: real-time tasks first, by priority."""
        _enqueue(self._receivers, waiter)

    def give_up(self, waiter: Waiter) -> None:
        """He waits no longer; nothing happens if his turn came already."""
        if waiter in self._senders:
            assert waiter.message is not None
            self._around.give_back(_size_of(waiter.message))
            self._senders.remove(waiter)
        elif waiter in self._receivers:
            self._receivers.remove(waiter)

    def stop_telling(self) -> None:
        """Nobody is to be told any more."""
        told, self.notification = self.notification, None
        if told is not None:
            told.remove()

    def discard(self) -> None:
        """Nobody can reach the queue any more."""
        self._around.give_back(self.bytes + _HEADER_BYTES * self.count)
        self._by_priority.clear()
        self.count = self.bytes = 0

    def _insert(self, message: Message) -> None:
        self._by_priority.setdefault(message.priority, deque()).append(message)
        self.count += 1
        self.bytes += len(message.data)

    def _release(self, waiter: Waiter, message: Message) -> None:
        waiter.message, waiter.done = message, True
        self._around.wake(waiter.queue.wake())

    def _wake_pollers(self) -> None:
        if self.changed.waiters or self.changed.listeners:
            self._around.wake(self.changed.wake())


def _size_of(message: Message) -> int:
    """What it takes of the kernel's memory."""
    return len(message.data) + _HEADER_BYTES


def _enqueue(waiting: list[Waiter], waiter: Waiter) -> None:
    at = len(waiting)
    while at and waiting[at - 1].real_time < waiter.real_time:
        at -= 1
    waiting.insert(at, waiter)
