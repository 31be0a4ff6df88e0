"""How a thread comes into other namespaces: new ones by unshare(2) and clone(2), those of others by setns(2).

Sources: kernel/nsproxy.c, kernel/fork.c.
"""

from __future__ import annotations

from errno import EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SYS_ADMIN, capable, capable_in
from loadstone.linux.clone import CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWUTS
from loadstone.linux.namespaces import machine_namespaces, namespaces_of, users_of
from loadstone.linux.namespaces.cgroups import CgroupNamespace
from loadstone.linux.namespaces.ipc import IpcNamespace
from loadstone.linux.namespaces.mounts import MountNamespace
from loadstone.linux.namespaces.network import NetNamespace
from loadstone.linux.namespaces.pids import PidNamespace
from loadstone.linux.namespaces.uts import UtsNamespace
from loadstone.linux.refusals import count_refusal
from loadstone.linux.state import task_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.namespaces import Namespaces
    from loadstone.linux.namespaces.base import Namespace
    from loadstone.linux.namespaces.users import UserNamespace

BUILT = CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP  # the kinds of which there can be more than one
_NAMES = {
    0x80: "CLONE_NEWTIME", 0x20000: "CLONE_NEWNS", 0x2000000: "CLONE_NEWCGROUP", 0x8000000: "CLONE_NEWIPC",
    0x10000000: "CLONE_NEWUSER", 0x20000000: "CLONE_NEWPID", 0x40000000: "CLONE_NEWNET",
}  # fmt: skip


def demand_built(task: Task, flags: int, what: str) -> None:
    """EPERM for kinds of namespaces that are not built, counted by name."""
    for flag, name in _NAMES.items():
        if flags & flag & ~BUILT:
            count_refusal(task, f"{what} {name}")
            raise LinuxError(EPERM, f"{name} is not built")


def make_for(task: Task, to: Task, flags: int) -> None:
    """Put `to`, the thread itself or the child it makes, into new namespaces as `flags` ask.

    Raises LinuxError(EPERM) without CAP_SYS_ADMIN.
    """
    if not capable(to.process.credentials, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, "a namespace needs CAP_SYS_ADMIN")
    task_state(to).namespaces = _made(to, namespaces_of(task), flags, users_of(to.process))


def _made(to: Task, now: Namespaces, flags: int, owner: UserNamespace) -> Namespaces:
    """The namespaces `now`, those in `flags` replaced by new ones."""
    number = machine_namespaces(to.kernel).new_number
    if flags & CLONE_NEWUTS:
        now = now._replace(uts=now.uts.copy(number(), owner))
    if flags & CLONE_NEWIPC:
        now = now._replace(ipc=IpcNamespace(number(), owner))
    if flags & CLONE_NEWCGROUP:
        now = now._replace(cgroup=CgroupNamespace(number(), owner))
    return now


def enter(task: Task, wanted: list[Namespace]) -> None:
    """setns(2): go into all of these. Nothing has changed if one of them is refused: EPERM, EINVAL."""
    now = namespaces_of(task)
    for namespace in wanted:
        now = _ENTERED[type(namespace)](task, now, namespace)
    task_state(task).namespaces = now


def _demand_privilege(task: Task, namespace: Namespace) -> None:
    """CAP_SYS_ADMIN counts in the namespace that is entered, and where the caller is."""
    who = task.process.credentials
    if not capable_in(who, namespace.owner, CAP_SYS_ADMIN) or not capable(who, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, f"entering {namespace.name} needs CAP_SYS_ADMIN")


def _into_uts(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    assert isinstance(namespace, UtsNamespace)
    _demand_privilege(task, namespace)
    return now._replace(uts=namespace)


def _into_ipc(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    assert isinstance(namespace, IpcNamespace)
    _demand_privilege(task, namespace)
    return now._replace(ipc=namespace)


def _into_cgroup(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    assert isinstance(namespace, CgroupNamespace)
    _demand_privilege(task, namespace)
    return now._replace(cgroup=namespace)


def _into_only(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    """A kind of which there is only one: everybody is there already."""
    _demand_privilege(task, namespace)
    return now


_ENTERED: dict[type[Namespace], Callable[[Task, Namespaces, Namespace], Namespaces]] = {
    UtsNamespace: _into_uts,
    IpcNamespace: _into_ipc,
    CgroupNamespace: _into_cgroup,
    MountNamespace: _into_only,
    NetNamespace: _into_only,
    PidNamespace: _into_only,
}
