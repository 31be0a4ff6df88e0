"""The mqueue file system: POSIX message queues by name, and their descriptors (ipc/mqueue.c).

mq_open(3) finds queues here whether it is mounted anywhere or not.
"""

from __future__ import annotations

from errno import EINVAL, EMFILE, ENAMETOOLONG, ENOENT, ENOSPC, EOPNOTSUPP, EOVERFLOW, EPERM
from os import fsencode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SYS_RESOURCE, capable_in
from loadstone.linux.ipc.posix_queues import SIGEV_SIGNAL, PosixQueue, cost_of
from loadstone.linux.of_task import pid_seen
from loadstone.linux.profile import RLIM_INFINITY, RLIMIT_MSGQUEUE
from loadstone.vfs.discard import nothing
from loadstone.vfs.file import total
from loadstone.vfs.flags import (
    NAME_MAX,
    NOW,
    OMIT,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    S_IFDIR,
    S_IFMT,
    S_IFREG,
    d_type,
)
from loadstone.vfs.inode import Inode
from loadstone.vfs.location import Dentry, Superblock
from loadstone.vfs.open_files import DirectoryFile, SeekableFile
from loadstone.vfs.regular import scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process
    from loadstone.linux.ipc.objects import IpcObjects
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Entry, Identity
    from loadstone.vfs.location import Location
    from loadstone.wait import WaitQueue

MQUEUE_DEVICE = 18
MQUEUE_MAGIC = 0x19800202
# include/linux/ipc_namespace.h
_QUEUES, _MESSAGES, _SIZE = 256, 10, 8192
_HARD_MESSAGES, _HARD_SIZE = 65536, 16 * 1024 * 1024
_ULONG_MAX = (1 << 64) - 1
_ENTRY_BYTES, _FILE_BYTES = 20, 80  # DIRENT_SIZE, FILENT_SIZE


class PosixQueues:
    """The POSIX message queues of a namespace.

    Attributes:
        root: the directory in which they have their names; superblock: what is mounted of them.
        most: how many there may be; most_messages, most_size: the limits on each; default_messages, default_size: what
            a queue gets that is made without attributes (/proc/sys/fs/mqueue).
        count: the queues there are, those without a name too.
    """

    def __init__(self, kernel: Kernel, around: IpcObjects) -> None:
        self.kernel = kernel
        self.around = around
        self.most = _QUEUES
        self.most_messages = self.default_messages = _MESSAGES
        self.most_size = self.default_size = _SIZE
        self.count = 0
        self._of_user: dict[int, int] = {}  # what the queues of each count against RLIMIT_MSGQUEUE
        self._last_inode = 0
        self.root = QueueDirectory(self)
        self.superblock = Superblock("mqueue", MQUEUE_MAGIC, Dentry(None, "/", self.root))
        self.superblock.space = nothing(MQUEUE_MAGIC)
        self.superblock.noexec = True

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.kernel.clock.realtime_ns()

    def current_process(self) -> Process | None:
        """The process that runs."""
        task = self.kernel.scheduler.current
        return task.process if task is not None else None

    def new_inode(self) -> int:
        """A number for a file."""
        self._last_inode += 1
        return self._last_inode

    def make(self, mode: int, process: Process, attributes: tuple[int, int] | None) -> QueueInode:
        """A new queue for (messages, bytes in each); without them, one of the usual size.

        Raises LinuxError: ENOSPC, EINVAL, EOVERFLOW, EMFILE at a limit.
        """
        privileged = capable_in(process.credentials, None, CAP_SYS_RESOURCE)
        if self.count >= self.most and not privileged:
            raise LinuxError(ENOSPC, f"there are {self.count} queues (fs.mqueue.queues_max)")
        if attributes is None:
            attributes = min(self.most_messages, self.default_messages), min(self.most_size, self.default_size)
        messages, size = attributes
        limits = (_HARD_MESSAGES, _HARD_SIZE) if privileged else (self.most_messages, self.most_size)
        if not 0 < messages <= limits[0] or not 0 < size <= limits[1]:
            raise LinuxError(EINVAL, f"{messages} messages of {size} bytes; at most {limits[0]} of {limits[1]}")
        if messages * size > _ULONG_MAX:
            raise LinuxError(EOVERFLOW)
        user, cost = process.credentials.uid, cost_of(messages, size)
        allowed = process.limits.get(RLIMIT_MSGQUEUE, (RLIM_INFINITY, RLIM_INFINITY))[0]
        if self._of_user.get(user, 0) + cost > allowed:
            raise LinuxError(EMFILE, f"all queues of a user may count {allowed} bytes (RLIMIT_MSGQUEUE)")
        self._of_user[user] = self._of_user.get(user, 0) + cost
        self.count += 1
        return QueueInode(self, mode, process, PosixQueue(self.around, messages, size))

    def forget(self, gone: QueueInode) -> None:
        """A queue without a name was closed for the last time, or one that nobody has open lost its name."""
        self.count -= 1
        self._of_user[gone.user] -= cost_of(gone.queue.most_messages, gone.queue.most_bytes)
        gone.queue.discard()


class _MqueueInode(Inode):
    """What a file and the directory have in common: attributes that are simply kept (simple_setattr)."""

    __slots__ = ()

    def set_mode(self, mode: int) -> None:
        """Set the permission bits."""
        self.mode = self.mode & S_IFMT | mode & 0o7777

    def set_owner(self, uid: int, gid: int) -> None:
        """Set the owner."""
        self.uid = uid if uid >= 0 else self.uid
        self.gid = gid if gid >= 0 else self.gid

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Set the times."""
        now = self._now()
        self.atime_ns = {NOW: now, OMIT: self.atime_ns}.get(atime_ns, atime_ns)
        self.mtime_ns = {NOW: now, OMIT: self.mtime_ns}.get(mtime_ns, mtime_ns)
        self.ctime_ns = now

    def _now(self) -> int:
        raise NotImplementedError


class QueueInode(_MqueueInode):
    """A queue as a file.

    Attributes:
        user: whom it counts for, under RLIMIT_MSGQUEUE.
        opened: how many have it open.
        name: the last name it had.
    """

    __slots__ = ("_queues", "name", "opened", "queue", "user")

    def __init__(self, queues: PosixQueues, mode: int, process: Process, queue: PosixQueue) -> None:
        who = process.credentials
        super().__init__(
            MQUEUE_DEVICE, queues.new_inode(), S_IFREG | mode & 0o7777, who.fsuid, who.fsgid, queues.now_ns()
        )
        self._queues = queues
        self.queue = queue
        self.user = who.uid
        self.size = _FILE_BYTES
        self.opened = 0
        self.name = ""

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it; with a location when it was found through a mount."""
        self.opened += 1
        return QueueFile(self, flags, location)

    def truncate(self, size: int) -> None:
        """The size that is shown has nothing to do with the queue."""
        self.size = size

    def unnamed(self) -> None:
        """It lost its name."""
        self.nlink = 0
        self.ctime_ns = self._now()
        self._forget_unused()

    def closed(self) -> None:
        """One less has it open."""
        self.opened -= 1
        self._forget_unused()

    def used(self) -> None:
        """Something was sent or received."""
        self.atime_ns = self.mtime_ns = self.ctime_ns = self._now()

    def seen_pid(self, process: Process) -> int:
        """The number of a process as the running one sees it."""
        reader = self._queues.current_process()
        return pid_seen(reader, process.pid) if reader is not None else process.pid

    def read(self) -> None:
        """Somebody read about it, or asked to be told of messages."""
        self.atime_ns = self.ctime_ns = self._now()

    def stop_telling(self) -> None:
        """The running process closes a descriptor: it is not told any more if it was to be (mqueue_flush_file)."""
        told = self.queue.notification
        if told is not None and (told.process is self._queues.current_process() or told.process.status is not None):
            self.queue.stop_telling()

    def _now(self) -> int:
        return self._queues.now_ns()

    def _forget_unused(self) -> None:
        if not self.nlink and not self.opened:
            self._queues.forget(self)


class QueueDirectory(_MqueueInode):
    """The file system's root. mq_open(3) makes names here and mq_unlink(3) takes them away, so none is remembered."""

    __slots__ = ("_names", "_queues")

    cacheable = False

    def __init__(self, queues: PosixQueues) -> None:
        super().__init__(MQUEUE_DEVICE, queues.new_inode(), S_IFDIR | 0o1777, now_ns=queues.now_ns())
        self._queues = queues
        self._names: dict[str, QueueInode] = {}
        self.size = 2 * _ENTRY_BYTES

    def lookup(self, name: str) -> QueueInode:
        """The queue called `name`."""
        found = self._names.get(name)
        if found is None:
            raise LinuxError(ENAMETOOLONG if len(fsencode(name)) > NAME_MAX else ENOENT)
        return found

    def entries(self) -> list[Entry]:
        """The latest first, as every file system that is only in the dentry cache lists them."""
        return [(name, one.inode, d_type(one.mode)) for name, one in reversed(self._names.items())]

    def create(self, name: str, mode: int, who: Identity) -> Inode:
        """Make a queue of the usual size, as open(2) and mknod(2) do."""
        process = self._queues.current_process()
        assert process is not None
        return self.add(name, self._queues.make(mode, process, None))

    def add(self, name: str, inode: QueueInode) -> QueueInode:
        """Give a new queue its name."""
        self._names[name] = inode
        inode.name = name
        self._changed(_ENTRY_BYTES)
        return inode

    def mkdir(self, name: str, mode: int, who: Identity) -> Inode:
        """There are only queues here."""
        raise LinuxError(EPERM)

    def symlink(self, name: str, target: str, who: Identity) -> Inode:
        """There are only queues here."""
        raise LinuxError(EPERM)

    def temporary(self, mode: int, who: Identity) -> Inode:
        """Every queue is made with a name."""
        raise LinuxError(EOPNOTSUPP)

    def unlink(self, name: str, inode: Inode) -> None:
        """Take a name away; who has the queue open keeps it."""
        del self._names[name]
        self._changed(-_ENTRY_BYTES)
        assert isinstance(inode, QueueInode)
        inode.unnamed()

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names."""
        return DirectoryFile(self, flags, location)

    def _changed(self, growth: int) -> None:
        self.size += growth
        self.atime_ns = self.mtime_ns = self.ctime_ns = self._now()

    def _now(self) -> int:
        return self._queues.now_ns()


class QueueFile(SeekableFile):
    """An open queue. Reading it tells about the queue; messages come and go by calls of their own."""

    __slots__ = ("node",)

    def __init__(self, inode: QueueInode, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location)
        self.node = inode

    @property
    def path(self) -> str:
        """As /proc/self/fd shows it: a path in the file system itself unless it was opened through a mount."""
        if self.location is not None:
            return self.location.path
        return f"/{self.node.name}" + ("" if self.node.nlink else " (deleted)")

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """A line about the queue (mqueue_read_file)."""
        self.demand_readable()
        start = self.offset if offset is None else offset
        if start < 0:
            raise LinuxError(EINVAL)
        line = memoryview(self._line())[start:]
        done = min(total(pieces), len(line))
        scatter(pieces, line)
        if offset is None:
            self.offset += done
        if done:
            self.node.read()
        return done

    def _line(self) -> bytes:
        told = self.node.queue.notification
        how = signal = pid = 0
        if told is not None:
            how, pid = told.how, self.node.seen_pid(told.process)
            signal = told.signal if how == SIGEV_SIGNAL else 0
        return b"QSIZE:%-10d NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n" % (self.node.queue.bytes, how, signal, pid)

    def available(self) -> int | None:
        """What is left of the line."""
        return max(0, len(self._line()) - self.offset)

    def ready(self) -> int:
        """POLLIN with a message, POLLOUT with room."""
        queue = self.node.queue
        bits = POLLIN | POLLRDNORM if queue.count else 0
        return bits if queue.full else bits | POLLOUT | POLLWRNORM

    def queues(self) -> list[WaitQueue]:
        """One for both."""
        return [self.node.queue.changed]

    def close(self) -> None:
        """A process that closes any of its descriptors of a queue is not told of messages any more."""
        self.node.stop_telling()
        super().close()

    def release(self) -> None:
        """One opener less."""
        self.node.closed()
