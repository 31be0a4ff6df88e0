"""The registers of a stopped thread as a tracer sees and sets them: struct user_regs_struct (arch/x86/kernel/ptrace.c).

`rax` and `orig_rax` follow the kernel's entry code: in a system call `orig_rax` is its number and `rax` -ENOSYS until
there is a result, -ERESTART… when it is to be made again; outside of one `orig_rax` is -1.
"""

from __future__ import annotations

from errno import EIO
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.core_file import REGISTERS
from loadstone.linux.tracing.ptrace import BEFORE_CALL, TRAP_FLAG

if TYPE_CHECKING:
    from loadstone.linux.tracing.ptrace import Tracee

SIZE = 8 * len(REGISTERS)
USER_SIZE = 912  # struct user
_DEBUG_REGISTERS = range(848, USER_SIZE, 8)
_MASK = (1 << 64) - 1
_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
_SETTABLE_FLAGS = 0x254DD5  # CF PF AF ZF SF TF DF OF RF AC, and NT: FLAG_MASK


def values(tracee: Tracee) -> dict[str, int]:
    """All registers by name."""
    task = tracee.task
    found = dict(task.context.registers())
    stop, restart = tracee.stop, task.signals.restart
    if stop is not None and stop.at in BEFORE_CALL:
        found["orig_rax"], found["rax"] = found["rax"], tracee.instead
    elif restart is not None:
        found["orig_rax"], found["rax"] = restart[1], -restart[0]
    elif stop is not None and stop.signal is None:
        found["orig_rax"] = tracee.call[0]
    else:
        found["orig_rax"] = -1
    found["eflags"] &= ~TRAP_FLAG
    return found


def pack(tracee: Tracee) -> bytes:
    """struct user_regs_struct."""
    found = values(tracee)
    return b"".join((found[name] & _MASK).to_bytes(8, "little") for name in REGISTERS)


def unpack(tracee: Tracee, data: bytes) -> None:
    """Set all of them, or as many whole ones as there are."""
    for index, name in enumerate(REGISTERS[: len(data) // 8]):
        put(tracee, name, int.from_bytes(data[8 * index : 8 * index + 8], "little"))


def put(tracee: Tracee, name: str, value: int) -> None:
    """Set one. Raises LinuxError(EIO) for an address that is none of a program's."""
    context, signals, stop = tracee.task.context, tracee.task.signals, tracee.stop
    before_call = stop is not None and stop.at in BEFORE_CALL
    if name == "orig_rax":
        if before_call:
            context.write("rax", value)
        elif signals.restart is not None and value >> 31 & 1:
            kind, _ = signals.restart  # no call any more: it is not made again, and its result stays what it was
            signals.restart = None
            context.write("rax", -kind & _MASK)
    elif name == "rax":
        restart = signals.restart
        if restart is not None and value != -restart[0] & _MASK:
            signals.restart = None
        if before_call:
            tracee.instead = value
        elif signals.restart is None:
            context.write("rax", value)
    elif name in ("fs_base", "gs_base"):
        if value >= tracee.task.process.space.layout.task_size:
            raise LinuxError(EIO, f"{value:#x} is not an address of the program")
        context.write(name, value)
    elif name == "eflags":
        context.write(name, context.read(name) & ~_SETTABLE_FLAGS | value & _SETTABLE_FLAGS)
    elif name not in _SELECTORS:  # the others are those of 64-bit code, and stay so
        context.write(name, value)


def peek_user(tracee: Tracee, offset: int) -> int:
    """A word of struct user. Raises LinuxError(EIO) outside of it."""
    if offset & 7 or not 0 <= offset < USER_SIZE:
        raise LinuxError(EIO)
    if offset < SIZE:
        return values(tracee)[REGISTERS[offset // 8]] & _MASK
    if offset in _DEBUG_REGISTERS and tracee.debug is not None:
        return tracee.debug.words[_DEBUG_REGISTERS.index(offset)]
    return 0


def poke_user(tracee: Tracee, offset: int, value: int) -> None:
    """Set a word of struct user: a register, or a debug register."""
    if offset & 7 or not 0 <= offset < USER_SIZE:
        raise LinuxError(EIO)
    if offset < SIZE:
        put(tracee, REGISTERS[offset // 8], value)
    elif offset in _DEBUG_REGISTERS:
        from loadstone.linux.tracing.watchpoints import DebugRegisters

        if tracee.debug is None:
            tracee.debug = DebugRegisters()
        tracee.debug.put(_DEBUG_REGISTERS.index(offset), value, tracee.task.process.space.layout.task_size)
    else:
        raise LinuxError(EIO)
