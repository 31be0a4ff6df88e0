"""The guest's mounts as Linux shows them: numbers, and the lines of /proc/PID/mountinfo."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.proc import ProcRoot
    from loadstone.linux.proc_machine_text import Mount as Line
    from loadstone.vfs.devpts import ProcessSide
    from loadstone.vfs.generated import StaticDirectory
    from loadstone.vfs.inode import Entry, Inode
    from loadstone.vfs.location import Mount
    from loadstone.vfs.vfs import Vfs

FIRST = 21  # the root's number: a booted kernel has used the ones before for mounts of its own


def mount_number(vfs: Vfs, mount: Mount) -> int:
    """The mount's number; those without a place in the tree (pipes, memfds) have low ones."""
    if mount is vfs.root.mount:
        return FIRST
    for number, other in enumerate(vfs.mounts.values(), FIRST + 1):
        if other is mount:
            return number
    return 1


def mount_lines(vfs: Vfs) -> list[Line]:
    """All mounts, the root first."""
    root = vfs.root
    lines = [_line(FIRST, 1, root.inode.device, "/", root.mount)]
    for number, (place, mount) in enumerate(vfs.mounts.items(), FIRST + 1):
        parent = mount_number(vfs, place.mount)
        lines.append(_line(number, parent, mount.root.inode.device, place.path, mount))
    return lines


def _line(number: int, parent: int, device: int, point: str, mount: Mount) -> Line:
    from loadstone.linux.proc_machine_text import Mount as Line
    from loadstone.linux.structs import major, minor

    options = "rw,noexec,relatime" if mount.noexec else "rw,relatime"
    return Line(number, parent, major(device), minor(device), "/", point, options, mount.name, mount.name, "rw")


def mount_kernel_files(kernel: Kernel) -> None:
    """Put the guest's own /proc and /sys where the namespace has empty ones. They cost nothing until looked at."""
    from loadstone.vfs.generated import GeneratedDirectory

    kernel.vfs.process_side = lambda: _process_side(kernel)
    now = kernel.clock.realtime_ns()

    def proc() -> ProcRoot:
        from loadstone.linux.proc import proc_root

        return proc_root(kernel)

    def sys() -> StaticDirectory:
        from loadstone.linux.sys import sys_root

        return sys_root(kernel)

    for place, mount in kernel.vfs.mounts.items():
        if place.path not in ("/proc", "/sys"):
            continue
        tree = _Later(proc if place.path == "/proc" else sys)
        device = mount.root.inode.device
        mount.root.inode = GeneratedDirectory(tree.names, tree.find, device=device, inode=1, now_ns=now)


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
