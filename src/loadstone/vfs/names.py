"""Making, moving and removing names. Rules and order of checks: fs/namei.c."""

from __future__ import annotations

import os
from errno import EBUSY, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EXDEV
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.vfs.flags import (
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
    W_OK,
    X_OK,
)
from loadstone.vfs.inode import CAP_FOWNER, demand, may
from loadstone.vfs.location import Dentry, Location, is_within
from loadstone.vfs.namespace import TOP, Namespace, Origin, Walk
from loadstone.vfs.regular import RegularFile

if TYPE_CHECKING:
    from loadstone.vfs.inode import Identity, Inode


class Move(NamedTuple):
    """A rename: `source`, called `name` in `base`, becomes `new_name` in `new_base`, where `target` is now, if it is.

    `swap`: the two change places.
    """

    base: Location
    name: str
    source: Location
    new_base: Location
    new_name: str
    target: Location | None
    swap: bool


class Names(Namespace):
    """A namespace whose names can be changed.

    Attributes:
        protected_hardlinks: the sysctl fs.protected_hardlinks.
        moves: how many renames somebody was told of; ties the two events of one together.
    """

    protected_hardlinks = True
    moves = 0

    def _added(self, base: Location, name: str, inode: Inode, *, linked: bool = False) -> Location:
        child = Dentry(base.dentry, name, inode)
        if base.inode.cacheable:
            base.dentry.children[name] = child
        if child.watched:
            from loadstone.vfs.watches import tell_created, tell_linked

            (tell_linked if linked else tell_created)(base.inode, name, inode)
        return Location(base.mount, child)

    def _may_create(self, base: Location, who: Identity) -> None:
        if base.dentry.gone or base.inode.nlink == 0:
            raise LinuxError(ENOENT)
        demand(base.inode, W_OK | X_OK, who)

    def _may_delete(self, base: Location, victim: Inode, directory: bool, who: Identity) -> None:
        """Source: fs/namei.c, may_delete()."""
        parent = base.inode
        demand(parent, W_OK | X_OK, who)
        if parent.mode & S_ISVTX and who.fsuid not in (0, victim.uid, parent.uid) and not who.rules(victim, CAP_FOWNER):
            raise LinuxError(EPERM)
        if directory:
            if not victim.is_directory:
                raise LinuxError(ENOTDIR)
        elif victim.is_directory:
            raise LinuxError(EISDIR)

    def _new(self, path: str, walk: Walk, directory: bool = False) -> tuple[Location, str]:
        """Where a new name goes, which must be possible."""
        base, last = self._vacant(path, walk, directory)
        self._may_create(base, walk.who)
        return base, last

    def _vacant(self, path: str, walk: Walk, directory: bool = False) -> tuple[Location, str]:
        """Where a new name would go. Source: fs/namei.c, filename_create()."""
        base, last, slash = self._last(path, walk)
        if last in ("", ".", ".."):
            self._step(base, last or ".", walk)
            raise LinuxError(EEXIST)
        if self._child(base, last, walk) is not None:
            raise LinuxError(EEXIST)
        if slash and not directory:
            raise LinuxError(ENOENT)
        base.demand_writable()
        return base, last

    def mkdir(self, path: str, mode: int, origin: Origin = TOP) -> None:
        """mkdir(2); `mode` without the umask's bits."""
        base, name = self._new(path, self._walk(origin), True)
        self._added(base, name, base.inode.mkdir(name, mode, origin.who))

    def mknod(self, path: str, mode: int, rdev: int = 0, origin: Origin = TOP) -> None:
        """mknod(2): regular files, FIFOs and socket names; devices are EPERM."""
        kind = mode & S_IFMT
        if kind == S_IFDIR:
            raise LinuxError(EPERM)
        base, name = self._new(path, self._walk(origin))
        if kind in (0, S_IFREG):
            self._added(base, name, base.inode.create(name, mode & 0o7777, origin.who))
        else:
            self._added(base, name, base.inode.mknod(name, mode, rdev, origin.who))

    def symlink(self, target: str, path: str, origin: Origin = TOP) -> None:
        """symlink(2)."""
        if not target:
            raise LinuxError(ENOENT)
        if len(os.fsencode(target)) >= PATH_MAX:
            raise LinuxError(ENAMETOOLONG)
        base, name = self._new(path, self._walk(origin))
        self._added(base, name, base.inode.symlink(name, target, origin.who))

    def link(
        self,
        old: str,
        new: str,
        origin: Origin = TOP,
        new_origin: Origin = TOP,
        *,
        follow: bool = False,
        empty: bool = False,
    ) -> None:
        """link(2) and linkat(2). EXDEV across mounts, and between a `--rw` directory and what is not in it."""
        source = self.resolve(old, origin, follow=follow, empty=empty)
        base, name = self._vacant(new, self._walk(new_origin))
        inode = source.inode
        if source.mount is not base.mount:
            raise LinuxError(EXDEV)
        if self.protected_hardlinks and not _linkable_by(inode, origin.who):
            raise LinuxError(EPERM, "fs.protected_hardlinks: the file belongs to somebody else")
        self._may_create(base, origin.who)
        if inode.is_directory:
            raise LinuxError(EPERM)
        if inode.nlink == 0 and not (isinstance(inode, RegularFile) and inode.linkable):
            raise LinuxError(ENOENT)
        base.inode.link(name, inode)
        self._added(base, name, inode, linked=True)

    def unlink(self, path: str, origin: Origin = TOP) -> None:
        """unlink(2)."""
        walk = self._walk(origin)
        base, last, slash = self._last(path, walk)
        if last in ("", ".", ".."):
            self._step(base, last or ".", walk)
            raise LinuxError(EISDIR)
        base.demand_writable()
        victim = self._step(base, last, walk)
        inode = victim.inode
        if slash:
            raise LinuxError(EISDIR if inode.is_directory else ENOTDIR)
        self._may_delete(base, inode, False, origin.who)
        self._not_busy(base, victim)
        base.inode.unlink(last, inode)
        self._removed(base, last, victim)

    def rmdir(self, path: str, origin: Origin = TOP) -> None:
        """rmdir(2)."""
        walk = self._walk(origin)
        base, last, _ = self._last(path, walk)
        if last in ("", ".", ".."):
            self._step(base, last or ".", walk)
            raise LinuxError({"": EBUSY, ".": EINVAL, "..": ENOTEMPTY}[last])
        base.demand_writable()
        victim = self._step(base, last, walk)
        self._may_delete(base, victim.inode, True, origin.who)
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
        if victim.dentry.watched:
            from loadstone.vfs.watches import tell_removed

            tell_removed(base.inode, name, victim.inode)

    def rename(self, old: str, new: str, origin: Origin = TOP, new_origin: Origin = TOP, *, flags: int = 0) -> None:
        """rename(2) and renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE. Source: fs/namei.c, do_renameat2()."""
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise LinuxError(EINVAL)
        move = self._move(old, new, self._walk(origin), self._walk(new_origin), flags)
        if move.target is not None and move.target.inode is move.source.inode:
            return
        self._demand_permission(move, origin.who)
        if move.swap and move.target is not None:
            self._exchange(move, move.target)
        else:
            self._replace(move)

    def _move(self, old: str, new: str, walk: Walk, new_walk: Walk, flags: int) -> Move:
        """Where a rename leads, as far as names and kinds of files do not forbid it."""
        base, last, slash = self._last(old, walk)
        new_base, new_last, new_slash = self._last(new, new_walk)
        if base.mount is not new_base.mount:
            raise LinuxError(EXDEV)
        if last in ("", ".", ".."):
            raise LinuxError(EBUSY)
        if new_last in ("", ".", ".."):
            raise LinuxError(EEXIST if flags == RENAME_NOREPLACE else EBUSY)
        base.demand_writable()
        source = self._step(base, last, walk)
        target = self._child(new_base, new_last, new_walk)
        swap = flags == RENAME_EXCHANGE
        if target is not None and flags == RENAME_NOREPLACE:
            raise LinuxError(EEXIST)
        if target is None and swap:
            raise LinuxError(ENOENT)
        _demand_directories(source, slash, target, new_slash, swap)
        if source.inode.is_directory and is_within(new_base.dentry, source.dentry):
            raise LinuxError(EINVAL)
        if target is not None and target.inode.is_directory and is_within(base.dentry, target.dentry):
            raise LinuxError(EINVAL if swap else ENOTEMPTY)
        return Move(base, last, source, new_base, new_last, target, swap)

    def _demand_permission(self, move: Move, who: Identity) -> None:
        """Whether `who` may rename (vfs_rename)."""
        directory = move.source.inode.is_directory
        self._may_delete(move.base, move.source.inode, directory, who)
        if move.target is None:
            self._may_create(move.new_base, who)
        else:
            kind = move.target.inode.is_directory if move.swap else directory
            self._may_delete(move.new_base, move.target.inode, kind, who)
            self._not_busy(move.new_base, move.target)
        self._not_busy(move.base, move.source)
        if directory and move.base.dentry is not move.new_base.dentry:
            demand(move.source.inode, W_OK, who)  # its `..` changes

    def _exchange(self, move: Move, target: Location) -> None:
        base, name, source, new_base, new_name, _, _ = move
        base.inode.exchange(name, source.inode, new_base.inode, new_name, target.inode)
        self._moved(base, name, target.dentry)
        self._moved(new_base, new_name, source.dentry)
        self._tell_moved(base, name, new_base, new_name, source.inode, None)
        self._tell_moved(new_base, new_name, base, name, target.inode, None)

    def _replace(self, move: Move) -> None:
        base, name, source, new_base, new_name, target, _ = move
        replaced = target.inode if target is not None else None
        base.inode.rename(name, source.inode, new_base.inode, new_name, replaced)
        base.dentry.children.pop(name, None)
        if target is not None:
            target.dentry.gone = True
        self._moved(new_base, new_name, source.dentry)
        self._tell_moved(base, name, new_base, new_name, source.inode, replaced)

    def _tell_moved(
        self, base: Location, name: str, new_base: Location, new_name: str, inode: Inode, replaced: Inode | None
    ) -> None:
        if base.inode.watches or new_base.inode.watches or inode.watches or (replaced and replaced.watches):
            from loadstone.vfs.watches import tell_moved

            self.moves += 1
            tell_moved(base.inode, name, new_base.inode, new_name, inode, replaced, self.moves)

    def _moved(self, base: Location, name: str, dentry: Dentry) -> None:
        dentry.parent, dentry.name = base.dentry, name
        base.dentry.children[name] = dentry


def _linkable_by(inode: Inode, who: Identity) -> bool:
    """Whether fs.protected_hardlinks lets `who` link the file. Source: fs/namei.c, may_linkat()."""
    if who.fsuid in (0, inode.uid) or who.rules(inode, CAP_FOWNER):
        return True
    mode = inode.mode
    special = mode & S_ISUID or mode & (S_ISGID | 0o010) == S_ISGID | 0o010
    return inode.is_regular and not special and may(inode, R_OK | W_OK, who)


def _demand_directories(source: Location, slash: bool, target: Location | None, new_slash: bool, swap: bool) -> None:
    """ENOTDIR for a slash behind what is no directory; exchanged, each name keeps the slash of its own."""
    if swap and new_slash and target is not None and not target.inode.is_directory:
        raise LinuxError(ENOTDIR)
    if not source.inode.is_directory and (slash or (new_slash and not swap)):
        raise LinuxError(ENOTDIR)
