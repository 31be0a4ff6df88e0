"""The debug registers of a traced thread: hardware breakpoints and watchpoints (arch/x86/kernel/hw_breakpoint.c).

No core is asked for them: a thread with one goes instruction by instruction, and what is watched is compared after
each. So a write that leaves the value as it was is not seen, and watchpoints on reading are refused.
"""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.memory.peek import peek

if TYPE_CHECKING:
    from loadstone.kernel.process import Task

CONTROL, STATUS = 7, 6  # DR7 and DR6
_EXECUTE, _WRITE = 0, 1
_LENGTHS = (1, 2, 8, 4)
_SLOTS = range(4)


class DebugRegisters:
    """DR0 to DR7 of one thread. `armed`: DR7 enables one of the four."""

    __slots__ = ("_seen", "words")

    def __init__(self) -> None:
        self.words = [0] * 8
        self._seen: dict[int, bytes] = {}

    @property
    def armed(self) -> bool:
        """Whether anything is watched."""
        return bool(self.words[CONTROL] & 0xFF)

    def put(self, number: int, value: int, task_size: int) -> None:
        """Set one. Raises LinuxError(EINVAL) for what cannot be: other addresses, watching reads and ports."""
        if number in _SLOTS and value >= task_size:
            raise LinuxError(EINVAL, f"{value:#x} is not an address of the program")
        if number == CONTROL:
            for slot in _SLOTS:
                if value >> 2 * slot & 3 and value >> 16 + 4 * slot & 3 not in (_EXECUTE, _WRITE):
                    raise LinuxError(EINVAL, "only execution and writing can be watched")
        self.words[number] = value

    def look(self, task: Task) -> None:
        """Remember what is there now, before the thread goes on."""
        self._seen = {slot: self._value(task, slot) for slot in self._enabled(_WRITE)}

    def hits(self, task: Task) -> bool:
        """Whether the last instruction changed something, or the next is one to stop at; DR6 says which."""
        found = {slot for slot in self._enabled(_WRITE) if self._value(task, slot) != self._seen.get(slot)}
        found |= {slot for slot in self._enabled(_EXECUTE) if self.words[slot] == task.context.pc}
        self.words[STATUS] = self.words[STATUS] & ~0xF | sum(1 << slot for slot in found)
        return bool(found)

    def _enabled(self, kind: int) -> list[int]:
        control = self.words[CONTROL]
        return [slot for slot in _SLOTS if control >> 2 * slot & 3 and control >> 16 + 4 * slot & 3 == kind]

    def _value(self, task: Task, slot: int) -> bytes:
        length = _LENGTHS[self.words[CONTROL] >> 18 + 4 * slot & 3]
        try:
            return peek(task.process.space, self.words[slot], length)
        except LinuxError:
            return b""
