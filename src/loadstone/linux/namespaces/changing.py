"""How a thread comes into other namespaces: new ones by unshare(2) and clone(2), those of others by setns(2).

Sources: kernel/nsproxy.c, kernel/fork.c.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOSPC, EPERM, EUSERS
from itertools import zip_longest
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import INIT
from loadstone.linux.capabilities import (
    ALL_CAPABILITIES,
    CAP_CHECKPOINT_RESTORE,
    CAP_SETFCAP,
    CAP_SYS_ADMIN,
    CAP_SYS_CHROOT,
    Capabilities,
    capable,
    capable_in,
)
from loadstone.linux.clone_flags import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    CLONE_PARENT,
    CLONE_THREAD,
    CLONE_VM,
    NAMESPACES,
)
from loadstone.linux.namespaces import machine_namespaces, namespaces_of, pid_namespace_of, users_of
from loadstone.linux.namespaces.cgroups import CgroupNamespace
from loadstone.linux.namespaces.ipc import IpcNamespace
from loadstone.linux.namespaces.mounts import MountNamespace, follow
from loadstone.linux.namespaces.network import NetNamespace
from loadstone.linux.namespaces.pids import DEEPEST as DEEPEST_PIDS
from loadstone.linux.namespaces.pids import MOST_PIDS, PidNamespace
from loadstone.linux.namespaces.times import TimeNamespace
from loadstone.linux.namespaces.users import DEEPEST, NOBODY, UserNamespace
from loadstone.linux.namespaces.uts import UtsNamespace
from loadstone.linux.of_task import linux_of
from loadstone.linux.signal.signals import InitSignals
from loadstone.linux.state import process_state, task_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Credentials, Process, Task
    from loadstone.linux.clone import CloneArguments
    from loadstone.linux.namespaces import Namespaces
    from loadstone.linux.namespaces.base import Namespace
    from loadstone.vfs.location import Mount


def check_birth(task: Task, flags: int) -> None:
    """What copy_process refuses to a thread in other namespaces, or one that wants some for its child."""
    now, here = namespaces_of(task), pid_namespace_of(task.process)
    if flags & CLONE_THREAD and now.pids is not here:
        raise LinuxError(EINVAL, "a thread is in the PID namespace of its process")
    if flags & CLONE_PARENT and here.above is not None and here.init is task.process:
        raise LinuxError(EINVAL, "the first process of a PID namespace has no sisters")
    now.pids.demand_room()


def level_of_child(task: Task, flags: int) -> int:
    """How many PID namespaces there are above that of a child."""
    return namespaces_of(task).pids.level + bool(flags & CLONE_NEWPID)


def check_wanted(task: Task, asked: CloneArguments) -> None:
    """The numbers that clone3(2) asks for, the innermost first (alloc_pid): EINVAL, EPERM, EEXIST."""
    now, tasks = namespaces_of(task).pids, task.kernel.tasks
    spaces: list[PidNamespace | None] = [None] if asked.flags & CLONE_NEWPID else []
    spaces += [*now.up_to_first(), machine_namespaces(task.kernel).first.pids]
    if len(asked.wanted_pids) > len(spaces):
        raise LinuxError(EINVAL, f"{len(asked.wanted_pids)} numbers for {len(spaces)} PID namespaces")
    for wanted, space in zip(asked.wanted_pids, spaces, strict=False):
        begun = space is not None and (space.above is None or space.init is not None)
        if not 1 <= wanted < MOST_PIDS or (wanted != 1 and not begun):
            raise LinuxError(EINVAL, f"no process can be called {wanted}")
        owner = space.owner if space is not None else users_of(task.process)
        who = task.process.credentials
        if not capable_in(who, owner, CAP_SYS_ADMIN) and not capable_in(who, owner, CAP_CHECKPOINT_RESTORE):
            raise LinuxError(EPERM, "numbers are chosen with CAP_CHECKPOINT_RESTORE")
        if space is not None and (wanted == INIT or wanted in tasks if space.above is None else space.has(wanted)):
            raise LinuxError(EEXIST, f"a process is called {wanted} already")


def born(task: Task, child: Task, asked: CloneArguments) -> None:
    """Put a child into the namespaces of its parent, or into new ones, and give it its numbers there."""
    if asked.flags & NAMESPACES:
        follow(child.process.fs, make_for(task, child, asked.flags))
    now = namespaces_of(child)
    if now.time is not now.time_for_children and not asked.flags & CLONE_VM:
        task_state(child).namespaces = now.begun()
    pids = now.pids
    if pids.above is None:
        return
    for namespace, wanted in zip_longest(pids.up_to_first(), asked.wanted_pids[: pids.level], fillvalue=0):
        assert isinstance(namespace, PidNamespace)
        namespace.add(task.kernel, child.tid, wanted)
    if asked.flags & CLONE_THREAD:
        return
    process_state(child.process).pids = pids
    if pids.init is None:
        pids.init = child.process
        child.process.signals = InitSignals(child.process.signals)


def unborn(child: Task) -> None:
    """Undo `born`, for a child that did not come to be."""
    pids = namespaces_of(child).pids
    for namespace in pids.up_to_first():
        namespace.drop(child.tid)
    if pids.init is child.process:
        pids.init = None


def make_for(task: Task, to: Task, flags: int) -> dict[Mount, Mount]:
    """Put `to`, the thread itself or the child it makes, into new namespaces as `flags` ask.

    A new user namespace comes first: in it there is CAP_SYS_ADMIN, which the others need. Returns which mounts its
    directories are on from now on (`mounts.follow`). Raises LinuxError: EPERM, ENOSPC.
    """
    if flags & CLONE_NEWUSER:
        _make_users(to)
    if not flags & ~CLONE_NEWUSER & NAMESPACES:
        return {}
    if not capable(to.process.credentials, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, "a namespace needs CAP_SYS_ADMIN")
    now = _made(to, namespaces_of(task), flags, users_of(to.process))
    if flags & CLONE_NEWPID:
        now = now._replace(pids=_made_pids(task, users_of(to.process)))
    moved: dict[Mount, Mount] = {}
    if flags & CLONE_NEWNS:
        mounts, moved = now.mounts.copy(machine_namespaces(to.kernel).new_number(), users_of(to.process))
        now = now._replace(mounts=mounts)
    task_state(to).namespaces = now
    return moved


def _made_pids(task: Task, owner: UserNamespace) -> PidNamespace:
    """Kernel: copy_pid_ns, create_pid_namespace."""
    above = namespaces_of(task).pids
    if above is not pid_namespace_of(task.process):
        raise LinuxError(EINVAL, "children are in another PID namespace already")
    if above.level >= DEEPEST_PIDS:
        raise LinuxError(ENOSPC, f"more than {DEEPEST_PIDS} PID namespaces in one another")
    machine = machine_namespaces(task.kernel)
    machine.translate(linux_of(task).calls)
    return PidNamespace(machine.new_number(), owner, above)


def _make_users(to: Task) -> None:
    """A user namespace, in which the process has every capability (create_user_ns)."""
    process, above = to.process, users_of(to.process)
    who = process.credentials
    if above.level > DEEPEST:
        raise LinuxError(ENOSPC, f"more than {DEEPEST} user namespaces in one another")
    if process.fs.root != namespaces_of(to).mounts.top:
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
    if flags & CLONE_NEWNET:
        now = now._replace(net=now.net.another(number(), owner))
    if flags & CLONE_NEWTIME:
        now = now._replace(time_for_children=now.time.copy(number(), owner))
    if flags & CLONE_NEWCGROUP:
        now = now._replace(cgroup=CgroupNamespace(number(), owner))
    return now


def enter(task: Task, wanted: list[Namespace]) -> None:
    """setns(2): go into all of these. Nothing has changed if one of them is refused: EPERM, EINVAL."""
    now = namespaces_of(task)
    process, before = task.process, task.process.credentials.copy()
    directories = process.fs.copy()
    try:
        for namespace in wanted:
            now = _ENTERED[type(namespace)](task, now, namespace)
    except LinuxError:
        process.credentials.users, process.credentials.capabilities = before.users, before.capabilities
        process.fs.root, process.fs.cwd = directories.root, directories.cwd
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


def _into_mounts(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    """Root and working directory are the namespace's (mntns_install)."""
    assert isinstance(namespace, MountNamespace)
    process = task.process
    _demand_privilege(task, namespace)
    if not capable(process.credentials, CAP_SYS_CHROOT):
        raise LinuxError(EPERM, f"entering {namespace.name} needs CAP_SYS_CHROOT")
    if is_shared(process) or (len(process.tasks) > 1 and process.apart is None):
        raise LinuxError(EINVAL, "other threads or processes have the same directories")
    process.fs.root = process.fs.cwd = namespace.top
    return now._replace(mounts=namespace)


def _into_cgroup(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    assert isinstance(namespace, CgroupNamespace)
    _demand_privilege(task, namespace)
    return now._replace(cgroup=namespace)


def _into_pids(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    """Children will be born there; it must be the caller's own or below it (pidns_install)."""
    assert isinstance(namespace, PidNamespace)
    _demand_privilege(task, namespace)
    if not namespace.is_below(pid_namespace_of(task.process)):
        raise LinuxError(EINVAL, "a PID namespace above the caller's, or beside it")
    return now._replace(pids=namespace)


def _into_time(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    assert isinstance(namespace, TimeNamespace)
    if len(task.process.tasks) > 1:
        raise LinuxError(EUSERS, "the threads of a process have the same clocks")
    _demand_privilege(task, namespace)
    return now._replace(time_for_children=namespace).begun()


def _into_net(task: Task, now: Namespaces, namespace: Namespace) -> Namespaces:
    assert isinstance(namespace, NetNamespace)
    _demand_privilege(task, namespace)
    return now._replace(net=namespace)


_ENTERED: dict[type[Namespace], Callable[[Task, Namespaces, Namespace], Namespaces]] = {
    UserNamespace: _into_users,
    UtsNamespace: _into_uts,
    IpcNamespace: _into_ipc,
    CgroupNamespace: _into_cgroup,
    MountNamespace: _into_mounts,
    NetNamespace: _into_net,
    TimeNamespace: _into_time,
    PidNamespace: _into_pids,
}
