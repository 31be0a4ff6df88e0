"""/dev: the few devices every program may expect. None is the host's, but for the terminal we were started on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from errno import EINVAL, ENOSPC, ENXIO
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.file import OpenFile, total
from loadstone.vfs.flags import NOW, OMIT, S_IFBLK, S_IFCHR, S_IFDIR, S_IFMT
from loadstone.vfs.inode import ROOT, Inode
from loadstone.vfs.overlay import Overlay
from loadstone.vfs.overlay_directory import OverlayDirectory

if TYPE_CHECKING:
    from loadstone.vfs.devpts import Terminals
    from loadstone.vfs.location import Location
    from loadstone.vfs.loop import LoopDevices

RandomBytes = Callable[[int], bytes]

LOOP_MAJOR = 7  # include/uapi/linux/major.h
LOOP_DEVICES = 8  # CONFIG_BLK_DEV_LOOP_MIN_COUNT
DISK_GROUP = 6

LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


class DeviceFile(OpenFile):
    """An open device that takes and gives bytes without ever waiting. This one is /dev/null."""

    __slots__ = ()

    pollable = False

    @property
    def positioned(self) -> bool:
        """Offsets are accepted and mean nothing."""
        return True

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """End of file."""
        self.demand_readable()
        return 0

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Everything is taken."""
        self.demand_writable()
        return total(pieces)

    def available(self) -> int | None:
        """Nothing, ever."""
        return 0

    def swallow(self, count: int) -> int:
        """Everything is taken; the writer's memory is not looked at."""
        self.demand_writable()
        return count

    def seek(self, offset: int, whence: int) -> int:
        """Source: drivers/char/mem.c, null_lseek(): always 0."""
        return 0

    def sync(self) -> None:
        """EINVAL, as for a device without a file system."""
        raise LinuxError(EINVAL)


class ZeroFile(DeviceFile):
    """/dev/zero."""

    __slots__ = ()

    def available(self) -> int | None:
        """As much as anybody wants."""
        return None

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Zeros."""
        self.demand_readable()
        for piece in pieces:
            piece[:] = bytes(len(piece))
        return total(pieces)


class FullFile(ZeroFile):
    """/dev/full."""

    __slots__ = ()

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """ENOSPC."""
        self.demand_writable()
        raise LinuxError(ENOSPC)

    def swallow(self, count: int) -> int:
        """ENOSPC."""
        return self.write_from([])


class RandomFile(DeviceFile):
    """/dev/random and /dev/urandom."""

    __slots__ = ("random_bytes",)

    def __init__(self, inode: Inode, flags: int, location: Location | None, random_bytes: RandomBytes) -> None:
        super().__init__(inode, flags, location)
        self.random_bytes = random_bytes

    def available(self) -> int | None:
        """As much as anybody wants."""
        return None

    def swallow(self, count: int) -> int:
        """What is written is mixed in, so it is looked at."""
        return -1

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Bytes of the machine's own source of randomness, which may be seeded."""
        self.demand_readable()
        for piece in pieces:
            piece[:] = self.random_bytes(len(piece))
        return total(pieces)


Opener = Callable[[Inode, int, "Location | None"], OpenFile]


class DeviceNode(Inode):
    """A device node of the machine's. `opener` is its driver."""

    __slots__ = ("opener",)

    def __init__(self, device: int, inode: int, mode: int, rdev: int, opener: Opener, now_ns: int) -> None:
        super().__init__(device, inode, mode, now_ns=now_ns)
        self.rdev = rdev
        self.opener = opener

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """As the driver does."""
        return self.opener(self, flags, location)

    def truncate(self, size: int) -> None:
        """EINVAL."""
        raise LinuxError(EINVAL)

    def set_mode(self, mode: int) -> None:
        """Kept in memory."""
        self.mode = self.mode & S_IFMT | mode & 0o7777

    def set_owner(self, uid: int, gid: int) -> None:
        """Kept in memory."""
        self.uid = uid if uid >= 0 else self.uid
        self.gid = gid if gid >= 0 else self.gid

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Kept in memory."""
        self.atime_ns = self.atime_ns if atime_ns in (OMIT, NOW) else atime_ns
        self.mtime_ns = self.mtime_ns if mtime_ns in (OMIT, NOW) else mtime_ns


def _add_loop_devices(root: OverlayDirectory, loops: Callable[[], LoopDevices]) -> None:
    """The nodes that are there before anybody asks for one; the driver is loaded when one is opened."""

    def block(inode: Inode, flags: int, location: Location | None) -> OpenFile:
        return loops().open(inode, flags, location)

    def control(inode: Inode, flags: int, location: Location | None) -> OpenFile:
        return loops().open_control(inode, flags, location)

    fs, now = root.fs, root.fs.now()
    number = os.makedev(10, 237)
    root.upper["loop-control"] = DeviceNode(fs.device, fs.number(), S_IFCHR | 0o660, number, control, now)
    for minor in range(LOOP_DEVICES):
        add_loop_node(root, minor, block)


def add_loop_node(root: OverlayDirectory, minor: int, opener: Opener) -> None:
    """Give a loop device its name in /dev."""
    fs, number = root.fs, os.makedev(LOOP_MAJOR, minor)
    node = DeviceNode(fs.device, fs.number(), S_IFBLK | 0o660, number, opener, fs.now())
    node.gid = DISK_GROUP
    root.upper[f"loop{minor}"] = node


def opener_of(dev: Inode, node: Inode) -> Opener:
    """The driver for a device node somewhere: that of the one in /dev (its topmost directory) with the same number."""
    if isinstance(dev, OverlayDirectory):
        for known in dev.upper.values():
            if isinstance(known, DeviceNode) and known.rdev == node.rdev and not (known.mode ^ node.mode) & S_IFMT:
                return known.opener
    raise LinuxError(ENXIO, "the machine has no device of this number")


def populate(
    fs: Overlay,
    random_bytes: RandomBytes,
    terminals: Callable[[], Terminals],
    loops: Callable[[], LoopDevices],
    terminal_fd: int = -1,
) -> Inode:
    """Fill an empty file system in memory with /dev's names; its root.

    `terminals`: the machine's pseudo-terminals. `loops`: its loop devices.
    `terminal_fd`: our descriptor of the terminal the guest may use, -1 for none (opening /dev/tty is then ENXIO).
    """
    root = fs.root
    assert isinstance(root, OverlayDirectory)

    def tty(inode: Inode, flags: int, location: Location | None) -> OpenFile:
        file = terminals().open_controlling(flags, location)
        if file is not None:
            return file
        if terminal_fd < 0:
            raise LinuxError(ENXIO, "there is no terminal")
        from loadstone.vfs.streams import StreamInode

        return StreamInode(terminal_fd).open(flags, location)

    def random(inode: Inode, flags: int, location: Location | None) -> OpenFile:
        return RandomFile(inode, flags, location, random_bytes)

    def ptmx(inode: Inode, flags: int, location: Location | None) -> OpenFile:
        return terminals().open_master(inode, flags, location)

    now = fs.now()
    drivers: tuple[tuple[str, int, int, Opener], ...] = (
        ("null", 1, 3, DeviceFile),
        ("zero", 1, 5, ZeroFile),
        ("full", 1, 7, FullFile),
        ("random", 1, 8, random),
        ("urandom", 1, 9, random),
        ("tty", 5, 0, tty),
        ("ptmx", 5, 2, ptmx),
    )
    for name, major, minor, opener in drivers:
        number = os.makedev(major, minor)
        root.upper[name] = DeviceNode(fs.device, fs.number(), S_IFCHR | 0o666, number, opener, now)
    _add_loop_devices(root, loops)
    for name, target in LINKS:
        root.symlink(name, target, ROOT)
    root.mkdir("pts", 0o755, ROOT)
    root.mkdir("shm", 0o1777, ROOT)
    root.mkdir("mqueue", 0o1777, ROOT)
    root.mode = S_IFDIR | 0o755
    return root
