"""The text of the files of /proc/PID, byte for byte in the kernel's formats. Pure functions from facts to bytes.

Formats: the kernel's fs/proc/{array,base,fd,task_mmu}.c; widths and field order are those of Linux 6.18. Sizes are in
bytes unless a name says otherwise. What tells of the machine is in machine_text.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NS_PER_TICK = 10_000_000
RLIM_INFINITY = (1 << 64) - 1


class MemoryFacts(NamedTuple):
    """What one address space takes, in bytes (the kernel's task_mem and proc_pid_statm)."""

    total: int = 0
    peak: int = 0
    locked: int = 0
    resident_peak: int = 0
    anonymous: int = 0  # resident
    file: int = 0  # resident
    shared: int = 0  # resident shared memory
    data: int = 0
    stack: int = 0
    text: int = 0
    library: int = 0
    page_tables: int = 0

    @property
    def resident(self) -> int:
        """All that is resident."""
        return self.anonymous + self.file + self.shared


class ProcessFacts(NamedTuple):
    """One process, or one of its threads, as /proc/PID/{stat,status,statm} tell it."""

    pid: int
    tgid: int
    parent: int
    group: int
    session: int
    name: str
    state: str  # one letter: R, S, D, T, Z
    uids: tuple[int, int, int, int]
    gids: tuple[int, int, int, int]
    groups: Sequence[int]
    umask: int
    fd_slots: int
    threads: int
    memory: MemoryFacts | None  # None: a zombie, or a kernel thread
    pending: int = 0
    shared_pending: int = 0
    blocked: int = 0
    ignored: int = 0
    caught: int = 0
    signal_limit: int = 0
    capabilities: Sequence[int] = (0, 0, 0, 0)  # effective, permitted, inheritable, bounding set
    no_new_privileges: int = 0
    seccomp: tuple[int, int] = (0, 0)  # mode, filters
    tracer: int = 0
    nice: int = 0
    cpus: int = 1
    flags: int = 0x400000  # PF_RANDOMIZE, which execve sets whether or not anything is random
    tty: int = 0
    tty_group: int = -1
    minor_faults: int = 0
    major_faults: int = 0
    user_ns: int = 0
    system_ns: int = 0
    children: tuple[int, int, int, int] = (0, 0, 0, 0)  # waited for: minor, major faults; user, system ns
    start_ns: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0
    stack_limit: int = RLIM_INFINITY
    start_code: int = 0
    end_code: int = 0
    start_stack: int = 0
    start_data: int = 0
    end_data: int = 0
    start_brk: int = 0
    arg_start: int = 0
    arg_end: int = 0
    env_start: int = 0
    env_end: int = 0
    exit_code: int = 0
    inside: Sequence[tuple[int, ...]] = ()  # (tgid, pid, group, session) in each PID namespace further down


STATES = {
    "R": "R (running)",
    "S": "S (sleeping)",
    "D": "D (disk sleep)",
    "T": "T (stopped)",
    "t": "t (tracing stop)",
    "X": "X (dead)",
    "Z": "Z (zombie)",
}


def escape(name: str, special: str) -> str:
    """The characters of `special` as octal escapes."""
    return "".join(f"\\{ord(c):03o}" if c in special else c for c in name)


def encode(text: str) -> bytes:
    """Text with surrogate escapes back to the bytes it came from."""
    return text.encode("utf-8", "surrogateescape")


def cpu_mask(count: int) -> str:
    """`count` CPUs as the kernel prints a bitmap: groups of eight hexadecimal digits."""
    words = []
    left = count
    while left > 0:
        words.append((1 << min(left, 32)) - 1)
        left -= 32
    first, *rest = reversed(words)
    return ",".join([f"{first:x}", *(f"{w:08x}" for w in rest)])


def cpu_list(count: int) -> str:
    """`count` CPUs as a list: `0-3`."""
    return "0" if count == 1 else f"0-{count - 1}"


def status(p: ProcessFacts) -> bytes:
    """/proc/PID/status (fs/proc/array.c, proc_pid_status)."""
    lines = _status_names(p)
    if p.memory is not None:
        lines += _status_memory(p.memory)
    lines += _status_signals(p)
    lines += [
        "Speculation_Store_Bypass:\tthread vulnerable",
        "SpeculationIndirectBranch:\tconditional enabled",
        f"Cpus_allowed:\t{cpu_mask(p.cpus)}",
        f"Cpus_allowed_list:\t{cpu_list(p.cpus)}",
        "Mems_allowed:\t" + ",".join(["00000000"] * 31 + ["00000001"]),
        "Mems_allowed_list:\t0",
        f"voluntary_ctxt_switches:\t{p.voluntary_switches}",
        f"nonvoluntary_ctxt_switches:\t{p.involuntary_switches}",
    ]
    return encode("\n".join(lines) + "\n")


def _status_names(p: ProcessFacts) -> list[str]:
    """What it is called, and as whom it runs."""
    return [
        f"Name:\t{escape(p.name, chr(10) + chr(92))}",
        f"Umask:\t{p.umask:04o}",
        f"State:\t{STATES[p.state]}",
        f"Tgid:\t{p.tgid}",
        "Ngid:\t0",
        f"Pid:\t{p.pid}",
        f"PPid:\t{p.parent}",
        f"TracerPid:\t{p.tracer}",
        "Uid:\t" + "\t".join(map(str, p.uids)),
        "Gid:\t" + "\t".join(map(str, p.gids)),
        f"FDSize:\t{p.fd_slots}",
        "Groups:\t" + " ".join(map(str, p.groups)) + " ",
        *(
            f"{name}:\t" + "\t".join(map(str, (first, *(numbers[at] for numbers in p.inside))))
            for at, (name, first) in enumerate(
                (("NStgid", p.tgid), ("NSpid", p.pid), ("NSpgid", p.group), ("NSsid", p.session))
            )
        ),
        "Kthread:\t0",
    ]


def _status_signals(p: ProcessFacts) -> list[str]:
    """Its threads, its signals, and what it may do."""
    return [
        f"Threads:\t{p.threads}",
        f"SigQ:\t0/{p.signal_limit}",
        f"SigPnd:\t{p.pending:016x}",
        f"ShdPnd:\t{p.shared_pending:016x}",
        f"SigBlk:\t{p.blocked:016x}",
        f"SigIgn:\t{p.ignored:016x}",
        f"SigCgt:\t{p.caught:016x}",
        f"CapInh:\t{p.capabilities[2]:016x}",
        f"CapPrm:\t{p.capabilities[1]:016x}",
        f"CapEff:\t{p.capabilities[0]:016x}",
        f"CapBnd:\t{p.capabilities[3]:016x}",
        f"CapAmb:\t{0:016x}",
        f"NoNewPrivs:\t{p.no_new_privileges}",
        f"Seccomp:\t{p.seccomp[0]}",
        f"Seccomp_filters:\t{p.seccomp[1]}",
    ]


def _status_memory(m: MemoryFacts) -> list[str]:
    sizes = (
        ("VmPeak", max(m.peak, m.total)),
        ("VmSize", m.total),
        ("VmLck", m.locked),
        ("VmPin", 0),
        ("VmHWM", max(m.resident_peak, m.resident)),
        ("VmRSS", m.resident),
        ("RssAnon", m.anonymous),
        ("RssFile", m.file),
        ("RssShmem", m.shared),
        ("VmData", m.data),
        ("VmStk", m.stack),
        ("VmExe", m.text),
        ("VmLib", m.library),
        ("VmPTE", m.page_tables),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    )
    lines = [f"{name}:\t{size >> 10:8} kB" for name, size in sizes]
    return [*lines, "CoreDumping:\t0", "THP_enabled:\t1", "untag_mask:\t0xffffffffffffffff"]


def stat(p: ProcessFacts) -> bytes:
    """/proc/PID/stat, 52 fields (fs/proc/array.c, do_task_stat)."""
    m = p.memory or MemoryFacts()
    fields: list[object] = [p.pid, f"({p.name})", p.state, p.parent, p.group, p.session, p.tty, p.tty_group, p.flags]
    their_minor, their_major, their_user, their_system = p.children
    fields += [p.minor_faults, their_minor, p.major_faults, their_major]
    fields += [time // NS_PER_TICK for time in (p.user_ns, p.system_ns, their_user, their_system)]
    fields += [20 + p.nice, p.nice, p.threads, 0, p.start_ns // NS_PER_TICK, m.total, m.resident >> 12, p.stack_limit]
    fields += [p.start_code, p.end_code, p.start_stack, 0, 0]
    fields += [p.pending & 0x7FFFFFFF, p.blocked & 0x7FFFFFFF, p.ignored & 0x7FFFFFFF, p.caught & 0x7FFFFFFF]
    fields += [0, 0, 0, 17, 0, 0, 0, 0, 0, 0]
    fields += [p.start_data, p.end_data, p.start_brk, p.arg_start, p.arg_end, p.env_start, p.env_end, p.exit_code]
    return encode(" ".join(map(str, fields)) + "\n")


def statm(m: MemoryFacts | None) -> bytes:
    """/proc/PID/statm, in pages: size resident shared text library(0) data dirty(0)."""
    if m is None:
        return b"0 0 0 0 0 0 0\n"
    shared = m.file + m.shared
    pages = (m.total, m.resident, shared, m.text, 0, m.data + m.stack, 0)
    return encode(" ".join(str(size >> 12) for size in pages) + "\n")


LIMITS = (
    (0, "Max cpu time", "seconds"),
    (1, "Max file size", "bytes"),
    (2, "Max data size", "bytes"),
    (3, "Max stack size", "bytes"),
    (4, "Max core file size", "bytes"),
    (5, "Max resident set", "bytes"),
    (6, "Max processes", "processes"),
    (7, "Max open files", "files"),
    (8, "Max locked memory", "bytes"),
    (9, "Max address space", "bytes"),
    (10, "Max file locks", "locks"),
    (11, "Max pending signals", "signals"),
    (12, "Max msgqueue size", "bytes"),
    (13, "Max nice priority", ""),
    (14, "Max realtime priority", ""),
    (15, "Max realtime timeout", "us"),
)


def limits(values: Mapping[int, tuple[int, int]]) -> bytes:
    """/proc/PID/limits from resource -> (soft, hard) (fs/proc/base.c, proc_pid_limits)."""
    lines = [f"{'Limit':<25} {'Soft Limit':<20} {'Hard Limit':<20} {'Units':<10}\n"]
    for number, name, unit in LIMITS:
        soft, hard = (_limit(v) for v in values.get(number, (RLIM_INFINITY, RLIM_INFINITY)))
        lines.append(f"{name:<25} {soft:<20} {hard:<20} " + (f"{unit:<10}\n" if unit else "\n"))
    return encode("".join(lines))


def _limit(value: int) -> str:
    value &= RLIM_INFINITY
    return "unlimited" if value == RLIM_INFINITY else str(value)


def fdinfo(position: int, flags: int, mount_id: int, inode: int) -> bytes:
    """/proc/PID/fdinfo/FD."""
    return encode(f"pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t{mount_id}\nino:\t{inode}\n")


class AreaFacts(NamedTuple):
    """One VMA for /proc/PID/smaps, in bytes."""

    line: str  # the line of /proc/PID/maps, without its newline
    size: int
    shared_clean: int
    shared_dirty: int
    private_clean: int
    private_dirty: int
    anonymous: int
    referenced: int
    locked: int
    flags: str  # VmFlags, two letters each: "rd mr mw me"


def smaps(areas: Iterable[AreaFacts]) -> bytes:
    """/proc/PID/smaps (fs/proc/task_mmu.c, show_smap). A page that two areas map counts whole in each Pss."""
    out = []
    for a in areas:
        resident = a.shared_clean + a.shared_dirty + a.private_clean + a.private_dirty
        out.append(a.line + "\n")
        rows = (
            ("Size", a.size),
            ("KernelPageSize", 4096),
            ("MMUPageSize", 4096),
            ("Rss", resident),
            ("Pss", resident),
            ("Pss_Dirty", a.shared_dirty + a.private_dirty),
            ("Shared_Clean", a.shared_clean),
            ("Shared_Dirty", a.shared_dirty),
            ("Private_Clean", a.private_clean),
            ("Private_Dirty", a.private_dirty),
            ("Referenced", a.referenced),
            ("Anonymous", a.anonymous),
            ("KSM", 0),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", a.locked),
        )
        out += [f"{name + ':':<16}{size >> 10:8} kB\n" for name, size in rows]
        out.append(f"THPeligible:    {0:8}\n")
        out.append(f"ProtectionKey:  {0:8}\n")
        out.append(f"VmFlags: {a.flags} \n")
    return encode("".join(out))
