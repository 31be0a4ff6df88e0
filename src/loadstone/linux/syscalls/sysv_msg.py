"""System calls on System V message queues (ipc/msg.c)."""

from __future__ import annotations

from errno import E2BIG, EAGAIN, EIDRM, EINVAL, ENOMSG, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SYS_RESOURCE, capable_in
from loadstone.linux.ipc.ids import (
    IPC_INFO,
    IPC_NOWAIT,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    MAY_READ,
    MAY_WRITE,
    PERMISSIONS,
)
from loadstone.linux.ipc.message_queues import (
    MSG_COPY,
    MSG_EXCEPT,
    MSG_NOERROR,
    MSGMNB,
    MSGMNI,
    Message,
    MessageQueue,
    Receiver,
    Wanted,
)
from loadstone.linux.ipc.objects import ipc_of
from loadstone.linux.of_task import pid_seen
from loadstone.linux.signal.restart import ERESTARTNOHAND, Restart
from loadstone.linux.syscalls.registry import FULL, syscall
from loadstone.linux.syscalls.transfer import read_struct
from loadstone.memory.user import copy_in, copy_out
from loadstone.wait import Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Int, Long, UHex
    from loadstone.wait import Blocking

# include/uapi/linux/msg.h
MSG_STAT, MSG_INFO, MSG_STAT_ANY = 11, 12, 13
_LIMITS = Struct("<7iH2x")  # struct msginfo: pool, map, max, mnb, mni, ssz, tql, seg
_MSGSSZ, _MSGSEG = 16, 0xFFFF
_KIND = Struct("<q")  # of a struct msgbuf, in front of the bytes
_REST = Struct("<3q3Q2i16x")  # of a struct msqid64_ds after the permissions
_CAPACITY = Struct("<24x16xQ24x")  # of that, what IPC_SET takes

_LONG_MAX = (1 << 63) - 1
_INT_MAX = (1 << 31) - 1


@syscall(FULL)
def msgget(task: Task, key: Int, flags: UHex) -> int:
    """msgget(2)."""
    return ipc_of(task).queues.named(task.process.credentials, key, flags).permissions.number


@syscall(FULL)
def msgsnd(task: Task, number: Int, buffer: Address, size: Long, flags: UHex) -> int | Blocking:
    """msgsnd(2)."""
    queues, space = ipc_of(task).queues, task.process.space
    (kind,) = read_struct(task, buffer, _KIND)
    if not 0 <= size <= queues.most_in_message or number < 0:
        raise LinuxError(EINVAL, f"a message of {size} bytes")
    if kind < 1:
        raise LinuxError(EINVAL, f"a message of kind {kind}")
    message = Message(kind, copy_in(space, buffer + _KIND.size, size))
    queue = queues.find(number)
    if not _may_send(task, queue, message, flags):
        return _wait_to_send(task, queue, message, flags)
    queue.send(message, task.process.pid)
    return 0


def _may_send(task: Task, queue: MessageQueue, message: Message, flags: int) -> bool:
    """Whether the message can be sent now; EACCES, and EAGAIN if it must not wait."""
    queue.permissions.demand(task.process.credentials, MAY_WRITE)
    if queue.fits(message):
        return True
    if flags & IPC_NOWAIT:
        raise LinuxError(EAGAIN, "the queue is full")
    return False


def _wait_to_send(task: Task, queue: MessageQueue, message: Message, flags: int) -> Blocking:
    """Wait until there is room."""
    queue.room.what = f"room in message queue {queue.permissions.number}"
    while True:
        try:
            yield Wait((queue.room,))
        except Interrupted:
            if not queue.removed:
                raise Restart(ERESTARTNOHAND) from None
        if queue.removed:
            raise LinuxError(EIDRM)
        if _may_send(task, queue, message, flags):
            queue.send(message, task.process.pid)
            return 0


@syscall(FULL)
def msgrcv(task: Task, number: Int, buffer: Address, size: Long, kind: Long, flags: UHex) -> int | Blocking:
    """msgrcv(2)."""
    if number < 0 or size < 0:
        raise LinuxError(EINVAL)
    if flags & MSG_COPY:
        return _copy(task, number, buffer, size, kind, flags)
    queue = ipc_of(task).queues.find(number)
    wanted = _wanted(kind, flags)
    found = _find(task, queue, wanted, size, flags)
    if found is None:
        return _wait_to_receive(task, queue, buffer, size, wanted, flags)
    queue.take(found, task.process.pid)
    return _hand_over(task, queue, found, buffer, size)


def _wanted(kind: int, flags: int) -> Wanted:
    """Which message: any (0), one of a kind, one not of a kind, or the least of some kinds (a negative number)."""
    if kind == 0:
        return Wanted(-_LONG_MAX, _LONG_MAX)
    if kind < 0:
        return Wanted(-_LONG_MAX, min(-kind, _LONG_MAX), least=True)
    return Wanted(kind, kind, others=bool(flags & MSG_EXCEPT))


def _find(task: Task, queue: MessageQueue, wanted: Wanted, size: int, flags: int) -> Message | None:
    """The message to receive now; None if one must be waited for. EACCES, E2BIG, ENOMSG."""
    queue.permissions.demand(task.process.credentials, MAY_READ)
    found = queue.find(wanted)
    if found is None and flags & IPC_NOWAIT:
        raise LinuxError(ENOMSG)
    if found is not None and len(found.data) > size and not flags & MSG_NOERROR:
        raise LinuxError(E2BIG, f"the message has {len(found.data)} bytes")
    return found


def _wait_to_receive(task: Task, queue: MessageQueue, buffer: int, size: int, wanted: Wanted, flags: int) -> Blocking:
    """Wait until somebody sends what is wanted."""
    pid = task.process.pid
    most = _INT_MAX if flags & MSG_NOERROR else size
    while True:
        receiver = Receiver(wanted, most, pid, f"a message in queue {queue.permissions.number}")
        queue.wait_for(receiver)
        try:
            yield Wait((receiver.queue,))
        except Interrupted:
            if receiver.result is None:
                raise Restart(ERESTARTNOHAND) from None
        finally:
            queue.give_up(receiver)
        result = receiver.result
        if isinstance(result, Message):
            return _hand_over(task, queue, result, buffer, size)
        if result != EAGAIN:
            assert result is not None
            raise LinuxError(result)
        found = _find(task, queue, wanted, size, flags)
        if found is not None:
            queue.take(found, pid)
            return _hand_over(task, queue, found, buffer, size)


def _hand_over(task: Task, queue: MessageQueue, message: Message, buffer: int, size: int) -> int:
    """Copy a message to the program. It is lost where that cannot be (EFAULT), as in the kernel."""
    try:
        copy_out(task.process.space, buffer, _KIND.pack(message.kind))
        copy_out(task.process.space, buffer + _KIND.size, message.data[:size])
    except LinuxError:
        raise
    except BaseException:  # a page is on its way: the call will be made again
        queue.put_back(message)
        raise
    return min(size, len(message.data))


def _copy(task: Task, number: int, buffer: int, size: int, index: int, flags: int) -> int:
    """MSG_COPY: the message at a place in the queue, which stays there."""
    if flags & MSG_EXCEPT or not flags & IPC_NOWAIT:
        raise LinuxError(EINVAL, "MSG_COPY goes with IPC_NOWAIT, and not with MSG_EXCEPT")
    queues, space = ipc_of(task).queues, task.process.space
    most = min(size, queues.most_in_message)
    copy_in(space, buffer, most)  # prepare_copy() makes its message from what is there
    queue = queues.find(number)
    queue.permissions.demand(task.process.credentials, MAY_READ)
    if not 0 <= index < len(queue.messages):
        raise LinuxError(ENOMSG)
    message = queue.messages[index]
    if len(message.data) > size and not flags & MSG_NOERROR:
        raise LinuxError(E2BIG, f"the message has {len(message.data)} bytes")
    if len(message.data) > most:
        raise LinuxError(EINVAL, "the buffer is too short for a copy")
    copy_out(space, buffer, _KIND.pack(message.kind))
    copy_out(space, buffer + _KIND.size, message.data)
    return len(message.data)


@syscall(FULL)
def msgctl(task: Task, number: Int, command: Int, buffer: Address) -> int:
    """msgctl(2)."""
    if number < 0 or command < 0:
        raise LinuxError(EINVAL)
    if command in (IPC_INFO, MSG_INFO):
        return _tell_limits(task, command, buffer)
    if command in (IPC_STAT, MSG_STAT, MSG_STAT_ANY):
        return _tell(task, number, command, buffer)
    if command == IPC_SET:
        return _change(task, number, buffer)
    if command == IPC_RMID:
        return _remove(task, number)
    raise LinuxError(EINVAL, f"no such command: {command}")


def _tell_limits(task: Task, command: int, buffer: int) -> int:
    """The struct msginfo, and the highest index in use."""
    queues = ipc_of(task).queues
    pool, headers, total = MSGMNI * MSGMNB // 1024, MSGMNB, MSGMNB
    if command == MSG_INFO:
        pool = len(queues)
        headers, total = sum(len(one.messages) for one in queues), sum(one.bytes for one in queues)
    limits = (pool, headers, queues.most_in_message, queues.capacity, queues.most, _MSGSSZ, total, _MSGSEG)
    copy_out(task.process.space, buffer, _LIMITS.pack(*limits))
    return queues.highest


def _tell(task: Task, number: int, command: int, buffer: int) -> int:
    """The struct msqid64_ds of a queue; the two commands that go by the index return its identifier."""
    queues, process = ipc_of(task).queues, task.process
    q = queues.find(number) if command == IPC_STAT else queues.at(number)
    if command != MSG_STAT_ANY:
        q.permissions.demand(task.process.credentials, MAY_READ)
    sender, receiver = pid_seen(process, q.sender), pid_seen(process, q.receiver)
    rest = _REST.pack(
        q.sent_s, q.received_s, q.changed_s, q.bytes, len(q.messages), q.capacity, sender, receiver
    )  # fmt: skip
    copy_out(task.process.space, buffer, q.permissions.packed(process.credentials) + rest)
    return 0 if command == IPC_STAT else q.permissions.number


def _change(task: Task, number: int, buffer: int) -> int:
    """IPC_SET: owner, permissions and capacity."""
    given = copy_in(task.process.space, buffer, PERMISSIONS.size + _REST.size)
    who = task.process.credentials
    queues = ipc_of(task).queues
    queue = queues.find(number)
    queue.permissions.demand_owner(who)
    (capacity,) = _CAPACITY.unpack_from(given, PERMISSIONS.size)
    if capacity > queues.capacity and not capable_in(who, None, CAP_SYS_RESOURCE):
        raise LinuxError(EPERM, f"{capacity} bytes are more than {queues.capacity} (kernel.msgmnb)")
    queue.permissions.update(given, who)
    queue.capacity = capacity
    queue.look_again()
    return 0


def _remove(task: Task, number: int) -> int:
    """IPC_RMID."""
    queues = ipc_of(task).queues
    queue = queues.find(number)
    queue.permissions.demand_owner(task.process.credentials)
    queues.remove(queue)
    queue.remove(EIDRM)
    return 0
