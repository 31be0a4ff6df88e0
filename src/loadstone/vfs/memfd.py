"""Files in memory without a name, which can be sealed: memfd_create(2). Sources: mm/memfd.c, mm/shmem.c."""

from __future__ import annotations

from errno import EINVAL, EPERM
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.vfs.file import total
from loadstone.vfs.overlay import Overlay
from loadstone.vfs.overlay_files import OverlayFile
from loadstone.vfs.regular import before

if TYPE_CHECKING:
    from collections.abc import Sequence

# include/uapi/linux/fcntl.h
SEAL_SEAL, SEAL_SHRINK, SEAL_GROW, SEAL_WRITE, SEAL_FUTURE_WRITE, SEAL_EXEC = 1, 2, 4, 8, 16, 32
ALL_SEALS: Final = 63
_UNCHANGING: Final = SEAL_WRITE | SEAL_FUTURE_WRITE
_PAGE: Final = 4096


class MemoryFile(OverlayFile):
    """A memfd. `seals`: what may not happen to it any more."""

    __slots__ = ("seals",)

    def __init__(self, fs: Overlay, mode: int) -> None:
        super().__init__(fs, None, mode)
        self.nlink = 0
        self.seals = SEAL_SEAL

    @property
    def write_sealed(self) -> bool:
        """Whether it may not be written, or mapped shared to be."""
        return bool(self.seals & _UNCHANGING)

    def seal(self, seals: int) -> None:
        """F_ADD_SEALS; the caller has seen to mappings. EPERM if no more are taken, EINVAL for unknown ones."""
        if seals & ~ALL_SEALS:
            raise LinuxError(EINVAL)
        if self.seals & SEAL_SEAL:
            raise LinuxError(EPERM, "the file takes no more seals")
        if seals & SEAL_EXEC and self.mode & 0o111:
            seals |= SEAL_SHRINK | SEAL_GROW | SEAL_WRITE | SEAL_FUTURE_WRITE
        self.seals |= seals

    def write_from(self, pieces: Sequence[memoryview], offset: int) -> int:
        """Write, unless it is sealed; one that may not grow takes the whole pages it has (shmem_write_begin)."""
        length = total(pieces)
        if length and self.write_sealed:
            raise LinuxError(EPERM, "the file is sealed")
        if length and self.seals & SEAL_GROW and offset + length > self.size:
            length = self.size // _PAGE * _PAGE - offset
            if length <= 0:
                raise LinuxError(EPERM, "the file may not grow")
            pieces = before(pieces, length)
        return super().write_from(pieces, offset)

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros, unless writing is sealed."""
        if self.write_sealed:
            raise LinuxError(EPERM, "the file is sealed")
        super().clear(offset, length)

    def truncate(self, size: int) -> None:
        """Change the size, unless that is sealed."""
        if self.seals & (SEAL_SHRINK if size < self.size else SEAL_GROW) and size != self.size:
            raise LinuxError(EPERM, "the file's size is sealed")
        super().truncate(size)

    def set_mode(self, mode: int) -> None:
        """Set the permission bits; those to execute may be sealed."""
        if self.seals & SEAL_EXEC and (mode ^ self.mode) & 0o111:
            raise LinuxError(EPERM, "whether the file can be executed is sealed")
        super().set_mode(mode)
