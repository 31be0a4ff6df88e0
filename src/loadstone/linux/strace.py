"""System calls as a person reads them, in strace(1)'s manner: `openat(AT_FDCWD, "/etc/passwd", O_RDONLY)`.

Imported only when somebody listens to system calls. `before` shows what a call is given, `after` adds what it gave
back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.strace_flags import FLAGS
from loadstone.linux.strace_structs import STRUCTURES
from loadstone.linux.strace_values import VALUES, Formatter, Subject, address

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.registry import SystemCall

FORMATTERS: dict[str, Formatter] = {**VALUES, **STRUCTURES, **FLAGS}


def before(task: Task, row: SystemCall, registers: tuple[int, ...]) -> list[str]:
    """The arguments as far as they can be shown before the call.

    "" for those the call writes, and for those whose page is not there before the kernel has read it.
    """
    arguments = _decode(row, registers)
    shown = []
    for index, kind in enumerate(row.kinds):
        text = "" if kind.late else FORMATTERS[kind.show](Subject(task, arguments, index, 0))
        shown.append("" if text == f"{arguments[index]:#x}" else text)
    return shown


def after(task: Task, row: SystemCall, registers: tuple[int, ...], result: int, shown: list[str] | None) -> str:
    """The whole call, without its result."""
    if not row.kinds and row.function is None:
        return f"{row.name}({', '.join(hex(value) for value in registers[1:])})"
    if shown is None:  # somebody began to listen while the call waited
        shown = before(task, row, registers)
    arguments = _decode(row, registers)
    failed = -4096 < result < 0
    for index, kind in enumerate(row.kinds):
        if not shown[index]:
            subject = Subject(task, arguments, index, result)
            shown[index] = address(subject) if failed and kind.late else FORMATTERS[kind.show](subject)
    return f"{row.name}({', '.join(shown[: _count_used(row.name, arguments)])})"


_MAKES_FILE = 0o20200100  # O_CREAT, O_TMPFILE
_MREMAP_FIXED = 2
# Arguments each futex command looks at: WAIT and the ones with a time-out 4, WAKE 3, the two-word ones 5 or 6.
_FUTEX_ARGUMENTS = (4, 3, 3, 5, 6, 6, 4, 2, 2, 6, 6, 5, 6, 4)


def _count_used(name: str, arguments: tuple[int, ...]) -> int:
    """How many arguments mean something in this call."""
    if name in ("open", "openat"):
        count = len(arguments)
        return count if arguments[count - 2] & _MAKES_FILE & ~0o200000 else count - 1
    if name == "mremap":
        return 5 if arguments[3] & _MREMAP_FIXED else 4
    if name == "futex":
        command = arguments[1] & 0x7F
        return _FUTEX_ARGUMENTS[command] if command < len(_FUTEX_ARGUMENTS) else 6
    return len(arguments)


def _decode(row: SystemCall, registers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_cut(registers[index], kind.width) for index, kind in enumerate(row.kinds, 1))


def _cut(value: int, width: int) -> int:
    """What the C type of the argument leaves of a register (see syscalls.arguments)."""
    if width == 1:
        return (value ^ 1 << 63) - (1 << 63)
    if width == 2:
        return (value & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31)
    return value & (0, 0, 0, 0xFFFF_FFFF, 0xFFFF)[width] if width else value
