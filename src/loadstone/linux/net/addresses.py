"""struct sockaddr_in and sockaddr_in6. Sources: include/uapi/linux/in.h, in6.h, ip(7), ipv6(7)."""

from __future__ import annotations

from errno import EAFNOSUPPORT, EINVAL
from struct import Struct
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.linux.refusals import count_refusal
from loadstone.vfs.inet_ports import ANY_4, ANY_6, MAPPED, Endpoint, destination, is_local
from loadstone.vfs.sockets import AF_INET, AF_INET6

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.vfs.inet_sockets import InetSocket

# Ports and addresses are in network order; the family, which is not, is kept as bytes.
_SHORT: Final = Struct(">2sH4s8x")
_LONG: Final = Struct(">2sHI16sI")
_LEAST_OF_LONG: Final = 24  # SIN6_LEN_RFC2133: without the scope
AF_UNSPEC: Final = 0
NETWORK: Final = "network"  # how refusals of it begin


def family_of(raw: bytes) -> int:
    """sa_family; EINVAL if there is none."""
    if len(raw) < 2:
        raise LinuxError(EINVAL)
    return int.from_bytes(raw[:2], "little")


def endpoint_in(socket: InetSocket, raw: bytes) -> Endpoint:
    """Where a sockaddr leads, for a socket of its family; EINVAL if it is too short, EAFNOSUPPORT."""
    family = family_of(raw)
    if socket.family == AF_INET6:
        if len(raw) < _LEAST_OF_LONG:
            raise LinuxError(EINVAL)
        if family != AF_INET6:
            raise LinuxError(EAFNOSUPPORT)
        _, port, _, address, _ = _LONG.unpack(raw[: _LONG.size].ljust(_LONG.size, b"\0"))
        return Endpoint(address, port)
    if len(raw) < _SHORT.size:
        raise LinuxError(EINVAL)
    if family != AF_INET:
        raise LinuxError(EAFNOSUPPORT)
    _, port, address = _SHORT.unpack(raw[: _SHORT.size])
    return Endpoint(MAPPED + address, port)


def packed(socket: InetSocket, endpoint: Endpoint) -> bytes:
    """The sockaddr with which a socket shows an endpoint."""
    address, port = endpoint
    if socket.family == AF_INET:
        return _SHORT.pack(AF_INET.to_bytes(2, "little"), port, (ANY_4 if address == ANY_6 else address)[-4:])
    return _LONG.pack(AF_INET6.to_bytes(2, "little"), port, 0, address, 0)


def demand_inside(task: Task, call: str, endpoint: Endpoint) -> None:
    """Count it as a refusal when a program wants to reach somebody outside of the machine."""
    if not is_local(destination(endpoint.address)):
        count_refusal(task, f"{NETWORK}: {call} {shown(endpoint)}")


def shown(endpoint: Endpoint) -> str:
    """For a person: `93.184.216.34:80`, `[2001:db8:0:0:0:0:0:1]:80`."""
    address, port = endpoint
    if address.startswith(MAPPED):
        return f"{'.'.join(map(str, address[-4:]))}:{port}"
    words = [int.from_bytes(address[at : at + 2], "big") for at in range(0, 16, 2)]
    return f"[{':'.join(f'{word:x}' for word in words)}]:{port}"
