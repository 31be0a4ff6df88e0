"""From what a machine is asked to be to its kernel and its CPU core: the one place where the rooms are put together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from loadstone.clock import Clock, VirtualClock
from loadstone.errors import HostError
from loadstone.host import seeded_random, terminal
from loadstone.kernel.kernel import Kernel, MachineOptions
from loadstone.lean import NamedTuple
from loadstone.linux.personality import Linux
from loadstone.machine.engines import CPUS, ENGINES
from loadstone.machine.physical import PhysicalMemory
from loadstone.machine.shootdown import Shootdown
from loadstone.memory.accounting import Commitment
from loadstone.memory.fault import resolve
from loadstone.memory.page_cache import PageCache
from loadstone.vfs.assemble import assemble

if TYPE_CHECKING:
    from loadstone.events import Events
    from loadstone.linux.profile import KernelProfile
    from loadstone.machine.core import Core
    from loadstone.machine.kvm_core import KvmCore
    from loadstone.machine.unicorn_core import UnicornCore


class HostFiles(NamedTuple):
    """Which of the host's files a guest sees, and what it may do with them: the options of `Machine` of these names."""

    root: str
    rw: Sequence[str]
    binds: Sequence[tuple[str, str]]
    noexec: Sequence[str]
    visible: Sequence[str] | None


class CoreChoice(NamedTuple):
    """The CPU core that is asked for."""

    engine: str  # auto, unicorn or kvm
    cpu: str | None  # baseline, or the core's own

    def demand_possible(self, deterministic: bool) -> None:
        """HostError for what does not exist, or does not go together."""
        if self.engine not in ENGINES:
            raise HostError(f"--engine {self.engine}: there is no such CPU core; there are unicorn and kvm")
        if self.cpu is not None and self.cpu not in CPUS:
            raise HostError(f"--cpu {self.cpu}: there is no such CPU; there is {', '.join(CPUS)}")
        if self.engine == "kvm" and deterministic:
            raise HostError(
                "--deterministic: the CPU of --engine kvm is the host's, and its time slices are never the same twice",
                "use --engine unicorn, or leave it to auto",
            )


def make_linux(
    options: MachineOptions, profile: KernelProfile, files: HostFiles, events: Events, *, warm: bool
) -> tuple[Kernel, Linux]:
    """The kernel of a new machine, without a CPU core yet, and its personality. `warm`: files are in memory already."""
    memory = PhysicalMemory(profile.memory_size)
    clock = VirtualClock() if options.deterministic else Clock()
    cache = PageCache(memory, warm=warm)
    random = seeded_random(options.seed)
    vfs = assemble(
        cache, clock, host_root=files.root, rw=files.rw, binds=files.binds, noexec=files.noexec, visible=files.visible,
        deterministic=options.deterministic, random_bytes=random.randbytes if random else os.urandom,
        terminal_fd=terminal(),
    )  # fmt: skip
    commitment = Commitment(memory.frames, profile.overcommit, max_map_count=profile.max_map_count)
    kernel = Kernel(memory, cache, Shootdown(memory), commitment, vfs, clock, events, options, profile, random)
    linux = Linux(kernel)
    linux.console.present = terminal() >= 0
    kernel.personality = linux
    return kernel, linux


def add_core(kernel: Kernel, linux: Linux, profile: KernelProfile, choice: CoreChoice) -> tuple[Core, str]:
    """Make the CPU core of a machine; it, and why it is that one. Raises HostError if it cannot be had."""
    from loadstone.machine.engines import make_core

    host = (profile.hwcap, profile.hwcap2, profile.minimum_signal_stack)
    events, kernel_time = kernel.events, kernel.scheduler.kernel_time
    core, why = make_core(
        choice.engine, kernel.options.deterministic, kernel.memory, kernel_time.timed_fault(resolve),
        lambda: bool(events.fault), host, choice.cpu is not None,
    )  # fmt: skip
    kernel.cores.append(core)
    kernel_time.entry_ns = core.exit_ns
    kernel.shootdown.listen(core)
    if "host-time-stamps" in core.capabilities and kernel.clock.__class__ is not VirtualClock:
        linux.vdso.vvar.follow_host()
    if "answers-reads" in core.capabilities:
        linux.answer_calls(cast("KvmCore", core))
    if "answers-signals" in core.capabilities:
        linux.answer_signals(cast("KvmCore | UnicornCore", core))
    return core, why
