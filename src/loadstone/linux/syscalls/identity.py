"""System calls on who the process is: user and group numbers, capabilities (kernel/sys.c, kernel/capability.c).

A process whose effective user is 0 has every capability, until it gives some up.
"""

from __future__ import annotations

from errno import EINVAL, EPERM, ESRCH
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import (
    ALL_CAPABILITIES,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    Capabilities,
    capabilities_of,
    capable,
    change_user,
    group_shown,
    user_shown,
)
from loadstone.linux.of_task import pid_meant
from loadstone.linux.state import PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_GET_PDEATHSIG, process_state
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.kernel.process import Credentials, Process, Task
    from loadstone.linux.syscalls.arguments import Address, Gid, Int, Uid

KEEP = 0xFFFF_FFFF  # (uid_t) -1: leave it as it is
_WORD = Struct("<I")
_NGROUPS_MAX = 65536


@syscall(FULL)
def getuid(task: Task) -> Uid:
    """getuid(2)."""
    return task.process.credentials.uid


@syscall(FULL)
def geteuid(task: Task) -> Uid:
    """geteuid(2)."""
    return task.process.credentials.euid


@syscall(FULL)
def getgid(task: Task) -> Gid:
    """getgid(2)."""
    return task.process.credentials.gid


@syscall(FULL)
def getegid(task: Task) -> Gid:
    """getegid(2)."""
    return task.process.credentials.egid


@syscall(FULL)
def setuid(task: Task, uid: Uid) -> int:
    """setuid(2)."""
    who = task.process.credentials
    _demand_valid(uid)
    if capable(who, CAP_SETUID):
        _change_user(task, uid, uid, uid)
    elif uid in (who.uid, who.suid):
        _change_user(task, who.uid, uid, who.suid)
    else:
        raise LinuxError(EPERM)
    return 0


def _chosen(asked: Sequence[int], now: Sequence[int]) -> list[int]:
    """The numbers asked for, and the present ones where they are to be kept."""
    return [old if new == KEEP else new for new, old in zip(asked, now, strict=True)]


def _change_user(task: Task, uid: int, euid: int, suid: int) -> None:
    process = task.process
    before = _effective(process.credentials)
    keeps = process_state(process).settings.get(PR_GET_KEEPCAPS, 0)
    change_user(process.credentials, uid, euid, suid, keeps=bool(keeps))
    _changed(process, before)


def _change_group(task: Task, gid: int, egid: int, sgid: int) -> None:
    who = task.process.credentials
    before = _effective(who)
    who.gid, who.egid, who.sgid, who.fsgid = gid, egid, sgid, egid
    _changed(task.process, before)


def _effective(who: Credentials) -> tuple[int, int, int, int]:
    return who.euid, who.egid, who.fsuid, who.fsgid


def _changed(process: Process, before: tuple[int, int, int, int]) -> None:
    """If it now acts as another: what it knows is not for who it has become, nor is its parent's end (commit_creds)."""
    if _effective(process.credentials) != before:
        settings = process_state(process).settings
        settings[PR_GET_DUMPABLE] = settings[PR_GET_PDEATHSIG] = 0


@syscall(FULL)
def setgid(task: Task, gid: Gid) -> int:
    """setgid(2)."""
    who = task.process.credentials
    _demand_valid(gid)
    if capable(who, CAP_SETGID):
        _change_group(task, gid, gid, gid)
    elif gid in (who.gid, who.sgid):
        _change_group(task, who.gid, gid, who.sgid)
    else:
        raise LinuxError(EPERM)
    return 0


@syscall(FULL)
def setreuid(task: Task, uid: Uid, euid: Uid) -> int:
    """setreuid(2)."""
    who = task.process.credentials
    allowed = uid in (KEEP, who.uid, who.euid) and euid in (KEEP, who.uid, who.euid, who.suid)
    if not allowed and not capable(who, CAP_SETUID):
        raise LinuxError(EPERM)
    real, effective = _chosen((uid, euid), (who.uid, who.euid))
    saved = effective if uid != KEEP or euid not in (KEEP, who.uid) else who.suid
    _change_user(task, real, effective, saved)
    return 0


@syscall(FULL)
def setregid(task: Task, gid: Gid, egid: Gid) -> int:
    """setregid(2)."""
    who = task.process.credentials
    allowed = gid in (KEEP, who.gid, who.egid) and egid in (KEEP, who.gid, who.egid, who.sgid)
    if not allowed and not capable(who, CAP_SETGID):
        raise LinuxError(EPERM)
    real, effective = _chosen((gid, egid), (who.gid, who.egid))
    saved = effective if gid != KEEP or egid not in (KEEP, who.gid) else who.sgid
    _change_group(task, real, effective, saved)
    return 0


@syscall(FULL)
def setresuid(task: Task, uid: Uid, euid: Uid, suid: Uid) -> int:
    """setresuid(2)."""
    who = task.process.credentials
    asked, now = (uid, euid, suid), (who.uid, who.euid, who.suid)
    if any(new not in (KEEP, *now) for new in asked) and not capable(who, CAP_SETUID):
        raise LinuxError(EPERM)
    _change_user(task, *_chosen(asked, now))
    return 0


@syscall(FULL)
def setresgid(task: Task, gid: Gid, egid: Gid, sgid: Gid) -> int:
    """setresgid(2)."""
    who = task.process.credentials
    asked, now = (gid, egid, sgid), (who.gid, who.egid, who.sgid)
    if any(new not in (KEEP, *now) for new in asked) and not capable(who, CAP_SETGID):
        raise LinuxError(EPERM)
    _change_group(task, *_chosen(asked, now))
    return 0


@syscall(FULL)
def getresuid(task: Task, uid: Address, euid: Address, suid: Address) -> int:
    """getresuid(2)."""
    who = task.process.credentials
    for address, value in ((uid, who.uid), (euid, who.euid), (suid, who.suid)):
        copy_out(task.process.space, address, _WORD.pack(user_shown(who, value)))
    return 0


@syscall(FULL)
def getresgid(task: Task, gid: Address, egid: Address, sgid: Address) -> int:
    """getresgid(2)."""
    who = task.process.credentials
    for address, value in ((gid, who.gid), (egid, who.egid), (sgid, who.sgid)):
        copy_out(task.process.space, address, _WORD.pack(group_shown(who, value)))
    return 0


@syscall(FULL)
def setfsuid(task: Task, uid: Uid) -> Uid:
    """setfsuid(2): the old one, whether it changed or not."""
    who = task.process.credentials
    old, before = who.fsuid, _effective(who)
    if uid != KEEP and (capable(who, CAP_SETUID) or uid in (who.uid, who.euid, who.suid, who.fsuid)):
        who.fsuid = uid
        _changed(task.process, before)
    return old


@syscall(FULL)
def setfsgid(task: Task, gid: Gid) -> Gid:
    """setfsgid(2)."""
    who = task.process.credentials
    old, before = who.fsgid, _effective(who)
    if gid != KEEP and (capable(who, CAP_SETGID) or gid in (who.gid, who.egid, who.sgid, who.fsgid)):
        who.fsgid = gid
        _changed(task.process, before)
    return old


@syscall(FULL)
def getgroups(task: Task, size: Int, groups: Address) -> int:
    """getgroups(2)."""
    if size < 0:
        raise LinuxError(EINVAL)
    who = task.process.credentials
    numbers = [group_shown(who, number) for number in who.groups]
    if size:
        if len(numbers) > size:
            raise LinuxError(EINVAL, f"there are {len(numbers)} groups, more than {size}")
        if numbers:
            copy_out(task.process.space, groups, b"".join(_WORD.pack(number) for number in numbers))
    return len(numbers)


@syscall(FULL)
def setgroups(task: Task, size: Int, groups: Address) -> int:
    """setgroups(2)."""
    who = task.process.credentials
    if not capable(who, CAP_SETGID) or not _may_set_groups(who):
        raise LinuxError(EPERM)
    if not 0 <= size <= _NGROUPS_MAX:
        raise LinuxError(EINVAL)
    raw = copy_in(task.process.space, groups, 4 * size) if size else b""
    numbers = [number for (number,) in _WORD.iter_unpack(raw)]
    if who.users is not None:
        numbers = [who.users.gids.meant(number) for number in numbers]
    who.groups = tuple(sorted(numbers))
    return 0


def _may_set_groups(who: Credentials) -> bool:
    """Whether the user namespace allows it: once groups are mapped, and if nobody has given it up."""
    return who.users is None or (who.users.setgroups and bool(who.users.gids.extents))


# include/uapi/linux/capability.h
_VERSION_1, _VERSION_2, _VERSION_3 = 0x19980330, 0x20071026, 0x20080522
_CAPABILITY_WORDS = {_VERSION_1: 1, _VERSION_2: 2, _VERSION_3: 2}
_HEADER, _SETS = Struct("<Ii"), Struct("<III")  # effective, permitted, inheritable: 32 bits of each


@syscall(PARTIAL, "only of the calling process")
def capget(task: Task, header: Address, data: Address) -> int:
    """capget(2)."""
    words, pid = _capability_header(task, header, probe=not data)
    if not data:
        return 0
    if pid < 0:
        raise LinuxError(EINVAL)
    _own(task.process, pid)
    held = capabilities_of(task.process.credentials)
    parts = [[mask >> 32 * word & 0xFFFF_FFFF for mask in held[:3]] for word in range(words)]
    copy_out(task.process.space, data, b"".join(_SETS.pack(*part) for part in parts))
    return 0


@syscall(PARTIAL, "those on users and groups decide; what else needs privilege goes by the effective user")
def capset(task: Task, header: Address, data: Address) -> int:
    """capset(2)."""
    words, pid = _capability_header(task, header)
    if pid not in (0, task.tid):
        raise LinuxError(EPERM)
    sets = [0, 0, 0]
    for word, parts in enumerate(_SETS.iter_unpack(copy_in(task.process.space, data, _SETS.size * words))):
        for index, part in enumerate(parts):
            sets[index] |= (part << 32 * word) & ALL_CAPABILITIES
    who = task.process.credentials
    old = capabilities_of(who)
    new = Capabilities(*sets)._replace(bound=old.bound)
    may_inherit = old.inheritable | (old.bound if capable(who, CAP_SETPCAP) else old.bound & old.permitted)
    if new.effective & ~new.permitted:
        raise LinuxError(EPERM, "a capability would be effective without being permitted")
    if new.permitted & ~old.permitted or new.inheritable & ~may_inherit:
        raise LinuxError(EPERM, "a capability that the process does not have")
    who.capabilities = new
    return 0


def _capability_header(task: Task, header: Address, *, probe: bool = False) -> tuple[int, int]:
    """(words a set, pid); an unknown version is answered with ours in the header, and is no error to a `probe`."""
    version, pid = _HEADER.unpack(copy_in(task.process.space, header, _HEADER.size))
    words = _CAPABILITY_WORDS.get(version)
    if words is None:
        copy_out(task.process.space, header, _WORD.pack(_VERSION_3))
        if not probe:
            raise LinuxError(EINVAL, f"no capability version {version:#x}")
        return 2, pid
    return words, pid_meant(task.process, pid) if pid > 0 else pid


def _own(process: Process, pid: int) -> None:
    if pid and all(pid != task.tid for task in process.tasks):
        raise LinuxError(ESRCH, f"no process {pid}")


def _demand_valid(number: int) -> None:
    if number == KEEP:
        raise LinuxError(EINVAL)
