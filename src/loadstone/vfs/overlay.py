"""The private upper layer: what the guest changes is in memory, merged over the host's tree, and gone at the end."""

from __future__ import annotations

from _weakref import ref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loadstone.vfs.flags import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from loadstone.vfs.inode import Inode
from loadstone.vfs.overlaid import Key, Overlaid
from loadstone.vfs.overlay_directory import OverlayDirectory
from loadstone.vfs.overlay_files import OverlayFile, OverlaySpecial, OverlaySymlink

if TYPE_CHECKING:
    from weakref import WeakKeyDictionary

    from loadstone.clock import Clock
    from loadstone.vfs.devices import Opener
    from loadstone.vfs.host import HostNode, HostTree
    from loadstone.vfs.pipe import Waker
    from loadstone.vfs.regular import Cache
    from loadstone.vfs.store import Budget

NEW_INODES = 0xF000_0000  # numbers of files that the host does not have start above this
SHOWN_INODES = 1000  # and those shown of any file on a deterministic machine above this
SHOWN_DEVICE = 0x801


class Overlay:
    """One file system: a host tree with its upper layer, or (without a tree) memory only."""

    __slots__ = (
        "budget",
        "cache",
        "changed",
        "clock",
        "deterministic",
        "device",
        "devices",
        "extended",
        "given",
        "inodes",
        "last_number",
        "modified",
        "root",
        "shown",
        "tree",
        "wake",
        "writable_roots",
    )

    def __init__(
        self,
        tree: HostTree | None,
        cache: Cache | None,
        clock: Clock,
        budget: Budget,
        *,
        device: int = 0,
        deterministic: bool = False,
        wake: Waker | None = None,
        writable_roots: Iterable[tuple[int, int]] = (),
    ) -> None:
        self.tree = tree
        self.cache = cache
        self.clock = clock
        self.budget = budget
        self.deterministic = deterministic
        self.wake = wake
        self.devices: Opener | None = None  # opens device nodes that the guest made
        self.inodes: dict[Key, ref[Inode]] = {}
        self.modified: dict[Key, Inode] = {}  # kept alive: nothing else might hold what was changed in them
        self.shown: dict[tuple[int, int], int] = {}
        self.last_number = NEW_INODES
        self.writable_roots = frozenset(writable_roots)  # directories of the host that were handed over
        self.given: set[int] = set()  # inode numbers of what was put here before the guest ran
        self.changed = False  # whether the upper layer has anything at all
        self.extended: WeakKeyDictionary[Inode, dict[str, bytes]] | None = None  # attributes that were set here
        if tree is None:
            self.device = device
            self.root: Inode = OverlayDirectory(self, None, S_IFDIR | 0o755)
        else:
            self.device = SHOWN_DEVICE if deterministic else tree.root.stat.st_dev
            self.root = self.inode_for(tree.root, False)

    def now(self) -> int:
        """The time for a timestamp, ns since 1970."""
        return self.clock.realtime_ns()

    def number(self) -> int:
        """A number for a new inode."""
        self.last_number += 1
        return self.last_number

    def born(self, inode: Inode) -> None:
        """An inode was made that the host does not have; a file system with a limit may refuse it."""

    def show(self, device: int, inode: int) -> int:
        """The inode number that the guest sees for a file of the host."""
        if not self.deterministic:
            return inode
        return self.shown.setdefault((device, inode), SHOWN_INODES + len(self.shown))

    def inode_for(self, node: HostNode, parent_writable: bool) -> Inode:
        """The one inode object of a file of the host."""
        stat = node.stat
        writable = parent_writable or (bool(self.writable_roots) and node.key in self.writable_roots)
        key = Key(stat.st_dev, stat.st_ino, writable)
        known = self.inodes.get(key)
        inode = known() if known is not None else None
        if inode is not None and not (inode.mode ^ stat.st_mode) & S_IFMT:
            if writable:
                from loadstone.vfs.passthrough import seen_again

                seen_again(inode, node)
            return inode
        inode = self._make_writable(node, parent_writable) if writable else self._make(node)
        self.inodes[key] = ref(inode)
        return inode

    def _make(self, node: HostNode) -> Inode:
        mode = node.stat.st_mode
        kind = mode & S_IFMT
        made: Overlaid
        if kind == S_IFREG:
            made = OverlayFile(self, node, mode)
        elif kind == S_IFDIR:
            made = OverlayDirectory(self, node, mode)
        elif kind == S_IFLNK:
            made = OverlaySymlink(self, node, mode, None)
        else:
            made = OverlaySpecial(self, node, mode)
        made.load()
        return made

    def _make_writable(self, node: HostNode, parent_writable: bool) -> Inode:
        from loadstone.vfs.passthrough import make

        return make(self, node, pinned=not parent_writable)

    def forget(self, device: int, inode: int, writable: bool) -> None:
        """A host file is gone for good; its number may come back as another file."""
        self.inodes.pop(Key(device, inode, writable), None)
