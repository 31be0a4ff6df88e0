"""Shared memory without a file: what MAP_SHARED | MAP_ANONYMOUS maps (mm/shmem.c: shmem_zero_setup)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadstone.memory.page_cache import FilePages, PageCache

SHMEM_DEVICE = 1
"""The device number of the kernel's own tmpfs, 00:01 in /proc/PID/maps."""


class SharedMemory:
    """A nameless file of `size` bytes that lives in the page cache only; all zeros at first.

    It is shown as "/dev/zero (deleted)". Its pages go when the last VMA that maps it does.

    Attributes:
        inode: as /proc/PID/maps shows it.
        pages: in the page cache; None until the first one is there.
        users: the VMAs that map it, and who else keeps it.
    """

    __slots__ = ("_cache", "inode", "pages", "size", "users")

    device = SHMEM_DEVICE
    writeback = False  # no file system to be told of a first write: mapped writable at once (vma_wants_writenotify)
    huge_aligned = False
    unlinked = True  # shown with " (deleted)"

    def __init__(self, cache: PageCache, size: int, inode: int) -> None:
        self._cache = cache
        self.users = 0
        self.pages: FilePages | None = None
        self.size = size
        self.inode = inode

    def read_pages(self, index: int, target: memoryview) -> None:
        """Zeros: a page that was never written."""
        target[:] = bytes(len(target))

    def write_page(self, index: int, page: memoryview) -> None:
        """There is nowhere to write to."""

    def use(self) -> None:
        """One VMA or holder more."""
        self.users += 1

    def drop(self) -> None:
        """One less; without any the pages are free."""
        self.users -= 1
        if not self.users and self.pages is not None:
            self._cache.forget(self)
