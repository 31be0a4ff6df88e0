"""Capabilities: which ones a process has, and how they go with its user numbers (security/commoncap.c).

They decide who may change users, groups and capabilities. What else needs privilege goes by the effective user number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple, Protocol

if TYPE_CHECKING:
    from loadstone.kernel.process import Credentials
    from loadstone.linux.namespaces.users import UserNamespace

LAST_CAPABILITY = 40  # CAP_CHECKPOINT_RESTORE
ALL_CAPABILITIES = (1 << LAST_CAPABILITY + 1) - 1
# include/uapi/linux/capability.h
CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN = 5, 6, 7, 8, 10, 12
CAP_IPC_LOCK, CAP_IPC_OWNER, CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_SYS_ADMIN = 14, 15, 18, 19, 21
CAP_SYS_RESOURCE, CAP_SYS_TIME, CAP_LEASE, CAP_SETFCAP, CAP_CHECKPOINT_RESTORE = 24, 25, 28, 31, 40


class Capabilities(NamedTuple):
    """The three sets, as masks. `bound`: the bounding set, the most that an exec can give."""

    effective: int
    permitted: int
    inheritable: int = 0
    bound: int = ALL_CAPABILITIES


def capabilities_of(who: Credentials) -> Capabilities:
    """What a process has: where it never changed them, what goes with its user numbers."""
    if who.capabilities is not None:
        given: Capabilities = who.capabilities
        return given
    root = _root(who)
    permitted = ALL_CAPABILITIES if root in (who.uid, who.euid, who.suid) else 0
    return Capabilities(ALL_CAPABILITIES if who.euid == root else 0, permitted)


def _root(who: Credentials) -> int:
    """The number of the user who is 0 to the process; one that nobody has if there is none in its user namespace."""
    return 0 if who.users is None else int(who.users.root)


class InNamespace(Protocol):
    """Who is in a user namespace, None for the first."""

    @property
    def users(self) -> UserNamespace | None:
        """The user namespace."""


def user_shown(who: InNamespace, number: int) -> int:
    """What a process in its user namespace sees of the user `number`."""
    return number if who.users is None else int(who.users.uids.shown(number))


def group_shown(who: InNamespace, number: int) -> int:
    """What a process in its user namespace sees of the group `number`."""
    return number if who.users is None else int(who.users.gids.shown(number))


def capable(who: Credentials, number: int) -> bool:
    """Whether capability `number` is effective in the process's own user namespace."""
    return bool(capabilities_of(who).effective >> number & 1)


def capable_in(who: Credentials, users: UserNamespace | None, number: int) -> bool:
    """Whether capability `number` counts in another user namespace, None for the machine's first (cap_capable).

    Capabilities count in the namespace that a process is in and in those below it, and who made one has all in it.
    """
    mine: UserNamespace | None = who.users
    level = mine.level if mine is not None else 0
    while users is not None and users.level > level:
        if users.level == level + 1 and users.uid == who.euid and users.is_in(mine):
            return True
        users = users.owner
    here = users is mine or (mine is None and users is not None and users.level == 0)
    return here and capable(who, number)


def change_user(who: Credentials, uid: int, euid: int, suid: int, *, keeps: bool) -> None:
    """Set the user numbers, and what becomes of the capabilities (cap_emulate_setxuid).

    `keeps`: PR_SET_KEEPCAPS was used.
    """
    before, held = (who.uid, who.euid, who.suid), capabilities_of(who)
    root = _root(who)
    who.uid, who.euid, who.suid = uid, euid, suid
    who.fsuid = euid
    if who.capabilities is None and not keeps:
        return  # they go with the numbers
    effective, permitted = held.effective, held.permitted
    if root in before and root not in (uid, euid, suid) and not keeps:
        effective = permitted = 0
    if before[1] == root and euid != root:
        effective = 0
    elif before[1] != root and euid == root:
        effective = permitted
    who.capabilities = held._replace(effective=effective, permitted=permitted)


def execute_with(who: Credentials, *, no_new: bool = False) -> None:
    """exec of a file without capabilities of its own: root has all of the bounding set again, others none.

    The saved user number is the effective one already. `no_new`: of PR_SET_NO_NEW_PRIVS, none that it has not now.
    """
    held = capabilities_of(who)
    who.capabilities = None
    if held.inheritable or held.bound != ALL_CAPABILITIES or no_new:
        fresh, most = capabilities_of(who), held.bound | held.inheritable
        if no_new:
            most &= held.permitted
        who.capabilities = held._replace(effective=fresh.effective & most, permitted=fresh.permitted & most)


def lower_bound(who: Credentials, number: int) -> None:
    """Take a capability out of the bounding set."""
    held = capabilities_of(who)
    who.capabilities = held._replace(bound=held.bound & ~(1 << number))
