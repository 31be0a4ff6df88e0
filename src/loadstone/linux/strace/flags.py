"""Flags and numbers with names in system calls' arguments, as strace(1) shows them."""

from __future__ import annotations

from loadstone.linux.signal import signals
from loadstone.linux.strace.values import Formatter, Subject

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


def bits(prefix: str, names: str, nothing: str = "0", first: int = 1) -> Formatter:
    """Flags whose names are in the order of their bits; `-` for a bit without a name."""
    table = tuple((first << shift, prefix + label) for shift, label in enumerate(names.split()) if label != "-")
    return lambda subject: named(subject.value & (1 << 64) - 1, table, nothing)


def numbers(prefix: str, names: str, first: int = 0) -> Formatter:
    """One of several numbers; `-` for one without a name."""
    table = {number: prefix + label for number, label in enumerate(names.split(), first) if label != "-"}
    return choice(table)


def choice(table: dict[int, str]) -> Formatter:
    """One of the numbers in the table; others as numbers."""
    return lambda subject: (
        table.get(subject.value) or (str(subject.value) if -1024 < subject.value < 1024 else f"{subject.value:#x}")
    )


ACTION_FLAGS: Table = (
    (signals.SA_RESTORER, "SA_RESTORER"), (signals.SA_ONSTACK, "SA_ONSTACK"), (signals.SA_RESTART, "SA_RESTART"),
    (signals.SA_NODEFER, "SA_NODEFER"), (signals.SA_RESETHAND, "SA_RESETHAND"), (signals.SA_SIGINFO, "SA_SIGINFO"),
    (signals.SA_NOCLDSTOP, "SA_NOCLDSTOP"), (signals.SA_NOCLDWAIT, "SA_NOCLDWAIT"),
)  # fmt: skip
STACK_FLAGS: Table = ((1, "SS_ONSTACK"), (2, "SS_DISABLE"), (0x80000000, "SS_AUTODISARM"))

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


def clone_text(value: int) -> str:
    """The flags of clone(2), and the signal at the end of the child."""
    number = value & 0xFF
    parts = [named(value & ~0xFF, _CLONE_TABLE, ""), signals.name(number) if 0 < number <= 64 else ""]
    return "|".join(part for part in parts if part) or "0"


_CLONE_TABLE = tuple((0x100 << shift, f"CLONE_{label}") for shift, label in enumerate(_CLONE.split()))


def clone_flags(subject: Subject) -> str:
    """The flags, and the signal at the end of the child."""
    return clone_text(subject.value)


_IOCTLS = {
    0x5401: "TCGETS", 0x5402: "TCSETS", 0x5403: "TCSETSW", 0x5404: "TCSETSF", 0x540B: "TCFLSH", 0x540F: "TIOCGPGRP",
    0x5410: "TIOCSPGRP", 0x5412: "TIOCSTI", 0x5413: "TIOCGWINSZ", 0x5414: "TIOCSWINSZ", 0x541B: "FIONREAD",
    0x540E: "TIOCSCTTY", 0x541C: "TIOCLINUX", 0x541D: "TIOCCONS", 0x5421: "FIONBIO", 0x5429: "TIOCGSID",
    0x5450: "FIONCLEX", 0x5451: "FIOCLEX", 0x802C542A: "TCGETS2", 0x40049409: "BTRFS_IOC_CLONE or FICLONE",
    0xC0502100: "SECCOMP_IOCTL_NOTIF_RECV", 0xC0182101: "SECCOMP_IOCTL_NOTIF_SEND",
    0x40082102: "SECCOMP_IOCTL_NOTIF_ID_VALID", 0x40182103: "SECCOMP_IOCTL_NOTIF_ADDFD",
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
PRCTL_STRINGS = (15, 16)  # PR_SET_NAME, PR_GET_NAME
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


def statx_fields(value: int) -> str:
    """Fields of struct statx."""
    usual = ((0xFFF, "STATX_ALL"), (0x7FF, "STATX_BASIC_STATS"))
    table = tuple((1 << shift, f"STATX_{label}") for shift, label in enumerate(_STATX.split()))
    return named(value, usual + table, "0")


def statx_mask(subject: Subject) -> str:
    """Which fields are asked for."""
    return statx_fields(subject.value)


def statx_flags(subject: Subject) -> str:
    """How a path is followed, after how fresh the attributes must be."""
    value = subject.value
    sync = {0: "AT_STATX_SYNC_AS_STAT", 0x2000: "AT_STATX_FORCE_SYNC", 0x4000: "AT_STATX_DONT_SYNC"}
    rest = at_flags(subject._replace(arguments=(value & ~0x6000,), position=0)) if value & ~0x6000 else ""
    first = sync.get(value & 0x6000, "AT_STATX_SYNC_TYPE")
    return f"{first}|{rest}" if rest else first


at_flags = bits("AT_", _AT_FLAGS, first=0x100)


FLAGS: dict[str, Formatter] = {
    "prot": bits("PROT_", "READ WRITE EXEC SEM", "PROT_NONE"),
    "map_flags": map_flags,
    "remap_flags": bits("MREMAP_", "MAYMOVE FIXED DONTUNMAP"),
    "sync_flags": bits("MS_", "ASYNC INVALIDATE SYNC"),
    "lock_flags": bits("MLOCK_", "ONFAULT"),
    "advice": numbers("MADV_", _ADVICE),
    "open_flags": open_flags,
    "at_flags": at_flags,
    "statx_flags": statx_flags,
    "access_mode": bits("", "X_OK W_OK R_OK", "F_OK"),
    "whence": numbers("SEEK_", "SET CUR END DATA HOLE"),
    "fcntl": choice(_FCNTL),
    "ioctl": choice(_IOCTLS),
    "statx_mask": statx_mask,
    "rename_flags": bits("RENAME_", "NOREPLACE EXCHANGE WHITEOUT"),
    "file_advice": numbers("POSIX_FADV_", "NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED NOREUSE"),
    "signal": signal,
    "mask_how": numbers("SIG_", "BLOCK UNBLOCK SETMASK"),
    "clock": numbers("CLOCK_", _CLOCKS),
    "sleep_flags": bits("TIMER_", "ABSTIME"),
    "itimer_which": numbers("ITIMER_", "REAL VIRTUAL PROF"),
    "resource": numbers("RLIMIT_", _RESOURCES),
    "usage_who": choice({0: "RUSAGE_SELF", -1: "RUSAGE_CHILDREN", 1: "RUSAGE_THREAD"}),
    "priority_which": numbers("PRIO_", "PROCESS PGRP USER"),
    "policy": numbers("SCHED_", "OTHER FIFO RR BATCH - IDLE DEADLINE"),
    "futex": futex,
    "prctl": choice(_PRCTL),
    "arch_prctl": choice(_ARCH),
    "random_flags": bits("GRND_", "NONBLOCK RANDOM INSECURE"),
    "clone_flags": clone_flags,
    "membarrier": choice(_MEMBARRIER),
}
