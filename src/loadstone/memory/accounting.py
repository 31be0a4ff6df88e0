"""What a process may map: resource limits, overcommit, and the counts they are checked against. In pages."""

from __future__ import annotations

from errno import ENOMEM

from loadstone.errors import LinuxError
from loadstone.lean import Protocol
from loadstone.memory.flags import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA
from loadstone.memory.vma import EXEC, GROWSDOWN, LOCKED, NORESERVE, PAGE_SHIFT, SHARED, WRITE, Vma

OVERCOMMIT_GUESS, OVERCOMMIT_ALWAYS, OVERCOMMIT_NEVER = 0, 1, 2
DEFAULT_MAX_MAP_COUNT = 65530  # include/linux/mm.h

_UNLIMITED = (RLIM_INFINITY, RLIM_INFINITY)


class Commitment:
    """The machine's promise of memory, shared by all address spaces (kernel: __vm_enough_memory).

    Attributes:
        total: pages of memory the machine shows, its swap included.
        mode: vm.overcommit_memory. 0 refuses what could never fit, 1 nothing, 2 what was not kept free.
        ratio: vm.overcommit_ratio, in percent; for mode 2.
        promised: pages promised so far (Committed_AS).
        max_map_count: vm.max_map_count, the mappings that one process may have.
    """

    __slots__ = ("_inodes", "max_map_count", "mode", "promised", "ratio", "total")

    def __init__(
        self, total: int, mode: int = OVERCOMMIT_GUESS, ratio: int = 50, max_map_count: int = DEFAULT_MAX_MAP_COUNT
    ) -> None:
        self.total = total
        self.max_map_count = max_map_count
        self.mode = mode
        self.ratio = ratio
        self.promised = 0
        self._inodes = 0

    def new_inode(self) -> int:
        """The inode number of the next shared anonymous memory, on the kernel's own tmpfs."""
        self._inodes += 1
        return self._inodes

    def charge(self, pages: int, mapped: int, privileged: bool, largest: int = 0) -> None:
        """Promise `pages` more to a process that has `mapped` pages; ENOMEM when the mode does not allow it.

        `largest`: pages of the largest mapping, where they are of several.
        """
        if self.mode == OVERCOMMIT_GUESS and (largest or pages) > self.total:
            raise LinuxError(
                ENOMEM, f"{largest or pages} pages are more than the machine's {self.total} (vm.overcommit_memory 0)"
            )
        if self.mode == OVERCOMMIT_NEVER:
            allowed = self.total * self.ratio // 100
            if not privileged:
                allowed -= min(self.total * 3 // 100, 2048)  # vm.admin_reserve_kbytes
            allowed -= min(mapped // 32, 32768)  # vm.user_reserve_kbytes
            if self.promised + pages >= allowed:
                raise LinuxError(ENOMEM, f"{self.promised} of {allowed} pages are promised (vm.overcommit_memory 2)")
        self.promised += pages

    def uncharge(self, pages: int) -> None:
        """Take a promise back."""
        self.promised -= pages


class User(Protocol):
    """Who a process runs as."""

    euid: int


class Limits:
    """What one process is allowed.

    Attributes:
        rlimits: resource number -> (soft, hard) in the resource's own unit; a missing one is unlimited. The process's
            own dictionary, so that setrlimit is seen at once.
        commitment: the machine's.
    """

    __slots__ = ("_may_map_low", "_privileged", "_user", "commitment", "rlimits")

    def __init__(
        self,
        commitment: Commitment,
        rlimits: dict[int, tuple[int, int]] | None = None,
        *,
        user: User | None = None,
        privileged: bool = False,
        may_map_low: bool = False,
    ) -> None:
        """`user`: the process's own credentials, so that setuid is seen at once; without, what the other two say."""
        self.commitment = commitment
        self.rlimits = {} if rlimits is None else rlimits
        self._user = user
        self._privileged = privileged
        self._may_map_low = may_map_low

    @property
    def privileged(self) -> bool:
        """Has CAP_SYS_ADMIN and CAP_IPC_LOCK, as far as memory is concerned."""
        return self._privileged if self._user is None else self._user.euid == 0

    @property
    def may_map_low(self) -> bool:
        """Has CAP_SYS_RAWIO: may map below vm.mmap_min_addr."""
        return self._may_map_low if self._user is None else self._user.euid == 0

    @property
    def max_map_count(self) -> int:
        """How many mappings it may have."""
        return self.commitment.max_map_count

    def soft(self, resource: int) -> int:
        """The soft limit of RLIMIT_* number `resource`."""
        return self.rlimits.get(resource, _UNLIMITED)[0]

    def hard(self, resource: int) -> int:
        """The hard limit."""
        return self.rlimits.get(resource, _UNLIMITED)[1]


def is_data(flags: int) -> bool:
    """Whether the mapping counts against RLIMIT_DATA: private, writable, no stack (kernel: is_data_mapping)."""
    return flags & (WRITE | SHARED | GROWSDOWN) == WRITE


def is_accountable(flags: int) -> bool:
    """Whether the mapping needs a promise of memory: private and writable (kernel: accountable_mapping)."""
    return flags & (NORESERVE | SHARED | WRITE) == WRITE


class Usage:
    """How many pages one address space maps, by kind (kernel: mm_struct's total_vm, data_vm, …)."""

    __slots__ = ("data", "executable", "locked", "peak", "stack", "total")

    def __init__(self) -> None:
        self.total = 0
        self.data = 0
        self.executable = 0
        self.stack = 0
        self.locked = 0
        self.peak = 0  # of total

    def copy(self) -> Usage:
        """What a child that gets every mapping has: nothing of it is locked."""
        copy = Usage()
        copy.total = copy.peak = self.total
        copy.data, copy.executable, copy.stack = self.data, self.executable, self.stack
        return copy

    def add(self, flags: int, pages: int) -> None:
        """Count `pages` of a mapping with `flags`; negative to take them away (kernel: vm_stat_account)."""
        self.total += pages
        if self.total > self.peak:
            self.peak = self.total
        if flags & (EXEC | WRITE | GROWSDOWN) == EXEC:
            self.executable += pages
        elif flags & GROWSDOWN:
            self.stack += pages
        elif flags & (WRITE | SHARED) == WRITE:
            self.data += pages
        if flags & LOCKED:
            self.locked += pages

    def may_grow(self, flags: int, pages: int, limits: Limits) -> bool:
        """Whether RLIMIT_AS and RLIMIT_DATA allow `pages` more (kernel: may_expand_vm)."""
        whole = limits.rlimits.get(RLIMIT_AS)
        if whole is not None and self.total + pages > whole[0] >> PAGE_SHIFT:
            return False
        if is_data(flags) and self.data + pages > limits.soft(RLIMIT_DATA) >> PAGE_SHIFT:
            # A soft limit of 0 means that the hard one counts (a workaround for valgrind).
            return not limits.soft(RLIMIT_DATA) and self.data + pages <= limits.hard(RLIMIT_DATA) >> PAGE_SHIFT
        return True

    def check_growth(self, flags: int, pages: int, limits: Limits) -> None:
        """Raise ENOMEM when `may_grow` says no."""
        if not self.may_grow(flags, pages, limits):
            raise LinuxError(ENOMEM, f"{pages} pages more are over RLIMIT_AS or RLIMIT_DATA")


def pages_of(vma: Vma) -> int:
    """The VMA's length in pages."""
    return (vma.end - vma.start) >> PAGE_SHIFT
