"""How a thread comes into other namespaces: new ones by unshare(2) and clone(2), those of others by setns(2).

Sources: kernel/nsproxy.c, kernel/fork.c.
"""

from __future__ import annotations

from errno import EINVAL, ENOSPC, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import (
    ALL_CAPABILITIES,
    CAP_SETFCAP,
    CAP_SYS_ADMIN,
    Capabilities,
    capable,
    capable_in,
)
from loadstone.linux.clone import CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWTIME, CLONE_NEWUSER, CLONE_NEWUTS, NAMESPACES
from loadstone.linux.namespaces import machine_namespaces, namespaces_of, users_of
from loadstone.linux.namespaces.cgroups import CgroupNamespace
from loadstone.linux.namespaces.ipc import IpcNamespace
from loadstone.linux.namespaces.mounts import MountNamespace
from loadstone.linux.namespaces.network import NetNamespace
from loadstone.linux.namespaces.pids import PidNamespace
from loadstone.linux.namespaces.users import DEEPEST, NOBODY, UserNamespace
from loadstone.linux.namespaces.uts import UtsNamespace
from loadstone.linux.of_task import linux_of
from loadstone.linux.refusals import count_refusal
from loadstone.linux.state import task_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Credentials, Process, Task
    from loadstone.linux.namespaces import Namespaces
    from loadstone.linux.namespaces.base import Namespace

BUILT = CLONE_NEWUSER | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP  # the kinds of which there can be more than one
_ALL = NAMESPACES | CLONE_NEWTIME
_NAMES = {
    0x80: "CLONE_NEWTIME", 0x20000: "CLONE_NEWNS", 0x2000000: "CLONE_NEWCGROUP", 0x8000000: "CLONE_NEWIPC",
 0x20000000: "CLONE_NEWPID", 0x40000000: "CLONE_NEWNET",
}  # fmt: skip


def demand_built(task: Task, flags: int, what: str) -> None:
    """EPERM for kinds of namespaces that are not built, counted by name."""
    for flag, name in _NAMES.items():
        if flags & flag & ~BUILT:
            count_refusal(task, f"{what} {name}")
            raise LinuxError(EPERM, f"{name} is not built")


def make_for(task: Task, to: Task, flags: int) -> None:
    """Put `to`, the thread itself or the child it makes, into new namespaces as `flags` ask.

    A new user namespace comes first: in it there is CAP_SYS_ADMIN, which the others need. Raises LinuxError: EPERM,
    ENOSPC.
    """
    if flags & CLONE_NEWUSER:
        _make_users(to)
    if not flags & ~CLONE_NEWUSER & _ALL:
        return
    if not capable(to.process.credentials, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, "a namespace needs CAP_SYS_ADMIN")
    task_state(to).namespaces = _made(to, namespaces_of(task), flags, users_of(to.process))


def _make_users(to: Task) -> None:
    """A user namespace, in which the process has every capability (create_user_ns)."""
    process, above = to.process, users_of(to.process)
    who = process.credentials
    if above.level > DEEPEST:
        raise LinuxError(ENOSPC, f"more than {DEEPEST} user namespaces in one another")
    if process.fs.root != process.kernel.vfs.root:
        raise LinuxError(EPERM, "not from another root directory than the mount namespace's")
    if NOBODY in (above.uids.inside(who.euid), above.gids.inside(who.egid)):
        raise LinuxError(EPERM, "who makes one has to have a number in the one above")
    machine = machine_namespaces(to.kernel)
    machine.translate(linux_of(to).calls)
    made = UserNamespace(machine.new_number(), above, who.euid, who.egid)
    made.may_set_file_capabilities = capable(who, CAP_SETFCAP)
    _become_all_powerful(who, made)


def _become_all_powerful(who: Credentials, users: UserNamespace) -> None:
    """All capabilities, in that user namespace (set_cred_user_ns)."""
    who.users = users if users.level else None
    who.capabilities = Capabilities(ALL_CAPABILITIES, ALL_CAPABILITIES)


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
    process, before = task.process, task.process.credentials.copy()
    try:
        for namespace in wanted:
            now = _ENTERED[type(namespace)](task, now, namespace)
    except LinuxError:
        process.credentials.users, process.credentials.capabilities = before.users, before.capabilities
        raise
    task_state(task).namespaces = now


def _demand_privilege(task: Task, namespace: Namespace) -> None:
    """CAP_SYS_ADMIN counts in the namespace that is entered, and where the caller is."""
    who = task.process.credentials
    if not capable_in(who, namespace.owner, CAP_SYS_ADMIN) or not capable(who, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, f"entering {namespace.name} needs CAP_SYS_ADMIN")


def _into_users(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    """Kernel: userns_install."""
    assert isinstance(namespace, UserNamespace)
    process = task.process
    if namespace is users_of(process):
        raise LinuxError(EINVAL, "the process is in that user namespace, and gets no capabilities back")
    if len(process.tasks) > 1 or is_shared(process):
        raise LinuxError(EINVAL, "user namespaces are not for one thread of several, or for shared directories")
    if not capable_in(process.credentials, namespace, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, f"entering {namespace.name} needs CAP_SYS_ADMIN in it")
    _become_all_powerful(process.credentials, namespace)
    return now


def is_shared(process: Process) -> bool:
    """Whether another process has the same working directory and root (CLONE_FS)."""
    return any(other.fs is process.fs for other in process.kernel.processes.values() if other is not process)


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
    UserNamespace: _into_users,
    UtsNamespace: _into_uts,
    IpcNamespace: _into_ipc,
    CgroupNamespace: _into_cgroup,
    MountNamespace: _into_only,
    NetNamespace: _into_only,
    PidNamespace: _into_only,
}
