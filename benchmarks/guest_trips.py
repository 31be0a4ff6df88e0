"""What it costs on this host's KVM to leave the guest, and to come back within it: `python -m benchmarks.guest_trips`.

Each line is the least of many trips, made by machine code in ring 3 with nothing else in the machine. The last is why
reads are answered in the guest (machine/kvm_answers.py), the third why ring 0 answers nothing, and the fourth a good
part of what the start of a program costs, since glibc executes CPUID dozens of times.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from time import perf_counter_ns

from loadstone.errors import HostError
from loadstone.machine.core import INTERRUPTED, SLICE_END, SYSTEM_CALL
from loadstone.machine.kvm_core import KvmCore
from loadstone.machine.paging import FRAME_MASK, PageTable, permissions
from loadstone.machine.physical import ANONYMOUS, ENTRIES, FRAME_SIZE, PhysicalMemory

CODE, DATA = 0x10000, 0x20000
LOOPS, TRIES, PART = 200, 25, 64
READ = b"\x31\xc0\x0f\x05"  # xor eax, eax; syscall
CALL = b"\xb8\x63\0\0\0\x0f\x05"  # mov eax, 99; syscall
INT3, IRETQ, CPUID = b"\xcc", b"\x48\xcf", b"\x53\x31\xc0\x0f\xa2\x5b"  # push rbx; xor eax, eax; cpuid; pop rbx
BREAKPOINT_STUB = 0x100 + 4 * 3


class Offers:
    """The keeper of what is read: it holds."""

    def taken(self, reads: int, length: int) -> None:
        """Nobody has to know."""

    def holds(self) -> bool:
        return True

    def more(self, buffer: memoryview, count: int) -> int:
        """There is no more."""
        return 0

    def withdrawn(self) -> None:
        """Nobody has to know that either."""


class Guest:
    """A page of code, a page of data, and a core."""

    def __init__(self) -> None:
        self.memory = PhysicalMemory(64 << 20)
        self.core = KvmCore(self.memory, lambda *_: "refused")
        self.page_table = PageTable(self.memory)
        self.context = self.core.new_context()
        self.code = self._map(CODE, 5)
        self._map(DATA, 3)

    def _map(self, address: int, prot: int) -> int:
        frame = self.memory.allocate(ANONYMOUS)
        self.memory.words[self.page_table.slot(address)] = frame << 12 | permissions(prot)
        return frame

    def write(self, frame: int, at: int, code: bytes) -> None:
        """Put code into a frame, wherever the CPU has it from."""
        self.memory.page(frame)[at : at + len(code)] = code
        self.core.stale.add_all()

    def stubs(self) -> int:
        """The frame of ring 0's stubs."""
        return (self.memory.words[self.core.machine.half.table * ENTRIES] & FRAME_MASK) >> 12

    def run(self) -> bool:
        """From the first byte of the code to a trap; whether that is a system call."""
        for register, value in {"rip": CODE, "rsp": DATA + FRAME_SIZE, "rdi": 5, "rsi": DATA, "rdx": PART}.items():
            self.context.write(register, value)
        while True:
            trap = self.core.run(self.context, self, 1 << 40)
            if trap.kind not in (SLICE_END, INTERRUPTED):
                return trap.kind == SYSTEM_CALL

    def leaving(self, code: bytes) -> float:
        """Microseconds of Loadstone's own way out and in, once for each run of the code."""
        self.write(self.code, 0, code)
        return least(self.run, LOOPS * TRIES // 10)

    def within(self, code: bytes, prepare: Callable[[], None] = lambda: None) -> float:
        """Microseconds for each of LOOPS rounds of the code in one run."""
        loop = b"\x48\xff\xcb"  # dec rbx; jnz
        body = code + loop + b"\x0f\x85" + struct.pack("<i", -(len(code) + len(loop) + 6))
        self.write(self.code, 0, b"\xbb" + struct.pack("<I", LOOPS) + body + CALL)
        best = 1e9
        for _ in range(TRIES):
            prepare()
            took = least(self.run, 1)
            if not self.context.read("rbx"):  # else a tick has ended it early
                best = min(best, took)
        return best / LOOPS


def least(call: Callable[[], object], times: int) -> float:
    """The shortest of some calls, in microseconds."""
    best = 1 << 60
    for _ in range(times):
        started = perf_counter_ns()
        call()
        best = min(best, perf_counter_ns() - started)
    return best / 1000


def main() -> None:
    """Measure and print."""
    try:
        guest = Guest()
    except HostError as error:
        sys.exit(f"guest_trips: {error.args[0]}")
    print(f"leaving by a page fault            {guest.core.exit_cost(2000) / 1000:6.1f} us")
    print(f"leaving by SYSCALL                 {guest.leaving(CALL):6.1f} us")
    guest.write(guest.stubs(), BREAKPOINT_STUB, IRETQ)
    print(f"INT3 answered by IRETQ in ring 0   {guest.within(INT3):6.1f} us")
    print(f"CPUID                              {guest.within(CPUID):6.1f} us")

    answers = guest.core.answers_for(guest)
    if answers is None:
        print("SYSCALL answered in ring 3              - (it does not arrive there)")
    else:
        offer = Offers()
        trip = guest.within(READ, lambda: answers.offer(5, LOOPS * PART, offer))
        print(f"SYSCALL answered in ring 3         {trip:6.1f} us")


if __name__ == "__main__":
    main()
