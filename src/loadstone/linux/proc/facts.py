"""Where the numbers in /proc come from: the kernel's objects, read into the plain facts that `text` prints."""

from __future__ import annotations

from os import makedev
from typing import TYPE_CHECKING, Any

from loadstone.kernel.process import ENDED, INIT, RUNNABLE, STOPPED
from loadstone.linux import jobs
from loadstone.linux.capabilities import ALL_CAPABILITIES, Capabilities, capabilities_of
from loadstone.linux.console import Console
from loadstone.linux.of_task import tracee_of
from loadstone.linux.proc.machine_text import CpuModel
from loadstone.linux.proc.text import RLIM_INFINITY, AreaFacts, MemoryFacts, ProcessFacts
from loadstone.linux.profile import RLIMIT_SIGPENDING, RLIMIT_STACK
from loadstone.linux.state import task_state
from loadstone.machine.paging import ACCESSED, COUNTED, DIRTY, ZERO_PAGE
from loadstone.memory.residency import with_sharing
from loadstone.memory.vma import (
    DONTCOPY,
    DONTDUMP,
    DONTEXPAND,
    EXEC,
    GROWSDOWN,
    IO,
    LOCKED,
    MAYEXEC,
    MAYREAD,
    MAYSHARE,
    MAYWRITE,
    NORESERVE,
    PAGE_SHIFT,
    READ,
    SEALED,
    SHARED,
    WRITE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process, Task
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.vma import Vma
    from loadstone.vfs.pty import Pty

SIG_DFL, SIG_IGN = 0, 1
_SLAVE_MAJOR = 136  # of /dev/pts/N
_HOST_TERMINAL = _SLAVE_MAJOR << 8  # what the host's terminal is called, whatever it is: /dev/pts/0
PAGE = 1 << PAGE_SHIFT
NEVER_KILLED = -1000  # OOM_SCORE_ADJ_MIN


def oom_score(space: AddressSpace, adjustment: int, pages: int) -> int:
    """How likely Linux would kill the process when memory is short: 0 to 2,000 (proc_oom_score, oom_badness).

    `adjustment`: oom_score_adj; `pages`: of the whole machine.
    """
    if adjustment == NEVER_KILLED:
        return 0
    facts = memory_facts(space)
    thousandths = (facts.resident + facts.page_tables >> PAGE_SHIFT) * 1000 // pages + adjustment
    return max(0, (1000 + thousandths) * 2 // 3)


def memory_facts(space: AddressSpace) -> MemoryFacts:
    """What the address space takes."""
    usage = space.usage
    anonymous, file, shared = (pages << PAGE_SHIFT for pages in space.resident_by_kind())
    text = ((space.end_code + PAGE - 1) & -PAGE) - (space.start_code & -PAGE)
    text = min(text, usage.executable << PAGE_SHIFT)
    return MemoryFacts(
        total=usage.total << PAGE_SHIFT,
        peak=usage.peak << PAGE_SHIFT,
        locked=usage.locked << PAGE_SHIFT,
        resident_peak=space.resident_peak << PAGE_SHIFT,
        anonymous=anonymous,
        file=file,
        shared=shared,
        data=usage.data << PAGE_SHIFT,
        stack=usage.stack << PAGE_SHIFT,
        text=text,
        library=(usage.executable << PAGE_SHIFT) - text,
        # the page directory itself is not counted (mm_pgtables_bytes)
        page_tables=(space.page_table.table_frames() - 1) << PAGE_SHIFT,
    )


def _terminal_device(terminal: Console | Pty | None) -> int:
    """tty_nr: the device number, as the kernel gives it to user space (new_encode_dev)."""
    if terminal is None:
        return 0
    return _HOST_TERMINAL if isinstance(terminal, Console) else makedev(_SLAVE_MAJOR, terminal.number)


def init_facts() -> ProcessFacts:
    """The machine itself, in place of a first process."""
    return ProcessFacts(
        pid=INIT, tgid=INIT, parent=0, group=0, session=0, name="init", state="S", uids=(0,) * 4, gids=(0,) * 4,
        groups=(), umask=0, fd_slots=64, threads=1, memory=None,
        capabilities=Capabilities(ALL_CAPABILITIES, ALL_CAPABILITIES),
    )  # fmt: skip


def process_facts(kernel: Kernel, process: Process, task: Task) -> ProcessFacts:
    """A process or one of its threads."""
    who, image, space = process.credentials, process.image, process.space
    terminal = jobs.controlling(process)
    stack, state = image.stack, task_state(task)
    newest = state.seccomp_filter
    ignored, caught = _dispositions(process)
    usage, theirs = process.total_usage(), process.children_usage
    # the first thread shows what the whole process took, another one its own
    times = (usage.cpu_ns, usage.system_ns) if task is process.tasks[0] else (task.cpu_ns, task.system_ns)
    return ProcessFacts(
        pid=task.tid,
        tgid=process.pid,
        parent=process.parent_pid,
        group=process.group,
        session=process.session,
        name=task.name,
        state=_state(kernel, task),
        uids=(who.uid, who.euid, who.suid, who.fsuid),
        gids=(who.gid, who.egid, who.sgid, who.fsgid),
        groups=who.groups,
        umask=process.fs.umask,
        fd_slots=_slots(process),
        threads=sum(other.state != ENDED for other in process.tasks),
        memory=memory_facts(space) if process.status is None else None,
        pending=task.signals.pending.mask,
        shared_pending=process.signals.pending.mask,
        blocked=task.signals.mask,
        ignored=ignored,
        caught=caught,
        signal_limit=process.limits.get(RLIMIT_SIGPENDING, (0, 0))[0],
        capabilities=capabilities_of(who),
        tracer=tracee.tracer.pid if (tracee := tracee_of(task)) is not None else 0,
        no_new_privileges=int(state.no_new_privileges),
        seccomp=(state.seccomp_mode, sum(1 for _ in newest.chain()) if newest is not None else 0),
        nice=task.nice,
        cpus=kernel.options.cpu_count,
        tty=_terminal_device(terminal),
        tty_group=terminal.foreground if terminal is not None else -1,
        minor_faults=usage.minor_faults,
        major_faults=usage.major_faults,
        user_ns=times[0] - times[1],
        system_ns=times[1],
        children=(theirs.minor_faults, theirs.major_faults, theirs.user_ns, theirs.system_ns),
        start_ns=process.started_ns if kernel.profile.live else max(0, process.started_ns - kernel.booted_ns),
        stack_limit=process.limits.get(RLIMIT_STACK, (RLIM_INFINITY, 0))[0] & RLIM_INFINITY,
        start_code=space.start_code,
        end_code=space.end_code,
        start_stack=space.start_stack,
        start_data=space.start_data,
        end_data=space.end_data,
        start_brk=space.start_brk,
        arg_start=stack.argument_start,
        arg_end=stack.argument_end,
        env_start=stack.environment_start,
        env_end=stack.environment_end,
    )


def _state(kernel: Kernel, task: Task) -> str:
    if task.process.status is not None or task.state == ENDED:
        return "Z"
    if task is kernel.scheduler.current or task.state == RUNNABLE:
        return "R"
    tracee = tracee_of(task)
    if tracee is not None and tracee.stop is not None:
        return "t"
    if task.state == STOPPED:
        return "T"
    return "S" if task.pending is None or task.pending.wait.interruptible else "D"


def _dispositions(process: Process) -> tuple[int, int]:
    """The masks of ignored and of caught signals."""
    ignored = caught = 0
    for index, handler in enumerate(process.signals.actions.handlers()):
        if handler == SIG_IGN:
            ignored |= 1 << index
        elif handler != SIG_DFL:
            caught |= 1 << index
    return ignored, caught


def _slots(process: Process) -> int:
    """FDSize: 64 until a higher number was used; then powers of two from 256 on (fs/file.c, alloc_fdtable)."""
    highest = max((fd for fd, _ in process.files.items()), default=0)
    return 64 if highest < 64 else max(256, 1 << highest.bit_length())


# fs/proc/task_mmu.c, show_smap_vma_flags
VM_FLAGS = (
    (READ, "rd"),
    (WRITE, "wr"),
    (EXEC, "ex"),
    (SHARED, "sh"),
    (MAYREAD, "mr"),
    (MAYWRITE, "mw"),
    (MAYEXEC, "me"),
    (MAYSHARE, "ms"),
    (GROWSDOWN, "gd"),
    (LOCKED, "lo"),
    (IO, "io"),
    (DONTCOPY, "dc"),
    (DONTEXPAND, "de"),
    (0x100000, "ac"),
    (NORESERVE, "nr"),
    (DONTDUMP, "dd"),
    (SEALED, "sl"),
)


def area_facts(space: AddressSpace) -> Iterator[AreaFacts]:
    """Each VMA for smaps."""
    from loadstone.memory.maps_text import render_line

    for vma in space.vmas:
        yield _area(space, vma, render_line(space, vma).rstrip("\n"))


def _area(space: AddressSpace, vma: Vma, line: str) -> AreaFacts:
    counts = [0, 0, 0, 0]  # shared clean, shared dirty, private clean, private dirty
    anonymous = referenced = 0
    for _, entry, alone in with_sharing(space, vma, vma.start, vma.end):
        if entry & ZERO_PAGE:
            continue
        own = bool(entry & COUNTED)
        counts[2 * alone + (own or bool(entry & DIRTY))] += PAGE
        anonymous += PAGE * own
        referenced += PAGE * bool(entry & ACCESSED)
    flags = " ".join(name for bit, name in VM_FLAGS if vma.flags & bit)
    shared_clean, shared_dirty, private_clean, private_dirty = counts
    size = vma.end - vma.start
    locked = sum(counts) if vma.flags & LOCKED else 0  # the Pss of what is resident
    return AreaFacts(
        line, size, shared_clean, shared_dirty, private_clean, private_dirty, anonymous, referenced, locked, flags
    )


# CPUID.1:EDX, bit by bit, as the kernel names them (arch/x86/include/asm/cpufeatures.h); AT_HWCAP is this word.
EDX = [
    "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "-", "sep", "mtrr", "pge", "mca",
    "cmov", "pat", "pse36", "pn", "clflush", "-", "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm",
    "ia64", "pbe",
]  # fmt: skip


def cpu_model(profile: Any, engine: str) -> CpuModel:
    """The CPU that a program runs on: the host's own under KVM, else the one that `machine.cpuid` describes."""
    if engine == "kvm":
        found = _host_cpu()
        if found is not None:
            return found
    features = [name for bit, name in enumerate(EDX) if name != "-" and profile.hwcap >> bit & 1]
    return CpuModel(
        vendor="GenuineIntel",
        family=6,
        model=60,
        name="Loadstone baseline x86-64 CPU",
        stepping=3,
        mhz=2000.0,
        cache_kb=8192,
        flags=" ".join(features + _BASELINE),
        cpuid_level=7,
    )


# What machine.cpuid tells beyond CPUID.1:EDX, by the kernel's names and in its order.
_BASELINE = [
    "syscall", "nx", "rdtscp", "lm", "constant_tsc", "nopl", "cpuid", "pni", "pclmulqdq", "ssse3", "cx16", "sse4_1",
    "sse4_2", "movbe", "popcnt", "aes", "hypervisor", "lahf_lm", "abm", "fsgsbase", "bmi1", "bmi2", "erms",
]  # fmt: skip


def _host_cpu() -> CpuModel | None:
    """What the host's /proc/cpuinfo says of its first CPU; None where it cannot be read."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            block = file.read().split("\n\n", 1)[0]
        lines = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in lines.items()}
        return CpuModel(
            vendor=facts["vendor_id"],
            family=int(facts["cpu family"]),
            model=int(facts["model"]),
            name=facts["model name"],
            stepping=int(facts["stepping"]),
            mhz=float(facts["cpu MHz"]),
            cache_kb=int(facts["cache size"].split()[0]),
            flags=facts["flags"],
            cpuid_level=int(facts["cpuid level"]),
            physical_bits=int(facts["address sizes"].split()[0]),
            virtual_bits=int(facts["address sizes"].split(", ")[1].split()[0]),
            bugs=facts.get("bugs", ""),
        )
    except (OSError, KeyError, ValueError, IndexError):
        return None
