"""The block devices in /sys: their directories, and the three places with links to them. Source: block/genhd.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.vfs.devices import LOOP_MAJOR
from loadstone.vfs.flags import S_IFDIR, S_IFLNK, S_IFREG
from loadstone.vfs.generated import DynamicLink, GeneratedDirectory, GeneratedFile
from loadstone.vfs.loop import AUTOCLEAR, DIRECT_IO, PARTSCAN, SECTOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.vfs.inode import Entry, Inode
    from loadstone.vfs.loop import LoopDevices, LoopDisk

SYS_DEVICE = 22
_FIRST_INODE = 0x1_0000
_PER_DISK = 0x100


class BlockDirectories:
    """What /sys has of the loop devices; everything is made when it is looked up, as devices come and go."""

    __slots__ = ("_loops", "_now")

    def __init__(self, loops: Callable[[], LoopDevices], now_ns: int) -> None:
        self._loops = loops
        self._now = now_ns

    def disks(self) -> GeneratedDirectory:
        """/sys/devices/virtual/block: a directory for each."""
        return self._directory(2, self._names(S_IFDIR), self._disk)

    def links(self, number: int, up: str, by_number: bool = False) -> GeneratedDirectory:
        """/sys/block, /sys/class/block, /sys/dev/block: links to those, `up` being the way to /sys."""

        def shown(minor: int) -> str:
            return f"{LOOP_MAJOR}:{minor}" if by_number else f"loop{minor}"

        def names() -> list[Entry]:
            at = _FIRST_INODE + number * 0x1000
            return [(shown(minor), at + minor, S_IFLNK >> 12) for minor in sorted(self._loops().disks)]

        def find(name: str) -> Inode | None:
            minor = next((one for one in self._loops().disks if shown(one) == name), None)
            if minor is None:
                return None
            at, target = _FIRST_INODE + number * 0x1000 + minor, f"{up}devices/virtual/block/loop{minor}"
            return DynamicLink(lambda: target, device=SYS_DEVICE, inode=at)

        return self._directory(number, names, find)

    def _names(self, kind: int) -> Callable[[], list[Entry]]:
        return lambda: [(f"loop{minor}", _number(minor), kind >> 12) for minor in sorted(self._loops().disks)]

    def _disk(self, name: str) -> Inode | None:
        digits = name.removeprefix("loop")
        disk = self._loops().disks.get(int(digits)) if name != digits and digits.isdecimal() else None
        if disk is None:
            return None
        groups = {"queue": _queue(disk), "holders": {}, "slaves": {}}
        if disk.backing is not None:
            groups["loop"] = _loop(disk)
        files, start = _attributes(disk), _number(disk.minor)

        def names() -> list[Entry]:
            rows = [*((one, S_IFDIR) for one in groups), *((one, S_IFREG) for one in files)]
            return [(one, start + at, kind >> 12) for at, (one, kind) in enumerate(rows, 1)]

        def find(asked: str) -> Inode | None:
            if asked in groups:
                return self._files(start + 0x20, groups[asked])
            return self._file(start + 0x40, files[asked]) if asked in files else None

        return self._directory(start, names, find)

    def _files(self, number: int, texts: dict[str, str]) -> GeneratedDirectory:
        def names() -> list[Entry]:
            return [(one, number + at, S_IFREG >> 12) for at, one in enumerate(texts, 1)]

        return self._directory(number, names, lambda name: self._file(number, texts[name]) if name in texts else None)

    def _file(self, number: int, text: str) -> GeneratedFile:
        data = text.encode("utf-8", "surrogateescape") + b"\n"
        made = GeneratedFile(lambda: data, device=SYS_DEVICE, inode=number, now_ns=self._now)
        made.size = 4096
        return made

    def _directory(
        self, number: int, names: Callable[[], list[Entry]], find: Callable[[str], Inode | None]
    ) -> GeneratedDirectory:
        return GeneratedDirectory(names, find, device=SYS_DEVICE, inode=number, mode=0o755, now_ns=self._now)


def _number(minor: int) -> int:
    """The inode number of a device's directory; its files follow."""
    return _FIRST_INODE + (minor + 0x100) * _PER_DISK


def _attributes(disk: LoopDisk) -> dict[str, str]:
    return {
        "alignment_offset": "0",
        "dev": f"{LOOP_MAJOR}:{disk.minor}",
        "discard_alignment": "0",
        "diskseq": str(disk.sequence),
        "ext_range": "256",
        "hidden": "0",
        "range": "1",
        "removable": "0",
        "ro": str(int(disk.read_only)),
        "size": str(disk.size // SECTOR),
        "stat": " ".join(f"{0:8}" for _ in range(17)),
        "uevent": f"MAJOR={LOOP_MAJOR}\nMINOR={disk.minor}\nDEVNAME=loop{disk.minor}\nDEVTYPE=disk",
    }


def _queue(disk: LoopDisk) -> dict[str, str]:
    size = str(disk.block_size)
    return {
        "discard_granularity": "4096",
        "discard_max_bytes": "4294966784",
        "discard_zeroes_data": "0",
        "hw_sector_size": size,
        "io_poll": "0",
        "logical_block_size": size,
        "minimum_io_size": size,
        "optimal_io_size": "0",
        "physical_block_size": size,
        "read_ahead_kb": "128",
        "rotational": "0",
        "scheduler": "[none]",
        "zoned": "none",
    }


def _loop(disk: LoopDisk) -> dict[str, str]:
    assert disk.backing is not None
    return {
        "autoclear": str(int(bool(disk.flags & AUTOCLEAR))),
        "backing_file": disk.backing.path,
        "dio": str(int(bool(disk.flags & DIRECT_IO))),
        "offset": str(disk.start),
        "partscan": str(int(bool(disk.flags & PARTSCAN))),
        "sizelimit": str(disk.limit),
    }
