"""execve(2) and execveat(2): copy the strings in, build the new image, and commit to it (fs/exec.c)."""

from __future__ import annotations

from errno import E2BIG, EFAULT, ELOOP, ENAMETOOLONG
from os import fsdecode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux import signals
from loadstone.linux.syscalls.lookup import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from loadstone.linux.syscalls.machine import linux_of
from loadstone.memory.user import read_string, read_words

if TYPE_CHECKING:
    from loadstone.kernel.process import Task

MAX_STRING = 131_072  # MAX_ARG_STRLEN, the NUL included
_MAX_TOTAL = 6 << 20  # three quarters of _STK_LIM: more than any stack limit lets through
_POINTER = 8


def execute(task: Task, path: str, arguments: int, environment: int) -> None:
    """Replace the image of `task`. LinuxError leaves the old one as it was."""
    argument_pointers = _pointers(task, arguments)
    environment_pointers = _pointers(task, environment)
    budget = [_MAX_TOTAL]
    # copy_strings takes the environment before the arguments, and each from its end
    envp = [_string(task, pointer, budget) for pointer in reversed(environment_pointers)][::-1]
    argv = [_string(task, pointer, budget) for pointer in reversed(argument_pointers)][::-1]
    try:
        linux_of(task).execute(task, path, argv, envp)
    except LinuxError as error:
        if error.fatal_signal is None:
            raise
        signals.force_fatal(task, error.fatal_signal)
    else:
        task.context.set_result(0)


def program_path(task: Task, address: int) -> str:
    """The path at `address`, as the guest wrote it."""
    return fsdecode(read_string(task.process.space, address))


def path_at(task: Task, directory: int, address: int, flags: int) -> str:
    """The name under which execveat(2) opens: relative to a descriptor it is /dev/fd/N/path (kernel: alloc_bprm)."""
    path = program_path(task, address)
    relative = directory != AT_FDCWD and not path.startswith("/")
    if relative and (path or flags & AT_EMPTY_PATH):
        task.process.files.get(directory)
        path = f"/dev/fd/{directory}/{path}" if path else f"/dev/fd/{directory}"
    if flags & AT_SYMLINK_NOFOLLOW and path:
        fs = task.process.fs
        who = task.process.credentials
        if task.kernel.vfs.resolve(path, fs.cwd, root=fs.root, credentials=who, follow=False).inode.is_symlink:
            raise LinuxError(ELOOP, f"{path} is a symbolic link")
    return path


def _pointers(task: Task, address: int) -> list[int]:
    """A vector of pointers up to its NULL; no vector is an empty one."""
    found: list[int] = []
    while address:
        (pointer,) = read_words(task.process.space, address, 1)
        if not pointer:
            break
        found.append(pointer)
        if len(found) * _POINTER > _MAX_TOTAL:
            raise LinuxError(E2BIG, "the list of arguments has no end")
        address += _POINTER
    return found


def _string(task: Task, address: int, budget: list[int]) -> bytes:
    try:
        text = read_string(task.process.space, address, MAX_STRING)
    except LinuxError as error:
        if error.errno == ENAMETOOLONG:
            raise LinuxError(E2BIG, f"an argument of more than {MAX_STRING - 1} bytes") from None
        raise LinuxError(EFAULT, f"the argument at {address:#x} cannot be read") from None
    budget[0] -= len(text) + 1
    if budget[0] < 0:
        raise LinuxError(E2BIG, f"the arguments are more than {_MAX_TOTAL} bytes")
    return text
