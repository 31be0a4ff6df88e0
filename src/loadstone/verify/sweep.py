"""Every program below some directories, compared in as many processes as there are CPUs."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from loadstone.errors import HostError
from loadstone.verify.runner import Request, Result, Verifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadstone.linux.profile import KernelProfile

ELF_MAGIC, SCRIPT_MAGIC = b"\x7fELF", b"#!"
NOT_THE_HOSTS = ("/dev", "/proc", "/sys")  # Loadstone has its own
_ANY_EXECUTE = 0o111


@dataclass(frozen=True, slots=True)
class Settings:
    """What all comparisons of a sweep have in common: see `Verifier`."""

    profile: KernelProfile | None = None
    stack_limit: int | None = None


def find_programs(places: Sequence[str]) -> list[str]:
    """The ELF files and scripts with an execute bit in `places` (directories, walked down, or files), sorted.

    Links to files count as names of their own, since execve is told the name; links to directories are not followed.
    """
    found: list[str] = []
    for place in places:
        if os.path.isdir(place):
            for directory, names, files in os.walk(place):
                names[:] = sorted(name for name in names if os.path.join(directory, name) not in NOT_THE_HOSTS)
                found += [path for name in sorted(files) if is_program(path := os.path.join(directory, name))]
        elif os.path.exists(place):
            found.append(place)
        else:
            raise HostError(f"{place}: there is no such file or directory")
    return found


def is_program(path: str) -> bool:
    """Whether `path` is a regular file with an execute bit that begins as an ELF file or a script does."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & _ANY_EXECUTE:
            return False
        with open(path, "rb", opener=_quietly) as file:
            head = file.read(4)
    except OSError:
        return False
    return head == ELF_MAGIC or head[:2] == SCRIPT_MAGIC


def distinct_files(paths: Sequence[str]) -> int:
    """How many files these names lead to; one that cannot be looked up counts by its name."""
    return len({_identity(path) for path in paths})


def _identity(path: str) -> tuple[int, int] | str:
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino


def sweep(requests: Sequence[Request], settings: Settings, jobs: int) -> Iterator[Result]:
    """The results, as they come in. Raises HostError when a comparing process dies."""
    if jobs <= 1 or len(requests) <= 1:
        with Verifier(settings.profile, stack_limit=settings.stack_limit) as verifier:
            for request in requests:
                yield verifier.verify(request)
        return
    context = get_context("fork")
    workers = []
    pipes: list[Connection] = []
    try:
        for number in range(min(jobs, len(requests))):
            receiving, sending = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(requests[number::jobs], settings, sending), daemon=True)
            worker.start()
            workers.append(worker)
            sending.close()
            pipes.append(receiving)
        yield from _collect(pipes)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _collect(pipes: list[Connection]) -> Iterator[Result]:
    """What the processes send, until each has said that it is done."""
    open_pipes = list(pipes)
    while open_pipes:
        for ready in wait(open_pipes):
            assert isinstance(ready, Connection)
            try:
                message = ready.recv()
            except EOFError:
                raise HostError("a comparing process died; --jobs 1 would show where") from None
            if isinstance(message, Result):
                yield message
                continue
            open_pipes.remove(ready)
            if message is not None:
                raise message


def _work(requests: Sequence[Request], settings: Settings, pipe: Connection) -> None:
    """One process: each result goes to the parent, then None, or the exception that ended it."""
    try:
        with Verifier(settings.profile, stack_limit=settings.stack_limit) as verifier:
            for request in requests:
                pipe.send(verifier.verify(request))
    except KeyboardInterrupt:
        pass
    except Exception as error:
        pipe.send(error)
    else:
        pipe.send(None)


def _quietly(path: str, flags: int) -> int:
    """Open without changing the access time, where that is allowed."""
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)
