"""One virtual memory area: a range of one address space with one protection and one thing behind it."""

from __future__ import annotations

from errno import EPERM
from typing import TYPE_CHECKING, Any

from loadstone.errors import LinuxError

if TYPE_CHECKING:
    from loadstone.memory.backing import Backing

PAGE = 4096
PAGE_SHIFT = 12
PAGE_MASK = ~(PAGE - 1)

# include/linux/mm.h; the low four are also the protections of mmap(2) and the accesses of a fault.
READ, WRITE, EXEC, SHARED = 1, 2, 4, 8
MAYREAD, MAYWRITE, MAYEXEC, MAYSHARE = 0x10, 0x20, 0x40, 0x80
GROWSDOWN = 0x100
UFFD_MISSING = 0x200
LOCKED = 0x2000
IO = 0x4000
DONTCOPY = 0x20000
DONTEXPAND = 0x40000
LOCKONFAULT = 0x80000
ACCOUNT = 0x100000
NORESERVE = 0x200000
HUGETLB = 0x400000
WIPEONFORK = 0x2000000
DONTDUMP = 0x4000000
HUGEPAGE = 0x20000000
NOHUGEPAGE = 0x40000000
SEALED = 1 << 63

PROTECTION = READ | WRITE | EXEC


class AnonVma:
    """The identity that ties together the areas whose anonymous pages may have a common origin (kernel: anon_vma)."""

    __slots__ = ()


class ForkedAnonVma(AnonVma):
    """The anon_vma of an area that a fork copied: some of its pages may be the parent's."""

    __slots__ = ()


class Vma:
    """`[start, end)` with `flags`, backed by `backing` from byte `offset` on, or anonymous.

    `offset` is in bytes and page-aligned. For anonymous private memory it is the address at which the area was created
    (the kernel's anonymous `vm_pgoff`), which decides whether two areas may merge.
    """

    __slots__ = ("anon_vma", "backing", "end", "file", "flags", "name", "offset", "path", "start", "userfault")

    def __init__(
        self,
        start: int,
        end: int,
        flags: int,
        backing: Backing | None = None,
        offset: int = 0,
        *,
        name: str = "",
        path: str = "",
        anon_vma: AnonVma | None = None,
        file: object | None = None,
    ) -> None:
        self.start = start
        self.end = end
        self.flags = flags
        self.backing = backing
        self.offset = offset
        self.name = name  # a special mapping's: "[vdso]"; "[heap]" and "[stack]" are worked out when shown
        self.path = path  # the mapped file's, as the guest sees it
        self.anon_vma = anon_vma
        self.userfault: Any = None  # the userfaultfd that it is registered with (kernel: vm_userfaultfd_ctx)
        self.file = file  # the open file description (kernel: vm_file): areas of two opens of one file never merge

    def copy(self, start: int, end: int, offset: int) -> Vma:
        """Another area like this one, with another range (kernel: vm_area_dup and vma_set_range)."""
        copy = Vma.__new__(Vma)  # without the defaults, of which fork may need dozens
        copy.start, copy.end, copy.offset = start, end, offset
        copy.flags = self.flags
        copy.backing = self.backing
        copy.name = self.name
        copy.path = self.path
        copy.anon_vma = self.anon_vma
        copy.userfault = self.userfault
        copy.file = self.file
        return copy

    def forget_userfault(self) -> None:
        """A copy at another place, or in another address space, is nobody's (kernel: userfaultfd_reset_ctx)."""
        self.userfault = None
        self.flags &= ~UFFD_MISSING

    @property
    def perms(self) -> str:
        """The four letters of /proc/PID/maps: `r-xp`."""
        flags = self.flags
        return (
            ("r" if flags & READ else "-")
            + ("w" if flags & WRITE else "-")
            + ("x" if flags & EXEC else "-")
            + ("s" if flags & MAYSHARE else "p")
        )

    def __repr__(self) -> str:
        return f"<Vma {self.start:x}-{self.end:x} {self.perms} {self.offset:x} {self.path or self.name}>"


def check_not_sealed(vma: Vma) -> None:
    """EPERM if `vma` is to stay as it is: see mseal(2)."""
    if vma.flags & SEALED:
        raise LinuxError(EPERM, f"the mapping at {vma.start:#x} is sealed")
