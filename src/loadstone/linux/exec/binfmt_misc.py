"""The guest's /proc/sys/fs/binfmt_misc, and what is registered from outside. Source: fs/binfmt_misc.c.

It is there from the start, as where systemd mounts it at boot. The formats themselves are binfmt.misc.
"""

from __future__ import annotations

from errno import EINVAL
from os import fsdecode, fsencode
from typing import TYPE_CHECKING, cast

from loadstone.binfmt.misc import MiscFormats
from loadstone.errors import LinuxError
from loadstone.linux.exec.program import ExecCredentials, Program
from loadstone.linux.of_task import current_task
from loadstone.linux.proc.files import ProcFile, ProcOpen
from loadstone.vfs.flags import O_ACCMODE, O_RDONLY, S_IFREG
from loadstone.vfs.generated import GeneratedDirectory
from loadstone.vfs.namespace import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.personality import Linux
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Entry, Inode
    from loadstone.vfs.location import Location

_ROOT = ExecCredentials(0, 0, 0, 0)
_STATUS, _REGISTER, _FIRST = 2, 3, 4  # inode numbers in the directory, the last of the first format


def formats_of(kernel: Kernel) -> MiscFormats:
    """The machine's formats; made when first asked for."""
    linux = cast("Linux", kernel.personality)
    if linux.formats is None:
        linux.formats = MiscFormats(kernel.profile.buffer_size)
    return linux.formats


def register(kernel: Kernel, text: bytes, who: ExecCredentials = _ROOT, cwd: Location | None = None) -> None:
    """Take a registration; with flag F its interpreter is opened now, by `who` and from `cwd`. Raises LinuxError."""

    def open_interpreter(path: bytes) -> Program:
        name = fsdecode(path)
        return Program(kernel.vfs.resolve(name, Origin(cwd, who=who)), name, who)

    formats_of(kernel).register(text, open_interpreter)


class FormatsDirectory(GeneratedDirectory):
    """/proc/sys/fs/binfmt_misc: `register`, `status` and a file for each format."""

    __slots__ = ("_kernel", "_when")

    def __init__(self, kernel: Kernel, *, inode: int, now_ns: int) -> None:
        super().__init__(self._listed, self._made, inode=inode, mode=0o755, now_ns=now_ns)
        self._kernel = kernel
        self._when = now_ns

    @property
    def _formats(self) -> MiscFormats:
        return formats_of(self._kernel)

    def _listed(self) -> Sequence[Entry]:
        names = [*[fsdecode(one.name) for one in self._formats.formats], "status", "register"]
        found = [(name, self._made(name)) for name in names]
        return [(name, made.inode, S_IFREG >> 12) for name, made in found if made is not None]

    def _made(self, name: str) -> Inode | None:
        if name == "register":
            return _Register(self._kernel, self._file_number(_REGISTER), self._when)
        formats = self._formats
        if name == "status":
            return self._file(_STATUS, self._status, formats.control)
        one = formats.find(fsencode(name))
        if one is None:
            return None
        return self._file(_FIRST + one.number, one.text, lambda data: formats.control_one(one, data))

    def _status(self) -> bytes:
        return b"enabled\n" if self._formats.enabled else b"disabled\n"

    def _file(self, number: int, produce: Callable[[], bytes], accept: Callable[[bytes], None]) -> Inode:
        return ProcFile(produce, inode=self._file_number(number), mode=0o644, now_ns=self._when, accept=accept)

    def _file_number(self, number: int) -> int:
        return (self.inode << 16) + number


class _Register(ProcFile):
    """`register`: one write is one registration; it cannot be read."""

    __slots__ = ("_kernel",)

    def __init__(self, kernel: Kernel, inode: int, now_ns: int) -> None:
        super().__init__(lambda: b"", inode=inode, mode=0o200, now_ns=now_ns, accept=self._take)
        self._kernel = kernel

    def _take(self, data: bytes) -> None:
        process = current_task(self._kernel).process
        register(self._kernel, data, ExecCredentials.of(process.credentials), process.fs.cwd)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Nothing is there to be read."""
        return _RegisterOpen(self, flags, location) if flags & O_ACCMODE == O_RDONLY else super().open(flags, location)


class _RegisterOpen(ProcOpen):
    """`register`, opened for reading all the same."""

    __slots__ = ()

    def available(self) -> int | None:
        """EINVAL: there is no read operation."""
        raise LinuxError(EINVAL)

    def end(self) -> int:
        """As `available`."""
        raise LinuxError(EINVAL)
