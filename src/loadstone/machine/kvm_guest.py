"""Entering the guest on one vCPU, and what ended that: an exception, a system call or a kick.

The program runs in ring 3. It leaves in one of these ways:

- Every exception goes to a stub in ring 0 that halts (kvm_tables.py), which ends KVM_RUN. Its frame on the ring-0 stack
  says where the program was; to go on, the vCPU is put back into ring 3 there.
- SYSCALL comes in two ways. Ordinary KVM enters the stub at LSTAR, with the return address in RCX and the flags in R11.
  A paravirtual KVM (kvm_pvm) stays in ring 3, where fetching from the stub is a page fault; RCX and R11 are the same,
  and interrupts are off, which tells it from a jump there. (Only the second way could be tested; the first is written
  from the Intel SDM.)
- Once it was seen to stay there, it enters the code of kvm_entry.py, which leaves by a store to a page without memory
  (KVM_EXIT_MMIO): that is 6 us less than an exception, since nothing has to be made in ring 0, nor undone.
- A signal of the host's ends KVM_RUN (kvm_kick.py).
"""

from __future__ import annotations

from fcntl import ioctl
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import HostError
from loadstone.machine import kvm_api as kvm
from loadstone.machine.code import code_at
from loadstone.machine.core import PAGE_FAULT
from loadstone.machine.kvm_api import XSAVE_SIZE
from loadstone.machine.kvm_context import (
    CR2,
    CR3,
    CS,
    INTERRUPTS_ON,
    RCX,
    RFLAGS,
    RIP,
    RSP,
    SS,
    WORDS,
)
from loadstone.machine.kvm_tables import (
    DOOR,
    HALTED_IN_SYSCALL,
    SYSCALL_ENTRY,
    WITH_ERROR,
    user_segments,
    vector_of,
)
from loadstone.machine.kvm_traps import ERROR_FETCH, ERROR_USER, ERROR_WRITE
from loadstone.machine.physical import FRAME_SHIFT, FRAME_SIZE

if TYPE_CHECKING:
    from loadstone.machine.kvm_entry import EntryPage
    from loadstone.machine.kvm_kick import Kicks
    from loadstone.machine.kvm_machine import KvmMachine
    from loadstone.machine.paging import PageTable
    from loadstone.machine.physical import PhysicalMemory

# What ended an entry, beside the vectors of exceptions.
IN_SYSCALL, KICKED = 256, 257

_RUN_WORD, _EVENTS_WORD = kvm.RUN_REGS // 8, kvm.RUN_EVENTS // 8
_REGISTERS = kvm.SYNC_REGS | kvm.SYNC_SREGS
# kvm_vcpu_events.exception: injected, number, has_error_code, pending
_EXCEPTION_COMES, _NUMBER, _INT3_OR_INTO = 0xFF | 0xFF << 24, 0xFF00, (0x300, 0x400)
_CS_WORDS, _SS_WORDS = slice(CS, CS + 3), slice(SS, SS + 3)
_PUSHED = Struct("<QQ8xQQ")  # by an exception: the error code or nothing; RIP, (CS), RFLAGS, RSP
_REASON_WORD, _DIRTY_WORD, _VALID_WORD = kvm.RUN_EXIT_REASON // 8, kvm.RUN_DIRTY_REGS // 8, kvm.RUN_VALID_REGS // 8
_IS_WRITE = kvm.RUN_DETAIL + 20  # of what KVM_EXIT_MMIO says: address, eight bytes, length, whether it is a store
_SYSCALL = b"\x0f\x05"
_STORE_SIZE = 6  # bytes of the instruction by which calls leave


class Guest:
    """One vCPU's way in and out.

    Attributes:
        window: its general and system registers, while it is out.
        error: the error code of the last exception, 0 where it has none.
        inside: whether its thread is in the guest, or about to look at what is to be forgotten and enter.
    """

    def __init__(
        self, vcpu: kvm.Vcpu, machine: KvmMachine, memory: PhysicalMemory, kicks: Kicks, pushed_at: int
    ) -> None:
        self._vcpu = vcpu
        self._machine = machine
        self._memory = memory
        self._kicks = kicks
        self._pushed_at = pushed_at
        self._words = vcpu.words
        self.window = vcpu.words[_RUN_WORD : _RUN_WORD + WORDS]
        self._segments = [memoryview(segment).cast("Q") for segment in user_segments()]
        self._words[_VALID_WORD] = _REGISTERS | kvm.SYNC_EVENTS
        self.error = 0
        self.inside = False

    def enter(self, table: PageTable) -> int:
        """Enter with these page tables, and leave: the vector of the exception, IN_SYSCALL or KICKED."""
        self.inside = True  # before looking: what is reported from now on is not left to the next entry
        machine, memory = self._machine, self._memory
        if machine.stale.pending:
            machine.forget()
        if memory.in_use_end > machine.vm.covered:
            machine.cover(memory.in_use_end)
        window, words = self.window, self._words
        window[CR3] = table.root << FRAME_SHIFT
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
                    return IN_SYSCALL if self._is_in_syscall(table) else KICKED
                words[_DIRTY_WORD] = 0  # an exception would be lost with the registers written: let it get to its stub
            except OSError as error:
                raise HostError(f"KVM_RUN at {window[RIP]:#x}: {error.strerror}") from error
        self.inside = False
        reason = words[_REASON_WORD] & 0xFFFF_FFFF
        if reason == kvm.EXIT_MMIO:
            if window[RIP] == machine.left_at and not window[RFLAGS] & INTERRUPTS_ON:
                return IN_SYSCALL
            return self._stray()
        pc = window[RIP]
        vector = IN_SYSCALL if pc == HALTED_IN_SYSCALL else vector_of(pc)
        if vector < 0 or reason != kvm.EXIT_HLT:
            raise HostError(self._strange_exit(reason))
        if vector != IN_SYSCALL:
            vector = self._leave_stub(vector, table)
        window[_CS_WORDS], window[_SS_WORDS] = self._segments  # the program's again
        return vector

    def close(self) -> None:
        """The vCPU is about to be closed."""
        self.window.release()

    def _leave_stub(self, vector: int, table: PageTable) -> int:
        """The registers are what the exception pushed. The vector, or IN_SYSCALL where that is how SYSCALL comes."""
        window = self.window
        error, pc, flags, window[RSP] = _PUSHED.unpack_from(self._memory.bytes, self._pushed_at)
        if pc == SYSCALL_ENTRY == window[CR2] and vector == PAGE_FAULT and not flags & INTERRUPTS_ON:
            self._machine.open_entry()
            return IN_SYSCALL
        window[RIP], window[RFLAGS] = pc, flags
        self.error = error if vector in WITH_ERROR else 0
        page = self._machine.entry
        return vector if page is None else self._leave_entry(page, vector, table)

    def _leave_entry(self, page: EntryPage, vector: int, table: PageTable) -> int:
        """The same where SYSCALL enters code in ring 3: interrupts are off in it, and behind an answer."""
        window = self.window
        off = not window[RFLAGS] & INTERRUPTS_ON
        window[RFLAGS] |= INTERRUPTS_ON
        if window[RIP] & -FRAME_SIZE != SYSCALL_ENTRY:
            return vector
        if off and (page.rewind(window) or (window[RIP] == SYSCALL_ENTRY and self._follows_syscall(table))):
            return IN_SYSCALL
        return self._jumped()

    def _jumped(self) -> int:
        """The program has jumped into the kernel's half: as if it might not."""
        window = self.window
        window[CR2] = window[RIP]
        self.error = ERROR_USER | ERROR_FETCH
        return PAGE_FAULT

    def _stray(self) -> int:
        """The program touched the page by which calls leave, or jumped to where they do: as if it might not.

        Where it read, KVM is to be told what: nothing, and then the registers are as they were. Where it stored, RIP is
        behind the instruction.
        """
        window = self.window
        at_door = window[RIP] == self._machine.left_at
        window[RFLAGS] |= INTERRUPTS_ON
        if at_door:
            window[RIP] -= _STORE_SIZE
            return self._jumped()
        is_write = self._vcpu.run[_IS_WRITE]
        if not is_write:
            self._undo_load()
        window[CR2] = DOOR
        self.error = ERROR_USER | (ERROR_WRITE if is_write else 0)
        return PAGE_FAULT

    def _undo_load(self) -> None:
        """KVM finishes an instruction that loads from nowhere before it goes on; then all registers are put back."""
        vcpu, registers = self._vcpu, bytes(self.window)
        image = bytearray(XSAVE_SIZE)
        vcpu.read_xsave(image)
        self._words[_DIRTY_WORD] = 0
        vcpu.run[kvm.RUN_IMMEDIATE_EXIT] = 1
        try:
            while True:  # eight bytes at a time
                ioctl(vcpu.fd, kvm.RUN)
        except InterruptedError:
            pass
        finally:
            vcpu.run[kvm.RUN_IMMEDIATE_EXIT] = 0
        self.window[:] = memoryview(registers).cast("Q")
        vcpu.write_xsave(image)

    def _follows_syscall(self, table: PageTable) -> bool:
        """Whether RCX is what it is behind a SYSCALL instruction. (Its code may be such that it cannot read it.)"""
        return code_at(self._memory, table, self.window[RCX] - 2, 2) == _SYSCALL

    def _is_in_syscall(self, table: PageTable) -> bool:
        """Whether SYSCALL was executed and not carried out: a paravirtual CPU can be kicked at any instruction there.

        A signal's frame must not get these registers: the way back from it sets the interrupt flag.
        """
        window, page = self.window, self._machine.entry
        if page is None:
            return bool(window[RIP] == SYSCALL_ENTRY and not window[RFLAGS] & INTERRUPTS_ON)
        window[RFLAGS] |= INTERRUPTS_ON
        if window[RIP] == SYSCALL_ENTRY:
            return self._follows_syscall(table)
        return window[RIP] & -FRAME_SIZE == SYSCALL_ENTRY and page.rewind(window)

    def _is_delivered(self) -> bool:
        """Whether no exception is on its way. KVM does not report INT3 and INTO, but gives their number away."""
        event = self._words[_EVENTS_WORD]
        in_ring_3 = self.window[CS + 1] >> 32 & 3
        return bool(in_ring_3) and not event & _EXCEPTION_COMES and event & _NUMBER not in _INT3_OR_INTO

    def _strange_exit(self, reason: int) -> str:
        """What to say when the vCPU stopped in a way that no program can cause."""
        window = self.window
        what = kvm.EXIT_NAMES.get(reason, f"exit {reason}")
        if reason == kvm.EXIT_SHUTDOWN:
            what = "triple fault"
        detail = self._vcpu.run[kvm.RUN_DETAIL : kvm.RUN_DETAIL + 16].hex(" ", 8)
        return f"KVM stopped at {window[RIP]:#x} (rsp {window[RSP]:#x}, cr2 {window[CR2]:#x}): {what}, {detail}"
