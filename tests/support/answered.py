"""System calls that a core answers by itself: how many there are, and that nobody could tell."""

from __future__ import annotations

from collections.abc import Callable

from loadstone import Machine
from loadstone.linux.answered_calls import AnsweredCalls
from loadstone.linux.answered_signals import AnsweredSignals
from loadstone.linux.personality import Linux

PROGRAMS = 5
_WORDS = ["/bin/bash", "-c", f"for ((i = 0; i < {PROGRAMS}; i++)); do /bin/true; done"]


def count(engine: str, part: Callable[[Linux], AnsweredCalls | AnsweredSignals | None]) -> tuple[int, dict[str, int]]:
    """How many calls `part` of the personality had the core answer while a shell started PROGRAMS, and all by name.

    While somebody listens to system calls it is none, and there are as many calls of each name.
    """
    found = []
    for watched in (False, True):
        with Machine(engine=engine) as machine:
            if watched:
                machine.events.subscribe(lambda _: None, ("syscall",))
            assert machine.spawn(_WORDS[0], _WORDS, {}).run().code == 0
            answered = part(machine.linux)
            assert answered is not None
            found.append((answered.calls, machine.linux.calls.counts()))
    (calls, counts), (none, watched_counts) = found
    assert none == 0
    assert counts == watched_counts
    return calls, counts
