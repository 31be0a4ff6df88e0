"""tmpfs and ramfs: file systems in memory, with limits of their own under the machine's. Source: mm/shmem.c."""

from __future__ import annotations

from errno import EINVAL, ENOSPC
from typing import TYPE_CHECKING
from weakref import WeakSet

from loadstone.errors import LinuxError
from loadstone.vfs.discard import Space
from loadstone.vfs.flags import NAME_MAX, S_IFDIR
from loadstone.vfs.location import Dentry, Superblock
from loadstone.vfs.overlay import Overlay
from loadstone.vfs.store import Budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.inode import Inode
    from loadstone.vfs.vfs import Vfs

TMPFS_MAGIC = 0x01021994  # include/uapi/linux/magic.h
_PAGE = 4096
_SUFFIXES = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_IGNORED = ("huge", "mpol", "noswap", "inode32", "inode64", "ro", "rw")


class TmpfsOptions:
    """What a tmpfs is mounted with. `size`: bytes, 0 for no limit; `files`: how many inodes, 0 for no limit."""

    __slots__ = ("files", "gid", "memory", "mode", "said", "size", "uid", "usual_mode")

    def __init__(self, memory: int) -> None:
        """The defaults on a machine with `memory` bytes: half of it, and an inode for each page of that half."""
        self.memory = memory
        self.size = memory // 2 // _PAGE * _PAGE
        self.files = memory // 2 // _PAGE
        self.mode = self.usual_mode = 0o1777
        self.uid = self.gid = 0
        self.said: dict[str, str] = {}

    def read(self, words: Sequence[tuple[str, str]]) -> None:
        """Take mount options in; EINVAL for one that tmpfs does not have, or a bad value (shmem_parse_one)."""
        for name, value in words:
            if name == "size":
                self.size = self._size(value)
            elif name == "nr_blocks":
                self.size = _number(value) * _PAGE
            elif name == "nr_inodes":
                self.files = _number(value)
            elif name == "mode":
                self.mode = _digits(value, 8) & 0o7777
            elif name in ("uid", "gid"):
                setattr(self, name, _digits(value, 10))
            elif name not in _IGNORED:
                raise LinuxError(EINVAL, f"no option of tmpfs: {name!r}")
            self.said[name] = value

    def _size(self, value: str) -> int:
        if value.endswith("%"):
            return self.memory * _digits(value[:-1], 10) // 100 // _PAGE * _PAGE
        return -(-_number(value) // _PAGE) * _PAGE

    def text(self) -> str:
        """As /proc/mounts shows them (shmem_show_options)."""
        shown = ""
        if "size" in self.said or "nr_blocks" in self.said:
            shown += f",size={self.size >> 10}k"
        if "nr_inodes" in self.said:
            shown += f",nr_inodes={self.files}"
        if self.mode != self.usual_mode:
            shown += f",mode={self.mode:03o}"
        for name, number in (("uid", self.uid), ("gid", self.gid)):
            if number:
                shown += f",{name}={number}"
        return shown


def _digits(text: str, base: int) -> int:
    if not text or not text.isascii() or not text.isalnum():
        raise LinuxError(EINVAL, f"no number: {text!r}")
    try:
        return int(text, base)
    except ValueError:
        raise LinuxError(EINVAL, f"no number: {text!r}") from None


def _number(text: str) -> int:
    """A number with an optional suffix, as memparse() reads it."""
    shift = _SUFFIXES.get(text[-1:].lower(), 0)
    return _digits(text[:-1] if shift else text, 10) << shift


class TmpfsBudget(Budget):
    """The bytes of one tmpfs, which count against the machine's budget too.

    `used` counts names and inodes as well, as the machine does; `pages` only what statfs shows: the pages of files.
    """

    __slots__ = ("above", "options", "pages")

    grain = _PAGE
    fills = True

    def __init__(self, above: Budget, options: TmpfsOptions) -> None:
        super().__init__(above.limit, above.descriptors)
        self.above = above
        self.options = options
        self.pages = 0

    def take(self, count: int) -> None:
        """Count against the machine's budget too."""
        self.above.take(count)
        self.used += count

    def demand(self, count: int) -> None:
        """ENOSPC if the machine has no room."""
        self.above.demand(count)

    def hold(self, count: int) -> None:
        """Count bytes of contents; ENOSPC beyond the size that it was mounted with."""
        size = self.options.size
        if count > 0 and size and self.pages + count > size:
            raise LinuxError(ENOSPC, f"the tmpfs was mounted with a size of {size} bytes")
        self.take(count)
        self.pages += count

    def let_go(self, count: int, overhead: int) -> None:
        """A file is gone."""
        self.used -= count + overhead
        self.pages -= count
        self.above.let_go(count, overhead)

    def room(self, count: int) -> int:
        """How many of `count` further bytes there is room for."""
        size = self.options.size
        left = size - self.pages if size else count
        return max(0, min(count, left, self.above.room(count)))


class Tmpfs(Overlay):
    """A file system in memory whose inodes are counted."""

    __slots__ = ("census", "options")

    def __init__(self, memory: Overlay, device: int, options: TmpfsOptions) -> None:
        self.options = options
        self.census: WeakSet[Inode] = WeakSet()
        super().__init__(
            None, memory.cache, memory.clock, TmpfsBudget(memory.budget, options),
            device=device, deterministic=memory.deterministic, wake=memory.wake,
        )  # fmt: skip
        self.devices = memory.devices

    def born(self, inode: Inode) -> None:
        """Count a new inode; ENOSPC if there may be no more."""
        if self.options.files and len(self.census) >= self.options.files:
            raise LinuxError(ENOSPC, f"the tmpfs was mounted with {self.options.files} inodes")
        self.census.add(inode)

    def space(self, magic: int) -> Space:
        """statfs(2)."""
        budget, files = self.budget, self.options.files
        assert isinstance(budget, TmpfsBudget)
        size = self.options.size
        left = budget.room(size)
        return Space(_PAGE, size, left, files, max(0, files - len(self.census)), NAME_MAX, magic)


def make_tmpfs(kind: str, magic: int, vfs: Vfs, device: int, options: TmpfsOptions) -> Superblock:
    """A new, empty file system in memory."""
    fs = Tmpfs(vfs.memory, device, options)
    fs.root.mode = S_IFDIR | options.mode
    fs.root.uid, fs.root.gid = options.uid, options.gid
    made = Superblock(kind, magic, Dentry(None, "/", fs.root))
    made.options = options.text
    made.space = lambda: fs.space(magic)

    def reconfigure(text: str) -> None:
        _reconfigure(fs, text)

    made.reconfigure = reconfigure
    return made


def _reconfigure(fs: Tmpfs, text: str) -> None:
    """MS_REMOUNT with other limits: EINVAL below what is used, or where there was none. Source: shmem_reconfigure()."""
    wanted = TmpfsOptions(fs.options.memory)
    wanted.read([(name, value) for name, _, value in (word.partition("=") for word in text.split(",") if word)])
    budget = fs.budget
    assert isinstance(budget, TmpfsBudget)
    options = fs.options
    if {"size", "nr_blocks"} & wanted.said.keys():
        if wanted.size and (not options.size or wanted.size < budget.pages):
            raise LinuxError(EINVAL, "more than that is in it, or it was mounted without a limit")
        options.size = wanted.size
    if "nr_inodes" in wanted.said:
        if wanted.files and (not options.files or wanted.files < len(fs.census)):
            raise LinuxError(EINVAL, "there are more than that in it, or it was mounted without a limit")
        options.files = wanted.files
    options.said.update({name: value for name, value in wanted.said.items() if name in ("size", "nr_inodes")})
