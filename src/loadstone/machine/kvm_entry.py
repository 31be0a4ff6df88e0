"""The code that SYSCALL enters where it stays in ring 3, and what it shares with the host.

A paravirtual KVM that emulates SYSCALL stays in ring 3 and goes on at LSTAR (see kvm_core.py). Once that was seen, the
page there becomes the programs' to execute, and some calls are answered in it: 6 us in the place of 30 to leave the
guest, and no Python. The code (entry.s) answers

- `read` of one descriptor, from a buffer that the kernel has filled (kvm_answers.py), and
- `rt_sigprocmask` and `rt_sigaction`, while no signal is pending that they could let in or forget (`SignalsKeeper`),
- calls whose answer the kernel knows beforehand (kvm_foreseen.py),

and leaves the guest for all other calls by a store to the door, in less time than any exception takes.

In the last slot of the page directory, beside what kvm_tables.py has there:

    +0x0f000  the code
    +0x10000  data page: what is on offer, what was taken
    +0x11000  buffer, where an address space has one
    +0x1ff000 door: nothing is behind it, so a store there is the host's to carry out

There is one data page, since one core runs one address space at a time (with more cores nothing is answered). It holds
nothing of a program's but its own when that runs: it is made anew for each address space that is entered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.machine import paging
from loadstone.machine.kvm_context import R11, RAX, RCX, RDI, RDX, RFLAGS, RIP, RSI, RSP, SYSRET_FLAGS
from loadstone.machine.kvm_foreseen import ForeseenCalls
from loadstone.machine.kvm_tables import SYSCALL_ENTRY
from loadstone.machine.physical import ENTRIES, FRAME_SIZE
from loadstone.machine.signals_keeper import SIGACTION, SIGNALS, SIGPROCMASK, Actions, SignalsKeeper

if TYPE_CHECKING:
    from loadstone.machine.kvm_answers import ReadAnswers
    from loadstone.machine.kvm_tables import KernelHalf

# entry.s, assembled.
CODE = bytes.fromhex(
    """
    668179fe 0f050f85 4b040000 41f7c300 0100000f 85370400 004883f8 0e0f84d4
    00000048 83f80d0f 84960100 004885c0 0f85e502 00003b3d c40f0000 0f850e04
    00008b05 c00f0000 2b05c20f 00004839 c20f87f7 03000048 85d20f84 ee030000
    4889f048 01d00f82 e2030000 483b05ad 0f00000f 87d50300 0048890d a80f0000
    488935a9 0f000048 893daa0f 00004889 25ab0f00 004181cb 00020000 4889f78b
    056b0f00 00488d35 541f0000 4801c648 89d1f3a4 488b0d6d 0f000048 8b356e0f
    0000488b 3d6f0f00 00488b05 400f0000 4801d048 03053e0f 0000488d 259f0f00
    0041539d 488b2555 0f000048 89051e0f 00004889 d0ffe180 3d4a0f00 00000f84
    4c030000 4983fa08 0f854203 0000483b 350b0f00 000f8735 03000048 3b15fe0e
    00000f87 28030000 83ff020f 871f0300 0048890d f00e0000 488935f1 0e000048
    893df20e 00004889 25f30e00 004181cb 00020000 488b0df5 0e000048 85f67411
    488b06ff cf780f75 1048f7d0 4821c8eb 084889c8 eb034809 c8482305 d80e0000
    4885d274 0348890a 488b0d99 0e000048 8b359a0e 0000488b 3d9b0e00 0048ff05
    bc0e0000 488d25d5 0e000041 539d488b 258b0e00 00488905 940e0000 b8000000
    00ffe180 3d7e0e00 00000f84 80020000 4983fa08 0f857602 0000483b 353f0e00
    000f8769 02000048 3b15320e 00000f87 5c020000 83ff010f 82530200 0083ff40
    0f874a02 000083ff 090f8441 02000083 ff130f84 38020000 48890d09 0e000048
    89350a0e 00004889 3d0b0e00 00488925 0c0e0000 4181cb00 02000048 85f6743a
    488b0648 8905360e 0000488b 4608b907 0800dc48 21c84889 052b0e00 00488b46
    10488905 280e0000 488b4618 482305e5 0d000048 89051e0e 00008d4f ff89cfc1
    e705488d 05771100 004801c7 4885d274 1e488b07 48890248 8b470848 89420848
    8b471048 89421048 8b471848 89421848 ff05b20d 00004885 f6743348 8b05be0d
    00004889 07488b05 bc0d0000 48894708 488b05b9 0d000048 89471048 8b05b60d
    00004889 4718480f ab0d820d 0000488b 0d330d00 00488b35 340d0000 488b3d35
    0d000048 8d25760d 00004153 9d488b25 2c0d0000 b8000000 00ffe148 3d500100
    000f8329 01000048 8905720d 00004c89 1d730d00 0048890d ec0c0000 488935ed
    0c000048 893dee0c 00004889 25ef0c00 00488d0d a8180000 0fb63c01 85ff0f84
    cc000000 c6040100 c1e70648 8d0d0e0d 00004801 cf488b0d bc0c0000 48230f48
    3b4f080f 85a70000 004889f1 48234f10 483b4f18 0f859600 00003d9e 00000075
    12483b35 780c0000 0f838200 0000f348 0faed68b 0dff0c00 0083f908 737289c8
    c1e1054c 8d1df60e 00004c01 d94c8b1d cc0c0000 4c89194c 8b1d5a0c 00004c89
    59084889 71104c8b 5f204c89 1dbf0c00 00ffc048 8b0d2e0c 0000488b 3d370c00
    004c8b1d a00c0000 4181cb00 02000048 8d256a0c 00004153 9d488b25 200c0000
    48890591 0c000048 8b05820c 0000ffe1 488b0569 0c000048 8b0dea0b 0000488b
    3df30b00 004c8b1d 5c0c0000 eb0231c0 8805aafb 1e00f4f4
    """
)
LABELS = {
    "measure": 0x42,
    "saved": 0x95,
    "done": 0xF2,
    "mask": 0xF7,
    "mask_saved": 0x14D,
    "mask_counted": 0x1A4,
    "mask_done": 0x1BC,
    "action": 0x1C3,
    "action_saved": 0x234,
    "action_counted": 0x2B6,
    "action_done": 0x2EE,
    "foreseen": 0x31B,
    "foreseen_saved": 0x351,
    "foreseen_done": 0x427,
    "unforeseen": 0x430,
    "refuse": 0x44E,
    "leave": 0x450,
    "left": 0x456,
    "jumped": 0x457,
}

(
    MEASURE, SAVED, DONE, MASK, MASK_SAVED, MASK_COUNTED, MASK_DONE, ACTION, ACTION_SAVED, ACTION_COUNTED, ACTION_DONE,
    FORESEEN, FORESEEN_SAVED, FORESEEN_DONE, UNFORESEEN, REFUSE, LEAVE, LEFT, JUMPED,
) = (SYSCALL_ENTRY + offset for offset in LABELS.values())  # fmt: skip
DATA_PAGE, BUFFER_PAGE = 16, 17  # numbers of pages

# Words of the data page. The host writes them; the code those that say what it did, and its own copies of registers.
(
    DESCRIPTOR, END, TAKEN, ONE_READ, USER_END, OLD_RCX, OLD_RSI, OLD_RDI, OLD_RSP, SIGNALS_OPEN, BLOCKED, BLOCKABLE,
    MASK_CALLS, ACTION_CALLS, ACTIONS_CHANGED,
) = range(15)  # fmt: skip
OLD_RAX, OLD_R11, ANSWER = 20, 21, 22
ACTIONS = 128  # the first of four words a signal: handler, flags, restorer, mask
BYTES_TAKEN = (1 << 32) - 1  # of TAKEN: bytes of the buffer that were read; above them, by how many reads
READ_SHIFT = 32

_UNBLOCKABLE = 1 << 8 | 1 << 18  # SIGKILL, SIGSTOP
_MOST_CALLS = 1 << 32  # between two exits; more is the program's invention


class EntryPage:
    """The code and its data page, in the half of every address space of a machine.

    Attributes:
        words: the data page.
        reader: whose offer of something to read it has.
        foreseen: the calls whose answers it has.
    """

    __slots__ = ("_actions", "_fresh", "_open", "_version", "foreseen", "reader", "words")

    def __init__(self, half: KernelHalf) -> None:
        first = half.open_entry(CODE, DATA_PAGE) * ENTRIES
        self.words = half.memory.words[first : first + ENTRIES]
        self._fresh = memoryview(bytearray(FRAME_SIZE)).cast("Q")
        self._fresh[ONE_READ] = 1 << READ_SHIFT
        self._fresh[USER_END] = paging.USER_END - FRAME_SIZE  # no mapping ends above it
        self._fresh[BLOCKABLE] = (1 << 64) - 1 & ~_UNBLOCKABLE
        self._open = False
        self._actions: Actions | None = None  # whose table it has, and in which version
        self._version = -1
        self.reader: ReadAnswers | None = None
        self.foreseen = ForeseenCalls(self.words, self._fresh)

    def enter(self, reader: ReadAnswers | None) -> None:
        """Another address space is about to run, which has this to read."""
        self.words[:] = self._fresh
        self._actions = None
        self.reader = reader
        if reader is not None:
            reader.load()

    def open_signals(self, keeper: SignalsKeeper) -> None:
        """The program goes on: may it change its mask and actions here?"""
        words, state = self.words, keeper.state()
        self._open = state is not None
        words[SIGNALS_OPEN] = self._open
        if state is not None:
            words[BLOCKED], actions = state
            if actions is not self._actions or actions.version != self._version:
                words[ACTIONS : ACTIONS + 4 * SIGNALS] = actions.table
                self._actions, self._version = actions, actions.version

    def settle_signals(self, keeper: SignalsKeeper) -> bool:
        """The program does not run: tell the keeper what it has done; whether that is anything. Nothing is open now."""
        words = self.words
        masks, actions, changed = words[MASK_CALLS], words[ACTION_CALLS], words[ACTIONS_CHANGED]
        words[SIGNALS_OPEN] = 0
        if not masks and not actions:
            return False
        words[MASK_CALLS] = words[ACTION_CALLS] = words[ACTIONS_CHANGED] = 0
        if not self._open or masks + actions >= _MOST_CALLS:
            return False
        keeper.answered(words[BLOCKED] & ~_UNBLOCKABLE, masks, actions)
        while changed:
            index = changed.bit_length() - 1
            changed ^= 1 << index
            first = ACTIONS + 4 * index
            keeper.set_action(index + 1, *words[first : first + 4].tolist())
        if self._actions is not None:
            self._version = self._actions.version  # which the table here is already
        return True

    def rewind(self, window: Any) -> bool:
        """The program was stopped in the code: have it be before the call or behind it.

        Whether it is in a system call now that has not been answered; else it has been, or there was none.
        """
        at = window[RIP]
        if self._go_on(window, at):
            return False
        self._go_back(window, at)
        return bool(SYSCALL_ENTRY < at <= LEAVE)

    def close(self) -> None:
        """The machine is about to be closed."""
        self.foreseen.close()
        self.words.release()

    def _go_on(self, window: Any, at: int) -> bool:
        """Whether the call is answered: then the program is behind it."""
        if DONE <= at < MASK:
            window[RAX] = window[RDX]
        elif MASK_DONE <= at < ACTION:
            window[RAX] = 0
        elif ACTION_DONE <= at < FORESEEN:
            self._restore(window)
            window[RAX], window[RFLAGS] = 0, window[R11] & SYSRET_FLAGS | 2
        elif FORESEEN_DONE <= at < UNFORESEEN:
            window[RAX] = self.words[ANSWER]
        else:
            return False
        window[RIP] = window[RCX]
        return True

    def _go_back(self, window: Any, at: int) -> None:
        """Have the registers be those with which the call was made, and it not be counted."""
        words = self.words
        if at == JUMPED:
            window[RIP] = SYSCALL_ENTRY
        if SAVED <= at < DONE or MASK_SAVED <= at < MASK_DONE or ACTION_SAVED <= at < ACTION_DONE:
            self._restore(window)
        elif FORESEEN_SAVED <= at < REFUSE:
            self._restore(window)
            window[RAX], window[R11] = words[OLD_RAX], words[OLD_R11]
        if MEASURE <= at < DONE or at == REFUSE:
            window[RAX] = 0
        elif MASK_SAVED <= at < MASK_DONE:
            window[RAX] = SIGPROCMASK
            words[MASK_CALLS] = max(words[MASK_CALLS] - (at >= MASK_COUNTED), 0)
        elif ACTION_SAVED <= at < ACTION_DONE:
            window[RAX] = SIGACTION
            if at >= ACTION_COUNTED:
                words[ACTION_CALLS] = max(words[ACTION_CALLS] - 1, 0)
                self._version = -1

    def _restore(self, window: Any) -> None:
        window[RCX], window[RSI], window[RDI], window[RSP] = self.words[OLD_RCX : OLD_RSP + 1].tolist()
