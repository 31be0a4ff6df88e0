"""The guest's /proc: its own processes and the machine it runs on, nothing of the host's.

The texts are made by text.py and machine_text.py; the files of a process are in process.py. Here stands which files
there are in /proc itself and where their facts come from. Every file is made when it is looked up, its text when it is
read from the start.
"""

from __future__ import annotations

import os
from errno import ENOENT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import INIT
from loadstone.linux.of_task import current_task
from loadstone.linux.proc import machine_text, text
from loadstone.linux.proc.facts import cpu_model, init_facts
from loadstone.linux.proc.files import PROC_DEVICE, Directory, ProcessDirectory, ProcFile, process_number
from loadstone.linux.proc.process import ProcessFiles
from loadstone.linux.seq_file import LINES, PARAGRAPHS
from loadstone.linux.state import task_state
from loadstone.vfs.devices import LOOP_MAJOR
from loadstone.vfs.flags import S_IFDIR, S_IFLNK, S_IFREG
from loadstone.vfs.generated import DynamicLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.namespaces.pids import PidNamespace
    from loadstone.linux.proc.files import Make, Produce
    from loadstone.linux.proc.settings import Settings
    from loadstone.linux.profile import KernelProfile
    from loadstone.vfs.inode import Entry, Inode

CONFIG = "/proc/config.gz"
_RECORDS = {"cpuinfo": PARAGRAPHS, "swaps": LINES}


class ProcRoot(Directory):
    """/proc itself: the machine's files and a directory for each process."""

    __slots__ = ("kernel", "pids")

    def __init__(self, kernel: Kernel, table: dict[str, tuple[int, Make]], pids: PidNamespace | None) -> None:
        self.kernel = kernel
        self.pids = pids  # the namespace whose numbers it shows; None for the machine's first
        super().__init__(table, inode=1, now_ns=kernel.clock.realtime_ns())

    def listed(self) -> list[Entry]:
        """The machine's files, then the processes by number, the machine itself first."""
        numbers = sorted(self.kernel.processes)
        if self.pids is None:
            shown = [(pid, pid) for pid in (INIT, *numbers)]
        else:
            shown = sorted((here, pid) for pid in numbers if (here := self.pids.seen(pid)))
        return [*super().listed(), *((str(here), self._number(pid), S_IFDIR >> 12) for here, pid in shown)]

    def _number(self, pid: int) -> int:
        process = self.kernel.processes.get(pid)
        return process_number(pid, process.started_ns if process is not None else 0)

    def made(self, name: str) -> Inode | None:
        """A file of the table or a process."""
        if name == str(INIT) and self.pids is None:
            return _init_directory(self.kernel)
        if name.isdecimal() and name.isascii():
            return self._of_number(int(name))
        return super().made(name)

    def _of_number(self, shown: int) -> Inode | None:
        """The directory of a process, or that of one with a thread of the number, which is not listed."""
        number = shown if self.pids is None else self.pids.meant(shown)
        process, task = self.kernel.processes.get(number), self.kernel.tasks.get(number)
        if process is None:
            if task is None:
                return None
            process = task.process
        made = ProcessFiles(self.kernel, process, task or process.tasks[0], self._number(number), self.pids)
        return made.of_process()


def _init_directory(kernel: Kernel) -> Directory:
    """/proc/1: the machine plays init without being a process, so it has no memory and no open files to tell of."""
    facts = init_facts()
    texts: dict[str, bytes] = {
        "status": text.status(facts),
        "comm": text.encode(facts.name) + b"\n",
        "cmdline": b"",
        "stat": text.stat(facts),
        "statm": text.statm(None),
        "maps": b"",
        "cgroup": b"0::/\n",
    }
    now, number = kernel.clock.realtime_ns(), process_number(INIT)

    def file(at: int, data: bytes) -> Make:
        return lambda: ProcFile(lambda: data, inode=number + at, now_ns=now)

    table = {name: (S_IFREG, file(at, data)) for at, (name, data) in enumerate(texts.items(), 1)}
    made = ProcessDirectory(table, inode=number, now_ns=now)
    made.process = None
    return made


def proc_root(kernel: Kernel, pids: PidNamespace | None = None) -> ProcRoot:
    """The tree that is mounted on /proc, with the numbers of a PID namespace; None for the machine's first."""
    return ProcRoot(kernel, _Top(kernel, pids).table(), pids)


class _Top:
    """What /proc has beside processes; made when it is first looked up."""

    def __init__(self, kernel: Kernel, pids: PidNamespace | None) -> None:
        self._kernel = kernel
        self._pids = pids
        self._now = kernel.clock.realtime_ns()
        self._settings: Settings | None = None

    def table(self) -> dict[str, tuple[int, Make]]:
        """Name -> (kind of file, what makes it)."""
        kernel, pids = self._kernel, self._pids
        table: dict[str, tuple[int, Make]] = {}
        for number, (name, produce) in enumerate(_machine_texts(kernel).items(), 0x100):
            table[name] = S_IFREG, self._file(number, produce, _RECORDS.get(name, b""))
        table["sys"] = S_IFDIR, self._sys
        table["sysvipc"] = S_IFDIR, self._sysvipc
        table["kpageflags"] = S_IFREG, self._page_flags
        table["mounts"] = S_IFLNK, self._link(0xF0, lambda: "self/mounts")
        table["net"] = S_IFLNK, self._link(0xF1, lambda: "self/net")
        table["self"] = S_IFLNK, self._link(0xF2, lambda: str(_seen(pids, current_task(kernel).process.pid)))
        table["thread-self"] = S_IFLNK, self._link(0xF3, lambda: _thread_self(kernel, pids))
        return table

    def _file(self, number: int, produce: Produce, record: bytes) -> Make:
        return lambda: ProcFile(produce, inode=number, mode=0o444, now_ns=self._now, record=record)

    def _link(self, number: int, shown: Callable[[], str]) -> Make:
        def make() -> Inode:
            made = DynamicLink(shown, device=PROC_DEVICE, inode=number)
            made.atime_ns = made.mtime_ns = made.ctime_ns = self._now
            return made

        return make

    def _sys(self) -> Inode:
        from loadstone.linux.proc.settings import directory
        from loadstone.linux.proc.sysctl import machine_settings

        if self._settings is None:  # they are kept: what root writes there stays
            self._settings = machine_settings(self._kernel)
        return directory(self._settings, 0x200, self._now)

    def _sysvipc(self) -> Inode:
        from loadstone.linux.proc.ipc import sysvipc_directory

        return sysvipc_directory(self._kernel, 0x180, self._now)

    def _page_flags(self) -> Inode:
        from loadstone.linux.proc.page_flags import PageFlagsFile

        return PageFlagsFile(self._kernel, 0xF4, self._now)


def _seen(pids: PidNamespace | None, number: int) -> int:
    """What the namespace calls a process or thread; ENOENT if that is not in it."""
    found = number if pids is None else pids.seen(number)
    if not found:
        raise LinuxError(ENOENT, "who asks is not in the PID namespace of this /proc")
    return found


def _thread_self(kernel: Kernel, pids: PidNamespace | None) -> str:
    task = current_task(kernel)
    return f"{_seen(pids, task.process.pid)}/task/{_seen(pids, task.tid)}"


def _engine(kernel: Kernel) -> str:
    return kernel.cores[0].name if kernel.cores else ""


def _machine_texts(kernel: Kernel) -> dict[str, Produce]:
    profile, options = kernel.profile, kernel.options
    banner = f"{profile.sysname} version {profile.release} (loadstone) (cc) {profile.version}\n"
    return {
        "cmdline": lambda: b"\n",
        "cpuinfo": lambda: machine_text.cpuinfo(cpu_model(profile, _engine(kernel)), options.cpu_count),
        "filesystems": _file_systems,
        "loadavg": lambda: _loadavg(kernel),
        "meminfo": lambda: _meminfo(kernel),
        "locks": lambda: _locks(kernel),
        "modules": lambda: b"",
        "partitions": lambda: _partitions(kernel),
        "stat": lambda: _stat(kernel),
        "swaps": lambda: b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
        "uptime": lambda: machine_text.uptime(_uptime_ns(kernel) + _boottime_ahead(kernel), 0),
        "version": lambda: text.encode(banner),
        "vmstat": lambda: _vmstat(kernel),
    } | _kernel_config(profile)


def _uptime_ns(kernel: Kernel) -> int:
    return kernel.clock.monotonic_ns() if kernel.profile.live else kernel.clock.monotonic_ns() - kernel.booted_ns


def _loadavg(kernel: Kernel) -> bytes:
    living = sum(process.status is None for process in kernel.processes.values())
    return machine_text.loadavg(1, living, max(kernel.processes, default=1))


def _meminfo(kernel: Kernel) -> bytes:
    size, usage = kernel.options.memory_size, kernel.memory.usage()
    anonymous, cached, tables = (usage[name] << 12 for name in ("anonymous", "page cache", "page table"))
    free, promised = size - (kernel.memory.used << 12), kernel.commitment.promised << 12
    return machine_text.meminfo(size, free, cached, anonymous, tables, promised)


def _vmstat(kernel: Kernel) -> bytes:
    usage = kernel.memory.usage()
    free = (kernel.options.memory_size >> 12) - kernel.memory.used
    return machine_text.vmstat(free, usage["page cache"], usage["anonymous"], usage["page table"])


def _stat(kernel: Kernel) -> bytes:
    up, times = _uptime_ns(kernel), _machine_times(kernel)
    boot = (kernel.clock.realtime_ns() - up) // 1_000_000_000
    return machine_text.machine_stat(kernel.options.cpu_count, *times, up, boot, 0, len(kernel.processes))


def _boottime_ahead(kernel: Kernel) -> int:
    """The offset of CLOCK_BOOTTIME in the time namespace of who is asking, in ns."""
    now = task_state(current_task(kernel)).namespaces
    return now.time.boottime if now is not None else 0


def _machine_times(kernel: Kernel) -> tuple[int, int]:
    """User and system time of all processes that there ever were, in ns."""
    cpu_ns, system_ns = kernel.clock.cpu_ns(), kernel.scheduler.system_ns
    return max(cpu_ns - system_ns, 0), system_ns


def _kernel_config(profile: KernelProfile) -> dict[str, Produce]:
    """config.gz: the host's, where the guest's kernel is modelled on it and it shows one."""
    if not profile.live or not os.access(CONFIG, os.R_OK):
        return {}

    def config() -> bytes:
        with open(CONFIG, "rb") as file:
            return file.read()

    return {"config.gz": config}


def _file_systems() -> bytes:
    from loadstone.linux.file_systems import text

    return text()


def _partitions(kernel: Kernel) -> bytes:
    """The block devices that have a size (block/genhd.c, show_partition)."""
    rows = [
        f"{LOOP_MAJOR:4}  {disk.minor:7} {disk.size >> 10:10} loop{disk.minor}\n"
        for disk in kernel.vfs.loops.disks.values()
        if disk.size
    ]
    return ("major minor  #blocks  name\n\n" + "".join(rows)).encode() if rows else b"major minor  #blocks  name\n\n"


def _locks(kernel: Kernel) -> bytes:
    from loadstone.linux.proc.locks import locks_text

    return locks_text(kernel.vfs.locks)
