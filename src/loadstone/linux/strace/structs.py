"""Structures that system calls' arguments point at, as strace(1) shows them."""

from __future__ import annotations

from struct import Struct

from loadstone.linux.signal import signals
from loadstone.linux.signal.signals import SigInfo
from loadstone.linux.strace.flags import ACTION_FLAGS, STACK_FLAGS, named, statx_fields
from loadstone.linux.strace.seccomp import signal_fields
from loadstone.linux.strace.values import VECTOR_LIMIT, Formatter, Subject, address, peek, quote, struct, whole

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


_ATTRIBUTES = (
    (0x4, "STATX_ATTR_COMPRESSED"), (0x10, "STATX_ATTR_IMMUTABLE"), (0x20, "STATX_ATTR_APPEND"),
    (0x40, "STATX_ATTR_NODUMP"), (0x800, "STATX_ATTR_ENCRYPTED"), (0x1000, "STATX_ATTR_AUTOMOUNT"),
    (0x2000, "STATX_ATTR_MOUNT_ROOT"), (0x100000, "STATX_ATTR_VERITY"), (0x200000, "STATX_ATTR_DAX"),
)  # fmt: skip


stat = struct(
    Struct("<24xI12xQq"),
    lambda v: f"{{st_mode={_file_mode(v[0])}, {_size_or_device(v[0], v[2], v[1])}, ...}}",
)
statx = struct(
    Struct("<I4xQ12xH10xQ"),
    lambda v: (
        f"{{stx_mask={statx_fields(v[0])}, stx_attributes={named(v[1], _ATTRIBUTES, '0')}, "
        f"stx_mode={_file_mode(v[2])}, stx_size={v[3]}, ...}}"
    ),
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
rlimit = struct(Struct("<QQ"), lambda v: f"{{rlim_cur={_limit(v[0])}, rlim_max={_limit(v[1])}}}")
sysinfo = struct(
    Struct("<q3Q6QHxxxxxxQQI"),
    lambda v: (
        f"{{uptime={v[0]}, loads=[{v[1]}, {v[2]}, {v[3]}], totalram={v[4]}, freeram={v[5]}, sharedram={v[6]}, "
        f"bufferram={v[7]}, totalswap={v[8]}, freeswap={v[9]}, procs={v[10]}, totalhigh={v[11]}, freehigh={v[12]}, "
        f"mem_unit={v[13]}}}"
    ),
)
sigset = struct(Struct("<Q"), lambda v: signal_set(v[0]))
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


_CODES = {0: "SI_USER", -1: "SI_QUEUE", -2: "SI_TIMER", -3: "SI_MESGQ", -4: "SI_ASYNCIO", -5: "SI_SIGIO",
          -6: "SI_TKILL", 0x80: "SI_KERNEL"}  # fmt: skip
_CODES_OF = {
    "SIGCHLD": "CLD_EXITED CLD_KILLED CLD_DUMPED CLD_TRAPPED CLD_STOPPED CLD_CONTINUED",
    "SIGSEGV": "SEGV_MAPERR SEGV_ACCERR SEGV_BNDERR SEGV_PKUERR",
    "SIGBUS": "BUS_ADRALN BUS_ADRERR BUS_OBJERR",
    "SIGFPE": "FPE_INTDIV FPE_INTOVF FPE_FLTDIV FPE_FLTOVF FPE_FLTUND FPE_FLTRES FPE_FLTINV FPE_FLTSUB",
    "SIGILL": "ILL_ILLOPC ILL_ILLOPN ILL_ILLADR ILL_ILLTRP ILL_PRVOPC ILL_PRVREG ILL_COPROC ILL_BADSTK",
    "SIGTRAP": "TRAP_BRKPT TRAP_TRACE",
    "SIGSYS": "SYS_SECCOMP SYS_USER_DISPATCH",
}
_CHILD = Struct("<iIi4xqq")
_SENT = Struct("<iIQ")
_TIMER = Struct("<iiQ")


_SIGINFO = Struct("<iii4x32s")


def siginfo(subject: Subject) -> str:
    """siginfo_t."""
    data = whole(subject, _SIGINFO) if subject.value else None
    if data is None:
        return address(subject)
    number, errno, code, fields = _SIGINFO.unpack(data)
    return signal_info(SigInfo(number, code, fields, errno))


def signal_info(info: SigInfo) -> str:
    """siginfo_t: what its code says is in it."""
    name, code, fields = signals.name(info.number), info.code, info.fields.ljust(32, b"\0")
    own = _CODES_OF.get(name, "").split()
    label = _CODES.get(code) or (own[code - 1] if 0 < code <= len(own) else str(code))
    head = f"si_signo={name}, si_code={label}"
    if name == "SIGCHLD" and code > 0:
        pid, uid, status, user, system = _CHILD.unpack_from(fields)
        shown = str(status) if code == 1 else signals.name(status)
        return f"{{{head}, si_pid={pid}, si_uid={uid}, si_status={shown}, si_utime={user}, si_stime={system}}}"
    if code in (-1, -2):
        first, second, value = (_TIMER if code == -2 else _SENT).unpack_from(fields)
        names = ("si_timerid", "si_overrun") if code == -2 else ("si_pid", "si_uid")
        data = f"si_int={value & 0xFFFF_FFFF}, si_ptr={hex(value) if value else 'NULL'}"
        return f"{{{head}, {names[0]}={first}, {names[1]}={second}, {data}}}"
    if code in (0, -6):
        pid, uid, _ = _SENT.unpack_from(fields)
        return f"{{{head}, si_pid={pid}, si_uid={uid}}}"
    if name == "SIGSYS" and code == signals.SYS_SECCOMP:
        return f"{{{head}, {signal_fields(info)}}}"
    if own and name != "SIGCHLD":
        where = int.from_bytes(fields[:8], "little")
        return f"{{{head}, si_addr={hex(where) if where else 'NULL'}}}"
    return f"{{{head}}}"


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


_POLL = "IN PRI OUT ERR HUP NVAL RDNORM RDBAND WRNORM WRBAND MSG - - RDHUP"
_POLL_TABLE = tuple((1 << shift, f"POLL{label}") for shift, label in enumerate(_POLL.split()) if label != "-")


def poll_events(value: int) -> str:
    """The events of poll(2)."""
    return named(value & 0xFFFF, _POLL_TABLE, "0")


def statfs(subject: Subject) -> str:
    """struct statfs."""
    data = whole(subject, _STATFS) if subject.result >= 0 else None
    if data is None:
        return address(subject)
    kind, *sizes, first, second, longest, fragment, flags = _STATFS.unpack(data)
    names = ("f_bsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree")
    numbers = ", ".join(f"{name}={value}" for name, value in zip(names, sizes, strict=True))
    identity = f"{{val=[{hex(first) if first else 0}, {hex(second) if second else 0}]}}"
    return (
        f"{{f_type={_FILE_SYSTEMS.get(kind, hex(kind))}, {numbers}, f_fsid={identity}, f_namelen={longest}, "
        f"f_frsize={fragment}, f_flags={named(flags, _MOUNT_FLAGS, '0')}}}"
    )


_STATFS = Struct("<qqQQQQQIIqqq")
_FILE_SYSTEMS = {
    0xEF53: "EXT2_SUPER_MAGIC", 0x01021994: "TMPFS_MAGIC", 0x9FA0: "PROC_SUPER_MAGIC", 0x62656572: "SYSFS_MAGIC",
    0x794C7630: "OVERLAYFS_SUPER_MAGIC", 0x58465342: "XFS_SUPER_MAGIC", 0x9123683E: "BTRFS_SUPER_MAGIC",
    0x1CD1: "DEVPTS_SUPER_MAGIC", 0x50495045: "PIPEFS_MAGIC", 0x534F434B: "SOCKFS_MAGIC",
}  # fmt: skip
_MOUNTS = "RDONLY NOSUID NODEV NOEXEC SYNCHRONOUS VALID MANDLOCK WRITE APPEND IMMUTABLE NOATIME NODIRATIME RELATIME"
_MOUNT_FLAGS = tuple((1 << shift, f"ST_{label}") for shift, label in enumerate(_MOUNTS.split()))


def sigevent(subject: Subject) -> str:
    """struct sigevent."""
    data = whole(subject, _SIGEVENT) if subject.value else None
    if data is None:
        return address(subject)
    value, number, kind = _SIGEVENT.unpack(data)
    names = {0: "SIGEV_SIGNAL", 1: "SIGEV_NONE", 2: "SIGEV_THREAD", 4: "SIGEV_THREAD_ID"}
    shown = f"sival_int={value & 0xFFFF_FFFF}, sival_ptr={hex(value) if value else 'NULL'}"
    data_text = f"sigev_value={{{shown}}}, " if value else ""
    return f"{{{data_text}sigev_signo={signals.name(number)}, sigev_notify={names.get(kind, kind)}}}"


_SIGEVENT = Struct("<Qii")


def poll(subject: Subject) -> str:
    """struct pollfd, as many as the next argument says."""
    shown = []
    for index in range(max(min(subject.argument(1), VECTOR_LIMIT), 0)):
        raw = peek(subject.task, subject.value + 8 * index, 8)
        if len(raw) < 8:
            return address(subject)
        fd, wanted, _ = Struct("<ihh").unpack(raw)
        shown.append(f"{{fd={fd}, events={poll_events(wanted)}}}")
    return "[" + ", ".join(shown) + "]"


STRUCTURES: dict[str, Formatter] = {
    "stat": stat,
    "statx": statx,
    "entries": entries,
    "pair": pair,
    "out_pair": pair,
    "out_int": out_int,
    "out_long": out_long,
    "poll": poll,
    "sigset": sigset,
    "sigaction": sigaction,
    "siginfo": siginfo,
    "altstack": altstack,
    "rlimit": rlimit,
    "uname": uname,
    "sysinfo": sysinfo,
    "statfs": statfs,
    "sigevent": sigevent,
}
