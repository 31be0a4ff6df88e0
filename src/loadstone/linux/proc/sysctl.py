"""/proc/sys: what the guest's kernel says of its settings, and those that root of the machine may change.

A change is the machine's own: it is gone when the machine is, and the host's settings are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from errno import EINVAL, EPERM
from typing import TYPE_CHECKING, cast

from loadstone.errors import LinuxError
from loadstone.kernel.kernel import RESERVED_PIDS
from loadstone.lean import NamedTuple
from loadstone.linux.proc import text
from loadstone.linux.proc.files import Directory, ProcFile
from loadstone.vfs.flags import S_IFDIR, S_IFREG
from loadstone.vfs.inode import Inode

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.coredump import CoreSettings
    from loadstone.linux.namespaces.pids import PidNamespace
    from loadstone.linux.namespaces.uts import UtsNamespace
    from loadstone.linux.personality import Linux

_PID_MAX_LIMIT = 1 << 22
_PIDS_PER_CPU_MIN = 8
_INT_MAX = (1 << 31) - 1
_PAGE = 4096
_MOST_PIPE = 1 << 20  # higher is refused: what is in pipes is in the host's memory
_NAME_LENGTH = 64  # __NEW_UTS_LEN
_PATTERN_LENGTH = 127  # CORENAME_MAX_SIZE, less the NUL


class Place(NamedTuple):
    """A directory that is more than one-line files: how to make it, given its inode number."""

    make: Callable[[int], Inode]


class Number:
    """A whole number that root may write: from `low` to `high`, read by `get` and changed by `put`.

    `mode`: the permissions that are shown.
    """

    def __init__(
        self,
        get: Callable[[], int],
        put: Callable[[int], None],
        low: int = 0,
        high: int = _INT_MAX,
        mode: int = 0o644,
    ) -> None:
        self._get, self._put = get, put
        self._low, self._high = low, high
        self.mode = mode

    def __call__(self) -> bytes:
        """The file's line."""
        return b"%d\n" % self._get()

    def accept(self, data: bytes) -> None:
        """What was written; EINVAL if it is no number or out of range (kernel: proc_dointvec_minmax)."""
        words = data.split(None, 1)
        if not words:
            return
        try:
            value = int(words[0])
        except ValueError:
            raise LinuxError(EINVAL) from None
        if not self._low <= value <= self._high:
            raise LinuxError(EINVAL, f"{value} is not from {self._low} to {self._high}")
        self._put(value)


class Kept:
    """A value that is only remembered."""

    def __init__(self, value: int) -> None:
        self.value = value

    def number(self, low: int = 0, high: int = _INT_MAX) -> Number:
        """The setting that shows and changes it."""
        return Number(lambda: self.value, self._put, low, high)

    def _put(self, value: int) -> None:
        self.value = value


class Numbers:
    """Several whole numbers on a line, of which root may write the first ones or all (kernel: proc_dointvec)."""

    def __init__(self, get: Callable[[], Sequence[int]], put: Callable[[Sequence[int]], None]) -> None:
        self._get, self._put = get, put

    def __call__(self) -> bytes:
        """The file's line."""
        return b"\t".join(b"%d" % value for value in self._get()) + b"\n"

    def accept(self, data: bytes) -> None:
        """What was written; EINVAL if it is no number."""
        before = self._get()
        try:
            given = [int(word) for word in data.split()[: len(before)]]
        except ValueError:
            raise LinuxError(EINVAL) from None
        self._put([*given, *before[len(given) :]])


class Line:
    """A line of text that root may write; what is over `length` bytes is cut off (kernel: proc_dostring)."""

    def __init__(self, get: Callable[[], bytes], put: Callable[[bytes], None], length: int) -> None:
        self._get, self._put, self._length = get, put, length

    def __call__(self) -> bytes:
        """The file's line."""
        return self._get() + b"\n"

    def accept(self, data: bytes) -> None:
        """What was written, up to a newline or NUL."""
        self._put(data.split(b"\n")[0].split(b"\0")[0][: self._length])


Produce = Callable[[], bytes]
Settings = dict[str, "Settings | Produce | Number | Numbers | Line | Place"]


def directory(settings: Settings, number: int, now: int) -> Directory:
    """A directory of one-line files; `number` is its inode number."""
    table = {name: _entry(value, number + at, now) for at, (name, value) in enumerate(settings.items(), 1)}
    return Directory(table, inode=number, now_ns=now)


def _entry(
    value: Settings | Produce | Number | Numbers | Line | Place, number: int, now: int
) -> tuple[int, Callable[[], Inode]]:
    if isinstance(value, Place):
        place = value
        return S_IFDIR, lambda: place.make(number)
    if isinstance(value, dict):
        inner = value
        return S_IFDIR, lambda: directory(inner, number << 8, now)
    produce = value
    accept = value.accept if isinstance(value, (Number, Numbers, Line)) else _refuse
    mode = value.mode if isinstance(value, Number) else 0o644
    return S_IFREG, lambda: ProcFile(produce, inode=number, mode=mode, now_ns=now, accept=accept)


def _refuse(data: bytes) -> None:
    raise LinuxError(EPERM if data else EINVAL)


def _fixed(value: object) -> Produce:
    data = text.encode(f"{value}\n")
    return lambda: data


def machine_settings(kernel: Kernel) -> Settings:
    """All of them, as they are when the machine starts."""
    return {"fs": _files(kernel), "kernel": _kernel(kernel), "net": _network(kernel), "vm": _memory(kernel)}


def _network(kernel: Kernel) -> Settings:
    """Those of the network namespace of who reads or writes them."""

    def tags() -> dict[str, int]:
        from loadstone.linux.namespaces import namespaces_of
        from loadstone.linux.proc.root import current_task

        return namespaces_of(current_task(kernel)).net.tags

    def tag(device: str) -> Settings:
        return {"tag": Number(lambda: tags()[device], lambda value: tags().update({device: value}), -_INT_MAX - 1)}

    return {"ipv4": {"conf": {device: tag(device) for device in ("all", "default", "lo")}}}


def _memory(kernel: Kernel) -> Settings:
    profile, commitment = kernel.profile, kernel.commitment

    def of_commitment(name: str, high: int = _INT_MAX) -> Number:
        return Number(lambda: int(getattr(commitment, name)), lambda value: setattr(commitment, name, value), 0, high)

    return {
        "max_map_count": of_commitment("max_map_count"),
        "mmap_min_addr": _fixed(profile.mmap_min_addr),
        "overcommit_memory": of_commitment("mode", 2),
        "overcommit_ratio": of_commitment("ratio"),
        "swappiness": _fixed(60),
        "legacy_va_layout": _fixed(int(profile.legacy_layout)),
        "nr_hugepages": _fixed(0),
        "mmap_rnd_bits": _fixed(profile.mmap_random_bits),
    }


def _kernel(kernel: Kernel) -> Settings:
    from loadstone.linux.ipc.sysctl import ipc_settings

    p = kernel.profile
    boot_id: list[bytes] = []

    def cores() -> CoreSettings:
        from loadstone.linux.coredump import settings_of

        return settings_of(cast("Linux", kernel.personality))

    def boot() -> bytes:
        if not boot_id:
            boot_id.append(_uuid(kernel))
        return boot_id[0]

    return ipc_settings(kernel) | {
        "cap_last_cap": _fixed(40),
        "core_pattern": Line(lambda: cores().pattern, lambda data: cores().choose(data), _PATTERN_LENGTH),
        "core_uses_pid": Number(lambda: cores().uses_pid, lambda value: setattr(cores(), "uses_pid", value)),
        "domainname": _name(kernel, "domainname"),
        "hostname": _name(kernel, "nodename"),
        "ngroups_max": _fixed(65536),
        "ns_last_pid": Number(lambda: kernel.last_pid, kernel.go_on_after, 0, _PID_MAX_LIMIT),
        "osrelease": _fixed(p.release),
        "ostype": _fixed(p.sysname),
        "overflowgid": _fixed(65534),
        "overflowuid": _fixed(65534),
        "pid_max": _pid_max(kernel),
        "random": {
            "boot_id": boot,
            "entropy_avail": _fixed(256),
            "poolsize": _fixed(256),
            "uuid": lambda: _uuid(kernel),
        },
        "randomize_va_space": _fixed(0 if kernel.options.aslr is None else 2),
        "tainted": Kept(0).number(),
        "threads-max": _fixed(kernel.options.memory_size >> 17),
        "version": _fixed(p.version),
    }


def _pid_max(kernel: Kernel) -> Number:
    """Below what the numbers of processes are, in the PID namespace of who reads or writes it (kernel/pid.c)."""

    def pids() -> PidNamespace | Kernel:
        from loadstone.linux.of_task import pids_of
        from loadstone.linux.proc.root import current_task

        return pids_of(current_task(kernel).process) or kernel

    lowest = max(RESERVED_PIDS + 1, _PIDS_PER_CPU_MIN * kernel.options.cpu_count)
    return Number(lambda: pids().pid_max, lambda value: setattr(pids(), "pid_max", value), lowest, _PID_MAX_LIMIT)


def _name(kernel: Kernel, field: str) -> Line:
    """A name in the UTS namespace of who reads or writes it."""

    def uts() -> UtsNamespace:
        from loadstone.linux.namespaces import namespaces_of
        from loadstone.linux.proc.root import current_task

        return namespaces_of(current_task(kernel)).uts

    return Line(
        lambda: text.encode(getattr(uts(), field)), lambda data: setattr(uts(), field, os.fsdecode(data)), _NAME_LENGTH
    )


def _files(kernel: Kernel) -> Settings:
    def linux() -> Linux:
        return cast("Linux", kernel.personality)

    from loadstone.linux.ipc.sysctl import queue_settings

    def binfmt_misc(number: int) -> Inode:
        from loadstone.linux.exec.binfmt_misc import FormatsDirectory

        return FormatsDirectory(kernel, inode=number, now_ns=kernel.clock.realtime_ns())

    def limit_pipes(value: int) -> None:
        linux().pipe_max_size = 1 << max(value - 1, _PAGE - 1).bit_length()  # round_pipe_size()

    def of_locks(name: str) -> Number:
        locks = kernel.vfs.locks
        return Number(lambda: int(getattr(locks, name)), lambda value: setattr(locks, name, value), -_INT_MAX - 1)

    return {
        "aio-max-nr": _fixed(65536),
        "binfmt_misc": Place(binfmt_misc),
        "dir-notify-enable": _fixed(1),
        "file-max": _fixed((1 << 63) - 1),
        "lease-break-time": of_locks("lease_seconds"),
        "leases-enable": of_locks("leases_enabled"),
        "mqueue": queue_settings(kernel),
        "nr_open": Number(
            lambda: linux().most_descriptors, lambda value: setattr(linux(), "most_descriptors", value), 64
        ),
        "overflowuid": _fixed(65534),
        "pipe-max-size": Number(lambda: linux().pipe_max_size, limit_pipes, 1, _MOST_PIPE),
        "pipe-user-pages-hard": _fixed(0),
        "pipe-user-pages-soft": _fixed(16384),
        "suid_dumpable": _fixed(0),
    }


def _uuid(kernel: Kernel) -> bytes:
    """A random UUID (RFC 9562, version 4) and a newline."""
    raw = bytearray(kernel.random_bytes(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}\n".encode()
