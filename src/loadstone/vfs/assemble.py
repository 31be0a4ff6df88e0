"""Build the namespace that the command line describes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from errno import ENOENT
from typing import TYPE_CHECKING

from loadstone.clock import Clock
from loadstone.errors import HostError, LinuxError
from loadstone.vfs.flags import S_IFDIR, S_IFREG
from loadstone.vfs.host import HostTree
from loadstone.vfs.inode import ROOT, EmptyDirectory, Inode
from loadstone.vfs.location import MNT_NOEXEC, Dentry, Location, Mount
from loadstone.vfs.namespace import OVERLAY_MAGIC, Origin
from loadstone.vfs.overlay import Overlay
from loadstone.vfs.overlay_directory import OverlayDirectory
from loadstone.vfs.overlay_files import OverlayFile
from loadstone.vfs.store import Budget
from loadstone.vfs.vfs import DEFAULT_LIMIT, Vfs

if TYPE_CHECKING:
    from loadstone.vfs.regular import Cache

PROC_MAGIC, SYSFS_MAGIC, DEVPTS_MAGIC = 0x9FA0, 0x62656572, 0x1CD1
DEV_DEVICE, PROC_DEVICE, SYS_DEVICE, DEVPTS_DEVICE = 5, 21, 22, 24


def assemble(
    page_cache: Cache | None,
    clock: Clock | None = None,
    *,
    host_root: str = "/",
    rw: Sequence[str] = (),
    binds: Sequence[tuple[str, str]] = (),
    noexec: Sequence[str] = (),
    visible: Iterable[str] | None = None,
    limit: int = DEFAULT_LIMIT,
    deterministic: bool = False,
    random_bytes: Callable[[int], bytes] = os.urandom,
    terminal_fd: int = -1,
) -> Vfs:
    """The host's tree under an overlay, with /dev, an empty /sys and an empty /proc to mount on.

    Args:
        page_cache: the machine's.
        clock: where timestamps come from.
        host_root: the directory of the host that is the guest's `/`.
        rw: directories of the host (host paths) that the guest may change.
        binds: (host path, guest path): what else is shown where, under the same overlay.
        noexec: guest paths of directories from which nothing may be executed.
        visible: if given, the only files (guest paths; a directory means all below it) that are seen of `host_root`.
        limit: bytes that the overlay may hold.
        deterministic: inode numbers, device, directory order and times do not depend on the host.
        random_bytes: what /dev/urandom gives.
        terminal_fd: our descriptor of the guest's terminal, -1 for none.

    Raises:
        HostError: a path of the options does not fit.
    """
    clock = clock or Clock()
    tree = HostTree("/")
    top = _real(host_root, "--root")
    descriptors = tree.descriptors
    budget = Budget(limit, max(16, descriptors.limit // 2))
    if visible is not None:
        _restrict(tree, top, visible, [*rw, *(source for source, _ in binds)])
    writable = {_key(_real(path, "--rw")) for path in rw}
    fs = Overlay(tree, page_cache, clock, budget, deterministic=deterministic, writable_roots=writable)
    whole = Location(Mount(Dentry(None, "/", fs.root), None, "overlay", OVERLAY_MAGIC), Dentry(None, "/", fs.root))
    whole.dentry = whole.mount.root
    vfs = Vfs(fs.root, page_cache, clock, budget)
    fs.wake, fs.devices = vfs.wake, vfs.open_device
    vfs.deterministic = deterministic
    vfs.file_systems.append(fs)
    start = _descend(vfs, whole, top, "--root")
    mount = Mount(start.dentry, None, "overlay", OVERLAY_MAGIC)
    mount.number = vfs.root.mount.number
    vfs.root = Location(mount, start.dentry)
    _system_directories(vfs, fs, budget, clock, random_bytes, terminal_fd, deterministic)
    if visible is not None:
        _provide(vfs, fs, "/tmp", 0o1777)
    for source, target in binds:
        found = _descend(vfs, whole, _real(source, "--bind"), "--bind")
        place = _provide(vfs, fs, target, 0o755, found.inode.is_directory)
        vfs.mount_at(place, found.dentry, "overlay", OVERLAY_MAGIC)
    for path in noexec:
        _forbid_execution(vfs, path)
    fs.changed = False
    return vfs


def _system_directories(
    vfs: Vfs,
    fs: Overlay,
    budget: Budget,
    clock: Clock,
    random_bytes: Callable[[int], bytes],
    terminal_fd: int,
    deterministic: bool,
) -> None:
    """Cover /dev, /proc and /sys, whatever the host has there."""
    from loadstone.vfs.devices import populate
    from loadstone.vfs.discard import nothing
    from loadstone.vfs.generated import GeneratedDirectory

    now = clock.realtime_ns()
    for path, device, name, magic in (
        ("/proc", PROC_DEVICE, "proc", PROC_MAGIC),
        ("/sys", SYS_DEVICE, "sysfs", SYSFS_MAGIC),
    ):
        _provide(vfs, fs, path, 0o555)
        mount = vfs.mount(path, EmptyDirectory(device, 1, S_IFDIR | 0o555, now_ns=now), name=name, magic=magic)
        mount.superblock.noexec = True  # SB_I_NOEXEC
        mount.superblock.space = nothing(magic)
    _provide(vfs, fs, "/dev", 0o755)
    dev = Overlay(None, fs.cache, clock, budget, device=DEV_DEVICE, deterministic=deterministic, wake=vfs.wake)
    vfs.file_systems.append(dev)
    dev.devices = vfs.open_device
    mount = vfs.mount(
        "/dev", populate(dev, random_bytes, lambda: vfs.terminals, lambda: vfs.loops, terminal_fd), name="devtmpfs"
    )
    vfs.single["devtmpfs"] = mount.superblock
    names = GeneratedDirectory(
        lambda: vfs.terminals.names(), lambda name: vfs.terminals.find(name),
        device=DEVPTS_DEVICE, inode=1, mode=0o755, now_ns=now,
    )  # fmt: skip
    mount = vfs.mount("/dev/pts", names, name="devpts", magic=DEVPTS_MAGIC)
    mount.superblock.space = nothing(DEVPTS_MAGIC)
    vfs.single["devpts"] = mount.superblock


def _forbid_execution(vfs: Vfs, path: str) -> None:
    """Mount a directory over itself, with the option noexec."""
    try:
        place = vfs.resolve(path, directory=True)
    except LinuxError as error:
        raise HostError(f"--noexec: {path}: {error}") from None
    mount = place.mount
    if place.dentry is not mount.root or mount.at is None:
        mount = vfs.hang(mount.clone(place.dentry, place))
    mount.flags |= MNT_NOEXEC


def _real(path: str, option: str) -> str:
    """An existing path of the host without symbolic links."""
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise HostError(f"{option}: {path} does not exist")
    if option != "--bind" and not os.path.isdir(real):
        raise HostError(f"{option}: {path} is not a directory")
    return real


def _key(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def _restrict(tree: HostTree, top: str, visible: Iterable[str], more: Iterable[str]) -> None:
    tree.root.visible = {}
    tree.expose(top, within=True)
    node = tree.node(top)
    for path in visible:
        tree.expose(path, node)
    for path in more:
        tree.expose(os.path.realpath(path), within=False)


def _descend(vfs: Vfs, whole: Location, path: str, option: str) -> Location:
    """The place of a host path, without regard to mounts."""
    try:
        return vfs.resolve(path, Origin(root=whole))
    except LinuxError as error:
        raise HostError(f"{option}: {path}: {error}") from None


def _provide(vfs: Vfs, fs: Overlay, path: str, mode: int, directory: bool = True) -> Location:
    """The place `path`, made in the overlay if it is not there; what is made is not counted as the guest's."""
    place = vfs.root
    names = [name for name in path.split("/") if name]
    for position, name in enumerate(names):
        here = "/" + "/".join(names[: position + 1])
        try:
            place = vfs.resolve(here)
            continue
        except LinuxError as error:
            if error.errno != ENOENT:
                raise HostError(f"{here}: {error}") from None
        _make(fs, place.inode, name, mode, position < len(names) - 1 or directory)
        place = vfs.resolve(here)
        fs.given.add(place.inode.inode)
    return place


def _make(fs: Overlay, parent: Inode, name: str, mode: int, directory: bool) -> None:
    """A place to mount on: in memory, in a directory given with --rw too."""
    if isinstance(parent, OverlayDirectory):
        if directory:
            parent.mkdir(name, mode, ROOT)
        else:
            parent.create(name, 0o644, ROOT)
        return
    from loadstone.vfs.passthrough import WritableDirectory  # a plain run has no use for it

    if not isinstance(parent, WritableDirectory):
        raise HostError(f"nothing can be mounted in a directory of {type(parent).__name__}")
    made: Inode = OverlayDirectory(fs, None, S_IFDIR | mode) if directory else OverlayFile(fs, None, S_IFREG | 0o644)
    parent.private[name] = made
