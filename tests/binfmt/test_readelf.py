"""Program headers and properties of the host's own programs, compared with what readelf prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from loadstone.binfmt import names
from loadstone.binfmt.elf import gnu_properties
from loadstone.binfmt.plan import ElfPlan
from loadstone.binfmt.registry import search_binary_handler
from loadstone.binfmt.source import HostSource
from support.speed import cost

pytestmark = pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")

_ROW = re.compile(
    r"^  (\S.*?)\s+0x([0-9a-f]+) 0x([0-9a-f]+) 0x([0-9a-f]+) 0x([0-9a-f]+) 0x([0-9a-f]+) ([R ][W ][E ]) (0x[0-9a-f]+|0)"
    r"$"
)


def elf_programs() -> list[str]:
    """The ELF files of /usr/bin, by name."""
    found = []
    for name in sorted(os.listdir("/usr/bin")):
        path = f"/usr/bin/{name}"
        if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK | os.X_OK):
            with open(path, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    found.append(path)
    return found


def readelf(paths: list[str]) -> Iterator[tuple[str, str]]:
    """What `readelf -lWn` prints for each file."""
    environment = {**os.environ, "LC_ALL": "C"}
    command = ["readelf", "-lWnh", *paths]
    text = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, check=False
    ).stdout
    if len(paths) == 1:
        yield paths[0], text
        return
    parts = re.split(r"^File: (.*)$", text, flags=re.MULTILINE)[1:]
    yield from zip(parts[::2], parts[1::2], strict=True)


def segment_flags(flags: int) -> str:
    """As `readelf -l` shows them: three columns, `R E`."""
    return "".join(letter if flags & bit else " " for bit, letter in ((4, "R"), (2, "W"), (1, "E")))


def compare(paths: list[str]) -> int:
    compared = 0
    for path, text in readelf(paths):
        with HostSource(path) as source:
            plan = search_binary_handler(source)
            assert isinstance(plan, ElfPlan)
            properties = gnu_properties(source, plan)
        rows = [match.groups() for match in map(_ROW.match, text.splitlines()) if match]
        ours = [
            (
                names.program_header_type(entry.type),
                *(f"{value:x}" for value in (entry.offset, entry.vaddr, entry.paddr, entry.filesz, entry.memsz)),
                segment_flags(entry.flags),
                hex(entry.align) if entry.align else "0",
            )
            for entry in plan.program_headers
        ]
        theirs = [(row[0], *(f"{int(value, 16):x}" for value in row[1:6]), *row[6:]) for row in rows]
        assert ours == theirs, path
        interpreter = re.search(r"Requesting program interpreter: (.*)\]", text)
        assert plan.interpreter == (interpreter[1].encode() if interpreter else None), path
        entry = re.search(r"Entry point address:\s+0x([0-9a-f]+)", text)
        assert entry is not None
        assert plan.entry == int(entry[1], 16), path
        assert ("x86 feature: " in text) == any(item.type == 0xC0000002 and any(item.data) for item in properties), path
        compared += 1
    return compared


def test_a_hundred_programs() -> None:
    programs = elf_programs()
    if len(programs) < 20:
        pytest.skip("too few programs in /usr/bin")
    sample = programs[:: max(1, len(programs) // 100)]
    assert compare(sample) == len(sample)


@pytest.mark.slow
def test_every_program() -> None:
    programs = elf_programs()
    assert compare(programs) == len(programs)


def test_planning_is_quick() -> None:
    """`/bin/ls` in at most 0.3 ms where the unit takes 0.12 ms."""
    with HostSource("/bin/ls") as source:
        assert cost(lambda: search_binary_handler(source), rounds=100) < 2.5
