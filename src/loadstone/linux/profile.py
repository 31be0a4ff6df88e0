"""What varies between kernels and hosts and can change what a program sees. One value, read-only, handed around.

`live_profile()` measures the kernel we are running on; those of other kernels are data, in `linux.profiles`, and
`linux.profile_fields` says of each field what it decides and where the kernel's source has it.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from loadstone.lean import NamedTuple
from loadstone.linux.exec import auxv
from loadstone.memory.placement import TASK_SIZE_MAX

PAGE = 4096
RLIM_INFINITY = (1 << 64) - 1

# include/uapi/asm-generic/resource.h
RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC, RLIMIT_NOFILE = range(8)
RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_LOCKS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE = range(8, 13)
RLIMIT_NICE, RLIMIT_RTPRIO, RLIMIT_RTTIME = range(13, 16)
RLIM_NLIMITS = 16
_SYS_SCHED_GETAFFINITY = 204
_HIGHEST_MINIMUM = 16 << 20  # above, a hint was not moved up but lay in something else's way

# When a loader run by itself (ET_DYN without PT_INTERP) gets its break in the low area, away from the mmap base.
BRK_NEVER, BRK_RANDOMIZED, BRK_ALWAYS = range(3)

# /proc/sys/vm/overcommit_memory
OVERCOMMIT_GUESS, OVERCOMMIT_ALWAYS, OVERCOMMIT_NEVER = range(3)

# arch/x86/include/asm/elf.h: the order in which Linux 6.4 and later write the vector for x86-64.
AUXV_X86_64 = (
    auxv.AT_SYSINFO_EHDR,
    auxv.AT_MINSIGSTKSZ,
    auxv.AT_HWCAP,
    auxv.AT_PAGESZ,
    auxv.AT_CLKTCK,
    auxv.AT_PHDR,
    auxv.AT_PHENT,
    auxv.AT_PHNUM,
    auxv.AT_BASE,
    auxv.AT_FLAGS,
    auxv.AT_ENTRY,
    auxv.AT_UID,
    auxv.AT_EUID,
    auxv.AT_GID,
    auxv.AT_EGID,
    auxv.AT_SECURE,
    auxv.AT_RANDOM,
    auxv.AT_HWCAP2,
    auxv.AT_EXECFN,
    auxv.AT_PLATFORM,
    auxv.AT_RSEQ_FEATURE_SIZE,
    auxv.AT_RSEQ_ALIGN,
)
AUXV_I386 = (auxv.AT_SYSINFO, *AUXV_X86_64)


class Special(NamedTuple):
    """A mapping that the kernel adds by itself: `[vdso]` and the data pages it reads."""

    name: str
    size: int


SPECIAL_X86_64 = (Special("[vvar]", 0x4000), Special("[vvar_vclock]", 0x2000), Special("[vdso]", 0x2000))
SPECIAL_I386 = SPECIAL_X86_64


class KernelProfile(NamedTuple):
    """A kernel, its configuration and its host, as far as they decide an image or a verdict. Sizes are in bytes.

    Defaults are those of Linux 6.18 on x86-64 with the distribution's usual configuration.
    """

    name: str = "linux-6.18-x86_64"
    sysname: str = "Linux"
    release: str = "6.18.0"
    version: str = "#1 SMP PREEMPT_DYNAMIC"
    machine: str = "x86_64"
    nodename: str = "loadstone"
    domainname: str = "(none)"

    # execve
    buffer_size: int = 256  # BINPRM_BUF_SIZE; 128 before Linux 5.1
    rewrites: int = 5  # how often a handler may put an interpreter in front (exec_binprm) before ELOOP
    empty_argument: bool = True  # an empty argv becomes { "" } (since 5.18)
    comm_of_file: bool = True  # execveat without a path: comm is the file's own name (since 6.14), else the descriptor
    exec_check: bool = True  # execveat knows AT_EXECVE_CHECK (since 6.14)
    tells_argv0: bool = True  # AT_FLAGS_PRESERVE_ARGV0 for binfmt_misc's flag P (since 5.12)
    has_aout: bool = False  # a.out programs have a handler (CONFIG_IA32_AOUT; until 5.0)
    auxv: tuple[int, ...] = AUXV_X86_64
    auxv_i386: tuple[int, ...] = AUXV_I386
    ia32: bool = True  # 32-bit programs have a handler (CONFIG_IA32_EMULATION, or the kernel is a 32-bit one)
    x86_64: bool = True  # 64-bit programs have a handler
    max_program_headers: int = 65536  # bytes of them; a page (ELF_MIN_ALIGN) in 6.14 and before
    selectors_i386: tuple[int, int] = (0x23, 0x2B)  # CS, and DS, ES, SS, of 32-bit programs

    # the host's CPU and its numbers
    platform: str = "x86_64"
    hwcap: int = 0x178BFBFF  # CPUID.1:EDX of a plain x86-64
    hwcap2: int = 0
    minimum_signal_stack: int = 2048
    clock_ticks: int = 100
    rseq_feature_size: int = 28
    rseq_align: int = 32

    # the layout of an address space
    task_size: int = TASK_SIZE_MAX
    task_size_i386: int = 0xFFFF_E000
    stack_guard_gap: int = 256 * PAGE
    mmap_random_bits: int = 28
    mmap_random_bits_i386: int = 8
    stack_random_mask: int = 0x3FFFFF  # pages
    stack_random_mask_i386: int = 0x7FF
    legacy_layout: bool = False  # vm.legacy_va_layout: bottom-up
    legacy_when_unlimited: bool = False  # a stack without a limit means bottom-up (old kernels)
    program_in_mmap_area: bool = False  # any ET_DYN goes where mmap puts its first segment (2.6.32)
    loader_in_mmap_area: bool = True  # ET_DYN without PT_INTERP goes where mmap puts it (since 4.12)
    align_program: bool = True  # p_align counts for ET_DYN with PT_INTERP (since 5.10)
    align_loader: bool = True  # and for ET_DYN without (since 6.11)
    loader_brk: int = BRK_ALWAYS
    brk_gap: bool = True  # a page between .bss and a randomized break (since 6.10)
    stack_expand: int = 128 << 10  # what exec adds below the strings (setup_arg_pages)
    huge_file: bool = True  # file mappings with room for a huge page are put on its boundary (since 5.18)
    guard_pages: bool = True  # madvise knows MADV_GUARD_INSTALL (since 6.13)
    unique_mounts: bool = True  # statx tells a mount's number that is never used again (since 6.8)
    cpu_mask_bytes: int = 8  # the kernel's own CPU masks, which sched_getaffinity gives at most
    huge_file_i386: bool = False  # also those of 32-bit programs (6.6)
    huge_anonymous: bool = True  # anonymous ones whose length is a multiple of it too (since 6.12)
    special: tuple[Special, ...] = SPECIAL_X86_64
    special_i386: tuple[Special, ...] = SPECIAL_I386
    vdso_above_stack: bool = False  # asked for above the stack first (6.8 and before)
    vdso_entry_i386: int = 0x5E0  # __kernel_vsyscall in the 32-bit vDSO (AT_SYSINFO); differs from build to build
    vsyscall: str = "--xp"  # how /proc/PID/maps shows the page; empty: there is none

    # memory
    memory_size: int = 4 << 30
    cpu_count: int = 1
    fault_around: int = 65536
    overcommit: int = OVERCOMMIT_GUESS
    mmap_min_addr: int = 65536  # the sysctl: below, only CAP_SYS_RAWIO may map
    lsm_mmap_min_addr: int = 0  # CONFIG_LSM_MMAP_MIN_ADDR: below, nobody is given an address he did not fix
    max_map_count: int = 65530
    huge_pages: str = "madvise"  # /sys/kernel/mm/transparent_hugepage/enabled
    limits: tuple[tuple[int, int], ...] = ((RLIM_INFINITY, RLIM_INFINITY),) * RLIM_NLIMITS

    live: bool = False  # this is the kernel we run on: its own vDSO can be read from our memory

    @property
    def pie_base(self) -> int:
        """ELF_ET_DYN_BASE: two thirds of the address space; not page-aligned."""
        return self.task_size // 3 * 2

    @property
    def pie_base_i386(self) -> int:
        """COMPAT_ELF_ET_DYN_BASE: a third of the address space and 16 MiB, page-aligned."""
        return (self.task_size_i386 // 3 + PAGE - 1 & -PAGE) + 0x100_0000


def live_profile() -> KernelProfile:
    """The kernel and host we are running on, measured without privilege in well under 2 ms.

    What cannot be read (no /proc, a restricted container) keeps the default of `KernelProfile`.
    """
    default = KernelProfile()
    uname = os.uname()
    own = dict(own_auxv())
    special, vsyscall = _special_mappings(default)
    minimum = _read_int("/proc/sys/vm/mmap_min_addr", default.mmap_min_addr)
    return default._replace(
        name=f"live-{uname.release}",
        sysname=uname.sysname,
        release=uname.release,
        version=uname.version,
        machine=uname.machine,
        nodename=uname.nodename,
        domainname=_read_text("/proc/sys/kernel/domainname", default.domainname),
        auxv=tuple(key for key in own if key != auxv.AT_EXECFD) or default.auxv,
        platform=_own_string(own.get(auxv.AT_PLATFORM, 0)) or default.platform,
        hwcap=own.get(auxv.AT_HWCAP, default.hwcap),
        hwcap2=own.get(auxv.AT_HWCAP2, default.hwcap2),
        minimum_signal_stack=own.get(auxv.AT_MINSIGSTKSZ, default.minimum_signal_stack),
        clock_ticks=own.get(auxv.AT_CLKTCK, default.clock_ticks),
        rseq_feature_size=own.get(auxv.AT_RSEQ_FEATURE_SIZE, default.rseq_feature_size),
        rseq_align=own.get(auxv.AT_RSEQ_ALIGN, default.rseq_align),
        mmap_random_bits=_read_int("/proc/sys/vm/mmap_rnd_bits", default.mmap_random_bits),
        mmap_random_bits_i386=_read_int("/proc/sys/vm/mmap_rnd_compat_bits", default.mmap_random_bits_i386),
        legacy_layout=_read_int("/proc/sys/vm/legacy_va_layout", 0) != 0,
        special=special,
        vsyscall=vsyscall,
        memory_size=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        cpu_count=len(os.sched_getaffinity(0)),
        overcommit=_read_int("/proc/sys/vm/overcommit_memory", default.overcommit),
        mmap_min_addr=minimum,
        lsm_mmap_min_addr=_lowest_hint(default.lsm_mmap_min_addr),
        max_map_count=_read_int("/proc/sys/vm/max_map_count", default.max_map_count),
        huge_pages=_huge_pages(default.huge_pages),
        limits=_limits(),
        cpu_mask_bytes=_cpu_mask_bytes(default.cpu_mask_bytes),
        live=True,
        **_by_version(uname.release),
    )


@cache
def _lowest_hint(default: int) -> int:
    """Where the kernel moves the hint of the lowest page: CONFIG_LSM_MMAP_MIN_ADDR, or the sysctl if that is larger.

    The sysctl alone does not tell (security/min_addr.c). Where something of ours lies there already: `default`.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mmap.restype, libc.munmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
    private_anonymous = 0x22
    address = libc.mmap(PAGE, PAGE, 0, private_anonymous, -1, 0)
    if address is None or address == ctypes.c_void_p(-1).value:
        return default
    libc.munmap(address, PAGE)
    return address if address <= _HIGHEST_MINIMUM else default


@cache
def _cpu_mask_bytes(default: int) -> int:
    """How long a CPU mask is: by CONFIG_NR_CPUS, or with CONFIG_CPUMASK_OFFSTACK by the CPUs there may be."""
    import ctypes

    room = 1 << 13
    length = ctypes.CDLL(None).syscall(_SYS_SCHED_GETAFFINITY, 0, room, ctypes.create_string_buffer(room))
    return length if length > 0 else default


def _by_version(release: str) -> dict[str, Any]:
    """What only the version tells. Distribution kernels backport some of it; the oracle shows where they differ."""
    version = _version(release)
    return {
        "buffer_size": 256 if version >= (5, 1) else 128,
        "empty_argument": version >= (5, 18),
        "comm_of_file": version >= (6, 14),
        "exec_check": version >= (6, 14),
        "tells_argv0": version >= (5, 12),
        "has_aout": version < (5, 1),
        "loader_in_mmap_area": version >= (4, 12),
        "guard_pages": version >= (6, 13),
        "unique_mounts": version >= (6, 8),
        "loader_brk": BRK_ALWAYS if version >= (6, 15) else BRK_RANDOMIZED if version >= (5, 2) else BRK_NEVER,
        "brk_gap": version >= (6, 10),
        "align_program": version >= (5, 10),
        "align_loader": version >= (6, 11),
        "max_program_headers": 65536 if version >= (6, 15) else PAGE,
        "huge_file": version >= (5, 18),
        "huge_file_i386": (5, 18) <= version < (6, 7),
        "huge_anonymous": version >= (6, 12),
        "vdso_above_stack": version < (6, 9),
        "legacy_when_unlimited": version < (4, 17),
    }


def _version(release: str) -> tuple[int, int]:
    """(6, 18) for `6.18.44-fc-v657`."""
    numbers = [0, 0]
    for place, part in enumerate(release.split(".")[:2]):
        digits = ""
        for letter in part:
            if not letter.isdigit():
                break
            digits += letter
        numbers[place] = int(digits or 0)
    return numbers[0], numbers[1]


@cache
def own_auxv() -> list[tuple[int, int]]:
    """The auxiliary vector of this Python process, in the kernel's order; empty where /proc does not show it."""
    try:
        with open("/proc/self/auxv", "rb") as file:
            return auxv.decode(file.read())
    except OSError:
        return []


def read_own_memory(address: int, length: int) -> bytes:
    """Bytes of this Python process, through /proc/self/mem: a bad page is an OSError and not a crash."""
    descriptor = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, address)
    finally:
        os.close(descriptor)


def _own_string(address: int) -> str:
    if not address:
        return ""
    try:
        return os.fsdecode(read_own_memory(address, 32).split(b"\0")[0])
    except OSError:
        return ""


@cache
def _special_mappings(default: KernelProfile) -> tuple[tuple[Special, ...], str]:
    """The special mappings of this process in ascending order, and how it shows the vsyscall page."""
    found: list[Special] = []
    vsyscall = ""
    try:
        with open("/proc/self/maps", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return default.special, default.vsyscall
    for line in lines:
        if not line.endswith(b"]") or b"[v" not in line:
            continue
        fields = line.split()
        start, _, end = fields[0].partition(b"-")
        name = fields[-1].decode()
        if name == "[vsyscall]":
            vsyscall = fields[1].decode()
        else:
            found.append(Special(name, int(end, 16) - int(start, 16)))
    return tuple(found), vsyscall


def _huge_pages(default: str) -> str:
    text = _read_text("/sys/kernel/mm/transparent_hugepage/enabled", "")
    return text[text.index("[") + 1 : text.index("]")] if "[" in text and "]" in text else default


def _limits() -> tuple[tuple[int, int], ...]:
    from resource import getrlimit

    return tuple((soft & RLIM_INFINITY, hard & RLIM_INFINITY) for soft, hard in map(getrlimit, range(RLIM_NLIMITS)))


def _read_text(path: str, default: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return default
    try:
        return os.fsdecode(os.read(descriptor, 4096)).strip()
    except OSError:
        return default
    finally:
        os.close(descriptor)


def _read_int(path: str, default: int) -> int:
    text = _read_text(path, "")
    return int(text) if text.isdigit() else default
