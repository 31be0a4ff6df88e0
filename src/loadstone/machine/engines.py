"""Which CPU core a machine gets.

The rule of `auto`: Unicorn for what must be the same every time; else KVM where it is of the kind that the tests have
run on, can be used, and leaving the guest is cheap enough, measured on the core itself; else Unicorn. KVM runs machine
code at the CPU's own speed and pays for each page fault and system call; Unicorn translates code before it runs it, and
pays little for those.

The CPU that a program sees is the host's under KVM and the baseline of cpuid.py under Unicorn. Who asks for the
baseline gets it from Unicorn everywhere, and from KVM where that lets its user decide what CPUID says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from loadstone.errors import HostError

if TYPE_CHECKING:
    from loadstone.machine.core import Core, Resolver
    from loadstone.machine.kvm_core import KvmCore
    from loadstone.machine.physical import PhysicalMemory

ENGINES = ("auto", "unicorn", "kvm")
CPUS = ("baseline",)
DEAREST_EXIT_NS = 100_000
"""`auto` takes KVM when leaving and entering the guest costs at most this. It is 30 to 50 us on a paravirtual KVM with
shadow paging, 1 to 5 us on hardware, and above the limit only where a hypervisor emulates another's."""

TESTED_KVM = "/sys/module/kvm_pvm"
"""There while the host's KVM is the paravirtual one."""

_ASKED = "asked for"


def make_core(
    asked: str,
    deterministic: bool,
    memory: PhysicalMemory,
    resolve: Resolver,
    wants_address: Callable[[], bool],
    host: tuple[int, int, int],
    baseline: bool = False,
) -> tuple[Core, str]:
    """The core, and why it is that one.

    Args:
        asked: "auto", "unicorn" or "kvm".
        deterministic: whether every run must be the same: then the time-stamp counter is not the host's.
        wants_address: whether somebody listens to faults, and so needs exact addresses.
        host: AT_HWCAP, AT_HWCAP2 and AT_MINSIGSTKSZ of the host, for a core whose CPU is the host's.
        baseline: whether the CPU must be that of cpuid.py.

    Raises:
        HostError: the core that was asked for cannot be had here.
    """
    why = _ASKED
    if asked == "kvm":
        from loadstone.machine.kvm_core import KvmCore

        made = KvmCore(memory, resolve, host, baseline=baseline)
        return made, f"{_ASKED}; {_figure(made.exit_cost())} here"
    if asked == "auto":
        core, why = _automatic(deterministic, memory, resolve, host, baseline)
        if core is not None:
            return core, why
    from loadstone.machine.unicorn_core import UnicornCore

    return UnicornCore(memory, resolve, wants_address, time_stamps=not deterministic), why


def _automatic(
    deterministic: bool, memory: PhysicalMemory, resolve: Resolver, host: tuple[int, int, int], baseline: bool
) -> tuple[KvmCore | None, str]:
    """A KVM core if that is the one to take, and why it is or is not."""
    if deterministic:
        return None, "the run is to be the same every time, which a real CPU's is not"
    if not os.path.isdir(TESTED_KVM):
        return None, "KVM of this kind was never tested (--engine kvm takes it all the same)"
    from loadstone.machine.kvm_core import KvmCore

    try:
        core = KvmCore(memory, resolve, host, baseline=baseline)
    except HostError as error:
        return None, str(error.args[0])
    cost = core.exit_cost()
    figure = _figure(cost)
    limit = f"{DEAREST_EXIT_NS // 1000} us"
    if cost > DEAREST_EXIT_NS:
        core.close()
        return None, f"KVM can be used, but {figure} here, more than {limit}"
    return core, f"KVM can be used, and {figure} here, not more than {limit}"


def _figure(cost: int) -> str:
    return f"leaving the guest costs {cost / 1000:.0f} us"
