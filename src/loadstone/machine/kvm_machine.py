"""What the vCPUs of one machine have in common: the virtual machine, its ring-0 half, what they must forget.

The vCPUs of a virtual machine share KVM's copies of the page tables, so what has to be forgotten is collected once, and
forgotten for all. While no vCPU runs that can wait until the next one does. While one runs, in another host thread, it
cannot: the frames of old entries are about to be used again.
"""

from __future__ import annotations

import _thread
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loadstone.errors import HostError
from loadstone.machine import kvm_api as kvm
from loadstone.machine.kvm_breakpoints import Breakpoints
from loadstone.machine.kvm_cpu import baseline_cpu, host_cpu
from loadstone.machine.kvm_memory import StaleTranslations
from loadstone.machine.kvm_tables import KernelHalf

if TYPE_CHECKING:
    from loadstone.machine.kvm_core import KvmCore
    from loadstone.machine.kvm_entry import EntryPage
    from loadstone.machine.physical import PhysicalMemory


class KvmMachine:
    """A virtual machine over the frames of a machine. It lives as long as one of its cores.

    Attributes:
        cpu: what every vCPU is. baseline: whether that is the CPU of cpuid.py.
        half: ring 0. stale: what is to be forgotten. breakpoints: of all cores. cores: those that there are.
        entry: where SYSCALL enters, once it was seen to stay in ring 3; None: the page of the stubs.
        left_at: RIP of a program that has left by that page.
    """

    def __init__(self, memory: PhysicalMemory, baseline: bool) -> None:
        self._memory = memory
        self.baseline = baseline
        device = kvm.Device()
        try:
            if device.has(kvm.CAP_SYNC_REGS) & 7 != 7:
                raise HostError("this host's KVM is too old: it has no synchronised registers", kvm.ADVICE)
            self.vm = kvm.VirtualMachine(device, memory.base, memory.size)
            self.vcpu_size = device.vcpu_size()
            self.cpu = baseline_cpu() if baseline else host_cpu(device.cpuid())
        finally:
            device.close()
        self.half = KernelHalf(memory)
        self.stale = StaleTranslations(memory, self.vm)
        self.breakpoints = Breakpoints(memory)
        self.cores: list[KvmCore] = []
        self.entry: EntryPage | None = None
        self.left_at = -1
        self._lock = _thread.allocate_lock()  # of what is to be forgotten, and of the slots

    def open_entry(self) -> None:
        """SYSCALL was seen to stay in ring 3: have it enter the code of kvm_entry.py from now on.

        Nothing has to be forgotten: fetching from there faults until the new entry is seen, and the stubs are the same.
        """
        from loadstone.machine.kvm_entry import LEFT, EntryPage

        self.entry = EntryPage(self.half)
        self.entry.enter(None)
        self.left_at = LEFT

    def invalidate(self, root: int, start: int, end: int, frames: Sequence[int]) -> None:
        """Have every vCPU forget [start, end) of an address space: before it runs again, or now if one is running."""
        if frames:
            self.stale.add(frames)
        else:
            self.stale.add_range(root, start, end)
        if len(self.cores) > 1 and any(core.inside for core in self.cores):
            self.forget()

    def forget(self) -> None:
        """Have them forget what was collected."""
        with self._lock:
            if self.stale.pending:
                self.stale.drop()

    def cover(self, end: int) -> None:
        """Let the vCPUs reach memory up to `end` bytes."""
        with self._lock:
            self.vm.cover(end)

    def leave(self, core: KvmCore) -> None:
        """A core is closed; with the last one the virtual machine is."""
        self.cores.remove(core)
        if not self.cores:
            self.close()

    def close(self) -> None:
        """Give it back to the host."""
        self.vm.close()
        if self.entry is not None:
            self.entry.close()
        self.stale.close()
        self.half.release()
