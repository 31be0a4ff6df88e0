"""execve(2) and execveat(2): copy the strings in, build the new image, and commit to it (fs/exec.c)."""

from __future__ import annotations

from errno import E2BIG, EACCES, EFAULT, EINVAL, ENAMETOOLONG
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.exec.program import Opened
from loadstone.linux.of_task import linux_of
from loadstone.linux.signal import sending
from loadstone.linux.syscalls.lookup import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, find, path_at
from loadstone.memory.user import copy_in, read_string, read_words
from loadstone.memory.vma import PAGE, PAGE_MASK

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.memory.address_space import AddressSpace

AT_EXECVE_CHECK = 0x10000  # include/uapi/linux/fcntl.h: only say whether it could be executed
MAX_STRING = 131_072  # MAX_ARG_STRLEN, the NUL included
_MAX_TOTAL = 6 << 20  # three quarters of _STK_LIM: more than any stack limit lets through
_POINTER = 8
_AT_ONCE = 64  # pointers that are read together
_MOST_PAGES = 64  # whose contents are kept while strings are read


def execute(task: Task, path: str, arguments: int, environment: int, opened: Opened | None = None) -> None:
    """Replace the image of `task`. LinuxError leaves the old one as it was."""
    linux = linux_of(task)
    program = linux.world(task.process).check(path, opened)  # before the strings are looked at: alloc_bprm
    argument_pointers = _pointers(task, arguments)
    environment_pointers = _pointers(task, environment)
    strings = _Strings(task.process.space)
    envp = strings.copy(environment_pointers)  # copy_strings takes the environment before the arguments
    argv = strings.copy(argument_pointers)
    try:
        linux.execute(task, path, argv, envp, opened, program)
    except LinuxError as error:
        if error.fatal_signal is None:
            raise
        sending.force_fatal(task, error.fatal_signal)
    else:
        task.context.set_result(0)


def execute_at(task: Task, directory: int, address: int, arguments: int, environment: int, flags: int) -> None:
    """execveat(2): as `execute`, for a path seen from a descriptor, or for the descriptor itself.

    Nothing is looked up by the name /dev/fd/N that the program then has: there need not be a /proc.
    """
    checking = AT_EXECVE_CHECK if task.kernel.profile.exec_check else 0
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | checking):
        raise LinuxError(EINVAL, f"unknown flags {flags:#x}")
    path = program_path(task, address)
    opened = None
    if path or flags & AT_EMPTY_PATH:
        path, opened = _open_at(task, directory, path, flags)
    if flags & checking:
        linux_of(task).world(task.process).check(path, opened)
        task.context.set_result(0)
        return
    execute(task, path, arguments, environment, opened)


def program_path(task: Task, address: int) -> str:
    """The path at `address`, as the guest wrote it."""
    return path_at(task, address)


def _open_at(task: Task, directory: int, path: str, flags: int) -> tuple[str, Opened]:
    """The name a program gets that was found from a descriptor, and what was found (alloc_bprm)."""
    inode, location = find(task, directory, path, flags & (AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
    if location is None:
        raise LinuxError(EACCES, f"descriptor {directory} is no file that could be executed (mode {inode.mode:o})")
    if directory == AT_FDCWD or path.startswith("/"):
        return path, Opened(location, nameless=False, inaccessible=False)
    name = f"/dev/fd/{directory}/{path}" if path else f"/dev/fd/{directory}"
    return name, Opened(location, nameless=not path, inaccessible=task.process.files.is_cloexec(directory))


def _pointers(task: Task, address: int) -> list[int]:
    """A vector of pointers up to its NULL; no vector is an empty one."""
    found: list[int] = []
    while address:
        in_page = (-address % PAGE or PAGE) // _POINTER  # read as one: all of a page can be read, or nothing
        pointers = read_words(task.process.space, address, max(1, min(in_page, _AT_ONCE)))
        if 0 in pointers:
            return found + list(pointers[: pointers.index(0)])
        found += pointers
        if len(found) * _POINTER > _MAX_TOTAL:
            raise LinuxError(E2BIG, "the list of arguments has no end")
        address += _POINTER * len(pointers)
    return found


class _Strings:
    """The strings of one exec being copied in. The pages they lie in are read once: they are close together."""

    __slots__ = ("_budget", "_pages", "_space")

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._pages: dict[int, bytes] = {}
        self._budget = _MAX_TOTAL

    def copy(self, pointers: list[int]) -> list[bytes]:
        """The strings at `pointers`. They are touched from the last one to the first, as copy_strings does it."""
        found: list[bytes] = []
        first, content, left = -PAGE, b"", self._budget
        for address in reversed(pointers):
            offset = address - first
            if not 0 <= offset < PAGE:
                offset = address % PAGE
                first = address - offset
                content = self._pages.get(first) or self._read(address)
            end = content.find(0, offset)
            text = content[offset:end] if end >= 0 else self._long(address)
            left -= len(text) + 1
            if left < 0:
                raise LinuxError(E2BIG, f"the arguments are more than {_MAX_TOTAL} bytes")
            found.append(text)
        self._budget = left
        found.reverse()
        return found

    def _read(self, address: int) -> bytes:
        """The whole page of `address`."""
        page = address & PAGE_MASK
        if len(self._pages) >= _MOST_PAGES:
            self._pages.clear()
        try:
            content = self._pages[page] = copy_in(self._space, page, PAGE)
        except LinuxError:
            raise LinuxError(EFAULT, f"the argument at {address:#x} cannot be read") from None
        return content

    def _long(self, address: int) -> bytes:
        """A string that goes on in the next page."""
        try:
            return read_string(self._space, address, MAX_STRING)
        except LinuxError as error:
            if error.errno == ENAMETOOLONG:
                raise LinuxError(E2BIG, f"an argument of more than {MAX_STRING - 1} bytes") from None
            raise LinuxError(EFAULT, f"the argument at {address:#x} cannot be read") from None
