"""mount(2) and umount2(2) in the guest's own tree, for root of the machine. Source: fs/namespace.c."""

from __future__ import annotations

from errno import EAGAIN, EBUSY, EINVAL, ENAMETOOLONG, ENODEV, ENOENT, EPERM
from os import fsdecode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SYS_ADMIN, capable_in
from loadstone.linux.file_systems import KINDS, Request
from loadstone.linux.mount_users import contexts, used_mounts, writers
from loadstone.linux.namespaces import namespaces_of
from loadstone.linux.namespaces.mounts import demand_privilege
from loadstone.linux.syscalls.lookup import AT_FDCWD, AT_SYMLINK_NOFOLLOW, find, origin, path_at
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.memory.user import copy_in, read_string
from loadstone.vfs.generated import MagicLink
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
from loadstone.vfs.mounting import (
    PRIVATE,
    SHARED,
    SLAVE,
    UNBINDABLE,
    bind,
    change_type,
    children,
    demand_directory,
    detach,
    make_shared,
    move,
    pivot,
    propagate,
)

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.file_systems import Kind
    from loadstone.linux.syscalls.arguments import Address, Hex, Int, Path

# include/uapi/linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_MOVE, MS_REC, MS_SILENT = 256, *(1 << b for b in range(10, 16))
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_RELATIME, MS_STRICTATIME = (1 << b for b in (17, 18, 19, 20, 21, 24))
MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW = 1, 2, 4, 8

_MAGIC = 0xC0ED0000  # MS_MGC_VAL, in the upper half: from before there were so many flags
_PAGE = 4096
_OF_ANY_NAMESPACE = ("tmpfs", "ramfs", "proc", "sysfs", "devpts", "mqueue", "cgroup2")  # FS_USERNS_MOUNT
PROPAGATION = {MS_UNBINDABLE: UNBINDABLE, MS_PRIVATE: PRIVATE, MS_SLAVE: SLAVE, MS_SHARED: SHARED}
_ATIME = MNT_NOATIME | MNT_NODIRATIME | MNT_RELATIME
_OF_MOUNT = (
    (MS_RDONLY, MNT_READONLY), (MS_NOSUID, MNT_NOSUID), (MS_NODEV, MNT_NODEV), (MS_NOEXEC, MNT_NOEXEC),
    (MS_NOATIME, MNT_NOATIME), (MS_NODIRATIME, MNT_NODIRATIME), (MS_NOSYMFOLLOW, MNT_NOSYMFOLLOW),
)  # fmt: skip


@syscall(PARTIAL, "what can be mounted: see docs/mounts.md")
def mount(task: Task, source: Path, target: Path, kind: Address, flags: Hex, data: Address) -> int:
    """mount(2)."""
    name, shown = _text(task, kind), _text(task, source)
    options = _options(task, data)
    place = _place(task, target, 0)
    demand_privilege(task)
    if isinstance(place.inode, MagicLink):
        raise LinuxError(ENOENT, "nothing is mounted on a link of /proc to an open file")
    if flags & 0xFFFF_0000 == _MAGIC:
        flags &= 0xFFFF
    if flags & MS_REMOUNT:
        _remount(task, place, flags, options)
    elif flags & MS_BIND:
        bind(task.kernel.vfs, _source(task, shown), place, bool(flags & MS_REC))
    elif types := flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE):
        if flags & ~(types | MS_REC | MS_SILENT) or types not in PROPAGATION:
            raise LinuxError(EINVAL, f"not one kind of propagation: {flags:#x}")
        change_type(task.kernel.vfs, demand_mount(place), PROPAGATION[types], bool(flags & MS_REC))
    elif flags & MS_MOVE:
        move(task.kernel.vfs, demand_mount(_source(task, shown)), place)
    else:
        _new(task, place, name, Request(task, shown or "", options, bool(flags & MS_RDONLY)), flags)
    return 0


@syscall(PARTIAL, "MNT_FORCE is ignored")
def umount2(task: Task, target: Path, flags: Int) -> int:
    """umount2(2)."""
    if flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW):
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}")
    vfs = task.kernel.vfs
    expired = [one for one in vfs.mounts.values() if one.expiring]  # finding the place is no use of it
    place = _place(task, target, AT_SYMLINK_NOFOLLOW if flags & UMOUNT_NOFOLLOW else 0)
    demand_privilege(task)
    gone = demand_mount(vfs.topmost(place))
    if gone.at is None or gone.locked:
        raise LinuxError(EINVAL, "the root cannot be taken away, nor what is locked")
    if flags & MNT_EXPIRE and flags & (MNT_FORCE | MNT_DETACH):
        raise LinuxError(EINVAL, "flags that exclude each other")
    if not flags & MNT_DETACH and (children(vfs, gone) or gone in used_mounts(task.kernel)):
        raise LinuxError(EBUSY, "something is open, mounted or at work there")
    if flags & MNT_EXPIRE and gone not in expired:
        gone.expiring = True
        raise LinuxError(EAGAIN, "it was marked, and goes if nobody comes until it is asked again")
    detach(vfs, gone)
    return 0


@syscall(FULL)
def pivot_root(task: Task, new: Path, old: Path) -> int:
    """pivot_root(2): every process whose root or working directory was the old root has the new one."""
    vfs, process = task.kernel.vfs, task.process
    demand_privilege(task)
    place, behind, root = _place(task, new, 0), _place(task, old, 0), process.fs.root
    for one in (place, behind):
        demand_directory(one)
    if root.dentry is not root.mount.root or place.dentry is not place.mount.root:
        raise LinuxError(EINVAL, "the root, or what is to be it, is not the root of a mount")
    if place.mount is root.mount:
        raise LinuxError(EBUSY, "it is the root already")
    namespace = namespaces_of(task).mounts
    pivot(vfs, root.mount, place.mount, behind)
    if namespace.root is root.mount:
        namespace.root = place.mount
    if vfs.root == root:
        vfs.root = place
    for context in contexts(task.kernel):
        if context.root == root:
            context.root = place
        if context.cwd == root:
            context.cwd = place
    return 0


def _place(task: Task, path: int, flags: int) -> Location:
    _, place = find(task, AT_FDCWD, path_at(task, path), flags)
    if place is None:
        raise LinuxError(EINVAL, "the file has no place")
    return place


def _text(task: Task, address: int) -> str | None:
    """A string of the caller's, None without one; EINVAL if it is longer than a page (strndup_user)."""
    if not address:
        return None
    try:
        return fsdecode(read_string(task.process.space, address, _PAGE))
    except LinuxError as error:
        raise LinuxError(EINVAL if error.errno == ENAMETOOLONG else error.errno) from None


def _options(task: Task, address: int) -> str:
    """The data of a mount: a string in a page, which is cut off where the page ends (copy_mount_options)."""
    if not address:
        return ""
    raw = copy_in(task.process.space, address, min(_PAGE, -address % _PAGE or _PAGE))
    if b"\0" not in raw and len(raw) < _PAGE:
        raw += read_string(task.process.space, address + len(raw), _PAGE)
    return fsdecode(raw.split(b"\0", 1)[0])


def _source(task: Task, path: str | None) -> Location:
    """The place that is to be shown, or taken, elsewhere."""
    if not path:
        raise LinuxError(EINVAL)
    return task.kernel.vfs.resolve(path, origin(task, AT_FDCWD, path))


def demand_mount(place: Location) -> Mount:
    """The mount whose root is here; EINVAL for another place."""
    if place.dentry is not place.mount.root:
        raise LinuxError(EINVAL, f"nothing is mounted on {place.path}")
    return place.mount


def _mount_flags(flags: int) -> int:
    """MNT_* for MS_*. Source: path_mount()."""
    chosen = 0 if flags & MS_NOATIME else MNT_RELATIME
    for asked, meant in _OF_MOUNT:
        if flags & asked:
            chosen |= meant
    return chosen & ~(MNT_RELATIME | MNT_NOATIME) if flags & MS_STRICTATIME else chosen


def _new(task: Task, place: Location, kind: str | None, asked: Request, flags: int) -> None:
    """Mount a file system of the given kind (do_new_mount)."""
    if kind is None:
        raise LinuxError(EINVAL, "no kind of file system is named")
    known = demand_kind(task, kind)
    superblock = known.make(asked)
    if superblock.mounts and superblock.read_only != asked.read_only:
        raise LinuxError(EBUSY, "it is mounted already, and not in the same way")
    if place.dentry is place.mount.root and place.mount.superblock is superblock:
        raise LinuxError(EBUSY, "this very file system is mounted here already")
    demand_directory(place)
    superblock.read_only = asked.read_only
    made = Mount(superblock.root, place, kind, superblock.magic, superblock)
    made.source = asked.source or "none"
    made.flags = _mount_flags(flags)
    made = task.kernel.vfs.hang(made)
    if place.mount.group:
        make_shared(task.kernel.vfs, made)
    propagate(task.kernel.vfs, made)


def demand_kind(task: Task, kind: str) -> Kind:
    """The kind of file system of a name, which the caller may mount. Raises LinuxError: ENODEV, ENOENT, EPERM."""
    known = KINDS.get(kind)
    if known is None:
        raise LinuxError(ENODEV, f"no file system is called {kind!r}")
    if kind not in _OF_ANY_NAMESPACE and not capable_in(task.process.credentials, None, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, f"{kind} cannot be mounted from inside a user namespace")
    if kind == "sysfs" and not capable_in(task.process.credentials, namespaces_of(task).net.owner, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, "sysfs shows the network, which belongs to another user namespace")
    return known


def _remount(task: Task, place: Location, flags: int, options: str) -> None:
    """Change the options of a mount, and without MS_BIND those of its file system (do_remount)."""
    mount = demand_mount(place)
    chosen = _mount_flags(flags)
    if not flags & (MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME):
        chosen = chosen & ~_ATIME | mount.flags & _ATIME
    superblock, closed = mount.superblock, bool(flags & MS_RDONLY)
    whole = not flags & MS_BIND
    if closed and (not mount.flags & MNT_READONLY or (whole and not superblock.read_only)):
        for writer in writers(task.kernel):
            if writer is mount or (whole and writer.superblock is superblock):
                raise LinuxError(EBUSY, f"a file below {place.path} is open for writing")
    if whole:
        if options and superblock.reconfigure is not None:
            superblock.reconfigure(options)
        if superblock.set_read_only is not None and superblock.read_only != closed:
            superblock.set_read_only(closed)
        superblock.read_only = closed
    mount.flags = chosen
    task.kernel.vfs.mounts.touch()
