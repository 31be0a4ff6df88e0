"""A CPU core of the host's KVM: the real CPU walks the machine's page tables.

How the guest is entered and left is kvm_guest.py's, and which calls are answered in it, kvm_guest_calls.py's; this is
what a core is to the kernel: which context and which address space the vCPU is, and what the ends of its entries mean.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from loadstone.errors import HostError, OutOfFrames
from loadstone.machine import cpuid as baseline_cpu
from loadstone.machine import kvm_api as kvm
from loadstone.machine.core import (
    ACCESS_WRITE,
    EXCEPTION,
    INTERRUPTED,
    PAGE_FAULT,
    SLICE_END,
    SYSTEM_CALL,
    Exits,
    Resolver,
    Space,
    Trap,
)
from loadstone.machine.engines import TESTED_KVM
from loadstone.machine.kvm_context import (
    CHANGED,
    CR2,
    FETCHED,
    IN_VCPU,
    INTERRUPTS_ON,
    OF_CORE,
    R11,
    RAX,
    RCX,
    RFLAGS,
    RIP,
    SYSRET_FLAGS,
    WORDS,
    Closed,
    KvmContext,
    initial_state,
)
from loadstone.machine.kvm_guest import IN_SYSCALL, KICKED, Guest
from loadstone.machine.kvm_guest_calls import GuestCalls
from loadstone.machine.kvm_kick import Kicks
from loadstone.machine.kvm_machine import KvmMachine
from loadstone.machine.kvm_tables import CR4_OSXSAVE, MSRS
from loadstone.machine.kvm_traps import ERROR_USER, access_of, exception, no_local_table
from loadstone.machine.paging import KERNEL_SLOT, PageTable
from loadstone.machine.physical import ENTRIES, FRAME_SIZE, PhysicalMemory

if TYPE_CHECKING:
    from loadstone.machine.kvm_answers import ReadAnswers
    from loadstone.machine.kvm_foreseen import CallsKeeper
    from loadstone.machine.signals_keeper import SignalsKeeper

_ENTRY_FLAGS = 0x202

_PROBE_NS, _LEAST_TRIES = 500_000, 3

_SYSTEM_CALL_TRAP = Trap(SYSTEM_CALL)
_SLICE_END_TRAP = Trap(SLICE_END)
_INTERRUPTED_TRAP = Trap(INTERRUPTED)


class KvmCore:
    """One CPU core: a vCPU of a virtual machine.

    `resolve` is the page-fault path: (space, address, access, pc) -> None or what went wrong. The budget of `run`, and
    `retired`, are nanoseconds in the place of bytes of code. Raises HostError where the host has no KVM to use, or
    where `baseline` asks for the CPU of cpuid.py and the host's KVM does not decide what its vCPUs are.

    Attributes:
        hwcap, hwcap2, minimum_signal_stack: what the host's kernel tells its own programs, since CPUID is the host's.
        xcr0: the extended states that a program may use. extended_size: bytes of their XSAVE image.
        exits: how often the guest was left, by cause. stale: what was invalidated.
        exit_ns: what leaving the guest costs, once `exit_cost` has measured it.
        machine: what it shares with the other cores of its virtual machine.
        signals: who knows the signal mask and actions of the program that runs, where their changes may be answered in
            the guest. calls: who knows the answers of other calls, where those may.
    """

    name = "kvm"
    capabilities = frozenset({"x86_64", "avx", "native-speed", "breakpoints"})

    def __init__(
        self, memory: PhysicalMemory, resolve: Resolver, host: tuple[int, int, int] = (0, 0, 2048), number: int = 0,
        *, baseline: bool = False, beside: KvmCore | None = None,
    ) -> None:  # fmt: skip
        self.number = self.cpu = number
        if os.path.isdir(TESTED_KVM):
            # RDTSC is executed by the CPU itself, with no offset; SYSCALL arrives in ring 3
            self.capabilities |= {"host-time-stamps", "answers-reads", "answers-signals"}
        self.hwcap, self.hwcap2, self.minimum_signal_stack = host
        self.retired = 0
        self.exits = Exits()
        self.exit_ns = 0
        self._memory = memory
        self._resolve = resolve
        self.machine: KvmMachine = KvmMachine(memory, baseline) if beside is None else beside.machine
        try:
            self._vcpu = kvm.Vcpu(self.machine.vm, len(self.machine.cores), self.machine.vcpu_size)
        except HostError:
            if beside is None:
                self.machine.close()
            raise
        self.machine.cores.append(self)
        self._tables = self.machine.half.new_core()
        self.stale = self.machine.stale
        self._kicks = Kicks()
        self._guest = Guest(self._vcpu, self.machine, memory, self._kicks, self._tables.pushed_at)
        self._window = self._guest.window
        self._breakpoints = self.machine.breakpoints
        self._context: KvmContext | None = None
        self._space: Any = None
        self._interrupted = False
        self._healing: list[int] = []  # frames whose translation the faulting instruction itself replaces
        self._healing_at = -1  # that instruction
        self._filling = -1
        self.signals: SignalsKeeper | None = None
        self.calls: CallsKeeper | None = None
        self._guest_calls = GuestCalls(self.machine, self._window)
        self._halves: dict[int, ReadAnswers] = {}  # by the page directory of the address space
        self._answers: ReadAnswers | None = None  # of the one that runs
        self._set_up()
        if baseline and beside is None:
            self._be_baseline()

    @property
    def inside(self) -> bool:
        """Whether its thread is in the guest, or about to look at what is to be forgotten and enter."""
        return self._guest.inside

    # -- what the kernel calls ----------------------------------------------------------------------------------------

    def new_context(self) -> KvmContext:
        """A context in the state in which exec leaves it."""
        return KvmContext(self, memoryview(bytearray(self.pristine)).cast("Q"), initial_state(self.xcr0))

    def run(self, context: KvmContext, space: Space, budget: int) -> Trap:
        """Run until a trap, at most about `budget` nanoseconds and one tick."""
        self._prepare(context, space, budget)
        self._guest_calls.open(context, self.signals, self.calls)
        started = perf_counter_ns()
        try:
            if self._breakpoints.addresses:
                return self._run_with_breakpoints(context, space, started + budget)
            context.stopped_at = -1
            while True:
                trap = self._enter(started + budget)
                if trap is not None:
                    return trap
        finally:
            if self._answers is not None:
                self._answers.settle()
            self._guest_calls.settle()
            self.retired += perf_counter_ns() - started

    def _prepare(self, context: KvmContext, space: Space, budget: int) -> None:
        """Have the vCPU be this context in this address space, in this thread."""
        if _thread.get_ident() != self._kicks.thread:
            self._vcpu.set_signal_mask(self._kicks.attach())
        self._kicks.pace(budget)
        if context is not self._context:
            self._switch(context)
        if space is not self._space:
            self._enter_space(space)
        if context.image_state != IN_VCPU:
            self._put_extended_state(context)
        if self._answers is not None:
            self._answers.check()

    def _run_with_breakpoints(self, context: KvmContext, space: Space, deadline: int) -> Trap:
        from loadstone.machine.kvm_stepping import Stepper

        if self._answers is not None:
            self._answers.withdraw()
        return Stepper(self._enter, self._breakpoints, self._memory, space.page_table, self._window).run(
            context, deadline
        )

    def interrupt(self) -> None:
        """Make `run` return INTERRUPTED soon. From any thread or signal handler."""
        self._interrupted = True
        self._kicks.kick()

    def break_at(self, address: int) -> None:
        """Return STOPPED_AT before the instruction at `address` is executed."""
        self._breakpoints.addresses.add(address)

    def unbreak(self, address: int) -> None:
        """Take a breakpoint back."""
        self._breakpoints.addresses.discard(address)

    def invalidate(self, root: int, start: int, end: int, frames: Sequence[int]) -> None:
        """Forget cached translations before the next entry."""
        if start == self._filling and end == start + FRAME_SIZE and len(self.machine.cores) == 1:
            self._healing += frames
        else:
            self.machine.invalidate(root, start, end, frames)

    def answers_for(self, space: Space) -> ReadAnswers | None:
        """What reads of `space`, which runs, can be answered with in the guest; None: that cannot be, or not yet.

        It is given back with `forget_answers`.
        """
        page = self.machine.entry
        if self._breakpoints.addresses or page is None or len(self.machine.cores) > 1:
            return None
        root = space.page_table.root
        if root not in self._halves:
            from loadstone.machine.kvm_answers import PAGES, ReadAnswers

            if self._memory.used + PAGES > self._memory.frames - self._memory.frames // 16:
                return None
            try:
                self._halves[root] = ReadAnswers(self.machine.half, page)
            except OutOfFrames:  # no room for the buffer in one piece
                return None
            self._install_half()
            self.stale.add_all()
        return self._halves[root]

    def forget_answers(self, space: Space) -> None:
        """The address space has ended."""
        answers = self._halves.pop(space.page_table.root, None)
        if answers is not None:
            if answers is self._answers:
                self._answers = None
            answers.release()

    def exit_cost(self, times: int = 6) -> int:
        """Nanoseconds to enter the guest and leave it by a page fault: the least of a few times.

        Where it costs much it is tried three times: then the tries end when half a millisecond is used up. (One alone
        says nothing, since the host may have had other work.)
        """
        page_directory = PageTable(self._memory, self.machine.half.entry)
        context = self.new_context()
        self._vcpu.set_signal_mask(self._kicks.attach())
        self._switch(context)
        self._put_extended_state(context)
        self.machine.cover(self._memory.in_use_end)  # not part of an exit, and may take milliseconds
        least = used = tries = 0
        while tries < times and (used < _PROBE_NS or tries < _LEAST_TRIES):
            context.pc = FRAME_SIZE  # nothing is mapped there, nor anywhere
            started = perf_counter_ns()
            self._guest.enter(page_directory)
            cost = perf_counter_ns() - started
            least = min(least or cost, cost)
            used += cost
            tries += 1
        page_directory.release()
        self.exit_ns = least
        return least

    def close(self) -> None:
        """Give the virtual machine back to the host."""
        if self._vcpu.fd < 0:
            return
        self._kicks.close()
        if self._context is not None:
            self._context.words = Closed()
            self._context = None
        self._guest.close()
        self._vcpu.close()
        self.machine.leave(self)

    # -- contexts -----------------------------------------------------------------------------------------------------

    def fetch_extended_state(self, image: bytearray) -> None:
        """The vCPU's extended state."""
        self._vcpu.read_xsave(image)

    def _switch(self, context: KvmContext) -> None:
        """Bring a context into the vCPU."""
        if context.core is not self:
            context.core._let_go(context)
            context.core = self
            context.words[OF_CORE] = memoryview(self.pristine).cast("Q")[OF_CORE]
        if self._context is not None:
            self._unload(self._context)
        self._window[:] = context.words
        context.words = self._window
        self._context = context
        self._guest_calls.switch()

    def _let_go(self, context: KvmContext) -> None:
        """Another core is to run it."""
        if context is self._context:
            self._unload(context)
            self._context = None

    def _unload(self, context: KvmContext) -> None:
        self._heal_now()
        context.save_fpu()  # fetches it, if nobody has yet
        context.words = memoryview(bytearray(self._window)).cast("Q")
        if context.image_state == FETCHED:
            context.image_state = CHANGED

    def _put_extended_state(self, context: KvmContext) -> None:
        if context.image_state == CHANGED:
            self._vcpu.write_xsave(context.image)
        context.image_state = IN_VCPU

    def _enter_space(self, space: Space) -> None:
        self._heal_now()
        self.stale.look_at_tables()
        self._space = space
        self._table = space.page_table
        self._guest_calls.switch()
        self._install_half()

    def _install_half(self) -> None:
        self._answers = answers = self._halves.get(self._table.root)
        entry = self.machine.half.entry if answers is None else answers.entry
        self._memory.words[self._table.root * ENTRIES + KERNEL_SLOT] = entry
        if self.machine.entry is not None:
            self.machine.entry.enter(answers)

    # -- running ------------------------------------------------------------------------------------------------------

    def _enter(self, deadline: int) -> Trap | None:
        """Enter the guest until it is left for a reason. None: go on."""
        if self._interrupted:
            return self._interrupt_now()
        vector = self._guest.enter(self._table)
        if vector == IN_SYSCALL:
            return self._system_call()
        if vector == PAGE_FAULT:
            return self._page_fault()
        return self._kicked(deadline) if vector == KICKED else self._exception(vector)

    def _system_call(self) -> Trap | None:
        """RCX is where it goes on, R11 the flags."""
        window = self._window
        self.exits.system_calls += 1
        self._guest_calls.leave_for(window[RAX])
        if self._answers is not None and self._answers.refill(window):
            return None
        window[RIP] = window[RCX]
        window[R11] |= INTERRUPTS_ON
        window[RFLAGS] = window[R11] & SYSRET_FLAGS | 2
        self._healing.clear()
        return _SYSTEM_CALL_TRAP

    def _page_fault(self) -> Trap | None:
        window, error = self._window, self._guest.error
        pc, address = window[RIP], window[CR2]
        self.exits.page_faults += 1
        if not error & ERROR_USER:
            return no_local_table(window)
        access = access_of(error)
        if self._healing and self._healing_at != pc:
            self._healing.clear()
        self._filling = address & -FRAME_SIZE if access == ACCESS_WRITE else -1
        self._healing_at = pc
        try:
            failure = self._resolve(self._space, address, access, pc)
        finally:
            self._filling = -1
        if failure is None:
            if self._answers is not None:
                self._answers.check()  # a page of the file that is read may have been mapped
            return None
        self._heal_now()
        return Trap(EXCEPTION, PAGE_FAULT, failure, pc)

    def _heal_now(self) -> None:
        """Something else may run before the instruction that was to replace its translations."""
        if self._healing:
            self.stale.add(self._healing)
            self._healing.clear()

    def _exception(self, vector: int) -> Trap:
        self.exits.exceptions += 1
        self._heal_now()
        return exception(self._window, self._memory, self._table, vector, self._guest.error)

    def _kicked(self, deadline: int) -> Trap | None:
        """A signal ended KVM_RUN: a tick, or one whose handler has noted something by now."""
        self.exits.interrupts += 1
        self._heal_now()
        if self._interrupted:
            return self._interrupt_now()
        return _SLICE_END_TRAP if perf_counter_ns() >= deadline else None

    def _interrupt_now(self) -> Trap:
        self._interrupted = False
        self._heal_now()
        return _INTERRUPTED_TRAP

    # -- making the vCPU ----------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """CPUID, XCR0, MSRs; the registers of a program that starts."""
        vcpu, cpu = self._vcpu, self.machine.cpu
        self.xcr0, self.extended_size = cpu.xcr0, cpu.extended_size
        vcpu.set_cpuid(cpu.table)
        vcpu.set_msrs(MSRS)
        if cpu.cr4 & CR4_OSXSAVE:
            vcpu.set_xcr0(cpu.xcr0)
        state = self._tables.system_registers(vcpu.system_registers(), cpu.cr4)
        registers = bytearray(kvm.REGS_SIZE) + state[: 8 * WORDS - kvm.REGS_SIZE]
        self._window[:] = memoryview(registers).cast("Q")
        self._window[RFLAGS] = _ENTRY_FLAGS
        self.pristine = bytes(self._window)

    def cpuid(self, leaf: int, part: int = 0) -> tuple[int, ...]:
        """EAX, EBX, ECX, EDX of the CPUID instruction in ring 3, executed there."""
        from loadstone.machine.kvm_asking import cpuid

        return cpuid(self, self._memory, leaf, part)

    def _be_baseline(self) -> None:
        """Raises HostError where a program would see another CPU."""
        from loadstone.machine.kvm_asking import check_baseline

        self.hwcap, self.hwcap2 = baseline_cpu.HWCAP, baseline_cpu.HWCAP2
        self.minimum_signal_stack = baseline_cpu.MINIMUM_SIGNAL_STACK
        try:
            check_baseline(self)
        except HostError:
            self.close()
            raise
