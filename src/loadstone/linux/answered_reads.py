"""Reading ahead of a program, so that its reads are answered without leaving the guest.

An optimisation of Loadstone's own. A program that reads a regular file in order, a part at a time, pays more for
leaving the guest than for the data; a core that can answers such reads itself (machine.kvm_answers), from a buffer that
is filled here. The program, its system-call counts and the file offset see nothing of it:

- An offer is made when a read goes on where the last one ended, and is of two reads; the next one is twice as large,
  up to the buffer. No more is read in vain than was read before.
- What was taken is settled when the program leaves the guest, before any call, signal or other process.
- Before the program goes on, the offer must still be true: the same descriptor and offset, and a file that nobody has
  changed since, in the machine (size, times) or on the host (fstat). What the host changes is seen at the next exit,
  a tick later at the latest.
- Not while anybody listens to system calls, traces a process or filters its calls, and not for files that are
  mapped, whose pages programs write unseen.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.flags import IN_ACCESS, SEEK_CUR
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.syscalls.dispatch import SystemCalls
    from loadstone.machine.kvm_core import KvmCore
    from loadstone.memory.address_space import AddressSpace
    from loadstone.vfs.file import OpenFile

_READ = 0  # the number of read(2)
_FIRST = 2  # reads in the first offer


class AnsweredReads:
    """What a machine reads ahead.

    Attributes:
        reads, length: how many were answered in the guest, and their bytes.
    """

    def __init__(self, kernel: Kernel, core: KvmCore, calls: SystemCalls) -> None:
        self._kernel = kernel
        self._core = core
        self._calls = calls
        self._row = calls.registry.row(_READ)
        self._streams: dict[AddressSpace, Stream] = {}
        self.reads = self.length = 0

    def has_read(self, task: Task, descriptor: int, file: OpenFile, count: int, done: int) -> None:
        """The program has read `done` bytes of the `count` it asked for. If it goes on like that, read ahead of it."""
        process = task.process
        space = process.space
        stream = self._streams.get(space)
        if stream is None:
            stream = self._streams[space] = Stream(self, process)
            space.at_end += (self._forget,)
        if stream.goes_on(process, descriptor, file, done) and done == count and self.is_still(process):
            stream.offer(self._core, descriptor, file, count)

    def answered(self, reads: int, length: int) -> None:
        """Count."""
        self._row.calls += reads
        self.reads += reads
        self.length += length

    def is_still(self, process: Process) -> bool:
        """Whether `process` runs, and nobody looks at its calls: a listener, a filter, a debugger in the machine."""
        current = self._kernel.scheduler.current
        if current is None or current.process is not process:
            return False
        return not self._calls.are_watched(current)

    def _forget(self, space: AddressSpace) -> None:
        self._core.forget_answers(space)
        del self._streams[space]


class Stream:
    """The reads of one process. Implements `machine.kvm_answers.Keeper`."""

    __slots__ = ("_descriptor", "_file", "_next", "_owner", "_process", "_size", "_stamp", "_where")

    def __init__(self, owner: AnsweredReads, process: Process) -> None:
        self._owner = owner
        self._process = process
        self._where = (-1, 0, 0)  # descriptor, which file, and offset at which the next read would go on
        self._size = 0  # bytes of the last offer
        self._descriptor = -1
        self._file: OpenFile | None = None  # while there is an offer
        self._next = 0
        self._stamp: tuple[int, ...] = ()

    def goes_on(self, process: Process, descriptor: int, file: OpenFile, done: int) -> bool:
        """Whether a read that has just been made went on where the last one ended."""
        if process is not self._process:  # a child that shares the memory until it executes something
            return False
        before = self._where
        self._where = (descriptor, id(file), file.offset)
        if before == (descriptor, id(file), file.offset - done):
            return True
        self._size = 0
        return False

    def offer(self, core: KvmCore, descriptor: int, file: OpenFile, count: int) -> None:
        """Have the reads that follow answered, with what the file says now."""
        left = file.available() or 0
        if not 0 < _FIRST * count <= left or not isinstance(file.inode, RegularFile):
            return
        if _is_cached(file.inode) or file.watched:
            return
        answers = core.answers_for(self._process.space)
        if answers is None:
            return
        answers.withdraw()  # what is left of the last offer is about to be overwritten
        try:
            self._stamp = _stamp(file.inode)
        except OSError:
            return
        got = self._fill(answers.buffer, file, count, left)
        if got:
            self._descriptor, self._file = descriptor, file
            answers.offer(descriptor, got, self)

    def more(self, buffer: memoryview, count: int) -> int:
        """Read on ahead, for a program that has come to the end of an offer that holds, stamp and all."""
        file = self._file
        left = 0 if file is None else file.available() or 0
        return self._fill(buffer, file, count, left) if file is not None and 0 < count <= left else 0

    def _fill(self, buffer: memoryview, file: OpenFile, count: int, left: int) -> int:
        """Read twice as much ahead as the last time, in whole parts of `count`; how many bytes. 0: it cannot be."""
        inode = file.inode
        size = min(max(2 * self._size, _FIRST * count), left, len(buffer))
        size -= size % count
        if not size or not isinstance(inode, RegularFile):
            return 0
        try:
            got = inode.read_into([buffer[:size]], file.offset)
        except (LinuxError, OSError):  # the program will hear of it when it reads as far
            return 0
        self._size, self._next = size, file.offset
        return got

    def taken(self, reads: int, length: int) -> None:
        """The program has read on."""
        file = self._file
        if file is not None:
            file.tell(IN_ACCESS)
            file.accessed()
            self._next = file.seek(length, SEEK_CUR)
            self._where = (self._descriptor, id(file), self._next)
        self._owner.answered(reads, length)

    def holds(self) -> bool:
        """Whether the descriptor still reads, from where the offer goes on, what the file said."""
        file, files = self._file, self._process.files
        if file is None or self._descriptor not in files or files.get(self._descriptor) is not file:
            return False
        if not self._owner.is_still(self._process) or file.watched:
            return False
        inode = file.inode
        try:
            file.available()  # which brings an offset up to date that is shared with the host
            return isinstance(inode, RegularFile) and file.offset == self._next and _stamp(inode) == self._stamp
        except (LinuxError, OSError):
            return False

    def withdrawn(self) -> None:
        """It did not hold, or the process has ended."""
        self._file = None
        self._size //= 2


def _is_cached(inode: RegularFile) -> bool:
    """Whether pages of the file are mapped, or were: then its contents may change without a call."""
    return inode.pages is not None and bool(inode.pages.frames)


def _stamp(inode: RegularFile) -> tuple[int, ...]:
    """What changes when the file does."""
    stat = os.fstat(inode.read_fd())
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, inode.size, inode.mtime_ns, _is_cached(inode)
