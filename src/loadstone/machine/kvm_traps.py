"""What an exception means that ended ring 3, where a paravirtual CPU does not say it as the CPU itself would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.machine.code import code_at
from loadstone.machine.core import (
    ACCESS_EXECUTE,
    ACCESS_READ,
    ACCESS_WRITE,
    DEBUG,
    DEBUG_STEP,
    EXCEPTION,
    GENERAL_PROTECTION,
    INVALID_OPCODE,
    Trap,
)
from loadstone.machine.kvm_context import CR2, RFLAGS, RIP, TRAP_FLAG
from loadstone.machine.segments import GATES_OF_RING_3, gate_error

if TYPE_CHECKING:
    from loadstone.machine.paging import PageTable
    from loadstone.machine.physical import PhysicalMemory

# Of a page fault's error code (Intel SDM vol. 3, 4.7).
ERROR_WRITE, ERROR_USER, ERROR_FETCH = 2, 4, 16
_LOCAL_TABLE = 4  # of a selector error code

_INT, _INT1, _SYSENTER = 0xCD, b"\xf1", b"\x0f\x34"
_FAR_RETURNS = (b"\xca", b"\xcb", b"\xcf")
# Refused to ring 3 as invalid, by the hypervisor as privileged: MONITOR, MWAIT, and the other maker's VMRUN and so on.
_CALLED_PRIVILEGED = tuple(bytes((0x0F, 0x01, last)) for last in (0xC8, 0xC9, *range(0xD8, 0xE0)))


def access_of(error: int) -> int:
    """The access that a page fault was."""
    if error & ERROR_FETCH:
        return ACCESS_EXECUTE
    return ACCESS_WRITE if error & ERROR_WRITE else ACCESS_READ


def no_local_table(window: Any) -> Trap:
    """For a page fault of the CPU's own: it read a descriptor of a local table, which there is none of."""
    return Trap(EXCEPTION, GENERAL_PROTECTION, None, window[RIP], error=window[CR2] & 0xFFF8 | _LOCAL_TABLE)


def exception(window: Any, memory: PhysicalMemory, table: PageTable, vector: int, error: int) -> Trap:
    """The trap for any exception but a page fault; `window` has the registers, which INT 3 and its like change."""
    pc = window[RIP]
    if vector == INVALID_OPCODE:
        return _invalid_opcode(window, memory, table)
    if vector == GENERAL_PROTECTION and not error and code_at(memory, table, pc, 3).startswith(_CALLED_PRIVILEGED):
        return Trap(EXCEPTION, INVALID_OPCODE, None, pc)
    if vector == DEBUG:  # DR6 is not to be had; POPF may have been stepped over, and have cleared the flag
        is_step = window[RFLAGS] & TRAP_FLAG or code_at(memory, table, pc - 1, 1) != _INT1
        error = DEBUG_STEP if is_step else 0
    return Trap(EXCEPTION, vector, None, pc, error=error)


def _invalid_opcode(window: Any, memory: PhysicalMemory, table: PageTable) -> Trap:
    """Where the CPU is paravirtual, software interrupts, SYSENTER, bad far returns and values that LDMXCSR refuses come
    as invalid, too.
    """
    from loadstone.machine.instruction import LONGEST, loads_mxcsr  # few programs get here

    pc = window[RIP]
    code = code_at(memory, table, pc, LONGEST)
    if code.startswith(_SYSENTER) or code.lstrip(b"\x48")[:1] in _FAR_RETURNS or loads_mxcsr(code):
        return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc)
    if code[:1] == bytes((_INT,)) and len(code) > 1:
        if code[1] in GATES_OF_RING_3:
            window[RIP] = pc + 2
            return Trap(EXCEPTION, code[1], None, pc + 2)
        return Trap(EXCEPTION, GENERAL_PROTECTION, None, pc, error=gate_error(code[1]))
    return Trap(EXCEPTION, INVALID_OPCODE, None, pc)
