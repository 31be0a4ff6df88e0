"""What the parameters of system-call handlers are: how a register becomes an int, and how a trace shows it.

A handler's annotations name these types; to a type checker all of them are `int`, and an int is what a handler gets.

    def mprotect(task: Task, start: Address, length: Size, prot: Prot) -> int: ...

At run time the names are looked up in `KINDS` when a call is first used; nothing else of them exists (import them under
`TYPE_CHECKING`). The kernel declares each argument with a C type that may be narrower than the register, and cuts the
register down to it: `Kind.width`. `Kind.show` names the formatter in `linux.strace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Kind.width: the C type of the argument.
UNSIGNED_LONG, LONG, INT, UNSIGNED_INT, UNSIGNED_SHORT = range(5)

_EXPRESSIONS = (
    "r[{0}]",
    "(r[{0}] ^ 0x8000000000000000) - 0x8000000000000000",
    "(r[{0}] & 0xffffffff ^ 0x80000000) - 0x80000000",
    "r[{0}] & 0xffffffff",
    "r[{0}] & 0xffff",
)


class Kind:
    """The type of one argument or result.

    `late` arguments are shown after the call, when what they point at has been written.
    """

    __slots__ = ("late", "show", "width")

    def __init__(self, width: int, show: str, late: bool) -> None:
        self.width = width
        self.show = show
        self.late = late


def decoder_source(widths: tuple[int, ...]) -> str:
    """The expression that makes a caller of a handler: `f` is the handler, `t` the task, `r` number and registers."""
    values = "".join(", " + _EXPRESSIONS[width].format(index) for index, width in enumerate(widths, 1))
    return f"lambda f: lambda t, r: f(t{values})"


def kind(name: str) -> Kind:
    """The kind that an annotation names; `int`, and whatever is no name of ours, is a plain C int."""
    return Kind(*KINDS.get(name, (INT, "decimal", False)))


if TYPE_CHECKING:
    from typing import TypeAlias

    # Plain numbers
    Int: TypeAlias = int
    UInt: TypeAlias = int
    Long: TypeAlias = int
    ULong: TypeAlias = int
    Hex: TypeAlias = int
    UHex: TypeAlias = int
    Size: TypeAlias = int
    Offset: TypeAlias = int
    Mode: TypeAlias = int
    Device: TypeAlias = int
    Fd: TypeAlias = int
    DirFd: TypeAlias = int
    Pid: TypeAlias = int
    Uid: TypeAlias = int
    Gid: TypeAlias = int
    # Pointers. `In…` is read by the call, `Out…` is written by it.
    Address: TypeAlias = int
    Path: TypeAlias = int
    Strings: TypeAlias = int
    Environment: TypeAlias = int
    InBytes: TypeAlias = int
    """As many bytes as the next argument says."""
    OutBytes: TypeAlias = int
    """As many bytes as the result says."""
    InVector: TypeAlias = int
    """struct iovec, as many as the next argument says."""
    OutVector: TypeAlias = int
    OutStat: TypeAlias = int
    OutStatx: TypeAlias = int
    OutDirectory: TypeAlias = int
    OutPair: TypeAlias = int
    """Two ints: the descriptors of pipe(2)."""
    OutInt: TypeAlias = int
    OutLong: TypeAlias = int
    InOutLong: TypeAlias = int
    PollFds: TypeAlias = int
    InTime: TypeAlias = int
    OutTime: TypeAlias = int
    InTimes: TypeAlias = int
    """Two of them: utimensat(2)."""
    InTimeval: TypeAlias = int
    OutTimeval: TypeAlias = int
    InItimer: TypeAlias = int
    OutItimer: TypeAlias = int
    InSigset: TypeAlias = int
    OutSigset: TypeAlias = int
    InSigaction: TypeAlias = int
    OutSigaction: TypeAlias = int
    InSiginfo: TypeAlias = int
    OutSiginfo: TypeAlias = int
    InStack: TypeAlias = int
    OutStack: TypeAlias = int
    InRlimit: TypeAlias = int
    OutRlimit: TypeAlias = int
    OutUname: TypeAlias = int
    OutSysinfo: TypeAlias = int
    # Sets of flags, and numbers with names
    Prot: TypeAlias = int
    MapFlags: TypeAlias = int
    RemapFlags: TypeAlias = int
    SyncFlags: TypeAlias = int
    LockFlags: TypeAlias = int
    Advice: TypeAlias = int
    OpenFlags: TypeAlias = int
    AtFlags: TypeAlias = int
    AccessMode: TypeAlias = int
    Whence: TypeAlias = int
    FcntlCommand: TypeAlias = int
    IoctlRequest: TypeAlias = int
    StatxMask: TypeAlias = int
    RenameFlags: TypeAlias = int
    FileAdvice: TypeAlias = int
    Signal: TypeAlias = int
    MaskHow: TypeAlias = int
    ClockId: TypeAlias = int
    SleepFlags: TypeAlias = int
    ItimerWhich: TypeAlias = int
    Resource: TypeAlias = int
    UsageWho: TypeAlias = int
    PriorityWhich: TypeAlias = int
    Policy: TypeAlias = int
    FutexOp: TypeAlias = int
    PrctlOption: TypeAlias = int
    ArchCode: TypeAlias = int
    RandomFlags: TypeAlias = int
    CloneFlags: TypeAlias = int
    MembarrierCommand: TypeAlias = int

KINDS: dict[str, tuple[int, str, bool]] = {
    # Plain numbers
    "Int": (INT, "decimal", False),
    "UInt": (UNSIGNED_INT, "decimal", False),
    "Long": (LONG, "decimal", False),
    "ULong": (UNSIGNED_LONG, "decimal", False),
    "Hex": (UNSIGNED_LONG, "hexadecimal", False),
    "UHex": (UNSIGNED_INT, "hexadecimal", False),
    "Size": (UNSIGNED_LONG, "decimal", False),
    "Offset": (LONG, "decimal", False),
    "Mode": (UNSIGNED_SHORT, "mode", False),
    "Device": (UNSIGNED_INT, "device", False),
    "Fd": (INT, "decimal", False),
    "DirFd": (INT, "directory", False),
    "Pid": (INT, "decimal", False),
    "Uid": (UNSIGNED_INT, "identity", False),
    "Gid": (UNSIGNED_INT, "identity", False),
    # Pointers. `In…` is read by the call, `Out…` is written by it.
    "Address": (UNSIGNED_LONG, "address", False),
    "Path": (UNSIGNED_LONG, "path", False),
    "Strings": (UNSIGNED_LONG, "strings", False),
    "Environment": (UNSIGNED_LONG, "environment", False),
    "InBytes": (UNSIGNED_LONG, "in_bytes", False),
    "OutBytes": (UNSIGNED_LONG, "out_bytes", True),
    "InVector": (UNSIGNED_LONG, "in_vector", False),
    "OutVector": (UNSIGNED_LONG, "out_vector", True),
    "OutStat": (UNSIGNED_LONG, "stat", True),
    "OutStatx": (UNSIGNED_LONG, "statx", True),
    "OutDirectory": (UNSIGNED_LONG, "entries", True),
    "OutPair": (UNSIGNED_LONG, "pair", True),
    "OutInt": (UNSIGNED_LONG, "out_int", True),
    "OutLong": (UNSIGNED_LONG, "out_long", True),
    "InOutLong": (UNSIGNED_LONG, "out_long", False),
    "PollFds": (UNSIGNED_LONG, "poll", True),
    "InTime": (UNSIGNED_LONG, "timespec", False),
    "OutTime": (UNSIGNED_LONG, "timespec", True),
    "InTimes": (UNSIGNED_LONG, "timespecs", False),
    "InTimeval": (UNSIGNED_LONG, "timeval", False),
    "OutTimeval": (UNSIGNED_LONG, "timeval", True),
    "InItimer": (UNSIGNED_LONG, "itimer", False),
    "OutItimer": (UNSIGNED_LONG, "itimer", True),
    "InSigset": (UNSIGNED_LONG, "sigset", False),
    "OutSigset": (UNSIGNED_LONG, "sigset", True),
    "InSigaction": (UNSIGNED_LONG, "sigaction", False),
    "OutSigaction": (UNSIGNED_LONG, "sigaction", True),
    "InSiginfo": (UNSIGNED_LONG, "siginfo", False),
    "OutSiginfo": (UNSIGNED_LONG, "siginfo", True),
    "InStack": (UNSIGNED_LONG, "altstack", False),
    "OutStack": (UNSIGNED_LONG, "altstack", True),
    "InRlimit": (UNSIGNED_LONG, "rlimit", False),
    "OutRlimit": (UNSIGNED_LONG, "rlimit", True),
    "OutUname": (UNSIGNED_LONG, "uname", True),
    "OutSysinfo": (UNSIGNED_LONG, "sysinfo", True),
    # Sets of flags, and numbers with names
    "Prot": (UNSIGNED_LONG, "prot", False),
    "MapFlags": (UNSIGNED_LONG, "map_flags", False),
    "RemapFlags": (UNSIGNED_LONG, "remap_flags", False),
    "SyncFlags": (INT, "sync_flags", False),
    "LockFlags": (INT, "lock_flags", False),
    "Advice": (INT, "advice", False),
    "OpenFlags": (INT, "open_flags", False),
    "AtFlags": (INT, "at_flags", False),
    "AccessMode": (INT, "access_mode", False),
    "Whence": (UNSIGNED_INT, "whence", False),
    "FcntlCommand": (UNSIGNED_INT, "fcntl", False),
    "IoctlRequest": (UNSIGNED_INT, "ioctl", False),
    "StatxMask": (UNSIGNED_INT, "statx_mask", False),
    "RenameFlags": (UNSIGNED_INT, "rename_flags", False),
    "FileAdvice": (INT, "file_advice", False),
    "Signal": (INT, "signal", False),
    "MaskHow": (INT, "mask_how", False),
    "ClockId": (INT, "clock", False),
    "SleepFlags": (INT, "sleep_flags", False),
    "ItimerWhich": (INT, "itimer_which", False),
    "Resource": (UNSIGNED_INT, "resource", False),
    "UsageWho": (INT, "usage_who", False),
    "PriorityWhich": (INT, "priority_which", False),
    "Policy": (INT, "policy", False),
    "FutexOp": (INT, "futex", False),
    "PrctlOption": (INT, "prctl", False),
    "ArchCode": (INT, "arch_prctl", False),
    "RandomFlags": (UNSIGNED_INT, "random_flags", False),
    "CloneFlags": (UNSIGNED_LONG, "clone_flags", False),
    "MembarrierCommand": (INT, "membarrier", False),
}
