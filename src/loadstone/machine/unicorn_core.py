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
    native_code, hooks.s  the hooks that are called too often for Python
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from ctypes import c_int, c_void_p

from loadstone.machine import native_code
from loadstone.machine import unicorn_library as uc
from loadstone.machine.code import USER_TOP
from loadstone.machine.core import EXCEPTION, INTERRUPTED, PAGE_FAULT, Exits, Resolver, Space, Trap
from loadstone.machine.cpuid import HWCAP, HWCAP2, MINIMUM_SIGNAL_STACK
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
_pack_start = struct.Struct("qQqQ").pack_into  # Control: budget, reason, skip, pc
_unpack_stop = struct.Struct("qQq40xQqQ48xQQ").unpack_from  # budget, reason, skip, ring_count, vector; RAX, RIP, RFLAGS


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
        contexts, translations, traps, shared = self._contexts, self._translations, self._traps, self._engine.shared
        signals = self._signals
        if context is not contexts.current:
            contexts.load(context)
        if context.cpu != self.cpu:
            contexts.move(context, self.cpu)
        if space is not translations.space:
            self._switch(space)
        pc = contexts.next_pc if contexts.next_pc >= 0 else context.pc
        contexts.next_pc = -1
        left = budget
        skip = pc if pc == context.stopped_at else -1
        while True:
            if self._interrupted:
                self._interrupted = False
                return _INTERRUPTED_TRAP
            if translations.stale_tlb or translations.stale_pages or self._rewritten:
                translations.forget_stale()
            _pack_start(shared, 0, left, native_code.REASON_NONE, skip, pc)
            if signals.expected:
                signals.open()
            status = self._enter(self._control_address)
            if signals.is_open:
                signals.settle()
            left, reason, skip, new_blocks, vector, number, stopped, flags = _unpack_stop(shared)
            if self._fill.error is not None:
                error, self._fill.error = self._fill.error, None
                raise error
            if new_blocks:
                self._blocks.check(space)
            if flags & ALIGNMENT_CHECK:
                raise no_alignment_checks()
            if reason == native_code.REASON_SYSCALL and not status and vector < 0 and not traps.refused:
                self.exits.system_calls += 1
                if number in SIGNALS_CALLS:
                    signals.expect()
                trap: Trap | None = SYSTEM_CALL_TRAP
            else:
                trap = traps.of(status, reason, vector, stopped)
                self._count(trap)
            if trap is not None:
                if skip < 0 and trap is not STOPPED_AT_TRAP:
                    context.stopped_at = -1
                self.retired += budget - left
                return trap
            pc = stopped

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

    def _switch(self, space: Space) -> None:
        self._translations.switch(space)
        self._fill.forget_instructions()

    def _count(self, trap: Trap | None) -> None:
        """Count a stop that is no system call. Page faults are counted where they are resolved: inside a hook."""
        if trap is None or trap.kind != EXCEPTION:
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
        engine.hook(uc.HOOK_MEM_FETCH_UNMAPPED, hooks.nothing, memory_end, USER_TOP - 1)

    def _privileged(self, engine: int) -> int:
        return self._traps.on_privileged(engine)
