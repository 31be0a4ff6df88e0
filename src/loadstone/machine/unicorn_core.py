"""A CPU core of Unicorn's: one engine for every address space of the machine, walking our page tables.

The engine runs in ring 3; nothing but the page-fault path runs inside a hook. A system call, an exception or the end of
a slice stops the engine, and `run` returns.

    unicorn_library       the C functions
    unicorn_engine        one engine: its handle, hooks and live registers
    unicorn_translations  what it keeps of page tables and code, and when it must forget it
    unicorn_tlb           TLB fills, page faults
    unicorn_context       the CPU state of tasks
    unicorn_traps         from a stop to a trap
    unicorn_signals       changes of signal masks and actions that need no stop
    vex                   no AVX
    native_code, hooks.s  the hooks that are called too often for Python; hooks_signals.s and vex.s are parts of it
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_int, c_void_p

from loadstone.machine import native_code
from loadstone.machine import unicorn_library as uc
from loadstone.machine.core import EXCEPTION, INTERRUPTED, PAGE_FAULT, Exits, Resolver, Space, Trap
from loadstone.machine.cpuid import HWCAP, HWCAP2, MINIMUM_SIGNAL_STACK
from loadstone.machine.paging import USER_END
from loadstone.machine.physical import FRAME_SIZE, PhysicalMemory
from loadstone.machine.signals_keeper import CALLS as SIGNALS_CALLS
from loadstone.machine.signals_keeper import SignalsKeeper
from loadstone.machine.unicorn_context import ALIGNMENT_CHECK, Contexts, UnicornContext, no_alignment_checks
from loadstone.machine.unicorn_engine import Engine, enter_ring_3
from loadstone.machine.unicorn_signals import SignalCalls
from loadstone.machine.unicorn_tlb import TlbFill
from loadstone.machine.unicorn_translations import Translations
from loadstone.machine.unicorn_traps import STOPPED_AT_TRAP, SYSTEM_CALL_TRAP, Traps
from loadstone.machine.vex import NewBlocks

_INTERRUPTED_TRAP = Trap(INTERRUPTED)
_NUMBER, _FLAGS = native_code.CALL_REGISTERS.index("rax"), native_code.CALL_REGISTERS.index("eflags")


class UnicornCore:
    """One CPU core.

    `time_stamps`: whether RDTSC and RDTSCP read the host's counter. Otherwise they are exceptions, which the kernel
    answers from its clock.

    `resolve` is the page-fault path: (space, address, access, pc) -> None or what went wrong. The address is that of
    the page unless `wants_address()`: to find the exact one the instruction is decoded, which only a listener pays for.
    """

    name = "unicorn"
    capabilities = frozenset({"x86_64", "deterministic", "breakpoints", "answers-signals"})
    hwcap = HWCAP
    hwcap2 = HWCAP2
    minimum_signal_stack = MINIMUM_SIGNAL_STACK
    exit_ns = 0

    def __init__(
        self,
        memory: PhysicalMemory,
        resolve: Resolver,
        wants_address: Callable[[], bool] = lambda: True,
        number: int = 0,
        *,
        time_stamps: bool = False,
    ) -> None:
        self.number = self.cpu = number
        if time_stamps:
            self.capabilities |= {"host-time-stamps"}
        self.retired = 0
        self.exits = Exits()
        self._interrupted = False
        self._breakpoints: dict[int, c_void_p] = {}
        engine = self._engine = Engine(memory)
        self._rewritten = memory.rewritten
        self._control = engine.control
        self._enter, self._control_address = engine.hooks.enter, engine.hooks.address
        self._blocks = NewBlocks(engine, memory)
        self._translations = Translations(engine, memory)
        self._fill = TlbFill(engine, memory, self._translations, resolve, wants_address, self.exits)
        self._add_hooks(memory.size)
        enter_ring_3(engine, memory, self._fill.frame, time_stamps)
        self._contexts = self._fill.contexts = Contexts(engine)
        engine.check_exits(False)
        self._traps = Traps(engine, memory, self._contexts, self._translations, self._fill)
        self._signals = SignalCalls(engine.control)

    @property
    def signals(self) -> SignalsKeeper | None:
        """Who knows the signal mask and actions of the program that runs; None: the kernel makes all calls."""
        return self._signals.keeper

    @signals.setter
    def signals(self, keeper: SignalsKeeper) -> None:
        self._signals.keeper = keeper

    @property
    def flushes(self) -> int:
        """Flushes of the TLB so far."""
        return self._translations.flushes

    def new_context(self) -> UnicornContext:
        """A context in the state in which exec leaves it."""
        return self._contexts.new()

    def run(self, context: UnicornContext, space: Space, budget: int) -> Trap:
        """Run until a trap, at most about `budget` bytes of instructions."""
        if context is not self._contexts.current or space is not self._translations.space or context.cpu != self.cpu:
            self._switch(context, space)
        control = self._control
        control.budget = budget
        translations, signals = self._translations, self._signals
        trap: Trap | None = None
        while trap is None:
            if translations.stale_tlb or translations.stale_pages or self._rewritten:
                translations.forget_stale()
            if self._interrupted:
                self._interrupted = False
                trap = _INTERRUPTED_TRAP
                break
            if context.stopped_at >= 0:
                control.skip = control.pc if context.stopped_at == control.pc else -1
            if signals.expected:
                signals.open()
            stopped_for_more = self._enter(self._control_address)
            if signals.is_open:
                signals.settle()
            if stopped_for_more:
                trap = self._stopped(context, space)
            else:
                self.exits.system_calls += 1
                context.stopped_at = -1
                trap = SYSTEM_CALL_TRAP
        self.retired += budget - control.budget
        return trap

    def _stopped(self, context: UnicornContext, space: Space) -> Trap | None:
        """Why the engine stopped, if that was not just a system call; None to go on."""
        control = self._control
        if self._fill.error is not None:
            error, self._fill.error = self._fill.error, None
            raise error
        if control.ring_count:
            self._blocks.check(space)
        if control.registers[_FLAGS] & ALIGNMENT_CHECK:
            raise no_alignment_checks()
        trap = self._traps.of_stop()
        if trap is SYSTEM_CALL_TRAP and control.registers[_NUMBER] in SIGNALS_CALLS:
            self._signals.expect()
        self._count(trap)
        if trap is not None and trap is not STOPPED_AT_TRAP and control.skip < 0:
            context.stopped_at = -1
        control.skip = -1
        return trap

    def interrupt(self) -> None:
        """Make `run` return INTERRUPTED at the end of the slice at the latest."""
        self._interrupted = True

    def break_at(self, address: int) -> None:
        """Return STOPPED_AT before the instruction at `address` is executed."""
        if address not in self._breakpoints:
            self._breakpoints[address] = self._engine.hook(uc.HOOK_CODE, self._engine.hooks.code, address, address)
            self._engine.check_exits(True)
            self._translations.forget_all_code()

    def unbreak(self, address: int) -> None:
        """Take a breakpoint back."""
        handle = self._breakpoints.pop(address, None)
        if handle is not None:
            self._engine.unhook(handle)
            self._engine.check_exits(bool(self._breakpoints))
            self._translations.forget_all_code()

    def invalidate(self, root: int, start: int, end: int, frames: Sequence[int]) -> None:
        """Forget cached translations: at once when a hook is running, else before the next start."""
        being_filled = start == self._fill.filling and end == start + FRAME_SIZE
        self._translations.invalidate(root, start, end, frames, being_filled)

    def close(self) -> None:
        """Close the engine; its contexts go with it."""
        self._engine.close()
        self._enter = self._engine.hooks.enter
        self._translations.close()

    def _switch(self, context: UnicornContext, space: Space) -> None:
        """Another task runs than the last time, or on another CPU, or in another address space."""
        self._contexts.load(context)
        if context.cpu != self.cpu:
            self._contexts.move(context, self.cpu)
        if space is not self._translations.space:
            self._translations.switch(space)
            self._fill.forget_instructions()

    def _count(self, trap: Trap | None) -> None:
        """Count a stop. Page faults are counted where they are resolved: inside a hook."""
        if trap is SYSTEM_CALL_TRAP:
            self.exits.system_calls += 1
        elif trap is None or trap.kind != EXCEPTION:
            self.exits.interrupts += 1
        elif trap.vector != PAGE_FAULT:
            self.exits.exceptions += 1

    def _add_hooks(self, memory_end: int) -> None:
        engine, hooks = self._engine, self._engine.hooks
        self._callbacks = (native_code.FILL_CALLBACK(self._fill), uc.PRIVILEGED_CALLBACK(self._privileged))
        resolve, privileged = (ctypes.cast(callback, c_void_p).value or 0 for callback in self._callbacks)
        engine.control.resolve = resolve
        engine.hook(uc.HOOK_TLB_FILL, hooks.fill)
        engine.hook(uc.HOOK_INSN, hooks.syscall, 1, 0, c_int(uc.INSN_SYSCALL))
        engine.hook(uc.HOOK_INSN, hooks.cpuid, 1, 0, c_int(uc.INSN_CPUID))
        for instruction in (uc.INSN_IN, uc.INSN_OUT, uc.INSN_SYSENTER):
            engine.hook(uc.HOOK_INSN, privileged, 1, 0, c_int(instruction))
        engine.hook(uc.HOOK_BLOCK, hooks.block)
        engine.hook(uc.HOOK_EDGE_GENERATED, hooks.edge)
        engine.hook(uc.HOOK_INTR, hooks.interrupt)
        # After each translation Unicorn goes through its TLB to have stores to that page checked, unless there is a
        # memory hook for the code's address. They are checked anyway: see `Translations.guard`. Physical addresses are
        # lower than this hook's, so that it concerns nothing else.
        engine.hook(uc.HOOK_MEM_FETCH_UNMAPPED, hooks.nothing, memory_end, USER_END - 1)

    def _privileged(self, engine: int) -> int:
        return self._traps.on_privileged(engine)
