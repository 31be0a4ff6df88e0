"""What `execve` sees of the machine: one process's view of files, limits and memory. Implements `execve.World`."""

from __future__ import annotations

from errno import EMFILE
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.exec.execve import Setting, Stage, execve
from loadstone.linux.exec.program import ExecCredentials, Opened, Program, check_open
from loadstone.linux.profile import RLIM_INFINITY
from loadstone.linux.state import ADDR_COMPAT_LAYOUT, ADDR_NO_RANDOMIZE, process_state
from loadstone.memory.accounting import Limits
from loadstone.memory.address_space import AddressSpace
from loadstone.vfs.flags import O_LARGEFILE, O_RDONLY
from loadstone.vfs.namespace import Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.binfmt.known import KnownPlans
    from loadstone.binfmt.misc import MiscFormats
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process
    from loadstone.linux.exec.layout import Draws
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.linux.exec.prepared_images import PreparedImages
    from loadstone.linux.profile import KernelProfile
    from loadstone.linux.vdso import Vdso
    from loadstone.memory.placement import Layout
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location

_UNLIMITED = (RLIM_INFINITY, RLIM_INFINITY)


class ProcessWorld:
    """The machine as one process sees it while it executes another program.

    `plans`: what the machine knows of programs. `images`: those it keeps of programs that were executed; None: it keeps
    none. `formats`: those of binfmt_misc, if any were ever registered. `runs`: the image is to run, and not only to be
    looked at; nothing that runs gets other credentials by set-ID bits.
    """

    def __init__(
        self,
        kernel: Kernel,
        process: Process,
        vdso: Vdso,
        profile: KernelProfile,
        plans: KnownPlans,
        formats: MiscFormats | None = None,
        *,
        images: PreparedImages | None = None,
        runs: bool = True,
    ) -> None:
        self._kernel = kernel
        self._process = process
        self.vdso = vdso
        self.plans = plans
        self.images = images
        self._persona = process_state(process).personality
        self.profile = profile._replace(legacy_layout=True) if self._persona & ADDR_COMPAT_LAYOUT else profile
        self._formats = formats
        self._runs = runs

    def open_program(self, path: str) -> Location:
        """Resolve `path` from the process's root and working directory, following links."""
        fs = self._process.fs
        return self._kernel.vfs.resolve(path, Origin(fs.cwd, fs.root, self._process.credentials))

    def new_space(self, layout: Layout) -> AddressSpace:
        """An empty address space: one frame, the page directory."""
        kernel, process = self._kernel, self._process
        limits = Limits(kernel.commitment, process.limits, user=process.credentials)
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
        opened: Opened | None = None,
        program: Program | None = None,
        tells: bool = True,
    ) -> ExecImage:
        """Build the image of `path` for the process. Raises LinuxError; see `linux.exec.execve.execve`."""
        return execve(
            self,
            path,
            argv,
            envp,
            self._who,
            limits=self._soft_limit,
            draws=None if self._persona & ADDR_NO_RANDOMIZE else draws,
            stages=stages,
            opened=opened,
            program=program,
            setting=Setting(self._formats, self._free_descriptor, False) if self._runs else Setting(self._formats),
            tells=tells,
        )

    def check(self, path: str, opened: Opened | None = None) -> Program:
        """The file that `path` names or execveat(2) `opened`, if the process may execute it; else LinuxError."""
        return check_open(self.open_program, path, self._who, opened)

    def _free_descriptor(self) -> int:
        """The lowest number that is free once exec has closed what it closes; EMFILE."""
        files = self._process.files
        kept = {fd for fd, _ in files.items() if not files.is_cloexec(fd)}
        fd = next(fd for fd in range(len(kept) + 1) if fd not in kept)
        if fd >= files.limit:
            raise LinuxError(EMFILE, "the interpreter needs one more descriptor than RLIMIT_NOFILE allows")
        return fd

    @property
    def _who(self) -> ExecCredentials:
        return ExecCredentials.of(self._process.credentials)

    def _soft_limit(self, resource: int) -> int:
        return self._process.limits.get(resource, _UNLIMITED)[0]


def open_passed(program: Program) -> OpenFile:
    """The file that an interpreter of binfmt_misc finds open, as exec opened it: for reading, at its start."""
    return program.inode.open(O_RDONLY | O_LARGEFILE, program.location)
