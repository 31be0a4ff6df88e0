"""Finding PROGRAM as a shell does, in the files that the guest will see."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from errno import EACCES, ENOENT

from loadstone.errors import LinuxError

DEFAULT_PATH = "/bin:/usr/bin"
NOT_FOUND, CANNOT_EXECUTE = 127, 126


class HostView:
    """Where the host keeps what the guest sees at a path: `--root` and `--bind` as they apply to finding a program."""

    def __init__(self, root: str = "/", binds: Sequence[tuple[str, str]] = (), cwd: str = "/") -> None:
        self._root = "" if root == "/" else root.rstrip("/")
        self._binds = sorted(((target.rstrip("/"), source) for source, target in binds), reverse=True)
        self.cwd = cwd

    def host_path(self, path: str) -> str:
        """The host's path for the guest's `path`, relative paths starting at the guest's `cwd`."""
        full = os.path.normpath(os.path.join(self.cwd, path)) if self._binds or self._root else ""
        for target, source in self._binds:
            if full == target or full.startswith(target + "/"):
                return source + full[len(target) :]
        return self._root + full if full else os.path.join(self.cwd, path)

    def is_executable(self, path: str) -> bool:
        """Whether `path` is a regular file that may be executed. Raises LinuxError(EACCES) for one that may not."""
        host = self.host_path(path)
        try:
            mode = os.stat(host).st_mode
        except OSError as error:
            # An absolute symbolic link inside another root leads elsewhere on the host: let the guest's exec decide.
            if self._root and os.path.islink(host):
                return True
            if error.errno == EACCES:
                raise LinuxError(EACCES, f"{path} cannot be looked up") from error
            return False
        if stat.S_ISDIR(mode):
            return False
        if not os.access(host, os.X_OK):
            raise LinuxError(EACCES, f"{path} is not marked executable; chmod +x makes it so")
        return True


def find_program(name: str, search: str, view: HostView) -> str:
    """The path to execute for the command word `name`.

    A slash makes it a path, taken as it is. Else each directory of `search` in turn (an empty one is the current
    directory), without those that have no executable file of the name. Raises LinuxError: EACCES when files of the
    name were found but none may be executed, else ENOENT.
    """
    if not name:
        raise LinuxError(ENOENT, "the program's name is empty")
    if "/" in name:
        return name
    refused: LinuxError | None = None
    for directory in search.split(":"):
        path = f"{directory or '.'}/{name}"
        try:
            if view.is_executable(path):
                return path
        except LinuxError as error:
            refused = refused or error
    raise refused or LinuxError(ENOENT, f"no {name} in {search}")


def search_path(guest: Mapping[str, str], own: Mapping[str, str]) -> str:
    """PATH to search: the guest's, then Loadstone's own (a cleared environment has none), then the system's."""
    for environment in (guest, own):
        if "PATH" in environment:
            return environment["PATH"]
    return DEFAULT_PATH


def status_of(error: LinuxError) -> int:
    """The exit status that a shell gives a program that could not be executed."""
    if error.fatal_signal is not None:
        return 128 + error.fatal_signal
    return NOT_FOUND if error.errno == ENOENT else CANNOT_EXECUTE


def cannot_execute(name: str, error: LinuxError) -> int:
    """Say why PROGRAM could not be executed; the exit status."""
    from loadstone.cli.main import complain

    status = status_of(error)
    complain(f"{name}: {'command not found' if status == NOT_FOUND and '/' not in name else error}")
    return status
