"""Signal masks and actions that the KVM core changes in the guest: the program sees what the calls give natively."""

from __future__ import annotations

import os

import pytest

from loadstone import Machine
from loadstone.machine.engines import TESTED_KVM
from machine.engines import maker
from support.compilers import Compiler
from support.run import same


def test_whatever_comes_between_changes(compiled: Compiler) -> None:
    """Bad addresses, pending signals, handlers, threads, a child, exec."""
    maker("kvm")
    same(compiled("masks", "static", "-lpthread"), options=["--engine", "kvm"])


def test_whatever_becomes_of_actions(compiled: Compiler) -> None:
    """Bad arguments, every flag, handlers that are reset, threads, children that copy and clear, exec."""
    maker("kvm")
    same(compiled("actions", "static", "-lpthread"), options=["--engine", "kvm"])


def test_most_changes_are_answered_and_all_are_counted() -> None:
    maker("kvm")
    if not os.path.isdir(TESTED_KVM):
        pytest.skip("SYSCALL does not arrive in ring 3 on this host's KVM")
    words = ["/bin/bash", "-c", "for ((i = 0; i < 5; i++)); do /bin/true; done"]
    found = []
    for watched in (False, True):
        with Machine(engine="kvm") as machine:
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
