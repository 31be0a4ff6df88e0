"""Arguments of system calls as strace(1) shows them: numbers, pointers, paths, strings, buffers.

User memory is looked at as it is, and never faulted in: what is not there is shown by its address.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.machine.code import code_at

if TYPE_CHECKING:
    from loadstone.kernel.process import Task

STRING_LIMIT = 32  # strace -s
VECTOR_LIMIT = 32
_PATH_MAX = 4096


class Subject(NamedTuple):
    """The argument to be shown: number `position` of `arguments` (after decoding), of a call that returned `result`."""

    task: Task
    arguments: tuple[int, ...]
    position: int
    result: int

    @property
    def value(self) -> int:
        """The argument itself."""
        return self.arguments[self.position]

    def argument(self, offset: int) -> int:
        """The argument `offset` places further on; 0 past the last."""
        index = self.position + offset
        return self.arguments[index] if 0 <= index < len(self.arguments) else 0


Formatter = Callable[[Subject], str]


def peek(task: Task, start: int, length: int) -> bytes:
    """Up to `length` bytes, as far as their pages are there: looking must not change what happens."""
    space = task.process.space
    return code_at(space.memory, space.page_table, start, length)


def whole(subject: Subject, layout: Struct, count: int = 1) -> bytes | None:
    """`count` structures that the argument points at; None if they are not all there."""
    data = peek(subject.task, subject.value, layout.size * count)
    return data if len(data) == layout.size * count else None


_ESCAPES = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def quote(data: bytes, cut: bool = False) -> str:
    """A C string literal; octal escapes are as short as what follows them allows."""
    parts = []
    for index, byte in enumerate(data):
        if byte in _ESCAPES:
            parts.append(_ESCAPES[byte])
        elif 32 <= byte < 127:
            parts.append(chr(byte))
        else:
            digit_follows = index + 1 < len(data) and 48 <= data[index + 1] <= 57
            parts.append(f"\\{byte:03o}" if digit_follows else f"\\{byte:o}")
    return '"' + "".join(parts) + '"' + ("..." if cut else "")


def decimal(subject: Subject) -> str:
    """A plain number."""
    return str(subject.value)


def hexadecimal(subject: Subject) -> str:
    """A number of bits."""
    return f"{subject.value:#x}" if subject.value else "0"


def address(subject: Subject) -> str:
    """A pointer that is not followed."""
    return f"{subject.value:#x}" if subject.value else "NULL"


def mode(subject: Subject) -> str:
    """Permission bits, octal."""
    return f"{subject.value:#03o}".replace("0o", "0")


def identity(subject: Subject) -> str:
    """A user or group number; all ones is -1."""
    return "-1" if subject.value == 0xFFFF_FFFF else str(subject.value)


def device(subject: Subject) -> str:
    """A device number."""
    value = subject.value
    return f"makedev({value >> 8 & 0xFFF:#x}, {value & 0xFF | value >> 12 & 0xFFF00:#x})"


def directory(subject: Subject) -> str:
    """A descriptor that relative paths start from."""
    return "AT_FDCWD" if subject.value == -100 else str(subject.value)


def path(subject: Subject) -> str:
    """A path, whole."""
    if not subject.value:
        return "NULL"
    data = peek(subject.task, subject.value, _PATH_MAX)
    end = data.find(0)
    if end < 0:
        return f"{quote(data, True)}" if data else address(subject)
    return quote(data[:end])


def _text_at(task: Task, start: int) -> str:
    data = peek(task, start, STRING_LIMIT + 1)
    end = data.find(0)
    if not data:
        return f"{start:#x}"
    return quote(data[:end]) if end >= 0 else quote(data[:STRING_LIMIT], True)


def strings(subject: Subject) -> str:
    """A vector of strings: argv."""
    if not subject.value:
        return "NULL"
    shown = []
    for index in range(VECTOR_LIMIT + 1):
        word = peek(subject.task, subject.value + 8 * index, 8)
        pointer = int.from_bytes(word, "little")
        if not pointer:
            break
        shown.append(_text_at(subject.task, pointer) if index < VECTOR_LIMIT else "...")
    return "[" + ", ".join(shown) + "]"


def environment(subject: Subject) -> str:
    """How many variables there are."""
    if not subject.value:
        return "NULL"
    count = 0
    while count < 100_000 and any(peek(subject.task, subject.value + 8 * count, 8)):
        count += 1
    return f"{subject.value:#x} /* {count} var{'s' if count != 1 else ''} */"


def _data(task: Task, start: int, length: int) -> str:
    data = peek(task, start, min(length, STRING_LIMIT))
    if len(data) < min(length, STRING_LIMIT):
        return f"{start:#x}" if start else "NULL"
    return quote(data, length > STRING_LIMIT)


def in_bytes(subject: Subject) -> str:
    """Bytes the call reads; the next argument says how many."""
    return _data(subject.task, subject.value, subject.argument(1))


def out_bytes(subject: Subject) -> str:
    """Bytes the call wrote; the result says how many."""
    return _data(subject.task, subject.value, max(subject.result, 0))


def random_bytes(subject: Subject) -> str:
    """Bytes without meaning, all in hexadecimal; the result says how many."""
    data = peek(subject.task, subject.value, min(max(subject.result, 0), STRING_LIMIT))
    return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"' + ("..." if subject.result > STRING_LIMIT else "")


def directory_name(subject: Subject) -> str:
    """A path that the call wrote; the result counts its NUL."""
    return quote(peek(subject.task, subject.value, subject.result)[:-1])


_IOVEC = Struct("<QQ")


def vector_at(task: Task, place: int, count: int, length: int) -> str:
    """`count` struct iovec at `place`, with the first `length` of their bytes."""
    shown = []
    for index in range(max(min(count, VECTOR_LIMIT), 0)):
        raw = peek(task, place + 16 * index, 16)
        if len(raw) < 16:
            return f"{place:#x}" if place else "NULL"
        start, size = _IOVEC.unpack(raw)
        here = min(size, max(length, 0))
        length -= here
        shown.append(f"{{iov_base={_data(task, start, here)}, iov_len={size}}}")
    return "[" + ", ".join(shown) + "]"


def in_vector(subject: Subject) -> str:
    """struct iovec with the bytes to be written."""
    return vector_at(subject.task, subject.value, subject.argument(1), 1 << 63)


def out_vector(subject: Subject) -> str:
    """struct iovec with the bytes that were read."""
    return vector_at(subject.task, subject.value, subject.argument(1), subject.result)


def struct(layout: Struct, show: Callable[[tuple[int, ...]], str]) -> Formatter:
    """A formatter of a pointer to one structure."""

    def formatter(subject: Subject) -> str:
        if not subject.value:
            return "NULL"
        data = whole(subject, layout)
        return address(subject) if data is None else show(layout.unpack(data))

    return formatter


VALUES: dict[str, Formatter] = {
    "decimal": decimal,
    "hexadecimal": hexadecimal,
    "address": address,
    "mode": mode,
    "identity": identity,
    "device": device,
    "directory": directory,
    "path": path,
    "strings": strings,
    "environment": environment,
    "in_bytes": in_bytes,
    "out_bytes": out_bytes,
    "random_bytes": random_bytes,
    "directory_name": directory_name,
    "in_vector": in_vector,
    "out_vector": out_vector,
}
