"""ioctl_ns(2): what an open namespace says of itself and of those above it (fs/nsfs.c)."""

from __future__ import annotations

from errno import EINVAL, ENOTTY, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import user_shown
from loadstone.linux.namespaces import pid_namespace_of, users_of
from loadstone.linux.namespaces.files import NamespaceFile, place_of
from loadstone.linux.namespaces.pids import PidNamespace
from loadstone.linux.namespaces.users import UserNamespace
from loadstone.linux.refusals import count_refusal
from loadstone.memory.user import copy_out
from loadstone.vfs.flags import O_RDONLY

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.namespaces.base import Namespace

# include/uapi/linux/nsfs.h
NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE, NS_GET_OWNER_UID = range(0xB701, 0xB705)
_UID = Struct("<I")


def answer(task: Task, file: NamespaceFile, request: int, argument: int) -> int:
    """One request. Raises LinuxError: ENOTTY, EINVAL for what the namespace does not have, EPERM for what is above."""
    namespace = file.namespace
    if request == NS_GET_NSTYPE:
        return namespace.flag
    if request == NS_GET_USERNS:
        return _opened(task, _visible_users(task, namespace.owner))
    if request == NS_GET_PARENT:
        return _opened(task, _parent(task, namespace))
    if request == NS_GET_OWNER_UID:
        if not isinstance(namespace, UserNamespace):
            raise LinuxError(EINVAL, "only user namespaces are somebody's")
        copy_out(task.process.space, argument, _UID.pack(user_shown(task.process.credentials, namespace.uid)))
        return 0
    count_refusal(task, f"ioctl {request:#x} of a namespace")
    raise LinuxError(ENOTTY, "not a request for namespaces")


def _parent(task: Task, namespace: Namespace) -> Namespace:
    """The namespace above, of the kinds that are in one another."""
    if isinstance(namespace, UserNamespace):
        return _visible_users(task, namespace.owner)
    if isinstance(namespace, PidNamespace):
        above = namespace.above
        if above is None or not above.is_below(pid_namespace_of(task.process)):
            raise LinuxError(EPERM, "a namespace above the caller's")
        return above
    raise LinuxError(EINVAL, f"{namespace.name} is in no other")


def _visible_users(task: Task, found: UserNamespace | None) -> UserNamespace:
    """What is not the caller's user namespace, or below it, is not for the caller to have."""
    if found is None or not found.is_below(users_of(task.process)):
        raise LinuxError(EPERM, "a namespace above the caller's")
    return found


def _opened(task: Task, namespace: Namespace) -> int:
    """A descriptor for another namespace."""
    place = place_of(namespace, task.kernel.clock.realtime_ns())
    return task.process.files.install(place.inode.open(O_RDONLY, place), cloexec=True)
