"""Places in the tree that the guest sees.

As in Linux, a *dentry* is a name in a directory that stands for an inode, and a *location* is a dentry seen through a
mount.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadstone.vfs.inode import Inode

PIPEFS_MAGIC = 0x50495045  # include/uapi/linux/magic.h


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

    @property
    def watched(self) -> bool:
        """Whether somebody wants to know what is done to the file, or in the directory that it is in."""
        parent = self.parent
        return bool(self.inode.watches) or (parent is not None and bool(parent.inode.watches))


class Mount:
    """A tree hung in at a place. `at` None: the namespace's root, or a tree without a place.

    `noexec`: nothing here may be executed, or mapped to be executed.
    """

    __slots__ = ("at", "magic", "name", "noexec", "root")

    def __init__(self, root: Dentry, at: Location | None, name: str, magic: int) -> None:
        self.root = root
        self.at = at
        self.name = name  # the file system's, as /proc/mounts shows it
        self.magic = magic
        self.noexec = False


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
        if self.mount.noexec:
            return True
        dentry: Dentry | None = self.dentry
        while dentry is not None:
            known = dentry.inode.noexec
            if known is not None:
                return known
            dentry = dentry.parent
        return False

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
