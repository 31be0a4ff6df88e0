"""The three calls at fixed addresses that programs made before there was a vDSO (arch/x86/entry/vsyscall).

The page at 0xffffffffff600000 can be executed and not read. A call into it faults; the kernel makes the system call
that the address stands for and returns to the caller. There is no error to return: what goes wrong is SIGSEGV.
"""

from __future__ import annotations

from errno import EFAULT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.signal.sending import force
from loadstone.linux.signal.signals import SEGV_MAPERR, SIGSEGV, from_fault, from_kernel
from loadstone.linux.syscalls.dispatch import CALL_REGISTERS
from loadstone.memory.placement import TASK_SIZE_MAX
from loadstone.memory.user import read_words

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.dispatch import Held, SystemCalls

START, _END = 0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FF60_1000
_CALLS = {START: (96, 2), START + 0x400: (201, 1), START + 0x800: (309, 2)}  # gettimeofday, time, getcpu; addresses
_WORD = 8
_NOT_THERE = (1 << 64) - EFAULT


def stands_for_calls(task: Task, address: int) -> bool:
    """Whether an instruction fetched at `address` is one of the page's."""
    return START <= address < _END and bool(task.process.space.layout.vsyscall)


def emulate(task: Task, calls: SystemCalls, address: int) -> Held | None:
    """Make the call that `address` stands for and return from it, or send SIGSEGV.

    None of the three can wait; what is returned is the wait of a thread about whose call a filter asks somebody.
    Source: emulate_vsyscall.
    """
    number, addresses = _CALLS.get(address, (-1, 0))
    context = task.context
    registers = context.registers()
    arguments = [registers[name] for name in CALL_REGISTERS[1:]]
    caller = _caller(task) if number >= 0 and _may_be_written(task, arguments[:addresses]) else None
    if caller is None:
        force(task, from_kernel(SIGSEGV))
        return None
    context.write("rax", number)  # as a filter's signal shows it
    held = calls.make_emulated(task, (number, *arguments))
    if held is None and context.read("rax") == _NOT_THERE:
        context.write("rax", registers["rax"])
        force(task, from_kernel(SIGSEGV))
        return None
    context.sp += _WORD
    context.pc = caller
    return held


def _caller(task: Task) -> int | None:
    """Where the call returns to; None where the stack cannot be read."""
    try:
        (address,) = read_words(task.process.space, task.context.sp, 1)
    except LinuxError:
        return None
    return address


def _may_be_written(task: Task, addresses: list[int]) -> bool:
    """Whether results may go there; else SIGSEGV says where not (write_ok_or_segv)."""
    for where in addresses:
        if where >= TASK_SIZE_MAX:
            force(task, from_fault(SIGSEGV, SEGV_MAPERR, where))
            return False
    return True
