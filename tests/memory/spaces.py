"""An address space with nothing in it, files that live in a bytearray, and what happens there as events."""

from __future__ import annotations

from loadstone.events import Events, Fault
from loadstone.machine.physical import PhysicalMemory
from loadstone.machine.shootdown import Shootdown
from loadstone.memory.accounting import Commitment, Limits
from loadstone.memory.address_space import AddressSpace
from loadstone.memory.flags import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, RLIMIT_STACK
from loadstone.memory.page_cache import FilePages, PageCache
from loadstone.memory.placement import Layout
from loadstone.memory.vma import PAGE

R, W, X = 1, 2, 4
AREA = 0x7FFF_0000_0000


class File:
    """A backing over bytes; counts what is read and keeps what is written back."""

    huge_aligned = False
    device, inode = 1, 2

    def __init__(self, size: int, *, writeback: bool = True) -> None:
        self.data = bytearray(b"".join(b"page %-10d\n" % (n // 256) for n in range(-(-size // 16))))[:size]
        self.pages: FilePages | None = None
        self.writeback = writeback
        self.reads: list[tuple[int, int]] = []
        self.written: list[int] = []

    @property
    def size(self) -> int:
        return len(self.data)

    def read_pages(self, index: int, target: memoryview) -> None:
        self.reads.append((index, len(target) // PAGE))
        target[:] = bytes(self.data[index * PAGE : index * PAGE + len(target)]).ljust(len(target), b"\0")

    def write_page(self, index: int, page: memoryview) -> None:
        self.written.append(index)
        end = min(self.size, (index + 1) * PAGE)
        self.data[index * PAGE : end] = page[: end - index * PAGE]

    def page(self, index: int) -> bytes:
        return bytes(self.data[index * PAGE : (index + 1) * PAGE]).ljust(PAGE, b"\0")


class Listener:
    """A core that only takes notes."""

    def __init__(self) -> None:
        self.invalidated: list[tuple[int, int]] = []

    def invalidate(self, root: int, start: int, end: int, frames: list[int]) -> None:
        self.invalidated.append((start, end))


class World:
    """The machine around an address space."""

    def __init__(self, frames: int = 4096, *, warm: bool = True, fault_around: int = 65536) -> None:
        self.memory = PhysicalMemory(frames * PAGE)
        self.cache = PageCache(self.memory, warm=warm)
        self.shootdown = Shootdown(self.memory)
        self.listener = Listener()
        self.shootdown.listen(self.listener)
        self.events = Events()
        self.faults: list[Fault] = []
        self.events.subscribe(self.faults.append, ("fault",))
        self.fault_around = fault_around
        self.space = self.new_space()

    def new_space(self) -> AddressSpace:
        limits = Limits(Commitment(1 << 20), {RLIMIT_STACK: (8 << 20, 8 << 20)})
        layout = Layout()
        return AddressSpace(
            self.memory, self.cache, self.shootdown, layout, limits, self.events, fault_around=self.fault_around
        )

    def anonymous(self, pages: int, prot: int = R | W, *, at: int = AREA, shared: bool = False) -> int:
        kind = MAP_SHARED if shared else MAP_PRIVATE
        return self.space.map(at, pages * PAGE, prot, kind | MAP_ANONYMOUS | MAP_FIXED)

    def file(
        self, file: File, pages: int, prot: int = R, *, at: int = AREA, shared: bool = False, first: int = 0
    ) -> int:
        kind = MAP_SHARED if shared else MAP_PRIVATE
        return self.space.map(at, pages * PAGE, prot, kind | MAP_FIXED, file, first * PAGE, path="/file")

    def kinds(self) -> list[tuple[str, str, int]]:
        """(access, cause, pages around) of the faults so far, and forget them."""
        found = [(fault.access, fault.cause, fault.around) for fault in self.faults]
        self.faults.clear()
        return found
