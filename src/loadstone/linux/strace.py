"""System calls as a person reads them, in strace(1)'s manner: `openat(AT_FDCWD, "/etc/passwd", O_RDONLY)`.

Imported only when somebody listens to system calls. Formatters look at user memory as it is and never fault a page in:
what is not there is shown by its address. `before` shows what a call is given, `after` adds what it gave back.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.linux import signals
from loadstone.machine.paging import FRAME_MASK, PRESENT
from loadstone.memory.vma import PAGE

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.registry import SystemCall

STRING_LIMIT = 32  # strace -s
VECTOR_LIMIT = 32
_PATH_MAX = 4096


class Subject(NamedTuple):
    """The argument to be shown: number `position` of `arguments` (after decoding), of a call that returned `result`."""

    task: Task
    arguments: tuple[int, ...]
    position: int
    result: int

    @property
    def value(self) -> int:
        """The argument itself."""
        return self.arguments[self.position]

    def argument(self, offset: int) -> int:
        """The argument `offset` places further on; 0 past the last."""
        index = self.position + offset
        return self.arguments[index] if 0 <= index < len(self.arguments) else 0


Formatter = Callable[[Subject], str]


def before(task: Task, row: SystemCall, registers: tuple[int, ...]) -> list[str]:
    """The arguments as far as they can be shown before the call.

    "" for those the call writes, and for those whose page is not there before the kernel has read it.
    """
    arguments = _decode(row, registers)
    shown = []
    for index, kind in enumerate(row.kinds):
        text = "" if kind.late else FORMATTERS[kind.show](Subject(task, arguments, index, 0))
        shown.append("" if text == f"{arguments[index]:#x}" else text)
    return shown


def after(task: Task, row: SystemCall, registers: tuple[int, ...], result: int, shown: list[str] | None) -> str:
    """The whole call, without its result."""
    if not row.kinds and row.function is None:
        return f"{row.name}({', '.join(hex(value) for value in registers[1:])})"
    if shown is None:  # somebody began to listen while the call waited
        shown = before(task, row, registers)
    arguments = _decode(row, registers)
    failed = -4096 < result < 0
    for index, kind in enumerate(row.kinds):
        if not shown[index]:
            subject = Subject(task, arguments, index, result)
            shown[index] = address(subject) if failed and kind.late else FORMATTERS[kind.show](subject)
    return f"{row.name}({', '.join(shown[: _count_used(row.name, arguments)])})"


_MAKES_FILE = 0o20200100  # O_CREAT, O_TMPFILE
_MREMAP_FIXED = 2
# Arguments each futex command looks at: WAIT and the ones with a time-out 4, WAKE 3, the two-word ones 5 or 6.
_FUTEX_ARGUMENTS = (4, 3, 3, 5, 6, 6, 4, 2, 2, 6, 6, 5, 6, 4)


def _count_used(name: str, arguments: tuple[int, ...]) -> int:
    """How many arguments mean something in this call."""
    if name in ("open", "openat"):
        count = len(arguments)
        return count if arguments[count - 2] & _MAKES_FILE & ~0o200000 else count - 1
    if name == "mremap":
        return 5 if arguments[3] & _MREMAP_FIXED else 4
    if name == "futex":
        command = arguments[1] & 0x7F
        return _FUTEX_ARGUMENTS[command] if command < len(_FUTEX_ARGUMENTS) else 6
    return len(arguments)


def _decode(row: SystemCall, registers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_cut(registers[index], kind.width) for index, kind in enumerate(row.kinds, 1))


def _cut(value: int, width: int) -> int:
    """What the C type of the argument leaves of a register (see syscalls.arguments)."""
    if width == 1:
        return (value ^ 1 << 63) - (1 << 63)
    if width == 2:
        return (value & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31)
    return value & (0, 0, 0, 0xFFFF_FFFF, 0xFFFF)[width] if width else value


# ------------------------------------------------------------------------------------------------ user memory


def peek(task: Task, start: int, length: int) -> bytes:
    """Up to `length` bytes, as far as their pages are there: looking must not change what happens."""
    space = task.process.space
    parts = []
    while length > 0 and 0 <= start < space.layout.task_size:
        entry = space.page_table.entry(start)
        if not entry & PRESENT:
            break
        offset = start % PAGE
        count = min(PAGE - offset, length)
        physical = (entry & FRAME_MASK) + offset
        parts.append(bytes(space.memory.bytes[physical : physical + count]))
        start += count
        length -= count
    return b"".join(parts)


def _whole(subject: Subject, layout: Struct, count: int = 1) -> bytes | None:
    data = peek(subject.task, subject.value, layout.size * count)
    return data if len(data) == layout.size * count else None


_ESCAPES = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def quote(data: bytes, cut: bool = False) -> str:
    """A C string literal; octal escapes are as short as what follows them allows."""
    parts = []
    for index, byte in enumerate(data):
        if byte in _ESCAPES:
            parts.append(_ESCAPES[byte])
        elif 32 <= byte < 127:
            parts.append(chr(byte))
        else:
            digit_follows = index + 1 < len(data) and 48 <= data[index + 1] <= 57
            parts.append(f"\\{byte:03o}" if digit_follows else f"\\{byte:o}")
    return '"' + "".join(parts) + '"' + ("..." if cut else "")


# ------------------------------------------------------------------------------------------------ plain formatters


def decimal(subject: Subject) -> str:
    """A plain number."""
    return str(subject.value)


def hexadecimal(subject: Subject) -> str:
    """A number of bits."""
    return f"{subject.value:#x}" if subject.value else "0"


def address(subject: Subject) -> str:
    """A pointer that is not followed."""
    return f"{subject.value:#x}" if subject.value else "NULL"


def mode(subject: Subject) -> str:
    """Permission bits, octal."""
    return f"{subject.value:#03o}".replace("0o", "0")


def identity(subject: Subject) -> str:
    """A user or group number; all ones is -1."""
    return "-1" if subject.value == 0xFFFF_FFFF else str(subject.value)


def device(subject: Subject) -> str:
    """A device number."""
    value = subject.value
    return f"makedev({value >> 8 & 0xFFF:#x}, {value & 0xFF | value >> 12 & 0xFFF00:#x})"


def directory(subject: Subject) -> str:
    """A descriptor that relative paths start from."""
    return "AT_FDCWD" if subject.value == -100 else str(subject.value)


def path(subject: Subject) -> str:
    """A path, whole."""
    if not subject.value:
        return "NULL"
    data = peek(subject.task, subject.value, _PATH_MAX)
    end = data.find(0)
    if end < 0:
        return f"{quote(data, True)}" if data else address(subject)
    return quote(data[:end])


def _text_at(task: Task, start: int) -> str:
    data = peek(task, start, STRING_LIMIT + 1)
    end = data.find(0)
    if not data:
        return f"{start:#x}"
    return quote(data[:end]) if end >= 0 else quote(data[:STRING_LIMIT], True)


def strings(subject: Subject) -> str:
    """A vector of strings: argv."""
    if not subject.value:
        return "NULL"
    shown = []
    for index in range(VECTOR_LIMIT + 1):
        word = peek(subject.task, subject.value + 8 * index, 8)
        pointer = int.from_bytes(word, "little")
        if not pointer:
            break
        shown.append(_text_at(subject.task, pointer) if index < VECTOR_LIMIT else "...")
    return "[" + ", ".join(shown) + "]"


def environment(subject: Subject) -> str:
    """How many variables there are."""
    if not subject.value:
        return "NULL"
    count = 0
    while count < 100_000 and any(peek(subject.task, subject.value + 8 * count, 8)):
        count += 1
    return f"{subject.value:#x} /* {count} var{'s' if count != 1 else ''} */"


def _data(task: Task, start: int, length: int) -> str:
    data = peek(task, start, min(length, STRING_LIMIT))
    if len(data) < min(length, STRING_LIMIT):
        return f"{start:#x}" if start else "NULL"
    return quote(data, length > STRING_LIMIT)


def in_bytes(subject: Subject) -> str:
    """Bytes the call reads; the next argument says how many."""
    return _data(subject.task, subject.value, subject.argument(1))


def out_bytes(subject: Subject) -> str:
    """Bytes the call wrote; the result says how many."""
    return _data(subject.task, subject.value, max(subject.result, 0))


_IOVEC = Struct("<QQ")


def _vector(subject: Subject, length: int) -> str:
    shown = []
    for index in range(max(min(subject.argument(1), VECTOR_LIMIT), 0)):
        raw = peek(subject.task, subject.value + 16 * index, 16)
        if len(raw) < 16:
            return address(subject)
        start, size = _IOVEC.unpack(raw)
        here = min(size, max(length, 0))
        length -= here
        shown.append(f"{{iov_base={_data(subject.task, start, here)}, iov_len={size}}}")
    return "[" + ", ".join(shown) + "]"


def in_vector(subject: Subject) -> str:
    """struct iovec with the bytes to be written."""
    return _vector(subject, 1 << 63)


def out_vector(subject: Subject) -> str:
    """struct iovec with the bytes that were read."""
    return _vector(subject, subject.result)


def _struct(layout: Struct, show: Callable[[tuple[int, ...]], str]) -> Formatter:
    """A formatter of a pointer to one structure."""

    def formatter(subject: Subject) -> str:
        if not subject.value:
            return "NULL"
        data = _whole(subject, layout)
        return address(subject) if data is None else show(layout.unpack(data))

    return formatter


# ------------------------------------------------------------------------------------------------ structures

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


stat = _struct(
    Struct("<24xI12xQq"),
    lambda v: f"{{st_mode={_file_mode(v[0])}, {_size_or_device(v[0], v[2], v[1])}, ...}}",
)
statx = _struct(
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


pair = _struct(Struct("<ii"), lambda v: f"[{v[0]}, {v[1]}]")
out_int = _struct(Struct("<i"), lambda v: f"[{v[0]}]")
out_long = _struct(Struct("<q"), lambda v: f"[{v[0]}]")
timespec = _struct(Struct("<qq"), lambda v: f"{{tv_sec={v[0]}, tv_nsec={v[1]}}}")
timeval = _struct(Struct("<qq"), lambda v: f"{{tv_sec={v[0]}, tv_usec={v[1]}}}")
itimer = _struct(
    Struct("<4q"),
    lambda v: f"{{it_interval={{tv_sec={v[0]}, tv_usec={v[1]}}}, it_value={{tv_sec={v[2]}, tv_usec={v[3]}}}}}",
)
rlimit = _struct(Struct("<QQ"), lambda v: f"{{rlim_cur={_limit(v[0])}, rlim_max={_limit(v[1])}}}")
sysinfo = _struct(
    Struct("<q3QQQ"),
    lambda v: f"{{uptime={v[0]}, loads=[{v[1]}, {v[2]}, {v[3]}], totalram={v[4]}, freeram={v[5]}, ...}}",
)
sigset = _struct(Struct("<Q"), lambda v: signal_set(v[0]))
siginfo = _struct(Struct("<iii4xiI"), lambda v: _siginfo(*v))
altstack = _struct(
    Struct("<QIxxxxQ"),
    lambda v: (
        f"{{ss_sp={v[0]:#x}, ss_flags={named(v[1], _STACK_FLAGS, '0')}, ss_size={v[2]}}}"
        if v[0]
        else f"{{ss_sp=NULL, ss_flags={named(v[1], _STACK_FLAGS, '0')}, ss_size={v[2]}}}"
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
    text += f", sa_flags={named(flags, _ACTION_FLAGS, '0')}"
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


# ------------------------------------------------------------------------------------------------ flags and numbers

Table = tuple[tuple[int, str], ...]


def named(value: int, table: Table, nothing: str) -> str:
    """The names of the bits that are set, what is left in hexadecimal; `nothing` for 0."""
    if not value:
        return nothing
    parts = []
    for mask, label in table:
        if mask and value & mask == mask:
            parts.append(label)
            value &= ~mask
    if value:
        parts.append(f"{value:#x}")
    return "|".join(parts)


def _bits(prefix: str, names: str, nothing: str = "0", first: int = 1) -> Formatter:
    """Flags whose names are in the order of their bits; `-` for a bit without a name."""
    table = tuple((first << shift, prefix + label) for shift, label in enumerate(names.split()) if label != "-")
    return lambda subject: named(subject.value & (1 << 64) - 1, table, nothing)


def _numbers(prefix: str, names: str, first: int = 0) -> Formatter:
    """One of several numbers; `-` for one without a name."""
    table = {number: prefix + label for number, label in enumerate(names.split(), first) if label != "-"}
    return _choice(table)


def _choice(table: dict[int, str]) -> Formatter:
    return lambda subject: (
        table.get(subject.value) or (str(subject.value) if -1024 < subject.value < 1024 else f"{subject.value:#x}")
    )


_ACTION_FLAGS: Table = (
    (signals.SA_RESTORER, "SA_RESTORER"), (signals.SA_ONSTACK, "SA_ONSTACK"), (signals.SA_RESTART, "SA_RESTART"),
    (signals.SA_NODEFER, "SA_NODEFER"), (signals.SA_RESETHAND, "SA_RESETHAND"), (signals.SA_SIGINFO, "SA_SIGINFO"),
    (signals.SA_NOCLDSTOP, "SA_NOCLDSTOP"), (signals.SA_NOCLDWAIT, "SA_NOCLDWAIT"),
)  # fmt: skip
_STACK_FLAGS: Table = ((1, "SS_ONSTACK"), (2, "SS_DISABLE"), (0x80000000, "SS_AUTODISARM"))

_MAP_BITS: Table = (
    (0x10, "MAP_FIXED"), (0x20, "MAP_ANONYMOUS"), (0x40, "MAP_32BIT"), (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"), (0x1000, "MAP_EXECUTABLE"), (0x2000, "MAP_LOCKED"), (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"), (0x10000, "MAP_NONBLOCK"), (0x20000, "MAP_STACK"), (0x40000, "MAP_HUGETLB"),
    (0x80000, "MAP_SYNC"), (0x100000, "MAP_FIXED_NOREPLACE"),
)  # fmt: skip


def map_flags(subject: Subject) -> str:
    """The type of the mapping, then the bits."""
    kinds = {1: "MAP_SHARED", 2: "MAP_PRIVATE", 3: "MAP_SHARED_VALIDATE", 8: "MAP_DROPPABLE"}
    kind = kinds.get(subject.value & 0xF, f"{subject.value & 0xF:#x}")
    rest = named(subject.value & ~0xF, _MAP_BITS, "")
    return f"{kind}|{rest}" if rest else kind


_OPEN_BITS: Table = (
    (0o100, "O_CREAT"), (0o200, "O_EXCL"), (0o400, "O_NOCTTY"), (0o1000, "O_TRUNC"), (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"), (0o4010000, "O_SYNC"), (0o10000, "O_DSYNC"), (0o20000, "O_ASYNC"), (0o40000, "O_DIRECT"),
    (0o100000, "O_LARGEFILE"), (0o400000, "O_NOFOLLOW"), (0o1000000, "O_NOATIME"), (0o2000000, "O_CLOEXEC"),
    (0o10000000, "O_PATH"), (0o20200000, "O_TMPFILE"), (0o200000, "O_DIRECTORY"),
)  # fmt: skip


def open_flags(subject: Subject) -> str:
    """The access mode, then the bits."""
    kind = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[subject.value & 3]
    rest = named(subject.value & 0xFFFF_FFFC, _OPEN_BITS, "")
    return f"{kind}|{rest}" if rest else kind


def signal(subject: Subject) -> str:
    """A signal's name."""
    return signals.name(subject.value) if 1 <= subject.value <= signals.HIGHEST else str(subject.value)


_FUTEX = (
    "WAIT WAKE FD REQUEUE CMP_REQUEUE WAKE_OP LOCK_PI UNLOCK_PI TRYLOCK_PI WAIT_BITSET WAKE_BITSET WAIT_REQUEUE_PI "
    "CMP_REQUEUE_PI LOCK_PI2"
)


def futex(subject: Subject) -> str:
    """The command, then its two bits."""
    names = _FUTEX.split()
    command = subject.value & 0x7F
    text = f"FUTEX_{names[command]}" if command < len(names) else f"{command:#x}"
    text += "_PRIVATE" if subject.value & 128 else ""
    return text + ("|FUTEX_CLOCK_REALTIME" if subject.value & 256 else "")


_CLONE = (
    "VM FS FILES SIGHAND PIDFD PTRACE VFORK PARENT THREAD NEWNS SYSVSEM SETTLS PARENT_SETTID CHILD_CLEARTID DETACHED "
    "UNTRACED CHILD_SETTID NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET IO"
)


def clone_flags(subject: Subject) -> str:
    """The flags, and the signal at the end of the child."""
    table = tuple((0x100 << shift, f"CLONE_{label}") for shift, label in enumerate(_CLONE.split()))
    number = subject.value & 0xFF
    parts = [named(subject.value & ~0xFF, table, ""), signals.name(number) if 0 < number <= 64 else ""]
    return "|".join(part for part in parts if part) or "0"


_IOCTLS = {
    0x5401: "TCGETS", 0x5402: "TCSETS", 0x5403: "TCSETSW", 0x5404: "TCSETSF", 0x540B: "TCFLSH", 0x540F: "TIOCGPGRP",
    0x5410: "TIOCSPGRP", 0x5412: "TIOCSTI", 0x5413: "TIOCGWINSZ", 0x5414: "TIOCSWINSZ", 0x541B: "FIONREAD",
    0x540E: "TIOCSCTTY", 0x541C: "TIOCLINUX", 0x541D: "TIOCCONS", 0x5421: "FIONBIO", 0x5429: "TIOCGSID",
    0x5450: "FIONCLEX", 0x5451: "FIOCLEX", 0x802C542A: "TCGETS2", 0x40049409: "FICLONE",
}  # fmt: skip
_FCNTL_FIRST = "DUPFD GETFD SETFD GETFL SETFL GETLK SETLK SETLKW SETOWN GETOWN SETSIG GETSIG"
_FCNTL = {
    1024: "F_SETLEASE", 1025: "F_GETLEASE", 1026: "F_NOTIFY", 1030: "F_DUPFD_CLOEXEC", 1031: "F_SETPIPE_SZ",
    1032: "F_GETPIPE_SZ", 1033: "F_ADD_SEALS", 1034: "F_GET_SEALS", 36: "F_OFD_GETLK", 37: "F_OFD_SETLK",
    38: "F_OFD_SETLKW",
}  # fmt: skip
_FCNTL |= {number: f"F_{label}" for number, label in enumerate(_FCNTL_FIRST.split())}
_PRCTL = {
    1: "PR_SET_PDEATHSIG", 2: "PR_GET_PDEATHSIG", 3: "PR_GET_DUMPABLE", 4: "PR_SET_DUMPABLE", 7: "PR_GET_KEEPCAPS",
    8: "PR_SET_KEEPCAPS", 15: "PR_SET_NAME", 16: "PR_GET_NAME", 21: "PR_GET_SECCOMP", 22: "PR_SET_SECCOMP",
    23: "PR_CAPBSET_READ", 24: "PR_CAPBSET_DROP", 29: "PR_SET_TIMERSLACK", 30: "PR_GET_TIMERSLACK",
    36: "PR_SET_CHILD_SUBREAPER", 37: "PR_GET_CHILD_SUBREAPER", 38: "PR_SET_NO_NEW_PRIVS", 39: "PR_GET_NO_NEW_PRIVS",
    40: "PR_GET_TID_ADDRESS", 41: "PR_SET_THP_DISABLE", 42: "PR_GET_THP_DISABLE", 47: "PR_CAP_AMBIENT",
    0x53564D41: "PR_SET_VMA", 0x59616D61: "PR_SET_PTRACER",
}  # fmt: skip
_ARCH = {
    0x1001: "ARCH_SET_GS", 0x1002: "ARCH_SET_FS", 0x1003: "ARCH_GET_FS", 0x1004: "ARCH_GET_GS",
    0x1011: "ARCH_GET_CPUID", 0x1012: "ARCH_SET_CPUID", 0x1021: "ARCH_GET_XCOMP_SUPP", 0x1022: "ARCH_GET_XCOMP_PERM",
    0x3001: "ARCH_CET_STATUS", 0x5001: "ARCH_SHSTK_ENABLE", 0x5005: "ARCH_SHSTK_STATUS",
}  # fmt: skip
_RESOURCES = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
_ADVICE = (
    "NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED - - - FREE REMOVE DONTFORK DOFORK MERGEABLE UNMERGEABLE HUGEPAGE "
    "NOHUGEPAGE DONTDUMP DODUMP WIPEONFORK KEEPONFORK COLD PAGEOUT POPULATE_READ POPULATE_WRITE DONTNEED_LOCKED "
    "COLLAPSE"
)
_CLOCKS = (
    "REALTIME MONOTONIC PROCESS_CPUTIME_ID THREAD_CPUTIME_ID MONOTONIC_RAW REALTIME_COARSE MONOTONIC_COARSE BOOTTIME "
    "REALTIME_ALARM BOOTTIME_ALARM - TAI"
)
_MEMBARRIER_COMMANDS = (
    "GLOBAL GLOBAL_EXPEDITED REGISTER_GLOBAL_EXPEDITED PRIVATE_EXPEDITED REGISTER_PRIVATE_EXPEDITED "
    "PRIVATE_EXPEDITED_SYNC_CORE REGISTER_PRIVATE_EXPEDITED_SYNC_CORE PRIVATE_EXPEDITED_RSEQ "
    "REGISTER_PRIVATE_EXPEDITED_RSEQ GET_REGISTRATIONS"
)
_MEMBARRIER = {1 << shift: f"MEMBARRIER_CMD_{label}" for shift, label in enumerate(_MEMBARRIER_COMMANDS.split())}
_MEMBARRIER[0] = "MEMBARRIER_CMD_QUERY"
_AT_FLAGS = "SYMLINK_NOFOLLOW REMOVEDIR SYMLINK_FOLLOW NO_AUTOMOUNT EMPTY_PATH STATX_FORCE_SYNC STATX_DONT_SYNC"
_STATX = "TYPE MODE NLINK UID GID ATIME MTIME CTIME INO SIZE BLOCKS BTIME MNT_ID"


def statx_mask(subject: Subject) -> str:
    """Which fields are asked for."""
    usual = {0x7FF: "STATX_BASIC_STATS", 0xFFF: "STATX_ALL"}.get(subject.value)
    table = tuple((1 << shift, f"STATX_{label}") for shift, label in enumerate(_STATX.split()))
    return usual or named(subject.value, table, "0")


FORMATTERS: dict[str, Formatter] = {
    "decimal": decimal,
    "hexadecimal": hexadecimal,
    "address": address,
    "mode": mode,
    "identity": identity,
    "device": device,
    "directory": directory,
    "path": path,
    "strings": strings,
    "environment": environment,
    "in_bytes": in_bytes,
    "out_bytes": out_bytes,
    "in_vector": in_vector,
    "out_vector": out_vector,
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
    "prot": _bits("PROT_", "READ WRITE EXEC SEM", "PROT_NONE"),
    "map_flags": map_flags,
    "remap_flags": _bits("MREMAP_", "MAYMOVE FIXED DONTUNMAP"),
    "sync_flags": _bits("MS_", "ASYNC INVALIDATE SYNC"),
    "lock_flags": _bits("MLOCK_", "ONFAULT"),
    "advice": _numbers("MADV_", _ADVICE),
    "open_flags": open_flags,
    "at_flags": _bits("AT_", _AT_FLAGS, first=0x100),
    "access_mode": _bits("", "X_OK W_OK R_OK", "F_OK"),
    "whence": _numbers("SEEK_", "SET CUR END DATA HOLE"),
    "fcntl": _choice(_FCNTL),
    "ioctl": _choice(_IOCTLS),
    "statx_mask": statx_mask,
    "rename_flags": _bits("RENAME_", "NOREPLACE EXCHANGE WHITEOUT"),
    "file_advice": _numbers("POSIX_FADV_", "NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED NOREUSE"),
    "signal": signal,
    "mask_how": _numbers("SIG_", "BLOCK UNBLOCK SETMASK"),
    "clock": _numbers("CLOCK_", _CLOCKS),
    "sleep_flags": _bits("TIMER_", "ABSTIME"),
    "itimer_which": _numbers("ITIMER_", "REAL VIRTUAL PROF"),
    "resource": _numbers("RLIMIT_", _RESOURCES),
    "usage_who": _choice({0: "RUSAGE_SELF", -1: "RUSAGE_CHILDREN", 1: "RUSAGE_THREAD"}),
    "priority_which": _numbers("PRIO_", "PROCESS PGRP USER"),
    "policy": _numbers("SCHED_", "OTHER FIFO RR BATCH - IDLE DEADLINE"),
    "futex": futex,
    "prctl": _choice(_PRCTL),
    "arch_prctl": _choice(_ARCH),
    "random_flags": _bits("GRND_", "NONBLOCK RANDOM INSECURE"),
    "clone_flags": clone_flags,
    "membarrier": _choice(_MEMBARRIER),
}
