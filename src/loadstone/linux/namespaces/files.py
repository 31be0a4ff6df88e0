"""nsfs: namespaces as files, in /proc/PID/ns and bound to other names (fs/nsfs.c, fs/proc/namespaces.c)."""

from __future__ import annotations

from errno import EACCES, ENOENT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.namespaces import namespaces_of, pid_namespace_of, users_of
from loadstone.linux.tracing.inspecting import may_inspect
from loadstone.vfs.file import OpenFile
from loadstone.vfs.flags import S_IFLNK, S_IFREG
from loadstone.vfs.generated import GeneratedDirectory, MagicLink
from loadstone.vfs.inode import Inode
from loadstone.vfs.location import Mount, Unplaced

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.namespaces import Namespaces
    from loadstone.linux.namespaces.base import Namespace
    from loadstone.linux.namespaces.pids import PidNamespace
    from loadstone.vfs.inode import Entry
    from loadstone.vfs.location import Location

NSFS_DEVICE, NSFS_MAGIC = 4, 0x6E736673  # 0:4: `linux.syscalls.ioctl` knows it by that

# What /proc/PID/ns has, in the kernel's order; which namespace of a thread each of them is.
_LINKS: dict[str, Callable[[Task, Namespaces], Namespace]] = {
    "net": lambda task, now: now.net,
    "uts": lambda task, now: now.uts,
    "ipc": lambda task, now: now.ipc,
    "pid": lambda task, now: pid_namespace_of(task.process),
    "pid_for_children": lambda task, now: _of_children(now.pids),
    "user": lambda task, now: users_of(task.process),
    "mnt": lambda task, now: now.mounts,
    "cgroup": lambda task, now: now.cgroup,
    "time": lambda task, now: now.time,
    "time_for_children": lambda task, now: now.time_for_children,
}


def _of_children(pids: PidNamespace) -> PidNamespace:
    if pids.above is not None and pids.init is None:
        raise LinuxError(ENOENT, "nobody is in the PID namespace yet")
    return pids


class NamespaceInode(Inode):
    """The file that stands for a namespace. Whoever holds it keeps the namespace."""

    __slots__ = ("namespace",)

    def __init__(self, namespace: Namespace, now_ns: int) -> None:
        super().__init__(NSFS_DEVICE, namespace.number, S_IFREG | 0o444, now_ns=now_ns)
        self.namespace = namespace

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """A descriptor for setns(2) and ioctl_ns(2); it can be neither read nor written."""
        return NamespaceFile(self, flags, location)


class NamespaceFile(OpenFile):
    """An open namespace."""

    __slots__ = ("namespace",)

    def __init__(self, inode: NamespaceInode, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location)
        self.namespace = inode.namespace


def place_of(namespace: Namespace, now_ns: int) -> Location:
    """Where the link to a namespace leads: a place outside the tree."""
    place = Unplaced(NamespaceInode(namespace, now_ns), namespace.name)
    place.mount = Mount(place.dentry, None, "nsfs", NSFS_MAGIC)
    return place


def directory(task: Task, *, device: int, inode: int, now_ns: int) -> Inode:
    """/proc/PID/ns of a thread; the links' inode numbers follow the directory's."""
    numbers = {name: inode + at for at, name in enumerate(_LINKS, 1)}

    def names() -> list[Entry]:
        return [(name, number, S_IFLNK >> 12) for name, number in numbers.items()]

    def find(name: str) -> Inode | None:
        if name not in numbers:
            return None
        made = MagicLink(
            lambda: _namespace(task, name).name, lambda: place_of(_namespace(task, name), now_ns),
            device=device, inode=numbers[name],
        )  # fmt: skip
        made.uid, made.gid = task.process.credentials.euid, task.process.credentials.egid
        made.atime_ns = made.mtime_ns = made.ctime_ns = now_ns
        return made

    made = GeneratedDirectory(names, find, device=device, inode=inode, mode=0o511, now_ns=now_ns)
    made.uid, made.gid = task.process.credentials.euid, task.process.credentials.egid
    return made


# In the order in which setns(2) enters several at once: user namespaces first, for their privileges (validate_nsset).
_ENTERED = ("user", "mnt", "uts", "ipc", "pid", "cgroup", "net", "time")


def of_kinds(task: Task, flags: int) -> list[Namespace]:
    """The namespaces of a thread of the kinds that CLONE_NEW… flags name."""
    now = namespaces_of(task)
    found = [_LINKS[link](task, now) for link in _ENTERED]
    return [namespace for namespace in found if namespace.flag & flags]


def _namespace(task: Task, link: str) -> Namespace:
    """The namespace that a link of a thread leads to; ENOENT when it has ended, EACCES for other users' threads."""
    if task.process.status is not None:
        raise LinuxError(ENOENT, "who has ended is in no namespace")
    asking = task.kernel.scheduler.current
    if asking is not None and not may_inspect(asking.process, task.process, by_file=True):
        raise LinuxError(EACCES, "a process of another user")
    return _LINKS[link](task, namespaces_of(task))
