"""The cores that a test can run on here."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from loadstone.errors import HostError
from loadstone.machine import native_code
from loadstone.machine.core import Resolver
from loadstone.machine.engines import TESTED_KVM
from loadstone.machine.physical import PhysicalMemory

NAMES = ("unicorn", "kvm")


def maker(name: str) -> Callable[[PhysicalMemory, Resolver], Any]:
    """What makes a core of that name; skips the test, with the reason, where there can be none."""
    if name == "kvm":
        from loadstone.machine.kvm_api import Device
        from loadstone.machine.kvm_core import KvmCore

        try:
            Device().close()
        except HostError as error:
            pytest.skip(str(error))
        return KvmCore
    from loadstone.machine.unicorn_core import UnicornCore

    if not native_code.supported():
        pytest.skip("the Unicorn core needs an x86-64 host")
    return UnicornCore


def answering(name: str) -> None:
    """Skips the test, with the reason, where the core of that name answers no system calls by itself."""
    maker(name)
    if name == "kvm" and not os.path.isdir(TESTED_KVM):
        pytest.skip("SYSCALL does not arrive in ring 3 on this host's KVM")
