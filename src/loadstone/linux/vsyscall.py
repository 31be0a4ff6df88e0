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
    from loadstone.linux.syscalls.dispatch import SystemCalls

START, _END = 0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FF60_1000
_CALLS = {START: (96, 2), START + 0x400: (201, 1), START + 0x800: (309, 2)}  # gettimeofday, time, getcpu; addresses
_WORD = 8
_NOT_THERE = (1 << 64) - EFAULT


def emulate(task: Task, calls: SystemCalls, address: int) -> bool:
    """Make the call that `address` stands for and return from it, or send SIGSEGV. False outside of the page.

    Source: emulate_vsyscall.
    """
    if not START <= address < _END or not task.process.space.layout.vsyscall:
        return False
    if not _made(task, calls, address):
        force(task, from_kernel(SIGSEGV))
    return True


def _made(task: Task, calls: SystemCalls, address: int) -> bool:
    call = _CALLS.get(address)
    if call is None:
        return False
    number, addresses = call
    context = task.context
    try:
        (caller,) = read_words(task.process.space, context.sp, 1)
    except LinuxError:
        return False
    registers = context.registers()
    arguments = [registers[name] for name in CALL_REGISTERS[1:]]
    for where in arguments[:addresses]:
        if where >= TASK_SIZE_MAX:  # write_ok_or_segv
            force(task, from_fault(SIGSEGV, SEGV_MAPERR, where))
            return False
    calls.dispatch(task, (number, *arguments))  # none of the three can wait
    if context.read("rax") == _NOT_THERE:
        context.write("rax", registers["rax"])
        return False
    context.sp += _WORD
    context.pc = caller
    return True
