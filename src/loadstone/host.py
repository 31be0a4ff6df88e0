"""What a machine is given by its host, and what its options make of that: profile, terminal, files, directory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from loadstone.errors import HostError, LinuxError
from loadstone.kernel.process import INIT, Credentials, FsContext, Process
from loadstone.linux.profile import RLIMIT_NOFILE, RLIMIT_STACK, KernelProfile, live_profile
from loadstone.linux.signal.signals import ProcessSignals
from loadstone.memory.fill_ahead import FillAhead
from loadstone.memory.vma import PAGE
from loadstone.vfs.file_table import FileTable

if TYPE_CHECKING:
    from random import Random

    from loadstone.kernel.kernel import Kernel
    from loadstone.machine.core import Core
    from loadstone.memory.page_cache import PageCache

Strings = Sequence[str | bytes]
Environment = Mapping[str, str] | Strings

_LEAST_MEMORY = 1 << 20
_STDERR = 2


def host_directory() -> str:
    """The host's working directory; the root where it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return "/"


def strings(given: Environment) -> list[bytes]:
    """argv or envp as execve takes them."""
    items = [f"{name}={value}" for name, value in given.items()] if isinstance(given, Mapping) else given
    return [os.fsencode(item) for item in items]


def seeded_random(seed: int | None) -> Random | None:
    """The machine's dice; None: the host's randomness."""
    if seed is None:
        return None
    from random import Random

    return Random(seed)


def terminal() -> int:
    """Our descriptor of the user's terminal, -1 if none of the standard ones is: what the guest's /dev/tty is."""
    return next((fd for fd in range(3) if os.isatty(fd)), -1)


def umask() -> int:
    """The host's, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def profile_for(
    profile: KernelProfile | None, memory: int | None, cpu_count: int | None, stack_limit: int | None, fault_around: int
) -> KernelProfile:
    """The kernel to model, with what the machine's options change about it."""
    made = (profile or live_profile())._replace(fault_around=fault_around)
    if memory is not None:
        if memory < _LEAST_MEMORY:
            raise HostError(f"--memory {memory}: a machine needs at least {_LEAST_MEMORY >> 20} MiB")
        made = made._replace(memory_size=memory & -PAGE)
    if cpu_count is not None:
        made = made._replace(cpu_count=cpu_count)
    if stack_limit is not None:
        limits = list(made.limits)
        limits[RLIMIT_STACK] = (stack_limit, max(stack_limit, limits[RLIMIT_STACK][1]))
        made = made._replace(limits=tuple(limits))
    return made


def fill_ahead_for(cache: PageCache, pages: int | None, deterministic: bool) -> FillAhead | None:
    """How far faults fill ahead, as the option says; None: not at all."""
    if pages is None:
        return None if deterministic else FillAhead(cache)
    return FillAhead(cache, pages, always=True) if pages > 1 else None


def profile_of_core(profile: KernelProfile, core: Core) -> KernelProfile:
    """The profile with the CPU that will run the program in place of the host's."""
    return profile._replace(hwcap=core.hwcap, hwcap2=core.hwcap2, minimum_signal_stack=core.minimum_signal_stack)


def inheritable_descriptors() -> list[int]:
    """Our descriptors above stderr that exec would hand on: what the shell made of `3< FILE` and `<(COMMAND)`.

    None of them is our own: those Python makes close-on-exec.
    """
    found = []
    for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
        with suppress(OSError):  # what listed them is closed by now
            if fd > _STDERR and os.get_inheritable(fd):
                found.append(fd)
    return found


def give_files(process: Process, inherited: Sequence[int]) -> None:
    """The host's stdin, stdout and stderr, as far as they are open, and `inherited`, under their own numbers."""
    from fcntl import F_GETFL, fcntl

    from loadstone.vfs.streams import host_stream

    for fd in range(_STDERR + 1):
        try:
            # The command line puts an O_PATH descriptor where one was closed, lest a file of ours takes its number.
            if fcntl(fd, F_GETFL) & os.O_PATH:
                continue
        except OSError:
            continue
        process.files.inherit(host_stream(process.kernel.vfs, fd), fd)
    for fd in inherited:
        process.files.inherit(host_stream(process.kernel.vfs, fd, handed_over=True), fd)


def new_process(kernel: Kernel, profile: KernelProfile, cwd: str | None) -> Process:
    """A process as the machine's user starts it: with their credentials, limits, mask and (by default) directory.

    Raises HostError if the guest has no directory `cwd`.
    """
    vfs = kernel.vfs
    root = vfs.resolve("/")
    try:
        start = vfs.resolve(cwd if cwd is not None else host_directory(), directory=True)
    except LinuxError as error:
        if cwd is not None:
            raise HostError(f"--cwd {cwd}: {os.strerror(error.errno)}, for the program") from error
        start = root
    credentials = Credentials(os.geteuid(), os.getegid(), tuple(os.getgroups()))
    limits = dict(enumerate(profile.limits))
    files = FileTable(limits[RLIMIT_NOFILE][0], kernel.descriptors)
    process = Process(kernel, kernel.new_pid(), credentials, FsContext(start, root, umask()), files, ProcessSignals())
    process.limits = limits
    process.is_first = True
    process.session = INIT  # a job of the user's shell, whose session the machine stands for
    process.started_ns = kernel.clock.monotonic_ns()
    return process
