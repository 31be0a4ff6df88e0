"""Namespaces: which of the machine's names, numbers and tables a thread sees (kernel/nsproxy.c).

Most machines never have but the first namespace of each kind. What threads keep is therefore None until one of them
makes another namespace, and the objects of the first ones are made when somebody asks for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from loadstone.lean import NamedTuple
from loadstone.linux.namespaces import base
from loadstone.linux.namespaces.cgroups import CgroupNamespace
from loadstone.linux.namespaces.ipc import IpcNamespace
from loadstone.linux.namespaces.mounts import MountNamespace
from loadstone.linux.namespaces.network import NetNamespace
from loadstone.linux.namespaces.pids import PidNamespace
from loadstone.linux.namespaces.times import TimeNamespace
from loadstone.linux.namespaces.users import UserNamespace
from loadstone.linux.namespaces.uts import UtsNamespace
from loadstone.linux.of_task import pids_of
from loadstone.linux.state import task_state

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.personality import Linux
    from loadstone.linux.profile import KernelProfile
    from loadstone.linux.syscalls.dispatch import SystemCalls


class Namespaces(NamedTuple):
    """The namespaces of a thread (the kernel's struct nsproxy), but for the user namespace, which its credentials have,
    and the PID namespace that it is itself in, which its process keeps for good.
    """

    uts: UtsNamespace
    ipc: IpcNamespace
    mounts: MountNamespace
    net: NetNamespace
    cgroup: CgroupNamespace
    pids: PidNamespace  # that children are born in
    time: TimeNamespace
    time_for_children: TimeNamespace

    def begun(self) -> Namespaces:
        """With the time namespace of children as its own, for a child or after exec (timens_on_fork)."""
        self.time_for_children.begun = True
        return self._replace(time=self.time_for_children)


class MachineNamespaces:
    """What a machine knows of namespaces.

    Attributes:
        users: the first user namespace.
        first: the other namespaces that a machine starts with.
        kept_bytes: how much kernel memory semaphores and messages take, in all IPC namespaces.
    """

    def __init__(self, kernel: Kernel) -> None:
        profile: KernelProfile = kernel.profile
        users = self.users = UserNamespace(base.FIRST_USER, None)
        time = TimeNamespace(base.FIRST_TIME, users)
        self.first = Namespaces(
            UtsNamespace(base.FIRST_UTS, users, profile.nodename, profile.domainname),
            IpcNamespace(base.FIRST_IPC, users),
            MountNamespace(base.FIRST_MOUNT, users, kernel, kernel.vfs.root.mount),
            NetNamespace(base.FIRST_NET, users, kernel.vfs.sockets),
            CgroupNamespace(base.FIRST_CGROUP, users),
            PidNamespace(base.FIRST_PID, users),
            time,
            time,
        )
        self.kept_bytes = 0
        self._next_number = base.FIRST_LATER
        self._translates = False

    def translate(self, calls: SystemCalls) -> None:
        """There is about to be a second PID or user namespace: from now on numbers in system calls are translated."""
        if not self._translates:
            from loadstone.linux.namespaces.translation import translated

            self._translates = True
            calls.registry.call_through(translated)

    def new_number(self) -> int:
        """The inode number of another namespace."""
        self._next_number += 1
        return self._next_number - 1


def machine_namespaces(kernel: Kernel) -> MachineNamespaces:
    """Those of a machine; made when first asked for."""
    linux = cast("Linux", kernel.personality)
    if linux.namespaces is None:
        linux.namespaces = MachineNamespaces(kernel)
    return linux.namespaces


def namespaces_of(task: Task) -> Namespaces:
    """The namespaces of a thread."""
    state = task_state(task)
    return state.namespaces or machine_namespaces(task.kernel).first


def pid_namespace_of(process: Process) -> PidNamespace:
    """The PID namespace that a process was born in."""
    return pids_of(process) or machine_namespaces(process.kernel).first.pids


def users_of(process: Process) -> UserNamespace:
    """The user namespace of a process."""
    users: UserNamespace | None = process.credentials.users
    return users or machine_namespaces(process.kernel).users
