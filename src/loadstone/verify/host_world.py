"""A machine that has no CPU: memory, the host's files and the live profile. Loadstone's side of a comparison.

It implements `linux.exec.execve.World` for any number of exec calls, of a process like this one: same ids, same limits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loadstone.linux.exec.execve import Stage, execve, known_plans
from loadstone.linux.exec.prepared_images import PreparedImages
from loadstone.linux.exec.program import ExecCredentials
from loadstone.linux.profile import RLIM_INFINITY, RLIMIT_STACK, KernelProfile, live_profile
from loadstone.linux.vdso import make_vdso
from loadstone.machine.physical import PhysicalMemory
from loadstone.machine.shootdown import Shootdown
from loadstone.memory.accounting import Commitment, Limits
from loadstone.memory.address_space import AddressSpace
from loadstone.memory.page_cache import PageCache
from loadstone.vfs.assemble import assemble
from loadstone.vfs.namespace import Origin

if TYPE_CHECKING:
    from loadstone.events import Events
    from loadstone.linux.exec.layout import Draws
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.memory.placement import Layout
    from loadstone.vfs.location import Location

_MEMORY = 256 << 20  # bytes of frames: exec touches a few pages, whatever the size that the profile shows
CAP_SYS_RAWIO, CAP_SYS_ADMIN = 17, 21  # linux/capability.h


class HostWorld:
    """One machine for many exec calls; `close` it.

    Attributes:
        cwd: the working directory of the next exec.
        who: its credentials.
        rlimits: its limits, as `Process.limits`.
    """

    def __init__(self, profile: KernelProfile | None = None, *, stack_limit: int | None = None) -> None:
        self.profile = profile or live_profile()
        self.vdso = make_vdso(self.profile)
        self.plans = known_plans(self.profile)
        self.images = PreparedImages()
        self.memory = PhysicalMemory(_MEMORY)
        self.cache = PageCache(self.memory)
        self.shootdown = Shootdown(self.memory)
        self.rlimits = dict(enumerate(self.profile.limits))
        if stack_limit is not None:
            self.rlimits[RLIMIT_STACK] = (stack_limit & RLIM_INFINITY, RLIM_INFINITY)
        self.vfs = assemble(self.cache)
        self.cwd = "/"
        self.events: Events | None = None
        self.who = ExecCredentials(os.getuid(), os.geteuid(), os.getgid(), os.getegid(), tuple(os.getgroups()))

    def open_program(self, path: str) -> Location:
        """Resolve `path` from the working directory."""
        return self.vfs.resolve(path, Origin(self.vfs.resolve(self.cwd), who=self.who))

    def new_space(self, layout: Layout) -> AddressSpace:
        """An empty address space of a process that has promised no memory yet."""
        profile = self.profile
        capabilities = own_capabilities() if self.who.euid == os.geteuid() else 0
        limits = Limits(
            Commitment(profile.memory_size // 4096, profile.overcommit, max_map_count=profile.max_map_count),
            self.rlimits,
            privileged=bool(capabilities & 1 << CAP_SYS_ADMIN),
            may_map_low=bool(capabilities & 1 << CAP_SYS_RAWIO),
        )
        return AddressSpace(self.memory, self.cache, self.shootdown, layout, limits, self.events)

    def random_bytes(self, count: int) -> bytes:
        """1, 2, 3, ...: what AT_RANDOM points to is recognised by them."""
        return bytes(range(1, count + 1))

    def close(self) -> None:
        """Give everything back to the host."""
        self.vfs.close()
        self.memory.close()

    def exec(
        self,
        path: str,
        argv: Sequence[bytes] | None = None,
        envp: Sequence[bytes] = (),
        *,
        draws: Draws | None = None,
        stages: list[Stage] | None = None,
        tells: bool = True,
    ) -> ExecImage:
        """Build the image of `path`; the caller releases `image.space`. Raises LinuxError.

        All arguments are those of `linux.exec.execve.execve`.
        """
        soft = {number: limit[0] for number, limit in self.rlimits.items()}
        return execve(
            self,
            path,
            [os.fsencode(path)] if argv is None else argv,
            envp,
            self.who,
            limits=lambda number: soft.get(number, RLIM_INFINITY),
            draws=draws,
            stages=stages,
            tells=tells,
        )


def own_capabilities() -> int:
    """Our effective capabilities, a bit each (proc_pid_status(5)); all of root's where /proc does not say."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return -1 if os.geteuid() == 0 else 0
