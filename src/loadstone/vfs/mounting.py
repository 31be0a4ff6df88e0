"""How the tree of mounts is changed: binding, moving, taking away, and who belongs to whom. Source: fs/namespace.c."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ELOOP, ENOTDIR
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.location import Location, Mount, is_within

if TYPE_CHECKING:
    from loadstone.vfs.location import Superblock
    from loadstone.vfs.namespace import Namespace

PRIVATE, SLAVE, SHARED, UNBINDABLE = range(4)


def children(tree: Namespace, mount: Mount) -> list[tuple[Location, Mount]]:
    """What is mounted directly in a mount, and where, in the order of mounting."""
    return [(at, one) for at, one in tree.mounts.items() if at.mount is mount]


def below(tree: Namespace, mount: Mount) -> list[Mount]:
    """A mount, and all that are mounted in it at any depth."""
    found = [mount]
    for one in found:  # the list grows
        found += [child for _, child in children(tree, one)]
    return found


def bind(tree: Namespace, source: Location, place: Location, recursive: bool) -> Mount:
    """Show what is at `source` at `place` too (MS_BIND), with what is mounted in it if `recursive`.

    Raises LinuxError: EINVAL for an unbindable mount, ENOTDIR.
    """
    if source.mount.unbindable:
        raise LinuxError(EINVAL, f"the mount of {source.path} is unbindable")
    inside = children(tree, source.mount)
    if not recursive:
        if any(one.locked and is_within(at.dentry, source.dentry) for at, one in inside):
            raise LinuxError(EINVAL, f"what is mounted below {source.path} must stay where it covers something")
        inside = []
    top = tree.hang(source.mount.clone(source.dentry, place))
    if place.mount.group:
        make_shared(tree, top)
    propagate(tree, top)
    todo = [(at, one, top) for at, one in inside if is_within(at.dentry, source.dentry) and one is not top]
    for at, one, parent in todo:  # the list grows
        if one.unbindable:
            continue
        made = tree.hang(one.clone(one.root, Location(parent, at.dentry)))
        propagate(tree, made)
        todo += [(deeper, other, made) for deeper, other in children(tree, one) if other is not top]
    return top


def move(tree: Namespace, mount: Mount, place: Location) -> None:
    """Take a mount from where it is to `place` (MS_MOVE), with all that is mounted in it.

    Raises LinuxError: EINVAL out of a shared mount, or for a file and a directory; ELOOP into itself.
    """
    at = mount.at
    if at is None:  # everything is in it
        raise LinuxError(ELOOP, "the root cannot be moved into itself")
    if at.mount.group or mount.locked:
        raise LinuxError(EINVAL, "what is mounted in a shared mount stays there, and what is locked")
    if mount.root.inode.is_directory != place.inode.is_directory:
        raise LinuxError(EINVAL)
    if place.mount in below(tree, mount):
        raise LinuxError(ELOOP, f"{place.path} is in what is to be moved")
    _unhang(tree, mount, at)
    attach(tree, mount, place)


def attach(tree: Namespace, mount: Mount, place: Location) -> None:
    """Put a mount, with all that is mounted in it, at a place; it has none now."""
    if mount in tree.detached:
        tree.detached.remove(mount)
    mount.at = place
    place.dentry.mount_on()
    tree.mounts[place] = mount
    if place.mount.group:
        make_shared(tree, mount)
    for one in below(tree, mount):
        propagate(tree, one)


def propagate(tree: Namespace, made: Mount) -> None:
    """A mount that is new at its place appears in every mount that hears of those in the one above it (attach_mnt)."""
    at = made.at
    assert at is not None
    for other in receivers(tree, at.mount):
        if not is_within(at.dentry, other.root):
            continue
        place = Location(other, at.dentry)
        copy, over = made.clone(made.root, place), tree.mounts.get(place)
        if other.group != at.mount.group:  # it follows, and is not followed
            copy.group, copy.master = 0, made.group
        tree.hang(copy)
        if over is not None:  # what was there stays on top
            over.at = Location(copy, copy.root)
            copy.root.mounted = True
            tree.mounts[over.at] = over
        if other.group and not copy.group:
            make_shared(tree, copy)


def receivers(tree: Namespace, mount: Mount) -> list[Mount]:
    """The mounts of its peer group, those that follow the group, and those that follow them (propagation_next)."""
    found: list[Mount] = []
    groups = [mount.group] if mount.group else []
    for group in groups:  # the list grows
        for one in _all(tree):
            if one is not mount and one not in found and group in (one.group, one.master):
                found.append(one)
                if one.group and one.group not in groups:
                    groups.append(one.group)
    return found


def detach(tree: Namespace, mount: Mount, *, tells: bool = True) -> None:
    """Take a mount out of the tree, and what is mounted in it; with `tells` also where it appeared by itself."""
    gone = mount.at
    if tells and gone is not None:
        for other in receivers(tree, gone.mount):
            copy = tree.mounts.get(Location(other, gone.dentry))
            if copy is not None and not copy.locked:
                detach(tree, copy, tells=False)
    for one in reversed(below(tree, mount)):
        at = one.at
        if at is None:
            raise LinuxError(EINVAL, "the root cannot be taken away")
        _unhang(tree, one, at)
        one.at = None
        _let_go(one.superblock)


def _let_go(superblock: Superblock) -> None:
    """A mount less shows the file system."""
    superblock.mounts -= 1
    if superblock.sync is not None:
        superblock.sync()
    if not superblock.mounts and superblock.release is not None:
        superblock.release()


def _unhang(tree: Namespace, mount: Mount, at: Location) -> None:
    del tree.mounts[at]
    at.dentry.mounted = any(other.dentry is at.dentry for other in tree.mounts)


def change_type(tree: Namespace, mount: Mount, kind: int, recursive: bool) -> None:
    """Make a mount private, a slave, shared or unbindable (do_change_type).

    Mounts in one group, and those that follow it, are shown as such in mountinfo.
    """
    for one in below(tree, mount) if recursive else [mount]:
        one.unbindable = kind == UNBINDABLE
        if kind == SHARED:
            make_shared(tree, one)
        elif kind == SLAVE:
            peers = [other for other in _all(tree) if other.group == one.group and other is not one]
            one.master = one.group if one.group and peers else one.master
            one.group = 0
        else:
            one.group = one.master = 0


def make_shared(tree: Namespace, mount: Mount) -> None:
    """Give a mount a peer group of its own, unless it has one."""
    if not mount.group:
        taken = {one.group for one in _all(tree)}
        mount.group = next(number for number in range(1, len(taken) + 2) if number not in taken)
    mount.unbindable = False


def _all(tree: Namespace) -> list[Mount]:
    return [tree.root.mount, *tree.other_roots, *tree.detached, *tree.mounts.values()]


def demand_directory(place: Location) -> None:
    """ENOTDIR unless a file system can be mounted here."""
    if not place.inode.is_directory:
        raise LinuxError(ENOTDIR, f"{place.path} is not a directory")


def set_apart(tree: Namespace, mount: Mount) -> Mount:
    """Count a new mount that has no place yet."""
    tree.number(mount)
    tree.detached.append(mount)
    return mount


def copy_tree(tree: Namespace, top: Mount, roots: list[Mount]) -> dict[Mount, Mount]:
    """Copy a mount and all that is mounted in it, with no place; old -> new. Source: copy_tree().

    `roots`: which of the tree's lists the copy belongs to, that of other namespaces' roots or that of detached mounts.
    """
    made = {top: top.clone(top.root, None)}
    tree.number(made[top])
    roots.append(made[top])
    for old in below(tree, top)[1:]:
        at = old.at
        assert at is not None
        made[old] = tree.hang(old.clone(old.root, Location(made[at.mount], at.dentry)))
        made[old].unbindable, made[old].locked = old.unbindable, old.locked
    return made


def drop_tree(tree: Namespace, top: Mount, roots: list[Mount]) -> None:
    """Nobody sees a mount without a place any more: take it out of `roots`, and away with what is mounted in it."""
    for _, mount in children(tree, top):
        detach(tree, mount, tells=False)
    roots.remove(top)
    _let_go(top.superblock)


def pivot(tree: Namespace, old: Mount, new: Mount, place: Location) -> None:
    """Let `new` take the place of the root mount `old`, which goes to `place`. Source: pivot_root().

    Raises LinuxError: EBUSY if they are the same, EINVAL for shared mounts, or a place that is not below the new root.
    """
    at = new.at
    if at is None or place.mount is old:
        raise LinuxError(EBUSY, "the new root, or the place of the old one, is on the root mount")
    if at.mount.group or place.mount.group or (old.at is not None and old.at.mount.group):
        raise LinuxError(EINVAL, "what is mounted in a shared mount stays there")
    if place.mount not in below(tree, new) or new.locked:
        raise LinuxError(EINVAL, f"{place.path} is not below the new root, or that is locked")
    _unhang(tree, new, at)
    before, new.at = old.at, old.at
    if old in tree.other_roots:
        tree.other_roots[tree.other_roots.index(old)] = new
    if before is not None:
        tree.mounts[before] = new
    old.at = place
    place.dentry.mount_on()
    tree.mounts[place] = old
