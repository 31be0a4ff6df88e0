"""What an exception of the CPU becomes: a signal, with what it tells of the exception (arch/x86/kernel/traps.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.signal.sending import force, force_fatal
from loadstone.linux.signal.signals import (
    BUS_ADRALN,
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_FLTOVF,
    FPE_FLTRES,
    FPE_FLTUND,
    FPE_INTDIV,
    ILL_ILLOPN,
    SEGV_ACCERR,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGKILL,
    SIGSEGV,
    SIGTRAP,
    TRAP_BRKPT,
    TRAP_TRACE,
    from_fault,
    from_kernel,
)
from loadstone.machine.core import (
    ALIGNMENT,
    BOUND,
    BREAKPOINT,
    DEBUG,
    DEBUG_STEP,
    DIVIDE,
    GENERAL_PROTECTION,
    INVALID_OPCODE,
    OVERFLOW,
    PAGE_FAULT,
    SIMD,
    STACK_FAULT,
    X87,
)
from loadstone.machine.paging import PRESENT
from loadstone.memory.placement import TASK_SIZE_MAX
from loadstone.memory.vma import EXEC, PROTECTION

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.memory.fault import BadAccess

PF_PROTECTION, PF_WRITE, PF_USER, PF_FETCH = 1, 2, 4, 16

_INVALID_TASK_STATE, _ABSENT_SEGMENT = 10, 11  # vectors

# vector -> signal, si_code (0: SI_KERNEL, without an address), whether si_addr is the instruction's.
# arch/x86/kernel/traps.c; the floating-point vectors work their code out.
_EXCEPTIONS = {
    DIVIDE: (SIGFPE, FPE_INTDIV, True),
    BREAKPOINT: (SIGTRAP, 0, False),
    OVERFLOW: (SIGSEGV, 0, False),
    BOUND: (SIGSEGV, 0, False),
    INVALID_OPCODE: (SIGILL, ILL_ILLOPN, True),
    _INVALID_TASK_STATE: (SIGSEGV, 0, False),
    _ABSENT_SEGMENT: (SIGBUS, 0, False),
    STACK_FAULT: (SIGBUS, 0, False),
    GENERAL_PROTECTION: (SIGSEGV, 0, False),
    ALIGNMENT: (SIGBUS, BUS_ADRALN, False),
}
# fpu__exception_code: the bits of the status word (x87) or MXCSR that are set and not masked, in the kernel's order
_FLOATING = ((0x01, FPE_FLTINV), (0x04, FPE_FLTDIV), (0x08, FPE_FLTOVF), (0x12, FPE_FLTUND), (0x20, FPE_FLTRES))


def force_fault(task: Task, bad: BadAccess, error: int = PF_USER) -> None:
    """A page fault that memory could not resolve becomes SIGSEGV, SIGBUS or SIGKILL.

    `error` is the page fault's error code, without the bit for a present page, which the page table answers. An
    address that is not canonical is a general-protection fault to the CPU.
    """
    address = bad.address
    if not is_canonical(address):
        force_exception(task, GENERAL_PROTECTION, 0)
        return
    signals = task.signals
    # set_signal_archinfo; nothing is told about what is mapped in the kernel's half
    signals.trap_number = PAGE_FAULT
    present = address >= TASK_SIZE_MAX or _was_present(task, bad)
    signals.error_code = error & ~PF_PROTECTION | PF_USER | (PF_PROTECTION if present else 0)
    signals.cr2 = address
    if bad.signal == SIGKILL:
        force_fatal(task, SIGKILL)
    else:
        force(task, from_fault(bad.signal, bad.code, address))


def _was_present(task: Task, bad: BadAccess) -> bool:
    """Whether the last fault found the page there.

    A fetch from a page that is not there but could be read is at first no access error (fault.c: access_error looks at
    the present bit): the page comes in, and the second fault is one of protection.
    """
    space = task.process.space
    if space.page_table.entry(bad.address) & PRESENT:
        return True
    vma = space.find(bad.address)
    return bad.access == EXEC and bad.code == SEGV_ACCERR and vma is not None and bool(vma.flags & PROTECTION)


def force_exception(task: Task, vector: int, error: int = 0) -> None:
    """An exception of the CPU other than a page fault, raised by the instruction at `task.context.pc`.

    `error`: the error code that came with it; for DEBUG, DR6.
    """
    signals = task.signals
    signals.trap_number = vector
    signals.error_code = 0 if vector == DEBUG else error
    if vector in (X87, SIMD):
        code = floating_code(vector, task.context.save_fpu())
        if code:
            force(task, from_fault(SIGFPE, code, task.context.pc))
        return
    if vector == DEBUG:  # DR6 tells a single step from INT1
        force(task, from_fault(SIGTRAP, TRAP_TRACE if error & DEBUG_STEP else TRAP_BRKPT, task.context.pc))
        return
    number, code, located = _EXCEPTIONS.get(vector, (SIGSEGV, 0, False))
    if code:
        force(task, from_fault(number, code, task.context.pc if located else 0))
    else:
        force(task, from_kernel(number))


def floating_code(vector: int, image: bytes) -> int:
    """The si_code of a floating-point exception, from the FXSAVE image; 0 when none is unmasked."""
    if vector == X87:
        control, status = int.from_bytes(image[0:2], "little"), int.from_bytes(image[2:4], "little")
        raised = status & ~control
    else:
        mxcsr = int.from_bytes(image[24:28], "little")
        raised = mxcsr & ~(mxcsr >> 7)
    return next((code for mask, code in _FLOATING if raised & mask), 0)


def is_canonical(address: int) -> bool:
    """Whether bits 63 to 47 are equal, as 48-bit virtual addresses must be."""
    return address < 1 << 47 or address >= (1 << 64) - (1 << 47)
