"""What the overlay holds and the host will not get; and how much more it may hold."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.vfs.flags import NAME_MAX, PATH_MAX
from loadstone.vfs.location import Location
from loadstone.vfs.overlaid import Overlaid
from loadstone.vfs.overlay_directory import OverlayDirectory
from loadstone.vfs.overlay_files import OverlayFile, OverlaySymlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Dentry
    from loadstone.vfs.vfs import Vfs


class Space(NamedTuple):
    """What statfs(2) shows. Sizes in bytes."""

    block_size: int
    total: int
    free: int
    files: int
    files_free: int
    name_length: int
    magic: int
    available: int = -1  # of `free`, what is not kept for root; -1: all


class Discarded(NamedTuple):
    """One change. `kind`: file, directory, symlink, special, moved, attributes, removed."""

    path: str
    bytes: int
    kind: str


def discarded(vfs: Vfs) -> list[Discarded]:
    """All changes in the layers that stand over the host's tree, sorted by path."""
    found: list[tuple[Discarded, str]] = _changes(vfs)
    return [one for one, _ in found]


def keep_option(vfs: Vfs) -> str:
    """`--rw DIR` for the fewest, deepest directories of the host that have all changes below them.

    Nobody is advised to hand over the whole tree: what changed in `/` itself, or in a directory that only the guest has
    there, is left out.
    """
    import shlex

    wanted = sorted({directory for _, directory in _changes(vfs) if directory.strip("/")})
    kept: list[str] = []
    for directory in wanted:
        if not kept or not (directory + "/").startswith(kept[-1].rstrip("/") + "/"):
            kept.append(directory)
    return " ".join(f"--rw {shlex.quote(directory)}" for directory in kept)


def _changes(vfs: Vfs) -> list[tuple[Discarded, str]]:
    """Every change, with the deepest directory of the host above it. Directories may be deeper than Python's stack."""
    found: list[tuple[Discarded, str]] = []
    seen: set[int] = set()
    todo: list[_Visit] = []
    for place in (vfs.root, *(_mount_root(vfs, place) for place in vfs.mounts)):
        inode = place.inode
        if isinstance(inode, OverlayDirectory) and inode.fs.tree is not None and inode.fs.changed:
            todo.append(_Visit(place.dentry, place.path.rstrip("/"), inode.host_path))
    while todo:
        visit = todo.pop()
        if id(visit.dentry) not in seen:
            seen.add(id(visit.dentry))
            todo += _look(visit, found)
    found.sort()
    return found


class _Visit(NamedTuple):
    """A directory to look through; `keep` is the deepest directory of the host above its changes."""

    dentry: Dentry
    path: str
    keep: str


def _mount_root(vfs: Vfs, place: Location) -> Location:
    mount = vfs.mounts[place]
    return Location(mount, mount.root)


def _look(visit: _Visit, found: list[tuple[Discarded, str]]) -> list[_Visit]:
    """Note the changes in one directory; what is to be visited below it."""
    dentry, path, keep = visit
    inode = dentry.inode
    assert isinstance(inode, OverlayDirectory)
    given, below = inode.fs.given, []
    if len(path) > PATH_MAX:  # no call can name what is in here: it counts under its ancestor's name
        path = path[:PATH_MAX]
    for name, one in inode.upper.items():
        if one is None:
            found.append((Discarded(f"{path}/{name}", 0, "removed"), keep))
        elif one.inode not in given and name not in dentry.children:  # its dentry was never made, or forgotten
            found.append((Discarded(f"{path}/{name}", size_of(one), kind_of(one)), keep))
    for name, child in dentry.children.items():
        one = child.inode
        if not isinstance(one, Overlaid):
            continue
        is_new = name in inode.upper and one.inode not in given
        if is_new:
            found.append((Discarded(f"{path}/{name}", size_of(one), kind_of(one)), keep))
        elif one.changed and not isinstance(one, OverlayDirectory):
            kind = "file" if isinstance(one, OverlayFile) and one.store is not None else "attributes"
            found.append((Discarded(f"{path}/{name}", size_of(one), kind), keep))
        if isinstance(one, OverlayDirectory):
            below.append(_Visit(child, f"{path}/{name}", keep if is_new else one.host_path or keep))
    return below


def size_of(inode: Inode) -> int:
    """Bytes that only we have."""
    return inode.size if isinstance(inode, OverlayFile) and inode.store is not None else 0


def kind_of(inode: Inode) -> str:
    """The word for a name that we put there."""
    if isinstance(inode, Overlaid) and inode.lower is not None:
        return "file" if size_of(inode) else "moved"
    if isinstance(inode, OverlayFile):
        return "file"
    if isinstance(inode, OverlayDirectory):
        return "directory"
    return "symlink" if isinstance(inode, OverlaySymlink) else "special"


def space(vfs: Vfs, location: Location) -> Space:
    """statfs(2): what the file system says; the overlay: what it may still take, on one of the host's size."""
    from loadstone.vfs.passthrough import Through

    own = location.mount.superblock.space
    if own is not None:
        return own()
    budget = vfs.budget
    total, files = budget.limit, 1 << 20
    inode = location.inode
    tree = inode.fs.tree if isinstance(inode, Overlaid | Through) and not inode.fs.deterministic else None
    if tree is not None:
        host = os.fstatvfs(tree.root.directory_fd())
        total, files = host.f_blocks * host.f_frsize, host.f_files
    free = max(0, budget.limit - budget.used)
    return Space(4096, total, min(free, total), files, files // 2, NAME_MAX, location.mount.superblock.magic)


def nothing(magic: int) -> Callable[[], Space]:
    """What statfs(2) shows of a file system that takes no room (fs/libfs.c, simple_statfs())."""
    return lambda: Space(4096, 0, 0, 0, 0, NAME_MAX, magic)
