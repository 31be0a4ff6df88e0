"""System calls as a person reads them, in strace(1)'s manner: `openat(AT_FDCWD, "/etc/passwd", O_RDONLY)`.

Imported only when somebody listens to system calls. `before` shows what a call is given, `after` adds what it gave
back. How an argument is shown is its type's matter (syscalls.arguments), unless LAYOUTS (calls.py) knows better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.strace import calls
from loadstone.linux.strace.calls import CALLS, LATE, LAYOUTS, LOOKS_AT_RESULT
from loadstone.linux.strace.flags import FLAGS
from loadstone.linux.strace.seccomp import SECCOMP
from loadstone.linux.strace.sockets import SOCKETS
from loadstone.linux.strace.structs import STRUCTURES
from loadstone.linux.strace.times import TIMES
from loadstone.linux.strace.values import VALUES, Formatter, Subject, address
from loadstone.linux.structs import signed

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.registry import SystemCall

FORMATTERS: dict[str, Formatter] = {**VALUES, **STRUCTURES, **TIMES, **FLAGS, **SOCKETS, **CALLS, **SECCOMP}


def before(task: Task, row: SystemCall, registers: tuple[int, ...]) -> list[str]:
    """The arguments as far as they can be shown before the call.

    "" for those the call writes, and for those whose page is not there before the kernel has read it.
    """
    arguments = _decode(row, registers)
    shown = []
    for index, (name, late) in enumerate(_shape(row)):
        text = "" if late else FORMATTERS[name](Subject(task, arguments, index, 0))
        shown.append("" if text == f"{arguments[index]:#x}" else text)
    return shown


def after(task: Task, row: SystemCall, registers: tuple[int, ...], result: int, shown: list[str] | None) -> str:
    """The whole call, without its result."""
    if not row.kinds and row.function is None:
        return f"{row.name}({', '.join(hex(value) for value in registers[1:])})"
    if shown is None:  # somebody began to listen while the call waited
        shown = before(task, row, registers)
    arguments = _decode(row, registers)
    subject = Subject(task, arguments, 0, result)
    if row.name == "clone":
        return f"clone({', '.join(calls.clone(subject))})"
    if row.name == "rt_sigreturn":
        return f"rt_sigreturn({calls.mask_now(subject)})"
    failed = -4096 < result < 0
    for index, (name, late) in enumerate(_shape(row)):
        subject = Subject(task, arguments, index, result)
        if not shown[index]:
            unwritten = failed and late and name not in LOOKS_AT_RESULT
            shown[index] = address(subject) if unwritten else FORMATTERS[name](subject)
        elif name == "length_at" and not failed:
            now = FORMATTERS[name](subject)
            shown[index] = shown[index] if now == shown[index] else f"{shown[index][:-1]} => {now[1:]}"
    return f"{row.name}({', '.join(shown[place] for place in calls.used(row.name, arguments))})"


def note(task: Task, row: SystemCall, registers: tuple[int, ...], result: int) -> tuple[str, str]:
    """The result as it is shown, "" for a plain number, and what is added to it in parentheses, "" for nothing."""
    if row.name == "rt_sigreturn":
        return calls.restored(task), ""
    arguments = _decode(row, registers)
    shown = calls.result(row.name, arguments, result)
    return shown, calls.note(row.name, Subject(task, arguments, 0, result))


def _shape(row: SystemCall) -> list[tuple[str, bool]]:
    """For each argument the name of its formatter, and whether it is shown after the call."""
    layout = LAYOUTS.get(row.name, ())
    named = {index: name for index, name in enumerate(layout) if name}
    return [
        (named[index], named[index] in LATE) if index in named else (kind.show, kind.late)
        for index, kind in enumerate(row.kinds)
    ]


def _decode(row: SystemCall, registers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_cut(registers[index], kind.width) for index, kind in enumerate(row.kinds, 1))


def _cut(value: int, width: int) -> int:
    """What the C type of the argument leaves of a register (see syscalls.arguments)."""
    if width == 1:
        return (value ^ 1 << 63) - (1 << 63)
    if width == 2:
        return signed(value)
    return value & (0, 0, 0, 0xFFFF_FFFF, 0xFFFF)[width] if width else value
