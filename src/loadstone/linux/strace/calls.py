"""What strace(1) shows beyond the types of the arguments: by the call, by other arguments, by the result.

LAYOUTS names a formatter for each argument of a call, "" where its type says enough; LATE are those that are shown
after the call. `used` says how many arguments mean something, `note` what follows the result.
"""

from __future__ import annotations

from os import strerror
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import errno_name
from loadstone.linux.clone_flags import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_SETTLS,
)
from loadstone.linux.signal import signals
from loadstone.linux.strace.flags import PRCTL_STRINGS, bits, clone_text, named, numbers, open_flags
from loadstone.linux.strace.seccomp import PR_SET_SECCOMP, mode, prctl_arguments
from loadstone.linux.strace.structs import poll_events, signal_set
from loadstone.linux.strace.times import time_spec
from loadstone.linux.strace.values import Formatter, Subject, address, hexadecimal, peek, quote, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.kernel.process import Task

_INT = Struct("<i")
_MOST = 32
_CLOEXEC, _NONBLOCK, _DIRECT = 0o2000000, 0o4000, 0o40000
_FLOCK = Struct("<hh4xqqi4x")
_F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL = 1, 2, 3, 4
_DUPLICATES, _LOCKS, _BARE = (0, 1030), (5, 6, 7, 36, 37, 38), (1, 3, 9, 11, 1025, 1032, 1034)
_EPOLL_EVENTS = (
    "IN PRI OUT ERR HUP NVAL RDNORM RDBAND WRNORM WRBAND MSG - - RDHUP - - - - - - - - - - - - - - EXCLUSIVE WAKEUP "
    "ONESHOT ET"
)
_EPOLL_TABLE = tuple((1 << shift, f"EPOLL{label}") for shift, label in enumerate(_EPOLL_EVENTS.split()) if label != "-")
_EPOLL = Struct("<IQ")
_WITH_PARENT_TID = CLONE_PARENT_SETTID | CLONE_PIDFD
_WITH_CHILD_TID = CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
_AFFINITY_MOST = 4096


_WAIT_OPTIONS = (
    (1, "WNOHANG"), (2, "WUNTRACED"), (8, "WCONTINUED"), (0x20000000, "__WNOTHREAD"), (0x40000000, "__WALL"),
    (0x80000000, "__WCLONE"),
)  # fmt: skip
_WAITID_OPTIONS = ((1, "WNOHANG"), (4, "WEXITED"), (2, "WSTOPPED"), (8, "WCONTINUED"), (0x1000000, "WNOWAIT"))


def fcntl_argument(subject: Subject) -> str:
    """What a command of fcntl(2) is given."""
    command, value = subject.argument(-1), subject.value
    if command in _DUPLICATES:
        return str(value)
    if command == _F_SETFD:
        return named(value, ((1, "FD_CLOEXEC"),), "0")
    if command == _F_SETFL:
        return open_flags(subject)
    if command in _LOCKS:
        data = whole(subject, _FLOCK)
        if data is None:
            return address(subject)
        kind, whence, start, length, pid = _FLOCK.unpack(data)
        holder = f", l_pid={pid}" if command in (5, 36) else ""
        names = ("F_RDLCK", "F_WRLCK", "F_UNLCK")
        places = ("SEEK_SET", "SEEK_CUR", "SEEK_END")
        return f"{{l_type={names[kind]}, l_whence={places[whence]}, l_start={start}, l_len={length}{holder}}}"
    return str(value) if value < 1 << 31 else hexadecimal(subject)


def wait_status(subject: Subject) -> str:
    """The status word of wait(2), as the macros see it."""
    data = whole(subject, _INT) if subject.result > 0 else None
    if data is None:
        return address(subject)
    word = _INT.unpack(data)[0] & 0xFFFF
    number = word & 0x7F
    if word == 0xFFFF:
        return "[{WIFCONTINUED(s)}]"
    if number == 0x7F:
        return f"[{{WIFSTOPPED(s) && WSTOPSIG(s) == {signals.name(word >> 8)}}}]"
    if number:
        core = " && WCOREDUMP(s)" if word & 0x80 else ""
        return f"[{{WIFSIGNALED(s) && WTERMSIG(s) == {signals.name(number)}{core}}}]"
    return f"[{{WIFEXITED(s) && WEXITSTATUS(s) == {word >> 8}}}]"


def epoll_event(subject: Subject) -> str:
    """struct epoll_event."""
    data = whole(subject, _EPOLL)
    return address(subject) if data is None else _one_epoll(*_EPOLL.unpack(data))


def epoll_events(subject: Subject) -> str:
    """The events that were found; the result says how many."""
    found = [peek(subject.task, subject.value + _EPOLL.size * at, _EPOLL.size) for at in range(subject.result)]
    return "[" + ", ".join(_one_epoll(*_EPOLL.unpack(data)) for data in found if len(data) == _EPOLL.size) + "]"


def _one_epoll(events: int, data: int) -> str:
    return f"{{events={named(events, _EPOLL_TABLE, '0')}, data={{u32={data & 0xFFFF_FFFF}, u64={data}}}}}"


def cpus(subject: Subject) -> str:
    """A mask of CPUs, as many bytes as the argument before it says, or the result of the call that wrote it."""
    length = subject.result if subject.result > 0 else min(subject.argument(-1), _AFFINITY_MOST)
    mask = int.from_bytes(peek(subject.task, subject.value, length), "little")
    return "[" + " ".join(str(number) for number in range(mask.bit_length()) if mask >> number & 1) + "]"


def groups(subject: Subject) -> str:
    """Group numbers; the result, or where they are set the argument before, says how many."""
    count = max(subject.argument(-1) if subject.result <= 0 else subject.result, 0)
    data = peek(subject.task, subject.value, 4 * min(count, _MOST))
    if not subject.argument(-1):
        return "[]" if subject.value else "NULL"
    shown = [str(int.from_bytes(data[at : at + 4], "little")) for at in range(0, len(data), 4)]
    return "[" + ", ".join(shown) + (", ..." if count > _MOST else "") + "]"


def descriptors(subject: Subject) -> str:
    """A set of select(2), as it was given."""
    count = subject.arguments[0]
    if not subject.value:
        return "NULL"
    data = peek(subject.task, subject.value, (min(max(count, 0), 1024) + 63) // 64 * 8)
    return _members(data, count)


def _members(data: bytes, count: int) -> str:
    mask = int.from_bytes(data, "little")
    return "[" + " ".join(str(fd) for fd in range(min(count, 8 * len(data))) if mask >> fd & 1) + "]"


def ioctl_argument(subject: Subject) -> str:
    """What some requests of ioctl(2) are given, or gave back."""
    request, value = subject.argument(-1), subject.value
    if request in _PLAIN_REQUESTS:
        return str(value & 0xFFFF_FFFF)
    if request in (_TIOCGWINSZ, _TIOCSWINSZ):
        data = whole(subject, _WINDOW) if subject.result >= 0 else None
        if data is not None:
            rows, columns, width, height = _WINDOW.unpack(data)
            return f"{{ws_row={rows}, ws_col={columns}, ws_xpixel={width}, ws_ypixel={height}}}"
    if request in _NUMBER_REQUESTS and subject.result >= 0:
        data = whole(subject, _INT)
        if data is not None:
            return f"[{_INT.unpack(data)[0]}]"
    return address(subject)


_FICLONE, _TIOCGWINSZ, _TIOCSWINSZ, _TCFLSH, _TIOCSCTTY = 0x40049409, 0x5413, 0x5414, 0x540B, 0x540E
_PLAIN_REQUESTS = (_FICLONE, _TCFLSH, _TIOCSCTTY)
_NUMBER_REQUESTS = (0x540F, 0x5410, 0x5429, 0x541B, 0x5421, 0x80045430)  # TIOCGPGRP, TIOCSPGRP, TIOCGSID, FIONREAD …
_WINDOW = Struct("<4H")


def prctl_argument(subject: Subject) -> str:
    """The second argument of prctl(2): a name, a signal or a number."""
    option = subject.argument(-1)
    if option in PRCTL_STRINGS:
        text, end, _ = peek(subject.task, subject.value, 16).partition(b"\0")
        return quote(text[:15], cut=not end)
    if option == 1:
        return signals.name(subject.value) if subject.value else "0"
    if option == PR_SET_SECCOMP:
        return mode(subject.value)
    return str(subject.value) if subject.value < 1 << 16 else hexadecimal(subject)


def futex_bits(subject: Subject) -> str:
    """The bit set of FUTEX_WAIT_BITSET and FUTEX_WAKE_BITSET; of the other commands a number."""
    if subject.arguments[1] & 0x7F not in _FUTEX_BITSETS:
        return hexadecimal(subject)
    return "FUTEX_BITSET_MATCH_ANY" if subject.value & 0xFFFF_FFFF == 0xFFFF_FFFF else hexadecimal(subject)


def clone(subject: Subject) -> list[str]:
    """clone(2): the arguments with their names, those that mean something."""
    flags, stack, parent, child, tls = subject.arguments
    shown = [f"child_stack={hex(stack) if stack else 'NULL'}", f"flags={clone_text(flags)}"]
    if flags & _WITH_PARENT_TID:
        value = peek(subject.task, parent, 4) if subject.result > 0 else b""
        shown.append(f"parent_tid=[{_INT.unpack(value)[0]}]" if len(value) == 4 else f"parent_tid={parent:#x}")
    if flags & CLONE_SETTLS:
        shown.append(f"tls={tls:#x}")
    if flags & _WITH_CHILD_TID:
        shown.append(f"child_tidptr={child:#x}")
    return shown


def clone_arguments(subject: Subject) -> str:
    """struct clone_args: the fields that the flags give a meaning to, then what was written."""
    size = min(subject.argument(1), 88)
    data = peek(subject.task, subject.value, size)
    if len(data) < 64:
        return address(subject)
    flags, pidfd, child, parent, number, stack, stack_size, tls = Struct("<8Q").unpack(data[:64])
    pointer = [
        (CLONE_PIDFD, "pidfd", pidfd),
        (_WITH_CHILD_TID, "child_tid", child),
        (CLONE_PARENT_SETTID, "parent_tid", parent),
    ]
    shown = [f"flags={clone_text(flags)}"]
    shown += [f"{name}={value:#x}" for mask, name, value in pointer if flags & mask]
    shown.append(f"exit_signal={signals.name(number) if number else 0}")
    shown += [f"stack={hex(stack) if stack else 'NULL'}", f"stack_size={hex(stack_size) if stack_size else 0}"]
    shown += [f"tls={tls:#x}"] if flags & CLONE_SETTLS else []
    text = "{" + ", ".join(shown) + "}"
    written = peek(subject.task, parent, 4) if flags & CLONE_PARENT_SETTID and subject.result > 0 else b""
    return f"{text} => {{parent_tid=[{_INT.unpack(written)[0]}]}}" if len(written) == 4 else text


def used(name: str, arguments: tuple[int, ...]) -> Sequence[int]:
    """The arguments that mean something in this call, by their places."""
    if name == "futex" and arguments[1] & 0x7F in _FUTEX_BITSETS:
        return (0, 1, 2, 3, 5) if arguments[1] & 0x7F == _FUTEX_BITSETS[0] else (0, 1, 2, 5)
    return range(_count_used(name, arguments))


def _count_used(name: str, arguments: tuple[int, ...]) -> int:
    if name in ("open", "openat"):
        count = len(arguments)
        return count if arguments[count - 2] & _MAKES_FILE & ~0o200000 else count - 1
    if name == "mremap":
        return 5 if arguments[3] & _MREMAP_FIXED else 4
    if name == "futex":
        command = arguments[1] & 0x7F
        return _FUTEX_ARGUMENTS[command] if command < len(_FUTEX_ARGUMENTS) else 6
    if name == "prctl":
        if arguments[0] == PR_SET_SECCOMP:
            return prctl_arguments(arguments[1])
        return 1 if arguments[0] in _NO_ARGUMENT else 2 if arguments[0] in _ONE_ARGUMENT else 5
    if name == "fcntl":
        return 2 if arguments[1] in _BARE else 3
    return len(arguments)


_MAKES_FILE = 0o20200100  # O_CREAT, O_TMPFILE
_MREMAP_FIXED = 2
_FUTEX_BITSETS = (9, 10)
# prctl(2): PR_GET_DUMPABLE, …; PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, …
_NO_ARGUMENT, _ONE_ARGUMENT = (3, 7, 21, 30), (1, 2, 4, 8, 15, 16, 23, 24, 29, 36, 37)
# Arguments each futex command looks at: WAIT and the ones with a time-out 4, WAKE 3, the two-word ones 5 or 6.
_FUTEX_ARGUMENTS = (4, 3, 3, 5, 6, 6, 4, 2, 2, 6, 6, 5, 6, 4)


def note(name: str, subject: Subject) -> str:
    """What strace adds to the result in parentheses; "" for nothing."""
    make = _NOTES.get(name)
    return make(subject) if make is not None and subject.result >= 0 else ""


def _poll_note(subject: Subject) -> str:
    if not subject.result:
        return "Timeout"
    found = []
    for index in range(max(min(subject.arguments[1], _MOST), 0)):
        raw = peek(subject.task, subject.arguments[0] + 8 * index, 8)
        fd, _, events = Struct("<ihh").unpack(raw) if len(raw) == 8 else (0, 0, 0)
        if events:
            found.append(f"{{fd={fd}, revents={poll_events(events)}}}")
    return f"[{', '.join(found)}]"


def _select_note(subject: Subject) -> str:
    if not subject.result:
        return "Timeout"
    count = subject.arguments[0]
    parts = []
    for at, label in ((1, "in"), (2, "out"), (3, "except")):
        place = subject.arguments[at]
        data = peek(subject.task, place, (min(max(count, 0), 1024) + 63) // 64 * 8) if place else b""
        if any(data):
            parts.append(f"{label} {_members(data, count)}")
    left = subject.arguments[4]
    raw = peek(subject.task, left, 16) if left else b""
    if len(raw) == 16:
        parts.append(f"left {time_spec(raw, 'tv_usec' if len(subject.arguments) == 5 else 'tv_nsec')}")
    return ", ".join(parts)


def _fcntl_note(subject: Subject) -> str:
    command, value = subject.arguments[1], subject.result
    if command == _F_GETFL:
        return f"flags {open_flags(Subject(subject.task, (value,), 0, 0))}"
    return "flags FD_CLOEXEC" if command == _F_GETFD and value else ""


_NOTES = {
    "poll": _poll_note,
    "ppoll": _poll_note,
    "select": _select_note,
    "pselect6": _select_note,
    "fcntl": _fcntl_note,
}


def result(name: str, arguments: tuple[int, ...], value: int) -> str:
    """The result where it is not a plain number; "" where it is."""
    if name == "fcntl" and arguments[1] in (_F_GETFD, _F_GETFL) and value > 0:
        return f"{value:#x}"
    if name == "umask":
        return f"{value:#03o}".replace("0o", "0")
    return ""


def mask_now(subject: Subject) -> str:
    """The signal mask that a handler's return has put back."""
    return f"{{mask={signal_set(subject.task.signals.mask)}}}"


def restored(task: Task) -> str:
    """What the call returns that a signal interrupted: its handler is done."""
    value = task.context.read("rax")
    number = (1 << 64) - value
    return f"-1 {errno_name(number)} ({strerror(number)})" if 0 < number < 4096 else str(value)


def _descriptor_flags(prefix: str, *more: tuple[int, str]) -> Formatter:
    table = ((_CLOEXEC, f"{prefix}CLOEXEC"), (_NONBLOCK, f"{prefix}NONBLOCK"), *more)
    return lambda subject: named(subject.value & 0xFFFF_FFFF, table, "0")


CALLS: dict[str, Formatter] = {
    "fcntl_argument": fcntl_argument,
    "wait_status": wait_status,
    "wait_options": lambda subject: named(subject.value & 0xFFFF_FFFF, _WAIT_OPTIONS, "0"),
    "wait_which": numbers("P_", "ALL PID PGID PIDFD"),
    "waitid_options": lambda subject: named(subject.value & 0xFFFF_FFFF, _WAITID_OPTIONS, "0"),
    "epoll_operation": numbers("EPOLL_CTL_", "ADD DEL MOD", 1),
    "epoll_event": epoll_event,
    "epoll_events": epoll_events,
    "epoll_flags": _descriptor_flags("EPOLL_"),
    "pipe_flags": lambda subject: named(
        subject.value, ((_NONBLOCK, "O_NONBLOCK"), (_DIRECT, "O_DIRECT"), (_CLOEXEC, "O_CLOEXEC")), "0"
    ),
    "eventfd_flags": _descriptor_flags("EFD_", (1, "EFD_SEMAPHORE")),
    "timerfd_flags": _descriptor_flags("TFD_"),
    "signalfd_flags": _descriptor_flags("SFD_"),
    "inotify_flags": _descriptor_flags("IN_"),
    "memfd_flags": bits("MFD_", "CLOEXEC ALLOW_SEALING HUGETLB NOEXEC_SEAL EXEC"),
    "lock_operation": bits("LOCK_", "SH EX NB UN"),
    "cpus": cpus,
    "out_cpus": cpus,
    "groups": groups,
    "in_groups": groups,
    "descriptors": descriptors,
    "clone_arguments": clone_arguments,
    "ioctl_argument": ioctl_argument,
    "prctl_argument": prctl_argument,
    "futex_bits": futex_bits,
}
_LATE = (
    "ioctl_argument wait_status rusage epoll_events out_cpus groups clone_arguments out_itimerspec statfs out_name "
    "random_bytes directory_name out_message out_option_value out_int out_pair siginfo remaining tms seccomp_argument"
)
LATE = frozenset(_LATE.split())
LOOKS_AT_RESULT = ("remaining", "ioctl_argument", "seccomp_argument")  # shown after a call that failed, too
LAYOUTS: dict[str, tuple[str, ...]] = {
    name: tuple("" if part == "." else part for part in layout.split())
    for name, layout in {
        "fcntl": ". . fcntl_argument",
        "wait4": ". wait_status wait_options rusage",
        "waitid": "wait_which . siginfo waitid_options rusage",
        "getrandom": "random_bytes . .",
        "getcwd": "directory_name .",
        "socket": "family socket_kind protocol",
        "socketpair": "family socket_kind protocol out_pair",
        "connect": ". in_name .",
        "bind": ". in_name .",
        "accept": ". out_name length_at",
        "accept4": ". out_name length_at socket_flags",
        "getsockname": ". out_name length_at",
        "getpeername": ". out_name length_at",
        "sendto": ". . . message_flags in_name .",
        "recvfrom": ". . . message_flags out_name length_at",
        "sendmsg": ". message message_flags",
        "recvmsg": ". out_message message_flags",
        "setsockopt": ". level option option_value .",
        "getsockopt": ". level option out_option_value length_at",
        "shutdown": ". how_shut",
        "pipe2": ". pipe_flags",
        "dup3": ". . pipe_flags",
        "eventfd2": ". eventfd_flags",
        "epoll_create1": "epoll_flags",
        "epoll_ctl": ". epoll_operation . epoll_event",
        "epoll_wait": ". epoll_events . .",
        "epoll_pwait": ". epoll_events . . . .",
        "timerfd_create": ". timerfd_flags",
        "timerfd_settime": ". sleep_flags itimerspec out_itimerspec",
        "timerfd_gettime": ". out_itimerspec",
        "timer_create": ". sigevent out_int",
        "timer_settime": ". sleep_flags itimerspec out_itimerspec",
        "timer_gettime": ". out_itimerspec",
        "signalfd4": ". . . signalfd_flags",
        "inotify_init1": "inotify_flags",
        "memfd_create": ". memfd_flags",
        "futex": ". . . . . futex_bits",
        "flock": ". lock_operation",
        "umask": "mode",
        "sched_getaffinity": ". . out_cpus",
        "sched_setaffinity": ". . cpus",
        "getgroups": ". groups",
        "setgroups": ". in_groups",
        "statfs": ". statfs",
        "fstatfs": ". statfs",
        "statx": ". . statx_flags . .",
        "select": ". descriptors descriptors descriptors timeval",
        "pselect6": ". descriptors descriptors descriptors . .",
        "poll": "poll . .",
        "ppoll": "poll . . . .",
        "getrusage": ". rusage",
        "times": "tms",
        "clone3": "clone_arguments .",
        "clock_nanosleep": ". . . remaining",
        "nanosleep": ". remaining",
        "ioctl": ". . ioctl_argument",
        "prctl": ". prctl_argument prctl_third . .",
        "seccomp": "seccomp_operation seccomp_flags seccomp_argument",
    }.items()
}
