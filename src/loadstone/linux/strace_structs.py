"""Structures that system calls' arguments point at, as strace(1) shows them."""

from __future__ import annotations

from struct import Struct

from loadstone.linux import signals
from loadstone.linux.strace_flags import ACTION_FLAGS, STACK_FLAGS, named
from loadstone.linux.strace_values import VECTOR_LIMIT, Formatter, Subject, address, peek, quote, struct

_TYPES = {0o010000: "S_IFIFO", 0o020000: "S_IFCHR", 0o040000: "S_IFDIR", 0o060000: "S_IFBLK", 0o100000: "S_IFREG",
          0o120000: "S_IFLNK", 0o140000: "S_IFSOCK"}  # fmt: skip


def _file_mode(value: int) -> str:
    kind = _TYPES.get(value & 0o170000)
    special = "".join(
        f"|{label}" for bit, label in ((0o4000, "S_ISUID"), (0o2000, "S_ISGID"), (0o1000, "S_ISVTX")) if value & bit
    )
    return f"{kind}{special}|{value & 0o777:#05o}".replace("0o", "0") if kind else f"{value:#o}".replace("0o", "0")


def _size_or_device(file_mode: int, size: int, rdev: int) -> str:
    if file_mode & 0o170000 in (0o020000, 0o060000):
        return f"st_rdev=makedev({rdev >> 8 & 0xFFF:#x}, {rdev & 0xFF | rdev >> 12 & 0xFFF00:#x})"
    return f"st_size={size}"


stat = struct(
    Struct("<24xI12xQq"),
    lambda v: f"{{st_mode={_file_mode(v[0])}, {_size_or_device(v[0], v[2], v[1])}, ...}}",
)
statx = struct(
    Struct("<I4xQ12xH10xQ"),
    lambda v: f"{{stx_mask={v[0]:#x}, stx_attributes={v[1]:#x}, stx_mode={_file_mode(v[2])}, stx_size={v[3]}, ...}}",
)


def entries(subject: Subject) -> str:
    """Directory entries: how many."""
    data = peek(subject.task, subject.value, subject.result)
    count = position = 0
    while position + 18 < len(data):
        position += max(int.from_bytes(data[position + 16 : position + 18], "little"), 1)
        count += 1
    return f"{subject.value:#x} /* {count} entries */"


pair = struct(Struct("<ii"), lambda v: f"[{v[0]}, {v[1]}]")
out_int = struct(Struct("<i"), lambda v: f"[{v[0]}]")
out_long = struct(Struct("<q"), lambda v: f"[{v[0]}]")
timespec = struct(Struct("<qq"), lambda v: f"{{tv_sec={v[0]}, tv_nsec={v[1]}}}")
timeval = struct(Struct("<qq"), lambda v: f"{{tv_sec={v[0]}, tv_usec={v[1]}}}")
itimer = struct(
    Struct("<4q"),
    lambda v: f"{{it_interval={{tv_sec={v[0]}, tv_usec={v[1]}}}, it_value={{tv_sec={v[2]}, tv_usec={v[3]}}}}}",
)
rlimit = struct(Struct("<QQ"), lambda v: f"{{rlim_cur={_limit(v[0])}, rlim_max={_limit(v[1])}}}")
sysinfo = struct(
    Struct("<q3QQQ"),
    lambda v: f"{{uptime={v[0]}, loads=[{v[1]}, {v[2]}, {v[3]}], totalram={v[4]}, freeram={v[5]}, ...}}",
)
sigset = struct(Struct("<Q"), lambda v: signal_set(v[0]))
siginfo = struct(Struct("<iii4xiI"), lambda v: _siginfo(*v))
altstack = struct(
    Struct("<QIxxxxQ"),
    lambda v: (
        f"{{ss_sp={v[0]:#x}, ss_flags={named(v[1], STACK_FLAGS, '0')}, ss_size={v[2]}}}"
        if v[0]
        else f"{{ss_sp=NULL, ss_flags={named(v[1], STACK_FLAGS, '0')}, ss_size={v[2]}}}"
    ),
)


def _limit(value: int) -> str:
    if value == (1 << 64) - 1:
        return "RLIM64_INFINITY"
    return f"{value // 1024}*1024" if value and value % 1024 == 0 else str(value)


def _siginfo(number: int, errno: int, code: int, pid: int, uid: int) -> str:
    codes = {0: "SI_USER", -1: "SI_QUEUE", -6: "SI_TKILL", 0x80: "SI_KERNEL", -2: "SI_TIMER"}
    return f"{{si_signo={signals.name(number)}, si_code={codes.get(code, code)}, si_pid={pid}, si_uid={uid}}}"


def sigaction(subject: Subject) -> str:
    """struct kernel_sigaction."""
    if not subject.value:
        return "NULL"
    data = peek(subject.task, subject.value, 32)
    if len(data) < 32:
        return address(subject)
    handler, flags, restorer, mask = Struct("<4Q").unpack(data)
    text = f"sa_handler={ {0: 'SIG_DFL', 1: 'SIG_IGN'}.get(handler) or hex(handler) }, sa_mask={signal_set(mask)}"
    text += f", sa_flags={named(flags, ACTION_FLAGS, '0')}"
    return "{" + text + (f", sa_restorer={restorer:#x}" if flags & signals.SA_RESTORER else "") + "}"


def signal_set(mask: int) -> str:
    """`[HUP INT]`; when most are in it, the ones that are not: `~[KILL STOP]`."""
    names = [signals.name(number)[3:] for number in range(1, 65) if mask & signals.bit(number)]
    if len(names) >= 43:
        return "~" + signal_set(~mask & (1 << 64) - 1)
    return "[" + " ".join(names) + "]"


def uname(subject: Subject) -> str:
    """struct utsname."""
    data = peek(subject.task, subject.value, 6 * 65)
    if len(data) < 6 * 65:
        return address(subject)
    sysname, nodename = (quote(data[65 * i : 65 * i + 65].split(b"\0")[0]) for i in range(2))
    return f"{{sysname={sysname}, nodename={nodename}, ...}}"


_POLL = ((1, "POLLIN"), (2, "POLLPRI"), (4, "POLLOUT"), (8, "POLLERR"), (16, "POLLHUP"), (32, "POLLNVAL"))


def poll(subject: Subject) -> str:
    """struct pollfd, as many as the next argument says."""
    shown = []
    for index in range(max(min(subject.argument(1), VECTOR_LIMIT), 0)):
        raw = peek(subject.task, subject.value + 8 * index, 8)
        if len(raw) < 8:
            return address(subject)
        fd, wanted, found = Struct("<ihh").unpack(raw)
        back = f", revents={named(found, _POLL, '0')}" if found else ""
        shown.append(f"{{fd={fd}, events={named(wanted, _POLL, '0')}{back}}}")
    return "[" + ", ".join(shown) + "]"


def timespecs(subject: Subject) -> str:
    """Two times, with the special values of utimensat(2)."""
    if not subject.value:
        return "NULL"
    data = peek(subject.task, subject.value, 32)
    if len(data) < 32:
        return address(subject)
    values = Struct("<4q").unpack(data)
    special = {(1 << 30) - 1: "UTIME_NOW", (1 << 30) - 2: "UTIME_OMIT"}
    parts = [
        special.get(nano) or f"{{tv_sec={second}, tv_nsec={nano}}}"
        for second, nano in zip(values[::2], values[1::2], strict=True)
    ]
    return "[" + ", ".join(parts) + "]"


STRUCTURES: dict[str, Formatter] = {
    "stat": stat,
    "statx": statx,
    "entries": entries,
    "pair": pair,
    "out_int": out_int,
    "out_long": out_long,
    "poll": poll,
    "timespec": timespec,
    "timespecs": timespecs,
    "timeval": timeval,
    "itimer": itimer,
    "sigset": sigset,
    "sigaction": sigaction,
    "siginfo": siginfo,
    "altstack": altstack,
    "rlimit": rlimit,
    "uname": uname,
    "sysinfo": sysinfo,
}
