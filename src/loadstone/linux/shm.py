"""System V shared memory: the segments of an IPC namespace (ipc/shm.c, ipc/util.c). Calls: `syscalls.sysv_shm`."""

from __future__ import annotations

from errno import EACCES, EEXIST, EINVAL, ENOENT, ENOSPC
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.shared import SharedMemory
from loadstone.memory.vma import PAGE, PAGE_SHIFT

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Credentials, Process

# include/uapi/linux/ipc.h, include/uapi/linux/shm.h
IPC_PRIVATE = 0
IPC_CREAT, IPC_EXCL = 0o1000, 0o2000
SHM_DEST, SHM_LOCKED = 0o1000, 0o2000
SHMMNI = 4096
SHMMAX = SHMALL = (1 << 64) - 1 - (1 << 24)

_INDEX_BITS = 15  # IPCMNI_SHIFT: an identifier is the index in the table, below how often it has wrapped
_MIN_CYCLE = 64  # ipc_min_cycle: so many indices are used before the first one again
_NS = 1_000_000_000


def page_count(size: int) -> int:
    """`size` bytes in whole pages."""
    return size + PAGE - 1 >> PAGE_SHIFT


class Segment(SharedMemory):
    """A segment. It lives until it was removed and nothing maps it any more; each VMA that maps it is an attachment.

    Attributes:
        key: IPC_PRIVATE once it was removed.
        number: its identifier.
        mode: permissions, SHM_DEST and SHM_LOCKED.
        uid, gid: the owner; cuid, cgid: the creator.
        created_by, used_by: the processes that made it, and that attached or detached it last; 0 for none.
        attached_s, detached_s, changed_s: when that was, in seconds since 1970; 0 for never.
    """

    __slots__ = (
        "_segments", "attached_s", "cgid", "changed_s", "created_by", "cuid", "detached_s", "gid", "key", "mode",
        "number", "uid", "used_by",
    )  # fmt: skip

    def __init__(self, segments: Segments, process: Process, key: int, number: int, size: int, mode: int) -> None:
        super().__init__(process.kernel.page_cache, size, number)
        who = process.credentials
        self._segments = segments
        self.key, self.number, self.mode = key, number, mode
        self.uid = self.cuid = who.euid
        self.gid = self.cgid = who.egid
        self.created_by, self.used_by = process.pid, 0
        self.attached_s = self.detached_s = 0
        self.changed_s = segments.now_s()
        self.use()  # the table's

    @property
    def path(self) -> str:
        """What /proc/PID/maps calls it."""
        return f"/SYSV{self.key & 0xFFFF_FFFF:08x}"

    @property
    def attachments(self) -> int:
        """How many VMAs map it (shm_nattch)."""
        return self.users - (not self.mode & SHM_DEST)

    @property
    def page_count(self) -> int:
        """Its size in whole pages."""
        return page_count(self.size)

    def may(self, who: Credentials, wanted: int) -> bool:
        """Whether `who` may do what any of the three digits of `wanted` asks for (kernel: ipcperms)."""
        if who.euid == 0:
            return True
        wanted = wanted >> 6 | wanted >> 3 | wanted
        granted = self.mode
        if who.euid in (self.uid, self.cuid):
            granted >>= 6
        elif {self.gid, self.cgid} & {who.egid, *who.groups}:
            granted >>= 3
        return not wanted & ~granted & 7

    def is_owner(self, who: Credentials) -> bool:
        """Whether `who` may change and remove it."""
        return who.euid in (0, self.uid, self.cuid)

    def remove(self) -> None:
        """IPC_RMID: nobody finds it by its key any more, and with the last attachment it goes."""
        if not self.mode & SHM_DEST:
            self.key, self.mode = IPC_PRIVATE, self.mode | SHM_DEST
            super().drop()
            self._forget_unused()

    def drop(self) -> None:
        """A VMA less maps it (kernel: shm_close)."""
        super().drop()
        self.used_by, self.detached_s = self._segments.current_pid(), self._segments.now_s()
        self._forget_unused()

    def _forget_unused(self) -> None:
        if not self.users:
            self._segments.forget(self)


class Segments:
    """All segments of an IPC namespace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._table: dict[int, Segment] = {}  # by index
        self._last = -1
        self._wraps = 0

    def now_s(self) -> int:
        """Seconds since 1970."""
        return self._kernel.clock.realtime_ns() // _NS

    def current_pid(self) -> int:
        """The process that runs."""
        task = self._kernel.scheduler.current
        return task.process.pid if task is not None else 0

    def get(self, process: Process, key: int, size: int, flags: int) -> Segment:
        """The segment called `key`, made if IPC_CREAT asks for that; IPC_PRIVATE is always a new one (shmget)."""
        found = None
        if key != IPC_PRIVATE:
            found = next((one for one in self._table.values() if one.key == key), None)
        if found is None:
            if key != IPC_PRIVATE and not flags & IPC_CREAT:
                raise LinuxError(ENOENT, f"no shared memory has the key {key:#x}")
            return self._make(process, key, size, flags & 0o777)
        if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL:
            raise LinuxError(EEXIST, f"there is shared memory with the key {key:#x}")
        if size > found.size:
            raise LinuxError(EINVAL, f"the segment has {found.size} bytes, not {size}")
        if not found.may(process.credentials, flags & 0o777):
            raise LinuxError(EACCES)
        return found

    def find(self, number: int) -> Segment:
        """The segment with an identifier; EINVAL if there is none, or another one in its place by now."""
        segment = self.at(number & (1 << _INDEX_BITS) - 1)
        if segment is None or segment.number != number:
            raise LinuxError(EINVAL, f"no shared memory is called {number}")
        return segment

    def at(self, index: int) -> Segment | None:
        """The segment in one place of the table."""
        return self._table.get(index)

    def usage(self) -> tuple[int, int, int, int]:
        """How many there are, the highest index (0 if there is none), their pages, and those in memory."""
        held = [one for one in self._table.values() if one.pages is not None]
        resident = sum(len(one.pages.frames) for one in held if one.pages is not None)
        pages = sum(one.page_count for one in self._table.values())
        return len(self._table), max(self._table, default=0), pages, resident

    def forget(self, segment: Segment) -> None:
        """Take a segment out whose last user has gone."""
        self._kernel.commitment.uncharge(segment.page_count)
        del self._table[segment.number & (1 << _INDEX_BITS) - 1]

    def remove_all(self) -> None:
        """Nobody finds them any more; those that are mapped stay as long as they are."""
        if not self._kernel.memory.closed:
            for segment in list(self._table.values()):
                segment.remove()

    def _make(self, process: Process, key: int, size: int, mode: int) -> Segment:
        if not 1 <= size <= SHMMAX:
            raise LinuxError(EINVAL, f"a segment of {size} bytes")
        if len(self._table) >= SHMMNI:
            raise LinuxError(ENOSPC, f"there are {SHMMNI} segments (kernel.shmmni)")
        self._kernel.commitment.charge(page_count(size), 0, process.credentials.euid == 0)
        index = self._next_index()
        number = self._wraps << _INDEX_BITS | index
        segment = self._table[index] = Segment(self, process, key, number, size, mode)
        return segment

    def _next_index(self) -> int:
        """The next free index, beginning again after the last one (kernel: ipc_idr_alloc)."""
        end = max(len(self._table) * 3 // 2, _MIN_CYCLE)
        order = (*range(self._last + 1, end), *range(self._last + 1))
        index: int = next(index for index in order if index not in self._table)
        if index <= self._last:
            self._wraps += 1
        self._last = index
        return index
