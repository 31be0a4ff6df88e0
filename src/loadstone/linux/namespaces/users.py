"""User namespaces: whose user and group numbers, and whose capabilities, mean what (kernel/user_namespace.c).

Inside Loadstone a user or group number is always one of the machine's first namespace. What programs say and see in
another one is translated where it comes in and goes out, by the maps that /proc/PID/uid_map and gid_map set.
"""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING, Any

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.capabilities import capable
from loadstone.linux.clone_flags import CLONE_NEWUSER
from loadstone.linux.namespaces.base import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadstone.kernel.process import Credentials
    from loadstone.vfs.inode import Inode

OVERFLOW = 65534  # kernel.overflowuid: what is shown of numbers that mean nothing
NOBODY = 0xFFFF_FFFF  # (uid_t) -1: no user and no group
DEEPEST = 32  # the level of a user namespace in which there can be another one


class Extent(NamedTuple):
    """`size` numbers from `first` on are, in the machine's first namespace, those from `lower` on."""

    first: int
    lower: int
    size: int


class IdMap:
    """What numbers mean outside, and what those outside are called here."""

    __slots__ = ("extents",)

    def __init__(self, extents: Iterable[Extent] = ()) -> None:
        self.extents = tuple(extents)

    def outside(self, number: int) -> int:
        """The machine's number for one that a program said; NOBODY if it means nothing (make_kuid)."""
        for first, lower, size in self.extents:
            if first <= number < first + size:
                return lower + number - first
        return NOBODY

    def inside(self, number: int) -> int:
        """What the machine's number is called here; NOBODY if it is not mapped (from_kuid)."""
        for first, lower, size in self.extents:
            if lower <= number < lower + size:
                return first + number - lower
        return NOBODY

    def shown(self, number: int) -> int:
        """As `inside`; for a number that is not mapped the overflow number (from_kuid_munged)."""
        found = self.inside(number)
        return found if found != NOBODY else OVERFLOW

    def meant(self, number: int) -> int:
        """As `outside`, for the argument of a call: -1 stays -1, and a number that means nothing is EINVAL."""
        if number == NOBODY:
            return number
        found = self.outside(number)
        if found == NOBODY:
            raise LinuxError(EINVAL, f"{number} is not mapped in the user namespace")
        return found


EVERYTHING = IdMap([Extent(0, 0, NOBODY)])


class UserNamespace(Namespace):
    """A user namespace. `owner` is the one that it was made in, None for the machine's first.

    Attributes:
        level: how many there are above it.
        uid, gid: the effective user and group of who made it, as the machine counts them.
        uids, gids: its maps; empty until somebody writes them.
        setgroups: whether setgroups(2) may be used once there is a map of groups.
        may_set_file_capabilities: whether who made it had CAP_SETFCAP, without which nobody maps root of the parent.
    """

    __slots__ = ("gid", "gids", "level", "may_set_file_capabilities", "setgroups", "uid", "uids")

    kind = "user"
    flag = CLONE_NEWUSER

    def __init__(self, number: int, owner: UserNamespace | None, uid: int = 0, gid: int = 0) -> None:
        super().__init__(number, owner)
        self.level: int = owner.level + 1 if owner is not None else 0
        self.uid = uid
        self.gid = gid
        self.uids = self.gids = EVERYTHING if owner is None else IdMap()
        self.setgroups: bool = owner is None or owner.setgroups
        self.may_set_file_capabilities = False

    @property
    def root(self) -> int:
        """The machine's number of the user who is 0 here; NOBODY while there is none."""
        return self.uids.outside(0)

    def rules(self, who: Credentials, inode: Inode, capability: int) -> bool:
        """Whether a capability that counts here counts on a file: its owner and group must be mapped, too.

        Source: kernel/capability.c, privileged_wrt_inode_uidgid().
        """
        if NOBODY in (self.uids.inside(inode.uid), self.gids.inside(inode.gid)):
            return False
        return capable(who, capability)

    def is_in(self, users: UserNamespace | None) -> bool:
        """Whether it was made in `users`, None for the machine's first."""
        return self.owner is users or (users is None and self.level == 1)

    def is_below(self, users: UserNamespace) -> bool:
        """Whether it is `users`, or was made in it or below it."""
        one: UserNamespace | None = self
        while one is not None and one is not users:
            one = one.owner
        return one is not None


class Seen:
    """The attributes of a file, its owner and group as a user namespace shows them."""

    __slots__ = ("_inode", "gid", "uid")

    def __init__(self, inode: Inode, users: UserNamespace) -> None:
        self._inode = inode
        self.uid = users.uids.shown(inode.uid)
        self.gid = users.gids.shown(inode.gid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inode, name)
