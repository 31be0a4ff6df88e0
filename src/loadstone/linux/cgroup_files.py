"""cgroup2: the control groups as directories, with files to read and to write. Source: kernel/cgroup/cgroup.c."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOENT, EOPNOTSUPP, EPERM, ERANGE, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.cgroups import CGROUP2_MAGIC, CONTROLLERS, Cgroup, Hierarchy
from loadstone.linux.of_task import current_task, linux_of
from loadstone.linux.proc.files import ProcFile
from loadstone.vfs.discard import nothing
from loadstone.vfs.flags import S_IFDIR, S_IFREG
from loadstone.vfs.inode import Entry, Identity, Inode
from loadstone.vfs.location import Dentry, Superblock
from loadstone.vfs.open_files import DirectoryFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.kernel.process import Process, Task
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location

CGROUP_DEVICE = 29
_PER_GROUP = 0x100  # inode numbers
_PAGE = 4096
_PIDS_MAX = (1 << 22) + 1
_OPTIONS = ("nsdelegate", "memory_recursiveprot", "memory_localevents", "favordynmods", "pids_localevents", "ro", "rw")
_SUFFIXES = {"k": 10, "m": 20, "g": 30, "t": 40}


def cgroup2(task: Task, options: Sequence[tuple[str, str]]) -> Superblock:
    """The one file system of control groups; EINVAL for an unknown option."""
    for name, _ in options:
        if name not in _OPTIONS:
            raise LinuxError(EINVAL, f"no option of cgroup2: {name!r}")
    single, linux = task.kernel.vfs.single, linux_of(task)
    if "cgroup2" not in single:
        linux.cgroups = Hierarchy(task.kernel)
        root = CgroupDirectory(linux.cgroups, linux.cgroups.root)
        made = single["cgroup2"] = Superblock("cgroup2", CGROUP2_MAGIC, Dentry(None, "/", root))
        made.space = nothing(CGROUP2_MAGIC)
    superblock = single["cgroup2"]
    shown = "".join(f",{name}" for name, _ in options if name not in ("ro", "rw"))
    superblock.options = lambda: shown
    return superblock


class CgroupDirectory(Inode):
    """The directory of a group: its files, and the groups below it."""

    __slots__ = ("below", "group", "tree")

    cacheable = False  # the files of a controller come and go with cgroup.subtree_control above

    def __init__(self, tree: Hierarchy, group: Cgroup) -> None:
        mode = S_IFDIR | (0o555 if group.parent is None else 0o755)
        super().__init__(CGROUP_DEVICE, group.number * _PER_GROUP, mode, now_ns=tree.kernel.clock.realtime_ns())
        self.tree = tree
        self.group = group
        self.below: dict[str, CgroupDirectory] = {}

    def refresh(self) -> None:
        """Count the directories."""
        self.nlink = 2 + len(self.below)

    def lookup(self, name: str) -> Inode:
        """A group below, or a file."""
        found = self.below.get(name)
        if found is not None:
            return found
        for at, row in enumerate(FILES, 1):
            if row.name == name and row.is_in(self.group):
                return self._file(at, row)
        raise LinuxError(ENOENT)

    def entries(self) -> list[Entry]:
        """The files, then the groups."""
        start = self.inode
        files = [(row.name, start + at, S_IFREG >> 12) for at, row in enumerate(FILES, 1) if row.is_in(self.group)]
        return [*files, *((name, one.inode, S_IFDIR >> 12) for name, one in self.below.items())]

    def _file(self, at: int, row: Row) -> ProcFile:
        tree, group = self.tree, self.group

        def show() -> bytes:
            return row.show(tree, group).encode() if row.show is not None else b""

        def accept(data: bytes) -> None:
            if group.gone:
                raise LinuxError(ENOENT, "the cgroup was removed")
            if row.store is None:
                raise LinuxError(EINVAL, "this file is only read")
            row.store(tree, group, data.decode("latin-1").strip())

        mode = (0o444 if row.show is not None else 0) | (0o200 if row.store is not None else 0)
        made = ProcFile(show, inode=self.inode + at, mode=mode, now_ns=self.mtime_ns, accept=accept)
        made.device, made.uid, made.gid = CGROUP_DEVICE, self.uid, self.gid
        return made

    def mkdir(self, name: str, mode: int, who: Identity) -> Inode:
        """A new group."""
        made = CgroupDirectory(self.tree, self.tree.make(self.group, name))
        made.mode = S_IFDIR | mode & 0o1777
        made.uid, made.gid = who.fsuid, who.fsgid
        self.below[name] = made
        return made

    def symlink(self, name: str, target: str, who: Identity) -> Inode:
        """EPERM: there are none here."""
        raise LinuxError(EPERM)

    def rmdir(self, name: str, inode: Inode) -> None:
        """Take a group away; EBUSY."""
        if not isinstance(inode, CgroupDirectory):
            raise LinuxError(EBUSY)
        self.tree.remove(inode.group)
        del self.below[name]

    def set_mode(self, mode: int) -> None:
        """Kept."""
        self.mode = S_IFDIR | mode & 0o7777

    def set_owner(self, uid: int, gid: int) -> None:
        """Kept, and the files' too: a group is handed over whole."""
        self.uid = uid if uid >= 0 else self.uid
        self.gid = gid if gid >= 0 else self.gid

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names; it stands for the group then (CLONE_INTO_CGROUP)."""
        return DirectoryFile(self, flags, location)


if TYPE_CHECKING:
    Show = Callable[[Hierarchy, Cgroup], str]
    Store = Callable[[Hierarchy, Cgroup, str], None]


class Row(NamedTuple):
    """A file: what it shows, what takes what is written, and who has it."""

    name: str
    show: Show | None
    store: Store | None
    controller: str = ""
    in_root: bool = False

    def is_in(self, group: Cgroup) -> bool:
        """Whether a group has the file."""
        if group.parent is None:
            return self.in_root
        return not self.controller or self.controller in group.controllers


# Processes


def _pids(tree: Hierarchy, group: Cgroup) -> str:
    return "".join(f"{process.pid}\n" for process in tree.processes(group))


def _tids(tree: Hierarchy, group: Cgroup) -> str:
    return "".join(f"{task.tid}\n" for process in tree.processes(group) for task in process.tasks)


def _named(tree: Hierarchy, text: str) -> Process:
    """The process of a number, the caller's for 0; EINVAL, ESRCH."""
    if not text.lstrip("+-").isdecimal() or int(text) < 0:
        raise LinuxError(EINVAL, f"no process: {text!r}")
    if int(text) == 0:
        return current_task(tree.kernel).process
    process = tree.kernel.processes.get(int(text))
    if process is None or process.status is not None:
        task = tree.kernel.tasks.get(int(text))
        if task is None:
            raise LinuxError(ESRCH, f"no process {text}")
        process = task.process
    return process


def _move(tree: Hierarchy, group: Cgroup, text: str) -> None:
    tree.move(_named(tree, text), group)


def _move_thread(tree: Hierarchy, group: Cgroup, text: str) -> None:
    if tree.of(_named(tree, text)) is not group:
        raise LinuxError(EOPNOTSUPP, "threaded cgroups are not there")


# The group itself


def _controllers(tree: Hierarchy, group: Cgroup) -> str:
    return _line(group.controllers)


def _delegated(tree: Hierarchy, group: Cgroup) -> str:
    return _line([one for one in CONTROLLERS if one in group.delegated])


def _line(words: Sequence[str]) -> str:
    """A line of words; nothing at all if there are none (cgroup_print_ss_mask)."""
    return " ".join(words) + "\n" if words else ""


def _delegate(tree: Hierarchy, group: Cgroup, text: str) -> None:
    added: set[str] = set()
    removed: set[str] = set()
    for word in text.split():
        if word[0] not in "+-" or word[1:] not in CONTROLLERS:
            raise LinuxError(EINVAL, f"no controller: {word!r}")
        (added if word[0] == "+" else removed).add(word[1:])
        (removed if word[0] == "+" else added).discard(word[1:])
    tree.delegate(group, added, removed)


def _events(tree: Hierarchy, group: Cgroup) -> str:
    return f"populated {int(tree.populated(group))}\nfrozen {int(tree.is_frozen(group))}\n"


def _number(text: str) -> int:
    digits = text.lstrip("+-")
    if not digits.isdecimal() or len(text) - len(digits) > 1:
        raise LinuxError(EINVAL, f"no number: {text!r}")
    return int(text)


def _freeze(tree: Hierarchy, group: Cgroup, text: str) -> None:
    wanted = _number(text)
    if wanted not in (0, 1):
        raise LinuxError(ERANGE)
    tree.freeze(group, bool(wanted))


def _kill(tree: Hierarchy, group: Cgroup, text: str) -> None:
    if _number(text) != 1:
        raise LinuxError(ERANGE)
    tree.kill(group)


def _set_type(tree: Hierarchy, group: Cgroup, text: str) -> None:
    raise LinuxError(EOPNOTSUPP if text == "threaded" else EINVAL, "threaded cgroups are not there")


def _stat(tree: Hierarchy, group: Cgroup) -> str:
    return f"nr_descendants {len(group.subtree()) - 1}\nnr_dying_descendants 0\n"


def _cpu_stat(tree: Hierarchy, group: Cgroup) -> str:
    if group.parent is None:
        usages = [process.total_usage() for process in tree.kernel.processes.values()]
        system = sum(one.system_ns for one in usages)
        user = sum(one.cpu_ns for one in usages) - system
    else:
        user, system = group.times()
    rows = ("usage_usec", user + system), ("user_usec", user), ("system_usec", system), ("nice_usec", 0)
    return "".join(f"{name} {ns // 1000}\n" for name, ns in rows)


# Limits


def _limit(file: str, usual: str = "max") -> Show:
    def show(tree: Hierarchy, group: Cgroup) -> str:
        if file not in group.limits:
            return f"{usual}\n"
        limit = group.limits[file]
        return f"{'max' if limit is None else limit}\n"

    return show


def _set_count(file: str, most: int, wrong: int) -> Store:
    """Take `max`, or a number from 0 below `most`; `wrong` is the error beyond."""

    def store(tree: Hierarchy, group: Cgroup, text: str) -> None:
        limit = None if text == "max" else _number(text)
        if limit is not None and not 0 <= limit < most:
            raise LinuxError(wrong)
        group.limits[file] = limit

    return store


def _set_bytes(file: str) -> Store:
    """Take `max`, or bytes with an optional suffix, rounded down to pages (page_counter_memparse)."""

    def store(tree: Hierarchy, group: Cgroup, text: str) -> None:
        if text == "max":
            group.limits[file] = None
            return
        shift = _SUFFIXES.get(text[-1:].lower(), 0)
        digits = text[:-1] if shift else text
        if not digits.isdecimal():
            raise LinuxError(EINVAL, f"no size: {text!r}")
        group.limits[file] = (int(digits) << shift) // _PAGE * _PAGE

    return store


def _told(file: str, *words: str) -> Show:
    """A file of events, a word and how often on each line."""
    return lambda tree, group: "".join(f"{word} {group.events.get((file, word), 0)}\n" for word in words)


def _memory(tree: Hierarchy, group: Cgroup) -> str:
    return f"{tree.memory(group)}\n"


def _memory_peak(tree: Hierarchy, group: Cgroup) -> str:
    tree.memory(group)
    return f"{group.peaks['memory.peak']}\n"


def _tasks(tree: Hierarchy, group: Cgroup) -> str:
    return f"{tree.tasks(group)}\n"


def _memory_rows() -> list[Row]:
    limits = [
        Row(f"memory.{word}", _limit(f"memory.{word}", usual), _set_bytes(f"memory.{word}"), "memory")
        for word, usual in (("min", "0"), ("low", "0"), ("high", "max"), ("max", "max"))
    ]
    events = _told("memory.events", "low", "high", "max", "oom", "oom_kill", "oom_group_kill")
    return [
        Row("memory.current", _memory, None, "memory"),
        Row("memory.peak", _memory_peak, None, "memory"),
        *limits,
        Row("memory.events", events, None, "memory"),
        Row("memory.swap.current", lambda tree, group: "0\n", None, "memory"),
        Row("memory.swap.max", _limit("memory.swap.max"), _set_bytes("memory.swap.max"), "memory"),
    ]


_INT_MAX = (1 << 31) - 1
FILES = [
    Row("cgroup.type", lambda tree, group: "domain\n", _set_type),
    Row("cgroup.procs", _pids, _move, in_root=True),
    Row("cgroup.threads", _tids, _move_thread, in_root=True),
    Row("cgroup.controllers", _controllers, None, in_root=True),
    Row("cgroup.subtree_control", _delegated, _delegate, in_root=True),
    Row("cgroup.events", _events, None),
    Row(
        "cgroup.max.descendants", _limit("cgroup.max.descendants"),
        _set_count("cgroup.max.descendants", _INT_MAX, ERANGE), in_root=True,
    ),
    Row("cgroup.max.depth", _limit("cgroup.max.depth"), _set_count("cgroup.max.depth", _INT_MAX, ERANGE), in_root=True),
    Row("cgroup.stat", _stat, None, in_root=True),
    Row("cgroup.freeze", lambda tree, group: f"{int(group.frozen)}\n", _freeze),
    Row("cgroup.kill", None, _kill),
    Row("cpu.stat", _cpu_stat, None, in_root=True),
    *_memory_rows(),
    Row("pids.max", _limit("pids.max"), _set_count("pids.max", _PIDS_MAX, EINVAL), "pids"),
    Row("pids.current", _tasks, None, "pids"),
    Row("pids.events", _told("pids.events", "max"), None, "pids"),
]  # fmt: skip
