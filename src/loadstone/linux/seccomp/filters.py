"""The filters of a thread: a chain from the newest to the oldest, whose ends other threads share (kernel/seccomp.c).

A filter never changes once it is attached, and a child begins with its parent's, so together they are a tree that
leads to its root.
"""

from __future__ import annotations

from errno import EBUSY, ENOMEM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.seccomp import bpf
from loadstone.vfs.flags import POLLHUP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.linux.seccomp.notices import Listener

# include/uapi/linux/seccomp.h
DISABLED, STRICT, FILTER = range(3)  # modes
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x8000_0000, 0, 0x0003_0000, 0x0005_0000
USER_NOTIF, TRACE, LOG, ALLOW = 0x7FC0_0000, 0x7FF0_0000, 0x7FFC_0000, 0x7FFF_0000
ACTIONS = (KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, USER_NOTIF, TRACE, LOG, ALLOW)
ACTION, DATA = 0xFFFF_0000, 0xFFFF
AUDIT_ARCH_X86_64 = 0xC000_003E

_MOST_IN_CHAIN, _FOR_EACH = (1 << 18) // bpf.INSTRUCTION.size, 4  # MAX_INSNS_PER_PATH, and what a filter counts more
_REMEMBERED = 512  # numbers of calls whose verdict is kept: all that there are
_SECCOMP_DATA = Struct("<IIQ6Q")  # number, architecture, instruction pointer, arguments


class Verdict:
    """What a chain of filters says of a call: `action`, `data` (16 bits), and the filter that said it.

    `filter` is None when all of them allow it.
    """

    __slots__ = ("action", "data", "filter")

    def __init__(self, result: int = ALLOW, found: Filter | None = None) -> None:
        self.action, self.data, self.filter = result & ACTION, result & DATA, found


class Filter:
    """One filter, and those that were attached before it.

    Attributes:
        program: what decides, in BPF. older: the one before it, or None.
        logs, waits_killable: SECCOMP_FILTER_FLAG_LOG and …_WAIT_KILLABLE_RECV.
        listener: who is asked when it says USER_NOTIF; None: nobody, or not any more.
        users: threads that have it, and filters that lead to it.
    """

    __slots__ = ("_known", "_length", "listener", "logs", "older", "program", "users", "waits_killable")

    def __init__(self, program: bytes, *, logs: bool = False, waits_killable: bool = False) -> None:
        self.program = program
        self.older: Filter | None = None
        self.logs = logs
        self.waits_killable = waits_killable
        self.listener: Listener | None = None
        self.users = 1
        self._length = bpf.converted_length(program)
        self._known: dict[int, Verdict | None] = {}  # by number; None: it depends on more

    def chain(self) -> Iterator[Filter]:
        """It and all older ones."""
        link: Filter | None = self
        while link is not None:
            yield link
            link = link.older

    def check_before(self, older: Filter | None) -> None:
        """Whether it may be attached where `older` is the newest so far.

        Raises LinuxError: EBUSY where two would ask a listener, ENOMEM for too many instructions.
        """
        before = list(older.chain()) if older is not None else []
        if self.listener is not None and any(other.listener is not None for other in before):
            raise LinuxError(EBUSY, "another filter of the thread has a listener")
        if self._length + sum(other._length + _FOR_EACH for other in before) > _MOST_IN_CHAIN:
            raise LinuxError(ENOMEM, "too many instructions in the filters of a thread")

    def hold(self) -> None:
        """Another thread has it."""
        self.users += 1

    def leave(self) -> None:
        """A thread has ended, or has another one now: who listens for what nobody uses hears that."""
        for link in self.chain():
            link.users -= 1
            if link.users:
                return
            if link.listener is not None:
                link.listener.tell(POLLHUP)

    def judge(self, registers: tuple[int, ...], pc: int) -> Verdict:
        """What the chain says of a call: number and arguments, and the address behind it (seccomp_run_filters).

        What it says from the number alone is kept, as in the kernel's bitmap of calls that are always allowed.
        """
        number = registers[0] & 0xFFFF_FFFF
        if number < _REMEMBERED:
            if number not in self._known:
                self._known[number] = self._judge_number(number)
            known = self._known[number]
            if known is not None:
                return known
        return self._run(seccomp_data(registers, pc).cast("I"))

    def _judge_number(self, number: int) -> Verdict | None:
        try:
            return self._run((number, AUDIT_ARCH_X86_64))
        except IndexError:
            return None

    def _run(self, data: tuple[int, ...] | memoryview) -> Verdict:
        """The first of those that say the most severe thing; actions are compared as signed numbers."""
        worst = Verdict()
        for link in self.chain():
            found = Verdict(bpf.run(link.program, data), link)
            if found.action ^ KILL_PROCESS < worst.action ^ KILL_PROCESS:
                worst = found
        return worst


def seccomp_data(registers: tuple[int, ...], pc: int) -> memoryview:
    """`struct seccomp_data` of a call."""
    return memoryview(_SECCOMP_DATA.pack(registers[0] & 0xFFFF_FFFF, AUDIT_ARCH_X86_64, pc, *registers[1:]))
