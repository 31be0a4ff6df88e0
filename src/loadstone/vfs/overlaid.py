"""What the files of an overlay have in common: attributes that are the host's until they are changed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.vfs.flags import NOW, OMIT, S_IFDIR, S_IFMT, S_ISGID, S_ISUID
from loadstone.vfs.inode import Identity, Inode, access_time

if TYPE_CHECKING:
    from loadstone.vfs.host import HostNode
    from loadstone.vfs.overlay import Overlay


class Key(NamedTuple):
    """What an inode is found by: the host's file, and whether writes go there."""

    device: int
    inode: int
    writable: bool


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
        if lower is None:
            self.notes_access, self.born_ns = True, now
            fs.born(self)

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
            self.changed = self.notes_access = True  # type: ignore[misc]
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

    def accessed(self, relative: bool) -> None:
        """Set the access time of a file whose attributes are ours; the host's stay, as below any overlay."""
        self.atime_ns = access_time(self, relative, self.fs.now())

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
