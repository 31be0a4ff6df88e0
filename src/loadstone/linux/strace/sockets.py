"""Sockets in system calls' arguments, as strace(1) shows them: families, addresses, messages, options."""

from __future__ import annotations

from socket import inet_ntop
from struct import Struct

from loadstone.linux.strace.flags import bits, choice, named, numbers
from loadstone.linux.strace.values import Formatter, Subject, address, peek, quote, vector_at, whole

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
_FAMILIES = {
    0: "AF_UNSPEC", AF_UNIX: "AF_UNIX", AF_INET: "AF_INET", AF_INET6: "AF_INET6", AF_NETLINK: "AF_NETLINK",
    17: "AF_PACKET",
}  # fmt: skip
_TYPES = {1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 4: "SOCK_RDM", 5: "SOCK_SEQPACKET"}
_TYPE_FLAGS = ((0o2000000, "SOCK_CLOEXEC"), (0o4000, "SOCK_NONBLOCK"))
_MESSAGE_FLAGS = (
    "OOB PEEK DONTROUTE CTRUNC PROBE TRUNC DONTWAIT EOR WAITALL FIN SYN CONFIRM RST ERRQUEUE NOSIGNAL MORE WAITFORONE"
)
_SOCKET_OPTIONS = (
    "- DEBUG REUSEADDR TYPE ERROR DONTROUTE BROADCAST SNDBUF RCVBUF KEEPALIVE OOBINLINE NO_CHECK PRIORITY LINGER "
    "BSDCOMPAT REUSEPORT PASSCRED PEERCRED RCVLOWAT SNDLOWAT RCVTIMEO_OLD SNDTIMEO_OLD"
)
_LINGER, _TIMES = 13, (20, 21)
_CREDENTIALS = 17
_SOL_SOCKET = 1
_MESSAGE = Struct("<QI4xQQQQi")
_MOST = 128  # bytes of an address that are looked at
_INT = Struct("<i")


def kind(subject: Subject) -> str:
    """The type of a socket, with the flags for its descriptor."""
    flags = named(subject.value & ~0xF, _TYPE_FLAGS, "")
    name = _TYPES.get(subject.value & 0xF, f"{subject.value & 0xF:#x}")
    return f"{name}|{flags}" if flags else name


def protocol(subject: Subject) -> str:
    """The protocol; it has a name in the families of the Internet."""
    if subject.argument(-2) in (AF_INET, AF_INET6):
        return {0: "IPPROTO_IP", 1: "IPPROTO_ICMP", 6: "IPPROTO_TCP", 17: "IPPROTO_UDP"}.get(
            subject.value, str(subject.value)
        )
    if subject.argument(-2) == AF_NETLINK and subject.value == 0:
        return "NETLINK_ROUTE"
    return str(subject.value)


def name_of(data: bytes) -> str:
    """A socket's address."""
    if len(data) < 2:
        return "NULL"
    family = int.from_bytes(data[:2], "little")
    head = f"{{sa_family={_FAMILIES.get(family, hex(family))}"
    if family == AF_UNIX:
        path = data[2:]
        if not path:
            return head + "}"
        if path[0]:
            return f"{head}, sun_path={quote(path.partition(bytes(1))[0])}}}"
        return f"{head}, sun_path=@{quote(path[1:])}}}"
    if family == AF_INET and len(data) >= 8:
        port, where = int.from_bytes(data[2:4], "big"), ".".join(map(str, data[4:8]))
        return f'{head}, sin_port=htons({port}), sin_addr=inet_addr("{where}")}}'
    if family == AF_INET6 and len(data) >= 24:
        port, flow = int.from_bytes(data[2:4], "big"), int.from_bytes(data[4:8], "big")
        where, scope = inet_ntop(AF_INET6, data[8:24]), int.from_bytes(data[24:28], "little")
        return (
            f"{head}, sin6_port=htons({port}), sin6_flowinfo=htonl({flow}), "
            f'inet_pton(AF_INET6, "{where}", &sin6_addr), sin6_scope_id={scope}}}'
        )
    return f"{head}, sa_data={quote(data[2:])}}}"


def in_name(subject: Subject) -> str:
    """An address that the call reads; the next argument is its length."""
    length = min(max(subject.argument(1), 0), _MOST)
    data = peek(subject.task, subject.value, length)
    return address(subject) if not subject.value or len(data) < min(length, 2) else name_of(data)


def out_name(subject: Subject) -> str:
    """An address that the call wrote; the next argument points at its length."""
    if not subject.value:
        return "NULL"
    raw = peek(subject.task, subject.argument(1), _INT.size)
    length = _INT.unpack(raw)[0] if len(raw) == _INT.size else 0
    data = peek(subject.task, subject.value, min(max(length, 0), _MOST))
    return name_of(data) if len(data) >= 2 else address(subject)


def length_at(subject: Subject) -> str:
    """A length that the call reads and writes."""
    data = whole(subject, _INT)
    return address(subject) if data is None else f"[{_INT.unpack(data)[0]}]"


def message(subject: Subject) -> str:
    """struct msghdr: the bytes as many as were moved, control messages by their length."""
    data = whole(subject, _MESSAGE)
    if data is None:
        return address(subject)
    name, name_length, vectors, count, _, control_length, flags = _MESSAGE.unpack(data)
    shown = name_of(peek(subject.task, name, min(name_length, _MOST))) if name else "NULL"
    moved = subject.result if subject.result > 0 else 1 << 63
    return (
        f"{{msg_name={shown}, msg_namelen={name_length}, msg_iov={vector_at(subject.task, vectors, count, moved)}, "
        f"msg_iovlen={count}, msg_controllen={control_length}, msg_flags={named(flags, _MESSAGE_TABLE, '0')}}}"
    )


def option(subject: Subject) -> str:
    """An option's name, as far as it is one of all sockets."""
    return _option(subject) if subject.argument(-1) == _SOL_SOCKET else str(subject.value)


def option_value(subject: Subject) -> str:
    """What an option is set to; the next argument is its length."""
    return _option_value(subject, subject.argument(1))


def out_option_value(subject: Subject) -> str:
    """What an option is; the next argument points at its length."""
    raw = peek(subject.task, subject.argument(1), _INT.size)
    return _option_value(subject, _INT.unpack(raw)[0] if len(raw) == _INT.size else 0)


def _option_value(subject: Subject, length: int) -> str:
    data = peek(subject.task, subject.value, min(max(length, 0), 32))
    number = subject.argument(-1)
    if number == _LINGER and len(data) >= 8:
        on, seconds = Struct("<ii").unpack(data[:8])
        return f"{{l_onoff={on}, l_linger={seconds}}}"
    if number in _TIMES and len(data) >= 16:
        seconds, micro = Struct("<qq").unpack(data[:16])
        return f"{{tv_sec={seconds}, tv_usec={micro}}}"
    if number == _CREDENTIALS and len(data) >= 12:
        pid, uid, gid = Struct("<iII").unpack(data[:12])
        return f"{{pid={pid}, uid={uid}, gid={gid}}}"
    return f"[{_INT.unpack(data)[0]}]" if len(data) == _INT.size else address(subject)


_option = numbers("SO_", _SOCKET_OPTIONS)
message_flags = bits("MSG_", _MESSAGE_FLAGS)
_MESSAGE_TABLE = tuple((1 << shift, f"MSG_{label}") for shift, label in enumerate(_MESSAGE_FLAGS.split()))

SOCKETS: dict[str, Formatter] = {
    "family": choice(_FAMILIES),
    "socket_kind": kind,
    "protocol": protocol,
    "in_name": in_name,
    "out_name": out_name,
    "length_at": length_at,
    "message": message,
    "out_message": message,
    "message_flags": message_flags,
    "socket_flags": lambda subject: named(subject.value, _TYPE_FLAGS, "0"),
    "level": choice({_SOL_SOCKET: "SOL_SOCKET", 0: "SOL_IP", 6: "SOL_TCP", 17: "SOL_UDP", 41: "SOL_IPV6"}),
    "option": option,
    "option_value": option_value,
    "out_option_value": out_option_value,
    "how_shut": numbers("SHUT_", "RD WR RDWR"),
}
