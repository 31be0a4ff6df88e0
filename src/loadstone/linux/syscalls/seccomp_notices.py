"""The ioctls of a seccomp listener (kernel/seccomp.c: seccomp_notify_ioctl; `man 2 seccomp_unotify`)."""

from __future__ import annotations

from errno import E2BIG, EBADF, EBUSY, EINPROGRESS, EINVAL, ENOENT
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import pid_seen
from loadstone.linux.seccomp.notices import ANSWERED, FLAG_CONTINUE, FRESH, RECEIVED, Addition
from loadstone.linux.structs import WORD
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.seccomp import NOTICE_SIZE
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.flags import O_CLOEXEC, POLLOUT, POLLWRNORM
from loadstone.wait import Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.seccomp.notices import Listener, Notice
    from loadstone.wait import Blocking

    # (the caller, the file, the argument) -> the result
    Act = Callable[[Task, Listener, int], int | Blocking]

# include/uapi/linux/seccomp.h
RECV, SEND, ID_VALID, SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40082104
_ID_VALID_ONCE = 0x80082102  # its number before Linux 5.5, with the wrong direction
_ADDFD, _WITHOUT_SIZE = 0x2103, 0x0000_FFFF
_SIZE_SHIFT, _SIZE_MASK = 16, 0x3FFF
_PAGE = 4096
_ADDFD_SETFD, _ADDFD_SEND = 1, 2
_SYNC_WAKE_UP = 1
_HEAD = Struct("<QII")  # of struct seccomp_notif: id, pid, flags
_ANSWER = Struct("<QqiI")  # struct seccomp_notif_resp: id, val, error, flags
_ADDITION = Struct("<QIIII")  # struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags


def answer(task: Task, listener: Listener, request: int, argument: int) -> int | Blocking:
    """One ioctl on a listener. Raises LinuxError."""
    act = _ACTS.get(request)
    if act is not None:
        return act(task, listener, argument)
    if request & _WITHOUT_SIZE == _ADDFD:
        return _add(task, listener, argument, request >> _SIZE_SHIFT & _SIZE_MASK)
    raise LinuxError(EINVAL, f"a seccomp listener has no request {request:#x}")


def _receive(task: Task, listener: Listener, argument: int) -> Blocking:
    """The next call, when there is one; ENOENT if it has gone meanwhile, or nobody is left to make one."""
    space = task.process.space
    if any(copy_in(space, argument, NOTICE_SIZE)):
        raise LinuxError(EINVAL, "struct seccomp_notif must be all zeros")
    while not listener.requests and listener.filter.users:
        assert listener.read_queue is not None
        yield Wait((listener.read_queue,))
    listener.requests = max(listener.requests - 1, 0)
    notice = next((notice for notice in listener.notices if notice.state == FRESH), None)
    if notice is None:
        raise LinuxError(ENOENT, "no call waits to be received")
    notice.state = RECEIVED
    listener.tell(POLLOUT | POLLWRNORM)
    head = _HEAD.pack(notice.id, pid_seen(task.process, notice.task.tid), 0)
    try:
        copy_out(space, argument, head + notice.data)
    except LinuxError:
        if listener.filter.waits_killable:  # it is to hear of signals again
            notice.happened()
        notice.state = FRESH
        listener.again()
        raise
    return 0


def _send(task: Task, listener: Listener, argument: int) -> int:
    """The answer to a call that was received, or that it may go on."""
    number, value, error, flags = _ANSWER.unpack(copy_in(task.process.space, argument, _ANSWER.size))
    if flags & ~FLAG_CONTINUE or (flags and (error or value)):
        raise LinuxError(EINVAL, "unknown flags, or an answer to a call that is to go on")
    _received(listener, number).answer(error, value, flags)
    return 0


def _received(listener: Listener, number: int) -> Notice:
    """A call that was received and not answered; ENOENT, EINPROGRESS."""
    notice = listener.find(number)
    if notice.state != RECEIVED:
        raise LinuxError(EINPROGRESS, "the call was not received, or is answered already")
    return notice


def _check_id(task: Task, listener: Listener, argument: int) -> int:
    (number,) = WORD.unpack(copy_in(task.process.space, argument, WORD.size))
    if listener.find(number).state != RECEIVED:
        raise LinuxError(ENOENT, "the call is not being worked on")
    return 0


def _set_flags(task: Task, listener: Listener, argument: int) -> int:
    """SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP says on which CPU to go on, which changes nothing here."""
    if argument & ~_SYNC_WAKE_UP:
        raise LinuxError(EINVAL, f"listener flags {argument:#x}")
    return 0


def _add(task: Task, listener: Listener, argument: int, size: int) -> Blocking:
    """Have a file of the caller's opened by who waits; its number there, once that has been done."""
    number, flags, source, wanted, file_flags = _read_addition(task, argument, size)
    if file_flags & ~O_CLOEXEC or flags & ~(_ADDFD_SETFD | _ADDFD_SEND) or (wanted and not flags & _ADDFD_SETFD):
        raise LinuxError(EINVAL, "flags of struct seccomp_notif_addfd")
    file = open_file(task, source)
    notice = _received(listener, number)
    answers = bool(flags & _ADDFD_SEND)
    if answers:
        if notice.additions:
            raise LinuxError(EBUSY, "other files are still to be opened")
        notice.state = ANSWERED
    addition = Addition(file, wanted if flags & _ADDFD_SETFD else -1, cloexec=bool(file_flags), answers=answers)
    file.hold()
    notice.additions.insert(0, addition)
    notice.happened()
    try:
        while addition.result is None:
            yield Wait((addition.done,))
    finally:
        if addition in notice.additions:
            notice.additions.remove(addition)
        file.close()
    if addition.result < 0:
        raise LinuxError(-addition.result)
    return addition.result


def _read_addition(task: Task, argument: int, size: int) -> tuple[int, int, int, int, int]:
    """struct seccomp_notif_addfd, of `size` bytes (copy_struct_from_user)."""
    if not _ADDITION.size <= size < _PAGE:
        raise LinuxError(EINVAL, f"a struct seccomp_notif_addfd of {size} bytes")
    data = copy_in(task.process.space, argument, size)
    if any(data[_ADDITION.size :]):
        raise LinuxError(E2BIG, "fields that this kernel does not know")
    number, flags, source, wanted, file_flags = _ADDITION.unpack_from(data)
    if source >> 31:
        raise LinuxError(EBADF)
    return number, flags, source, wanted, file_flags


_ACTS: dict[int, Act] = {
    RECV: _receive,
    SEND: _send,
    ID_VALID: _check_id,
    _ID_VALID_ONCE: _check_id,
    SET_FLAGS: _set_flags,
}
