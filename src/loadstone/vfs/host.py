"""The host's tree, as far as the guest may see it.

Everything goes one component at a time from a directory's O_PATH descriptor with O_NOFOLLOW: the host never
follows a symbolic link for the guest and never resolves `..`. Only regular files are ever opened, and only after
an O_PATH open has shown that they are; a FIFO, a socket or a device on the host is seen by stat and no more.
"""

from __future__ import annotations

import os
import resource
from _weakref import ref
from errno import EACCES, EIO, ENOENT, EPERM, ESTALE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.vfs.flags import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG

if TYPE_CHECKING:
    from collections.abc import Iterable

PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

# File systems that show the host's processes, devices or kernel: a directory that is the root of one looks empty.
HIDDEN_FILE_SYSTEMS = frozenset(
    [
        "proc",
        "sysfs",
        "devtmpfs",
        "devpts",
        "debugfs",
        "tracefs",
        "securityfs",
        "cgroup",
        "cgroup2",
        "bpf",
        "configfs",
        "pstore",
        "efivarfs",
        "binfmt_misc",
        "fusectl",
        "mqueue",
        "autofs",
        "rpc_pipefs",
        "nfsd",
        "selinuxfs",
        "smackfs",
        "functionfs",
        "nsfs",
    ]
)

# File systems whose get_unmapped_area is thp_get_unmapped_area.
HUGE_ALIGNED_FILE_SYSTEMS = frozenset(["ext2", "ext3", "ext4", "xfs", "btrfs", "erofs", "fuse", "fuseblk", "bcachefs"])

Visible = dict[str, "Visible | None"]
"""Names that may be seen, with what may be seen below each; None is everything below."""


def host_error(error: OSError) -> LinuxError:
    """The same errno, for the guest."""
    return LinuxError(error.errno or EIO)


class Descriptors:
    """The host descriptors that may be closed and opened again, bounded: the least recently opened goes first."""

    __slots__ = ("limit", "open")

    def __init__(self, limit: int | None = None) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard == resource.RLIM_INFINITY or hard > 65536:
            hard = 65536
        if soft != resource.RLIM_INFINITY and soft < hard:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
                soft = hard
            except (ValueError, OSError):
                pass  # the soft limit serves as well, with fewer descriptors kept
        available = hard if soft == resource.RLIM_INFINITY else soft
        self.limit = limit if limit is not None else max(16, min(available // 2, 8192))
        self.open: dict[int, ref[HostNode]] = {}

    def opened(self, node: HostNode) -> None:
        """`node` has just got a descriptor; close others if there are too many."""
        self.open[id(node)] = ref(node)
        if len(self.open) > self.limit:
            for reference in list(self.open.values())[: len(self.open) // 4 + 1]:
                other = reference()
                if other is not None and other is not node and not other.keep:
                    other.close()


class HostTree:
    """One tree of the host: its root directory and the descriptors in use.

    Attributes:
        own: (device, inode) of the files that this run writes itself, which the guest must not see: a record that lies
            in a directory the program lists would be part of what it records.
    """

    __slots__ = ("descriptors", "kinds", "own", "root")

    def __init__(self, path: str = "/", descriptors: int | None = None) -> None:
        self.descriptors = Descriptors(descriptors)
        self.kinds: dict[int, str] | None = None
        self.own: set[tuple[int, int]] = set()
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.root = HostNode(self, None, path, os.fstat(fd))
        self.root.fd = fd
        self.root.keep = True

    def close(self) -> None:
        """Give the host its descriptors back."""
        for reference in list(self.descriptors.open.values()):
            node = reference()
            if node is not None:
                node.close()
        self.root.close()

    def expose(self, path: str, top: HostNode | None = None, *, within: bool = False) -> None:
        """Let `path`, the links on the way to it and their targets be seen.

        `top` is what `/` means (default: all). A directory shows everything below it, unless `within`: then others say
        what is seen in it.
        """
        todo = [part for part in path.split("/") if part not in ("", ".")]
        root = top or self.root
        node, links = root, 0
        while todo and links <= 40:
            name = todo.pop(0)
            if name == "..":
                node = node if node is root else node.parent or node
                continue
            names = node.visible
            if names is None:
                return
            below = names.setdefault(name, {})
            try:
                child = node.lookup(name)
            except LinuxError:
                return
            if child.is_symlink:
                links += 1
                target = child.readlink()
                if target.startswith("/"):
                    node = root
                todo = [part for part in target.split("/") if part not in ("", ".")] + todo
            elif todo or within or below is None:
                node = child
            else:
                names[name] = None

    def node(self, path: str) -> HostNode:
        """The node of a path without symbolic links or `..`, absolute in this tree; LinuxError."""
        node = self.root
        for name in path.split("/"):
            if name:
                node = node.lookup(name)  # shares the dictionary of visible names, if there is one
        return node

    def kind(self, device: int) -> str:
        """The type of a mounted file system: `ext4`; "" if unknown. The mount table is read when first asked."""
        if self.kinds is None:
            self.kinds = dict(_mounted_kinds())
        return self.kinds.get(device, "")

    def hidden(self, device: int) -> bool:
        """Whether a file system must not be seen. Asked only where a directory is on another device than its parent."""
        return self.kind(device) in HIDDEN_FILE_SYSTEMS

    def huge_aligned(self, device: int) -> bool:
        """Whether its file system places large mappings on 2 MiB boundaries."""
        return self.kind(device) in HUGE_ALIGNED_FILE_SYSTEMS


def _mounted_kinds() -> Iterable[tuple[int, str]]:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                head, _, tail = line.partition(" - ")
                major, minor = head.split(" ")[2].split(":")
                yield os.makedev(int(major), int(minor)), tail.split(" ", 1)[0]
    except OSError:
        return


class HostNode:
    """One file of the host: its directory, its name, and who it was (device and inode) when it was looked up.

    `fd` is an O_PATH descriptor for a directory, one that reads (or reads and writes) for a regular file, -1 if none
    is open. `keep`: it is not closed to make room, since it could not be opened again.
    """

    __slots__ = ("__weakref__", "_noexec", "fd", "keep", "name", "parent", "stat", "tree", "visible", "writable")

    def __init__(self, tree: HostTree, parent: HostNode | None, name: str, stat: os.stat_result) -> None:
        self.tree = tree
        self.parent = parent
        self.name = name
        self.stat = stat
        self.fd = -1
        self.keep = False
        self.writable = False
        self.visible: Visible | None = None
        self._noexec: bool | None = None  # as the mount said when it was first asked, by this node's own descriptor

    @property
    def key(self) -> tuple[int, int]:
        """(device, inode): the file's identity on the host."""
        return self.stat.st_dev, self.stat.st_ino

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.stat.st_mode & S_IFMT == S_IFLNK

    @property
    def path(self) -> str:
        """Where it is on the host."""
        parts: list[str] = []
        node = self
        while node.parent is not None:  # not by recursion: a tree may be deeper than Python's stack
            parts.append(node.name)
            node = node.parent
        return "/".join([node.name.rstrip("/"), *reversed(parts)]) or "/"

    def lookup(self, name: str) -> HostNode:
        """The file called `name` in this directory, not followed; ENOENT."""
        visible = self.visible
        if visible is not None and name not in visible:
            raise LinuxError(ENOENT)
        try:
            stat = os.stat(name, dir_fd=self.directory_fd(), follow_symlinks=False)
        except OSError as error:
            raise host_error(error) from None
        if self.tree.own and (stat.st_dev, stat.st_ino) in self.tree.own:
            raise LinuxError(ENOENT)
        node = HostNode(self.tree, self, name, stat)
        if visible is not None:
            node.visible = visible[name]
        if self._covered(stat):
            node.visible = {}
        return node

    def _covered(self, stat: os.stat_result) -> bool:
        """Whether this is the root of a file system that must not be seen."""
        return stat.st_dev != self.stat.st_dev and stat.st_mode & S_IFMT == S_IFDIR and self.tree.hidden(stat.st_dev)

    def directory_fd(self) -> int:
        """An O_PATH descriptor of this directory; ESTALE if another file is there now."""
        if self.fd < 0:
            closed: list[HostNode] = []
            node: HostNode | None = self
            while node is not None and node.fd < 0:
                closed.append(node)
                node = node.parent
            for node in reversed(closed):
                node._adopt(node._open_path(os.O_DIRECTORY))
        return self.fd

    def _open_path(self, more: int = 0) -> int:
        """An O_PATH descriptor that is certainly this file."""
        assert self.parent is not None
        try:
            fd = os.open(self.name, PATH_FLAGS | more, dir_fd=self.parent.directory_fd())
        except OSError as error:
            raise host_error(error) from None
        stat = os.fstat(fd)
        if (stat.st_dev, stat.st_ino) != self.key:
            os.close(fd)
            raise LinuxError(ESTALE, f"{self.path}: the host put another file here while the program ran")
        return fd

    def _adopt(self, fd: int) -> None:
        self.fd = fd
        self.tree.descriptors.opened(self)

    def file_fd(self, write: bool = False) -> int:
        """A descriptor that reads this regular file, and writes it if `write`."""
        if self.fd >= 0 and (self.writable or not write):
            return self.fd
        path_fd = self._open_path()
        try:
            if os.fstat(path_fd).st_mode & S_IFMT != S_IFREG:
                raise LinuxError(EACCES, f"{self.path}: only regular files of the host are opened")
            fd = _reopen(path_fd, write)
        finally:
            os.close(path_fd)
        self.close()
        self.writable = write
        self._adopt(fd)
        return fd

    def adopt_file(self, fd: int) -> None:
        """Take over a descriptor that reads and writes this regular file."""
        self.close()
        self.writable = True
        self._adopt(fd)

    def reopened(self) -> int:
        """A new O_PATH descriptor of this file, whatever its kind; the caller closes it."""
        return self._open_path()

    def close(self) -> None:
        """Close the descriptor, if there is one."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.tree.descriptors.open.pop(id(self), None)

    def __del__(self) -> None:
        self.close()

    @property
    def noexec(self) -> bool:
        """Whether the host mounted it so that nothing may be executed. Mounts count as they were when first asked."""
        node = self if self.fd >= 0 or self.parent is None else self.parent
        if node._noexec is None:
            fd = node.fd if node.fd >= 0 else node.directory_fd()
            node._noexec = bool(os.fstatvfs(fd).f_flag & os.ST_NOEXEC)
        return node._noexec

    def status(self) -> os.stat_result:
        """The file's attributes on the host, now; the last ones known if it is gone."""
        try:
            if self.fd >= 0:
                stat = os.fstat(self.fd)
            else:
                assert self.parent is not None
                stat = os.stat(self.name, dir_fd=self.parent.directory_fd(), follow_symlinks=False)
        except (OSError, LinuxError):
            return self.stat
        if (stat.st_dev, stat.st_ino) == self.key:
            self.stat = stat
        return self.stat

    def readlink(self) -> str:
        """The text of this symbolic link."""
        assert self.parent is not None
        try:
            return os.readlink(self.name, dir_fd=self.parent.directory_fd())
        except OSError as error:
            raise host_error(error) from None

    def names(self) -> list[tuple[str, int, int]]:
        """(name, inode number, d_type) of everything visible in this directory, in the host's order."""
        visible = self.visible
        if visible is not None and not visible:
            return []
        directory = self.directory_fd()
        try:
            fd = os.open(".", LIST_FLAGS, dir_fd=directory)
        except PermissionError:  # "." takes the right to search; reading the names does not
            try:
                fd = os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise host_error(error) from None
        except OSError as error:
            raise host_error(error) from None
        try:
            with os.scandir(fd) as found:
                names = [(one.name, one.inode(), _kind(one)) for one in found]
        except OSError as error:
            raise host_error(error) from None
        finally:
            os.close(fd)
        if self.tree.own:
            device, own = self.stat.st_dev, self.tree.own
            names = [one for one in names if (device, one[1]) not in own]
        return names if visible is None else [one for one in names if one[0] in visible]

    def has_own(self, name: str) -> bool:
        """Whether `name` in this directory is a file that the run writes itself."""
        if not self.tree.own:
            return False
        try:
            stat = os.stat(name, dir_fd=self.directory_fd(), follow_symlinks=False)
        except OSError:
            return False
        return (stat.st_dev, stat.st_ino) in self.tree.own


def both_directories(first: HostNode, second: HostNode) -> tuple[int, int]:
    """The descriptors of two directories: opening the second may have closed the first to make room."""
    first.directory_fd()
    other = second.directory_fd()
    return first.directory_fd(), other


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return 10
    if entry.is_dir(follow_symlinks=False):
        return 4
    if entry.is_file(follow_symlinks=False):
        return 8
    try:
        return (entry.stat(follow_symlinks=False).st_mode & S_IFMT) >> 12
    except OSError:
        return 0


def _reopen(path_fd: int, write: bool) -> int:
    """Open what an O_PATH descriptor refers to, without touching its access time where the host lets us."""
    flags = FILE_FLAGS | (os.O_RDWR if write else os.O_RDONLY)
    name = f"/proc/self/fd/{path_fd}"
    try:
        return os.open(name, flags | os.O_NOATIME)
    except OSError as error:
        if error.errno != EPERM:
            raise host_error(error) from None
    try:
        return os.open(name, flags)
    except OSError as error:
        raise host_error(error) from None
