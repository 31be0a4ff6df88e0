"""/proc/PID/uid_map, gid_map and setgroups: what they show, and who may write what (kernel/user_namespace.c)."""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SETFCAP, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, capable_in
from loadstone.linux.namespaces import users_of
from loadstone.linux.namespaces.users import NOBODY, Extent, IdMap

if TYPE_CHECKING:
    from loadstone.kernel.process import Process
    from loadstone.linux.namespaces.users import UserNamespace

_PAGE = 4096
_MOST_EXTENTS = 340  # UID_GID_MAP_MAX_EXTENTS
USERS, GROUPS = "uids", "gids"


def shown(process: Process, which: str, reader: Process) -> bytes:
    """The map of a process's namespace, in the numbers of who reads it (uid_m_show)."""
    namespace, base = users_of(process), users_of(reader)
    if base is namespace and namespace.owner is not None:
        base = namespace.owner
    numbers: IdMap = getattr(base, which)
    mapped: IdMap = getattr(namespace, which)
    lines = (b"%10d %10d %10d\n" % (one.first, numbers.inside(one.lower), one.size) for one in mapped.extents)
    return b"".join(lines)


def write(process: Process, which: str, writer: Process, data: bytes) -> None:
    """Set the map of a process's namespace, once and for all (map_write).

    Raises LinuxError: EPERM for who may not, EINVAL for what is no map.
    """
    namespace = users_of(process)
    above = namespace.owner
    mine = users_of(writer)
    if above is None or mine not in (namespace, above):
        raise LinuxError(EPERM, "maps are written from inside the namespace or from the one above it")
    if len(data) >= _PAGE:
        raise LinuxError(EINVAL, "a map is written at once, and is shorter than a page")
    if getattr(namespace, which).extents or not capable_in(writer.credentials, namespace, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, "a map is written once, with CAP_SYS_ADMIN in the namespace")
    asked = _parsed(data)
    if not _may_map(namespace, above, which, writer, asked):
        raise LinuxError(EPERM, "numbers that the writer may not give away")
    setattr(namespace, which, IdMap(_in_the_machine(asked, getattr(above, which))))


def _parsed(data: bytes) -> list[Extent]:
    """The lines `first lower count`."""
    found: list[Extent] = []
    for line in data.rstrip(b"\n").split(b"\n"):
        words = line.split()
        if len(words) != 3 or not all(word.isdigit() for word in words):
            raise LinuxError(EINVAL, f"no line of a map: {line!r}")
        one = Extent(*map(int, words))
        if not one.size or max(one.first, one.lower) + one.size > NOBODY:
            raise LinuxError(EINVAL, f"numbers out of range: {line!r}")
        if any(_overlap(one, other) for other in found):
            raise LinuxError(EINVAL, f"numbers that are mapped already: {line!r}")
        found.append(one)
    if len(found) > _MOST_EXTENTS:
        raise LinuxError(EINVAL, f"a map of {len(found)} lines")
    return found


def _overlap(one: Extent, other: Extent) -> bool:
    first = one.first < other.first + other.size and other.first < one.first + one.size
    return first or (one.lower < other.lower + other.size and other.lower < one.lower + one.size)


def _may_map(namespace: UserNamespace, above: UserNamespace, which: str, writer: Process, asked: list[Extent]) -> bool:
    """Kernel: new_idmap_permitted. Anybody may map themselves; more needs the privilege to become those others."""
    who = writer.credentials
    inside = users_of(writer) is namespace
    if which == USERS and any(one.lower == 0 for one in asked):
        allowed = namespace.may_set_file_capabilities if inside else capable_in(who, above, CAP_SETFCAP)
        if not allowed:
            return False
    if len(asked) == 1 and asked[0].size == 1 and namespace.uid == who.euid:
        numbers: IdMap = getattr(above, which)
        meant = numbers.outside(asked[0].lower)
        if meant == who.euid if which == USERS else not namespace.setgroups and meant == who.egid:
            return True
    return capable_in(who, above, CAP_SETUID if which == USERS else CAP_SETGID)


def _in_the_machine(asked: list[Extent], above: IdMap) -> list[Extent]:
    """The same map with the machine's numbers; EPERM where the namespace above has not mapped them."""
    made = []
    for one in asked:
        start, end = above.outside(one.lower), above.outside(one.lower + one.size - 1)
        if NOBODY in (start, end) or end - start != one.size - 1:
            raise LinuxError(EPERM, "numbers that the namespace above has not mapped")
        made.append(one._replace(lower=start))
    return made


def setgroups_shown(process: Process) -> bytes:
    """`allow` or `deny`."""
    return b"allow\n" if users_of(process).setgroups else b"deny\n"


def write_setgroups(process: Process, writer: Process, data: bytes) -> None:
    """Give setgroups(2) up, before groups are mapped; what was given up does not come back (proc_setgroups_write)."""
    namespace = users_of(process)
    if not capable_in(writer.credentials, namespace, CAP_SYS_ADMIN):
        raise LinuxError(EACCES, "CAP_SYS_ADMIN in the namespace is needed")
    word = data.rstrip()
    if len(data) > 7 or word not in (b"allow", b"deny"):
        raise LinuxError(EINVAL, f"neither allow nor deny: {data!r}")
    if word == b"deny" and namespace.setgroups and namespace.gids.extents:
        raise LinuxError(EPERM, "groups are mapped already")
    if word == b"allow" and not namespace.setgroups:
        raise LinuxError(EPERM, "setgroups was given up")
    namespace.setgroups = word == b"allow"
