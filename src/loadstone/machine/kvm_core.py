"""A CPU core of the host's KVM: the real CPU walks the machine's page tables.

The program runs in ring 3; every exception goes to a stub in ring 0 that halts (kvm_tables.py), which ends KVM_RUN. Its
frame on the ring-0 stack says where the program was; to go on, the vCPU is put back into ring 3 there.

SYSCALL comes in two ways. Ordinary KVM enters the stub at LSTAR, with the return address in RCX and the flags in R11. A
paravirtual KVM (kvm_pvm) stays in ring 3, where fetching from the stub is a page fault; RCX and R11 are the same, and
interrupts are off, which tells it from a jump there.
(Only the second way could be tested; the first is written from the Intel SDM.)
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Sequence
from fcntl import ioctl
from struct import Struct
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from loadstone.errors import HostError, OutOfFrames
from loadstone.machine import cpuid as baseline_cpu
from loadstone.machine import kvm_api as kvm
from loadstone.machine.code import code_at
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
    CR3,
    CS,
    FETCHED,
    IN_VCPU,
    INTERRUPTS_ON,
    OF_CORE,
    R11,
    RAX,
    RCX,
    RFLAGS,
    RIP,
    RSP,
    SS,
    SYSRET_FLAGS,
    WORDS,
    Closed,
    KvmContext,
    initial_state,
)
from loadstone.machine.kvm_kick import Kicks
from loadstone.machine.kvm_machine import KvmMachine
from loadstone.machine.kvm_tables import (
    CR4_OSXSAVE,
    HALTED_IN_SYSCALL,
    MSRS,
    SYSCALL_ENTRY,
    WITH_ERROR,
    user_segments,
    vector_of,
)
from loadstone.machine.kvm_traps import ERROR_FETCH, ERROR_USER, access_of, exception, no_local_table
from loadstone.machine.paging import KERNEL_SLOT, PageTable
from loadstone.machine.physical import ENTRIES, FRAME_SHIFT, FRAME_SIZE, PhysicalMemory

if TYPE_CHECKING:
    from loadstone.machine.kvm_answers import ReadAnswers
    from loadstone.machine.kvm_entry import EntryPage, SignalsKeeper

_ENTRY_FLAGS = 0x202

_RUN_WORD, _EVENTS_WORD = kvm.RUN_REGS // 8, kvm.RUN_EVENTS // 8
_REGISTERS = kvm.SYNC_REGS | kvm.SYNC_SREGS
# kvm_vcpu_events.exception: injected, number, has_error_code, pending
_EXCEPTION_COMES, _NUMBER, _INT3_OR_INTO = 0xFF | 0xFF << 24, 0xFF00, (0x300, 0x400)
_CS_WORDS, _SS_WORDS = slice(CS, CS + 3), slice(SS, SS + 3)
_PUSHED = Struct("<QQ8xQQ")  # by an exception: the error code or nothing; RIP, (CS), RFLAGS, RSP
_REASON_WORD, _DIRTY_WORD, _VALID_WORD = kvm.RUN_EXIT_REASON // 8, kvm.RUN_DIRTY_REGS // 8, kvm.RUN_VALID_REGS // 8
_PROBE_NS, _LEAST_TRIES = 500_000, 3
_SYSCALL = b"\x0f\x05"
_SIGNALS_CALLS = (13, 14)  # rt_sigaction, rt_sigprocmask: whoever makes one makes more of them soon
_ASKED_FOR = 8

# What ended an entry, beside the vectors of exceptions.
_IN_SYSCALL, _KICKED = 256, 257

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
        inside: whether its thread is in the guest, or about to look at what is to be forgotten and enter.
        signals: who knows the signal mask and actions of the program that runs, where their changes may be answered in
            the guest.
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
            self.capabilities |= {"host-time-stamps", "answers-reads"}
        self.hwcap, self.hwcap2, self.minimum_signal_stack = host
        self.retired = 0
        self.exits = Exits()
        self.exit_ns = 0
        self.inside = False
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
        self._breakpoints = self.machine.breakpoints
        words = self._vcpu.words
        self._run_words = words
        self._window = words[_RUN_WORD : _RUN_WORD + WORDS]
        self._context: KvmContext | None = None
        self._space: Any = None
        self._interrupted = False
        self._healing: list[int] = []  # frames whose translation the faulting instruction itself replaces
        self._healing_at = -1  # that instruction
        self._filling = -1
        self._error = 0  # the error code of the last exception
        self.signals: SignalsKeeper | None = None
        self._signals_asked = 0  # for so many runs more changes of masks and actions are expected
        self._leaves_at = -1  # where the entry's code executes HLT
        self._halves: dict[int, ReadAnswers] = {}  # by the page directory of the address space
        self._answers: ReadAnswers | None = None  # of the one that runs
        self._set_up()
        if baseline and beside is None:
            self._be_baseline()

    # -- what the kernel calls ----------------------------------------------------------------------------------------

    def new_context(self) -> KvmContext:
        """A context in the state in which exec leaves it."""
        return KvmContext(self, memoryview(bytearray(self.pristine)).cast("Q"), initial_state(self.xcr0))

    def run(self, context: KvmContext, space: Space, budget: int) -> Trap:
        """Run until a trap, at most about `budget` nanoseconds and one tick."""
        self._prepare(context, space, budget)
        page = self.machine.entry if self._signals_asked else None
        if page is not None and self.signals is not None:
            page.open_signals(self.signals)
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
            if page is not None and self.signals is not None:
                self._signals_asked = _ASKED_FOR if page.settle_signals(self.signals) else self._signals_asked - 1
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
        self._root = page_directory.root
        self.machine.cover(self._memory.in_use_end)  # not part of an exit, and may take milliseconds
        least = used = tries = 0
        while tries < times and (used < _PROBE_NS or tries < _LEAST_TRIES):
            context.pc = FRAME_SIZE  # nothing is mapped there, nor anywhere
            started = perf_counter_ns()
            self._enter_once()
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
        self._window.release()
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
        self._root = space.page_table.root
        self._install_half()

    def _install_half(self) -> None:
        self._answers = answers = self._halves.get(self._root)
        entry = self.machine.half.entry if answers is None else answers.entry
        self._memory.words[self._root * ENTRIES + KERNEL_SLOT] = entry
        if self.machine.entry is not None:
            self.machine.entry.enter(answers)

    # -- running ------------------------------------------------------------------------------------------------------

    def _enter(self, deadline: int) -> Trap | None:
        """Enter the guest until it is left for a reason. None: go on."""
        if self._interrupted:
            return self._interrupt_now()
        vector = self._enter_once()
        if vector == _IN_SYSCALL:
            return self._system_call()
        if vector == PAGE_FAULT:
            return self._page_fault()
        return self._kicked(deadline) if vector == _KICKED else self._exception(vector)

    def _enter_once(self) -> int:
        """Enter the guest and leave it; the vector of the exception, _IN_SYSCALL or _KICKED."""
        self.inside = True  # before looking: what is reported from now on is not left to the next entry
        machine, memory = self.machine, self._memory
        if self.stale.pending:
            machine.forget()
        if memory.in_use_end > machine.vm.covered:
            machine.cover(memory.in_use_end)
        window, words = self._window, self._run_words
        window[CR3] = self._root << FRAME_SHIFT
        words[_DIRTY_WORD] = _REGISTERS
        if words[_EVENTS_WORD] & _NUMBER in _INT3_OR_INTO:  # an old one; see _is_delivered
            words[_EVENTS_WORD] = 0
            words[_DIRTY_WORD] = _REGISTERS | kvm.SYNC_EVENTS
        while True:
            try:
                ioctl(self._vcpu.fd, kvm.RUN)  # with an argument, even 0, Python makes and drops two exceptions first
                break
            except InterruptedError:
                self._kicks.take()
                if self._is_delivered():
                    self.inside = False
                    return _IN_SYSCALL if self._is_in_syscall() else _KICKED
                words[_DIRTY_WORD] = 0  # an exception would be lost with the registers written: let it get to its stub
            except OSError as error:
                raise HostError(f"KVM_RUN at {window[RIP]:#x}: {error.strerror}") from error
        self.inside = False
        pc = window[RIP]
        vector = _IN_SYSCALL if pc == HALTED_IN_SYSCALL else vector_of(pc)
        reason = words[_REASON_WORD] & 0xFFFF_FFFF
        if vector < 0 or reason != kvm.EXIT_HLT:
            raise HostError(self._strange_exit(reason))
        if vector != _IN_SYSCALL:
            vector = self._leave_stub(vector)
        window[_CS_WORDS], window[_SS_WORDS] = self._segments  # the program's again
        return vector

    def _leave_stub(self, vector: int) -> int:
        """The registers are what the exception pushed. The vector, or _IN_SYSCALL where that is how SYSCALL comes."""
        window = self._window
        error, pc, flags, window[RSP] = _PUSHED.unpack_from(self._memory.bytes, self._tables.pushed_at)
        if pc == SYSCALL_ENTRY == window[CR2] and vector == PAGE_FAULT and not flags & INTERRUPTS_ON:
            self._leaves_at = self.machine.open_entry()
            return _IN_SYSCALL
        if pc == self._leaves_at and not flags & INTERRUPTS_ON:
            return _IN_SYSCALL
        window[RIP], window[RFLAGS] = pc, flags
        self._error = error if vector in WITH_ERROR else 0
        page = self.machine.entry
        return vector if page is None else self._leave_entry(page, vector)

    def _leave_entry(self, page: EntryPage, vector: int) -> int:
        """The same where SYSCALL enters code in ring 3: calls leave by HLT, and interrupts are off behind an answer."""
        window = self._window
        off = not window[RFLAGS] & INTERRUPTS_ON
        window[RFLAGS] |= INTERRUPTS_ON
        if window[RIP] & -FRAME_SIZE != SYSCALL_ENTRY:
            return vector
        if off and (page.rewind(window) or (window[RIP] == SYSCALL_ENTRY and self._follows_syscall())):
            return _IN_SYSCALL
        window[CR2] = window[RIP]  # the program has jumped there: as if it might not
        self._error = ERROR_USER | ERROR_FETCH
        return PAGE_FAULT

    def _follows_syscall(self) -> bool:
        """Whether RCX is what it is behind a SYSCALL instruction. (Its code may be such that it cannot read it.)"""
        return code_at(self._memory, self._space.page_table, self._window[RCX] - 2, 2) == _SYSCALL

    def _is_in_syscall(self) -> bool:
        """Whether SYSCALL was executed and not carried out: a paravirtual CPU can be kicked at any instruction there.

        A signal's frame must not get these registers: the way back from it sets the interrupt flag.
        """
        window, page = self._window, self.machine.entry
        if page is None:
            return bool(window[RIP] == SYSCALL_ENTRY and not window[RFLAGS] & INTERRUPTS_ON)
        window[RFLAGS] |= INTERRUPTS_ON
        if window[RIP] == SYSCALL_ENTRY:
            return self._follows_syscall()
        return window[RIP] & -FRAME_SIZE == SYSCALL_ENTRY and page.rewind(window)

    def _is_delivered(self) -> bool:
        """Whether no exception is on its way. KVM does not report INT3 and INTO, but gives their number away."""
        event = self._run_words[_EVENTS_WORD]
        in_ring_3 = self._window[CS + 1] >> 32 & 3
        return bool(in_ring_3) and not event & _EXCEPTION_COMES and event & _NUMBER not in _INT3_OR_INTO

    def _system_call(self) -> Trap | None:
        """RCX is where it goes on, R11 the flags."""
        window = self._window
        self.exits.system_calls += 1
        if self._answers is not None and self._answers.refill(window):
            return None
        if window[RAX] in _SIGNALS_CALLS and self.machine.entry is not None:
            self._signals_asked = _ASKED_FOR
        window[RIP] = window[RCX]
        window[R11] |= INTERRUPTS_ON
        window[RFLAGS] = window[R11] & SYSRET_FLAGS | 2
        self._healing.clear()
        return _SYSTEM_CALL_TRAP

    def _page_fault(self) -> Trap | None:
        window, error = self._window, self._error
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
        return exception(self._window, self._memory, self._space.page_table, vector, self._error)

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

    def _strange_exit(self, reason: int) -> str:
        """What to say when the vCPU stopped in a way that no program can cause."""
        window = self._window
        what = kvm.EXIT_NAMES.get(reason, f"exit {reason}")
        if reason == kvm.EXIT_SHUTDOWN:
            what = "triple fault"
        detail = self._vcpu.run[kvm.RUN_DETAIL : kvm.RUN_DETAIL + 16].hex(" ", 8)
        return f"KVM stopped at {window[RIP]:#x} (rsp {window[RSP]:#x}, cr2 {window[CR2]:#x}): {what}, {detail}"

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
        self._segments = [memoryview(segment).cast("Q") for segment in user_segments()]
        self._run_words[_VALID_WORD] = _REGISTERS | kvm.SYNC_EVENTS

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
