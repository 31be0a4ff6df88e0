"""userfaultfd(2): a program answers the page faults on part of its memory itself (fs/userfaultfd.c, mm/userfaultfd.c).

A VMA that is registered has a `UserFaultFile`. The page-fault path asks it about absent pages, and hands `Missing` to
whoever touched one: a core stops with it, the kernel's own accesses raise `PageWanted`. The toucher waits in the file
until the page has been put there, and tries again.
"""

from __future__ import annotations

from errno import EBADF, EINVAL
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.machine.paging import AHEAD, FRAME_MASK
from loadstone.memory.merge import modify
from loadstone.memory.vma import PAGE, PAGE_SHIFT, UFFD_MISSING, WRITE
from loadstone.memory.zap import zap
from loadstone.vfs.file import WouldBlock, total
from loadstone.vfs.flags import O_ACCMODE, O_NONBLOCK, POLLERR, POLLIN
from loadstone.vfs.regular import scatter
from loadstone.wait import Interrupted, Wait, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.kernel.process import Task
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.fault import Missing
    from loadstone.memory.vma import Vma
    from loadstone.vfs.vfs import Vfs
    from loadstone.wait import Blocking

# include/uapi/linux/userfaultfd.h
USER_MODE_ONLY = 1
FEATURE_SIGBUS, FEATURE_THREAD_ID, FEATURE_MOVE = 1 << 7, 1 << 8, 1 << 16
FEATURES = FEATURE_SIGBUS | FEATURE_THREAD_ID | FEATURE_MOVE
_EVENT_PAGEFAULT, _FLAG_WRITE = 0x12, 1
_ZEROS = bytes(PAGE)
_MESSAGE = Struct("<B7xQQI4x")  # struct uffd_msg of a page fault: event, flags, address, thread


class _Fault:
    """Somebody who waits for a page. `told`: the program has read of it."""

    __slots__ = ("address", "message", "queue", "told")

    def __init__(self, address: int, message: bytes) -> None:
        self.address = address
        self.message = message
        self.queue = WaitQueue(f"the page at {address:#x}, which userfaultfd is to bring")
        self.told = False


class UserFaultFile(AnonymousFile):
    """Hears of the faults on the VMAs that are registered with it.

    `features`: those that UFFDIO_API agreed on; None before. `space`: the memory of the process that made it.
    """

    __slots__ = ("_faults", "features", "only_user", "space")

    kind = "userfaultfd"

    def __init__(self, vfs: Vfs, space: AddressSpace, flags: int, *, only_user: bool) -> None:
        super().__init__(vfs, flags)
        self.flags &= ~O_ACCMODE  # for reading only
        self.space = space
        self.only_user = only_user
        self.features: int | None = None
        self._faults: list[_Fault] = []
        self.read_queue = WaitQueue("a page fault in a userfaultfd")

    # -- for the page-fault path --------------------------------------------------------------------------------------

    def brings(self, *, by_user: bool) -> bool:
        """Whether who touches an absent page waits for it; else it is SIGBUS (kernel: handle_userfault)."""
        return not (self.features or 0) & FEATURE_SIGBUS and (by_user or not self.only_user)

    def wait_for(self, task: Task, missing: Missing, *, interruptible: bool) -> Blocking:
        """Tell the program, and wait until the page is there, or a signal comes."""
        flags = _FLAG_WRITE if missing.access == WRITE else 0
        thread = task.tid if (self.features or 0) & FEATURE_THREAD_ID else 0
        fault = _Fault(missing.address, _MESSAGE.pack(_EVENT_PAGEFAULT, flags, missing.address, thread))
        self._faults.append(fault)
        self._notify(self.read_queue, POLLIN)
        try:
            yield Wait((fault.queue,), interruptible=interruptible)
        except Interrupted:
            pass  # the signal comes first; then the page is touched again
        finally:
            if fault in self._faults:
                self._faults.remove(fault)
        return 0

    # -- for its program ----------------------------------------------------------------------------------------------

    def wake_range(self, start: int, end: int) -> None:
        """Who waits for a page of [start, end) tries again."""
        for fault in [fault for fault in self._faults if start <= fault.address < end]:
            self._faults.remove(fault)
            self.vfs.wake(fault.queue.wake())

    def register(self, vma: Vma, start: int, end: int) -> None:
        """From now on absent pages of [start, end), which lies in `vma`, are this file's.

        What was filled ahead there, and holds nothing, is absent: the program never touched it.
        """
        space = self.space
        for address, _, entry in list(space.page_table.entries(start, end)):
            if entry & AHEAD and bytes(space.memory.page((entry & FRAME_MASK) >> PAGE_SHIFT)) == _ZEROS:
                zap(space, vma, address, address + PAGE)
        modify(space, vma, start, end, vma.flags | UFFD_MISSING).userfault = self

    def unregister(self, vma: Vma, start: int, end: int) -> None:
        """Not any more; who waits for one of them tries again."""
        space = self.space
        if vma.start < start:
            vma = space.vmas.split(vma, start)
        if vma.end > end:
            space.vmas.split(vma, end)
        vma.userfault = None
        modify(space, vma, vma.start, vma.end, vma.flags & ~UFFD_MISSING)
        self.wake_range(start, end)

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """As many messages as there are and there is room for."""
        if self.features is None:
            raise LinuxError(EINVAL, "UFFDIO_API comes first")
        room = total(pieces) // _MESSAGE.size
        if not room:
            raise LinuxError(EINVAL)
        fresh = [fault for fault in self._faults if not fault.told][:room]
        if not fresh:
            raise WouldBlock(self.read_queue)
        for fault in fresh:
            fault.told = True
        scatter(pieces, memoryview(b"".join(fault.message for fault in fresh)))
        return len(fresh) * _MESSAGE.size

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """It is open for reading only."""
        raise LinuxError(EBADF)

    def available(self) -> int | None:
        """The messages not yet read."""
        return _MESSAGE.size * sum(not fault.told for fault in self._faults)

    def ready(self) -> int:
        """POLLIN with a message to read; POLLERR for one that would block, or was not set up."""
        if self.features is None or not self.flags & O_NONBLOCK:
            return POLLERR
        return POLLIN if any(not fault.told for fault in self._faults) else 0

    def release(self) -> None:
        """Closed: what was registered is ordinary memory again."""
        self.space.vmas.own()
        for vma in [vma for vma in self.space.vmas if vma.userfault is self]:
            vma.userfault = None
            vma.flags &= ~UFFD_MISSING
        self.wake_range(0, 1 << 64)


class WaitingToucher:
    """A program that waits in an instruction for a page: in place of a pending system call."""

    __slots__ = ("_generator", "wait")

    def __init__(self, task: Task, missing: Missing) -> None:
        self._generator = missing.file.wait_for(task, missing, interruptible=True)
        self.wait = next(self._generator)

    def go_on(self) -> None:
        """The page is there, or a signal: back to the instruction."""
        self._generator.close()

    def close(self) -> None:
        """The task dies."""
        self._generator.close()
