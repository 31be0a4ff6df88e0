"""seccomp(2), its prctl(2) and its signal, as strace(1) shows them."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import errno_name
from loadstone.linux import abi
from loadstone.linux.strace.flags import named
from loadstone.linux.strace.values import address, decimal, hexadecimal, whole
from loadstone.linux.structs import UINT

if TYPE_CHECKING:
    from loadstone.linux.signal.signals import SigInfo
    from loadstone.linux.strace.values import Formatter, Subject

_OPERATIONS = (
    "SECCOMP_SET_MODE_STRICT",
    "SECCOMP_SET_MODE_FILTER",
    "SECCOMP_GET_ACTION_AVAIL",
    "SECCOMP_GET_NOTIF_SIZES",
)
_SET_MODE_FILTER, _GET_ACTION_AVAIL, _GET_NOTIF_SIZES = 1, 2, 3
_MODES = ("SECCOMP_MODE_DISABLED", "SECCOMP_MODE_STRICT", "SECCOMP_MODE_FILTER")
_MODE_FILTER = 2
PR_SET_SECCOMP = 22
_FLAGS = tuple(
    (1 << shift, f"SECCOMP_FILTER_FLAG_{label}")
    for shift, label in enumerate(["TSYNC", "LOG", "SPEC_ALLOW", "NEW_LISTENER", "TSYNC_ESRCH", "WAIT_KILLABLE_RECV"])
)
_ACTIONS = {
    0x8000_0000: "KILL_PROCESS", 0: "KILL_THREAD", 0x0003_0000: "TRAP", 0x0005_0000: "ERRNO",
    0x7FC0_0000: "USER_NOTIF", 0x7FF0_0000: "TRACE", 0x7FFC_0000: "LOG", 0x7FFF_0000: "ALLOW",
}  # fmt: skip
_PROGRAM, _SIZES = Struct("<H6xQ"), Struct("<3H")
_SIGSYS = Struct("<QiI")
_ARCHITECTURES = {0xC000_003E: "AUDIT_ARCH_X86_64", 0x4000_0003: "AUDIT_ARCH_I386"}


def operation(subject: Subject) -> str:
    """What seccomp(2) is to do."""
    value = subject.value
    return _OPERATIONS[value] if value < len(_OPERATIONS) else f"{value:#x} /* SECCOMP_SET_MODE_??? */"


def flags(subject: Subject) -> str:
    """The flags of a filter; other operations have none with names."""
    return named(subject.value, _FLAGS, "0") if subject.argument(-1) == _SET_MODE_FILTER else hexadecimal(subject)


def argument(subject: Subject) -> str:
    """What the operation is given, or gave back."""
    what = subject.argument(-2)
    if what == _SET_MODE_FILTER:
        return program(subject)
    if what == _GET_ACTION_AVAIL:
        data = whole(subject, UINT) if subject.value else None
        return address(subject) if data is None else f"[{_action(UINT.unpack(data)[0])}]"
    if what == _GET_NOTIF_SIZES and subject.result == 0:
        sizes = whole(subject, _SIZES)
        names = ("seccomp_notif", "seccomp_notif_resp", "seccomp_data")
        if sizes is not None:
            pairs = zip(names, _SIZES.unpack(sizes), strict=True)
            return "{" + ", ".join(f"{name}={size}" for name, size in pairs) + "}"
    return address(subject)


def _action(value: int) -> str:
    name = _ACTIONS.get(value)
    return f"SECCOMP_RET_{name}" if name is not None else f"{value:#x} /* SECCOMP_RET_??? */"


def program(subject: Subject) -> str:
    """struct sock_fprog."""
    data = whole(subject, _PROGRAM) if subject.value else None
    if data is None:
        return address(subject)
    length, place = _PROGRAM.unpack(data)
    return f"{{len={length}, filter={hex(place) if place else 'NULL'}}}"


def mode(value: int) -> str:
    """The second argument of prctl(PR_SET_SECCOMP)."""
    return _MODES[value] if value < len(_MODES) else f"{value:#x} /* SECCOMP_MODE_??? */"


def prctl_third(subject: Subject) -> str:
    """The third argument of prctl(2): a number, but for PR_SET_SECCOMP."""
    return program(subject) if subject.argument(-2) == PR_SET_SECCOMP else decimal(subject)


def prctl_arguments(value: int) -> int:
    """How many arguments prctl(PR_SET_SECCOMP) looks at in mode `value`."""
    return 3 if value == _MODE_FILTER else 2


def signal_fields(info: SigInfo) -> str:
    """What a SIGSYS of a filter tells, behind its code."""
    where, number, architecture = _SIGSYS.unpack_from(info.fields)
    names = abi.load("x86_64").names
    call = f"__NR_{names[number]}" if number in names else hex(number & 0xFFFF_FFFF)
    errno = f"si_errno={errno_name(info.errno)}, " if info.errno else ""
    shown = _ARCHITECTURES.get(architecture, hex(architecture))
    return f"{errno}si_call_addr={hex(where) if where else 'NULL'}, si_syscall={call}, si_arch={shown}"


SECCOMP: dict[str, Formatter] = {
    "seccomp_operation": operation,
    "seccomp_flags": flags,
    "seccomp_argument": argument,
    "prctl_third": prctl_third,
}
