"""The files of /proc/PID in which the offset is an address: mem and pagemap (fs/proc/base.c, fs/proc/task_mmu.c)."""

from __future__ import annotations

from array import array
from errno import EINVAL, EIO
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.paging import COUNTED, FRAME_MASK, PRESENT, PROTNONE, ZERO_PAGE
from loadstone.machine.physical import FRAME_SHIFT
from loadstone.memory.guard import guarded
from loadstone.memory.peek import peek, poke
from loadstone.memory.residency import with_sharing
from loadstone.memory.vma import PAGE, PAGE_SHIFT, Vma
from loadstone.vfs.file import total
from loadstone.vfs.flags import S_IFREG
from loadstone.vfs.inode import Inode
from loadstone.vfs.open_files import SeekableFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.kernel.process import Process
    from loadstone.memory.address_space import AddressSpace
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location

# Documentation/admin-guide/mm/pagemap.rst
_EXCLUSIVE, _GUARD, _OF_FILE, _NOT_A_PAGE, _IN_MEMORY = (1 << bit for bit in (56, 58, 61, 62, 63))
_WORD = 8
_MOST_PAGES = 1 << 15  # looked up at once


class MemoryOpen(SeekableFile):
    """/proc/PID/mem: the offset is the address."""

    __slots__ = ("process",)

    def __init__(self, inode: Inode, flags: int, location: Location | None, process: Process) -> None:
        super().__init__(inode, flags, location)
        self.process = process

    def end(self) -> int:
        """Every address may be tried."""
        return 1 << 47

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Copy out of the process; EIO where nothing is mapped."""
        self.demand_readable()
        return self._transfer(pieces, offset, False)

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Copy into the process, whatever its mappings allow to itself (FOLL_FORCE): debuggers set breakpoints so."""
        self.demand_writable()
        return self._transfer(pieces, offset, True)

    def _transfer(self, pieces: Sequence[memoryview], offset: int | None, write: bool) -> int:
        start = self.offset if offset is None else offset
        space, done = self.process.space, 0
        try:
            for piece in pieces:
                left = piece
                while left:
                    here = left[: PAGE - (start + done) % PAGE]
                    if write:
                        poke(space, start + done, bytes(here))
                    else:
                        here[:] = peek(space, start + done, len(here))
                    done += len(here)
                    left = left[len(here) :]
        except LinuxError:
            if not done:
                raise LinuxError(EIO, f"nothing to be had at {start:#x}") from None
        if offset is None:
            self.offset = start + done
        return done


class _OfProcess(Inode):
    """A file in a process's directory, owned by whom the process acts for."""

    __slots__ = ("process",)
    permissions = 0

    def __init__(self, process: Process, device: int, inode: int) -> None:
        who = process.credentials
        super().__init__(device, inode, S_IFREG | self.permissions, who.euid, who.egid)
        self.process = process


class MemoryFile(_OfProcess):
    """/proc/PID/mem."""

    __slots__ = ()
    permissions = 0o600

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it."""
        return MemoryOpen(self, flags, location, self.process)


class PagemapOpen(SeekableFile):
    """/proc/PID/pagemap: a word for each page, found at its number times 8."""

    __slots__ = ("_shows_frames", "process")

    def __init__(self, inode: Inode, flags: int, location: Location | None, process: Process) -> None:
        super().__init__(inode, flags, location)
        self.process = process
        current = process.kernel.scheduler.current
        self._shows_frames = current is not None and current.process.credentials.euid == 0

    def end(self) -> int:
        """After the last page of the address space."""
        return (self.process.space.layout.task_size >> PAGE_SHIFT) * _WORD

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """The words; EINVAL for a part of one."""
        start = self.offset if offset is None else offset
        length = total(pieces)
        if start % _WORD or length % _WORD:
            raise LinuxError(EINVAL, "pagemap is read in words of 8 bytes")
        if self.process.status is not None:
            return 0
        length = min(length, max(0, self.end() - start), _MOST_PAGES * _WORD)
        first = start // _WORD << PAGE_SHIFT
        data = memoryview(_words(self.process.space, first, length // _WORD, self._shows_frames)).cast("B")
        done = 0
        for piece in pieces:
            part = data[done : done + len(piece)]
            piece[: len(part)] = part
            done += len(part)
        if offset is None:
            self.offset = start + done
        return done


class PagemapFile(_OfProcess):
    """/proc/PID/pagemap."""

    __slots__ = ()
    permissions = 0o400

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it; only root is shown frame numbers."""
        return PagemapOpen(self, flags, location, self.process)


def _words(space: AddressSpace, start: int, pages: int, shows_frames: bool) -> array[int]:
    """One word for each of `pages` from `start` on. Nothing is swapped out; soft-dirty is not kept track of."""
    end = start + pages * PAGE
    words = array("Q", bytes(_WORD * pages))
    for vma in space.vmas.overlapping(start, end):
        first, last = max(start, vma.start), min(end, vma.end)
        for address, entry, alone in with_sharing(space, vma, first, last):
            words[(address - start) >> PAGE_SHIFT] |= _word(vma, entry, shows_frames, alone)
    for address in guarded(space, start, end):
        words[(address - start) >> PAGE_SHIFT] = _NOT_A_PAGE | _GUARD
    return words


def _word(vma: Vma, entry: int, shows_frames: bool, alone: bool) -> int:
    """What is said of a page that is there, and mapped by nobody else if `alone` (kernel: pte_to_pagemap_entry)."""
    if not entry & (PRESENT | PROTNONE):
        return 0
    word = _IN_MEMORY | ((entry & FRAME_MASK) >> FRAME_SHIFT if shows_frames else 0)
    if entry & ZERO_PAGE or vma.name:
        return word
    if not entry & COUNTED:
        word |= _OF_FILE
    return word | (_EXCLUSIVE if alone else 0)
