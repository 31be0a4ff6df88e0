"""From the options of an overlay to its layers. Source: fs/overlayfs/params.c, super.c."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.file_systems import Request, free_device, words
from loadstone.vfs.inode import ROOT
from loadstone.vfs.location import Dentry, Superblock, is_within
from loadstone.vfs.namespace import OVERLAY_MAGIC, Origin
from loadstone.vfs.union import Union
from loadstone.vfs.union_directory import union_root

if TYPE_CHECKING:
    from loadstone.vfs.discard import Space
    from loadstone.vfs.location import Location

_OTHERS = (
    "redirect_dir", "index", "uuid", "nfs_export", "xino", "metacopy", "verity", "volatile", "userxattr",
    "default_permissions", "fsync", "ro", "rw",
)  # fmt: skip
_MOST_LAYERS = 500


def make_overlay(asked: Request) -> Superblock:
    """A new overlay. Raises LinuxError: EINVAL for options that do not go together, ENOENT."""
    given: dict[str, str] = {}
    for name, value in words(asked.options):
        if name not in ("lowerdir", "upperdir", "workdir", *_OTHERS):
            raise LinuxError(EINVAL, f"no option of overlay: {name!r}")
        given[name] = value
    lower = [_place(asked, path) for path in _split(given.get("lowerdir", ""))]
    upper = _place(asked, _unescaped(given["upperdir"])) if "upperdir" in given else None
    work = _place(asked, _unescaped(given["workdir"])) if "workdir" in given else None
    _check(lower, upper, work)
    fs = Union(asked.task.kernel.vfs.page_cache, free_device(asked.task), upper.dentry if upper is not None else None)
    layers = [place.inode for place in ([upper] if upper is not None else []) + lower]
    made = Superblock("overlay", OVERLAY_MAGIC, Dentry(None, "/", union_root(fs, layers)))
    if work is not None:
        _prepare(work)
    shown = "".join(f",{name}={given[name]}" for name in ("lowerdir", "upperdir", "workdir") if name in given)
    shown += ",uuid=on" if upper is not None else ""
    made.options = lambda: shown
    vfs, first = asked.task.kernel.vfs, upper or lower[0]

    def space() -> Space:
        return vfs.space(first)._replace(magic=OVERLAY_MAGIC)

    made.space = space
    return made


def _check(lower: list[Location], upper: Location | None, work: Location | None) -> None:
    if not lower or len(lower) > _MOST_LAYERS:
        raise LinuxError(EINVAL, "an overlay has one lower layer, and at most 500")
    if upper is None:
        if len(lower) < 2:
            raise LinuxError(EINVAL, "an overlay without an upper layer has two lower ones")
        return
    if work is None:
        raise LinuxError(EINVAL, "an overlay with an upper layer has a work directory")
    if upper.mount is not work.mount or upper.mount.read_only:
        raise LinuxError(EINVAL, "the upper layer and the work directory are on one mount that can be written")
    if is_within(upper.dentry, work.dentry) or is_within(work.dentry, upper.dentry):
        raise LinuxError(EINVAL, "the upper layer and the work directory are apart")


def _place(asked: Request, path: str) -> Location:
    process = asked.task.process
    place = asked.task.kernel.vfs.resolve(path, Origin(process.fs.cwd, process.fs.root, process.credentials))
    if not place.inode.is_directory:
        raise LinuxError(EINVAL, f"{path} is not a directory")
    return place


def _split(text: str) -> list[str]:
    """The paths of lowerdir, the uppermost first; a colon or backslash behind a backslash is part of a path."""
    paths, path, escaped = [], "", False
    for letter in text:
        if escaped or letter not in ":\\":
            path, escaped = path + letter, False
        elif letter == "\\":
            escaped = True
        else:
            paths.append(path)
            path = ""
    return [one for one in (*paths, path) if one]


def _unescaped(path: str) -> str:
    return path.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\")


def _prepare(work: Location) -> None:
    """The directory in the work directory that the kernel keeps its copies in until they are whole."""
    if not any(name == "work" for name, _, _ in work.inode.entries()):
        work.inode.mkdir("work", 0, ROOT)
