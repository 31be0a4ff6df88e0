"""mount(2) and umount2(2) in the guest's own tree (fs/namespace.c): tmpfs and bind mounts, for root of the machine."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENODEV, ENOTDIR, EPERM
from itertools import count
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.refusals import count_refusal
from loadstone.linux.syscalls.lookup import AT_FDCWD, AT_SYMLINK_NOFOLLOW, find, path_at
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.memory.user import read_string
from loadstone.vfs.flags import S_IFDIR
from loadstone.vfs.location import Dentry, Location, Mount
from loadstone.vfs.namespace import MEMORY_MAGIC
from loadstone.vfs.overlay import Overlay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Hex, Int, Path
    from loadstone.vfs.vfs import Vfs

# include/uapi/linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 1, 2, 4, 8, 32, 4096, 8192, 16384
MS_PROPAGATION = 0x1E0000  # MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED
MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW = 1, 2, 4, 8

_MAGIC = 0xC0ED0000  # MS_MGC_VAL, in the upper half: from before there were so many flags
_FIRST_DEVICE = 64  # 0:64 on, away from what the machine mounts itself
_PAGE = 4096
_KNOWN = ("tmpfs", "proc", "sysfs", "devtmpfs", "overlay", "devpts")


@syscall(PARTIAL, "tmpfs and MS_BIND, in the guest's tree alone; other file systems, read-only and moving are EPERM")
def mount(task: Task, source: Path, target: Path, kind: Address, flags: Hex, data: Address) -> int:
    """mount(2)."""
    if flags & 0xFFFF_0000 == _MAGIC:
        flags &= 0xFFFF
    place = _place(task, target, 0)
    if task.process.credentials.euid:
        raise LinuxError(EPERM)
    if flags & MS_PROPAGATION and not flags & (MS_REMOUNT | MS_BIND | MS_MOVE):
        _demand_mount(place)
        return 0  # there is no other namespace that could learn of anything
    if flags & (MS_REMOUNT | MS_MOVE | MS_RDONLY):
        raise _refused(task, "mount: remount, move or read-only")
    if flags & MS_BIND:
        made = _bind(task, _place(task, source, 0), place)
    else:
        made = _tmpfs(task, place, _text(task, kind), _text(task, data))
    made.noexec = made.noexec or bool(flags & MS_NOEXEC)
    return 0


@syscall(PARTIAL, "MNT_FORCE is ignored; MNT_EXPIRE is EINVAL")
def umount2(task: Task, target: Path, flags: Int) -> int:
    """umount2(2)."""
    if flags & ~(MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW):
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}")
    place = _place(task, target, AT_SYMLINK_NOFOLLOW if flags & UMOUNT_NOFOLLOW else 0)
    if task.process.credentials.euid:
        raise LinuxError(EPERM)
    gone = _demand_mount(place)
    if gone.at is None:
        raise LinuxError(EINVAL, "the root cannot be taken away")
    vfs = task.kernel.vfs
    if not flags & MNT_DETACH and (any(at.mount is gone for at in vfs.mounts) or gone in _used(task.kernel)):
        raise LinuxError(EBUSY, "something is open, mounted or at work there")
    _detach(vfs, gone)
    return 0


def _place(task: Task, path: int, flags: int) -> Location:
    _, place = find(task, AT_FDCWD, path_at(task, path), flags)
    if place is None:
        raise LinuxError(EINVAL, "the file has no place")
    return place


def _text(task: Task, address: int) -> str:
    return read_string(task.process.space, address, _PAGE).decode("utf-8", "replace") if address else ""


def _demand_mount(place: Location) -> Mount:
    """The mount whose root is here; EINVAL for another place."""
    if place.dentry is not place.mount.root:
        raise LinuxError(EINVAL, f"nothing is mounted on {place.path}")
    return place.mount


def _refused(task: Task, what: str) -> LinuxError:
    count_refusal(task, what)
    return LinuxError(EPERM, "the guest has no privilege for this")


def _bind(task: Task, source: Location, place: Location) -> Mount:
    made = task.kernel.vfs.mount_at(place, source.dentry, source.mount.name, source.mount.magic)
    made.noexec = source.mount.noexec
    return made


def _tmpfs(task: Task, place: Location, kind: str, options: str) -> Mount:
    """A new tmpfs. What it holds counts against the machine's own limit, whatever `size=` says."""
    if kind != "tmpfs":
        if kind in _KNOWN:
            raise _refused(task, f"mount of {kind}")
        raise LinuxError(ENODEV if kind else EINVAL, f"no file system is called {kind!r}")
    if not place.inode.is_directory:
        raise LinuxError(ENOTDIR)
    vfs: Vfs = task.kernel.vfs
    memory = vfs.memory
    taken = {one.root.inode.device for one in vfs.mounts.values()}
    device = next(number for number in count(_FIRST_DEVICE) if number not in taken)
    made = Overlay(
        None, memory.cache, memory.clock, memory.budget,
        device=device, deterministic=memory.deterministic, wake=memory.wake,
    )  # fmt: skip
    made.root.mode = S_IFDIR | _mode(options)
    return vfs.mount_at(place, Dentry(None, "/", made.root), "tmpfs", MEMORY_MAGIC)


def _mode(options: str) -> int:
    """The root's permissions: `mode=`, or anybody may write and only delete what is theirs."""
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name == "mode":
            try:
                return int(value, 8) & 0o7777
            except ValueError:
                raise LinuxError(EINVAL, f"no mode: {value!r}") from None
    return 0o1777


def _used(kernel: Kernel) -> Iterator[Mount]:
    """The mounts in which a process is, has a file open or mapped, or runs a program."""
    for process in kernel.processes.values():
        if process.status is not None:
            continue
        yield process.fs.cwd.mount
        yield process.fs.root.mount
        if process.executable is not None:
            yield process.executable.mount
        mapped = (vma.file for vma in process.space.vmas)
        for file in (*(file for _, file in process.files.items()), *mapped):
            place = getattr(file, "location", None)
            if place is not None:
                yield place.mount


def _detach(vfs: Vfs, gone: Mount) -> None:
    """Take a mount out of the tree, and what is mounted in it."""
    for mount in [one for at, one in vfs.mounts.items() if at.mount is gone]:
        _detach(vfs, mount)
    at = gone.at
    assert at is not None
    del vfs.mounts[at]
    at.dentry.mounted = any(other.dentry is at.dentry for other in vfs.mounts)
