"""/proc/sys: what the guest's kernel says of its settings, and those that root of the machine may change.

A change is the machine's own: it is gone when the machine is, and the host's settings are never touched.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from loadstone.kernel.kernel import RESERVED_PIDS
from loadstone.linux.ipc.sysctl import ipc_settings, queue_settings
from loadstone.linux.of_task import current_task, pids_of
from loadstone.linux.proc import text
from loadstone.linux.proc.settings import INT_MIN, Line, Number, Place, fixed
from loadstone.linux.seccomp.sysctl import seccomp_settings

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.coredump import CoreSettings
    from loadstone.linux.namespaces.pids import PidNamespace
    from loadstone.linux.namespaces.uts import UtsNamespace
    from loadstone.linux.personality import Linux
    from loadstone.linux.proc.settings import Settings
    from loadstone.vfs.inode import Inode

_PID_MAX_LIMIT = 1 << 22
_PIDS_PER_CPU_MIN = 8
_PAGE = 4096
_MOST_PIPE = 1 << 20  # higher is refused: what is in pipes is in the host's memory
_NAME_LENGTH = 64  # __NEW_UTS_LEN
_PATTERN_LENGTH = 127  # CORENAME_MAX_SIZE, less the NUL


def machine_settings(kernel: Kernel) -> Settings:
    """All of them, as they are when the machine starts."""
    return {"fs": _files(kernel), "kernel": _kernel(kernel), "net": _network(kernel), "vm": _memory(kernel)}


def _network(kernel: Kernel) -> Settings:
    """Those of the network namespace of who reads or writes them."""

    def tags() -> dict[str, int]:
        from loadstone.linux.namespaces import namespaces_of

        return namespaces_of(current_task(kernel)).net.tags

    def tag(device: str) -> Settings:
        return {"tag": Number(lambda: tags()[device], lambda value: tags().update({device: value}), INT_MIN)}

    return {"ipv4": {"conf": {device: tag(device) for device in ("all", "default", "lo")}}}


def _memory(kernel: Kernel) -> Settings:
    profile = kernel.profile
    return {
        "max_map_count": Number.of(lambda: kernel.commitment, "max_map_count"),
        "mmap_min_addr": fixed(profile.mmap_min_addr),
        "overcommit_memory": Number.of(lambda: kernel.commitment, "mode", high=2),
        "overcommit_ratio": Number.of(lambda: kernel.commitment, "ratio"),
        "swappiness": fixed(60),
        "legacy_va_layout": fixed(int(profile.legacy_layout)),
        "nr_hugepages": fixed(0),
        "mmap_rnd_bits": fixed(profile.mmap_random_bits),
    }


def _kernel(kernel: Kernel) -> Settings:
    p = kernel.profile

    def cores() -> CoreSettings:
        from loadstone.linux.coredump import settings_of

        return settings_of(cast("Linux", kernel.personality))

    return ipc_settings(kernel) | {
        "cap_last_cap": fixed(40),
        "core_pattern": Line(lambda: cores().pattern, lambda data: cores().choose(data), _PATTERN_LENGTH),
        "core_uses_pid": Number.of(cores, "uses_pid"),
        "domainname": _name(kernel, "domainname"),
        "hostname": _name(kernel, "nodename"),
        "ngroups_max": fixed(65536),
        "ns_last_pid": Number(lambda: kernel.last_pid, kernel.go_on_after, 0, _PID_MAX_LIMIT),
        "osrelease": fixed(p.release),
        "ostype": fixed(p.sysname),
        "overflowgid": fixed(65534),
        "overflowuid": fixed(65534),
        "pid_max": _pid_max(kernel),
        "random": _random(kernel),
        "randomize_va_space": fixed(0 if kernel.options.aslr is None else 2),
        "seccomp": seccomp_settings(),
        "tainted": _kept(0),
        "threads-max": fixed(kernel.options.memory_size >> 17),
        "version": fixed(p.version),
    }


def _random(kernel: Kernel) -> Settings:
    boot_id: list[bytes] = []

    def boot() -> bytes:
        if not boot_id:  # drawn when it is first read: most machines end without
            boot_id.append(_uuid(kernel))
        return boot_id[0]

    return {
        "boot_id": boot,
        "entropy_avail": fixed(256),
        "poolsize": fixed(256),
        "uuid": lambda: _uuid(kernel),
    }


def _kept(value: int) -> Number:
    """A value that is only remembered."""
    kept = [value]
    return Number(lambda: kept[0], lambda new: kept.__setitem__(0, new))


def _pid_max(kernel: Kernel) -> Number:
    """Below what the numbers of processes are, in the PID namespace of who reads or writes it (kernel/pid.c)."""

    def pids() -> PidNamespace | Kernel:
        return pids_of(current_task(kernel).process) or kernel

    lowest = max(RESERVED_PIDS + 1, _PIDS_PER_CPU_MIN * kernel.options.cpu_count)
    return Number.of(pids, "pid_max", lowest, _PID_MAX_LIMIT)


def _name(kernel: Kernel, field: str) -> Line:
    """A name in the UTS namespace of who reads or writes it."""

    def uts() -> UtsNamespace:
        from loadstone.linux.namespaces import namespaces_of

        return namespaces_of(current_task(kernel)).uts

    return Line(
        lambda: text.encode(getattr(uts(), field)), lambda data: setattr(uts(), field, os.fsdecode(data)), _NAME_LENGTH
    )


def _files(kernel: Kernel) -> Settings:
    def linux() -> Linux:
        return cast("Linux", kernel.personality)

    def binfmt_misc(number: int) -> Inode:
        from loadstone.linux.exec.binfmt_misc import FormatsDirectory

        return FormatsDirectory(kernel, inode=number, now_ns=kernel.clock.realtime_ns())

    def limit_pipes(value: int) -> None:
        linux().pipe_max_size = 1 << max(value - 1, _PAGE - 1).bit_length()  # round_pipe_size()

    return {
        "aio-max-nr": fixed(65536),
        "binfmt_misc": Place(binfmt_misc),
        "dir-notify-enable": fixed(1),
        "file-max": fixed((1 << 63) - 1),
        "lease-break-time": Number.of(lambda: kernel.vfs.locks, "lease_seconds", INT_MIN),
        "leases-enable": Number.of(lambda: kernel.vfs.locks, "leases_enabled", INT_MIN),
        "mqueue": queue_settings(kernel),
        "nr_open": Number.of(linux, "most_descriptors", 64),
        "overflowuid": fixed(65534),
        "pipe-max-size": Number(lambda: linux().pipe_max_size, limit_pipes, 1, _MOST_PIPE),
        "pipe-user-pages-hard": fixed(0),
        "pipe-user-pages-soft": fixed(16384),
        "suid_dumpable": fixed(0),
    }


def _uuid(kernel: Kernel) -> bytes:
    """A random UUID (RFC 9562, version 4) and a newline."""
    raw = bytearray(kernel.random_bytes(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}\n".encode()
