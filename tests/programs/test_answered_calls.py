"""Calls whose answers are known beforehand: the program sees what they give natively, and every call is counted."""

from __future__ import annotations

from machine.engines import answering, maker
from support.answered import PROGRAMS, count
from support.compilers import Compiler
from support.run import same


def test_whatever_comes_between_calls(compiled: Compiler) -> None:
    """Moved breaks, closed and shared descriptors, who watches files, children, threads, exec; every register."""
    maker("kvm")
    same(compiled("foreseen", "pie", "-mno-red-zone", "-lpthread"), options=["--engine", "kvm"])


def test_calls_are_answered_and_all_are_counted() -> None:
    answering("kvm")
    answered, _ = count("kvm", lambda linux: linux.answered_calls)
    assert answered >= PROGRAMS * 7
