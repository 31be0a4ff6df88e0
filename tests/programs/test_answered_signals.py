"""Signal masks and actions that a core changes by itself: the program sees what the calls give natively."""

from __future__ import annotations

import pytest

from loadstone import Machine
from machine.engines import answering, maker
from support.answered import count
from support.compilers import Compiler
from support.run import same

both = pytest.mark.parametrize("engine", ["unicorn", "kvm"])


@both
def test_whatever_comes_between_changes(compiled: Compiler, engine: str) -> None:
    """Bad addresses, pending signals, handlers, threads, a child, exec."""
    maker(engine)
    same(compiled("masks", "static", "-lpthread"), options=["--engine", engine])


@both
def test_whatever_becomes_of_actions(compiled: Compiler, engine: str) -> None:
    """Bad arguments, every flag, handlers that are reset, threads, children that copy and clear, exec."""
    maker(engine)
    same(compiled("actions", "static", "-lpthread"), options=["--engine", engine])


@both
def test_most_changes_are_answered_and_all_are_counted(engine: str) -> None:
    answering(engine)
    answered, counts = count(engine, lambda linux: linux.answered_signals)
    assert answered > 0.7 * (counts["rt_sigprocmask"] + counts["rt_sigaction"])


def test_the_clock_does_not_tell_who_answers(compiled: Compiler) -> None:
    """In a deterministic run time passes as if the kernel answered every call, as it does when somebody listens."""
    maker("unicorn")
    words = [compiled("masks", "static", "-lpthread")]
    ends = []
    for watched in (False, True):
        with Machine(engine="unicorn", deterministic=True) as machine:
            if watched:
                machine.events.subscribe(lambda _: None, ("syscall",))
            machine.spawn(words[0], words, {}).run()
            assert machine.linux.answered_signals is not None
            assert (machine.linux.answered_signals.calls == 0) is watched
            ends.append((machine.kernel.scheduler.time_ns(), machine.kernel.cores[0].retired))
    assert ends[0] == ends[1]
