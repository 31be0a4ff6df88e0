"""The file systems that can be mounted: how each makes its tree from a source and options.

What /proc/filesystems lists is this table.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOTBLK
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.of_task import pids_of
from loadstone.vfs.flags import S_IFBLK, S_IFMT
from loadstone.vfs.location import MNT_NODEV, Dentry, Superblock
from loadstone.vfs.namespace import Origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.vfs.loop import LoopDisk

PROC_MAGIC, SYSFS_MAGIC, RAMFS_MAGIC = 0x9FA0, 0x62656572, 0x858458F6  # include/uapi/linux/magic.h
_EXT2_OPTIONS = ("ro", "rw", "errors", "nouid32", "minixdf", "bsddf", "user_xattr", "nouser_xattr", "acl", "noacl")
_FIRST_DEVICE = 64  # 0:64 on, away from what the machine mounts itself


class Request(NamedTuple):
    """What somebody wants to mount. `options`: the data of mount(2), words with commas between them."""

    task: Task
    source: str
    options: str
    read_only: bool


class Kind(NamedTuple):
    """One row of /proc/filesystems. `make` gives the file system, a new one or the one that is there already."""

    needs_device: bool
    make: Callable[[Request], Superblock]


def text() -> bytes:
    """/proc/filesystems."""
    mounted_by_kernel = "sockfs", "pipefs"
    rows = [("" if kind.needs_device else "nodev", name) for name, kind in KINDS.items()]
    rows[4:4] = [("nodev", name) for name in mounted_by_kernel]
    return "".join(f"{nodev}\t{name}\n" for nodev, name in rows).encode()


def free_device(task: Task) -> int:
    """A device number for a file system without a device (get_anon_bdev)."""
    taken = {one.root.inode.device for one in task.kernel.vfs.mounts.values()}
    number = _FIRST_DEVICE
    while number in taken:
        number += 1
    return number


def words(options: str) -> list[tuple[str, str]]:
    """(name, value) of each mount option; a backslash keeps the comma or backslash behind it."""
    found, word, escaped = [], "", False
    for letter in options:
        if escaped or letter not in ",\\":
            word += letter if not escaped else "\\" + letter
            escaped = False
        elif letter == "\\":
            escaped = True
        else:
            found.append(word)
            word = ""
    found.append(word)
    return [(name, value) for name, _, value in (one.partition("=") for one in found if one)]


def refuse_options(asked: Request) -> None:
    """EINVAL for a file system that takes none."""
    for name, _ in words(asked.options):
        if name not in ("ro", "rw"):
            raise LinuxError(EINVAL, f"no option of this file system: {name!r}")


def _tmpfs(asked: Request) -> Superblock:
    from loadstone.vfs.tmpfs import TMPFS_MAGIC, TmpfsOptions, make_tmpfs

    options = TmpfsOptions(asked.task.kernel.options.memory_size)
    who = asked.task.process.credentials
    options.uid, options.gid = who.fsuid, who.fsgid
    options.read(words(asked.options))
    return make_tmpfs("tmpfs", TMPFS_MAGIC, asked.task.kernel.vfs, free_device(asked.task), options)


def _ramfs(asked: Request) -> Superblock:
    """As tmpfs without limits of its own; of options only `mode` counts, the others are ignored as Linux does."""
    from loadstone.vfs.tmpfs import TmpfsOptions, make_tmpfs

    options = TmpfsOptions(0)
    options.mode = options.usual_mode = 0o755
    options.files = 0
    options.read([(name, value) for name, value in words(asked.options) if name == "mode"])
    return make_tmpfs("ramfs", RAMFS_MAGIC, asked.task.kernel.vfs, free_device(asked.task), options)


def _proc(asked: Request) -> Superblock:
    from loadstone.linux.mounts import proc_directory

    for name, _ in words(asked.options):
        if name not in ("hidepid", "gid", "subset", "ro", "rw"):
            raise LinuxError(EINVAL, f"no option of proc: {name!r}")
    return _plain("proc", PROC_MAGIC, Dentry(None, "/", proc_directory(asked.task.kernel, pids_of(asked.task.process))))


def _sysfs(asked: Request) -> Superblock:
    from loadstone.linux.mounts import sys_directory

    refuse_options(asked)
    return _plain("sysfs", SYSFS_MAGIC, Dentry(None, "/", sys_directory(asked.task.kernel)))


def _mqueue(asked: Request) -> Superblock:
    """The POSIX message queues of the caller's namespace, wherever they are mounted."""
    from loadstone.linux.ipc.objects import ipc_of

    refuse_options(asked)
    return ipc_of(asked.task).posix_queues.superblock


def _plain(kind: str, magic: int, root: Dentry) -> Superblock:
    from loadstone.vfs.discard import nothing

    made = Superblock(kind, magic, root)
    made.space = nothing(magic)
    made.noexec = True
    return made


def _the_one(name: str) -> Callable[[Request], Superblock]:
    """A file system of which there is one, made when the machine was."""
    return lambda asked: asked.task.kernel.vfs.single[name]


def _cgroup2(asked: Request) -> Superblock:
    from loadstone.linux.cgroup_files import cgroup2

    return cgroup2(asked.task, words(asked.options))


def _on_device(name: str) -> Callable[[Request], Superblock]:
    """ext2, and ext3 whose journal was replayed; other features than these two have are EINVAL."""

    def make(asked: Request) -> Superblock:
        from loadstone.vfs.ext2.mounting import mount_ext2

        for option, _ in words(asked.options):
            if option not in _EXT2_OPTIONS:
                raise LinuxError(EINVAL, f"no option of {name}: {option!r}")
        return mount_ext2(name, _disk(asked), asked.task.kernel.vfs, asked.read_only)

    return make


def _disk(asked: Request) -> LoopDisk:
    """The block device of a path. Raises LinuxError: EINVAL, ENOENT, ENOTBLK, EACCES (nodev), ENXIO."""
    if not asked.source:
        raise LinuxError(EINVAL, "no device is named")
    process, vfs = asked.task.process, asked.task.kernel.vfs
    place = vfs.resolve(asked.source, Origin(process.fs.cwd, process.fs.root, process.credentials))
    if place.inode.mode & S_IFMT != S_IFBLK:
        raise LinuxError(ENOTBLK, f"{asked.source} is no block device")
    if place.mount.flags & MNT_NODEV:
        raise LinuxError(EACCES, f"{asked.source} is on a mount with nodev")
    return vfs.loops.disk_of(place.inode)


def _overlay(asked: Request) -> Superblock:
    from loadstone.linux.overlay_options import make_overlay

    return make_overlay(asked)


KINDS: dict[str, Kind] = {
    "sysfs": Kind(False, _sysfs),
    "tmpfs": Kind(False, _tmpfs),
    "proc": Kind(False, _proc),
    "cgroup2": Kind(False, _cgroup2),
    "devtmpfs": Kind(False, _the_one("devtmpfs")),
    "ext3": Kind(True, _on_device("ext3")),
    "ext2": Kind(True, _on_device("ext2")),
    "ramfs": Kind(False, _ramfs),
    "overlay": Kind(False, _overlay),
    "devpts": Kind(False, _the_one("devpts")),
    "mqueue": Kind(False, _mqueue),
}
