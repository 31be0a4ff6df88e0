"""Capabilities, as far as there are any: root has all of them, others none (include/uapi/linux/capability.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadstone.kernel.process import Credentials

LAST_CAPABILITY = 40  # CAP_CHECKPOINT_RESTORE
ALL_CAPABILITIES = (1 << LAST_CAPABILITY + 1) - 1


def held(who: Credentials) -> int:
    """The effective and permitted capabilities, as a mask."""
    return ALL_CAPABILITIES if who.euid == 0 else 0
