"""What namespaces of every kind have in common (include/linux/ns_common.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from loadstone.linux.namespaces.users import UserNamespace

# include/uapi/linux/nsfs.h: the numbers of the namespaces that are there when a machine starts
FIRST_IPC, FIRST_UTS, FIRST_USER, FIRST_PID = 0xEFFFFFFF, 0xEFFFFFFE, 0xEFFFFFFD, 0xEFFFFFFC
FIRST_CGROUP, FIRST_TIME, FIRST_NET, FIRST_MOUNT = 0xEFFFFFFB, 0xEFFFFFFA, 0xEFFFFFF9, 0xEFFFFFF8
FIRST_LATER = 0xF0000000  # PROC_DYNAMIC_FIRST: those of namespaces that programs make


class Namespace:
    """One namespace.

    Attributes:
        number: its inode number in nsfs, by which programs tell whether two are the same.
        owner: the user namespace whose privileges count in it.
    """

    __slots__ = ("number", "owner")

    kind: ClassVar[str] = ""  # what /proc/PID/ns/* say before the number
    flag: ClassVar[int] = 0  # the CLONE_NEW… flag that makes one

    def __init__(self, number: int, owner: UserNamespace | None) -> None:
        self.number = number
        self.owner = owner

    @property
    def name(self) -> str:
        """As /proc/PID/ns/* show it: `uts:[4026531838]`."""
        return f"{self.kind}:[{self.number}]"
