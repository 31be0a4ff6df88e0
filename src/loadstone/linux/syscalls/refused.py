"""What the guest may not do: the network, mounts, the machine itself. Refused with the errno that programs expect,
and counted, so that the report of a run says what a program asked for in vain.
"""

from __future__ import annotations

from errno import EAFNOSUPPORT, EINVAL, ENOTSOCK, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.refusals import count_refusal
from loadstone.linux.syscalls.lookup import open_file
from loadstone.linux.syscalls.registry import PARTIAL, syscall

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Fd, Int

_FAMILIES = {1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET"}
_TYPE_MASK, _TYPE_FLAGS = 0xF, 0o2004000  # SOCK_CLOEXEC, SOCK_NONBLOCK
_NO_NETWORK = "refused: no network, no sockets"


def _no_family(task: Task, family: int, kind: int) -> int:
    if kind & ~(_TYPE_MASK | _TYPE_FLAGS):
        raise LinuxError(EINVAL)
    count_refusal(task, f"socket {_FAMILIES.get(family, family)}")
    raise LinuxError(EAFNOSUPPORT, _NO_NETWORK)


@syscall(support=PARTIAL, note=_NO_NETWORK)
def socket(task: Task, family: Int, kind: Int, protocol: Int) -> int:
    """No family is supported: programs fall back to files (the name service) or say so."""
    return _no_family(task, family, kind)


@syscall(support=PARTIAL, note=_NO_NETWORK)
def socketpair(task: Task, family: Int, kind: Int, protocol: Int, pair: Address) -> int:
    """As socket."""
    return _no_family(task, family, kind)


def _not_a_socket(name: str) -> Callable[[Task, int], int]:
    """A call on a socket: there is none, so an open descriptor is something else."""

    def handler(task: Task, fd: Fd) -> int:
        open_file(task, fd)
        raise LinuxError(ENOTSOCK)

    return syscall(support=PARTIAL, note=_NO_NETWORK, name=name)(handler)


def _denied(name: str) -> Callable[[Task], int]:
    """A call for which the guest has no privilege."""

    def handler(task: Task) -> int:
        count_refusal(task, name)
        raise LinuxError(EPERM, "the guest has no privilege for this")

    return syscall(support=PARTIAL, note="refused: EPERM", name=name)(handler)


ON_SOCKETS = """bind listen accept accept4 connect getsockname getpeername sendto recvfrom sendmsg recvmsg sendmmsg
    recvmmsg setsockopt getsockopt shutdown"""
DENIED = """mount umount2 pivot_root swapon swapoff reboot sethostname setdomainname acct settimeofday adjtimex
    clock_adjtime init_module finit_module delete_module kexec_load kexec_file_load bpf ptrace open_by_handle_at syslog
    iopl ioperm vhangup quotactl"""

globals().update({name: _not_a_socket(name) for name in ON_SOCKETS.split()})
globals().update({name: _denied(name) for name in DENIED.split()})
