"""Signal masks and actions that a core changes by itself: the program sees what the calls give natively."""

from __future__ import annotations

import os

import pytest

from loadstone import Machine
from loadstone.machine.engines import TESTED_KVM
from machine.engines import maker
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
    maker(engine)
    if engine == "kvm" and not os.path.isdir(TESTED_KVM):
        pytest.skip("SYSCALL does not arrive in ring 3 on this host's KVM")
    words = ["/bin/bash", "-c", "for ((i = 0; i < 5; i++)); do /bin/true; done"]
    found = []
    for watched in (False, True):
        with Machine(engine=engine) as machine:
            if watched:
                machine.events.subscribe(lambda _: None, ("syscall",))
            assert machine.spawn(words[0], words, {}).run().code == 0
            signals = machine.linux.answered_signals
            assert signals is not None
            found.append((signals.calls, machine.linux.calls.counts()))
    (answered, counts), (none, calls) = found
    assert none == 0  # somebody listened to system calls
    assert counts == calls
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
