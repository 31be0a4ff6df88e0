"""The code that SYSCALL enters where it stays in ring 3, and what it shares with the host.

A paravirtual KVM that emulates SYSCALL stays in ring 3 and goes on at LSTAR (see kvm_core.py). Once that was seen, the
page there becomes the programs' to execute, and some calls are answered in it: 6 us in the place of 30 to leave the
guest, and no Python. The code (entry.s) answers

- `read` of one descriptor, from a buffer that the kernel has filled (kvm_answers.py), and
- `rt_sigprocmask`, while no signal is pending that it could let in (`MaskKeeper`),

and leaves the guest for all other calls, in less time than a fault at LSTAR takes.

In the last slot of the page directory, beside what kvm_tables.py has there:

    +0x0f000  the code
    +0x10000  data page: what is on offer, what was taken
    +0x11000  buffer, where an address space has one

There is one data page, since one core runs one address space at a time (with more cores nothing is answered). It holds
nothing of a program's but its own when that runs: it is made anew for each address space that is entered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.lean import Protocol
from loadstone.machine.kvm_context import RAX, RCX, RDI, RDX, RIP, RSI, RSP
from loadstone.machine.kvm_tables import SYSCALL_ENTRY
from loadstone.machine.paging import USER_SLOTS
from loadstone.machine.physical import ENTRIES, FRAME_SIZE

if TYPE_CHECKING:
    from loadstone.machine.kvm_answers import ReadAnswers
    from loadstone.machine.kvm_tables import KernelHalf

# entry.s, assembled.
CODE = bytes.fromhex(
    """
    668179fe 0f050f85 b0010000 41f7c300 0100000f 85a20100 004883f8 0e0f84ca
    00000048 85c00f85 8f010000 3b3dce0f 00000f85 83010000 8b05ca0f 00002b05
    cc0f0000 4839c20f 876c0100 004885d2 0f846301 00004889 f04801d0 0f825701
    0000483b 05b70f00 000f874a 01000048 890db20f 00004889 35b30f00 0048893d
    b40f0000 488925b5 0f000041 81cb0002 00004889 f78b0575 0f000048 8d355e1f
    00004801 c64889d1 f3a4488b 0d770f00 00488b35 780f0000 488b3d79 0f000048
    8b054a0f 00004801 d0480305 480f0000 488d25a9 0f000041 539d488b 255f0f00
    00488905 280f0000 4889d0ff e1803d54 0f000000 0f84c100 00004983 fa080f85
    b7000000 483b3515 0f00000f 87aa0000 00483b15 080f0000 0f879d00 000083ff
    020f8794 00000048 890dfa0e 00004889 35fb0e00 0048893d fc0e0000 488925fd
    0e000041 81cb0002 0000488b 0dff0e00 004885f6 7411488b 06ffcf78 0f751048
    f7d04821 c8eb0848 89c8eb03 4809c848 2305e20e 00004885 d2740348 890a488b
    0da30e00 00488b35 a40e0000 488b3da5 0e000048 ff05c60e 0000488d 25df0e00
    00 41539d48 8b25950e 00004889 059e0e00 00b80000 0000ffe1 31c0f4f4
    """
)
LABELS = {
    "measure": 0x38,
    "saved": 0x8B,
    "done": 0xE8,
    "mask": 0xED,
    "mask_saved": 0x143,
    "mask_counted": 0x19A,
    "mask_done": 0x1B2,
    "refuse": 0x1B9,
    "leave": 0x1BB,
    "jumped": 0x1BC,
}

(
    MEASURE, SAVED, DONE, MASK, MASK_SAVED, MASK_COUNTED, MASK_DONE, REFUSE, LEAVE, JUMPED,
) = (SYSCALL_ENTRY + offset for offset in LABELS.values())  # fmt: skip
DATA_PAGE, BUFFER_PAGE = 16, 17  # numbers of pages

# Words of the data page. The host writes them; the code does TAKEN, BLOCKED, MASK_CALLS and the registers.
(
    DESCRIPTOR, END, TAKEN, ONE_READ, USER_END, OLD_RCX, OLD_RSI, OLD_RDI, OLD_RSP, MASK_OPEN, BLOCKED, BLOCKABLE,
    MASK_CALLS,
) = range(13)  # fmt: skip
BYTES_TAKEN = (1 << 32) - 1  # of TAKEN: bytes of the buffer that were read; above them, by how many reads
READ_SHIFT = 32

_USER_END = (USER_SLOTS << 39) - FRAME_SIZE
_SIGPROCMASK = 14
_UNBLOCKABLE = 1 << 8 | 1 << 18  # SIGKILL, SIGSTOP
_MOST_CALLS = 1 << 32  # between two exits; more is the program's invention


class MaskKeeper(Protocol):
    """Whoever knows which signals the program that runs blocks."""

    def mask(self) -> int:
        """The blocked signals; -1: a change of them is not to be answered in the guest."""

    def changed(self, mask: int, calls: int) -> None:
        """The program has made `calls` calls, after which these signals are blocked."""


class EntryPage:
    """The code and its data page, in the half of every address space of a machine.

    Attributes:
        words: the data page.
        reader: whose offer of something to read it has.
    """

    __slots__ = ("_fresh", "_mask", "reader", "words")

    def __init__(self, half: KernelHalf) -> None:
        first = half.open_entry(CODE, DATA_PAGE) * ENTRIES
        self.words = half.memory.words[first : first + ENTRIES]
        self._fresh = memoryview(bytearray(FRAME_SIZE)).cast("Q")
        self._fresh[ONE_READ] = 1 << READ_SHIFT
        self._fresh[USER_END] = _USER_END
        self._fresh[BLOCKABLE] = (1 << 64) - 1 & ~_UNBLOCKABLE
        self._mask = -1
        self.reader: ReadAnswers | None = None

    def enter(self, reader: ReadAnswers | None) -> None:
        """Another address space is about to run, which has this to read."""
        self.words[:] = self._fresh
        self.reader = reader
        if reader is not None:
            reader.load()

    def open_mask(self, keeper: MaskKeeper) -> None:
        """The program goes on: may it change its mask here?"""
        words = self.words
        self._mask = mask = keeper.mask()
        if mask >= 0:
            words[BLOCKED] = mask
        words[MASK_OPEN] = mask >= 0

    def settle_mask(self, keeper: MaskKeeper) -> None:
        """The program does not run: tell the keeper what it has done."""
        words = self.words
        calls = words[MASK_CALLS]
        if calls:
            words[MASK_CALLS] = 0
            if self._mask >= 0 and calls < _MOST_CALLS:
                keeper.changed(words[BLOCKED] & ~_UNBLOCKABLE, calls)

    def rewind(self, window: Any) -> bool:
        """The program was stopped in the code: have it be before the call or behind it.

        Whether it is in a system call now that has not been answered; else it has been, or there was none.
        """
        words, at = self.words, window[RIP]
        if DONE <= at < MASK:
            window[RAX], window[RIP] = window[RDX], window[RCX]
            return False
        if MASK_DONE <= at < REFUSE:
            window[RAX], window[RIP] = 0, window[RCX]
            return False
        if at == JUMPED:
            window[RIP] = SYSCALL_ENTRY
        if SAVED <= at < DONE or MASK_SAVED <= at < MASK_DONE:
            window[RCX], window[RSI], window[RDI], window[RSP] = words[OLD_RCX : OLD_RSP + 1].tolist()
        if MEASURE <= at < DONE or at == REFUSE:
            window[RAX] = 0
        elif MASK_SAVED <= at < MASK_DONE:
            window[RAX] = _SIGPROCMASK
            words[MASK_CALLS] = max(words[MASK_CALLS] - (at >= MASK_COUNTED), 0)
        return bool(SYSCALL_ENTRY < at <= LEAVE)


def assemble() -> tuple[bytes, dict[str, int]]:
    """entry.s as machine code, and where its parts begin, by the host's compiler; for developers and the test."""
    from loadstone.machine import assembling

    code, symbols = assembling.assemble("entry.s")
    return code, {name: symbols[name] for name in LABELS}


if __name__ == "__main__":
    from loadstone.machine.assembling import print_code

    print_code(*assemble())
