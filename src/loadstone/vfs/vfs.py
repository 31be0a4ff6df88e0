"""Everything that takes a path but what changes names (`names`): looking, opening. Rules: fs/namei.c."""

from __future__ import annotations

import os
from errno import EACCES, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, EPERM
from typing import TYPE_CHECKING

from loadstone.clock import Clock
from loadstone.errors import LinuxError
from loadstone.vfs.flags import (
    IN_MODIFY,
    IN_OPEN,
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOATIME,
    O_NOFOLLOW,
    O_PATH,
    O_TRUNC,
    R_OK,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    TMPFILE_BIT,
    W_OK,
    X_OK,
)
from loadstone.vfs.inode import ROOT, Identity, Inode, demand
from loadstone.vfs.location import MNT_NODEV, Dentry, Location, Mount, Unplaced
from loadstone.vfs.names import Names
from loadstone.vfs.namespace import MEMORY_MAGIC, OVERLAY_MAGIC, TOP, Origin, Walk
from loadstone.vfs.open_files import PathFile, RegularOpen
from loadstone.vfs.overlay import Overlay
from loadstone.vfs.regular import RegularFile
from loadstone.vfs.store import Budget

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.vfs.devpts import ProcessSide, Terminals
    from loadstone.vfs.discard import Discarded, Space
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Superblock
    from loadstone.vfs.locks import LockTable
    from loadstone.vfs.loop import LoopDevices
    from loadstone.vfs.pipe import Waker
    from loadstone.vfs.pty import Pty
    from loadstone.vfs.regular import Cache
    from loadstone.vfs.socket_space import SocketSpace

DEFAULT_LIMIT = 1 << 30
ANONYMOUS_DEVICE = 14


class Vfs(Names):
    """A namespace and the operations on its paths. See the package's docstring for how its methods are called."""

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
        super().__init__(root, name, magic)
        self.page_cache = page_cache
        self.clock = clock or Clock()
        self.budget = budget or Budget(DEFAULT_LIMIT, 256)
        self.wake_up: Waker = lambda woken: None
        self.mounts.wake = self.wake
        self._locks: LockTable | None = None
        self._sockets: SocketSpace | None = None
        self._terminals: Terminals | None = None
        self._loops: LoopDevices | None = None
        self.process_side: Callable[[], ProcessSide] | None = None  # makes what terminals need of processes
        # Files without a name: memfds.
        self.memory = Overlay(None, page_cache, self.clock, self.budget, device=1)
        nowhere = Mount(Dentry(None, "/", self.memory.root), None, "tmpfs", MEMORY_MAGIC)
        self._nowhere = Location(nowhere, nowhere.root)
        self.deterministic = False  # what is shown does not depend on the host
        self._last_pipe = 10_000
        self.file_systems = [self.memory]
        self.memory.devices, self.memory.wake = self.open_device, self.wake
        self.single: dict[str, Superblock] = {}  # the file systems of which a machine has one, by kind

    def close(self) -> None:
        """Give the host its descriptors back; no file may be used afterwards."""
        for fs in self.file_systems:
            if fs.tree is not None:
                fs.tree.close()
        if self._locks is not None:
            self._locks.clear()
        self.budget.close()

    def hide(self, fd: int) -> None:
        """Keep the file behind one of our descriptors from the guest, under all its names on the host."""
        status = os.fstat(fd)
        if status.st_mode & S_IFMT == S_IFREG:
            for fs in self.file_systems:
                if fs.tree is not None:
                    fs.tree.own.add((status.st_dev, status.st_ino))

    def wake(self, woken: list[object]) -> None:
        """Hand waiters to whoever makes them run."""
        self.wake_up(woken)

    @property
    def locks(self) -> LockTable:
        """The file locks of the machine."""
        if self._locks is None:
            from loadstone.vfs.locks import LockTable

            self._locks = LockTable(self.wake, self.clock)
        return self._locks

    @property
    def sockets(self) -> SocketSpace:
        """The UNIX sockets of the machine."""
        if self._sockets is None:
            from loadstone.vfs.socket_space import SocketSpace

            self._sockets = SocketSpace(self.wake, self.clock)
        return self._sockets

    @property
    def terminals(self) -> Terminals:
        """The machine's pseudo-terminals."""
        if self._terminals is None:
            from loadstone.vfs.devpts import NoProcesses, Terminals

            side = self.process_side() if self.process_side is not None else NoProcesses()
            self._terminals = Terminals(self.wake, self.clock, side)
        return self._terminals

    def terminal_of(self, session: int) -> Pty | None:
        """The pseudo-terminal that a session has, if any were ever made."""
        return self._terminals.of_session(session) if self._terminals is not None else None

    def kept_places(self) -> list[Location]:
        """The places of files that devices have open."""
        return self._loops.places() if self._loops is not None else []

    def open_device(self, inode: Inode, flags: int, location: Location | None) -> OpenFile:
        """Open a device node that is not in /dev: the machine's device of the same kind and number; ENXIO."""
        from loadstone.vfs.devices import opener_of

        return opener_of(self.single["devtmpfs"].root.inode, inode)(inode, flags, location)

    @property
    def loops(self) -> LoopDevices:
        """The machine's loop devices."""
        if self._loops is None:
            from loadstone.vfs.loop import LoopDevices

            self._loops = LoopDevices(self)
        return self._loops

    # Looking

    def stat(self, path: str, origin: Origin = TOP, *, follow: bool = True, empty: bool = False) -> Inode:
        """The inode of a path, its attributes brought up to date."""
        inode = self.resolve(path, origin, follow=follow, empty=empty).inode
        inode.refresh()
        return inode

    def access(self, path: str, mask: int, origin: Origin = TOP, *, follow: bool = True, empty: bool = False) -> None:
        """access(2) with the rights of `origin.who`; EACCES."""
        place = self.resolve(path, origin, follow=follow, empty=empty)
        inode = place.inode
        inode.refresh()
        if mask & X_OK and inode.is_regular and place.noexec:
            raise LinuxError(EACCES, "it is on a file system from which nothing may be executed")
        demand(inode, mask, origin.who)
        if mask & W_OK and inode.mode & S_IFMT in (S_IFREG, S_IFDIR, S_IFLNK):
            place.demand_writable()

    def readlink(self, path: str, origin: Origin = TOP, *, empty: bool = False) -> str:
        """The text of a symbolic link; EINVAL for anything else (ENOENT for an empty path that is none)."""
        place = self.resolve(path, origin, follow=False, empty=empty)
        if not place.inode.is_symlink:
            raise LinuxError(ENOENT if empty and not path else EINVAL)
        place.accessed()
        return place.inode.readlink()

    def path_of(self, location: Location, root: Location | None = None) -> str:
        """The path of a place as getcwd(2) gives it to a process with this root directory."""
        return location.path_under(root if root is not None and root != self.root else None)

    def space(self, location: Location) -> Space:
        """statfs(2)."""
        from loadstone.vfs.discard import space

        return space(self, location)

    # Opening

    def open(self, path: str, flags: int, mode: int = 0, origin: Origin = TOP) -> OpenFile:
        """open(2). `mode` is what a new file gets, the umask taken off already."""
        walk = self._walk(origin)
        base = walk.base
        if flags & O_PATH:
            flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
        if flags & TMPFILE_BIT:
            return self._open_temporary(base, path, flags, mode, walk)
        if flags & O_CREAT:
            if flags & O_DIRECTORY:
                raise LinuxError(EINVAL)
            return self._open_create(base, path, flags, mode, walk)
        place = self._resolve(base, path, walk, not flags & O_NOFOLLOW, bool(flags & O_DIRECTORY))
        return self.open_location(place, flags, credentials=origin.who)

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
        if location.mount.flags & MNT_NODEV and inode.mode & S_IFMT in (S_IFCHR, S_IFBLK):
            raise LinuxError(EACCES, "devices are not opened on this mount (nodev)")
        demand(inode, mask, credentials)
        if mask & W_OK and inode.is_regular:
            location.demand_writable()
        if flags & O_NOATIME and credentials.fsuid not in (0, inode.uid):
            raise LinuxError(EPERM)
        file = self._opened(inode, flags, location, credentials)
        if flags & O_TRUNC and inode.is_regular and file.opening() is None:
            self.empty(file, credentials)
        return file

    @staticmethod
    def empty(file: OpenFile, credentials: Identity) -> None:
        """What O_TRUNC does, once nothing has to be waited for; a file that cannot be emptied is not open."""
        try:
            _truncate(file.inode, 0)
            file.tell(IN_MODIFY)
            if credentials.fsuid != 0:
                file.inode.drop_privileges()
        except LinuxError:
            _drop(file)
            raise

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
        base.demand_writable()
        self._may_create(base, walk.who)
        inode = base.inode.create(name, mode, walk.who)
        file = self._opened(inode, flags, self._added(base, name, inode), walk.who)
        file.created = True
        return file

    @staticmethod
    def _opened(inode: Inode, flags: int, location: Location, who: Identity) -> OpenFile:
        file = inode.open(flags, location)
        if who.fsuid != 0 and isinstance(file, RegularOpen):
            file.strips = True
        try:
            waits = file.opening()
        except LinuxError:
            _drop(file)
            raise
        if waits is None:
            file.tell(IN_OPEN)
        return file

    def _open_temporary(self, place: Location, path: str, flags: int, mode: int, walk: Walk) -> OpenFile:
        """O_TMPFILE: a regular file in a directory, without a name."""
        if not flags & O_DIRECTORY or not flags & O_ACCMODE or flags & O_CREAT:
            raise LinuxError(EINVAL)
        directory = self._resolve(place, path, walk, not flags & O_NOFOLLOW, True)
        directory.demand_writable()
        self._may_create(directory, walk.who)
        inode = directory.inode.temporary(mode, walk.who)
        dentry = Dentry(directory.dentry, f"#{inode.inode}", inode)
        dentry.gone = True
        if isinstance(inode, RegularFile):
            inode.linkable = not flags & O_EXCL
        return self._opened(inode, flags & ~(TMPFILE_BIT | O_DIRECTORY), Location(directory.mount, dentry), walk.who)

    def anonymous(self, name: str, flags: int) -> OpenFile:
        """A file in memory without a name: memfd_create(2)."""
        from loadstone.vfs.memfd import MemoryFile

        inode = MemoryFile(self.memory, S_IFREG | 0o777)
        dentry = Dentry(self._nowhere.dentry, name, inode)
        dentry.gone = True
        file = inode.open(flags, Location(self._nowhere.mount, dentry))
        assert isinstance(file, RegularOpen)
        file.let_execute()  # as alloc_file_pseudo(): it may be executed while this descriptor is open
        return file

    def pipe(self, flags: int = 0, credentials: Identity = ROOT) -> tuple[OpenFile, OpenFile]:
        """pipe2(2): the end that reads, the end that writes."""
        from loadstone.vfs.pipe import PipeInode, make_pipe

        self._last_pipe += 1
        now = self.clock.realtime_ns()
        inode = PipeInode(ANONYMOUS_DEVICE, self._last_pipe, credentials.fsuid, credentials.fsgid, now, self.wake)
        return make_pipe(inode, flags & ~O_ACCMODE & ~O_CLOEXEC)

    def place_of(self, file: OpenFile) -> Location:
        """Where /proc/self/fd/N leads: the file's location, or for a pipe or stream a place outside the tree."""
        return file.location if file.location is not None else Unplaced(file.inode, file.path)

    # Attributes

    def truncate(self, path: str, size: int, origin: Origin = TOP) -> None:
        """truncate(2), for callers that need not wait for who has a lease."""
        self.cut(self.to_cut(path, size, origin), size, origin.who)

    def to_cut(self, path: str, size: int, origin: Origin = TOP) -> Location:
        """The place of a file that `origin.who` may make `size` bytes long."""
        if size < 0:
            raise LinuxError(EINVAL)
        place = self.resolve(path, origin)
        inode = place.inode
        if not inode.is_regular:
            raise LinuxError(EISDIR if inode.is_directory else EINVAL)
        place.demand_writable()
        demand(inode, W_OK, origin.who)
        return place

    @staticmethod
    def cut(place: Location, size: int, who: Identity) -> None:
        """Make the file at a place `size` bytes long."""
        _truncate(place.inode, size)
        place.tell(IN_MODIFY)
        if who.fsuid != 0:
            place.inode.drop_privileges()

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


def _drop(file: OpenFile) -> None:
    """Release what was opened and will have no descriptor."""
    file.hold()
    file.close()


def _truncate(inode: Inode, size: int) -> None:
    """Truncate as a writer that has not opened the file (do_truncate, vfs_truncate): ETXTBSY while it is executed."""
    if not isinstance(inode, RegularFile):
        inode.truncate(size)
        return
    inode.take_write()
    try:
        inode.truncate(size)
    finally:
        inode.put_write()
