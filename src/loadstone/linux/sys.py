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


class _Tree:
    """Makes files and directories; their inode numbers are in the order of their making. `now`: when that is, in ns."""

    __slots__ = ("_number", "now")

    def __init__(self, now: int) -> None:
        self.now = now
        self._number = 1

    def file(self, text: str) -> GeneratedFile:
        data = text.encode() + b"\n"
        made = _Attribute(lambda: data, device=SYS_DEVICE, inode=self._next(), now_ns=self.now)
        made.size = 4096
        return made

    def directory(self, **children: Inode) -> StaticDirectory:
        return StaticDirectory(children, device=SYS_DEVICE, inode=self._next(), mode=0o755, now_ns=self.now)

    def _next(self) -> int:
        self._number += 1
        return self._number


def sys_root(kernel: Kernel) -> StaticDirectory:
    """The tree that is mounted on /sys."""
    tree = _Tree(kernel.clock.realtime_ns())
    directory, count = tree.directory, kernel.options.cpu_count
    cpu, node, memory = _cpus(tree, count), _nodes(tree, count), _memory(tree, kernel.profile.huge_pages)
    blocks = BlockDirectories(lambda: kernel.vfs.loops, tree.now)
    tops: dict[str, Inode] = {"block": blocks.links(3, "../"), "bus": directory()}
    tops["class"] = directory(block=blocks.links(4, "../../"))
    tops["dev"] = directory(block=blocks.links(5, "../../", by_number=True), char=directory())
    tops["devices"] = directory(system=directory(cpu=cpu, node=node), virtual=directory(block=blocks.disks()))
    tops["fs"] = directory(cgroup=directory())
    tops["kernel"] = directory(mm=memory)
    tops["module"] = directory()
    return directory(**tops)


def _cpus(tree: _Tree, count: int) -> StaticDirectory:
    """devices/system/cpu: all of them are online."""
    cpus = cpu_list(count)
    each = {f"cpu{number}": tree.directory(topology=_topology(tree, number, count)) for number in range(count)}
    told = {"online": cpus, "possible": cpus, "present": cpus, "kernel_max": "8191"}
    return tree.directory(**each, **{name: tree.file(text) for name, text in told.items()})


def _topology(tree: _Tree, number: int, count: int) -> StaticDirectory:
    """One socket of cores with one thread each."""
    own = {"core_id": str(number), "physical_package_id": "0"}
    for name, first, last in (("thread_siblings", number, number), ("core_siblings", 0, count - 1)):
        own[name] = _mask(first, last)
        own[f"{name}_list"] = str(first) if first == last else f"{first}-{last}"
    return tree.directory(**{name: tree.file(text) for name, text in own.items()})


def _nodes(tree: _Tree, count: int) -> StaticDirectory:
    """devices/system/node: one, with all CPUs."""
    only = tree.directory(cpumap=tree.file(_mask(0, count - 1)), cpulist=tree.file(cpu_list(count)))
    return tree.directory(node0=only, online=tree.file("0"), possible=tree.file("0"))


def _memory(tree: _Tree, huge_pages: str) -> StaticDirectory:
    """kernel/mm: no pages are shared for being the same; when huge ones are used, the one mode in brackets."""
    same_pages = {name: tree.file("0") for name in ("pages_shared", "pages_sharing", "pages_unshared", "run")}
    modes = " ".join(f"[{mode}]" if mode == huge_pages else mode for mode in HUGE_PAGE_MODES)
    return tree.directory(
        ksm=tree.directory(**same_pages),
        transparent_hugepage=tree.directory(enabled=tree.file(modes), hpage_pmd_size=tree.file(str(2 << 20))),
    )


def _mask(first: int, last: int) -> str:
    """The CPUs from `first` to `last` as sysfs shows masks: groups of 32 bits in hexadecimal, the highest first."""
    bits = (1 << last + 1) - (1 << first)
    groups = [bits >> shift & 0xFFFF_FFFF for shift in range(0, last + 1, 32)]
    return ",".join([f"{groups.pop():x}", *(f"{group:08x}" for group in reversed(groups))])
