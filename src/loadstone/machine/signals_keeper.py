"""What a core that answers rt_sigprocmask(2) and rt_sigaction(2) by itself asks of the kernel.

A core answers them where they are nothing but changes of numbers. It is told the numbers before the program goes on,
and tells what they are then before anything else looks at them.
"""

from __future__ import annotations

from loadstone.lean import Protocol

SIGACTION, SIGPROCMASK = CALLS = 13, 14
"""The calls' numbers: who makes one of them makes more of them soon."""
SIGNALS = 64


class Actions(Protocol):
    """What a process does with its signals.

    Attributes:
        table: four 64-bit words for each signal, from 1 on: handler, flags, restorer, mask.
        version: another one after each change that the kernel made.
    """

    table: memoryview
    version: int


class SignalsKeeper(Protocol):
    """Whoever knows what the program that runs has to do with signals."""

    def state(self) -> tuple[int, Actions] | None:
        """The blocked signals and the actions; None: changes of them are for the kernel."""

    def set_action(self, number: int, handler: int, flags: int, restorer: int, mask: int) -> None:
        """The program has made a change of its actions that is not in the table: the core has a copy of that."""

    def answered(self, mask: int, mask_calls: int, action_calls: int) -> None:
        """The program has made so many calls of each kind, after which it blocks `mask`."""
