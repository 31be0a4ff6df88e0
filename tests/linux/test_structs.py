"""The packed structures compared with what this kernel's own calls write."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace

import pytest

from loadstone.linux import structs

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_NEWFSTATAT, SYS_STATX, SYS_GETDENTS64, SYS_GETDENTS = 262, 332, 217, 78
AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100


def attributes(path: str) -> SimpleNamespace:
    s = os.lstat(path)
    names = ("mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks", "atime_ns", "mtime_ns", "ctime_ns")
    return SimpleNamespace(device=s.st_dev, inode=s.st_ino, **{name: getattr(s, f"st_{name}") for name in names})


@pytest.mark.parametrize("path", ["/", "/etc/passwd", "/dev/null", "/usr/bin"])
def test_stat_is_what_the_kernel_writes(path: str) -> None:
    buffer = ctypes.create_string_buffer(b"\xaa" * 144, 144)
    assert LIBC.syscall(SYS_NEWFSTATAT, AT_FDCWD, path.encode(), buffer, AT_SYMLINK_NOFOLLOW) == 0
    assert structs.pack_stat(attributes(path)) == buffer.raw


@pytest.mark.parametrize("path", ["/", "/etc/passwd", "/dev/null"])
def test_statx_is_what_the_kernel_writes(path: str) -> None:
    buffer = ctypes.create_string_buffer(256)
    assert LIBC.syscall(SYS_STATX, AT_FDCWD, path.encode(), AT_SYMLINK_NOFOLLOW, 0x1FFF, buffer) == 0
    theirs = structs.STATX.unpack(buffer.raw)
    birth = theirs[13] * structs.SECOND + theirs[14]
    ours = structs.STATX.unpack(structs.pack_statx(attributes(path), theirs[23], birth_ns=birth))
    # Compared but for attribute bits (2, 10), which are the file system's, and the mask's birth-time bit.
    assert [v for i, v in enumerate(ours) if i not in (0, 2, 10)] == [
        v for i, v in enumerate(theirs) if i not in (0, 2, 10)
    ][: len(ours) - 3]
    assert ours[0] & 0x17FF == theirs[0] & 0x17FF


@pytest.mark.parametrize(("number", "pack"), [(SYS_GETDENTS64, "pack_dirent64"), (SYS_GETDENTS, "pack_dirent")])
def test_directory_records_are_what_the_kernel_writes(number: int, pack: str, tmp_path: object) -> None:
    for length in range(1, 20):
        with open(os.path.join(str(tmp_path), "n" * length), "w"):
            pass
    fd = os.open(str(tmp_path), os.O_RDONLY | os.O_DIRECTORY)
    buffer = ctypes.create_string_buffer(8192)
    size = LIBC.syscall(number, fd, buffer, 8192)
    os.close(fd)
    raw = buffer.raw[:size]
    seen = 0
    while raw:
        inode, offset, length = (int.from_bytes(raw[a:b], "little") for a, b in ((0, 8), (8, 16), (16, 18)))
        record, raw = raw[:length], raw[length:]
        kind, name = (record[18], record[19:]) if pack == "pack_dirent64" else (record[-1], record[18:-1])
        name = name.split(b"\0")[0]
        ours = getattr(structs, pack)(inode, offset, kind, name)
        assert len(ours) == length
        # The old record's padding between name and type is not cleared by every file system.
        assert ours[: 18 + len(name)] == record[: 18 + len(name)]
        seen += 1
    assert seen == 21


def test_sizes() -> None:
    assert (structs.STAT.size, structs.STATX.size, structs.STATFS.size) == (144, 256, 120)
    assert (structs.FLOCK.size, structs.TERMIOS.size, structs.TERMIOS2.size, structs.EPOLL_EVENT.size) == (
        32,
        36,
        44,
        12,
    )


def test_device_numbers() -> None:
    for device in (os.makedev(0, 27), os.makedev(254, 0), os.makedev(259, 70000), os.makedev(4095, 1)):
        assert (structs.major(device), structs.minor(device)) == (os.major(device), os.minor(device))
