"""A picture of a tree of files, for showing that nothing in it changed."""

from __future__ import annotations

import hashlib
import os
import stat


def snapshot(top: str | os.PathLike[str], *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Everything about every file under `top` but its access time: type, mode, owner, links, size, times, contents.

    With `times` false only what a copy of the tree has in common with it: type, mode, owner, link count, contents.
    """
    top = os.fspath(top)
    seen: dict[str, tuple[object, ...]] = {}
    for path in _paths(top):
        status = os.lstat(path)
        about: tuple[object, ...] = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid)
        about += (status.st_gid, status.st_nlink, _contents(path, status.st_mode))
        if times:
            about += (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        seen[os.path.relpath(path, top)] = about
    return seen


def _paths(top: str) -> list[str]:
    found = [top]
    for directory, directories, files in os.walk(top):
        found += [os.path.join(directory, name) for name in (*directories, *files)]
    return sorted(found)


def _contents(path: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    return ""
