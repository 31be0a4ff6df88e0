"""What /proc/sys is made of: numbers in bounds, lines of text, what never changes (kernel/sysctl.c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import EINVAL, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.proc import text
from loadstone.linux.proc.files import Directory, ProcFile
from loadstone.vfs.flags import S_IFDIR, S_IFREG

if TYPE_CHECKING:
    from loadstone.vfs.inode import Inode

INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1

Produce = Callable[[], bytes]


class Place(NamedTuple):
    """A directory that is more than one-line files: how to make it, given its inode number."""

    make: Callable[[int], Inode]


class Number:
    """A whole number that root may write: from `low` to `high`, read by `get` and changed by `put`.

    `mode`: the permissions that are shown.
    """

    def __init__(
        self,
        get: Callable[[], int],
        put: Callable[[int], None],
        low: int = 0,
        high: int = INT_MAX,
        mode: int = 0o644,
    ) -> None:
        self._get, self._put = get, put
        self._low, self._high = low, high
        self.mode = mode

    @classmethod
    def of(cls, owner: Callable[[], object], name: str, low: int = 0, high: int = INT_MAX, mode: int = 0o644) -> Number:
        """One that is an attribute of an object; `owner` finds the one of who reads or writes."""
        return cls(
            lambda: int(getattr(owner(), name)), lambda value: setattr(owner(), name, value), low, high, mode
        )  # fmt: skip

    def __call__(self) -> bytes:
        """The file's line."""
        return b"%d\n" % self._get()

    def accept(self, data: bytes) -> None:
        """What was written; EINVAL if it is no number or out of range (kernel: proc_dointvec_minmax)."""
        words = data.split(None, 1)
        if not words:
            return
        value = _whole(words[0])
        if not self._low <= value <= self._high:
            raise LinuxError(EINVAL, f"{value} is not from {self._low} to {self._high}")
        self._put(value)


class Numbers:
    """Several whole numbers on a line, of which root may write the first ones or all (kernel: proc_dointvec)."""

    def __init__(self, get: Callable[[], Sequence[int]], put: Callable[[Sequence[int]], None]) -> None:
        self._get, self._put = get, put

    def __call__(self) -> bytes:
        """The file's line."""
        return b"\t".join(b"%d" % value for value in self._get()) + b"\n"

    def accept(self, data: bytes) -> None:
        """What was written; EINVAL if it is no number."""
        before = self._get()
        given = [_whole(word) for word in data.split()[: len(before)]]
        self._put([*given, *before[len(given) :]])


def _whole(word: bytes) -> int:
    """A number as C writes it: decimal, 0x10 or 010; EINVAL for anything else (kernel: proc_get_long)."""
    digits = word.removeprefix(b"-")
    base = 16 if digits[:2].lower() == b"0x" else 8 if digits[:1] == b"0" else 10
    try:
        if not (digits.isalnum() if base == 16 else digits.isdigit()):  # Python knows more, as 1_000 and 0o7
            raise ValueError
        return int(word, base)
    except ValueError:
        raise LinuxError(EINVAL, f"{word!r} is no number") from None


class Line:
    """A line of text that root may write; what is over `length` bytes is cut off (kernel: proc_dostring)."""

    def __init__(self, get: Produce, put: Callable[[bytes], None], length: int) -> None:
        self._get, self._put, self._length = get, put, length

    def __call__(self) -> bytes:
        """The file's line."""
        return self._get() + b"\n"

    def accept(self, data: bytes) -> None:
        """What was written, up to a newline or NUL."""
        self._put(data.split(b"\n")[0].split(b"\0")[0][: self._length])


def fixed(value: object) -> Produce:
    """A line that nobody changes."""
    data = text.encode(f"{value}\n")
    return lambda: data


Setting = Produce | Number | Numbers | Line | Place
Settings = dict[str, "Settings | Setting"]


class SettingsDirectory(Directory):
    """A directory of /proc/sys: nobody may make anything in it, and access(2) tells root so (sysctl_perm)."""

    __slots__ = ()

    strict = True


def directory(settings: Settings, number: int, now: int) -> Directory:
    """A directory of one-line files; `number` is its inode number, `now` the time of its making in ns."""
    table = {name: _entry(value, number + at, now) for at, (name, value) in enumerate(settings.items(), 1)}
    return SettingsDirectory(table, inode=number, now_ns=now)


def _entry(value: Settings | Setting, number: int, now: int) -> tuple[int, Callable[[], Inode]]:
    if isinstance(value, Place):
        place = value
        return S_IFDIR, lambda: place.make(number)
    if isinstance(value, dict):
        inner = value
        return S_IFDIR, lambda: directory(inner, number << 8, now)
    produce = value
    accept = value.accept if isinstance(value, (Number, Numbers, Line)) else _refuse
    mode = value.mode if isinstance(value, Number) else 0o644
    return S_IFREG, lambda: ProcFile(produce, inode=number, mode=mode, now_ns=now, accept=accept)


def _refuse(data: bytes) -> None:
    raise LinuxError(EPERM if data else EINVAL)
