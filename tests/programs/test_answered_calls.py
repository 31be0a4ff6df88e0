"""Calls whose answers are known beforehand: the program sees what they give natively, and every call is counted."""

from __future__ import annotations

import os

import pytest

from loadstone import Machine
from loadstone.machine.engines import TESTED_KVM
from machine.engines import maker
from support.compilers import Compiler
from support.run import same

_WORDS = ["/bin/bash", "-c", "for ((i = 0; i < 5; i++)); do /bin/true; done"]


def test_whatever_comes_between_calls(compiled: Compiler) -> None:
    """Moved breaks, closed and shared descriptors, who watches files, children, threads, exec; every register."""
    maker("kvm")
    same(compiled("foreseen", "pie", "-mno-red-zone", "-lpthread"), options=["--engine", "kvm"])


def test_calls_are_answered_and_all_are_counted() -> None:
    maker("kvm")
    if not os.path.isdir(TESTED_KVM):
        pytest.skip("SYSCALL does not arrive in ring 3 on this host's KVM")
    found = []
    for watched in (False, True):
        with Machine(engine="kvm") as machine:
            if watched:
                machine.events.subscribe(lambda _: None, ("syscall",))
            assert machine.spawn(_WORDS[0], _WORDS, {}).run().code == 0
            answered = machine.linux.answered_calls
            assert answered is not None
            found.append((answered.calls, machine.linux.calls.counts()))
    (answered_calls, counts), (none, calls) = found
    assert none == 0  # somebody listened to system calls
    assert counts == calls
    assert answered_calls >= 5 * 7
