"""System V shared memory: the segments of an IPC namespace (ipc/shm.c). The calls are in `syscalls.sysv_shm`."""

from __future__ import annotations

from errno import EINVAL, ENOMEM, ENOSPC, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_IPC_LOCK, capable
from loadstone.linux.ipc.ids import Permissions, Table
from loadstone.linux.state import process_state
from loadstone.memory.shared import SharedMemory
from loadstone.memory.vma import PAGE, PAGE_SHIFT

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Credentials, Process
    from loadstone.linux.namespaces.users import UserNamespace

# include/uapi/linux/shm.h, kept in the mode of a segment's permissions
SHM_DEST, SHM_LOCKED = 0o1000, 0o2000
SHM_HUGETLB = 0o4000
_HUGE_SHIFT = 26  # SHM_HUGE_SHIFT
_HUGE_SIZES = (0, 21, 30)  # of x86-64, as powers of two; 0 for the usual one
SHMMNI = 4096
SHMMAX = SHMALL = (1 << 64) - 1 - (1 << 24)

_NS = 1_000_000_000


def page_count(size: int) -> int:
    """`size` bytes in whole pages."""
    return size + PAGE - 1 >> PAGE_SHIFT


class Segment(SharedMemory):
    """A segment. It lives until it was removed and nothing maps it any more; each VMA that maps it is an attachment.

    Attributes:
        permissions: the mode has SHM_DEST once it was removed, and SHM_LOCKED.
        is_orphan: the process that made it has ended.
        created_by, used_by: the processes that made it, and that attached or detached it last; 0 for none.
        attached_s, detached_s, changed_s: when that was, in seconds since 1970; 0 for never.
    """

    __slots__ = (
        "_segments", "attached_s", "changed_s", "created_by", "detached_s", "is_orphan", "permissions", "used_by",
    )  # fmt: skip

    def __init__(self, segments: Segments, process: Process, permissions: Permissions, size: int) -> None:
        super().__init__(process.kernel.page_cache, size, 0)
        self._segments = segments
        self.permissions = permissions
        self.created_by, self.used_by = process.pid, 0
        self.is_orphan = False
        process_state(process).segments.append(self)
        self.attached_s = self.detached_s = 0
        self.changed_s = segments.now_s()
        self.use()  # the table's

    @property
    def path(self) -> str:
        """What /proc/PID/maps calls it."""
        return f"/SYSV{self.permissions.key & 0xFFFF_FFFF:08x}"

    @property
    def attachments(self) -> int:
        """How many VMAs map it (shm_nattch)."""
        return self.users - (not self.permissions.mode & SHM_DEST)

    @property
    def page_count(self) -> int:
        """Its size in whole pages."""
        return page_count(self.size)

    @property
    def resident_pages(self) -> int:
        """Its pages that are in memory."""
        return len(self.pages.frames) if self.pages is not None else 0

    def remove(self) -> None:
        """IPC_RMID: nobody finds it by its key any more, and with the last attachment it goes."""
        if not self.permissions.mode & SHM_DEST:
            self.permissions.mode |= SHM_DEST
            self._segments.forget_key(self)
            super().drop()
            self._forget_unused()

    def remove_if_unused(self) -> None:
        """Where kernel.shm_rmid_forced says so, it goes when nobody maps it (shm_may_destroy)."""
        if self._segments.removes_unused and not self.attachments:
            self.remove()

    def creator_ended(self) -> None:
        """The process that made it has ended (exit_shm)."""
        self.is_orphan = True
        self.remove_if_unused()

    def drop(self) -> None:
        """A VMA less maps it (kernel: shm_close)."""
        super().drop()
        self.used_by, self.detached_s = self._segments.current_pid(), self._segments.now_s()
        if self.permissions.mode & SHM_DEST:
            self._forget_unused()
        else:
            self.remove_if_unused()

    def _forget_unused(self) -> None:
        if not self.users:
            self._segments.forget(self)


def _refuse_huge(who: Credentials, flags: int) -> None:
    """Why there is no segment of huge pages (hugetlb_file_setup): none are reserved."""
    if flags >> _HUGE_SHIFT & 0x3F not in _HUGE_SIZES:
        raise LinuxError(EINVAL, "no huge pages have this size")
    if not capable(who, CAP_IPC_LOCK) and 0 not in (who.fsgid, *who.groups):
        raise LinuxError(EPERM, "huge pages are for CAP_IPC_LOCK, and for group 0 (vm.hugetlb_shm_group)")
    raise LinuxError(ENOMEM, "no huge pages are reserved (vm.nr_hugepages)")


class Segments(Table[Segment]):
    """All segments of a namespace.

    Attributes:
        max_bytes: how large one may be (kernel.shmmax).
        max_pages: how many pages all may have together (kernel.shmall).
        removes_unused: kernel.shm_rmid_forced: a segment goes with its last attachment, or with its creator.
    """

    def __init__(self, kernel: Kernel, users: UserNamespace | None) -> None:
        super().__init__("shared memory segment", SHMMNI)
        self._kernel = kernel
        self._users = users
        self.max_bytes, self.max_pages = SHMMAX, SHMALL
        self.removes_unused = 0

    def now_s(self) -> int:
        """Seconds since 1970."""
        return self._kernel.clock.realtime_ns() // _NS

    def current_pid(self) -> int:
        """The process that runs."""
        task = self._kernel.scheduler.current
        return task.process.pid if task is not None else 0

    def named(self, process: Process, key: int, size: int, flags: int) -> Segment:
        """The segment called `key`, made if IPC_CREAT asks for that (shmget)."""

        def check(found: Segment) -> None:
            if size > found.size:
                raise LinuxError(EINVAL, f"the segment has {found.size} bytes, not {size}")

        found = self.get(process.credentials, key, flags, lambda: self._make(process, key, size, flags), check)
        found.inode = found.permissions.number
        return found

    @property
    def pages(self) -> int:
        """The pages of all of them (shm_tot)."""
        return sum(one.page_count for one in self)

    @property
    def resident_pages(self) -> int:
        """How many of them are in memory."""
        return sum(one.resident_pages for one in self)

    def forget(self, segment: Segment) -> None:
        """Take a segment out whose last user has gone."""
        self._kernel.commitment.uncharge(segment.page_count)
        self.remove(segment)

    def force_removal(self, value: int) -> None:
        """kernel.shm_rmid_forced: from now on, and with what nobody uses whose creator has ended (shm_try_destroy)."""
        self.removes_unused = value
        for one in list(self):
            if one.is_orphan:
                one.remove_if_unused()

    def remove_all(self) -> None:
        """Nobody finds them any more; those that are mapped stay as long as they are."""
        for segment in list(self):
            segment.remove()

    def _make(self, process: Process, key: int, size: int, mode: int) -> Segment:
        if not 1 <= size <= self.max_bytes:
            raise LinuxError(EINVAL, f"a segment of {size} bytes")
        if mode & SHM_HUGETLB:
            _refuse_huge(process.credentials, mode)
        if self.pages + page_count(size) > self.max_pages:
            raise LinuxError(ENOSPC, f"all segments together may have {self.max_pages} pages (kernel.shmall)")
        self.demand_room()
        self._kernel.commitment.charge(page_count(size), 0, process.credentials.euid == 0)
        return Segment(self, process, Permissions(process.credentials, self._users, key, mode), size)
