"""System calls on POSIX message queues (ipc/mqueue.c)."""

from __future__ import annotations

from errno import (
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    EEXIST,
    EINVAL,
    EMSGSIZE,
    ENAMETOOLONG,
    ENOENT,
    ENOTSOCK,
    EPERM,
    ETIMEDOUT,
)
from os import fsencode
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.ipc.mqueue_files import QueueFile, QueueInode
from loadstone.linux.ipc.objects import ipc_of
from loadstone.linux.ipc.posix_queues import (
    COOKIE_BYTES,
    MQ_PRIO_MAX,
    SIGEV_NONE,
    SIGEV_SIGNAL,
    SIGEV_THREAD,
    Message,
    Notification,
    Waiter,
)
from loadstone.linux.signal.signals import HIGHEST
from loadstone.linux.structs import UINT
from loadstone.linux.syscalls.lookup import open_file, path_at
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.transfer import read_struct, read_time, write_struct
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.flags import NAME_MAX, O_ACCMODE, O_CREAT, O_EXCL, O_NONBLOCK, R_OK, S_ISVTX, W_OK, X_OK
from loadstone.vfs.inode import demand
from loadstone.vfs.netlink_sockets import NetlinkSocket
from loadstone.vfs.socket_space import SocketFile
from loadstone.wait import TIMED_OUT, Interrupted, Wait

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.ipc.mqueue_files import QueueDirectory
    from loadstone.linux.syscalls.arguments import Address, Fd, InBytes, Mode, OpenFlags, OutBytes, Path, Size, UInt
    from loadstone.wait import Blocking

_ATTRIBUTES = Struct("<4q32x")  # struct mq_attr: flags, maxmsg, msgsize, curmsgs
_SIGEVENT = Struct("<Qii48x")  # value, signal, how
_ACCESS = (R_OK, W_OK, R_OK | W_OK)


# Names


@syscall(FULL)
def mq_open(task: Task, name: Path, flags: OpenFlags, mode: Mode, attributes: Address) -> int:
    """mq_open(3), the name without its slash."""
    wanted = read_struct(task, attributes, _ATTRIBUTES)[1:3] if attributes else None
    text = _name(task, name)
    process = task.process
    process.files.free()  # EMFILE comes before anything is made
    queues = ipc_of(task).posix_queues
    demand(queues.root, X_OK, process.credentials)
    found = _find(queues.root, text)
    if found is None:
        if not flags & O_CREAT:
            raise LinuxError(ENOENT, f"no queue is called {text!r}")
        demand(queues.root, W_OK | X_OK, process.credentials)
        found = queues.root.add(text, queues.make(mode & ~process.fs.umask, process, wanted))
    elif flags & O_CREAT and flags & O_EXCL:
        raise LinuxError(EEXIST, f"there is a queue {text!r}")
    elif flags & O_ACCMODE == O_ACCMODE:
        raise LinuxError(EINVAL)
    else:
        demand(found, _ACCESS[flags & O_ACCMODE], process.credentials)
    return process.files.install(found.open(flags, None), cloexec=True)


@syscall(FULL)
def mq_unlink(task: Task, name: Path) -> int:
    """mq_unlink(3), the name without its slash."""
    text = _name(task, name)
    root, who = ipc_of(task).posix_queues.root, task.process.credentials
    demand(root, X_OK, who)
    found = _find(root, text)
    if found is None:
        raise LinuxError(ENOENT, f"no queue is called {text!r}")
    demand(root, W_OK | X_OK, who)
    if root.mode & S_ISVTX and who.fsuid not in (0, found.uid, root.uid):
        raise LinuxError(EPERM)
    root.unlink(text, found)
    return 0


def _name(task: Task, address: int) -> str:
    """One name in the file system's only directory (lookup_one_len); ENOENT for none, EACCES for a path."""
    text = path_at(task, address)
    if not text:
        raise LinuxError(ENOENT)
    if text in (".", "..") or "/" in text:
        raise LinuxError(EACCES, f"not the name of a queue: {text!r}")
    if len(fsencode(text)) > NAME_MAX:
        raise LinuxError(ENAMETOOLONG)
    return text


def _find(root: QueueDirectory, name: str) -> QueueInode | None:
    try:
        return root.lookup(name)
    except LinuxError:
        return None


# Messages


@syscall(FULL)
def mq_timedsend(task: Task, fd: Fd, buffer: InBytes, size: Size, priority: UInt, timeout: Address) -> int | Blocking:
    """mq_timedsend(3)."""
    limit = read_time(task, timeout) if timeout else None
    if priority >= MQ_PRIO_MAX:
        raise LinuxError(EINVAL, f"priority {priority}")
    file = _queue_file(task, fd)
    if not file.writable:
        raise LinuxError(EBADF)
    queue = file.node.queue
    if size > queue.most_bytes:
        raise LinuxError(EMSGSIZE, f"{size} bytes are more than {queue.most_bytes}")
    message = Message(priority, copy_in(task.process.space, buffer, size))
    if queue.full:
        if file.flags & O_NONBLOCK:
            raise LinuxError(EAGAIN)
        return _wait_to_send(task, file.node, message, _deadline(task, limit))
    queue.send(message, task.process)
    file.node.used()
    return 0


@syscall(FULL)
def mq_timedreceive(
    task: Task, fd: Fd, buffer: OutBytes, size: Size, priority: Address, timeout: Address
) -> int | Blocking:
    """mq_timedreceive(3)."""
    limit = read_time(task, timeout) if timeout else None
    file = _queue_file(task, fd)
    if not file.readable:
        raise LinuxError(EBADF)
    queue = file.node.queue
    if size < queue.most_bytes:
        raise LinuxError(EMSGSIZE, f"a message may have {queue.most_bytes} bytes")
    if not queue.count:
        if file.flags & O_NONBLOCK:
            raise LinuxError(EAGAIN)
        return _wait_to_receive(task, file.node, buffer, priority, _deadline(task, limit))
    message = queue.receive()
    file.node.used()
    return _hand_over(task, file.node, message, buffer, priority)


def _queue_file(task: Task, fd: int) -> QueueFile:
    """The queue behind a descriptor; EBADF for everything else."""
    file = open_file(task, fd)
    if not isinstance(file, QueueFile):
        raise LinuxError(EBADF, f"descriptor {fd} is no message queue")
    return file


def _deadline(task: Task, limit: int | None) -> int | None:
    """A time of CLOCK_REALTIME on CLOCK_MONOTONIC."""
    clock = task.kernel.clock
    return None if limit is None else clock.monotonic_ns() + limit - clock.realtime_ns()


def _wait_to_send(task: Task, node: QueueInode, message: Message, deadline: int | None) -> Blocking:
    """Wait until a receiver has made room and taken the message into the queue."""
    waiter = Waiter(task, message, f"room in the queue /{node.name}")
    node.queue.wait_to_send(waiter)
    yield from _wait(node, waiter, deadline)
    return 0


def _wait_to_receive(task: Task, node: QueueInode, buffer: int, priority: int, deadline: int | None) -> Blocking:
    """Wait until a sender hands over a message."""
    waiter = Waiter(task, None, f"a message in the queue /{node.name}")
    node.queue.wait_to_receive(waiter)
    yield from _wait(node, waiter, deadline)
    assert waiter.message is not None
    return _hand_over(task, node, waiter.message, buffer, priority)


def _wait(node: QueueInode, waiter: Waiter, deadline: int | None) -> Blocking:
    """Until it is done; ETIMEDOUT. What was done when a signal came stays done."""
    reason = ""
    try:
        reason = yield Wait((waiter.queue,), deadline)
    except Interrupted:
        if not waiter.done:
            raise
    finally:
        node.queue.give_up(waiter)
    if reason == TIMED_OUT and not waiter.done:
        raise LinuxError(ETIMEDOUT)
    return 0


def _hand_over(task: Task, node: QueueInode, message: Message, buffer: int, priority: int) -> int:
    """Copy a message to the program. It is lost where that cannot be (EFAULT), as in the kernel."""
    try:
        if priority:
            write_struct(task, priority, UINT, message.priority)
        copy_out(task.process.space, buffer, message.data)
    except LinuxError:
        raise
    except BaseException:  # a page is on its way: the call will be made again
        node.queue.put_back(message)
        raise
    return len(message.data)


# Settings


@syscall(FULL)
def mq_getsetattr(task: Task, fd: Fd, new: Address, old: Address) -> int:
    """mq_getattr(3) and mq_setattr(3): of the attributes only O_NONBLOCK can be set."""
    flags = read_struct(task, new, _ATTRIBUTES)[0] if new else 0
    if flags & ~O_NONBLOCK:
        raise LinuxError(EINVAL, f"flags {flags:#x}")
    file = _queue_file(task, fd)
    queue, before = file.node.queue, file.flags & O_NONBLOCK
    if new:
        file.flags = file.flags & ~O_NONBLOCK | flags
        file.node.read()
    if old:
        write_struct(task, old, _ATTRIBUTES, before, queue.most_messages, queue.most_bytes, queue.count)
    return 0


@syscall(PARTIAL, "SIGEV_THREAD tells a netlink socket, as the C library wants it; those sockets do nothing else")
def mq_notify(task: Task, fd: Fd, event: Address) -> int:
    """mq_notify(3): tell the process, once, of the next message in the empty queue; nothing takes that back."""
    wanted = _notification(task, *read_struct(task, event, _SIGEVENT)) if event else None
    node = _queue_file(task, fd).node
    told = node.queue.notification
    if wanted is None:
        if told is not None and told.process is task.process:
            node.queue.stop_telling()
            node.read()
        return 0
    if told is not None:
        raise LinuxError(EBUSY, f"process {told.process.pid} is told already")
    node.queue.notification = wanted
    node.read()
    return 0


def _notification(task: Task, value: int, signal: int, how: int) -> Notification:
    """Whom to tell and how; for SIGEV_THREAD `value` is the cookie's address and `signal` the socket's descriptor."""
    process = task.process
    if how not in (SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD) or (how == SIGEV_SIGNAL and not 0 <= signal <= HIGHEST):
        raise LinuxError(EINVAL, f"no way to be told: {how}, signal {signal}")
    if how != SIGEV_THREAD:
        return Notification(process, how, signal, value, process.image)
    cookie = copy_in(process.space, value, COOKIE_BYTES)
    file = open_file(task, signal)
    if not isinstance(file, SocketFile):
        raise LinuxError(ENOTSOCK)
    if not isinstance(file.socket, NetlinkSocket):
        raise LinuxError(EINVAL, "no netlink socket")
    return Notification(process, how, 0, value, process.image, file.socket, cookie)
