"""User namespaces: whose user and group numbers, and whose capabilities, mean what (kernel/user_namespace.c)."""

from __future__ import annotations

from loadstone.linux.clone import CLONE_NEWUSER
from loadstone.linux.namespaces.base import Namespace


class UserNamespace(Namespace):
    """A user namespace. `owner` is the one that it was made in, None for the machine's first.

    Attributes:
        level: how many there are above it.
        uid, gid: the effective user and group of who made it, as the machine counts them.
    """

    __slots__ = ("gid", "level", "uid")

    kind = "user"
    flag = CLONE_NEWUSER

    def __init__(self, number: int, owner: UserNamespace | None, uid: int = 0, gid: int = 0) -> None:
        super().__init__(number, owner)
        self.level: int = owner.level + 1 if owner is not None else 0
        self.uid = uid
        self.gid = gid

    def is_in(self, users: UserNamespace | None) -> bool:
        """Whether it was made in `users`, None for the machine's first."""
        return self.owner is users or (users is None and self.level == 1)
