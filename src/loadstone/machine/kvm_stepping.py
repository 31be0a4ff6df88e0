"""Running with breakpoints set: the INT3 of kvm_breakpoints.py is put in and taken out, and stepped over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.lean import Protocol
from loadstone.machine.code import code_at
from loadstone.machine.core import (
    BREAKPOINT,
    DEBUG,
    EXCEPTION,
    INTERRUPTED,
    SLICE_END,
    STOPPED_AT,
    SYSTEM_CALL,
    Trap,
)
from loadstone.machine.kvm_context import R11, RFLAGS, RIP, RSP, TRAP_FLAG
from loadstone.machine.paging import FRAME_MASK

if TYPE_CHECKING:
    from loadstone.machine.kvm_breakpoints import Breakpoints
    from loadstone.machine.kvm_context import KvmContext
    from loadstone.machine.paging import PageTable
    from loadstone.machine.physical import PhysicalMemory

_PUSHF = b"\x9c"
_STOPPED_AT_TRAP = Trap(STOPPED_AT)


class Enter(Protocol):
    """How the guest is entered: until it is left for a reason; None: go on."""

    def __call__(self, deadline: int) -> Trap | None:
        """`deadline`: when the time slice ends, on the clock of perf_counter_ns."""


class Stepper:
    """One run of a context with breakpoints. `window` has its registers."""

    def __init__(
        self, enter: Enter, points: Breakpoints, memory: PhysicalMemory, table: PageTable, window: Any
    ) -> None:
        self._enter = enter
        self._points = points
        self._memory = memory
        self._table = table
        self._window = window

    def run(self, context: KvmContext, deadline: int) -> Trap:
        """Until a trap, which is STOPPED_AT before an instruction with a breakpoint, but for the one it stands on."""
        points, window, table = self._points, self._window, self._table
        over = window[RIP] == context.stopped_at
        while True:
            if over:
                trap = self._step(context, deadline)
            else:
                points.put(table)
                try:
                    trap = self._enter(deadline)
                finally:
                    points.take_out()
            if trap is None:
                over = False
                continue
            if trap.kind in (SLICE_END, INTERRUPTED):
                return trap
            context.stopped_at = -1
            if trap.kind != EXCEPTION or trap.vector != BREAKPOINT or over:
                return trap
            pc = window[RIP] - 1
            if not points.is_ours(table, pc) and pc not in points.addresses:
                return trap
            window[RIP] = pc
            if pc in points.addresses:
                context.stopped_at = pc
                return _STOPPED_AT_TRAP
            over = True

    def _step(self, context: KvmContext, deadline: int) -> Trap | None:
        """Execute one instruction, without any breakpoint. None: it is done."""
        window = self._window
        own = window[RFLAGS] & TRAP_FLAG
        window[RFLAGS] |= TRAP_FLAG
        pushes_flags = code_at(self._memory, self._table, window[RIP], 1) == _PUSHF
        trap = None
        while trap is None:
            trap = self._enter(deadline)
        if own:
            return trap
        window[RFLAGS] &= ~TRAP_FLAG
        if trap.kind == SYSTEM_CALL:
            window[R11] &= ~TRAP_FLAG
        if trap.kind != EXCEPTION or trap.vector != DEBUG:
            return trap
        context.stopped_at = -1
        if pushes_flags:
            entry = self._table.entry(window[RSP])
            self._memory.bytes[(entry & FRAME_MASK | window[RSP] & 0xFFF) + 1] &= ~(TRAP_FLAG >> 8) & 0xFF
        return None
