"""The guest's /sys: the few files that programs ask at start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.proc_text import cpu_list
from loadstone.vfs.generated import GeneratedFile, StaticDirectory

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.vfs.inode import Inode

SYS_DEVICE = 22
HUGE_PAGE_MODES = ("always", "madvise", "never")


class _Attribute(GeneratedFile):
    """A file of sysfs."""

    __slots__ = ()

    blksize = 4096


class _Numbers:
    """Inode numbers in the order of creation."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 1

    def next(self) -> int:
        self.last += 1
        return self.last


def sys_root(kernel: Kernel) -> StaticDirectory:
    """The tree that is mounted on /sys."""
    numbers, now = _Numbers(), kernel.clock.realtime_ns()

    def file(text: str) -> GeneratedFile:
        data = text.encode() + b"\n"
        made = _Attribute(lambda: data, device=SYS_DEVICE, inode=numbers.next(), now_ns=now)
        made.size = 4096
        return made

    def directory(**children: Inode) -> StaticDirectory:
        return StaticDirectory(children, device=SYS_DEVICE, inode=numbers.next(), mode=0o755, now_ns=now)

    cpus = cpu_list(kernel.options.cpu_count)
    each = {f"cpu{number}": directory() for number in range(kernel.options.cpu_count)}
    chosen = kernel.profile.huge_pages
    modes = " ".join(f"[{mode}]" if mode == chosen else mode for mode in HUGE_PAGE_MODES)
    cpu = directory(**each, online=file(cpus), possible=file(cpus), present=file(cpus), kernel_max=file("8191"))
    node = directory(node0=directory(cpulist=file(cpus)), online=file("0"), possible=file("0"))
    memory = directory(transparent_hugepage=directory(enabled=file(modes), hpage_pmd_size=file(str(2 << 20))))
    tops: dict[str, Inode] = {name: directory() for name in ("block", "bus", "class", "dev")}
    tops["devices"] = directory(system=directory(cpu=cpu, node=node))
    tops["fs"] = directory(cgroup=directory())
    tops["kernel"] = directory(mm=memory)
    tops["module"] = directory()
    return directory(**tops)
