"""The same operation on the real kernel and on a Vfs, with results that can be compared."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from loadstone.errors import LinuxError
from loadstone.vfs.attributes import change_mode, change_times
from loadstone.vfs.file import OpenFile
from loadstone.vfs.inode import ROOT, Credentials
from loadstone.vfs.location import Location
from loadstone.vfs.namespace import Origin
from loadstone.vfs.vfs import Vfs

DEEP = "r/r/r/r"  # so that `..` does not leave the directories that both sides have


def build(top: str) -> None:
    """A tree with something of everything, below `top`."""
    base = f"{top}/{DEEP}"
    os.makedirs(f"{base}/a/b/c")
    os.makedirs(f"{base}/b/a")
    os.makedirs(f"{base}/d")
    for path, size in (("a/c", 5000), ("a/b/a", 10), ("b/b", 0), ("c", 70000), ("b/a/d", 4096)):
        with open(f"{base}/{path}", "wb") as file:
            file.write(bytes((i * 7 + size) % 251 for i in range(size)))
    os.symlink("c", f"{base}/e")
    os.symlink("a/b", f"{base}/b/c")
    os.symlink("../a/b", f"{base}/b/e")
    os.symlink("loop", f"{base}/loop")
    os.symlink("nothing", f"{base}/a/e")
    os.link(f"{base}/c", f"{base}/a/d")
    os.link(f"{base}/a/c", f"{base}/b/d")
    for directory, _, _ in os.walk(base):
        os.chmod(directory, 0o777)


@contextmanager
def acting(who: Credentials) -> Iterator[None]:
    """The real kernel's view of `who`, for a test that runs as root."""
    if who.fsuid == os.geteuid():
        yield
        return
    groups = os.getgroups()
    os.setgroups(list(who.groups))
    os.setegid(who.fsgid)
    os.seteuid(who.fsuid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class Native:
    """The real kernel, in a directory."""

    def __init__(self, base: str, who: Credentials = ROOT) -> None:
        self.base = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        self.who = who
        self.files: list[int | None] = []

    def do(self, name: str, *args: Any) -> Any:
        home = os.getcwd()
        os.fchdir(self.base)
        try:
            with acting(self.who):
                return getattr(self, name)(*args)
        except OSError as error:
            return f"E{error.errno}"
        finally:
            os.chdir(home)

    def open(self, path: str, flags: int, mode: int) -> int:
        old = os.umask(0)
        try:
            fd = os.open(path, flags, mode)
        finally:
            os.umask(old)
        if os.fstat(fd).st_mode & 0o170000 == stat.S_IFDIR:
            os.close(fd)
            self.files.append(None)
        else:
            self.files.append(fd)
        return len(self.files)

    def close(self) -> None:
        for fd in self.files:
            if fd is not None:
                os.close(fd)
        os.close(self.base)

    def read(self, number: int, length: int, offset: int | None) -> bytes:
        fd = self.files[number] or 0
        return os.read(fd, length) if offset is None else os.pread(fd, length, offset)

    def write(self, number: int, data: bytes, offset: int | None) -> int:
        fd = self.files[number] or 0
        return os.write(fd, data) if offset is None else os.pwrite(fd, data, offset)

    def seek(self, number: int, offset: int, whence: int) -> int:
        return os.lseek(self.files[number] or 0, offset, whence)

    def ftruncate(self, number: int, size: int) -> None:
        os.ftruncate(self.files[number] or 0, size)

    def fstat(self, number: int) -> object:
        return shown(os.fstat(self.files[number] or 0))

    def stat(self, path: str, follow: bool) -> object:
        return shown(os.stat(path, follow_symlinks=follow))

    def access(self, path: str, mask: int) -> bool:
        return os.access(path, mask, effective_ids=True)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(path, size)

    def readlink(self, path: str) -> str:
        return os.readlink(path)

    def listing(self, path: str) -> object:
        with os.scandir(path) as found:
            return sorted((one.name, one.inode() and kind(one.stat(follow_symlinks=False).st_mode)) for one in found)

    def mkdir(self, path: str, mode: int) -> None:
        old = os.umask(0)
        try:
            os.mkdir(path, mode)
        finally:
            os.umask(old)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path)

    def link(self, old: str, new: str, follow: bool) -> None:
        # With descriptors, since without them Python calls link(2), which never follows.
        os.link(old, new, src_dir_fd=self.base, dst_dir_fd=self.base, follow_symlinks=follow)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    def utimes(self, path: str, times: tuple[int, int] | None) -> None:
        os.utime(path, ns=times) if times else os.utime(path)

    def mtime(self, path: str) -> int:
        return os.stat(path).st_mtime_ns


class Guest:
    """A Vfs, with the same methods."""

    def __init__(self, vfs: Vfs, base: Location, who: Credentials = ROOT) -> None:
        self.vfs = vfs
        self.base = base
        self.who = who
        self.files: list[OpenFile | None] = []

    @property
    def origin(self) -> Origin:
        """Who asks, and from where."""
        return Origin(self.base, who=self.who)

    def do(self, name: str, *args: Any) -> Any:
        try:
            return getattr(self, name)(*args)
        except LinuxError as error:
            return f"E{error.errno}"

    def open(self, path: str, flags: int, mode: int) -> int:
        file = self.vfs.open(path, flags, mode, origin=self.origin)
        file.hold()
        if file.inode.is_directory:
            file.close()
            self.files.append(None)
        else:
            self.files.append(file)
        return len(self.files)

    def close(self) -> None:
        for file in self.files:
            if file is not None:
                file.close()

    def _file(self, number: int) -> OpenFile:
        file = self.files[number]
        assert file is not None
        return file

    def read(self, number: int, length: int, offset: int | None) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        half = length // 2
        return bytes(data[: self._file(number).read_into([view[:half], view[half:]], offset)])

    def write(self, number: int, data: bytes, offset: int | None) -> int:
        view = memoryview(bytearray(data))
        return self._file(number).write_from([view[:3], view[3:]], offset)

    def seek(self, number: int, offset: int, whence: int) -> int:
        return self._file(number).seek(offset, whence)

    def ftruncate(self, number: int, size: int) -> None:
        self._file(number).truncate(size)

    def fstat(self, number: int) -> object:
        inode = self._file(number).inode
        inode.refresh()
        return shown_inode(inode)

    def stat(self, path: str, follow: bool) -> object:
        return shown_inode(self.vfs.stat(path, follow=follow, origin=self.origin))

    def access(self, path: str, mask: int) -> bool:
        try:
            self.vfs.access(path, mask, origin=self.origin)
        except LinuxError:
            return False
        return True

    def truncate(self, path: str, size: int) -> None:
        self.vfs.truncate(path, size, origin=self.origin)

    def readlink(self, path: str) -> str:
        return self.vfs.readlink(path, origin=self.origin)

    def listing(self, path: str) -> object:
        file = self.vfs.open(path, os.O_RDONLY | os.O_DIRECTORY, origin=self.origin)
        names = []
        for name, number, d_type, _ in file.next_entries():
            if name in (".", ".."):
                continue
            inode = self.vfs.stat(name, Origin(file.location, who=self.who), follow=False)
            assert inode.inode == number
            assert inode.mode >> 12 == d_type
            names.append((name, kind(inode.mode)))
        return sorted(names)

    def mkdir(self, path: str, mode: int) -> None:
        self.vfs.mkdir(path, mode, origin=self.origin)

    def rmdir(self, path: str) -> None:
        self.vfs.rmdir(path, origin=self.origin)

    def unlink(self, path: str) -> None:
        self.vfs.unlink(path, origin=self.origin)

    def symlink(self, target: str, path: str) -> None:
        self.vfs.symlink(target, path, origin=self.origin)

    def link(self, old: str, new: str, follow: bool) -> None:
        self.vfs.link(old, new, self.origin, self.origin, follow=follow)

    def rename(self, old: str, new: str) -> None:
        self.vfs.rename(old, new, self.origin, self.origin)

    def chmod(self, path: str, mode: int) -> None:
        change_mode(self.vfs.resolve(path, origin=self.origin).inode, mode, self.who)

    def utimes(self, path: str, times: tuple[int, int] | None) -> None:
        change_times(self.vfs.resolve(path, origin=self.origin).inode, times, self.who)

    def mtime(self, path: str) -> int:
        return self.vfs.stat(path, origin=self.origin).mtime_ns


def kind(mode: int) -> int:
    """The file type bits."""
    return mode & 0o170000


def shown(status: os.stat_result) -> object:
    """What of a stat must be the same."""
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return oct(status.st_mode), status.st_nlink, size, status.st_uid, status.st_gid


def shown_inode(inode: Any) -> object:
    """The same of an inode."""
    size = 0 if inode.is_directory else inode.size
    return oct(inode.mode), inode.nlink, size, inode.uid, inode.gid


class Choice:
    """A seeded source of operations."""

    def __init__(self, seed: int, safe_modes: bool) -> None:
        self.random = random.Random(seed)
        self.modes = (0o644, 0o755, 0o700) if safe_modes else (0o644, 0o755, 0o777, 0o400, 0o100, 0o000, 0o6755, 0o270)

    def path(self) -> str:
        """One to four components, now and then an odd one."""
        pick = self.random
        parts = [pick.choice("aabbccddefg") for _ in range(pick.choice((1, 1, 2, 2, 2, 3, 3, 4)))]
        odd = pick.random()
        if odd < 0.04:
            parts.insert(pick.randrange(len(parts) + 1), "..")
        elif odd < 0.08:
            parts.insert(pick.randrange(len(parts) + 1), ".")
        elif odd < 0.10:
            parts[-1] = "loop"
        elif odd < 0.12:
            parts[-1] = "x" * pick.choice((255, 256))
        path = ("//" if pick.random() < 0.05 else "/").join(parts)
        return path + "/" * (pick.random() < 0.07)

    def operation(self, files: list[Any]) -> tuple[Any, ...]:
        """A method's name with its arguments."""
        pick = self.random
        usable = [number for number, file in enumerate(files) if file is not None]
        name = pick.choice(
            [
                "open",
                "open",
                "open",
                "open",
                "open",
                "create",
                "create",
                "read",
                "read",
                "write",
                "write",
                "write",
                "seek",
                "ftruncate",
                "fstat",
                "stat",
                "stat",
                "access",
                "truncate",
                "readlink",
                "listing",
                "listing",
                "mkdir",
                "mkdir",
                "rmdir",
                "rmdir",
                "unlink",
                "unlink",
                "unlink",
                "symlink",
                "symlink",
                "link",
                "link",
                "rename",
                "rename",
                "rename",
                "rename",
                "chmod",
                "utimes",
            ]
        )
        if name in ("read", "write", "seek", "ftruncate", "fstat"):
            if not usable:
                return "stat", self.path(), False
            number = pick.choice(usable)
            offset = pick.choice((None, None, 0, 3, 4090, 9000))
            if name == "read":
                return name, number, pick.choice((0, 1, 10, 5000, 80000)), offset
            if name == "write":
                return name, number, pick.randbytes(pick.choice((0, 1, 10, 5000))), offset
            if name == "seek":
                return name, number, pick.choice((-5, 0, 3, 5000, 100000)), pick.choice((0, 1, 2, 3, 4))
            return (name, number) if name == "fstat" else (name, number, pick.choice((-1, 0, 3, 4096, 9000)))
        return self._by_path(name)

    def _by_path(self, name: str) -> tuple[Any, ...]:
        pick, path = self.random, self.path()
        if name == "open":
            flags = pick.choice((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR))
            for flag in (os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW, os.O_DIRECTORY, os.O_CREAT):
                flags |= flag if pick.random() < 0.15 else 0
            return name, path, flags, pick.choice(self.modes)
        if name == "create":
            flags = os.O_CREAT | os.O_RDWR | pick.choice((0, os.O_EXCL, os.O_TRUNC, os.O_NOFOLLOW))
            return "open", path, flags, pick.choice(self.modes)
        more: dict[str, Callable[[], tuple[Any, ...]]] = {
            "stat": lambda: (pick.random() < 0.5,),
            "access": lambda: (pick.choice((0, 1, 2, 4, 6, 7)),),
            "truncate": lambda: (pick.choice((-1, 0, 100, 5000)),),
            "mkdir": lambda: (pick.choice((0o755, 0o777, 0o700)),),
            "link": lambda: (self.path(), pick.random() < 0.3),
            "rename": lambda: (self.path(),),
            "chmod": lambda: (pick.choice(self.modes),),
            "utimes": lambda: (pick.choice((None, (10**18, 2 * 10**18))),),
        }
        if name == "symlink":
            target = pick.choice((self.path(), "../" + self.path(), "c", "nothing", ""))
            return name, target, path
        return name, path, *more.get(name, tuple)()


def tree(do: Callable[..., Any], path: str = ".") -> dict[str, Any]:
    """Everything below `path`: what it is, and what is in it."""
    found: dict[str, Any] = {}
    names = do("listing", path)
    if isinstance(names, str):
        return {path: names}  # not for this user
    for name, what in names:
        below = f"{path}/{name}"
        found[below] = do("stat", below, False)
        if what == stat.S_IFDIR:
            found.update(tree(do, below))
        elif what == stat.S_IFLNK:
            found[below + "->"] = do("readlink", below)
    return found
