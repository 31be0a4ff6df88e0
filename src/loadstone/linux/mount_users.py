"""Who uses the guest's mounts: what keeps them from being taken away, or from becoming read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.vfs.file import OpenFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import FsContext, Process
    from loadstone.vfs.location import Mount


def used_mounts(kernel: Kernel) -> Iterator[Mount]:
    """The mounts in which a process is, has a file open or mapped, or runs a program; and those of devices' files."""
    for process in _living(kernel):
        for context in (process.fs, *(fs for _, fs in (process.apart or {}).values())):
            yield context.cwd.mount
            yield context.root.mount
        if process.executable is not None:
            yield process.executable.mount
        for file in _files(process):
            if file.location is not None:
                yield file.location.mount
    for place in kernel.vfs.kept_places():
        yield place.mount


def contexts(kernel: Kernel) -> Iterator[FsContext]:
    """The directories of all living processes and of threads that have their own."""
    for process in _living(kernel):
        yield process.fs
        for _, fs in (process.apart or {}).values():
            yield fs


def writers(kernel: Kernel) -> Iterator[Mount]:
    """The mounts of regular files that are open for writing, or mapped from such a descriptor."""
    for process in _living(kernel):
        for file in _files(process):
            if file.location is not None and file.writable and file.inode.is_regular:
                yield file.location.mount


def _living(kernel: Kernel) -> list[Process]:
    return [process for process in kernel.processes.values() if process.status is None]


def _files(process: Process) -> Iterator[OpenFile]:
    """The open files of a process, and those behind its mappings."""
    for table in (process.files, *(files for files, _ in (process.apart or {}).values())):
        for _, file in table.items():
            yield file
    for area in process.space.vmas:
        if isinstance(area.file, OpenFile):
            yield area.file
