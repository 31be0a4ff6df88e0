"""What `execve` sees of the machine: one process's view of files, limits and memory. Implements `execve.World`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.execve import Credentials, ExecImage, Stage, execve
from loadstone.linux.profile import RLIM_INFINITY
from loadstone.linux.state import ADDR_COMPAT_LAYOUT, ADDR_NO_RANDOMIZE, process_state
from loadstone.memory.accounting import Limits
from loadstone.memory.address_space import AddressSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process
    from loadstone.linux.layout import Draws
    from loadstone.linux.profile import KernelProfile
    from loadstone.linux.vdso import Vdso
    from loadstone.memory.placement import Layout
    from loadstone.vfs.location import Location

_UNLIMITED = (RLIM_INFINITY, RLIM_INFINITY)


class ProcessWorld:
    """The machine as one process sees it while it executes another program."""

    def __init__(self, kernel: Kernel, process: Process, vdso: Vdso, profile: KernelProfile) -> None:
        self._kernel = kernel
        self._process = process
        self.vdso = vdso
        self._persona = process_state(process).personality
        self.profile = profile._replace(legacy_layout=True) if self._persona & ADDR_COMPAT_LAYOUT else profile

    def open_program(self, path: str) -> Location:
        """Resolve `path` from the process's root and working directory, following links."""
        fs = self._process.fs
        return self._kernel.vfs.resolve(path, fs.cwd, root=fs.root, credentials=self._process.credentials)

    def new_space(self, layout: Layout) -> AddressSpace:
        """An empty address space: one frame, the page directory."""
        kernel, process = self._kernel, self._process
        root = process.credentials.euid == 0
        limits = Limits(
            kernel.commitment,
            process.limits,
            max_map_count=self.profile.max_map_count,
            privileged=root,
            may_map_low=root,
        )
        space = AddressSpace(
            kernel.memory,
            kernel.page_cache,
            kernel.shootdown,
            layout,
            limits,
            kernel.events,
            fault_around=kernel.options.fault_around,
            fill_ahead=kernel.fill_ahead,
        )
        space.owner_ids = (process.pid, process.tasks[0].tid if process.tasks else process.pid, 0)
        return space

    def random_bytes(self, count: int) -> bytes:
        """Bytes for AT_RANDOM."""
        return self._kernel.random_bytes(count)

    def execve(
        self,
        path: str,
        argv: Sequence[bytes],
        envp: Sequence[bytes],
        *,
        draws: Draws | None = None,
        stages: list[Stage] | None = None,
    ) -> ExecImage:
        """Build the image of `path` for the process. Raises LinuxError; see `linux.execve.execve`."""
        who = self._process.credentials
        return execve(
            self,
            path,
            argv,
            envp,
            Credentials(who.uid, who.euid, who.gid, who.egid, who.groups),
            limits=self._soft_limit,
            draws=None if self._persona & ADDR_NO_RANDOMIZE else draws,
            stages=stages,
        )

    def _soft_limit(self, resource: int) -> int:
        return self._process.limits.get(resource, _UNLIMITED)[0]
