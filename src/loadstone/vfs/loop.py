"""Loop devices: block devices whose sectors are the bytes of a file of the guest's. Source: drivers/block/loop.c.

What is written reaches the file at once; pages of the device that are mapped are written back by msync and fsync. So
the device and its file never disagree but for such pages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EBADF, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOSPC, ENXIO, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.devices import LOOP_DEVICES, LOOP_MAJOR, DeviceFile, DeviceNode, add_loop_node
from loadstone.vfs.file import total
from loadstone.vfs.flags import O_EXCL, S_IFBLK, S_IFMT, S_IFREG
from loadstone.vfs.open_files import SeekableFile
from loadstone.vfs.overlay_directory import OverlayDirectory
from loadstone.vfs.regular import RegularFile, before

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Location
    from loadstone.vfs.vfs import Vfs

SECTOR = 512
READ_ONLY, AUTOCLEAR, PARTSCAN, DIRECT_IO = 1, 4, 8, 16  # include/uapi/linux/loop.h: LO_FLAGS_*


class LoopDisk(RegularFile):
    """One loop device: the bytes that its node stands for, in a part of a file.

    Attributes:
        minor: its number.
        backing: the open file behind it, None while there is none.
        start, limit: which part of the file it shows, in bytes; `limit` 0: to its end.
        flags: LO_FLAGS_*.
        name: what whoever set it up called the file.
        block_size, soft_block_size: of a logical block, and of one in the kernel's own view (BLKBSZGET), bytes.
        holder: who has it for itself alone: a mounted file system, or an opener with O_EXCL.
        sequence: how many times a disk was made of it (BLKGETDISKSEQ).
    """

    __slots__ = (
        "backing", "block_size", "flags", "holder", "limit", "minor", "name", "sequence", "soft_block_size", "start",
    )  # fmt: skip

    def __init__(self, vfs: Vfs, minor: int) -> None:
        super().__init__(vfs.page_cache, os.makedev(LOOP_MAJOR, minor), minor + 1, S_IFREG | 0o600)
        self.minor = minor
        self.backing: OpenFile | None = None
        self.start = self.limit = self.flags = self.sequence = 0
        self.name = b""
        self.block_size, self.soft_block_size = SECTOR, 4096
        self.holder: object | None = None

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return bool(self.flags & READ_ONLY)

    def attach(self, file: OpenFile, flags: int) -> None:
        """Put a file behind the device. Raises LinuxError: EBUSY if there is one, EINVAL for what is no file."""
        if self.backing is not None:
            raise LinuxError(EBUSY, "the loop device has a file already")
        if _contents(file) is None:
            raise LinuxError(EINVAL, f"{file.path} is neither a regular file nor a block device")
        if _contents(file) is self:
            raise LinuxError(EBADF, "a loop device cannot be behind itself")
        file.hold()
        self.backing, self.flags = file, flags
        self.sequence += 1
        self.measure()

    def measure(self) -> None:
        """Take the size from the file, as it is now: whole sectors (LOOP_SET_CAPACITY)."""
        contents = _contents(self.demand_file())
        assert contents is not None
        size = max(0, contents.end() - self.start)
        size = min(size, self.limit) if self.limit else size
        size -= size % SECTOR
        if size < self.size:
            self.cut(size)
        self.size = size

    def detach(self) -> None:
        """Take the file away. With other openers that happens when they have closed it (loop_clr_fd)."""
        self.demand_file()
        if self.opened > 1 or self.holder is not None:
            self.flags |= AUTOCLEAR
        else:
            self.clear_file()

    def clear_file(self) -> None:
        """Take the file away now."""
        self.sync()
        self.cut(0)
        backing = self.demand_file()
        self.backing = None
        self.size = self.start = self.limit = self.flags = 0
        self.name, self.block_size = b"", SECTOR
        backing.close()

    def claim(self, holder: object) -> None:
        """Have the device for itself alone; EBUSY."""
        if self.holder is not None and self.holder is not holder:
            raise LinuxError(EBUSY, "the block device is mounted, or opened with O_EXCL")
        self.holder = holder

    def release(self, holder: object) -> None:
        """Give up a claim; the device may lose its file with that."""
        if self.holder is holder:
            self.holder = None
        self.closed()

    def closed(self) -> None:
        """The last one to close a device that clears itself takes its file away (lo_release)."""
        if not self.opened and self.holder is None and self.flags & AUTOCLEAR and self.backing is not None:
            self.clear_file()

    def demand_file(self) -> OpenFile:
        """The file behind the device; ENXIO if there is none."""
        if self.backing is None:
            raise LinuxError(ENXIO, "the loop device has no file")
        return self.backing

    def _read_host(self, pieces: Sequence[memoryview], offset: int) -> int:
        contents = _contents(self.demand_file()) if self.backing is not None else None
        count = min(total(pieces), self.size - offset)
        if contents is None or count <= 0:
            return 0
        return contents.read_into(before(pieces, count), self.start + offset)

    def _write_host(self, pieces: Sequence[memoryview], offset: int, length: int) -> int:
        contents = _contents(self.demand_file())
        if self.read_only:
            raise LinuxError(EPERM, "the loop device is read-only")
        if offset >= self.size or contents is None:
            raise LinuxError(ENOSPC, "the end of the block device")
        return contents.write_from(before(pieces, min(length, self.size - offset)), self.start + offset)

    def written(self, end: int, modified: bool) -> None:
        """A device has no times, and its size stays."""

    def discard(self, offset: int, length: int) -> None:
        """Make a range read as zeros, giving its room back (BLKDISCARD, BLKZEROOUT)."""
        if offset % SECTOR or length % SECTOR or offset + length > self.size:
            raise LinuxError(EINVAL)
        if self.read_only:
            raise LinuxError(EPERM)
        contents = _contents(self.demand_file())
        assert contents is not None
        if isinstance(contents, LoopDisk):
            contents.discard(self.start + offset, length)
        else:
            contents.clear(self.start + offset, length)
        if self.pages is not None and self.cache is not None:
            self.cache.forget(self)

    def sync(self) -> None:
        """Dirty pages of the device reach the file."""
        RegularFile.sync(self)
        if self.backing is not None:
            self.backing.sync()


def _contents(file: OpenFile) -> RegularFile | None:
    """What holds the bytes of a file that can be behind a device."""
    if file.mapped is not None:
        return file.mapped
    return file.inode if isinstance(file.inode, RegularFile) else None


class BlockOpen(SeekableFile):
    """An open block device."""

    __slots__ = ("disk", "exclusive", "mapped")

    driver = "loop"

    def __init__(self, inode: Inode, flags: int, location: Location | None, disk: LoopDisk) -> None:
        super().__init__(inode, flags, location)
        self.exclusive = bool(flags & O_EXCL)
        if self.exclusive:
            disk.claim(self)
        self.disk = self.mapped = disk
        disk.opened += 1

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Read from the device."""
        self.demand_readable()
        at = self.offset if offset is None else offset
        if at < 0:
            raise LinuxError(EINVAL)
        done = self.disk.read_into(pieces, at)
        if offset is None:
            self.offset = at + done
        return done

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Write to the device; ENOSPC at its end."""
        self.demand_writable()
        at = self.offset if offset is None else offset
        if at < 0:
            raise LinuxError(EINVAL)
        done = self.disk.write_from(pieces, at)
        if offset is None:
            self.offset = at + done
        return done

    def end(self) -> int:
        """Bytes of the device."""
        return self.disk.size

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """fallocate(2): holes and zeros (blkdev_fallocate)."""
        self.demand_writable()
        self.disk.discard(offset, length)

    def sync(self) -> None:
        """Dirty pages reach the file behind the device."""
        self.disk.sync()

    def release(self) -> None:
        """One opener less."""
        self.disk.opened -= 1
        if self.exclusive:
            self.disk.release(self)
        else:
            self.disk.closed()


class LoopControl(DeviceFile):
    """/dev/loop-control: finds, makes and removes loop devices."""

    __slots__ = ("devices",)

    driver = "loop-control"

    def __init__(self, inode: Inode, flags: int, location: Location | None, devices: LoopDevices) -> None:
        super().__init__(inode, flags, location)
        self.devices = devices

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """EINVAL: there is nothing to read."""
        raise LinuxError(EINVAL)

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """EINVAL."""
        raise LinuxError(EINVAL)


class LoopDevices:
    """All loop devices of the machine, by number."""

    def __init__(self, vfs: Vfs) -> None:
        self.vfs = vfs
        self.disks = {minor: LoopDisk(vfs, minor) for minor in range(LOOP_DEVICES)}

    def open(self, inode: Inode, flags: int, location: Location | None) -> OpenFile:
        """Open a node; ENXIO if there is no such device any more."""
        return BlockOpen(inode, flags, location, self.disk_of(inode))

    def open_control(self, inode: Inode, flags: int, location: Location | None) -> OpenFile:
        """Open /dev/loop-control."""
        return LoopControl(inode, flags, location, self)

    def disk_of(self, inode: Inode) -> LoopDisk:
        """The device that a block device node stands for; ENXIO."""
        disk = self.disks.get(os.minor(inode.rdev)) if os.major(inode.rdev) == LOOP_MAJOR else None
        if inode.mode & S_IFMT != S_IFBLK or disk is None:
            raise LinuxError(ENXIO, "there is no such block device")
        return disk

    def places(self) -> list[Location]:
        """Where the files are that are behind devices."""
        files = [disk.backing for disk in self.disks.values()]
        return [file.location for file in files if file is not None and file.location is not None]

    def free(self) -> int:
        """A device without a file; a new one if all have one (LOOP_CTL_GET_FREE)."""
        for minor in sorted(self.disks):
            if self.disks[minor].backing is None:
                return minor
        return self.add(-1)

    def add(self, minor: int) -> int:
        """Make a device, the next one for -1 (LOOP_CTL_ADD); EEXIST."""
        if minor < 0:
            minor = next(number for number in range(len(self.disks) + 1) if number not in self.disks)
        if minor in self.disks:
            raise LinuxError(EEXIST)
        self.disks[minor] = LoopDisk(self.vfs, minor)
        add_loop_node(self._names(), minor, self.open)
        return minor

    def remove(self, minor: int) -> int:
        """Take a device away (LOOP_CTL_REMOVE); ENODEV, EBUSY while it has a file or an opener."""
        disk = self.disks.get(minor)
        if minor < 0 or disk is None:
            raise LinuxError(EINVAL if minor < 0 else ENODEV)
        if disk.backing is not None or disk.opened:
            raise LinuxError(EBUSY)
        del self.disks[minor]
        names = self._names()
        node = names.upper.get(f"loop{minor}")
        if isinstance(node, DeviceNode):
            del names.upper[f"loop{minor}"]
            self.vfs.single["devtmpfs"].root.children.pop(f"loop{minor}", None)
        return minor

    def _names(self) -> OverlayDirectory:
        root = self.vfs.single["devtmpfs"].root.inode
        if not isinstance(root, OverlayDirectory):
            raise LinuxError(ENOENT, "there is no /dev")
        return root
