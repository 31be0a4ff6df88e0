"""Requests on the network's devices, of which there is the loopback device (net/core/dev_ioctl.c, netdevice(7))."""

from __future__ import annotations

from errno import EADDRNOTAVAIL, ENODEV, ENOTTY, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.capabilities import CAP_NET_ADMIN, capable_in
from loadstone.linux.namespaces import namespaces_of
from loadstone.linux.refusals import count_refusal
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.sockets import AF_INET

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.vfs.socket_space import SocketSpace

# include/uapi/linux/sockios.h
SIOCGIFNAME, SIOCGIFCONF, SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFADDR = 0x8910, 0x8912, 0x8913, 0x8914, 0x8915
SIOCGIFNETMASK, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX = 0x891B, 0x8921, 0x8927, 0x8933
IFF_UP, IFF_LOOPBACK, IFF_RUNNING = 0x1, 0x8, 0x40  # include/uapi/linux/if.h

_NAME = b"lo"
_INDEX, _MTU, _ARPHRD_LOOPBACK = 1, 65536, 772
_REQUEST = Struct("<16s24s")  # struct ifreq
_CONF = Struct("<i4xQ")  # struct ifconf: length, where
_ADDRESS = Struct("<HH4s")  # the beginning of a struct sockaddr_in
_LOOPBACK, _NETMASK = b"\x7f\0\0\1", b"\xff\0\0\0"


def answer(task: Task, space: SocketSpace, request: int, argument: int) -> int:
    """One request on a socket. Raises LinuxError: ENOTTY, ENODEV for another device, EPERM, EADDRNOTAVAIL."""
    if request == SIOCGIFCONF:
        return _list_addresses(task, space, argument)
    make = _ANSWERS.get(request)
    if make is None and request != SIOCSIFFLAGS:
        count_refusal(task, f"ioctl {request:#x} of a socket")
        raise LinuxError(ENOTTY, "not a request that sockets answer")
    name, value = _REQUEST.unpack(copy_in(task.process.space, argument, _REQUEST.size))
    if request == SIOCGIFNAME:
        if int.from_bytes(value[:4], "little") != _INDEX:
            raise LinuxError(ENODEV)
        name, value = _NAME, value
    elif name.split(b"\0", 1)[0] != _NAME:
        raise LinuxError(ENODEV, f"there is no network device but lo: {name!r}")
    elif make is None:
        _set_flags(task, space, int.from_bytes(value[:2], "little"))
        return 0
    else:
        value = make(space)
    copy_out(task.process.space, argument, _REQUEST.pack(name, value))
    return 0


def _set_flags(task: Task, space: SocketSpace, flags: int) -> None:
    """SIOCSIFFLAGS: the device goes up or down."""
    if not capable_in(task.process.credentials, namespaces_of(task).net.owner, CAP_NET_ADMIN):
        raise LinuxError(EPERM, "network devices are for CAP_NET_ADMIN")
    space.up = bool(flags & IFF_UP)


def _list_addresses(task: Task, space: SocketSpace, argument: int) -> int:
    """SIOCGIFCONF: the devices that have an address; without a buffer, how long the list is."""
    length, where = _CONF.unpack(copy_in(task.process.space, argument, _CONF.size))
    found = _REQUEST.pack(_NAME, _address(_LOOPBACK)) if space.up else b""
    if where:
        found = found if length >= len(found) else b""
        copy_out(task.process.space, where, found)
    copy_out(task.process.space, argument, _CONF.pack(len(found), where))
    return 0


def _address(number: bytes) -> bytes:
    return _ADDRESS.pack(AF_INET, 0, number)


def _number(value: int) -> Callable[[SocketSpace], bytes]:
    return lambda space: value.to_bytes(4, "little")


def _flags(space: SocketSpace) -> bytes:
    return (IFF_LOOPBACK | (IFF_UP | IFF_RUNNING if space.up else 0)).to_bytes(2, "little")


def _own_address(number: bytes) -> Callable[[SocketSpace], bytes]:
    def make(space: SocketSpace) -> bytes:
        if not space.up:
            raise LinuxError(EADDRNOTAVAIL, "the device has no address while it is down")
        return _address(number)

    return make


_ANSWERS: dict[int, Callable[[SocketSpace], bytes]] = {
    SIOCGIFNAME: lambda space: b"",
    SIOCGIFFLAGS: _flags,
    SIOCGIFADDR: _own_address(_LOOPBACK),
    SIOCGIFNETMASK: _own_address(_NETMASK),
    SIOCGIFMTU: _number(_MTU),
    SIOCGIFHWADDR: lambda space: _ARPHRD_LOOPBACK.to_bytes(2, "little"),
    SIOCGIFINDEX: _number(_INDEX),
}
