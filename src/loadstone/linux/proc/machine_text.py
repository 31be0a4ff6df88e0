"""The text of the files in /proc itself, byte for byte in the kernel's formats. Pure functions from facts to bytes.

Formats: the kernel's fs/proc/{meminfo,stat,uptime,loadavg}.c, arch/x86/kernel/cpu/proc.c and fs/proc_namespace.c;
widths and field order are those of Linux 6.18. Sizes are in bytes unless a name says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.linux.proc.text import NS_PER_TICK, encode, escape

if TYPE_CHECKING:
    from collections.abc import Iterable


class Mount(NamedTuple):
    """One line of /proc/PID/mountinfo."""

    id: int
    parent: int
    major: int
    minor: int
    root: str
    point: str
    options: str  # of the mount: rw,relatime
    tags: str  # the optional fields, with a space behind each
    kind: str
    source: str
    super_options: str  # of the file system: rw,size=4k


def mounts(table: Iterable[Mount]) -> bytes:
    """/proc/PID/mounts."""
    lines = []
    for m in table:
        more = m.super_options.split(",", 1)[1:]
        first, *rest = m.options.split(",")
        closed = "ro" if m.super_options.startswith("ro") else first
        options = ",".join([closed, *rest, *more])
        source, point = escape(m.source, " \t\n\\#"), escape(m.point, " \t\n\\")
        lines.append(f"{source} {point} {m.kind} {options} 0 0\n")
    return encode("".join(lines))


def mountinfo(table: Iterable[Mount]) -> bytes:
    """/proc/PID/mountinfo."""
    lines = []
    for m in table:
        root, point, source = escape(m.root, " \t\n\\"), escape(m.point, " \t\n\\"), escape(m.source, " \t\n\\#")
        where = f"{m.id} {m.parent} {m.major}:{m.minor} {root} {point} {m.options} {m.tags}"
        lines.append(f"{where}- {m.kind} {source} {m.super_options}\n")
    return encode("".join(lines))


# /proc/meminfo's names in order; those that meminfo() does not compute are 0.
MEMINFO = [
    "MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapCached", "Active", "Inactive",
    "Active(anon)", "Inactive(anon)", "Active(file)", "Inactive(file)", "Unevictable", "Mlocked", "SwapTotal",
    "SwapFree", "Zswap", "Zswapped", "Dirty", "Writeback", "AnonPages", "Mapped", "Shmem", "KReclaimable",
    "Slab", "SReclaimable", "SUnreclaim", "KernelStack", "PageTables", "SecPageTables", "NFS_Unstable",
    "Bounce", "WritebackTmp", "CommitLimit", "Committed_AS", "VmallocTotal", "VmallocUsed", "VmallocChunk",
    "Percpu", "AnonHugePages", "ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped", "Balloon",
    "HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp", "Hugepagesize", "Hugetlb",
    "DirectMap4k", "DirectMap2M",
]  # fmt: skip


def meminfo(total: int, free: int, cached: int, anonymous: int, page_tables: int, committed: int) -> bytes:
    """/proc/meminfo for a machine of `total` bytes."""
    available = free + cached
    known = {
        "MemTotal": total,
        "MemFree": free,
        "MemAvailable": available,
        "Cached": cached,
        "Active": anonymous,
        "Inactive": cached,
        "Active(anon)": anonymous,
        "Inactive(file)": cached,
        "AnonPages": anonymous,
        "Mapped": cached,
        "PageTables": page_tables,
        "CommitLimit": total // 2,
        "Committed_AS": committed,
        "VmallocTotal": 34359738367 << 10,
        "Hugepagesize": 2 << 20,
        "DirectMap4k": total,
    }
    lines = []
    for name in MEMINFO:
        if name.startswith("HugePages_"):
            lines.append(f"{name + ':':<15}{0:8}\n")
        else:
            lines.append(f"{name + ':':<15} {known.get(name, 0) >> 10:8} kB\n")
    return encode("".join(lines))


def vmstat(free: int, cached: int, anonymous: int, page_tables: int) -> bytes:
    """/proc/vmstat, those lines for which there is something to count: sizes are in pages."""
    known = {
        "nr_free_pages": free,
        "nr_active_anon": anonymous,
        "nr_inactive_file": cached,
        "nr_anon_pages": anonymous,
        "nr_mapped": cached,
        "nr_file_pages": cached,
        "nr_page_table_pages": page_tables,
        "pswpin": 0,
        "pswpout": 0,
    }
    return encode("".join(f"{name} {pages}\n" for name, pages in known.items()))


class CpuModel(NamedTuple):
    """The CPU that /proc/cpuinfo describes."""

    vendor: str
    family: int
    model: int
    name: str
    stepping: int
    mhz: float
    cache_kb: int
    flags: str
    cpuid_level: int = 13
    physical_bits: int = 40
    virtual_bits: int = 48
    bugs: str = ""


def cpuinfo(cpu: CpuModel, count: int) -> bytes:
    """/proc/cpuinfo with `count` identical CPUs (arch/x86/kernel/cpu/proc.c)."""
    out = []
    for number in range(count):
        rows = [
            ("processor", number),
            ("vendor_id", cpu.vendor),
            ("cpu family", cpu.family),
            ("model", cpu.model),
            ("model name", cpu.name),
            ("stepping", cpu.stepping),
            ("microcode", "0x1"),
            ("cpu MHz", f"{cpu.mhz:.3f}"),
            ("cache size", f"{cpu.cache_kb} KB"),
            ("physical id", 0),
            ("siblings", count),
            ("core id", number),
            ("cpu cores", count),
            ("apicid", number),
            ("initial apicid", number),
            ("fpu", "yes"),
            ("fpu_exception", "yes"),
            ("cpuid level", cpu.cpuid_level),
            ("wp", "yes"),
            ("flags", cpu.flags),
            ("bugs", cpu.bugs),
            ("bogomips", f"{cpu.mhz * 2:.2f}"),
            ("clflush size", 64),
            ("cache_alignment", 64),
            ("address sizes", f"{cpu.physical_bits} bits physical, {cpu.virtual_bits} bits virtual"),
        ]
        for name, value in rows:
            # Two tabs after short names: the colons stand in one column.
            out.append(name + ("\t" if len(name) >= 8 else "\t\t") + f": {value}\n")
        out.append("power management:\n\n")
    return encode("".join(out))


def machine_stat(
    cpus: int, user_ns: int, system_ns: int, uptime_ns: int, boot_s: int, switches: int, forks: int
) -> bytes:
    """/proc/stat."""
    user, system = user_ns // NS_PER_TICK, system_ns // NS_PER_TICK
    idle = max(0, cpus * uptime_ns // NS_PER_TICK - user - system)
    lines = [f"cpu  {user} 0 {system} {idle} 0 0 0 0 0 0"]
    for number in range(cpus):
        mine = (user, system) if number == 0 else (0, 0)
        rest = max(0, uptime_ns // NS_PER_TICK - sum(mine))
        lines.append(f"cpu{number} {mine[0]} 0 {mine[1]} {rest} 0 0 0 0 0 0")
    lines += [
        "intr 0",
        f"ctxt {switches}",
        f"btime {boot_s}",
        f"processes {forks}",
        "procs_running 1",
        "procs_blocked 0",
        "softirq 0 0 0 0 0 0 0 0 0 0 0",
    ]
    return encode("\n".join(lines) + "\n")


def uptime(uptime_ns: int, idle_ns: int) -> bytes:
    """/proc/uptime: seconds up, seconds idle of all CPUs, two decimals cut off."""
    up, idle = uptime_ns // NS_PER_TICK, idle_ns // NS_PER_TICK
    return encode(f"{up // 100}.{up % 100:02} {idle // 100}.{idle % 100:02}\n")


def loadavg(running: int, tasks: int, last_pid: int) -> bytes:
    """/proc/loadavg of a machine that has just started."""
    return encode(f"0.00 0.00 0.00 {running}/{tasks} {last_pid}\n")
