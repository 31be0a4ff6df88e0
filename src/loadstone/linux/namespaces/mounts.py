"""Mount namespaces: which tree of mounts a process sees (fs/namespace.c).

The mounts of all namespaces are in one table of the machine's files: each namespace has mounts of its own, and what a
process sees is what can be reached from its root directory.
"""

from __future__ import annotations

from errno import EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SYS_ADMIN, capable_in
from loadstone.linux.clone_flags import CLONE_NEWNS
from loadstone.linux.namespaces.base import FIRST_MOUNT, Namespace
from loadstone.linux.state import task_state
from loadstone.vfs.location import Location
from loadstone.vfs.mounting import copy_tree, drop_tree

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import FsContext, Task
    from loadstone.linux.namespaces.users import UserNamespace
    from loadstone.vfs.location import Mount


class MountNamespace(Namespace):
    """A tree of mounts, below `root`."""

    __slots__ = ("_kernel", "root")

    kind = "mnt"
    flag = CLONE_NEWNS

    def __init__(self, number: int, owner: UserNamespace, kernel: Kernel, root: Mount) -> None:
        super().__init__(number, owner)
        self._kernel = kernel
        self.root = root

    def copy(self, number: int, owner: UserNamespace) -> tuple[MountNamespace, dict[Mount, Mount]]:
        """Another namespace with the same mounts, and which of its mounts is which of these (copy_mnt_ns).

        One of another user namespace follows shared mounts at most, so that nothing it does comes back, and cannot
        uncover what its mounts cover.
        """
        moved = copy_tree(self._kernel.vfs, self.root, self._kernel.vfs.other_roots)
        if owner is not self.owner:
            for mount in moved.values():
                mount.group, mount.master = 0, mount.group or mount.master
                mount.locked = mount.at is not None
        return MountNamespace(number, owner, self._kernel, moved[self.root]), moved

    @property
    def top(self) -> Location:
        """Where a process that comes in finds itself."""
        return self._kernel.vfs.topmost(Location(self.root, self.root.root))

    def __del__(self) -> None:
        """Nobody is in it: what is mounted there is taken away. The machine's first one goes with the machine."""
        if self.number != FIRST_MOUNT and not self._kernel.memory.closed:
            drop_tree(self._kernel.vfs, self.root, self._kernel.vfs.other_roots)


def follow(fs: FsContext, moved: dict[Mount, Mount]) -> None:
    """The directories of a process that has come into a copy of its mount namespace are the same ones there."""
    fs.root = Location(moved.get(fs.root.mount, fs.root.mount), fs.root.dentry)
    fs.cwd = Location(moved.get(fs.cwd.mount, fs.cwd.mount), fs.cwd.dentry)


def demand_privilege(task: Task) -> None:
    """EPERM without CAP_SYS_ADMIN in the user namespace that the mount namespace belongs to (may_mount)."""
    state, who = task_state(task), task.process.credentials
    owner = state.namespaces.mounts.owner if state.namespaces is not None else None
    if not capable_in(who, owner, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, "mounts are for CAP_SYS_ADMIN")
