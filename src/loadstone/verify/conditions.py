"""What verdicts depend on besides the file: the kernel, its settings, and who asks."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator

from loadstone.linux.profile import live_profile
from loadstone.verify.host_world import CAP_SYS_RAWIO, own_capabilities
from loadstone.vfs.host import HostTree

_OVERCOMMIT = {0: "0, refuse what could never fit", 1: "1, refuse nothing", 2: "2, keep every promise"}
_LIMITS = (("stack", resource.RLIMIT_STACK), ("address space", resource.RLIMIT_AS), ("data", resource.RLIMIT_DATA))
_BINFMT_MISC = "/proc/sys/fs/binfmt_misc"


def conditions() -> list[tuple[str, str]]:
    """(what, value), in words."""
    return list(_conditions())


def _conditions() -> Iterator[tuple[str, str]]:
    profile, uname = live_profile(), os.uname()
    yield "kernel", f"{uname.sysname} {uname.release} {uname.machine}"
    yield "memory", f"{profile.memory_size // 4096:,} pages ({profile.memory_size >> 20:,} MiB)"
    yield "vm.overcommit_memory", _OVERCOMMIT.get(profile.overcommit, str(profile.overcommit))
    low = "; CAP_SYS_RAWIO passes it" if own_capabilities() & 1 << CAP_SYS_RAWIO else ""
    yield "vm.mmap_min_addr", f"{profile.mmap_min_addr}{low}"
    yield "lowest place found", f"{max(profile.mmap_min_addr, profile.lsm_mmap_min_addr)} (CONFIG_LSM_MMAP_MIN_ADDR)"
    yield "vm.max_map_count", str(profile.max_map_count)
    for name, number in _LIMITS:
        yield f"limit: {name}", _size(resource.getrlimit(number)[0])
    yield "user", f"{os.geteuid()}" + (", who also executes as user 65534" if not os.geteuid() else "")
    place = tempfile.gettempdir()
    tree = HostTree("/", 16)
    try:
        kind = tree.kind(os.stat(place).st_dev) or "an unknown file system"
    finally:
        tree.close()
    yield "files in", f"{place}, {kind}"
    yield "binfmt_misc", _registered()


def _size(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,} bytes"


def _registered() -> str:
    """Formats that the host has registered, which it asks before its own."""
    try:
        names = sorted(set(os.listdir(_BINFMT_MISC)) - {"register", "status"})
    except OSError:
        return "not mounted"
    return ", ".join(names) or "no formats"
