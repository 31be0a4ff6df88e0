"""C structures and integers of the x86-64 system-call interface, above all of files: packing and unpacking, no more.

Layouts are those of the kernel's `include/uapi` headers and `arch/x86/include/uapi/asm/stat.h`; all little-endian.
"""

from __future__ import annotations

from struct import Struct

from loadstone.lean import Protocol

# struct stat: dev ino nlink | mode uid gid pad | rdev size blksize blocks | three timespecs | three spare words
STAT = Struct("<3Q4IQ3q6q3q")
# struct statx up to the times; then four (s64 sec, u32 nsec, pad), device numbers, mount id, direct I/O alignment
STATX = Struct("<IIQ3IHxxQQQQ" + "qIxxxx" * 4 + "4IQII96x")
STATFS = Struct("<7q2i3q4q")
TIMESPEC = Struct("<qq")
TIMEVAL = Struct("<qq")
UTIMBUF = Struct("<qq")
EPOLL_EVENT = Struct("<IQ")  # packed on x86-64 only
FLOCK = Struct("<hhxxxxqqixxxx")
OWNER_EX = Struct("<ii")
OWNER_IDS = Struct("<II")
OPEN_HOW = Struct("<QQQ")
WINSIZE = Struct("<4H")
TERMIOS = Struct("<4IB19s")
TERMIOS2 = Struct("<4IB19sII")
INT = Struct("<i")
UINT = Struct("<I")
WORD = Struct("<Q")
SIGSET_ARGUMENT = Struct("<QQ")  # pselect6's sixth argument: address and size of the mask

SECOND = 1_000_000_000

# include/uapi/linux/stat.h
STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX_MNT_ID_UNIQUE = 0x4000
STATX_ATTR_AUTOMOUNT, STATX_ATTR_MOUNT_ROOT, STATX_ATTR_DAX = 0x1000, 0x2000, 0x200000
_UNIQUE_OFFSET = 1 << 31  # MNT_UNIQUE_ID_OFFSET


def signed(value: int) -> int:
    """The low 32 bits of a register or word as the C int that the kernel takes them for."""
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000


class Attributes(Protocol):
    """What `stat` and its relatives tell about a file, as every inode of the vfs has it. Times in ns since 1970."""

    @property
    def blksize(self) -> int:
        """Preferred size of a transfer, in bytes."""

    device: int
    inode: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


def major(device: int) -> int:
    """The major number of a device number as user space encodes it (include/linux/kdev_t.h)."""
    return (device >> 8 & 0xFFF) | (device >> 32 & ~0xFFF)


def minor(device: int) -> int:
    """The minor number of a device number as user space encodes it."""
    return (device & 0xFF) | (device >> 12 & 0xFFFFFF00)


def pack_stat(a: Attributes) -> bytes:
    """`struct stat`, 144 bytes (fs/stat.c, cp_new_stat)."""
    return STAT.pack(
        a.device,
        a.inode,
        a.nlink,
        a.mode,
        a.uid,
        a.gid,
        0,
        a.rdev,
        a.size,
        a.blksize,
        a.blocks,
        *divmod(a.atime_ns, SECOND),
        *divmod(a.mtime_ns, SECOND),
        *divmod(a.ctime_ns, SECOND),
        0,
        0,
        0,
    )


def pack_statx(
    a: Attributes, mount_id: int, mount_root: bool = False, birth_ns: int | None = None, *, unique: bool = False
) -> bytes:
    """`struct statx`, 256 bytes (fs/stat.c, cp_statx, vfs_statx_path).

    `birth_ns` None: the file system does not know. `unique`: the mount's number is to be one that is never used again.
    """
    mask = STATX_BASIC_STATS | (0 if birth_ns is None else STATX_BTIME)
    mask |= STATX_MNT_ID_UNIQUE if unique else STATX_MNT_ID
    mount_id += _UNIQUE_OFFSET if unique else 0
    return STATX.pack(
        mask,
        a.blksize,
        STATX_ATTR_MOUNT_ROOT if mount_root else 0,
        a.nlink,
        a.uid,
        a.gid,
        a.mode,
        a.inode,
        a.size,
        a.blocks,
        STATX_ATTR_AUTOMOUNT | STATX_ATTR_MOUNT_ROOT | STATX_ATTR_DAX,
        *divmod(a.atime_ns, SECOND),
        *divmod(birth_ns or 0, SECOND),
        *divmod(a.ctime_ns, SECOND),
        *divmod(a.mtime_ns, SECOND),
        major(a.rdev),
        minor(a.rdev),
        major(a.device),
        minor(a.device),
        mount_id,
        0,
        0,
    )


def pack_dirent64(inode: int, next_offset: int, kind: int, name: bytes) -> bytes:
    """One `struct linux_dirent64`: inode, offset of the *next* entry, record length, d_type, name, NULs up to 8."""
    length = (19 + len(name) + 1 + 7) & ~7
    head = (
        inode.to_bytes(8, "little")
        + next_offset.to_bytes(8, "little")
        + length.to_bytes(2, "little")
        + kind.to_bytes(1, "little")
    )
    return (head + name).ljust(length, b"\0")


def pack_dirent(inode: int, next_offset: int, kind: int, name: bytes) -> bytes:
    """One `struct linux_dirent` of the old call: d_type is the record's last byte."""
    length = (18 + len(name) + 2 + 7) & ~7
    head = inode.to_bytes(8, "little") + next_offset.to_bytes(8, "little") + length.to_bytes(2, "little")
    return (head + name).ljust(length - 1, b"\0") + kind.to_bytes(1, "little")
