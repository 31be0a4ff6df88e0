"""UTS namespaces: the name of the machine and of its domain (kernel/utsname.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.clone_flags import CLONE_NEWUTS
from loadstone.linux.namespaces.base import Namespace

if TYPE_CHECKING:
    from loadstone.linux.namespaces.users import UserNamespace

LONGEST = 64  # __NEW_UTS_LEN, in bytes


class UtsNamespace(Namespace):
    """The two names that uname(2) tells."""

    __slots__ = ("domainname", "nodename")

    kind = "uts"
    flag = CLONE_NEWUTS

    def __init__(self, number: int, owner: UserNamespace, nodename: str, domainname: str) -> None:
        super().__init__(number, owner)
        self.nodename = nodename
        self.domainname = domainname

    def copy(self, number: int, owner: UserNamespace) -> UtsNamespace:
        """A new one begins with the names of the old one."""
        return UtsNamespace(number, owner, self.nodename, self.domainname)
