"""The numbers of open(2), stat(2), poll(2) and rename(2), with x86-64's values; others translate."""

from __future__ import annotations

from typing import Final

O_ACCMODE: Final = 0o3
O_RDONLY: Final = 0
O_WRONLY: Final = 0o1
O_RDWR: Final = 0o2
O_CREAT: Final = 0o100
O_EXCL: Final = 0o200
O_NOCTTY: Final = 0o400
O_TRUNC: Final = 0o1000
O_APPEND: Final = 0o2000
O_NONBLOCK: Final = 0o4000
O_DSYNC: Final = 0o10000
O_ASYNC: Final = 0o20000
O_DIRECT: Final = 0o40000
O_LARGEFILE: Final = 0o100000
O_DIRECTORY: Final = 0o200000
O_NOFOLLOW: Final = 0o400000
O_NOATIME: Final = 0o1000000
O_CLOEXEC: Final = 0o2000000
O_PATH: Final = 0o10000000
TMPFILE_BIT: Final = 0o20000000  # the kernel's __O_TMPFILE
O_TMPFILE: Final = TMPFILE_BIT | O_DIRECTORY

# What fcntl(F_SETFL) may change, and what open() does once and then forgets.
SETTABLE: Final = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME
CREATION: Final = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC

S_IFMT: Final = 0o170000
S_IFIFO: Final = 0o010000
S_IFCHR: Final = 0o020000
S_IFDIR: Final = 0o040000
S_IFBLK: Final = 0o060000
S_IFREG: Final = 0o100000
S_IFLNK: Final = 0o120000
S_IFSOCK: Final = 0o140000
S_ISUID: Final = 0o4000
S_ISGID: Final = 0o2000
S_ISVTX: Final = 0o1000

# include/uapi/linux/falloc.h
FALLOC_KEEP_SIZE: Final = 0x1
FALLOC_PUNCH_HOLE: Final = 0x2
FALLOC_ZERO_RANGE: Final = 0x10

# include/uapi/linux/inotify.h
IN_ACCESS: Final = 0x1
IN_MODIFY: Final = 0x2
IN_ATTRIB: Final = 0x4
IN_CLOSE_WRITE: Final = 0x8
IN_CLOSE_NOWRITE: Final = 0x10
IN_OPEN: Final = 0x20
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
FS_RENAME: Final = 0x10000000  # include/linux/fsnotify_backend.h: told to F_NOTIFY only
IN_ALL_EVENTS: Final = 0xFFF
IN_UNMOUNT: Final = 0x2000
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 1 << 24
IN_DONT_FOLLOW: Final = 1 << 25
IN_EXCL_UNLINK: Final = 1 << 26
IN_MASK_CREATE: Final = 1 << 28
IN_MASK_ADD: Final = 1 << 29
IN_ISDIR: Final = 1 << 30
IN_ONESHOT: Final = 1 << 31

POLLIN: Final = 0x1
POLLPRI: Final = 0x2
POLLOUT: Final = 0x4
POLLERR: Final = 0x8
POLLHUP: Final = 0x10
POLLRDNORM: Final = 0x40
POLLRDBAND: Final = 0x80
POLLWRNORM: Final = 0x100
POLLWRBAND: Final = 0x200
POLLRDHUP: Final = 0x2000

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4

SEEK_SET: Final = 0
SEEK_CUR: Final = 1
SEEK_END: Final = 2
SEEK_DATA: Final = 3
SEEK_HOLE: Final = 4

R_OK: Final = 4
W_OK: Final = 2
X_OK: Final = 1

# Values of a time in `set_times`, as UTIME_NOW and UTIME_OMIT are for utimensat(2). No time in ns is so far away.
NOW: Final = 1 << 100
OMIT: Final = 1 << 101

NAME_MAX: Final = 255
PATH_MAX: Final = 4096
MAX_SYMLINKS: Final = 40  # include/linux/namei.h: MAXSYMLINKS


def d_type(mode: int) -> int:
    """The d_type of getdents(2) for an st_mode: its file-type bits, shifted (IFTODT)."""
    return (mode & S_IFMT) >> 12
