"""The guest's /sys: the few files that programs ask at start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.proc.text import cpu_list
from loadstone.linux.sys_block import BlockDirectories
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

    def topology(number: int) -> StaticDirectory:
        """One socket of cores with one thread each."""
        own = {"core_id": str(number), "physical_package_id": "0"}
        for name, first, last in (("thread_siblings", number, number), ("core_siblings", 0, count - 1)):
            own[name] = _mask(first, last)
            own[f"{name}_list"] = str(first) if first == last else f"{first}-{last}"
        return directory(**{name: file(text) for name, text in own.items()})

    count = kernel.options.cpu_count
    cpus = cpu_list(count)
    each = {f"cpu{number}": directory(topology=topology(number)) for number in range(count)}
    chosen = kernel.profile.huge_pages
    modes = " ".join(f"[{mode}]" if mode == chosen else mode for mode in HUGE_PAGE_MODES)
    cpu = directory(**each, online=file(cpus), possible=file(cpus), present=file(cpus), kernel_max=file("8191"))
    node = directory(
        node0=directory(cpumap=file(_mask(0, count - 1)), cpulist=file(cpus)), online=file("0"), possible=file("0")
    )
    same_pages = {name: file("0") for name in ("pages_shared", "pages_sharing", "pages_unshared", "run")}
    memory = directory(
        ksm=directory(**same_pages),
        transparent_hugepage=directory(enabled=file(modes), hpage_pmd_size=file(str(2 << 20))),
    )
    blocks = BlockDirectories(lambda: kernel.vfs.loops, now)
    tops: dict[str, Inode] = {"block": blocks.links(3, "../"), "bus": directory()}
    tops["class"] = directory(block=blocks.links(4, "../../"))
    tops["dev"] = directory(block=blocks.links(5, "../../", by_number=True), char=directory())
    tops["devices"] = directory(system=directory(cpu=cpu, node=node), virtual=directory(block=blocks.disks()))
    tops["fs"] = directory(cgroup=directory())
    tops["kernel"] = directory(mm=memory)
    tops["module"] = directory()
    return directory(**tops)


def _mask(first: int, last: int) -> str:
    """The CPUs from `first` to `last` as sysfs shows masks: groups of 32 bits in hexadecimal, the highest first."""
    bits = (1 << last + 1) - (1 << first)
    groups = [bits >> shift & 0xFFFF_FFFF for shift in range(0, last + 1, 32)]
    return ",".join([f"{groups.pop():x}", *(f"{group:08x}" for group in reversed(groups))])
