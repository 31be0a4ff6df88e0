"""System calls that tell about the machine: uname(2), sysinfo(2), times(2), getrandom(2)."""

from __future__ import annotations

from errno import EFAULT, EINVAL, EPERM
from os import fsdecode
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_SYS_ADMIN, capable_in
from loadstone.linux.namespaces import namespaces_of
from loadstone.linux.namespaces.uts import LONGEST
from loadstone.linux.state import UNAME26, process_state
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.transfer import write_struct
from loadstone.memory.user import copy_in, copy_out, pieces
from loadstone.memory.vma import PAGE

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Int, OutSysinfo, OutUname, RandomFlags, Size

_FIELD = 65
_SYSINFO = Struct("<q3Q6QHHxxxxQQI4x")
_TICKS = 100
_MAXIMUM = (1 << 31) - 4096  # one transfer's bound, MAX_RW_COUNT


@syscall(FULL)
def uname(task: Task, buffer: OutUname) -> int:
    """uname(2)."""
    profile, uts = task.kernel.profile, namespaces_of(task).uts
    release = profile.release
    if process_state(task.process).personality & UNAME26:
        release = _as_2_6(release)
    fields = (profile.sysname, uts.nodename, release, profile.version, profile.machine, uts.domainname)
    text = b"".join(field.encode("utf-8", "surrogateescape")[: _FIELD - 1].ljust(_FIELD, b"\0") for field in fields)
    copy_out(task.process.space, buffer, text)
    return 0


@syscall(FULL)
def sethostname(task: Task, name: Address, length: Int) -> int:
    """sethostname(2)."""
    namespaces_of(task).uts.nodename = _given_name(task, name, length)
    return 0


@syscall(FULL)
def setdomainname(task: Task, name: Address, length: Int) -> int:
    """setdomainname(2)."""
    namespaces_of(task).uts.domainname = _given_name(task, name, length)
    return 0


def _given_name(task: Task, address: int, length: int) -> str:
    if not capable_in(task.process.credentials, namespaces_of(task).uts.owner, CAP_SYS_ADMIN):
        raise LinuxError(EPERM, "the names of the machine are for CAP_SYS_ADMIN")
    if not 0 <= length <= LONGEST:
        raise LinuxError(EINVAL, f"a name of {length} bytes")
    data = copy_in(task.process.space, address, length) if length else b""
    if len(data) < length:
        raise LinuxError(EFAULT)
    return fsdecode(data.split(b"\0")[0])


def _as_2_6(release: str) -> str:
    """Version 3.x shows as 2.6.40+x, 4.x and later as 2.6.60+x (kernel: override_release)."""
    import re

    match = re.match(r"(\d+)\.(\d+)([^-+ ]*)(.*)", release)
    if match is None:
        return release
    base = 40 if match[1] == "3" else 60
    return f"2.6.{base + int(match[2])}{match[4]}"


@syscall(PARTIAL, "load averages are 0")
def sysinfo(task: Task, buffer: OutSysinfo) -> int:
    """sysinfo(2)."""
    kernel = task.kernel
    total = kernel.memory.size
    frames = kernel.memory.usage()
    free, cached = total - kernel.memory.used * PAGE, frames["page cache"] * PAGE
    uptime = -(-(kernel.clock.monotonic_ns() + namespaces_of(task).time.boottime) // 1_000_000_000)  # rounded up
    processes = sum(len(process.tasks) for process in kernel.processes.values())
    write_struct(task, buffer, _SYSINFO, uptime, 0, 0, 0, total, free, 0, cached, 0, 0, processes, 0, 0, 0, 1)
    return 0


@syscall(FULL)
def times(task: Task, buffer: Address) -> int:
    """times(2), in clock ticks of 10 ms."""
    clock = task.kernel.clock
    if buffer:
        own, children = task.process.total_usage(), task.process.children_usage
        times = [time for usage in (own, children) for time in (usage.user_ns, usage.system_ns)]
        write_struct(task, buffer, Struct("<4q"), *[time * _TICKS // 1_000_000_000 for time in times])
    return clock.monotonic_ns() * _TICKS // 1_000_000_000


_NONBLOCK, _RANDOM, _INSECURE = 1, 2, 4


@syscall(FULL)
def getrandom(task: Task, buffer: Address, length: Size, flags: RandomFlags) -> int:
    """getrandom(2): from the machine's seed when it is deterministic."""
    if flags & ~(_NONBLOCK | _RANDOM | _INSECURE) or flags & (_RANDOM | _INSECURE) == _RANDOM | _INSECURE:
        raise LinuxError(EINVAL, f"flags {flags:#x}")
    done = 0
    for piece in pieces(task.process.space, buffer, min(length, _MAXIMUM), True) if length else ():
        piece[:] = task.kernel.random_bytes(len(piece))
        done += len(piece)
    return done
