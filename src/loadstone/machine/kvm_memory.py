"""What a vCPU may still remember of page tables that have changed, and how it is made to forget.

KVM with shadow paging (and any CPU's TLB) keeps translations; where nothing in the guest flushes them, the host does:

- *frames*: taking the host's own translation of a frame away (MADV_DONTNEED on the shared mapping, contents kept) makes
  KVM drop every translation to that frame, in every address space: 5 us for a run of frames;
- *everything*: taking a memory slot away drops all translations: 40 us, and the program then faults its pages in again,
  inside the host.

A translation to a frame that is written as an entry's *upgrade* heals itself at the next fault, so nothing is done for
those. The frame of an old page table must not become another's before everything was dropped: KVM keeps copies of page
tables by frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadstone.machine.kvm_api import VirtualMachine
from loadstone.machine.paging import FRAME_MASK, PageTable
from loadstone.machine.physical import FRAME_SHIFT, PhysicalMemory

_MOST_RUNS = 24  # of consecutive frames, beyond which all is dropped at once
_MOST_FRAMES = 4096
_MOST_OLD_TABLES = 256  # 1 MiB of page-table frames may wait to be used again


class StaleTranslations:
    """Collects what changed while no program ran; `drop` before the next one does.

    Attributes:
        runs, flushes: how often runs of frames were dropped, and everything.
    """

    def __init__(self, memory: PhysicalMemory, machine: VirtualMachine) -> None:
        self._memory = memory
        self._machine = machine
        self._frames: set[int] = set()
        self._all = False
        self.pending = False
        self.runs = 0
        self.flushes = 0
        memory.old_tables = []

    def add(self, frames: Iterable[int]) -> None:
        """Translations to these frames are out of date."""
        self.pending = True
        if not self._all:
            self._frames.update(frames)
            if len(self._frames) > _MOST_FRAMES:
                self.add_all()

    def add_range(self, root: int, start: int, end: int) -> None:
        """Those of [start, end) in one address space are, whose entries still point at the same frames."""
        table = PageTable.of_root(self._memory, root, start, end)
        self.add((entry & FRAME_MASK) >> FRAME_SHIFT for _, _, entry in table.entries(start, end))

    def add_all(self) -> None:
        """All are."""
        self.pending = self._all = True
        self._frames.clear()

    def look_at_tables(self) -> None:
        """Address spaces end without a report: see that the frames of their page tables do not wait for ever."""
        if len(self._memory.old_tables or ()) > _MOST_OLD_TABLES:
            self.add_all()

    def drop(self) -> None:
        """Make every vCPU forget what was added. None may be running."""
        self.pending = False
        old_tables = self._memory.old_tables
        if old_tables and len(old_tables) > _MOST_OLD_TABLES:
            self._all = True
        runs = [] if self._all else _runs(sorted(self._frames))
        if self._all or len(runs) > _MOST_RUNS:
            self.flush()
            return
        for first, count in runs:
            self._memory.forget(first, count)
        self.runs += len(runs)
        self._frames.clear()

    def close(self) -> None:
        """The vCPUs are gone, and with them what they remembered."""
        self._memory.end_table_quarantine()
        self._memory.old_tables = None

    def flush(self) -> None:
        """Drop everything now."""
        self._machine.flush()
        self._memory.end_table_quarantine()
        self.flushes += 1
        self._all = False
        self._frames.clear()


def _runs(frames: Sequence[int]) -> list[tuple[int, int]]:
    """(first, count) of consecutive numbers in an ascending sequence."""
    runs: list[tuple[int, int]] = []
    first = count = 0
    for frame in frames:
        if count and frame == first + count:
            count += 1
            continue
        if count:
            runs.append((first, count))
        first, count = frame, 1
    if count:
        runs.append((first, count))
    return runs
