"""The guest's mounts as Linux shows them: numbers, and the lines of /proc/PID/mountinfo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.proc_text import Mount as Line
from loadstone.linux.structs import major, minor

if TYPE_CHECKING:
    from loadstone.vfs.namespace import Mount, Vfs

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
    lines = [_line(FIRST, 1, root.inode.device, "/", root.mount.name)]
    for number, (place, mount) in enumerate(vfs.mounts.items(), FIRST + 1):
        parent = mount_number(vfs, place.mount)
        lines.append(_line(number, parent, mount.root.inode.device, place.path, mount.name))
    return lines


def _line(number: int, parent: int, device: int, point: str, name: str) -> Line:
    return Line(number, parent, major(device), minor(device), "/", point, "rw,relatime", name, name, "rw")
