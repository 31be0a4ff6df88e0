"""Control messages of sendmsg(2) and recvmsg(2): open files and credentials. Sources: net/core/scm.c, cmsg(3).

`struct cmsghdr` is length (8 bytes, itself included), level and type; the next one starts at a multiple of 8.
"""

from __future__ import annotations

from errno import EBADF, EINVAL, EPERM, ESRCH
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import INIT
from loadstone.linux.capabilities import group_shown, user_shown
from loadstone.linux.of_task import pid_meant, pid_seen
from loadstone.memory.user import copy_out
from loadstone.vfs.socket_messages import NOTHING, Extra, Who

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.vfs.file import OpenFile

SOL_SOCKET = 1
SCM_RIGHTS, SCM_CREDENTIALS = 1, 2
SCM_MAX_FD = 253
MSG_CTRUNC, MSG_CMSG_CLOEXEC = 8, 0x40000000
HEADER = Struct("<Qii")
UCRED = Struct("<iII")
UNKNOWN = Who(0, 65534, 65534)  # the overflow numbers, for a sender who was not noted


def extra_in(task: Task, control: bytes) -> Extra:
    """What a control buffer says is to go along with a message; EINVAL, EBADF, EPERM, ESRCH."""
    extra = NOTHING
    at = 0
    while at + HEADER.size <= len(control):
        length, level, kind = HEADER.unpack_from(control, at)
        if length < HEADER.size or length > len(control) - at:
            raise LinuxError(EINVAL)
        data = control[at + HEADER.size : at + length]
        at += length + 7 & ~7
        if level != SOL_SOCKET:
            continue
        if kind == SCM_RIGHTS:
            extra = extra._replace(rights=extra.rights + _files(task, data))
            if len(extra.rights) > SCM_MAX_FD:
                raise LinuxError(EINVAL)
        elif kind == SCM_CREDENTIALS:
            extra = extra._replace(who=_claimed(task, data))
        else:
            raise LinuxError(EINVAL)
    return extra


def _files(task: Task, data: bytes) -> tuple[OpenFile, ...]:
    count = len(data) // 4
    if count > SCM_MAX_FD:
        raise LinuxError(EINVAL)
    numbers = Struct(f"<{count}i").unpack_from(data)
    if any(number < 0 for number in numbers):
        raise LinuxError(EBADF)
    return tuple(task.process.files.get(number) for number in numbers)


def _claimed(task: Task, data: bytes) -> Who:
    """Credentials that a sender claims: its own, or if it is root those of some process (scm_check_creds)."""
    if len(data) != UCRED.size:
        raise LinuxError(EINVAL)
    claim = _meant(task.process, Who(*UCRED.unpack(data)))
    who = task.process.credentials
    if who.euid != 0 and (
        claim.pid != task.process.pid
        or claim.uid not in (who.uid, who.euid, who.suid)
        or claim.gid not in (who.gid, who.egid, who.sgid)
    ):
        raise LinuxError(EPERM)
    kernel = task.kernel
    if claim.pid != INIT and claim.pid not in kernel.tasks and claim.pid not in kernel.processes:
        raise LinuxError(ESRCH, f"no process {claim.pid}")
    return claim


def _meant(process: Process, claim: Who) -> Who:
    """What a process says, in the machine's numbers; EINVAL for users and groups that mean nothing."""
    users = process.credentials.users
    if users is not None:
        claim = claim._replace(uid=users.uids.meant(claim.uid), gid=users.gids.meant(claim.gid))
    return claim._replace(pid=pid_meant(process, claim.pid))


def seen(process: Process, who: Who) -> Who:
    """Another process, in the numbers of the one that looks."""
    mine = process.credentials
    return Who(pid_seen(process, who.pid), user_shown(mine, who.uid), group_shown(mine, who.gid))


class ControlOut:
    """The control buffer of a receiver: what is put into it, and the flags and length that say so afterwards."""

    __slots__ = ("_address", "_left", "_size", "_task", "flags")

    def __init__(self, task: Task, address: int, size: int) -> None:
        self._task = task
        self._address = address
        self._size = self._left = size if address else 0
        self.flags = 0

    @property
    def used(self) -> int:
        """Bytes written."""
        return self._size - self._left

    def put(self, extra: Extra, wants_credentials: bool, cloexec: bool) -> None:
        """Write what came along; open files get descriptors, or are closed (scm_recv)."""
        if wants_credentials:
            self._put_message(SCM_CREDENTIALS, UCRED.pack(*seen(self._task.process, extra.who or UNKNOWN)))
        if extra.rights:
            self._put_files(extra.rights, cloexec)

    def _put_message(self, kind: int, data: bytes) -> None:
        """Source: put_cmsg()."""
        if self._left < HEADER.size:
            self.flags |= MSG_CTRUNC
            return
        length = HEADER.size + len(data)
        if self._left < length:
            self.flags |= MSG_CTRUNC
            length = self._left
        raw = HEADER.pack(length, SOL_SOCKET, kind) + data
        copy_out(self._task.process.space, self._address + self.used, raw[:length])
        self._left -= min(len(raw) + 7 & ~7, self._left)

    def _put_files(self, files: tuple[OpenFile, ...], cloexec: bool) -> None:
        """Source: scm_detach_fds()."""
        room = max(0, self._left - HEADER.size) // 4
        numbers: list[int] = []
        try:
            for file in files[:room]:
                numbers.append(self._task.process.files.install(file, cloexec=cloexec))
        except LinuxError:
            self.flags |= MSG_CTRUNC  # no more descriptors
        finally:
            for file in files:
                file.close()
        if len(numbers) < len(files):
            self.flags |= MSG_CTRUNC
        if numbers:
            self._put_message(SCM_RIGHTS, Struct(f"<{len(numbers)}i").pack(*numbers))
