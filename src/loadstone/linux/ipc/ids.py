"""What System V's three kinds of objects have in common: identifiers, keys and permissions (ipc/util.c)."""

from __future__ import annotations

from errno import EACCES, EEXIST, EINVAL, ENOENT, ENOSPC, EPERM
from itertools import chain
from struct import Struct
from typing import TYPE_CHECKING, Generic, TypeVar

from loadstone.errors import LinuxError
from loadstone.lean import Protocol
from loadstone.linux.capabilities import CAP_IPC_OWNER, CAP_SYS_ADMIN, capable_in, group_shown, user_shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadstone.kernel.process import Credentials
    from loadstone.linux.namespaces.users import UserNamespace

# include/uapi/linux/ipc.h
IPC_PRIVATE = 0
IPC_CREAT, IPC_EXCL, IPC_NOWAIT = 0o1000, 0o2000, 0o4000
IPC_RMID, IPC_SET, IPC_STAT, IPC_INFO = range(4)

MAY_READ, MAY_WRITE = 0o444, 0o222  # S_IRUGO, S_IWUGO: any of the three digits
PERMISSIONS = Struct("<i4IIH2x4x16x")  # struct ipc64_perm: key, uid, gid, cuid, cgid, mode, sequence number
MOST_IDENTIFIERS = 1 << 15  # IPCMNI

_INDEX_BITS = 15  # IPCMNI_SHIFT: an identifier is the index in the table, below how often it has wrapped
_INDEX_MASK = MOST_IDENTIFIERS - 1
_MIN_CYCLE = 64  # ipc_min_cycle: so many indices are used before the first one again
_INVALID = 0xFFFF_FFFF  # no user or group has this number


class Permissions:
    """Whose an object is and who may use it (struct kern_ipc_perm).

    Attributes:
        key: what it is found by; IPC_PRIVATE for what only its identifier leads to.
        number: its identifier; the table that takes it in gives it one.
        mode: nine permission bits, of which execution means nothing, and what a kind of object adds.
        uid, gid: the owner; cuid, cgid: the creator.
        users: the user namespace whose capabilities count; None for the machine's first.
    """

    __slots__ = ("cgid", "cuid", "gid", "key", "mode", "number", "uid", "users")

    def __init__(self, who: Credentials, users: UserNamespace | None, key: int, mode: int) -> None:
        self.users = users
        self.key = key
        self.number = -1
        self.mode = mode & 0o777
        self.uid = self.cuid = who.euid
        self.gid = self.cgid = who.egid

    def may(self, who: Credentials, wanted: int) -> bool:
        """Whether `who` may do what any of the three digits of `wanted` asks for (ipcperms)."""
        wanted = wanted >> 6 | wanted >> 3 | wanted
        granted = self.mode
        if who.euid in (self.uid, self.cuid):
            granted >>= 6
        elif {self.gid, self.cgid} & {who.fsgid, *who.groups}:
            granted >>= 3
        return not wanted & ~granted & 7 or capable_in(who, self.users, CAP_IPC_OWNER)

    def demand(self, who: Credentials, wanted: int) -> None:
        """EACCES unless `who` may do what `wanted` asks for."""
        if not self.may(who, wanted):
            raise LinuxError(EACCES)

    def demand_owner(self, who: Credentials) -> None:
        """EPERM unless `who` may change and remove the object (ipcctl_obtain_check)."""
        if who.euid not in (self.uid, self.cuid) and not capable_in(who, self.users, CAP_SYS_ADMIN):
            raise LinuxError(EPERM)

    def shown(self, who: Credentials) -> tuple[int, int, int, int]:
        """uid, gid, cuid and cgid as `who` sees them in a user namespace."""
        return (
            user_shown(who, self.uid), group_shown(who, self.gid), user_shown(who, self.cuid),
            group_shown(who, self.cgid),
        )  # fmt: skip

    def packed(self, who: Credentials) -> bytes:
        """The struct ipc64_perm as `who` sees it."""
        return PERMISSIONS.pack(self.key, *self.shown(who), self.mode, self.number >> _INDEX_BITS)

    def update(self, given: bytes, who: Credentials) -> None:
        """Take owner and permission bits of a struct ipc64_perm that `who` filled in (ipc_update_perm); EINVAL."""
        _, uid, gid, _, _, mode, _ = PERMISSIONS.unpack_from(given)
        if who.users is not None:
            uid, gid = who.users.uids.outside(uid), who.users.gids.outside(gid)
        if _INVALID in (uid, gid):
            raise LinuxError(EINVAL)
        self.uid, self.gid = uid, gid
        self.mode = self.mode & ~0o777 | mode & 0o777


class Held(Protocol):
    """What a table holds."""

    permissions: Permissions


One = TypeVar("One", bound=Held)


class Table(Generic[One]):
    """All objects of one kind, by index.

    Attributes:
        what: the kind, for a person.
        most: how many there may be.
        next_number: the identifier that the next object is to have; -1 for any (kernel.msg_next_id and its like).
    """

    def __init__(self, what: str, most: int) -> None:
        self.what = what
        self.most = most
        self.next_number = -1
        self._objects: dict[int, One] = {}
        self._by_key: dict[int, One] = {}
        self._last = -1
        self._wraps = 0

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[One]:
        """By index."""
        return (self._objects[index] for index in sorted(self._objects))

    @property
    def highest(self) -> int:
        """The highest index in use, 0 if there is none (ipc_get_maxidx as the calls return it)."""
        return max(self._objects, default=0)

    def find(self, number: int) -> One:
        """The object with an identifier; EINVAL if there is none, or another one in its place by now."""
        found = self._objects.get(number & _INDEX_MASK) if number >= 0 else None
        if found is None or found.permissions.number != number:
            raise LinuxError(EINVAL, f"no {self.what} is called {number}")
        return found

    def at(self, number: int) -> One:
        """The object at an index, which is the lower half of `number`; EINVAL."""
        found = self._objects.get(number & _INDEX_MASK) if number >= 0 else None
        if found is None:
            raise LinuxError(EINVAL, f"no {self.what} has the index {number}")
        return found

    def get(self, who: Credentials, key: int, flags: int, make: Callable[[], One], check: Callable[[One], None]) -> One:
        """The object called `key`, made if IPC_CREAT asks for that; IPC_PRIVATE is always a new one (ipcget).

        `make` gives a new one, `check` raises what forbids the use of one that exists.
        """
        found = self._by_key.get(key) if key != IPC_PRIVATE else None
        if found is None:
            if key != IPC_PRIVATE and not flags & IPC_CREAT:
                raise LinuxError(ENOENT, f"no {self.what} has the key {key:#x}")
            made = make()
            self._add(made)
            return made
        if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL:
            raise LinuxError(EEXIST, f"there is a {self.what} with the key {key:#x}")
        check(found)
        found.permissions.demand(who, flags & 0o777)
        return found

    def demand_room(self) -> None:
        """ENOSPC if no further object may be made."""
        if len(self._objects) >= min(self.most, MOST_IDENTIFIERS):
            raise LinuxError(ENOSPC, f"there are {len(self._objects)} of the kind {self.what}")

    def forget_key(self, one: One) -> None:
        """From now on only its identifier leads to an object."""
        self._by_key.pop(one.permissions.key, None)
        one.permissions.key = IPC_PRIVATE

    def remove(self, one: One) -> None:
        """Take an object out."""
        self._by_key.pop(one.permissions.key, None)
        del self._objects[one.permissions.number & _INDEX_MASK]

    def _add(self, one: One) -> None:
        self.demand_room()
        wraps, index = self._wanted() if self.next_number >= 0 else self._next()
        one.permissions.number = wraps << _INDEX_BITS | index
        self._objects[index] = one
        if one.permissions.key != IPC_PRIVATE:
            self._by_key[one.permissions.key] = one

    def _next(self) -> tuple[int, int]:
        """The next free index, beginning again after the last one (ipc_idr_alloc)."""
        end = min(max(len(self._objects) * 3 // 2, _MIN_CYCLE), self.most)
        index = self._free(chain(range(self._last + 1, end), range(end)))
        if index <= self._last:
            self._wraps += 1
        self._last = index
        return self._wraps, index

    def _wanted(self) -> tuple[int, int]:
        """What `next_number` asks for; where its index is taken, the next one that is free."""
        number, self.next_number = self.next_number, -1
        return number >> _INDEX_BITS, self._free(range(number & _INDEX_MASK, MOST_IDENTIFIERS))

    def _free(self, candidates: chain[int] | range) -> int:
        for index in candidates:
            if index not in self._objects:
                return index
        raise LinuxError(ENOSPC, f"no index is free for a {self.what}")
