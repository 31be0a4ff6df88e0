"""A kernel that knows of signals no more than a core asks, for cores that change masks and actions by themselves."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from loadstone.linux.signal.signals import SA_KNOWN

BLOCK, UNBLOCK, SET = range(3)
SIGKILL_AND_SIGSTOP = 1 << 8 | 1 << 18
GIVEN = (0x401234, (1 << 64) - 1, 0x405678, (1 << 64) - 1)
KEPT = [0x401234, SA_KNOWN, 0x405678, (1 << 64) - 1 & ~SIGKILL_AND_SIGSTOP]
"""What becomes of the action GIVEN."""


class Signals:
    """A keeper of a mask and of actions: what they are, whether they may be changed, by how many calls they were."""

    def __init__(self, mask: int) -> None:
        self.open = True
        self.mask = mask
        self.mask_calls = self.action_calls = self.version = 0
        self.table = memoryview(bytearray(64 * 32)).cast("Q")

    def state(self) -> tuple[int, Signals] | None:
        return (self.mask, self) if self.open else None

    def set_action(self, number: int, *words: int) -> None:
        self.set(number, words)

    def answered(self, mask: int, mask_calls: int, action_calls: int) -> None:
        self.mask = mask
        self.mask_calls += mask_calls
        self.action_calls += action_calls

    def set(self, number: int, words: Sequence[int]) -> None:
        """As the kernel would."""
        self.table[4 * number - 4 : 4 * number] = memoryview(struct.pack("4Q", *words)).cast("Q")
        self.version += 1

    def action(self, number: int) -> list[int]:
        return self.table[4 * number - 4 : 4 * number].tolist()
