"""The private upper layer: what the guest changes is kept in memory, merged over the host's tree, and gone at the end.

A directory's `upper` names what was put over the host's names: an inode, or None for a name that was taken away (a
whiteout). A directory of the host that is renamed keeps its lower directory, so moving a tree moves one name. A file's
contents are copied up, into a memfd, when it is first written; the inode object stays the same, so what is mapped, open
and named goes on being one file.
"""

from __future__ import annotations

from _weakref import ref
from collections.abc import Iterable
from errno import EACCES, EBUSY, EFBIG, EINVAL, ENOENT, ENOTEMPTY, ENXIO, EPERM, EXDEV
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.vfs.file import MAX_OFFSET, DirectoryFile
from loadstone.vfs.flags import (
    NOW,
    OMIT,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    S_ISGID,
    S_ISUID,
    d_type,
)
from loadstone.vfs.inode import Entry, Identity, Inode
from loadstone.vfs.regular import RegularFile
from loadstone.vfs.store import INODE_COST, Budget, Store

if TYPE_CHECKING:
    from weakref import WeakKeyDictionary

    from loadstone.clock import Clock
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.host import HostNode, HostTree
    from loadstone.vfs.location import Location
    from loadstone.vfs.pipe import Pipe, Waker
    from loadstone.vfs.regular import Cache

NEW_INODES = 0xF000_0000  # numbers of files that the host does not have start above this
SHOWN_INODES = 1000  # and those shown of any file on a deterministic machine above this
SHOWN_DEVICE = 0x801


class Key(NamedTuple):
    """What an inode is found by: the host's file, and whether writes go there."""

    device: int
    inode: int
    writable: bool


class Overlay:
    """One file system: a host tree with its upper layer, or (without a tree) memory only."""

    __slots__ = (
        "budget",
        "cache",
        "changed",
        "clock",
        "deterministic",
        "device",
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


class Overlaid(Inode):
    """A file of an Overlay: with attributes of the host until they are changed here."""

    __slots__ = ()

    fs: Overlay
    lower: HostNode | None
    changed: bool

    def begin(self, fs: Overlay, lower: HostNode | None, mode: int) -> None:
        """The common part of construction."""
        # The slots are in the subclasses: RegularFile has its own, and only one such parent can be joined.
        self.fs = fs  # type: ignore[misc]
        self.lower = lower  # type: ignore[misc]
        self.changed = lower is None  # type: ignore[misc]
        now = 0 if lower is not None else fs.now()
        device = fs.device if lower is None or fs.deterministic else lower.stat.st_dev
        Inode.__init__(self, device, fs.number() if lower is None else 0, mode, now_ns=now)

    def owned(self, who: Identity, parent: Inode) -> None:
        """Give a new file its owner; in a set-group-ID directory the directory's group. Source: inode_init_owner()."""
        self.uid = who.fsuid
        self.gid = who.fsgid
        if parent.mode & S_ISGID:
            self.gid = parent.gid
            if self.mode & S_IFMT == S_IFDIR:
                self.mode |= S_ISGID

    def load(self) -> None:
        """Take the attributes from what the host said last."""
        assert self.lower is not None
        stat = self.lower.stat
        self.inode = self.fs.show(stat.st_dev, stat.st_ino)
        self.mode = stat.st_mode
        self.uid, self.gid = stat.st_uid, stat.st_gid
        self.nlink = stat.st_nlink
        self.rdev = stat.st_rdev
        self.size = stat.st_size
        self.blocks = stat.st_blocks
        self.mtime_ns = stat.st_mtime_ns
        if self.fs.deterministic:  # the host changes these behind our back: reading is enough
            self.atime_ns = self.ctime_ns = stat.st_mtime_ns
        else:
            self.atime_ns, self.ctime_ns = stat.st_atime_ns, stat.st_ctime_ns

    @property
    def forgettable(self) -> bool:
        """As long as it is the host's, unchanged."""
        return not self.changed

    @property
    def noexec(self) -> bool | None:
        """As the host's mount says."""
        return self.lower.noexec if self.lower is not None else None

    @property
    def host_path(self) -> str:
        """Where the host has it, whatever was changed about it here."""
        return self.lower.path if self.lower is not None else ""

    def refresh(self) -> None:
        """Ask the host again, unless the attributes are ours by now."""
        if not self.changed and self.lower is not None:
            self.lower.status()
            self.load()

    def alter(self) -> None:
        """The attributes are ours from now on, and this object must live as long as the file system."""
        fs = self.fs
        fs.changed = True
        if not self.changed:
            self.refresh()
            self.changed = True  # type: ignore[misc]
        if self.lower is not None:
            fs.modified[Key(*self.lower.key, False)] = self

    def set_mode(self, mode: int) -> None:
        """Set the twelve permission bits, here only."""
        self.alter()
        self.mode = self.mode & S_IFMT | mode & 0o7777
        self.ctime_ns = self.fs.now()

    def set_owner(self, uid: int, gid: int) -> None:
        """Set owner and group, here only. Not for directories, set-ID bits go, as in chown_common()."""
        self.alter()
        if uid >= 0:
            self.uid = uid
        if gid >= 0:
            self.gid = gid
        if self.mode & S_IFMT != S_IFDIR:
            self.mode &= ~S_ISUID
            if self.mode & 0o010:
                self.mode &= ~S_ISGID
        self.ctime_ns = self.fs.now()

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Set the times, here only."""
        self.alter()
        now = self.fs.now()
        if atime_ns != OMIT:
            self.atime_ns = now if atime_ns == NOW else atime_ns
        if mtime_ns != OMIT:
            self.mtime_ns = now if mtime_ns == NOW else mtime_ns
        self.ctime_ns = now

    def count_links(self, change: int) -> None:
        """One name more or less."""
        self.alter()
        self.nlink += change
        self.ctime_ns = self.fs.now()


class OverlayFile(RegularFile, Overlaid):
    """A regular file: the host's until it is written, then its own."""

    __slots__ = ("changed", "fs", "lower", "store")

    def __init__(self, fs: Overlay, lower: HostNode | None, mode: int) -> None:
        RegularFile.__init__(self, fs.cache, 0, 0, mode)
        self.begin(fs, lower, mode)
        self.store: Store | None = Store(fs.budget) if lower is None else None

    @property
    def writeback(self) -> bool:  # type: ignore[override]
        """As on the file system of the host; what is only in memory is like tmpfs."""
        return self.fs.tree is not None

    @property
    def huge_aligned(self) -> bool:  # type: ignore[override]
        """As the host's file system does, for what came from there."""
        lower, tree = self.lower, self.fs.tree
        return tree is not None and tree.huge_aligned(lower.stat.st_dev if lower is not None else self.device)

    @property
    def forgettable(self) -> bool:
        """As long as it is the host's, unchanged, and not in the page cache."""
        return not self.changed and self.pages is None

    @property
    def host_path(self) -> str:
        """The host's file, until this one has bytes of its own."""
        return self.lower.path if self.lower is not None and self.store is None else ""

    def refresh(self) -> None:
        """Attributes from whoever has the bytes."""
        if self.store is not None:
            self.blocks = self.store.blocks()
        else:
            Overlaid.refresh(self)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it; what the host refuses is refused here and now."""
        if self.store is None:
            self.read_fd()
            self.refresh()
        return RegularFile.open(self, flags, location)

    def read_fd(self) -> int:
        """The memfd, or the host's file."""
        if self.store is not None:
            return self.store.fd()
        assert self.lower is not None
        return self.lower.file_fd()

    def write_fd(self, offset: int, length: int) -> int:
        """The memfd, with room for what is about to come."""
        if self.store is None:
            self.copy_up(self.size)
        assert self.store is not None
        self.store.grow(offset, length)
        return self.store.fd()

    def copy_up(self, size: int) -> None:
        """Make the contents ours: the first `size` bytes of them."""
        self.alter()
        store = Store(self.fs.budget)
        if size:
            store.fill(self.read_fd(), size)
        self.store = store
        self.size = store.size
        if self.lower is not None:
            self.lower.close()

    def written(self, end: int, modified: bool) -> None:
        """Note the new size and time."""
        assert self.store is not None
        if end > self.size:
            self.size = self.store.size = end
        if modified:
            self.mtime_ns = self.ctime_ns = self.fs.now()

    def truncate(self, size: int) -> None:
        """Make it `size` bytes long, copying no more than needed."""
        if size < 0:
            raise LinuxError(EINVAL)
        if size > MAX_OFFSET:
            raise LinuxError(EFBIG)
        if self.store is None:
            self.copy_up(min(size, self.size))
        assert self.store is not None
        shrinks = size < self.size
        self.store.set_size(size)
        self.size = size
        if shrinks or self.pages is not None:
            self.cut(size)
        self.mtime_ns = self.ctime_ns = self.fs.now()


def _cost_of_name(inode: Inode) -> int:
    """What a name in memory counts as; a symbolic link's text is in memory too."""
    return INODE_COST + (inode.size if inode.is_symlink else 0)


class OverlaySymlink(Overlaid):
    """A symbolic link."""

    __slots__ = ("changed", "fs", "lower", "text")

    def __init__(self, fs: Overlay, lower: HostNode | None, mode: int, text: str | None) -> None:
        self.begin(fs, lower, mode)
        self.text = text
        if text is not None:
            self.size = len(text.encode("utf-8", "surrogateescape"))

    def readlink(self) -> str:
        """The text; the host is asked once."""
        if self.text is None:
            assert self.lower is not None
            self.text = self.lower.readlink()
        return self.text


class OverlaySpecial(Overlaid):
    """A FIFO, socket or device of the host, which is never opened; or a socket that the guest made."""

    __slots__ = ("changed", "fs", "lower")

    def __init__(self, fs: Overlay, lower: HostNode | None, mode: int) -> None:
        self.begin(fs, lower, mode)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Refuse: ENXIO for a socket, as Linux does; EACCES for what Linux would open."""
        if self.mode & S_IFMT == S_IFSOCK:
            raise LinuxError(ENXIO, "a socket cannot be opened by name")
        kind = "FIFO" if self.mode & S_IFMT == S_IFIFO else "device"
        raise LinuxError(EACCES, f"this {kind} belongs to the host, and Loadstone does not open the host's")


class OverlayFifo(Overlaid):
    """A FIFO that the guest made."""

    __slots__ = ("changed", "fs", "lower", "pipe")

    def __init__(self, fs: Overlay, mode: int) -> None:
        self.begin(fs, None, mode)
        self.pipe: Pipe | None = None

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open one end, or both."""
        from loadstone.vfs.pipe import Pipe, PipeFile, no_waker

        if self.pipe is None:
            self.pipe = Pipe(self.fs.wake or no_waker, f"fifo:[{self.inode}]")
        return PipeFile(self, flags, location, self.pipe)


class OverlayDirectory(Overlaid):
    """A directory: the host's names, under ours."""

    __slots__ = ("changed", "fs", "lower", "upper")

    def __init__(self, fs: Overlay, lower: HostNode | None, mode: int) -> None:
        self.begin(fs, lower, mode)
        self.upper: dict[str, Inode | None] = {}
        if lower is None:
            self.size = 4096
            self.blocks = 8

    def lookup(self, name: str) -> Inode:
        """Ours first, then the host's."""
        upper = self.upper
        if name in upper:
            found = upper[name]
            if found is None:
                raise LinuxError(ENOENT)
            return found
        if self.lower is None:
            raise LinuxError(ENOENT)
        return self.fs.inode_for(self.lower.lookup(name), False)

    def entries(self) -> list[Entry]:
        """Host order, then ours in the order of creation; sorted by name on a deterministic machine."""
        names: list[Entry] = []
        upper = self.upper
        if self.lower is not None:
            device, fs = self.lower.stat.st_dev, self.fs
            names = [(name, number, kind) for name, number, kind in self.lower.names() if name not in upper]
            if fs.deterministic:
                names.sort()
                names = [(name, fs.show(device, number), kind) for name, number, kind in names]
        names += [(name, one.inode, d_type(one.mode)) for name, one in upper.items() if one is not None]
        if self.fs.deterministic:
            names.sort()
        return names

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names."""
        return DirectoryFile(self, flags, location)

    def _put(self, name: str, inode: Inode) -> None:
        """A new name here. A directory that was removed takes none."""
        if self.nlink == 0:
            raise LinuxError(ENOENT)
        known = self.upper.get(name)
        self.fs.budget.take(_cost_of_name(inode) - (_cost_of_name(known) if known is not None else 0))
        self.alter()
        self.upper[name] = inode
        self.mtime_ns = self.ctime_ns = self.fs.now()

    def _take(self, name: str) -> None:
        """A name less: covered if the host has it."""
        self.alter()
        known = self.upper.pop(name, None)
        if known is not None:
            self.fs.budget.take(-_cost_of_name(known))
        if self.lower is not None:
            try:
                self.lower.lookup(name)
                self.upper[name] = None
            except LinuxError:
                pass
        self.mtime_ns = self.ctime_ns = self.fs.now()

    def _subdirectories(self, change: int) -> None:
        """Count `..` links, on file systems that do (elsewhere a directory has nlink 1)."""
        if change:
            self.alter()
            if self.nlink >= 2:
                self.nlink += change

    def _new(self, name: str, made: Overlaid, who: Identity) -> Inode:
        made.owned(who, self)
        self._put(name, made)
        return made

    def create(self, name: str, mode: int, who: Identity) -> Inode:
        """An empty regular file, in memory."""
        return self._new(name, OverlayFile(self.fs, None, S_IFREG | mode & 0o7777), who)

    def temporary(self, mode: int, who: Identity) -> Inode:
        """A regular file without a name, in memory."""
        made = OverlayFile(self.fs, None, S_IFREG | mode & 0o7777)
        made.owned(who, self)
        made.nlink = 0
        return made

    def mkdir(self, name: str, mode: int, who: Identity) -> Inode:
        """An empty directory, in memory."""
        made = self._new(name, OverlayDirectory(self.fs, None, S_IFDIR | mode & 0o1777), who)
        self._subdirectories(1)
        return made

    def symlink(self, name: str, target: str, who: Identity) -> Inode:
        """A symbolic link, in memory."""
        return self._new(name, OverlaySymlink(self.fs, None, S_IFLNK | 0o777, target), who)

    def mknod(self, name: str, mode: int, rdev: int, who: Identity) -> Inode:
        """A FIFO or a socket's name, in memory."""
        kind = mode & S_IFMT
        if kind == S_IFIFO:
            return self._new(name, OverlayFifo(self.fs, S_IFIFO | mode & 0o7777), who)
        if kind == S_IFSOCK:
            return self._new(name, OverlaySpecial(self.fs, None, S_IFSOCK | mode & 0o7777), who)
        raise LinuxError(EPERM, "a guest makes no devices")

    def link(self, name: str, inode: Inode) -> None:
        """Another name for one of this overlay's files."""
        if not isinstance(inode, Overlaid) or inode.fs is not self.fs:
            raise LinuxError(EXDEV)
        self._put(name, inode)
        inode.count_links(1)

    def unlink(self, name: str, inode: Inode) -> None:
        """Take a name away; the host keeps its file."""
        self._take(name)
        if isinstance(inode, Overlaid):
            inode.count_links(-1)

    def rmdir(self, name: str, inode: Inode) -> None:
        """Remove an empty directory."""
        self._empty(inode)
        self._take(name)
        self._subdirectories(-1)
        inode.nlink = 0

    def _empty(self, inode: Inode) -> None:
        if not isinstance(inode, OverlayDirectory):
            raise LinuxError(EBUSY)
        if inode.entries():
            raise LinuxError(ENOTEMPTY)
        inode.alter()

    def rename(self, name: str, inode: Inode, target: Inode, new_name: str, replaced: Inode | None) -> None:
        """Move a name; a directory takes its lower directory with it."""
        if not isinstance(target, OverlayDirectory) or target.fs is not self.fs or not isinstance(inode, Overlaid):
            raise LinuxError(EXDEV)
        if target.nlink == 0:
            raise LinuxError(ENOENT)
        moves = 1 if inode.is_directory else 0
        if self.upper.get(name) is None:  # a name of the host's costs nothing until it moves
            self.fs.budget.demand(_cost_of_name(inode))
        if replaced is not None:
            if replaced.is_directory:
                self._empty(replaced)
                replaced.nlink = 0
                target._subdirectories(-1)
            elif isinstance(replaced, Overlaid):
                replaced.count_links(-1)
        inode.alter()
        self._take(name)
        target._put(new_name, inode)
        self._subdirectories(-moves)
        target._subdirectories(moves)
        inode.ctime_ns = self.fs.now()

    def exchange(self, name: str, inode: Inode, target: Inode, new_name: str, other: Inode) -> None:
        """Two names change places."""
        if not isinstance(target, OverlayDirectory) or target.fs is not self.fs:
            raise LinuxError(EXDEV)
        if not isinstance(inode, Overlaid) or not isinstance(other, Overlaid):
            raise LinuxError(EXDEV)
        self.fs.budget.demand(_cost_of_name(inode) + _cost_of_name(other))
        for one in (inode, other):
            one.alter()
        self._put(name, other)
        target._put(new_name, inode)
        moves = int(inode.is_directory) - int(other.is_directory)
        self._subdirectories(-moves)
        target._subdirectories(moves)
        inode.ctime_ns = other.ctime_ns = self.fs.now()
