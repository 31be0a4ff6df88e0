"""Control groups, version 2: a tree of groups of processes, what each group may have, and what it took.

The controllers are `memory` and `pids`; CPU time is told of every group. Memory is counted from the address spaces: the
frames of anonymous and shared memory that the processes of a group have resident, each once. Pages of files and the
kernel's own memory are not counted. A limit is held at the end of the time slice or system call that went past it:
memory mapped with MAP_DROPPABLE is dropped first, then the process that has most is killed.

Sources: kernel/cgroup/cgroup.c, pids.c, mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from errno import EAGAIN, EBADF, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import STOPPED, ExitStatus
from loadstone.linux.signal.sending import send
from loadstone.linux.signal.signals import SIGKILL, from_kernel
from loadstone.linux.state import process_state
from loadstone.machine.paging import FRAME_MASK
from loadstone.machine.physical import ANONYMOUS, FRAME_SHIFT
from loadstone.memory.flags import DROPPABLE
from loadstone.memory.shared import SharedMemory
from loadstone.memory.zap import zap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process, Task
    from loadstone.memory.address_space import AddressSpace

CONTROLLERS = ("memory", "pids")
CGROUP2_MAGIC = 0x63677270  # include/uapi/linux/magic.h
_PAGE = 4096
_FOLD_AT = 64  # members from which those that are gone are looked for at each join


class Cgroup:
    """One group.

    Attributes:
        number: its inode number, and that of no other group there ever was.
        name, parent, children: its place in the tree; `parent` None for the root.
        members: the processes that are or were in it, with the user and system time (ns) that each had taken before.
        spent: user and system time of members that left.
        delegated: the controllers that its children have (cgroup.subtree_control).
        limits: the file's name -> what was written to it, for files with a number; None there is "max".
        events: the file's name and the word in it -> how often.
        peaks: the file's name -> the highest value seen.
        frozen: whether it was asked to be.
        gone: it was removed.
    """

    __slots__ = (
        "children", "delegated", "events", "frozen", "gone", "limits", "members", "name", "number", "parent", "peaks",
        "spent",
    )  # fmt: skip

    def __init__(self, name: str, number: int, parent: Cgroup | None) -> None:
        self.name = name
        self.number = number
        self.parent = parent
        self.children: dict[str, Cgroup] = {}
        self.members: dict[Process, tuple[int, int]] = {}
        self.spent = (0, 0)
        self.delegated: set[str] = set()
        self.limits: dict[str, int | None] = {}
        self.events: dict[tuple[str, str], int] = {}
        self.peaks: dict[str, int] = {}
        self.frozen = self.gone = False

    @property
    def controllers(self) -> tuple[str, ...]:
        """Those it can use: what its parent hands down; the root has all."""
        parent = self.parent
        return CONTROLLERS if parent is None else tuple(one for one in CONTROLLERS if one in parent.delegated)

    @property
    def path(self) -> str:
        """From the root."""
        names = [one.name for one in self.upwards() if one.parent is not None]
        return "/" + "/".join(reversed(names))

    def upwards(self) -> Iterator[Cgroup]:
        """It and its ancestors, the root last."""
        group: Cgroup | None = self
        while group is not None:
            yield group
            group = group.parent

    def subtree(self) -> list[Cgroup]:
        """It and all below it."""
        found = [self]
        for one in found:  # the list grows
            found += one.children.values()
        return found

    def count(self, file: str, word: str) -> None:
        """One more event."""
        self.events[file, word] = self.events.get((file, word), 0) + 1

    def living(self) -> list[Process]:
        """The processes in it; the others are forgotten, but for the time they took."""
        gone = [one for one in self.members if one.status is not None and one.pid not in one.kernel.processes]
        for one in gone:
            self._leave(one)
        return [one for one in self.members if one.status is None]

    def _leave(self, process: Process) -> None:
        user, system = self._took(process)
        self.spent = self.spent[0] + user, self.spent[1] + system
        del self.members[process]

    def _took(self, process: Process) -> tuple[int, int]:
        usage, before = process.total_usage(), self.members[process]
        return usage.cpu_ns - usage.system_ns - before[0], usage.system_ns - before[1]

    def times(self) -> tuple[int, int]:
        """User and system time of it and all below it, in ns."""
        user = system = 0
        for group in self.subtree():
            took = [group.spent, *(group._took(one) for one in group.members)]
            user, system = user + sum(one[0] for one in took), system + sum(one[1] for one in took)
        return user, system


class Hierarchy:
    """The tree of groups. A process that is in none of them is in the root, which keeps no list."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._last_number = 1
        self.root = Cgroup("", 1, None)

    # The tree

    def make(self, parent: Cgroup, name: str) -> Cgroup:
        """A new group. Raises LinuxError: EEXIST, EINVAL for a bad name, EAGAIN at a limit of depth or number."""
        if parent.gone:
            raise LinuxError(ENODEV)
        if name in parent.children:
            raise LinuxError(EEXIST)
        if "\n" in name:
            raise LinuxError(EINVAL, "the name of a cgroup has no newline")
        for depth, above in enumerate(parent.upwards(), 1):
            most, deepest = above.limits.get("cgroup.max.descendants"), above.limits.get("cgroup.max.depth")
            if (most is not None and len(above.subtree()) > most) or (deepest is not None and depth > deepest):
                raise LinuxError(EAGAIN, f"{above.path} may have no more descendants")
        self._last_number += 1
        made = parent.children[name] = Cgroup(name, self._last_number, parent)
        return made

    def remove(self, group: Cgroup) -> None:
        """Take a group away; EBUSY while it has children or processes."""
        if group.parent is None or group.children or group.living():
            raise LinuxError(EBUSY, "the cgroup has children or processes")
        parent = group.parent
        user, system = group.times()
        parent.spent = parent.spent[0] + user, parent.spent[1] + system
        group.gone = True
        del parent.children[group.name]

    def of(self, process: Process) -> Cgroup:
        """The group a process is in."""
        group: Cgroup = process_state(process).cgroup or self.root
        return group

    def processes(self, group: Cgroup) -> list[Process]:
        """The living processes that are in the very group, by number."""
        if group.parent is not None:
            found = group.living()
        else:
            found = [one for one in self.kernel.processes.values() if one.status is None and self.of(one) is group]
        return sorted(found, key=lambda one: one.pid)

    def populated(self, group: Cgroup) -> bool:
        """Whether there is a living process in it or below it."""
        return any(self.processes(one) for one in group.subtree())

    def tasks(self, group: Cgroup) -> int:
        """How many threads it and what is below it have."""
        return sum(len(process.tasks) for one in group.subtree() for process in self.processes(one))

    # Members

    def demand_room(self, group: Cgroup) -> None:
        """EBUSY for a group that hands controllers on: its processes are in its children; ENODEV if it is gone."""
        if group.gone:
            raise LinuxError(ENODEV)
        if group.parent is not None and group.delegated:
            raise LinuxError(EBUSY, f"{group.path} hands controllers to its children, and has no processes itself")

    def move(self, process: Process, group: Cgroup) -> None:
        """Put a process with all its threads into a group."""
        self.demand_room(group)
        if process.status is not None:
            raise LinuxError(ESRCH)
        self.join(process, group)

    def join(self, process: Process, group: Cgroup) -> None:
        """As `move`, unchecked: for a child too, which is where its parent is."""
        state = process_state(process)
        old: Cgroup | None = state.cgroup
        if old is not None and process in old.members:
            old._leave(process)
        if group.parent is None:
            state.cgroup = None
        else:
            usage = process.total_usage()
            state.cgroup = group
            group.members[process] = usage.cpu_ns - usage.system_ns, usage.system_ns
            if len(group.members) > _FOLD_AT:
                group.living()
        self._settle_freezing(process)

    def for_child(self, task: Task, descriptor: int) -> Cgroup | None:
        """The group that a new process is to be in: its parent's, or the one an open directory of cgroup2 stands for.

        None is the root. Raises LinuxError: EBADF for another file, EAGAIN where pids.max is reached, EBUSY, ENODEV.
        """
        group: Cgroup | None = process_state(task.process).cgroup
        if descriptor >= 0:
            group = getattr(task.process.files.get(descriptor).inode, "group", None)
            if not isinstance(group, Cgroup):
                raise LinuxError(EBADF, "no directory of cgroup2")
            self.demand_room(group)
        if group is not None:
            self.demand_task(group)
        return group

    def demand_task(self, group: Cgroup) -> None:
        """EAGAIN if a group may have no more threads (pids_can_fork)."""
        for above in group.upwards():
            most = above.limits.get("pids.max") if "pids" in above.controllers else None
            if most is not None and self.tasks(above) >= most:
                group.count("pids.events", "max")
                raise LinuxError(EAGAIN, f"{above.path} may have {most} processes (pids.max)")

    # Controllers

    def delegate(self, group: Cgroup, added: set[str], removed: set[str]) -> None:
        """Write to cgroup.subtree_control.

        Raises LinuxError: ENOENT for a controller the group does not have, EBUSY for one that a child hands on, or
        where the group has processes.
        """
        if not added <= set(group.controllers):
            raise LinuxError(ENOENT, f"{group.path} does not have the controller itself")
        wanted = group.delegated - removed | added
        for child in group.children.values():
            if child.delegated - wanted:
                raise LinuxError(EBUSY, f"{child.path} hands the controller on")
        if group.parent is not None and wanted and self.processes(group):
            raise LinuxError(EBUSY, f"{group.path} has processes")
        group.delegated = wanted

    def kill(self, group: Cgroup) -> None:
        """SIGKILL to every process in it and below it."""
        for one in group.subtree():
            for process in self.processes(one):
                send(process, from_kernel(SIGKILL))

    def freeze(self, group: Cgroup, frozen: bool) -> None:
        """Stop, or let go on, all that is in it and below it."""
        group.frozen = frozen
        for one in group.subtree():
            for process in self.processes(one):
                self._settle_freezing(process)

    def _settle_freezing(self, process: Process) -> None:
        from loadstone.linux import jobs

        wanted = any(one.frozen for one in self.of(process).upwards())
        if wanted != process_state(process).frozen:
            (jobs.freeze if wanted else jobs.thaw)(process)

    def is_frozen(self, group: Cgroup) -> bool:
        """Whether it was asked to be frozen, or something above it, and all its threads are."""
        if not any(one.frozen for one in group.upwards()):
            return False
        return all(task.state == STOPPED for process in self.processes(group) for task in process.tasks)

    # Memory

    def memory(self, group: Cgroup) -> int:
        """Bytes of anonymous and shared memory that the processes of it and below it have resident."""
        frames: set[int] = set()
        for space in self._spaces(group):
            _add_frames(space, frames)
        used = len(frames) * _PAGE
        group.peaks["memory.peak"] = max(used, group.peaks.get("memory.peak", 0))
        return used

    def _spaces(self, group: Cgroup) -> list[AddressSpace]:
        found = [process.space for one in group.subtree() for process in self.processes(one)]
        return list({id(space): space for space in found}.values())

    def hold_limits(self, task: Task) -> None:
        """Look whether the task's group, or one above it, has more memory than it may; make it less."""
        group: Cgroup | None = process_state(task.process).cgroup
        while group is not None and group.parent is not None:
            if "memory" in group.controllers:
                limit = min(_bytes(group, "memory.max"), _bytes(group, "memory.high"))
                resident = sum(space.resident_pages for space in self._spaces(group)) * _PAGE
                if resident > limit and self.memory(group) > limit:
                    self._make_less(group)
            group = group.parent

    def _make_less(self, group: Cgroup) -> None:
        """Drop what may be dropped; if that is not enough for memory.max, kill the process that has most."""
        for space in self._spaces(group):
            for area in list(space.vmas):
                if area.flags & DROPPABLE:
                    zap(space, area, area.start, area.end)
        limit = _bytes(group, "memory.max")
        if self.memory(group) <= limit:
            group.count("memory.events", "high" if limit > _bytes(group, "memory.high") else "max")
            return
        for word in ("max", "oom", "oom_kill"):
            group.count("memory.events", word)
        candidates = [process for one in group.subtree() for process in self.processes(one)]
        victim = max(candidates, key=lambda one: one.space.resident_pages)
        killed = f"{victim.name} (pid {victim.pid}) is killed"
        note = f"out of memory: {group.path} may have {limit:,} bytes (memory.max); {killed}"
        self.kernel.exit_process(victim, ExitStatus(signal=SIGKILL, note=note))


def _bytes(group: Cgroup, file: str) -> int:
    limit = group.limits.get(file)
    return limit if limit is not None else 1 << 63


def _add_frames(space: AddressSpace, frames: set[int]) -> None:
    """The frames of anonymous and shared memory that a space has; those of files are the page cache's."""
    owner = space.memory.owner
    for area in space.vmas:
        shared = isinstance(area.backing, SharedMemory)
        for _, _, entries in space.page_table.runs(area.start, area.end):
            here = [(entry & FRAME_MASK) >> FRAME_SHIFT for entry in entries if entry]
            frames.update(here if shared else [frame for frame in here if owner(frame) == ANONYMOUS])
    frames.discard(space.memory.zero_frame)
