"""The newer calls for mounting: a file system is described, made, and put in its place by calls of their own.

Sources: fs/fsopen.c, fs/namespace.c; fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2), mount_setattr(2).
"""

from __future__ import annotations

from errno import E2BIG, EBUSY, EINVAL, EOPNOTSUPP
from os import fsdecode
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.linux.file_systems import Request
from loadstone.linux.mount_users import writers
from loadstone.linux.namespaces import namespaces_of
from loadstone.linux.namespaces.mounts import demand_privilege
from loadstone.linux.syscalls.lookup import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_SYMLINK_NOFOLLOW,
    find,
    maybe_path,
    only,
)
from loadstone.linux.syscalls.mounting import PROPAGATION, demand_kind, demand_mount
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.memory.user import copy_in, read_string
from loadstone.vfs.flags import O_CLOEXEC, O_PATH
from loadstone.vfs.location import (
    MNT_NOATIME,
    MNT_NODEV,
    MNT_NODIRATIME,
    MNT_NOEXEC,
    MNT_NOSUID,
    MNT_NOSYMFOLLOW,
    MNT_READONLY,
    MNT_RELATIME,
    Location,
    Mount,
)
from loadstone.vfs.mounting import attach, below, change_type, copy_tree, drop_tree, make_shared, move, set_apart
from loadstone.vfs.open_files import PathFile

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, DirFd, Fd, Path, Size, UHex, UInt
    from loadstone.vfs.location import Superblock
    from loadstone.vfs.vfs import Vfs

# include/uapi/linux/mount.h
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = OPEN_TREE_CLONE = 1
SET_FLAG, SET_STRING, SET_BINARY, SET_PATH, SET_PATH_EMPTY, SET_FD = range(6)
CMD_CREATE, CMD_RECONFIGURE, CMD_CREATE_EXCL = range(6, 9)
ATTR_ATIME, ATTR_NOATIME, ATTR_STRICTATIME, ATTR_NODIRATIME = 0x70, 0x10, 0x20, 0x80
MOVE_F_SYMLINKS, MOVE_F_EMPTY_PATH, MOVE_T_SYMLINKS, MOVE_T_EMPTY_PATH = 1, 4, 0x10, 0x40
MOVE_BENEATH = 0x200
_MOVE_KNOWN = 0x77 | MOVE_BENEATH
AT_RECURSIVE = 0x8000

_OF_ATTR = (
    (0x1, MNT_READONLY), (0x2, MNT_NOSUID), (0x4, MNT_NODEV), (0x8, MNT_NOEXEC), (ATTR_NODIRATIME, MNT_NODIRATIME),
    (0x200000, MNT_NOSYMFOLLOW),
)  # fmt: skip
_ATTRIBUTES = 0xF | ATTR_ATIME | ATTR_NODIRATIME | 0x200000
_ATTR = Struct("<4Q")  # struct mount_attr: set, clear, propagation, user namespace
_PAGE = 4096
_WORD_MAX = 256  # of an option's name, and of its value


class ContextFile(AnonymousFile):
    """What fsopen(2) gives: a file system that is being described, then made, then mounted.

    Attributes:
        name: of its kind.
        options: what was said of it, in order.
        source: what is to be mounted.
        superblock: the file system, once it is made; None again when it is mounted.
        made: whether it was.
    """

    __slots__ = ("made", "name", "options", "read_only", "source", "superblock")

    seeks = False
    kind = "fscontext"
    pollable = False

    def __init__(self, vfs: Vfs, name: str) -> None:
        super().__init__(vfs, 0)
        self.name = name
        self.options: list[str] = []
        self.source = ""
        self.read_only = self.made = False
        self.superblock: Superblock | None = None

    def release(self) -> None:
        """What was made and never mounted goes."""
        superblock = self.superblock
        if superblock is not None and not superblock.mounts and superblock.release is not None:
            superblock.release()


class DetachedFile(PathFile):
    """The root of a mount that is not, or was not, in the tree. Closed while it is not, it takes the mount away."""

    __slots__ = ("vfs",)

    def __init__(self, vfs: Vfs, mount: Mount) -> None:
        super().__init__(mount.root.inode, O_PATH, Location(mount, mount.root))
        self.vfs = vfs

    def release(self) -> None:
        """Nobody can move it to a place any more."""
        if self.location is not None and self.location.mount in self.vfs.detached:
            drop_tree(self.vfs, self.location.mount, self.vfs.detached)


@syscall(FULL)
def fsopen(task: Task, name: Path, flags: UInt) -> int:
    """Begin to describe a file system of the named kind."""
    demand_privilege(task)
    only(flags, FSOPEN_CLOEXEC)
    kind = fsdecode(read_string(task.process.space, name, _PAGE))
    demand_kind(task, kind)
    return task.process.files.install(ContextFile(task.kernel.vfs, kind), cloexec=bool(flags))


@syscall(PARTIAL, "options with a binary value, a path or a descriptor are EOPNOTSUPP; CMD_RECONFIGURE too")
def fsconfig(task: Task, fd: Fd, command: UInt, key: Address, value: Address, auxiliary: Fd) -> int:
    """Describe the file system, or make it."""
    if fd < 0 or not _fits(command, key, value, auxiliary):
        raise LinuxError(EINVAL, "arguments that do not go together")
    if command > CMD_CREATE_EXCL:
        raise LinuxError(EOPNOTSUPP)
    context = _context(task, fd)
    space = task.process.space
    if command in (SET_FLAG, SET_STRING):
        name = fsdecode(read_string(space, key, _WORD_MAX))
        if context.made:
            raise LinuxError(EBUSY, "the file system is made already")
        _set(context, name, fsdecode(read_string(space, value, _WORD_MAX)) if value else None)
    elif command in (CMD_CREATE, CMD_CREATE_EXCL):
        demand_privilege(task)
        _create(task, context)
    else:
        raise LinuxError(EOPNOTSUPP, "no file system here takes this")
    return 0


def _fits(command: int, key: int, value: int, auxiliary: int) -> bool:
    """Whether a command has the arguments that it takes, and no others."""
    if command == SET_FLAG:
        return bool(key) and not value and not auxiliary
    if command == SET_STRING:
        return bool(key) and bool(value) and not auxiliary
    if command == SET_BINARY:
        return bool(key) and bool(value) and 0 < auxiliary <= 1 << 20
    if command in (SET_PATH, SET_PATH_EMPTY):
        return bool(key) and bool(value) and (auxiliary == AT_FDCWD or auxiliary >= 0)
    if command == SET_FD:
        return bool(key) and not value and auxiliary >= 0
    return command > CMD_CREATE_EXCL or not (key or value or auxiliary)


def _context(task: Task, fd: int) -> ContextFile:
    context = task.process.files.get(fd)
    if not isinstance(context, ContextFile):
        raise LinuxError(EINVAL, "the descriptor is not one of fsopen")
    return context


def _set(context: ContextFile, name: str, value: str | None) -> None:
    if name in ("ro", "rw"):
        context.read_only = name == "ro"
    elif name == "source":
        if value is None or context.source:
            raise LinuxError(EINVAL, "one source, with a name")
        context.source = value
    else:
        context.options.append(name if value is None else f"{name}={_escaped(value)}")


def _escaped(value: str) -> str:
    """An option's value as mount(2) would have it: a comma in it has a backslash before it."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _create(task: Task, context: ContextFile) -> None:
    if context.made:
        raise LinuxError(EBUSY, "the file system is made already")
    asked = Request(task, context.source, ",".join(context.options), context.read_only)
    superblock = demand_kind(task, context.name).make(asked)
    if superblock.mounts and superblock.read_only != asked.read_only:
        raise LinuxError(EBUSY, "it is mounted already, and not in the same way")
    superblock.read_only = asked.read_only
    context.superblock, context.made = superblock, True


@syscall(FULL)
def fsmount(task: Task, fd: Fd, flags: UInt, attributes: UHex) -> int:
    """Mount what was made, without a place yet: a descriptor of its topmost directory."""
    demand_privilege(task)
    only(flags, FSMOUNT_CLOEXEC)
    only(attributes, _ATTRIBUTES)
    chosen = _flags_of(attributes)
    context, vfs = _context(task, fd), task.kernel.vfs
    if not context.made:
        raise LinuxError(EINVAL, "the file system is not made")
    if context.superblock is None:
        raise LinuxError(EBUSY, "it is mounted already")
    superblock, context.superblock = context.superblock, None
    made = Mount(superblock.root, None, context.name, superblock.magic, superblock)
    made.source, made.flags = context.source or "none", chosen
    return task.process.files.install(DetachedFile(vfs, set_apart(vfs, made)), cloexec=bool(flags))


def _flags_of(attributes: int) -> int:
    """MNT_* for MOUNT_ATTR_* (attr_flags_to_mnt_flags); EINVAL for two kinds of access times."""
    atime = attributes & ATTR_ATIME
    if atime not in (0, ATTR_NOATIME, ATTR_STRICTATIME):
        raise LinuxError(EINVAL, "more than one kind of access times")
    chosen = {0: MNT_RELATIME, ATTR_NOATIME: MNT_NOATIME, ATTR_STRICTATIME: 0}[atime]
    for asked, meant in _OF_ATTR:
        if attributes & asked:
            chosen |= meant
    return chosen


@syscall(PARTIAL, "MOVE_MOUNT_SET_GROUP is EINVAL")
def move_mount(task: Task, from_fd: DirFd, from_path: Path, to_fd: DirFd, to_path: Path, flags: UInt) -> int:
    """Put a mount in a place: one that has none yet, or one that is elsewhere in the tree."""
    demand_privilege(task)
    only(flags, _MOVE_KNOWN)
    source = _find(task, from_fd, from_path, bool(flags & MOVE_F_SYMLINKS), bool(flags & MOVE_F_EMPTY_PATH))
    place = _find(task, to_fd, to_path, bool(flags & MOVE_T_SYMLINKS), bool(flags & MOVE_T_EMPTY_PATH))
    vfs, mount = task.kernel.vfs, demand_mount(source)
    place = vfs.topmost(place)
    if mount.at is not None or mount is namespaces_of(task).mounts.root:
        move(vfs, mount, _lift(vfs, place, mount) if flags & MOVE_BENEATH else place)
        return 0
    if mount is place.mount or place.mount in below(vfs, mount):
        raise LinuxError(EINVAL, "the place is in what is to be put there")
    if place.dentry is place.mount.root and place.mount.superblock is mount.superblock:
        raise LinuxError(EBUSY, "this very file system is mounted here already")
    if place.inode.is_directory != mount.root.inode.is_directory:
        raise LinuxError(EINVAL, "a directory and a file")
    if flags & MOVE_BENEATH:
        place = _lift(vfs, place, mount)
    attach(vfs, mount, place)
    if place.mount.group:
        make_shared(vfs, mount)
    return 0


def _lift(vfs: Vfs, place: Location, mount: Mount) -> Location:
    """Let a mount that is to go beneath another one have its place, and the other one come on top of it."""
    above = demand_mount(place)
    if above.at is None or above is mount:
        raise LinuxError(EINVAL, "nothing goes beneath the root, or beneath itself")
    free = above.at
    move(vfs, above, Location(mount, mount.root))
    return free


def _find(task: Task, fd: int, address: int, follow: bool, empty: bool) -> Location:
    flags = (0 if follow else AT_SYMLINK_NOFOLLOW) | (AT_EMPTY_PATH if empty else 0)
    _, place = find(task, fd, maybe_path(task, address, flags), flags)
    if place is None:
        raise LinuxError(EINVAL, "the file has no place")
    return place


@syscall(FULL)
def open_tree(task: Task, fd: DirFd, path: Path, flags: UInt) -> int:
    """A descriptor of a place, or with OPEN_TREE_CLONE of a copy of the mount there, which has no place."""
    clone, recursive = flags & OPEN_TREE_CLONE, flags & AT_RECURSIVE
    known = OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW
    if flags & ~known or (recursive and not clone):
        raise LinuxError(EINVAL, f"flags {flags:#x}")
    if clone:
        demand_privilege(task)
    place = _find(task, fd, path, not flags & AT_SYMLINK_NOFOLLOW, bool(flags & AT_EMPTY_PATH))
    vfs, cloexec = task.kernel.vfs, bool(flags & O_CLOEXEC)
    if not clone:
        return task.process.files.install(PathFile(place.inode, O_PATH, place), cloexec=cloexec)
    if place.mount.unbindable:
        raise LinuxError(EINVAL, f"the mount of {place.path} is unbindable")
    made = _copy(vfs, place, bool(recursive))
    return task.process.files.install(DetachedFile(vfs, made), cloexec=cloexec)


def _copy(vfs: Vfs, place: Location, recursive: bool) -> Mount:
    """A copy of the mount at a place; of what is mounted in it too, if that is asked for."""
    if recursive and place.dentry is place.mount.root:
        return copy_tree(vfs, place.mount, vfs.detached)[place.mount]
    return set_apart(vfs, place.mount.clone(place.dentry, None))


@syscall(PARTIAL, "MOUNT_ATTR_IDMAP is EINVAL")
def mount_setattr(task: Task, fd: DirFd, path: Path, flags: UInt, attributes: Address, size: Size) -> int:
    """Change what a mount, or all mounts from a place on, forbid."""
    if flags & ~(AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) or size < _ATTR.size:
        raise LinuxError(E2BIG if size > _PAGE else EINVAL, f"flags {flags:#x}, {size} bytes")
    if size > _PAGE:
        raise LinuxError(E2BIG, f"a struct mount_attr of {size} bytes")
    demand_privilege(task)
    raw = copy_in(task.process.space, attributes, size)
    if any(raw[_ATTR.size :]):
        raise LinuxError(E2BIG, "fields that this kernel does not know")
    added, removed, propagation, _ = _ATTR.unpack(raw[: _ATTR.size])
    if not added | removed | propagation:
        return 0
    _check_attributes(added, removed, propagation)
    place = _find(task, fd, path, not flags & AT_SYMLINK_NOFOLLOW, bool(flags & AT_EMPTY_PATH))
    vfs, top = task.kernel.vfs, demand_mount(place)
    mounts = below(vfs, top) if flags & AT_RECURSIVE else [top]
    if added & 1 and any(writer in mounts for writer in writers(task.kernel)):
        raise LinuxError(EBUSY, f"a file below {place.path} is open for writing")
    for mount in mounts:
        mount.flags = _changed(mount.flags, added, removed)
    vfs.mounts.touch()
    if propagation:
        change_type(vfs, top, PROPAGATION[propagation], bool(flags & AT_RECURSIVE))
    return 0


def _check_attributes(added: int, removed: int, propagation: int) -> None:
    """EINVAL for what is unknown; access times are changed by clearing all of their bits (build_mount_kattr)."""
    if (added | removed) & ~_ATTRIBUTES or (propagation and propagation not in PROPAGATION):
        raise LinuxError(EINVAL, "attributes that are not there")
    if removed & ATTR_ATIME not in (0, ATTR_ATIME) or (added & ATTR_ATIME and removed & ATTR_ATIME != ATTR_ATIME):
        raise LinuxError(EINVAL, "access times are one setting: all of it is cleared, or nothing")


def _changed(flags: int, added: int, removed: int) -> int:
    if removed & ATTR_ATIME:
        flags &= ~(MNT_RELATIME | MNT_NOATIME)
        flags |= _flags_of(added & ATTR_ATIME)
    for asked, meant in _OF_ATTR:
        flags = flags & ~meant if removed & asked else flags
        flags = flags | meant if added & asked else flags
    return flags
