"""Places in the tree that the guest sees.

As in Linux, a *dentry* is a name in a directory that stands for an inode, and a *location* is a dentry seen through a
mount.
"""

from __future__ import annotations

from errno import EROFS
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.vfs.discard import Space
    from loadstone.vfs.inode import Inode

PIPEFS_MAGIC = 0x50495045  # include/uapi/linux/magic.h
# include/linux/mount.h
MNT_NOSUID, MNT_NODEV, MNT_NOEXEC, MNT_NOATIME, MNT_NODIRATIME = 1, 2, 4, 8, 16
MNT_RELATIME, MNT_READONLY, MNT_NOSYMFOLLOW = 0x20, 0x40, 0x80


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

    def mount_on(self) -> None:
        """Something is mounted here: names lead here from now on, in directories too that remember none."""
        self.mounted = True
        dentry = self
        while dentry.parent is not None and not dentry.gone:
            dentry.parent.children[dentry.name] = dentry
            dentry = dentry.parent

    @property
    def watched(self) -> bool:
        """Whether somebody wants to know what is done to the file, or in the directory that it is in."""
        parent = self.parent
        return bool(self.inode.watches) or (parent is not None and bool(parent.inode.watches))


class Superblock:
    """One file system, however often it is mounted.

    Attributes:
        kind, magic: its type's name, and the number that statfs(2) shows.
        root: its topmost dentry that can be seen; a bind mount shows another one.
        mounts: how many there are of it in the tree.
        noexec: nothing in it may be executed, whatever the mounts say.
        read_only: nothing in it may be changed through any of its mounts.
        options: its own mount options as /proc/mounts shows them behind `rw`, with a comma before each.
        space: what statfs(2) shows; None for what the machine's overlay has.
        sync: write what is not yet on its device; None where there is none.
        release: what is to be done when its last mount is gone; None for nothing.
        set_read_only: be told that `read_only` changes; None if nobody needs to be.
        reconfigure: take other options (MS_REMOUNT with data); None if it has none that could change.
    """

    __slots__ = (
        "kind", "magic", "mounts", "noexec", "options", "read_only", "reconfigure", "release", "root",
        "set_read_only", "space", "sync",
    )  # fmt: skip

    def __init__(self, kind: str, magic: int, root: Dentry) -> None:
        self.kind = kind
        self.magic = magic
        self.root = root
        self.mounts = 0
        self.read_only = self.noexec = False
        self.options: Callable[[], str] = str
        self.space: Callable[[], Space] | None = None
        self.sync: Callable[[], None] | None = None
        self.release: Callable[[], None] | None = None
        self.set_read_only: Callable[[bool], None] | None = None
        self.reconfigure: Callable[[str], None] | None = None


class Mount:
    """A tree hung in at a place. `at` None: the namespace's root, or a tree without a place.

    Attributes:
        superblock: the file system, or part of one, whose tree it is.
        source: what was mounted, as /proc/mounts shows it: a device's path, or any word.
        flags: MNT_* of what is forbidden here, or done about access times.
        number: its place in the order of mounting; the namespace gives it.
        group, master: the peer group it belongs to and the one it follows, 0 for none; `unbindable`.
        locked: it came along into the mount namespace of a user namespace, where it covers what is to stay covered.
        expiring: nobody has been here since umount2(MNT_EXPIRE) asked.
    """

    __slots__ = (
        "at", "expiring", "flags", "group", "locked", "master", "number", "root", "source", "superblock", "unbindable",
    )  # fmt: skip

    def __init__(
        self, root: Dentry, at: Location | None, name: str, magic: int, superblock: Superblock | None = None
    ) -> None:
        self.root = root
        self.at = at
        self.superblock = superblock or Superblock(name, magic, root)
        self.source = name
        self.flags = MNT_RELATIME
        self.number = 0
        self.group = self.master = 0
        self.unbindable = self.expiring = self.locked = False

    @property
    def read_only(self) -> bool:
        """Whether nothing may be changed here: through this mount, or at all."""
        return bool(self.flags & MNT_READONLY) or self.superblock.read_only

    def clone(self, root: Dentry, at: Location | None) -> Mount:
        """Another mount of the same file system, of the tree below `root`: a bind mount. Source: clone_mnt()."""
        made = Mount(root, at, "", 0, self.superblock)
        made.source, made.flags, made.group, made.master = self.source, self.flags, self.group, self.master
        return made


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
    def noexec(self) -> bool:
        """Whether a mount option, here or on the host, forbids execution. Source: fs/exec.c, path_noexec()."""
        if self.mount.flags & MNT_NOEXEC or self.mount.superblock.noexec:
            return True
        dentry: Dentry | None = self.dentry
        while dentry is not None:
            known = dentry.inode.noexec
            if known is not None:
                return known
            dentry = dentry.parent
        return False

    @property
    def read_only(self) -> bool:
        """Whether the mount or its file system takes no changes. Source: fs/namespace.c, mnt_is_readonly()."""
        return bool(self.mount.flags & MNT_READONLY) or self.mount.superblock.read_only

    def demand_writable(self) -> None:
        """EROFS where nothing may be changed. Source: fs/namespace.c, mnt_want_write()."""
        if self.read_only:
            raise LinuxError(EROFS, f"{self.path} is mounted read-only")

    def accessed(self) -> None:
        """What is here was read: note the time, as the mount's options want it. Source: fs/inode.c, touch_atime()."""
        inode, flags = self.dentry.inode, self.mount.flags
        if not inode.notes_access or flags & MNT_NOATIME or self.read_only:
            return
        if not (flags & MNT_NODIRATIME and inode.is_directory):
            inode.accessed(bool(flags & MNT_RELATIME))

    def tell(self, mask: int) -> None:
        """Tell who watches the file of IN_* events that came through its name."""
        if self.dentry.watched:
            from loadstone.vfs.watches import tell_place

            tell_place(self.dentry, mask)

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


class Unplaced(Location):
    """A place outside the tree, for an open file that has none: where a magic link to a pipe or stream leads."""

    __slots__ = ("text",)

    def __init__(self, inode: Inode, shown: str) -> None:
        root = Dentry(None, "/", inode)
        super().__init__(Mount(root, None, "pipefs", PIPEFS_MAGIC), root)
        self.text = shown

    @property
    def path(self) -> str:
        """What /proc/self/fd/N reads."""
        return self.text


def is_within(dentry: Dentry | None, ancestor: Dentry) -> bool:
    """Whether `dentry` is `ancestor` or below it."""
    while dentry is not None:
        if dentry is ancestor:
            return True
        dentry = dentry.parent
    return False
