"""Names: the tree that the guest sees, how a path is walked through it, and everything that takes a path.

As in Linux, a *dentry* is a name in a directory that stands for an inode, and a *location* is a dentry seen through a
mount. Rules and the order of checks follow fs/namei.c.
"""

from __future__ import annotations

import os
from errno import (
    EACCES,
    EBUSY,
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    ENAMETOOLONG,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    EOPNOTSUPP,
    EPERM,
    EXDEV,
)
from sys import getrefcount
from typing import TYPE_CHECKING

from loadstone.clock import Clock
from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.vfs.file import PathFile, RegularOpen
from loadstone.vfs.flags import (
    MAX_SYMLINKS,
    NAME_MAX,
    NOW,
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOATIME,
    O_NOFOLLOW,
    O_PATH,
    O_TRUNC,
    OMIT,
    PATH_MAX,
    R_OK,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    S_IFDIR,
    S_IFMT,
    S_IFREG,
    S_ISGID,
    S_ISUID,
    S_ISVTX,
    TMPFILE_BIT,
    W_OK,
    X_OK,
)
from loadstone.vfs.inode import ROOT, EmptyDirectory, Identity, Inode, demand, in_group, may
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from loadstone.vfs.discard import Discarded
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.pipe import Waker
    from loadstone.vfs.regular import Cache
    from loadstone.vfs.store import Budget

DEFAULT_LIMIT = 1 << 30
OVERLAY_MAGIC, MEMORY_MAGIC = 0x794C7630, 0x01021994  # include/uapi/linux/magic.h: OVERLAYFS, TMPFS
ANONYMOUS_DEVICE = 14
REMEMBERED_NAMES = 100_000
OWN_REFERENCES = 3  # to a dentry while _prune() looks at it: directory, variable, argument


class Dentry:
    """A name in a directory. `gone`: it was removed, and only those who had it open still know it."""

    __slots__ = ("children", "gone", "inode", "mounted", "name", "parent")

    def __init__(self, parent: Dentry | None, name: str, inode: Inode) -> None:
        self.parent = parent
        self.name = name
        self.inode = inode
        self.children: dict[str, Dentry] = {}
        self.mounted = False  # something is mounted here, through some mount
        self.gone = False


class Mount:
    """A tree hung in at a place. `at` None: the namespace's root, or a tree without a place."""

    __slots__ = ("at", "magic", "name", "root")

    def __init__(self, root: Dentry, at: Location | None, name: str, magic: int) -> None:
        self.root = root
        self.at = at
        self.name = name  # the file system's, as /proc/mounts shows it
        self.magic = magic


class Location:
    """A place in the namespace: a dentry seen through a mount."""

    __slots__ = ("dentry", "mount")

    def __init__(self, mount: Mount, dentry: Dentry) -> None:
        self.mount = mount
        self.dentry = dentry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Location) and self.dentry is other.dentry and self.mount is other.mount

    def __hash__(self) -> int:
        return hash((id(self.mount), id(self.dentry)))

    def __repr__(self) -> str:
        return f"<Location {self.path}>"

    @property
    def inode(self) -> Inode:
        """The file that is here."""
        return self.dentry.inode

    @property
    def deleted(self) -> bool:
        """Whether the name is gone."""
        return self.dentry.gone

    @property
    def parent(self) -> Location:
        """What `..` is, as far as the namespace's root."""
        mount, dentry = self.mount, self.dentry
        while dentry is mount.root and (at := mount.at) is not None:
            mount, dentry = at.mount, at.dentry
        if dentry is mount.root or dentry.parent is None:
            return Location(mount, dentry)
        return Location(mount, dentry.parent)

    @property
    def path(self) -> str:
        """The absolute path, with " (deleted)" if the name is gone."""
        return self.path_under(None)

    def path_under(self, top: Location | None) -> str:
        """The path as a process with root directory `top` sees it; "(unreachable)" before what is not below it."""
        parts: list[str] = []
        mount, dentry = self.mount, self.dentry
        reached = top is None
        while True:
            if top is not None and dentry is top.dentry and mount is top.mount:
                reached = True
                break
            if dentry is mount.root:
                at = mount.at
                if at is None:
                    break
                mount, dentry = at.mount, at.dentry
                continue
            parts.append(dentry.name)
            if dentry.parent is None:
                break
            dentry = dentry.parent
        path = "/" + "/".join(reversed(parts))
        return ("" if reached else "(unreachable)") + path + (" (deleted)" if self.dentry.gone else "")

    @property
    def host_path(self) -> str:
        """Where the host has exactly this file; "" if its contents are only here."""
        return self.dentry.inode.host_path


class Space(NamedTuple):
    """What statfs(2) shows. Sizes in bytes."""

    block_size: int
    total: int
    free: int
    files: int
    files_free: int
    name_length: int
    magic: int


class Walk:
    """Who walks a path: root directory, rights, and the links followed so far."""

    __slots__ = ("links", "root", "who")

    def __init__(self, root: Location, who: Identity) -> None:
        self.root = root
        self.who = who
        self.links = 0


class Vfs:
    """A namespace. See the package's docstring for how its methods are called."""

    def __init__(
        self,
        root: Inode,
        page_cache: Cache | None = None,
        clock: Clock | None = None,
        budget: Budget | None = None,
        *,
        name: str = "overlay",
        magic: int = OVERLAY_MAGIC,
    ) -> None:
        from loadstone.vfs.overlay import Overlay
        from loadstone.vfs.store import Budget

        self.page_cache = page_cache
        self.clock = clock or Clock()
        self.budget = budget or Budget(DEFAULT_LIMIT, 256)
        self.mounts: dict[Location, Mount] = {}
        mount = Mount(Dentry(None, "/", root), None, name, magic)
        self.root = Location(mount, mount.root)
        self.protected_hardlinks = True  # the sysctl fs.protected_hardlinks
        self.wake_up: Waker = lambda woken: None
        # Files without a name: memfds.
        self.memory = Overlay(None, page_cache, self.clock, self.budget, device=1)
        nowhere = Mount(Dentry(None, "/", self.memory.root), None, "tmpfs", MEMORY_MAGIC)
        self._nowhere = Location(nowhere, nowhere.root)
        self.deterministic = False  # what is shown does not depend on the host
        self._last_pipe = 10_000
        self._remembered = 0
        self.file_systems = [self.memory]

    def close(self) -> None:
        """Give the host its descriptors back; no file may be used afterwards."""
        for fs in self.file_systems:
            if fs.tree is not None:
                fs.tree.close()
        self.budget.close()

    def wake(self, woken: list[object]) -> None:
        """Hand waiters to whoever makes them run."""
        self.wake_up(woken)

    # Walking

    def _walk(self, root: Location | None, who: Identity) -> Walk:
        return Walk(root or self.root, who)

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
            place = Location(mount, mount.root)
        return place

    def _to_parent(self, place: Location, path: str, walk: Walk) -> tuple[Location, str, bool]:
        """(directory, last component, whether slashes follow it). The last component is "" for `/` itself."""
        if not path:
            raise LinuxError(ENOENT)
        if len(path) >= PATH_MAX // 4 and len(os.fsencode(path)) >= PATH_MAX:
            raise LinuxError(ENAMETOOLONG)
        if path[0] == "/":
            place = walk.root
        parts = path.split("/")
        names = [part for part in parts if part]
        if not names:
            return place, "", False
        last = names.pop()
        mount, dentry, who = place.mount, place.dentry, walk.who
        for name in names:
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
            base = Location(mount, dentry)
            place = self._step(base, name, walk)
            if place.dentry.inode.is_symlink:
                place = self._follow(base, place, walk)
            mount, dentry = place.mount, place.dentry
        if dentry.inode.mode & S_IFMT != S_IFDIR:
            raise LinuxError(ENOTDIR)
        if who.fsuid != 0:
            demand(dentry.inode, X_OK, who)
        place = Location(mount, dentry)
        return place, last, not parts[-1]

    def _follow(self, base: Location, link: Location, walk: Walk) -> Location:
        """Where a symbolic link in directory `base` leads, all the way."""
        target = self._target(link, walk)
        if isinstance(target, Location):
            return target
        return self._resolve(base, target, walk, True, False)

    def _target(self, link: Location, walk: Walk) -> Location | str:
        walk.links += 1
        if walk.links > MAX_SYMLINKS:
            raise LinuxError(ELOOP)
        there = link.dentry.inode.follow()
        return there if there is not None else link.dentry.inode.readlink()

    def _resolve(self, place: Location, path: str, walk: Walk, follow: bool, directory: bool) -> Location:
        while True:
            base, last, slash = self._to_parent(place, path, walk)
            directory = directory or slash
            found = self._step(base, last, walk) if last else base
            if not found.dentry.inode.is_symlink or not (follow or slash):
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
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
        follow: bool = True,
        directory: bool = False,
        empty: bool = False,
    ) -> Location:
        """The place that `path` names. `follow`: a last symbolic link too. `empty`: "" is `cwd` (AT_EMPTY_PATH)."""
        base = cwd or self.root
        if empty and not path:
            return base
        return self._resolve(base, path, self._walk(root, credentials), follow, directory)

    def _last(self, path: str, cwd: Location | None, walk: Walk) -> tuple[Location, str, bool]:
        return self._to_parent(cwd or self.root, path, walk)

    def _child(self, base: Location, name: str, walk: Walk) -> Location | None:
        """What is called `name`, None if nothing is."""
        try:
            return self._step(base, name, walk)
        except LinuxError as error:
            if error.errno == ENOENT:
                return None
            raise

    # Looking

    def stat(
        self,
        path: str,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
        follow: bool = True,
        empty: bool = False,
    ) -> Inode:
        """The inode of a path, its attributes brought up to date."""
        inode = self.resolve(path, cwd, root=root, credentials=credentials, follow=follow, empty=empty).inode
        inode.refresh()
        return inode

    def access(
        self,
        path: str,
        mask: int,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
        follow: bool = True,
        empty: bool = False,
    ) -> None:
        """access(2) with the rights of `credentials`; EACCES."""
        inode = self.stat(path, cwd, root=root, credentials=credentials, follow=follow, empty=empty)
        demand(inode, mask, credentials)

    def readlink(
        self,
        path: str,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
        empty: bool = False,
    ) -> str:
        """The text of a symbolic link; EINVAL for anything else (ENOENT for an empty path that is none)."""
        place = self.resolve(path, cwd, root=root, credentials=credentials, follow=False, empty=empty)
        if not place.inode.is_symlink:
            raise LinuxError(ENOENT if empty and not path else EINVAL)
        return place.inode.readlink()

    def path_of(self, location: Location, root: Location | None = None) -> str:
        """The path of a place as getcwd(2) gives it to a process with this root directory."""
        return location.path_under(root if root is not None and root != self.root else None)

    def space(self, location: Location) -> Space:
        """statfs(2)."""
        from loadstone.vfs.discard import space

        return space(self, location)

    # Opening

    def open(
        self,
        path: str,
        flags: int,
        mode: int = 0,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
    ) -> OpenFile:
        """open(2). `mode` is what a new file gets, the umask taken off already."""
        walk = self._walk(root, credentials)
        base = cwd or self.root
        if flags & O_PATH:
            flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
        if flags & TMPFILE_BIT:
            return self._open_temporary(base, path, flags, mode, walk)
        if flags & O_CREAT:
            if flags & O_DIRECTORY:
                raise LinuxError(EINVAL)
            return self._open_create(base, path, flags, mode, walk)
        place = self._resolve(base, path, walk, not flags & O_NOFOLLOW, bool(flags & O_DIRECTORY))
        return self.open_location(place, flags, credentials=credentials)

    def open_location(self, location: Location, flags: int, *, credentials: Identity = ROOT) -> OpenFile:
        """Open what is at a place, with the checks of may_open() and the effect of O_TRUNC."""
        inode = location.dentry.inode
        if flags & O_DIRECTORY and not inode.is_directory:
            raise LinuxError(ENOTDIR)
        if flags & O_PATH:
            return PathFile(inode, flags, location)
        if inode.is_symlink:
            raise LinuxError(ELOOP)
        access = flags & O_ACCMODE
        mask = (R_OK, W_OK, R_OK | W_OK, R_OK | W_OK)[access] | (W_OK if flags & O_TRUNC else 0)
        if inode.is_directory and mask & W_OK:
            raise LinuxError(EISDIR)
        demand(inode, mask, credentials)
        if flags & O_NOATIME and credentials.fsuid not in (0, inode.uid):
            raise LinuxError(EPERM)
        file = self._opened(inode, flags, location, credentials)
        if flags & O_TRUNC and inode.is_regular:
            try:
                inode.truncate(0)
                if credentials.fsuid != 0:
                    inode.drop_privileges()
            except LinuxError:
                file.hold()
                file.close()
                raise
        return file

    def _open_create(self, place: Location, path: str, flags: int, mode: int, walk: Walk) -> OpenFile:
        while True:
            base, last, slash = self._to_parent(place, path, walk)
            if last in ("", ".", ".."):
                self._step(base, last or ".", walk)
                raise LinuxError(EEXIST if flags & O_EXCL else EISDIR)
            if slash:
                raise LinuxError(EISDIR)
            found = self._child(base, last, walk)
            if found is None:
                return self._create(base, last, flags, mode, walk)
            if flags & O_EXCL:
                raise LinuxError(EEXIST)
            if not found.inode.is_symlink:
                break
            if flags & O_NOFOLLOW:
                raise LinuxError(ELOOP)
            target = self._target(found, walk)
            if isinstance(target, Location):
                found = target
                break
            place, path = base, target
        if found.inode.is_directory:
            raise LinuxError(EISDIR)
        return self.open_location(found, flags, credentials=walk.who)

    def _create(self, base: Location, name: str, flags: int, mode: int, walk: Walk) -> OpenFile:
        """A new file is opened whatever its mode says."""
        self._may_create(base, walk.who)
        inode = base.inode.create(name, mode, walk.who)
        return self._opened(inode, flags, self._added(base, name, inode), walk.who)

    @staticmethod
    def _opened(inode: Inode, flags: int, location: Location, who: Identity) -> OpenFile:
        file = inode.open(flags, location)
        if who.fsuid != 0 and isinstance(file, RegularOpen):
            file.strips = True
        return file

    def _added(self, base: Location, name: str, inode: Inode) -> Location:
        child = Dentry(base.dentry, name, inode)
        if base.inode.cacheable:
            base.dentry.children[name] = child
        return Location(base.mount, child)

    def _open_temporary(self, place: Location, path: str, flags: int, mode: int, walk: Walk) -> OpenFile:
        """O_TMPFILE: a regular file in a directory, without a name."""
        if not flags & O_DIRECTORY or not flags & O_ACCMODE or flags & O_CREAT:
            raise LinuxError(EINVAL)
        directory = self._resolve(place, path, walk, not flags & O_NOFOLLOW, True)
        self._may_create(directory, walk.who)
        inode = directory.inode.temporary(mode, walk.who)
        dentry = Dentry(directory.dentry, f"#{inode.inode}", inode)
        dentry.gone = True
        if not flags & O_EXCL:
            self.linkable(inode)
        return self._opened(inode, flags & ~(TMPFILE_BIT | O_DIRECTORY), Location(directory.mount, dentry), walk.who)

    @staticmethod
    def linkable(inode: Inode) -> None:
        """Let a file without names get one (O_TMPFILE without O_EXCL)."""
        if isinstance(inode, RegularFile):
            inode.linkable = True

    def anonymous(self, name: str, flags: int) -> OpenFile:
        """A file in memory without a name: memfd_create(2)."""
        inode = self.memory.root.temporary(0o777, ROOT)
        dentry = Dentry(self._nowhere.dentry, name, inode)
        dentry.gone = True
        return inode.open(flags, Location(self._nowhere.mount, dentry))

    def pipe(self, flags: int = 0, credentials: Identity = ROOT) -> tuple[OpenFile, OpenFile]:
        """pipe2(2): the end that reads, the end that writes."""
        from loadstone.vfs.pipe import PipeInode, make_pipe

        self._last_pipe += 1
        now = self.clock.realtime_ns()
        inode = PipeInode(ANONYMOUS_DEVICE, self._last_pipe, credentials.fsuid, credentials.fsgid, now, self.wake)
        return make_pipe(inode, flags & ~O_ACCMODE & ~O_CLOEXEC)

    def place_of(self, file: OpenFile) -> Location:
        """Where /proc/self/fd/N leads: the file's location, or for a pipe or stream a place outside the tree."""
        if file.location is not None:
            return file.location
        name = file.path.strip("/").rpartition("/")[2]
        return Location(self._nowhere.mount, Dentry(self._nowhere.dentry, name, file.inode))

    # Names

    def _may_create(self, base: Location, who: Identity) -> None:
        if base.dentry.gone or base.inode.nlink == 0:
            raise LinuxError(ENOENT)
        demand(base.inode, W_OK | X_OK, who)

    def _may_delete(self, base: Location, victim: Inode, directory: bool, who: Identity) -> None:
        """Source: fs/namei.c, may_delete()."""
        parent = base.inode
        demand(parent, W_OK | X_OK, who)
        if parent.mode & S_ISVTX and who.fsuid not in (0, victim.uid, parent.uid):
            raise LinuxError(EPERM)
        if directory:
            if not victim.is_directory:
                raise LinuxError(ENOTDIR)
        elif victim.is_directory:
            raise LinuxError(EISDIR)

    def _new(self, path: str, cwd: Location | None, walk: Walk, directory: bool = False) -> tuple[Location, str]:
        """Where a new name goes, which must be possible."""
        base, last = self._vacant(path, cwd, walk, directory)
        self._may_create(base, walk.who)
        return base, last

    def _vacant(self, path: str, cwd: Location | None, walk: Walk, directory: bool = False) -> tuple[Location, str]:
        """Where a new name would go. Source: fs/namei.c, filename_create()."""
        base, last, slash = self._last(path, cwd, walk)
        if last in ("", ".", ".."):
            self._step(base, last or ".", walk)
            raise LinuxError(EEXIST)
        if self._child(base, last, walk) is not None:
            raise LinuxError(EEXIST)
        if slash and not directory:
            raise LinuxError(ENOENT)
        return base, last

    def mkdir(
        self,
        path: str,
        mode: int,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
    ) -> None:
        """mkdir(2); `mode` without the umask's bits."""
        base, name = self._new(path, cwd, self._walk(root, credentials), True)
        self._added(base, name, base.inode.mkdir(name, mode, credentials))

    def mknod(
        self,
        path: str,
        mode: int,
        rdev: int = 0,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
    ) -> None:
        """mknod(2): regular files, FIFOs and socket names; devices are EPERM."""
        kind = mode & S_IFMT
        if kind == S_IFDIR:
            raise LinuxError(EPERM)
        base, name = self._new(path, cwd, self._walk(root, credentials))
        if kind in (0, S_IFREG):
            self._added(base, name, base.inode.create(name, mode & 0o7777, credentials))
        else:
            self._added(base, name, base.inode.mknod(name, mode, rdev, credentials))

    def mkfifo(
        self,
        path: str,
        mode: int,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
    ) -> None:
        """mkfifo(3)."""
        self.mknod(path, 0o010000 | mode & 0o7777, 0, cwd, root=root, credentials=credentials)

    def symlink(
        self,
        target: str,
        path: str,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
    ) -> None:
        """symlink(2)."""
        if not target:
            raise LinuxError(ENOENT)
        if len(os.fsencode(target)) >= PATH_MAX:
            raise LinuxError(ENAMETOOLONG)
        base, name = self._new(path, cwd, self._walk(root, credentials))
        self._added(base, name, base.inode.symlink(name, target, credentials))

    def link(
        self,
        old: str,
        new: str,
        old_cwd: Location | None = None,
        new_cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
        follow: bool = False,
        empty: bool = False,
    ) -> None:
        """link(2) and linkat(2). EXDEV across mounts, and between a `--rw` directory and what is not in it."""
        source = self.resolve(old, old_cwd, root=root, credentials=credentials, follow=follow, empty=empty)
        base, name = self._vacant(new, new_cwd, self._walk(root, credentials))
        inode = source.inode
        if source.mount is not base.mount:
            raise LinuxError(EXDEV)
        if self.protected_hardlinks and not _linkable_by(inode, credentials):
            raise LinuxError(EPERM, "fs.protected_hardlinks: the file belongs to somebody else")
        self._may_create(base, credentials)
        if inode.is_directory:
            raise LinuxError(EPERM)
        if inode.nlink == 0 and not getattr(inode, "linkable", False):
            raise LinuxError(ENOENT)
        base.inode.link(name, inode)
        self._added(base, name, inode)

    def unlink(
        self,
        path: str,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
    ) -> None:
        """unlink(2)."""
        walk = self._walk(root, credentials)
        base, last, slash = self._last(path, cwd, walk)
        if last in ("", ".", ".."):
            self._step(base, last or ".", walk)
            raise LinuxError(EISDIR)
        victim = self._step(base, last, walk)
        inode = victim.inode
        if slash:
            raise LinuxError(EISDIR if inode.is_directory else ENOTDIR)
        self._may_delete(base, inode, False, credentials)
        self._not_busy(base, victim)
        base.inode.unlink(last, inode)
        self._removed(base, last, victim)

    def rmdir(
        self,
        path: str,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
    ) -> None:
        """rmdir(2)."""
        walk = self._walk(root, credentials)
        base, last, _ = self._last(path, cwd, walk)
        if last in ("", ".", ".."):
            self._step(base, last or ".", walk)
            raise LinuxError({"": EBUSY, ".": EINVAL, "..": ENOTEMPTY}[last])
        victim = self._step(base, last, walk)
        self._may_delete(base, victim.inode, True, credentials)
        self._not_busy(base, victim)
        base.inode.rmdir(last, victim.inode)
        self._removed(base, last, victim)

    def _not_busy(self, base: Location, victim: Location) -> None:
        """EBUSY for what is mounted on, and for a directory handed out with --rw."""
        if victim.mount is not base.mount or victim.dentry.mounted or victim.inode.pinned:
            raise LinuxError(EBUSY)

    def _removed(self, base: Location, name: str, victim: Location) -> None:
        base.dentry.children.pop(name, None)
        victim.dentry.gone = True

    def rename(
        self,
        old: str,
        new: str,
        old_cwd: Location | None = None,
        new_cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
        flags: int = 0,
    ) -> None:
        """rename(2) and renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE. Source: fs/namei.c, do_renameat2()."""
        swap = flags == RENAME_EXCHANGE
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise LinuxError(EINVAL)
        walk = self._walk(root, credentials)
        base, last, slash = self._last(old, old_cwd, walk)
        walk.links = 0
        new_base, new_last, new_slash = self._last(new, new_cwd, walk)
        if base.mount is not new_base.mount:
            raise LinuxError(EXDEV)
        if last in ("", ".", ".."):
            raise LinuxError(EBUSY)
        if new_last in ("", ".", ".."):
            raise LinuxError(EEXIST if flags == RENAME_NOREPLACE else EBUSY)
        source = self._step(base, last, walk)
        target = self._child(new_base, new_last, walk)
        if target is not None and flags == RENAME_NOREPLACE:
            raise LinuxError(EEXIST)
        if swap and target is None:
            raise LinuxError(ENOENT)
        directory = source.inode.is_directory
        if swap and new_slash and target is not None and not target.inode.is_directory:
            raise LinuxError(ENOTDIR)
        if not directory and (slash or (new_slash and not swap)):
            raise LinuxError(ENOTDIR)
        if directory and _within(new_base.dentry, source.dentry):
            raise LinuxError(EINVAL)
        if target is not None and target.inode.is_directory and _within(base.dentry, target.dentry):
            raise LinuxError(EINVAL if swap else ENOTEMPTY)
        if target is not None and target.inode is source.inode:
            return
        self._may_delete(base, source.inode, directory, credentials)
        if target is None:
            self._may_create(new_base, credentials)
        else:
            self._may_delete(new_base, target.inode, target.inode.is_directory if swap else directory, credentials)
            self._not_busy(new_base, target)
        self._not_busy(base, source)
        if directory and base.dentry is not new_base.dentry:
            demand(source.inode, W_OK, credentials)  # its `..` changes
        if swap and target is not None:
            base.inode.exchange(last, source.inode, new_base.inode, new_last, target.inode)
            self._moved(base, last, target.dentry)
            self._moved(new_base, new_last, source.dentry)
            return
        base.inode.rename(last, source.inode, new_base.inode, new_last, target.inode if target else None)
        base.dentry.children.pop(last, None)
        if target is not None:
            target.dentry.gone = True
        self._moved(new_base, new_last, source.dentry)

    def _moved(self, base: Location, name: str, dentry: Dentry) -> None:
        dentry.parent, dentry.name = base.dentry, name
        base.dentry.children[name] = dentry

    # Attributes

    def truncate(
        self,
        path: str,
        size: int,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
    ) -> None:
        """truncate(2)."""
        if size < 0:
            raise LinuxError(EINVAL)
        inode = self.resolve(path, cwd, root=root, credentials=credentials).inode
        if not inode.is_regular:
            raise LinuxError(EISDIR if inode.is_directory else EINVAL)
        demand(inode, W_OK, credentials)
        inode.truncate(size)
        if credentials.fsuid != 0:
            inode.drop_privileges()

    def chmod(
        self,
        path: str,
        mode: int,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
        follow: bool = True,
        empty: bool = False,
    ) -> None:
        """chmod(2), fchmodat(2)."""
        inode = self.resolve(path, cwd, root=root, credentials=credentials, follow=follow, empty=empty).inode
        self.change_mode(inode, mode, credentials)

    def chown(
        self,
        path: str,
        uid: int,
        gid: int,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
        follow: bool = True,
        empty: bool = False,
    ) -> None:
        """chown(2), fchownat(2); -1 keeps one as it is."""
        inode = self.resolve(path, cwd, root=root, credentials=credentials, follow=follow, empty=empty).inode
        self.change_owner(inode, uid, gid, credentials)

    def utimes(
        self,
        path: str,
        times: tuple[int, int] | None,
        cwd: Location | None = None,
        *,
        root: Location | None = None,
        credentials: Identity = ROOT,
        follow: bool = True,
        empty: bool = False,
    ) -> None:
        """utimensat(2); `times` is (access, modification) in ns, NOW or OMIT, or None for now."""
        inode = self.resolve(path, cwd, root=root, credentials=credentials, follow=follow, empty=empty).inode
        self.change_times(inode, times, credentials)

    @staticmethod
    def change_mode(inode: Inode, mode: int, credentials: Identity = ROOT) -> None:
        """fchmod(2): the owner or root; EPERM."""
        if inode.is_symlink:
            raise LinuxError(EOPNOTSUPP)
        if credentials.fsuid not in (0, inode.uid):
            raise LinuxError(EPERM)
        if credentials.fsuid != 0 and not in_group(credentials, inode.gid):
            mode &= ~S_ISGID
        inode.set_mode(mode & 0o7777)

    @staticmethod
    def change_owner(inode: Inode, uid: int, gid: int, credentials: Identity = ROOT) -> None:
        """fchown(2): root, or the owner giving the file to one of their groups; EPERM."""
        if credentials.fsuid != 0:
            own = credentials.fsuid == inode.uid
            if uid >= 0 and not (own and uid == inode.uid):
                raise LinuxError(EPERM)
            if gid >= 0 and not (own and (in_group(credentials, gid) or gid == inode.gid)):
                raise LinuxError(EPERM)
        inode.set_owner(uid, gid)

    @staticmethod
    def change_times(inode: Inode, times: tuple[int, int] | None, credentials: Identity = ROOT) -> None:
        """futimens(3): the owner or root; who may write may set both to now (else EACCES)."""
        atime, mtime = times if times is not None else (NOW, NOW)
        if atime == OMIT and mtime == OMIT:
            return
        if credentials.fsuid not in (0, inode.uid):
            if not atime == mtime == NOW:
                raise LinuxError(EPERM)
            if not may(inode, W_OK, credentials):
                raise LinuxError(EACCES)
        inode.set_times(atime, mtime)

    # Mounts

    def mount(self, path: str, inode: Inode, *, name: str = "tmpfs", magic: int = MEMORY_MAGIC) -> Mount:
        """Hang a tree in at the directory (or file) `path`; ENOENT if there is none."""
        return self.mount_at(self.resolve(path), Dentry(None, "/", inode), name, magic)

    def mount_at(self, place: Location, root: Dentry, name: str, magic: int) -> Mount:
        """Hang in a dentry's tree: a bind mount, if it is part of another one."""
        if place.inode.is_directory != root.inode.is_directory:
            raise LinuxError(ENOTDIR)
        at = place.mount.at
        if at is not None and place.dentry is place.mount.root and isinstance(place.inode, EmptyDirectory):
            place = at  # it was only there to be mounted on
        mount = Mount(root, place, name, magic)
        place.dentry.mounted = True
        self.mounts[place] = mount
        return mount

    def mount_table(self) -> list[tuple[str, str]]:
        """(mount point, file system) of all mounts, the root first."""
        return [("/", self.root.mount.name)] + [(place.path, mount.name) for place, mount in self.mounts.items()]

    # The end of a run

    def sync(self) -> None:
        """Write the dirty pages of shared mappings to their files; to the host's, in directories given with --rw."""
        for system in self.file_systems:
            for reference in list(system.inodes.values()):
                inode = reference()
                if isinstance(inode, RegularFile):
                    inode.sync()

    def discarded(self) -> list[Discarded]:
        """What was changed and is not on the host: (path, bytes, kind), sorted by path."""
        from loadstone.vfs.discard import discarded

        return discarded(self)

    def keep_option(self) -> str:
        """The `--rw DIR` options with which nothing would have been discarded, quoted for a shell; "" if nothing is."""
        from loadstone.vfs.discard import keep_option

        return keep_option(self)


def _linkable_by(inode: Inode, who: Identity) -> bool:
    """Whether fs.protected_hardlinks lets `who` link the file. Source: fs/namei.c, may_linkat()."""
    if who.fsuid in (0, inode.uid):
        return True
    mode = inode.mode
    special = mode & S_ISUID or mode & (S_ISGID | 0o010) == S_ISGID | 0o010
    return inode.is_regular and not special and may(inode, R_OK | W_OK, who)


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


def _within(dentry: Dentry | None, ancestor: Dentry) -> bool:
    """Whether `dentry` is `ancestor` or below it."""
    while dentry is not None:
        if dentry is ancestor:
            return True
        dentry = dentry.parent
    return False
