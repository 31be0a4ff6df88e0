"""The text of /proc/PID/maps, read back: what an observer has of an address space when the process is gone."""

from __future__ import annotations

from collections.abc import Iterable

from loadstone.lean import NamedTuple


class Mapping(NamedTuple):
    """One line of /proc/PID/maps. Addresses and the file offset are in bytes; `path` is "" for anonymous memory."""

    start: int
    end: int
    perms: str
    offset: int
    path: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


def parse_maps(text: str) -> list[Mapping]:
    """The mappings in ascending order. A line that is not one of /proc/PID/maps is left out."""
    found = []
    for line in text.split("\n"):
        fields = line.split(None, 5)
        if len(fields) < 5:
            continue
        start, _, end = fields[0].partition("-")
        try:
            path = fields[5] if len(fields) > 5 else ""
            found.append(Mapping(int(start, 16), int(end, 16), fields[1], int(fields[2], 16), path))
        except ValueError:
            continue
    return sorted(found)


def find_mapping(maps: Iterable[Mapping], address: int) -> Mapping | None:
    """The mapping that contains `address`."""
    return next((mapping for mapping in maps if mapping.start <= address < mapping.end), None)


def format_maps(maps: Iterable[Mapping]) -> str:
    """The text again, as the kernel prints it, without device and inode."""
    lines = []
    for start, end, perms, offset, path in maps:
        line = f"{start:08x}-{end:08x} {perms} {offset:08x} 00:00 0 "
        lines.append(f"{line:<73}{path}\n" if path else f"{line}\n")
    return "".join(lines)
