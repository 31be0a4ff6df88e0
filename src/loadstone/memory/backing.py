"""What a file mapping needs of a file. `vfs` inodes implement it; `memory` knows no more of files than this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import Protocol

if TYPE_CHECKING:
    from loadstone.memory.page_cache import FilePages


class Backing(Protocol):
    """A file whose pages can be mapped.

    The object's identity is the file's: two opens of one inode give the same Backing object.
    """

    pages: FilePages | None
    """The file's pages in the page cache (the kernel's `i_mapping`); None until the first one is there."""

    writeback: bool
    """Whether a file system is told of a page's first write (a shared page is then mapped read-only until written)."""

    huge_aligned: bool
    """Whether the file system places mappings of 2 MiB and more on a 2 MiB boundary (thp_get_unmapped_area)."""

    @property
    def device(self) -> int:
        """The device number that /proc/PID/maps shows, as `os.stat` encodes it."""

    @property
    def inode(self) -> int:
        """The inode number that /proc/PID/maps shows."""

    @property
    def size(self) -> int:
        """Bytes in the file, now."""

    def read_pages(self, index: int, target: memoryview) -> None:
        """Fill `target` (a whole number of 4,096-byte pages) from page `index` on; past the end of file with zeros."""

    def write_page(self, index: int, page: memoryview) -> None:
        """Write one page back; what lies past the end of file is not written, and the file does not grow."""


class Executable(Protocol):
    """What an address space needs of the file that it executes."""

    def deny_write(self) -> None:
        """Nobody may open the file for writing from now on; ETXTBSY where somebody has."""

    def allow_write(self) -> None:
        """Take back one `deny_write`."""
