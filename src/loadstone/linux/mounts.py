"""The guest's mounts as Linux shows them: numbers, and the lines of /proc/PID/mountinfo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.vfs.assemble import PROC_DEVICE, SYS_DEVICE
from loadstone.vfs.location import (
    MNT_NOATIME,
    MNT_NODEV,
    MNT_NODIRATIME,
    MNT_NOEXEC,
    MNT_NOSUID,
    MNT_NOSYMFOLLOW,
    MNT_READONLY,
    MNT_RELATIME,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.namespaces.pids import PidNamespace
    from loadstone.linux.proc.machine_text import Mount as Line
    from loadstone.linux.proc.root import ProcRoot
    from loadstone.vfs.devpts import ProcessSide
    from loadstone.vfs.generated import GeneratedDirectory, StaticDirectory
    from loadstone.vfs.inode import Entry, Inode
    from loadstone.vfs.location import Dentry, Location, Mount, Superblock
    from loadstone.vfs.vfs import Vfs

_OPTIONS = (
    (MNT_NOSUID, "nosuid"), (MNT_NODEV, "nodev"), (MNT_NOEXEC, "noexec"), (MNT_NOATIME, "noatime"),
    (MNT_NODIRATIME, "nodiratime"), (MNT_RELATIME, "relatime"), (MNT_NOSYMFOLLOW, "nosymfollow"),
)  # fmt: skip


def mount_number(vfs: Vfs, mount: Mount) -> int:
    """The mount's number; those without a place in the tree (pipes, memfds) have low ones."""
    return mount.number or 1


def mount_lines(vfs: Vfs, root: Location | None = None) -> list[Line]:
    """All mounts that a process with this root directory can reach, in the order of mounting."""
    top = root or vfs.root
    seen = [(top, top.mount)] if top.dentry is top.mount.root else []
    for place, mount in vfs.mounts.items():
        if mount is not top.mount and not place.path_under(top).startswith("(unreachable)"):
            seen.append((place, mount))
    return [_line(place, mount, top) for place, mount in sorted(seen, key=lambda pair: pair[1].number)]


def _line(place: Location, mount: Mount, top: Location) -> Line:
    from loadstone.linux.proc.machine_text import Mount as Line
    from loadstone.linux.structs import major, minor

    superblock = mount.superblock
    shown = ["ro" if mount.flags & MNT_READONLY else "rw", *(word for bit, word in _OPTIONS if mount.flags & bit)]
    device, above = mount.root.inode.device, 1 if mount.at is None else mount.at.mount.number
    return Line(
        mount.number, above, major(device), minor(device), _path_in(superblock, mount.root), place.path_under(top),
        ",".join(shown), _propagation(mount), superblock.kind, mount.source,
        ("ro" if superblock.read_only else "rw") + superblock.options(),
    )  # fmt: skip


def _path_in(superblock: Superblock, dentry: Dentry | None) -> str:
    """The path of a bind mount's root inside its file system."""
    names: list[str] = []
    while dentry is not None and dentry is not superblock.root:
        names.append(dentry.name)
        dentry = dentry.parent
    return "/" + "/".join(reversed(names)) + ("//deleted" if names and dentry is not None and dentry.gone else "")


def _propagation(mount: Mount) -> str:
    """The optional fields of mountinfo (fs/proc_namespace.c)."""
    shown = f"shared:{mount.group} " if mount.group else ""
    shown += f"master:{mount.master} " if mount.master else ""
    return shown + ("unbindable " if mount.unbindable else "")


def mount_kernel_files(kernel: Kernel) -> None:
    """Put the guest's own /proc and /sys where the namespace has empty ones. They cost nothing until looked at."""
    kernel.vfs.process_side = lambda: _process_side(kernel)
    for place, mount in kernel.vfs.mounts.items():
        if place.path not in ("/proc", "/sys"):
            continue
        make = proc_directory if place.path == "/proc" else sys_directory
        mount.root.inode = make(kernel)


def proc_directory(kernel: Kernel, pids: PidNamespace | None = None) -> GeneratedDirectory:
    """The topmost directory of /proc, as a PID namespace sees it; None: the machine's first."""

    def proc() -> ProcRoot:
        from loadstone.linux.proc.root import proc_root

        return proc_root(kernel, pids)

    return _later(kernel, proc, PROC_DEVICE)


def sys_directory(kernel: Kernel) -> GeneratedDirectory:
    """The topmost directory of /sys."""

    def sys() -> StaticDirectory:
        from loadstone.linux.sys import sys_root

        return sys_root(kernel)

    return _later(kernel, sys, SYS_DEVICE)


def _later(kernel: Kernel, build: Callable[[], ProcRoot | StaticDirectory], device: int) -> GeneratedDirectory:
    from loadstone.vfs.generated import GeneratedDirectory

    tree = _Later(build)
    return GeneratedDirectory(tree.names, tree.find, device=device, inode=1, now_ns=kernel.clock.realtime_ns())


def _process_side(kernel: Kernel) -> ProcessSide:
    from loadstone.linux.terminals import Processes

    return Processes(kernel)


class _Later:
    """A tree that is built when somebody first looks into it."""

    __slots__ = ("_build", "_tree")

    def __init__(self, build: Callable[[], ProcRoot | StaticDirectory]) -> None:
        self._build = build
        self._tree: ProcRoot | StaticDirectory | None = None

    @property
    def tree(self) -> ProcRoot | StaticDirectory:
        if self._tree is None:
            self._tree = self._build()
        return self._tree

    def names(self) -> Sequence[Entry]:
        return self.tree.entries()

    def find(self, name: str) -> Inode | None:
        return self.tree.lookup(name)
