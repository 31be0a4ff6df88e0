"""What is asked about files: stat and its relatives, access, statfs. Sources: fs/stat.c, fs/open.c, fs/statfs.c."""

from __future__ import annotations

import os
import struct
from errno import EINVAL
from typing import TYPE_CHECKING, cast

from loadstone.errors import LinuxError
from loadstone.linux import structs
from loadstone.linux.mounts import mount_number
from loadstone.linux.syscalls.lookup import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
    find,
    maybe_path,
    named_by_descriptor,
    only,
    origin,
    path_at,
)
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.user import copy_out
from loadstone.vfs.inode import Credentials, demand
from loadstone.vfs.location import (
    MNT_NOATIME,
    MNT_NODEV,
    MNT_NODIRATIME,
    MNT_NOSUID,
    MNT_NOSYMFOLLOW,
    MNT_RELATIME,
    PIPEFS_MAGIC,
)

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import (
        AccessMode,
        Address,
        AtFlags,
        DirFd,
        Fd,
        OutStat,
        OutStatx,
        Path,
        StatxMask,
    )
    from loadstone.vfs.inode import Identity, Inode
    from loadstone.vfs.location import Location

_STAT_FLAGS = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE
_STATX_RESERVED = 0x80000000
# include/linux/statfs.h
_ST_RDONLY, _ST_NOEXEC, _ST_VALID = 0x1, 0x8, 0x20
_ST_OF_MNT = (
    (MNT_NOSUID, 0x2), (MNT_NODEV, 0x4), (MNT_NOATIME, 0x400), (MNT_NODIRATIME, 0x800), (MNT_RELATIME, 0x1000),
    (MNT_NOSYMFOLLOW, 0x2000),
)  # fmt: skip


def _seen(task: Task, inode: Inode) -> structs.Attributes:
    """The attributes as the caller's user namespace shows them."""
    users = task.process.credentials.users
    if users is None:
        return inode
    from loadstone.linux.namespaces.users import Seen

    return cast("structs.Attributes", Seen(inode, users))


def _stat(task: Task, fd: int, address: int, buffer: int, flags: int) -> int:
    inode, _ = find(task, fd, maybe_path(task, address, flags), flags)
    inode.refresh()
    copy_out(task.process.space, buffer, structs.pack_stat(_seen(task, inode)))
    return 0


@syscall()
def stat(task: Task, path: Path, buffer: OutStat) -> int:
    """The attributes of what a path leads to."""
    return _stat(task, AT_FDCWD, path, buffer, 0)


@syscall()
def lstat(task: Task, path: Path, buffer: OutStat) -> int:
    """The attributes of what a path names, be it a symbolic link."""
    return _stat(task, AT_FDCWD, path, buffer, AT_SYMLINK_NOFOLLOW)


@syscall()
def newfstatat(task: Task, fd: DirFd, path: Path, buffer: OutStat, flags: AtFlags) -> int:
    """The attributes of a file, found from a directory's descriptor."""
    only(flags, _STAT_FLAGS)
    return _stat(task, fd, path, buffer, flags)


@syscall()
def fstat(task: Task, fd: Fd, buffer: OutStat) -> int:
    """The attributes of an open file, O_PATH included."""
    inode = task.process.files.get(fd).inode
    inode.refresh()
    copy_out(task.process.space, buffer, structs.pack_stat(_seen(task, inode)))
    return 0


@syscall(support=PARTIAL, note="a birth time only for files of the host, no direct I/O alignment")
def statx(task: Task, fd: DirFd, path: Path, flags: AtFlags, mask: StatxMask, buffer: OutStatx) -> int:
    """The attributes of a file, in the extended form."""
    if mask & _STATX_RESERVED or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE:
        raise LinuxError(EINVAL)
    only(flags, _STAT_FLAGS)
    inode, location = find(task, fd, maybe_path(task, path, flags), flags)
    inode.refresh()
    mount_id, mount_root = mount_of(task, location)
    birth = (inode.born_ns or birth_ns(task, location)) if mask & structs.STATX_BTIME else None
    unique = bool(mask & structs.STATX_MNT_ID_UNIQUE and task.kernel.profile.unique_mounts)
    packed = structs.pack_statx(_seen(task, inode), mount_id, mount_root, birth, unique=unique)
    copy_out(task.process.space, buffer, packed)
    return 0


_STATX_BIRTH_OFFSET = 80  # of stx_btime


def birth_ns(task: Task, location: Location | None) -> int | None:
    """When the host's file system says that a file of the host was made; None where nobody knows.

    Python's os.stat does not tell, so the C library is asked for its statx(2).
    """
    path = location.host_path if location is not None and not task.kernel.options.deterministic else ""
    if not path:
        return None
    import ctypes

    buffer = ctypes.create_string_buffer(structs.STATX.size)
    try:
        call = ctypes.CDLL(None).statx
    except AttributeError:
        return None
    if call(AT_FDCWD, os.fsencode(path), AT_SYMLINK_NOFOLLOW, structs.STATX_BTIME, buffer):
        return None
    if not int.from_bytes(buffer.raw[:4], "little") & structs.STATX_BTIME:
        return None
    seconds, nanoseconds = struct.unpack_from("<qI", buffer, _STATX_BIRTH_OFFSET)
    return int(seconds) * structs.SECOND + int(nanoseconds)


def mount_of(task: Task, location: Location | None) -> tuple[int, bool]:
    """The mount's number and whether the place is its root; pipes and the like are on mounts of their own."""
    if location is None:
        return 0, False
    return mount_number(task.kernel.vfs, location.mount), location.dentry is location.mount.root


@syscall()
def access(task: Task, path: Path, mode: AccessMode) -> int:
    """Whether the real user may read, write or execute a file."""
    return _access(task, AT_FDCWD, path, mode, 0)


@syscall()
def faccessat(task: Task, fd: DirFd, path: Path, mode: AccessMode) -> int:
    """As access, from a directory's descriptor."""
    return _access(task, fd, path, mode, 0)


@syscall()
def faccessat2(task: Task, fd: DirFd, path: Path, mode: AccessMode, flags: AtFlags) -> int:
    """As faccessat, with flags."""
    return _access(task, fd, path, mode, flags)


def _access(task: Task, fd: int, address: int, mode: int, flags: int) -> int:
    only(mode, 7)
    only(flags, AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)
    process = task.process
    who: Identity = process.credentials
    if not flags & AT_EACCESS:
        who = Credentials(process.credentials.uid, process.credentials.gid, process.credentials.groups)
    path = maybe_path(task, address, flags)
    file = named_by_descriptor(task, fd, path, flags)
    if file is not None:
        if mode:
            demand(file.inode, mode, who)
        return 0
    task.kernel.vfs.access(
        path,
        mode,
        origin(task, fd, path, flags)._replace(who=who),
        follow=not flags & AT_SYMLINK_NOFOLLOW,
        empty=bool(flags & AT_EMPTY_PATH),
    )
    return 0


@syscall()
def statfs(task: Task, path: Path, buffer: Address) -> int:
    """The file system that a path leads to."""
    _, location = find(task, AT_FDCWD, path_at(task, path), 0)
    return _statfs(task, location, buffer)


@syscall()
def fstatfs(task: Task, fd: Fd, buffer: Address) -> int:
    """The file system of an open file."""
    return _statfs(task, task.process.files.get(fd).location, buffer)


def _statfs(task: Task, location: Location | None, buffer: int) -> int:
    if location is None:
        fields: tuple[int, ...] = (PIPEFS_MAGIC, 4096, 0, 0, 0, 0, 0, 0, 0, 255, 4096, _ST_VALID, 0, 0, 0, 0)
    else:
        s = task.kernel.vfs.space(location)
        size, device = s.block_size, location.inode.device
        blocks, free = s.total // size, s.free // size
        flags = _statfs_flags(location)
        available = s.available // size if s.available >= 0 else free
        fields = (s.magic, size, blocks, free, available, s.files, s.files_free, device & 0x7FFFFFFF, 0)
        fields += (s.name_length, size, flags, 0, 0, 0, 0)
    copy_out(task.process.space, buffer, structs.STATFS.pack(*fields))
    return 0


def _statfs_flags(location: Location) -> int:
    """f_flags. Source: fs/statfs.c, calculate_f_flags()."""
    mount = location.mount
    flags = _ST_VALID | (_ST_RDONLY if mount.read_only else 0) | (_ST_NOEXEC if location.noexec else 0)
    for own, shown in _ST_OF_MNT:
        if mount.flags & own:
            flags |= shown
    return flags
