"""The three calls at fixed addresses that programs made before there was a vDSO (arch/x86/entry/vsyscall).

The page at 0xffffffffff600000 can be executed and not read. A call into it faults; the kernel makes the system call
that the address stands for and returns to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.syscalls.dispatch import CALL_REGISTERS
from loadstone.memory.user import read_words

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.dispatch import SystemCalls

START = 0xFFFF_FFFF_FF60_0000
_NUMBERS = {START: 96, START + 0x400: 201, START + 0x800: 309}  # gettimeofday, time, getcpu
_WORD = 8


def emulate(task: Task, calls: SystemCalls, address: int) -> bool:
    """Make the call that `address` stands for and return from it; False if it is none, or there is no way back."""
    number = _NUMBERS.get(address)
    if number is None or not task.process.space.layout.vsyscall:
        return False
    context = task.context
    try:
        (caller,) = read_words(task.process.space, context.sp, 1)
    except LinuxError:
        return False
    registers = context.registers()
    calls.dispatch(task, (number, *(registers[name] for name in CALL_REGISTERS[1:])))  # none of the three can wait
    context.sp += _WORD
    context.pc = caller
    return True
