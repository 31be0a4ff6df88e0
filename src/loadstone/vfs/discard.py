"""What the overlay holds and the host will not get; and what a location is on the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.vfs.flags import NAME_MAX
from loadstone.vfs.overlay import Overlaid, OverlayDirectory, OverlayFile, OverlaySymlink

if TYPE_CHECKING:
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.namespace import Dentry, Location, Space, Vfs


class Discarded(NamedTuple):
    """One change. `kind`: file, directory, symlink, special, moved, attributes, removed."""

    path: str
    bytes: int
    kind: str


def host_path(inode: Inode) -> str:
    """Where the host has exactly this file's contents; "" if nowhere."""
    lower = getattr(inode, "node", None) or getattr(inode, "lower", None)
    if lower is None or getattr(inode, "store", None) is not None:
        return ""
    path: str = lower.path
    return path


def discarded(vfs: Vfs) -> list[Discarded]:
    """All changes in the layers that stand over the host's tree, sorted by path."""
    found: list[tuple[Discarded, str]] = _changes(vfs)
    return [one for one, _ in found]


def keep_option(vfs: Vfs) -> str:
    """`--rw DIR` for the fewest, deepest directories of the host that have all changes below them."""
    import shlex

    wanted = sorted({directory for _, directory in _changes(vfs) if directory})
    kept: list[str] = []
    for directory in wanted:
        if not kept or not (directory + "/").startswith(kept[-1].rstrip("/") + "/"):
            kept.append(directory)
    return " ".join(f"--rw {shlex.quote(directory)}" for directory in kept)


def _changes(vfs: Vfs) -> list[tuple[Discarded, str]]:
    found: list[tuple[Discarded, str]] = []
    roots = [vfs.root, *(_mount_root(vfs, place) for place in vfs.mounts)]
    seen: set[int] = set()
    for place in roots:
        inode = place.inode
        overlay = getattr(inode, "fs", None)
        if overlay is None or overlay.tree is None or not overlay.changed:
            continue
        directory = host_path(inode)
        _visit(place.dentry, place.path, directory, found, seen)
    found.sort()
    return found


def _mount_root(vfs: Vfs, place: Location) -> Location:
    from loadstone.vfs.namespace import Location

    mount = vfs.mounts[place]
    return Location(mount, mount.root)


def _visit(dentry: Dentry, path: str, keep: str, found: list[tuple[Discarded, str]], seen: set[int]) -> None:
    """Note the changes below a directory; `keep` is the deepest directory of the host above them."""
    inode = dentry.inode
    if not isinstance(inode, OverlayDirectory) or id(dentry) in seen:
        return
    seen.add(id(dentry))
    path = path.rstrip("/")
    given = inode.fs.given
    for name, one in inode.upper.items():
        if one is not None and one.inode in given:
            continue
        if one is None:
            found.append((Discarded(f"{path}/{name}", 0, "removed"), keep))
        elif name not in dentry.children:  # its dentry was never made, or forgotten
            found.append((Discarded(f"{path}/{name}", size_of(one), kind_of(one)), keep))
    for name, child in dentry.children.items():
        one = child.inode
        if not isinstance(one, Overlaid):
            continue
        below = keep
        if name in inode.upper and one.inode not in given:
            found.append((Discarded(f"{path}/{name}", size_of(one), kind_of(one)), keep))
        else:
            if one.changed and not isinstance(one, OverlayDirectory):
                kind = "file" if isinstance(one, OverlayFile) and one.store is not None else "attributes"
                found.append((Discarded(f"{path}/{name}", size_of(one), kind), keep))
            if isinstance(one, OverlayDirectory) and one.lower is not None:
                below = one.lower.path
        _visit(child, f"{path}/{name}", below, found, seen)


def size_of(inode: Inode) -> int:
    """Bytes that only we have."""
    return inode.size if isinstance(inode, OverlayFile) and inode.store is not None else 0


def kind_of(inode: Inode) -> str:
    """The word for a name that we put there."""
    if getattr(inode, "lower", None) is not None:
        return "file" if size_of(inode) else "moved"
    if isinstance(inode, OverlayFile):
        return "file"
    if isinstance(inode, OverlayDirectory):
        return "directory"
    return "symlink" if isinstance(inode, OverlaySymlink) else "special"


def space(vfs: Vfs, location: Location) -> Space:
    """statfs(2): what the overlay may still take, on a file system of the host's size."""
    from loadstone.vfs.namespace import Space

    budget = vfs.budget
    total, files = budget.limit, 1 << 20
    inode = location.inode
    overlay = getattr(inode, "fs", None)
    if overlay is not None and overlay.tree is not None and not overlay.deterministic:
        host = os.fstatvfs(overlay.tree.root.directory_fd())
        total, files = host.f_blocks * host.f_frsize, host.f_files
    free = max(0, budget.limit - budget.used)
    return Space(4096, total, min(free, total), files, files // 2, NAME_MAX, location.mount.magic)
