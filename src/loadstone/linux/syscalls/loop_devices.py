"""ioctl on loop devices and /dev/loop-control. Sources: drivers/block/loop.c, block/ioctl.c."""

from __future__ import annotations

from errno import EBADF, EINVAL, ENOTTY
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.refusals import count_refusal
from loadstone.linux.structs import INT, signed
from loadstone.vfs.loop import AUTOCLEAR, DIRECT_IO, PARTSCAN, READ_ONLY, SECTOR, BlockOpen, LoopControl, LoopDisk

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.linux.syscalls.ioctl import Call

# include/uapi/linux/loop.h
LOOP_SET_FD, LOOP_CLR_FD, LOOP_SET_STATUS, LOOP_GET_STATUS, LOOP_SET_STATUS64, LOOP_GET_STATUS64 = range(0x4C00, 0x4C06)
LOOP_CHANGE_FD, LOOP_SET_CAPACITY, LOOP_SET_DIRECT_IO, LOOP_SET_BLOCK_SIZE, LOOP_CONFIGURE = range(0x4C06, 0x4C0B)
LOOP_CTL_ADD, LOOP_CTL_REMOVE, LOOP_CTL_GET_FREE = range(0x4C80, 0x4C83)
# include/uapi/linux/fs.h
BLKROSET, BLKROGET, BLKRRPART, BLKGETSIZE, BLKFLSBUF, BLKRASET, BLKRAGET = range(0x125D, 0x1264)
BLKSSZGET, BLKDISCARD, BLKIOMIN, BLKIOOPT, BLKALIGNOFF, BLKPBSZGET = 0x1268, 0x1277, 0x1278, 0x1279, 0x127A, 0x127B
BLKDISCARDZEROES, BLKROTATIONAL, BLKZEROOUT = 0x127C, 0x127E, 0x127F
BLKBSZGET, BLKBSZSET, BLKGETSIZE64, BLKGETDISKSEQ = 0x80081270, 0x40081271, 0x80081272, 0x80081280

_UNSIGNED, _LONG, _RANGE = Struct("<I"), Struct("<Q"), Struct("<QQ")
_INFO = Struct("<QQQQQIIII64s64s32sQQ")  # struct loop_info64
# struct loop_info: number, device, inode, rdevice, offset, encryption's type and key size, flags, name, key, init
_OLD_INFO = Struct("<i4xQQQiiii64s32sQQ8x")
_CONFIG = Struct("<II")
_CONFIG_SIZE = _CONFIG.size + _INFO.size + 64
_SETTABLE, _CLEARABLE = AUTOCLEAR | PARTSCAN, AUTOCLEAR
_CONFIGURABLE = READ_ONLY | AUTOCLEAR | PARTSCAN | DIRECT_IO
_PAGE = 4096


class Info(NamedTuple):
    """What can be set of a loop device."""

    start: int
    limit: int
    flags: int
    name: bytes


def answer(call: Call) -> int:
    """One ioctl on an open block device, or on what makes them. Raises LinuxError."""
    file = call.file
    if isinstance(file, LoopControl):
        return _control(call, file)
    assert isinstance(file, BlockOpen)
    action = LOOP.get(call.request) or BLOCK.get(call.request)
    if action is None:
        count_refusal(call.task, f"ioctl {call.request:#x} on a loop device")
        raise LinuxError(ENOTTY, "not a request that a block device answers")
    return action(call, file.disk)


def _control(call: Call, file: LoopControl) -> int:
    number = signed(call.argument)
    if call.request == LOOP_CTL_GET_FREE:
        return file.devices.free()
    if call.request == LOOP_CTL_ADD:
        return file.devices.add(number)
    if call.request == LOOP_CTL_REMOVE:
        return file.devices.remove(number)
    raise LinuxError(ENOTTY, "not a request of /dev/loop-control")


# The file behind the device


def _put_file(call: Call, disk: LoopDisk, fd: int, flags: int) -> None:
    backing = call.task.process.files.get(fd)
    if not backing.readable and not backing.writable:
        raise LinuxError(EBADF)
    if not backing.writable or not call.file.writable:
        flags |= READ_ONLY
    disk.attach(backing, flags)


def _set_fd(call: Call, disk: LoopDisk) -> int:
    _put_file(call, disk, call.argument & 0xFFFF_FFFF, 0)
    return 0


def _configure(call: Call, disk: LoopDisk) -> int:
    raw = call.read(_CONFIG_SIZE)
    fd, block_size = _CONFIG.unpack(raw[: _CONFIG.size])
    info = _unpacked(raw[_CONFIG.size : _CONFIG.size + _INFO.size])
    if info.flags & ~_CONFIGURABLE:
        raise LinuxError(EINVAL, f"loop device flags {info.flags:#x}")
    if block_size:
        _check_block_size(block_size)
    _check_start(info)
    _put_file(call, disk, fd, info.flags)
    disk.start, disk.limit, disk.name = info.start, info.limit, info.name
    disk.block_size = block_size or SECTOR
    disk.measure()
    return 0


def _check_block_size(size: int) -> None:
    """A power of two from a sector to a page (blk_validate_block_size)."""
    if not SECTOR <= size <= _PAGE or size & size - 1:
        raise LinuxError(EINVAL, f"a block size of {size} bytes")


def _check_start(info: Info) -> None:
    if info.start >> 63 or info.limit >> 63:
        raise LinuxError(EINVAL, "an offset or a size past what a file can have")


def _clear(call: Call, disk: LoopDisk) -> int:
    disk.detach()
    return 0


def _change(call: Call, disk: LoopDisk) -> int:
    """Another file of the same size behind a device that is read-only."""
    backing, old = call.task.process.files.get(call.argument & 0xFFFF_FFFF), disk.demand_file()
    if not disk.read_only or backing.inode.size != old.inode.size:
        raise LinuxError(EINVAL, "the device can be written, or the file has another size")
    keep = disk.start, disk.limit, disk.flags, disk.name, disk.block_size
    disk.clear_file()
    disk.attach(backing, keep[2])
    disk.start, disk.limit, disk.flags, disk.name, disk.block_size = keep
    disk.measure()
    return 0


# What is set of it


def _unpacked(raw: bytes) -> Info:
    fields = _INFO.unpack(raw)
    return Info(fields[3], fields[4], fields[8], fields[9].split(b"\0", 1)[0][:63])


def _set(disk: LoopDisk, info: Info) -> int:
    disk.demand_file()
    _check_start(info)
    if (disk.start, disk.limit) != (info.start, info.limit):
        disk.sync()
        disk.cut(0)
    disk.start, disk.limit, disk.name = info.start, info.limit, info.name
    kept = disk.flags & ~_CLEARABLE
    disk.flags = kept | info.flags & _SETTABLE
    disk.measure()
    return 0


def _set_status64(call: Call, disk: LoopDisk) -> int:
    return _set(disk, _unpacked(call.read(_INFO.size)))


def _set_status(call: Call, disk: LoopDisk) -> int:
    fields = _OLD_INFO.unpack(call.read(_OLD_INFO.size))
    return _set(disk, Info(fields[4] & 0xFFFF_FFFF_FFFF_FFFF, 0, fields[7], fields[8].split(b"\0", 1)[0][:63]))


def _get_status64(call: Call, disk: LoopDisk) -> int:
    inode = disk.demand_file().inode
    return call.write(
        _INFO.pack(
            inode.device, inode.inode, inode.rdev, disk.start, disk.limit, disk.minor, 0, 0,
            disk.flags, disk.name, b"", b"", 0, 0,
        )
    )  # fmt: skip


def _get_status(call: Call, disk: LoopDisk) -> int:
    inode = disk.demand_file().inode
    return call.write(
        _OLD_INFO.pack(
            disk.minor, inode.device, inode.inode, inode.rdev, disk.start, 0, 0, disk.flags,
            disk.name, b"", 0, 0,
        )
    )  # fmt: skip


def _set_capacity(call: Call, disk: LoopDisk) -> int:
    disk.demand_file()
    disk.measure()
    return 0


def _set_direct_io(call: Call, disk: LoopDisk) -> int:
    disk.demand_file()
    disk.flags = disk.flags & ~DIRECT_IO | (DIRECT_IO if call.argument else 0)
    return 0


def _set_block_size(call: Call, disk: LoopDisk) -> int:
    disk.demand_file()
    _check_block_size(call.argument)
    disk.block_size = call.argument
    return 0


# Requests of any block device


def _telling(pack: Struct, what: Callable[[LoopDisk], int]) -> Callable[[Call, LoopDisk], int]:
    return lambda call, disk: call.write(pack.pack(what(disk)))


def _set_read_only(call: Call, disk: LoopDisk) -> int:
    (wanted,) = INT.unpack(call.read(4))
    disk.flags = disk.flags & ~READ_ONLY | (READ_ONLY if wanted else 0)
    return 0


def _flush(call: Call, disk: LoopDisk) -> int:
    disk.sync()
    if disk.cache is not None and disk.pages is not None:
        disk.cache.forget(disk)
    return 0


def _discard(call: Call, disk: LoopDisk) -> int:
    if not call.file.writable:
        raise LinuxError(EBADF)
    disk.discard(*_RANGE.unpack(call.read(_RANGE.size)))
    return 0


def _no_partitions(call: Call, disk: LoopDisk) -> int:
    raise LinuxError(EINVAL, "loop devices have no partitions here")


def _set_soft_block_size(call: Call, disk: LoopDisk) -> int:
    (size,) = INT.unpack(call.read(4))
    _check_block_size(size)
    disk.soft_block_size = size
    return 0


def _nothing(call: Call, disk: LoopDisk) -> int:
    return 0


LOOP: dict[int, Callable[[Call, LoopDisk], int]] = {
    LOOP_SET_FD: _set_fd,
    LOOP_CLR_FD: _clear,
    LOOP_SET_STATUS: _set_status,
    LOOP_GET_STATUS: _get_status,
    LOOP_SET_STATUS64: _set_status64,
    LOOP_GET_STATUS64: _get_status64,
    LOOP_CHANGE_FD: _change,
    LOOP_SET_CAPACITY: _set_capacity,
    LOOP_SET_DIRECT_IO: _set_direct_io,
    LOOP_SET_BLOCK_SIZE: _set_block_size,
    LOOP_CONFIGURE: _configure,
}

BLOCK: dict[int, Callable[[Call, LoopDisk], int]] = {
    BLKROSET: _set_read_only,
    BLKROGET: _telling(INT, lambda disk: int(disk.read_only)),
    BLKRRPART: _no_partitions,
    BLKGETSIZE: _telling(_LONG, lambda disk: disk.size // SECTOR),
    BLKFLSBUF: _flush,
    BLKRASET: _nothing,
    BLKRAGET: _telling(_LONG, lambda disk: 256),
    BLKSSZGET: _telling(INT, lambda disk: disk.block_size),
    BLKDISCARD: _discard,
    BLKZEROOUT: _discard,
    BLKIOMIN: _telling(_UNSIGNED, lambda disk: disk.block_size),
    BLKIOOPT: _telling(_UNSIGNED, lambda disk: 0),
    BLKALIGNOFF: _telling(INT, lambda disk: 0),
    BLKPBSZGET: _telling(_UNSIGNED, lambda disk: disk.block_size),
    BLKDISCARDZEROES: _telling(_UNSIGNED, lambda disk: 0),
    BLKROTATIONAL: _telling(Struct("<H"), lambda disk: 0),
    BLKBSZGET: _telling(INT, lambda disk: disk.soft_block_size),
    BLKBSZSET: _set_soft_block_size,
    BLKGETSIZE64: _telling(_LONG, lambda disk: disk.size),
    BLKGETDISKSEQ: _telling(_LONG, lambda disk: disk.sequence),
}
