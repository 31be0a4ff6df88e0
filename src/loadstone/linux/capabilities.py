"""Capabilities: which ones a process has, and how they go with its user numbers (security/commoncap.c).

They decide who may change users, groups and capabilities. What else needs privilege goes by the effective user number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple

if TYPE_CHECKING:
    from loadstone.kernel.process import Credentials

LAST_CAPABILITY = 40  # CAP_CHECKPOINT_RESTORE
ALL_CAPABILITIES = (1 << LAST_CAPABILITY + 1) - 1
CAP_SETGID, CAP_SETUID = 6, 7  # include/uapi/linux/capability.h


class Capabilities(NamedTuple):
    """The three sets, as masks."""

    effective: int
    permitted: int
    inheritable: int = 0


def capabilities_of(who: Credentials) -> Capabilities:
    """What a process has: where it never changed them, what goes with its user numbers."""
    if who.capabilities is not None:
        given: Capabilities = who.capabilities
        return given
    permitted = ALL_CAPABILITIES if 0 in (who.uid, who.euid, who.suid) else 0
    return Capabilities(ALL_CAPABILITIES if who.euid == 0 else 0, permitted)


def capable(who: Credentials, number: int) -> bool:
    """Whether capability `number` is effective."""
    return bool(capabilities_of(who).effective >> number & 1)


def change_user(who: Credentials, uid: int, euid: int, suid: int, *, keeps: bool) -> None:
    """Set the user numbers, and what becomes of the capabilities (cap_emulate_setxuid).

    `keeps`: PR_SET_KEEPCAPS was used.
    """
    before, held = (who.uid, who.euid, who.suid), capabilities_of(who)
    who.uid, who.euid, who.suid = uid, euid, suid
    who.fsuid = euid
    if who.capabilities is None and not keeps:
        return  # they go with the numbers
    effective, permitted = held.effective, held.permitted
    if 0 in before and 0 not in (uid, euid, suid) and not keeps:
        effective = permitted = 0
    if before[1] == 0 and euid != 0:
        effective = 0
    elif before[1] != 0 and euid == 0:
        effective = permitted
    who.capabilities = Capabilities(effective, permitted, held.inheritable)


def execute_with(who: Credentials) -> None:
    """exec of a file without capabilities of its own: root has all again, others none; what is inheritable stays."""
    inheritable = capabilities_of(who).inheritable
    who.capabilities = None
    if inheritable:
        permitted = ALL_CAPABILITIES if 0 in (who.uid, who.euid) else 0
        who.capabilities = Capabilities(ALL_CAPABILITIES if who.euid == 0 else 0, permitted, inheritable)
