"""The tree that the guest sees: mounts, and how a path is walked. Rules and the order of checks follow fs/namei.c."""

from __future__ import annotations

import os
from errno import ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from sys import getrefcount
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.vfs.flags import MAX_SYMLINKS, NAME_MAX, PATH_MAX, S_IFDIR, S_IFLNK, S_IFMT, X_OK
from loadstone.vfs.inode import ROOT, EmptyDirectory, Identity, Inode, demand, may
from loadstone.vfs.location import MNT_NOSYMFOLLOW, Dentry, Location, Mount
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

OVERLAY_MAGIC, MEMORY_MAGIC = 0x794C7630, 0x01021994  # include/uapi/linux/magic.h: OVERLAYFS, TMPFS
REMEMBERED_NAMES = 100_000
FIRST_MOUNT = 21  # the root's number: a booted kernel has used the ones before for mounts of its own
OWN_REFERENCES = 3  # to a dentry while _prune() looks at it: directory, variable, argument


class Origin(NamedTuple):
    """Where a path starts and who asks: the directory of a relative one, the root directory, and the rights.

    Without directories both are the namespace's root.
    """

    cwd: Location | None = None
    root: Location | None = None
    who: Identity = ROOT


TOP = Origin()


class Walk:
    """A path being walked: where it starts, root directory, rights, and the links followed so far."""

    __slots__ = ("base", "links", "root", "who")

    def __init__(self, base: Location, root: Location, who: Identity) -> None:
        self.base = base
        self.root = root
        self.who = who
        self.links = 0


class MountTable(dict[Location, Mount]):
    """What is mounted where in a tree, but for roots, in the order of mounting (struct mnt_namespace).

    Attributes:
        changes: how often it changed.
        changed: woken when it does; `wake` makes those run who waited.
    """

    __slots__ = ("changed", "changes", "wake")

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self.changed = WaitQueue("a change of the mounts")
        self.wake: Callable[[list[object]], object] = bool

    def __setitem__(self, place: Location, mount: Mount) -> None:
        super().__setitem__(place, mount)
        self.touch()

    def __delitem__(self, place: Location) -> None:
        super().__delitem__(place)
        self.touch()

    def touch(self) -> None:
        """Something about the mounts is different (touch_mnt_namespace)."""
        self.changes += 1
        if self.changed.waiters or self.changed.listeners:
            self.wake(self.changed.wake())


class Namespace:
    """A tree of mounts.

    Attributes:
        root: its own root; a process may have another one.
        mounts: what is mounted where, but for roots.
        other_roots: what nothing is above, in trees that were copied from this one.
        detached: mounts that have no place yet, and are in nobody's tree (fsmount(2), open_tree(2)).
        last_mount: the number that was given to a mount last.
    """

    def __init__(self, root: Inode, name: str, magic: int) -> None:
        mount = Mount(Dentry(None, "/", root), None, name, magic)
        mount.number = self.last_mount = FIRST_MOUNT
        self.root = Location(mount, mount.root)
        self.mounts = MountTable()
        self.other_roots: list[Mount] = []
        self.detached: list[Mount] = []
        self._remembered = 0

    # Walking

    def _walk(self, origin: Origin) -> Walk:
        return Walk(origin.cwd or self.root, origin.root or self.root, origin.who)

    def _step(self, place: Location, name: str, walk: Walk) -> Location:
        """One component from a directory; links are not followed."""
        dentry = place.dentry
        inode = dentry.inode
        if inode.mode & S_IFMT != S_IFDIR:
            raise LinuxError(ENOTDIR)
        if walk.who.fsuid != 0:
            demand(inode, X_OK, walk.who)
        if name == ".":
            return place
        if name == "..":
            return place if place == walk.root else self._mounted(place.parent)
        if len(name) > 63 and len(os.fsencode(name)) > NAME_MAX:
            raise LinuxError(ENAMETOOLONG)
        child = dentry.children.get(name)
        if child is None or (inode.volatile and not inode.still(name, child.inode)):
            child = self._find(dentry, name)
        found = Location(place.mount, child)
        return self._mounted(found) if child.mounted else found

    def _find(self, dentry: Dentry, name: str) -> Dentry:
        """Ask the directory; ENOENT."""
        dentry.children.pop(name, None)
        child = Dentry(dentry, name, dentry.inode.lookup(name))
        if dentry.inode.cacheable:
            dentry.children[name] = child
            self._remembered += 1
            if self._remembered > REMEMBERED_NAMES:
                self._remembered = _prune(self.root.mount.root)
        return child

    def _mounted(self, place: Location) -> Location:
        """What is mounted here, if anything."""
        while place.dentry.mounted:
            mount = self.mounts.get(place)
            if mount is None:
                break
            mount.expiring = False
            place = Location(mount, mount.root)
        return place

    def _to_parent(self, place: Location, path: str, walk: Walk) -> tuple[Location, str, bool]:
        """(directory, last component, whether slashes follow it). The last component is "" for `/` itself."""
        names = _names(path)
        if path[0] == "/":
            place = walk.root
        if not names:
            return place, "", False
        last = names.pop()
        names.reverse()
        mount, dentry, who = place.mount, place.dentry, walk.who
        while names:
            name = names.pop()
            child = dentry.children.get(name)
            inode = dentry.inode
            if (
                child is not None
                and child.inode.mode & S_IFMT == S_IFDIR
                and not (child.mounted or inode.volatile)
                and (who.fsuid == 0 or may(inode, X_OK, who))
            ):
                dentry = child  # the common case of _step(), without its objects
                continue
            place = self._step(Location(mount, dentry), name, walk)
            if place.dentry.inode.mode & S_IFMT == S_IFLNK:
                target = self._target(place, walk)
                if isinstance(target, str):  # the walk goes on with the link's names
                    names += reversed(_names(target))
                    if target[0] == "/":
                        mount, dentry = walk.root.mount, walk.root.dentry
                    continue
                place = target
            mount, dentry = place.mount, place.dentry
        if dentry.inode.mode & S_IFMT != S_IFDIR:
            raise LinuxError(ENOTDIR)
        if who.fsuid != 0:
            demand(dentry.inode, X_OK, who)
        place = Location(mount, dentry)
        return place, last, path[-1] == "/"

    def _target(self, link: Location, walk: Walk) -> Location | str:
        if link.mount.flags & MNT_NOSYMFOLLOW:
            raise LinuxError(ELOOP, "symbolic links are not followed on this mount")
        walk.links += 1
        if walk.links > MAX_SYMLINKS:
            raise LinuxError(ELOOP)
        link.accessed()
        there = link.dentry.inode.follow()
        return there if there is not None else link.dentry.inode.readlink()

    def _resolve(self, place: Location, path: str, walk: Walk, follow: bool, directory: bool) -> Location:
        while True:
            base, last, slash = self._to_parent(place, path, walk)
            directory = directory or slash
            found = self._step(base, last, walk) if last else base
            if found.dentry.inode.mode & S_IFMT != S_IFLNK or not (follow or slash):
                break
            target = self._target(found, walk)
            follow = True
            if isinstance(target, Location):
                found = target
                break
            place, path = base, target
        if directory and not found.dentry.inode.is_directory:
            raise LinuxError(ENOTDIR)
        return found

    def resolve(
        self,
        path: str,
        origin: Origin = TOP,
        *,
        follow: bool = True,
        directory: bool = False,
        empty: bool = False,
    ) -> Location:
        """The place that `path` names. `follow`: a last symbolic link too. `empty`: "" is the start (AT_EMPTY_PATH)."""
        walk = self._walk(origin)
        if empty and not path:
            return walk.base
        return self._resolve(walk.base, path, walk, follow, directory)

    def _last(self, path: str, walk: Walk) -> tuple[Location, str, bool]:
        return self._to_parent(walk.base, path, walk)

    def _child(self, base: Location, name: str, walk: Walk) -> Location | None:
        """What is called `name`, None if nothing is."""
        try:
            return self._step(base, name, walk)
        except LinuxError as error:
            if error.errno == ENOENT:
                return None
            raise

    # Mounts

    def mount(self, path: str, inode: Inode, *, name: str = "tmpfs", magic: int = MEMORY_MAGIC) -> Mount:
        """Hang a tree in at the directory (or file) `path`; ENOENT if there is none."""
        return self.mount_at(self.resolve(path), Dentry(None, "/", inode), name, magic)

    def mount_at(self, place: Location, root: Dentry, name: str, magic: int) -> Mount:
        """Hang in a file system, or what is seen of one, whose topmost dentry is `root`; ENOTDIR."""
        return self.hang(Mount(root, place, name, magic))

    def hang(self, mount: Mount) -> Mount:
        """Make a new mount part of the tree, at the place it names; ENOTDIR."""
        place = mount.at
        assert place is not None
        if place.inode.is_directory != mount.root.inode.is_directory:
            raise LinuxError(ENOTDIR)
        above = place.mount.at
        if above is not None and place.dentry is place.mount.root and isinstance(place.inode, EmptyDirectory):
            mount.at = place = above  # it was only there to be mounted on
        self.number(mount)
        place.dentry.mount_on()
        self.mounts[place] = mount
        return mount

    def number(self, mount: Mount) -> None:
        """Count a new mount."""
        self.last_mount += 1
        mount.number = self.last_mount
        mount.superblock.mounts += 1

    def topmost(self, place: Location) -> Location:
        """What is seen at a place: the root of what was mounted there last, if anything was."""
        return self._mounted(place)


def _names(path: str) -> list[str]:
    """The components of a path; ENOENT for an empty one, ENAMETOOLONG."""
    if not path:
        raise LinuxError(ENOENT)
    if len(path) >= PATH_MAX // 4 and len(os.fsencode(path)) >= PATH_MAX:
        raise LinuxError(ENAMETOOLONG)
    return [name for name in path.split("/") if name]


def _prune(top: Dentry) -> int:
    """Forget names that can be found again; how many are left.

    A name stays if somebody has its dentry, or if something is known of it that only its dentry leads to.
    """
    dentries = [top]
    for dentry in dentries:  # the list grows: a tree may be deeper than Python's stack
        dentries += dentry.children.values()
    left = 0
    while len(dentries) > 1:
        child = dentries.pop()
        parent = child.parent
        if child.children or child.mounted or not child.inode.forgettable or getrefcount(child) > OWN_REFERENCES:
            left += 1
        elif parent is not None:
            del parent.children[child.name]
    return left
