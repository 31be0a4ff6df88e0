"""System V message queues: the queues of an IPC namespace, and who waits at them (ipc/msg.c)."""

from __future__ import annotations

from errno import E2BIG, EAGAIN
from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.linux.ipc.ids import Permissions, Table
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from loadstone.kernel.process import Credentials
    from loadstone.linux.ipc.objects import IpcObjects

# include/uapi/linux/msg.h
MSG_NOERROR, MSG_EXCEPT, MSG_COPY = 0o10000, 0o20000, 0o40000
MSGMNI, MSGMAX, MSGMNB = 32000, 8192, 16384

_HEADER_BYTES = 48  # struct msg_msg


class Message(NamedTuple):
    """A message: a positive number, and bytes."""

    kind: int
    data: bytes


class Wanted(NamedTuple):
    """Which message a receiver wants (convert_mode): `low` to `high`, or with `others` all kinds but those.

    `least`: of several the one of the lowest kind, else the oldest.
    """

    low: int
    high: int
    others: bool = False
    least: bool = False

    def matches(self, message: Message) -> bool:
        """Whether it is one of these."""
        return (self.low <= message.kind <= self.high) != self.others


class Receiver:
    """Somebody who waits for a message.

    Attributes:
        most_bytes: what fits; a longer one is E2BIG.
        result: the message, or the error that ends the wait; EAGAIN: look again. None while it waits.
    """

    __slots__ = ("most_bytes", "pid", "queue", "result", "wanted")

    def __init__(self, wanted: Wanted, most_bytes: int, pid: int, what: str) -> None:
        self.wanted = wanted
        self.most_bytes = most_bytes
        self.pid = pid
        self.result: Message | int | None = None
        self.queue = WaitQueue(what)


class MessageQueue:
    """A queue.

    Attributes:
        messages: the oldest first; `bytes` in all of them, `capacity` how many there may be (msg_qbytes).
        sender, receiver: the processes that sent and received last; 0 for none.
        sent_s, received_s, changed_s: when that was, and when msgctl last changed it; seconds since 1970, 0 for never.
        room: woken when something was taken out, for those who wait to send.
        removed: IPC_RMID was used.
    """

    __slots__ = (
        "_around", "bytes", "capacity", "changed_s", "messages", "permissions", "received_s", "receiver",
        "receivers", "removed", "room", "sender", "sent_s",
    )  # fmt: skip

    def __init__(self, around: IpcObjects, permissions: Permissions, capacity: int) -> None:
        self._around = around
        self.permissions = permissions
        self.capacity = capacity
        self.messages: list[Message] = []
        self.bytes = 0
        self.sender = self.receiver = 0
        self.sent_s = self.received_s = 0
        self.changed_s = around.now_s()
        self.receivers: list[Receiver] = []
        self.room = WaitQueue("room in a message queue")
        self.removed = False

    def fits(self, message: Message) -> bool:
        """Whether there is room for another message; one without bytes counts too (msg_fits_inqueue)."""
        return len(message.data) + self.bytes <= self.capacity and len(self.messages) < self.capacity

    def send(self, message: Message, pid: int) -> None:
        """Give a message, for which there is room, to the first who waits for such a one, or keep it."""
        if not self._deliver(message):
            self._around.keep(_size_of(message))
            self.messages.append(message)
            self.bytes += len(message.data)
        self.sender, self.sent_s = pid, self._around.now_s()

    def _deliver(self, message: Message) -> bool:
        """Hand a message to the first who waits for such a one; whether there was one (pipelined_send)."""
        for receiver in tuple(self.receivers):
            if not receiver.wanted.matches(message):
                continue
            if len(message.data) > receiver.most_bytes:
                self._end(receiver, E2BIG)
                continue
            self.receiver, self.received_s = receiver.pid, self._around.now_s()
            self._end(receiver, message)
            return True
        return False

    def find(self, wanted: Wanted) -> Message | None:
        """The message that a receiver would get."""
        matching = [message for message in self.messages if wanted.matches(message)]
        if not matching:
            return None
        return min(matching, key=lambda message: message.kind) if wanted.least else matching[0]

    def take(self, message: Message, pid: int) -> None:
        """Take a message out for process `pid`; who waits to send looks again."""
        at = next(index for index, one in enumerate(self.messages) if one is message)
        del self.messages[at]
        self.bytes -= len(message.data)
        self._around.give_back(_size_of(message))
        self.receiver, self.received_s = pid, self._around.now_s()
        self._wake_senders()

    def put_back(self, message: Message) -> None:
        """A message that could not be handed over after all is the next one again."""
        self._around.keep_again(_size_of(message))
        self.messages.insert(0, message)
        self.bytes += len(message.data)

    def wait_for(self, receiver: Receiver) -> None:
        """Let somebody wait for a message; his `result` tells."""
        self.receivers.append(receiver)

    def give_up(self, receiver: Receiver) -> None:
        """He waits no longer; nothing happens if his wait was ended already."""
        if receiver in self.receivers:
            self.receivers.remove(receiver)

    def look_again(self) -> None:
        """Permissions or the capacity have changed: who waits may not be allowed to any more, or need not."""
        for receiver in tuple(self.receivers):
            self._end(receiver, EAGAIN)
        self._wake_senders()
        self.changed_s = self._around.now_s()

    def remove(self, status: int) -> None:
        """The queue is gone with all messages; who waits to receive gets `status`."""
        self.removed = True
        for receiver in tuple(self.receivers):
            self._end(receiver, status)
        self._wake_senders()
        self._around.give_back(self.bytes + _HEADER_BYTES * len(self.messages))

    def _end(self, receiver: Receiver, result: Message | int) -> None:
        receiver.result = result
        self.receivers.remove(receiver)
        self._around.wake(receiver.queue.wake())

    def _wake_senders(self) -> None:
        if self.room.waiters:
            self._around.wake(self.room.wake())


def _size_of(message: Message) -> int:
    """What it takes of the kernel's memory."""
    return len(message.data) + _HEADER_BYTES


class MessageQueues(Table[MessageQueue]):
    """All queues of a namespace.

    Attributes:
        most_in_message: bytes (kernel.msgmax).
        capacity: of a new queue, and what only CAP_SYS_RESOURCE exceeds (kernel.msgmnb).
    """

    def __init__(self, around: IpcObjects) -> None:
        super().__init__("message queue", MSGMNI)
        self._around = around
        self.most_in_message, self.capacity = MSGMAX, MSGMNB

    def named(self, who: Credentials, key: int, flags: int) -> MessageQueue:
        """The queue called `key`, made if IPC_CREAT asks for that (msgget)."""

        def make() -> MessageQueue:
            return MessageQueue(self._around, Permissions(who, self._around.users, key, flags), self.capacity)

        return self.get(who, key, flags, make, lambda found: None)
