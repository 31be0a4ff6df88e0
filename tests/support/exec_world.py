"""A world for execve without a kernel or CPU: memory, the host's files, the live profile."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence

from loadstone.events import Events
from loadstone.linux.execve import Credentials, ExecImage, Stage, execve
from loadstone.linux.layout import Draws
from loadstone.linux.profile import RLIM_INFINITY, RLIMIT_STACK, KernelProfile, live_profile
from loadstone.linux.vdso import make_vdso
from loadstone.machine.physical import PhysicalMemory
from loadstone.machine.shootdown import Shootdown
from loadstone.memory.accounting import Commitment, Limits
from loadstone.memory.address_space import AddressSpace
from loadstone.memory.page_cache import PageCache
from loadstone.memory.placement import Layout
from loadstone.vfs.assemble import assemble
from loadstone.vfs.location import Location
from loadstone.vfs.namespace import Origin


class HostWorld:
    """One machine for any number of exec calls."""

    def __init__(self, profile: KernelProfile | None = None, *, stack_limit: int | None = None) -> None:
        self.profile = profile or live_profile()
        self.vdso = make_vdso(self.profile)
        self.memory = PhysicalMemory(256 << 20)
        self.cache = PageCache(self.memory)
        self.shootdown = Shootdown(self.memory)
        soft = resource.getrlimit(resource.RLIMIT_STACK)[0] if stack_limit is None else stack_limit
        self.rlimits = {RLIMIT_STACK: (soft & RLIM_INFINITY, RLIM_INFINITY)}
        self.vfs = assemble(self.cache)
        self.cwd = "/"
        self.events: Events | None = None

    def open_program(self, path: str) -> Location:
        return self.vfs.resolve(path, Origin(self.vfs.resolve(self.cwd), who=self.who))

    @property
    def who(self) -> Credentials:
        return Credentials(os.getuid(), os.geteuid(), os.getgid(), os.getegid(), tuple(os.getgroups()))

    def new_space(self, layout: Layout) -> AddressSpace:
        root = os.geteuid() == 0
        limits = Limits(Commitment(self.profile.memory_size // 4096), self.rlimits, privileged=root, may_map_low=root)
        return AddressSpace(self.memory, self.cache, self.shootdown, layout, limits, self.events)

    def random_bytes(self, count: int) -> bytes:
        return bytes(range(1, count + 1))

    def close(self) -> None:
        self.memory.close()

    def exec(
        self,
        path: str,
        argv: Sequence[bytes] | None = None,
        envp: Sequence[bytes] = (),
        *,
        draws: Draws | None = None,
        stages: list[Stage] | None = None,
    ) -> ExecImage:
        argv = [os.fsencode(path)] if argv is None else argv
        soft = {number: limit[0] for number, limit in self.rlimits.items()}
        return execve(
            self,
            path,
            argv,
            envp,
            self.who,
            limits=lambda number: soft.get(number, RLIM_INFINITY),
            draws=draws,
            stages=stages,
        )


def user_memory(image: ExecImage, address: int, length: int) -> bytes:
    """Bytes of resident pages, without any fault."""
    space, data = image.space, b""
    while len(data) < length:
        here = address + len(data)
        entry = space.page_table.entry(here)
        assert entry & 1, f"{here:#x} is not resident"
        frame = (entry & 0x000F_FFFF_FFFF_F000) >> 12
        offset = here % 4096
        data += bytes(space.memory.page(frame)[offset : offset + min(4096 - offset, length - len(data))])
    return data
