"""A process's address space as it was when it exited, noted just before it is given back."""

from __future__ import annotations

from typing import Any

from loadstone import events
from loadstone.machine.paging import PRESENT, PROTNONE
from loadstone.observe.maps import Mapping
from loadstone.observe.space import mappings_of

_USER_END = 1 << 47


class AtExit:
    """Subscribe it to the exit events of a machine. `process` is a `loadstone.api.Process`.

    Attributes:
        maps: the mappings in ascending order; empty until the exit.
        resident: pages that have a frame, by the start of the mapping.
        table_frames: frames of the page tables, the page directory included.
        frames: frames of the whole machine, by owner.
    """

    KINDS = ("exit",)

    def __init__(self, process: Any) -> None:
        self._process = process
        self.maps: list[Mapping] = []
        self.resident: dict[int, int] = {}
        self.table_frames = 0
        self.frames: dict[str, int] = {}

    def __call__(self, record: events.Exit) -> None:
        """Look, if it is this process that exits."""
        process = self._process
        if record.pid != process.pid:
            return
        self.maps = mappings_of(process.inner.space)
        self.resident = resident_pages(process.page_table, self.maps)
        self.table_frames = process.page_table.table_frames()
        self.frames = process.machine.physical.usage()


def resident_pages(page_table: Any, maps: list[Mapping]) -> dict[int, int]:
    """Pages of each mapping that have a frame, by the mapping's start."""
    return {
        mapping.start: sum(
            entry & (PRESENT | PROTNONE) != 0 for *_, entry in page_table.entries(mapping.start, mapping.end)
        )
        for mapping in maps
        if mapping.start < _USER_END
    }
