"""/proc/PID/maps of unusual names, against the kernel; the events that mappings cause."""

from __future__ import annotations

import os
import shutil

import pytest

from loadstone.events import Events, Map
from memory.conftest import Twin

PAGE = 4096
AREA = 0x7FFF_0000_0000


@pytest.mark.parametrize("name", ["a\nb", "with space", "back\\slash", "tab\there", "ünï", "x" * 200, "end (deleted)"])
def test_names(twin: Twin, tmp_path: os.PathLike[str], data_file: str, name: str) -> None:
    path = os.path.join(tmp_path, name)
    shutil.copy(data_file, path)
    twin([("mmap", AREA, PAGE, 1, 2, 3, 0), ("mmap", AREA + PAGE, PAGE, 7, 1, 3, 0x3FF000)], (path,))


def test_heap_and_stack_by_address(twin: Twin) -> None:
    """[heap] and [stack] are whatever VMA lies there, a part of it included."""
    twin([("mprotect", 0x7FFFFFFDE000, PAGE, 1), ("mmap", 0x7FFFFFFDF000, PAGE, 3, 0x32)])


def test_events(twin: Twin, data_file: str) -> None:
    space = twin([("mmap", AREA, 8 * PAGE, 1, 2, 3, PAGE)], (data_file,))
    seen: list[Map] = []
    space.events = Events()
    space.events.subscribe(seen.append, ["map"])
    space.owner_ids = (7, 8, 0)
    space.map(AREA + 16 * PAGE, PAGE, 3, 0x32)
    space.protect(AREA + PAGE, PAGE, 5)
    space.unmap(AREA, 2 * PAGE)
    assert seen == [
        Map("map", 7, 8, AREA + 16 * PAGE, AREA + 17 * PAGE, "rw-p", 0, ""),
        Map("protect", 7, 8, AREA + PAGE, AREA + 2 * PAGE, "r-xp", 2 * PAGE, data_file),
        Map("unmap", 7, 8, AREA, AREA + PAGE, "r--p", PAGE, data_file),
        Map("unmap", 7, 8, AREA + PAGE, AREA + 2 * PAGE, "r-xp", 2 * PAGE, data_file),
    ]
